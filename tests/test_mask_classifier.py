"""The classifier of faces: keras.applications' network and preprocessing, its losses, what learns, and its answers."""

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from retinamask import detectors
from retinamask.detectors import _keras, snapshots
from retinamask.detectors.mask_classifier import balanced_weights
from retinamask.inference.classify import Classifier, Ensemble

CLASSES = {"mask": 0, "no_mask": 1}
THREE = {**CLASSES, "worn_wrongly": 2}
SMALL = {"image_height": 32, "image_width": 32, "alpha": 0.35, "dense": (8,)}


def made(classes=CLASSES, **settings):
    return detectors.create("mask_classifier", classes, **{**SMALL, **settings})


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def classifier(detector, seed: int = 1, flip: bool = False) -> Classifier:
    return Classifier(detector, detector.inference_network(detector.network(seed)), flip)


@pytest.fixture(scope="module")
def small():
    detector = made()
    return detector, detector.network(seed=1)


@pytest.fixture(scope="module")
def asked(small):
    detector, network = small
    return Classifier(detector, detector.inference_network(network))


def test_pixels_are_prepared_as_keras_applications_does():
    keras = _keras.prepare()
    image = noise(48, 48)
    batch, scales = made(image_height=48, image_width=48).prepare([image])
    expected = keras.applications.mobilenet_v2.preprocess_input(image.astype(np.float32))
    np.testing.assert_allclose(batch[0], expected, atol=1e-6)
    assert scales == [1.0]


def test_a_face_is_stretched_to_the_input():
    faces = [noise(32, 32), noise(10, 80)]
    batch, scales = made(image_height=32, image_width=64).prepare(faces)
    assert batch.shape == (2, 32, 64, 3) and scales == [1.0, 0.8]
    expected = np.array(Image.fromarray(faces[0]).resize((64, 32), Image.Resampling.BILINEAR), float) / 127.5 - 1
    np.testing.assert_allclose(batch[0], expected, atol=1.01 / 127.5)
    assert (batch[1] != 0).mean() > 0.95


def test_the_backbone_is_keras_applications(small):
    keras = _keras.prepare()
    theirs = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None)
    for layer in theirs.layers[1:]:
        ours = small[1].get_layer(layer.name)
        assert [weight.shape for weight in ours.get_weights()] == [weight.shape for weight in layer.get_weights()]
        if ours.get_weights():
            layer.set_weights(ours.get_weights())
    image = noise(1, 32 * 32).reshape(1, 32, 32, 3) / np.float32(127.5) - 1
    features = keras.Model(small[1].input, small[1].get_layer("out_relu").output)
    np.testing.assert_allclose(features(image), theirs(image), atol=1e-5)


@pytest.mark.parametrize(("loss", "classes"), [("categorical", THREE), ("binary", CLASSES)])
def test_the_loss_is_the_log_loss_of_the_probabilities(loss, classes):
    _keras.prepare()
    import tensorflow

    detector = made(classes, loss=loss, class_weights=(1.0, 3.0, 0.5)[: len(classes)], dropout=0)
    network = detector.network(seed=3)
    images, _ = detector.prepare([noise(32, 32, seed) for seed in range(6)])
    labels = np.array([0, 1, len(classes) - 1, 0, -1, 1])
    logits = network(images)
    probabilities = detector.inference_network(network)(images).numpy()
    assert probabilities.shape == (6, len(classes))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    padded = tensorflow.constant(np.stack([labels, -np.ones(6)], 1), tensorflow.int32)
    batch = detector.targets(None, padded, None, (32, 32))
    known = labels >= 0
    weights = np.array([1.0, 3.0, 0.5])[labels[known]]
    arguments = {"labels": list(range(len(classes))), "sample_weight": weights}
    expected = sklearn.metrics.log_loss(labels[known], probabilities[known], normalize=False, **arguments)
    assert float(detector.losses(logits, batch)["classification_loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(detector.counts(batch)["classification_loss"]) == pytest.approx(weights.sum())


def test_balanced_weights_are_those_of_scikit_learn():
    labels = ["no_mask"] * 3 + ["mask"] * 7 + ["worn_wrongly"]
    expected = compute_class_weight("balanced", classes=np.array(list(THREE)), y=labels)
    assert balanced_weights(labels, THREE) == pytest.approx(tuple(expected))
    with pytest.raises(ValueError, match="no image of worn_wrongly"):
        balanced_weights(labels[:5], THREE)


def learning(network) -> set[str]:
    return {layer.name for layer in network.layers if layer.trainable and layer.trainable_weights}


def test_what_learns_in_each_phase():
    head = {"classifier_0", "classifier_logits"}
    detector = made(fine_tune_blocks=2)
    network = detector.network()
    last = {f"block_{number}_{part}" for number in (15, 16) for part in ("expand", "depthwise", "project")} | {"Conv_1"}
    assert learning(network) == head | last
    detector.freeze_backbone(network, True)
    assert learning(network) == head
    detector.freeze_backbone(network, False)
    assert learning(network) == head | last
    assert learning(made(fine_tune_blocks=0).network()) == head
    every = learning(made(fine_tune_blocks=18).network())
    assert "Conv1" in every and "expanded_conv_depthwise" in every and "bn_Conv1" not in every
    live = made(normalisation="live", fine_tune_blocks=0)
    network = live.network()
    assert {"Conv1", "bn_Conv1", "Conv_1_bn"} <= learning(network)
    live.freeze_backbone(network, True)
    assert learning(network) == head


def test_random_weights_learn_throughout_and_pretrained_ones_keep_their_statistics(monkeypatch):
    monkeypatch.setattr(detectors.named("mask_classifier"), "published_weights", lambda self, name: None)
    created = {weights: detectors.create_for("mask_classifier", CLASSES, weights) for weights in ("none", "imagenet")}
    assert {weights: each.settings.normalisation for weights, each in created.items()} == {
        "none": "live",
        "imagenet": "frozen",
    }
    asked_for = detectors.create_for("mask_classifier", CLASSES, "none", normalisation="frozen")
    assert asked_for.settings.normalisation == "frozen"


def test_dropout_follows_from_the_seed_and_the_count_of_updates():
    detector = made(dropout=0.5)
    batch, _ = detector.prepare([noise(32, 32, seed) for seed in range(4)])
    network = detector.network(seed=7)
    begun = network.get_weights()
    first, second = (network(batch, training=True).numpy() for _ in range(2))
    assert np.abs(first - second).max() > 1e-4
    network.set_weights(begun)
    np.testing.assert_array_equal(network(batch, training=True), first)
    np.testing.assert_array_equal(network(batch, training=True), second)
    np.testing.assert_array_equal(network(batch), network(batch))


def test_dropout_drops_its_share_and_keeps_the_mean():
    from retinamask.detectors.mask_classifier import replayed_dropout

    dropped = replayed_dropout(0.3, 5, "dropout")(np.ones((400, 100), np.float32), training=True).numpy()
    assert (dropped == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert np.unique(dropped).tolist() == pytest.approx([0, 1 / 0.7])


def test_faces_of_any_size_are_answered_in_batches(asked):
    faces = [noise(20, 20), noise(64, 30, 1), noise(3, 90, 2), noise(1, 1, 3), noise(32, 32, 4)]
    together, alone = asked(faces, batch_size=2), np.concatenate([asked([face]) for face in faces])
    assert together.shape == (5, 2) and together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert asked.classes == CLASSES and asked.margin == 0.2


def test_no_face_and_an_empty_face_are_no_special_case(asked):
    assert asked([]).shape == (0, 2)
    found = asked([np.zeros((0, 0, 3), np.uint8), noise(32, 32), np.zeros((0, 5, 3), np.uint8)])
    np.testing.assert_array_equal(found[[0, 2]], 0.5)
    np.testing.assert_allclose(found[1:2], asked([noise(32, 32)]), atol=1e-6)


def test_bgr_for_rgb_changes_the_answer(asked):
    face = noise(32, 32)
    assert np.abs(asked([face]) - asked([face[..., ::-1]])).max() > 1e-4


def test_a_flip_is_the_mean_of_both_sides_and_an_ensemble_that_of_its_members(small, asked):
    face = noise(30, 20)
    both = (asked([face]) + asked([face[:, ::-1]])) / 2
    flipped = Classifier(small[0], asked.network, flip=True)
    np.testing.assert_allclose(flipped([face]), both, atol=1e-6)
    other = made({"no_mask": 0, "mask": 1})
    second = classifier(other, seed=9)
    mean = (asked([face]) + second([face])[:, ::-1]) / 2
    ensemble = Ensemble([asked, second])
    np.testing.assert_allclose(ensemble([face]), mean, atol=1e-6)
    assert ensemble.classes == CLASSES and ensemble([]).shape == (0, 2)


def test_members_that_do_not_fit_are_refused(asked, small):
    three, wide = made(THREE), made(margin=0.5)
    with pytest.raises(ValueError, match="mask, no_mask and mask, no_mask, worn_wrongly; expected the same classes"):
        Ensemble([asked, Classifier(three, None)])
    with pytest.raises(ValueError, match=r"margins of 0.2 and 0.5"):
        Ensemble([asked, Classifier(wide, None)])


def test_a_snapshot_gives_the_same_answers(small, asked, tmp_path):
    detector, network = small
    record = {"kind": "training", "detector": detector.name, "classes": detector.classes, "settings": detector.record()}
    saved = snapshots.save(network, tmp_path / "masks.h5", record)
    face = noise(32, 32)
    np.testing.assert_array_equal(Classifier.load(tmp_path / "masks.h5")([face]), asked([face]))
    assert "32 x 32 px, classes mask, no_mask" in str(saved)


@pytest.mark.parametrize(
    ("classes", "settings", "message"),
    [
        ({"mask": 0}, {}, "a classifier of mask; expected at least two classes"),
        (THREE, {"loss": "binary"}, "loss is 'binary' with the 3 classes"),
        (CLASSES, {"class_weights": (1.0,)}, r"class_weights are \(1.0,\), expected one for each"),
        (CLASSES, {"class_weights": (1.0, -1.0)}, "class_weights is .*, expected 1e-06 to 1000000.0 each"),
        (CLASSES, {"image_height": 16}, "image_height is 16, expected 32 to 1024"),
        (CLASSES, {"dropout": 1.0}, "dropout is 1.0, expected 0 to 0.95"),
        (CLASSES, {"fine_tune_blocks": 19}, "fine_tune_blocks is 19, expected 0 to 18"),
        (CLASSES, {"pooling": "middle"}, "pooling is 'middle', expected average or max"),
        (CLASSES, {"dense": (0,)}, r"dense is \(0,\)"),
    ],
)
def test_impossible_settings_are_refused(classes, settings, message):
    with pytest.raises(ValueError, match=message):
        made(classes, **settings)
