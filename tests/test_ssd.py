"""SSD MobileNet V2 FPNLite: its parts against the zoo's configuration, keras.applications and sums done by hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from retinamask import detectors
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import _keras, snapshots
from retinamask.detectors.starting_weights import Loaded, WeightsError

NAME = "ssd_mobilenet_v2_fpnlite"
IMAGENET = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"


@pytest.fixture(scope="module")
def whole():
    """As in the zoo, but for two classes, and with a backbone that keeps its statistics."""
    detector = detectors.create(NAME, CLASSES, normalisation="frozen")
    return detector, detector.network(seed=1)


@pytest.fixture(scope="module")
def applications():
    return _keras.prepare().applications.MobileNetV2((96, 96, 3), include_top=False, weights=None)


@pytest.fixture(scope="module")
def small():
    """A narrow network that has seen some noise, so that no two statistics of its normalisation are the same."""
    detector = detectors.create(NAME, CLASSES, image_size=64, alpha=0.35, normalisation="live")
    network = detector.network(seed=1)
    network(np.random.default_rng(0).normal(0, 0.7, (4, 64, 64, 3)).astype(np.float32), training=True)
    return detector, network


@pytest.fixture(scope="module")
def again():
    """The same network once more, as it was in the beginning, without the weight penalty."""
    settings = {"image_size": 64, "alpha": 0.35, "normalisation": "live", "regularisation": 0.0}
    return detectors.create(NAME, CLASSES, **settings).network(seed=1)


def count(network, *starts) -> int:
    return sum(layer.count_params() for layer in network.layers if layer.name.startswith(starts))


def test_parameters_are_as_many_as_counted_by_hand(whole, applications):
    network = whole[1]
    assert applications.count_params() == 2_257_984
    assert count(network, "C3_reduced", "C4_reduced") + network.get_layer("P5").count_params() == 180_608
    assert count(network, "P3_", "P4_", "P6_", "P7_") == 4 * (9 * 128 + 128 * 128 + 4 * 128) == 72_192
    assert count(network, "head_conv") == 70_144 and count(network, "head_norm") == 10_240
    assert count(network, "head_boxes") == 1_152 + 516 * 6 and count(network, "head_classes") == 1_152 + 129 * 12
    assert network.count_params() == 2_598_116


def test_the_backbone_is_that_of_keras_applications(whole, applications):
    ours = {layer.name: layer for layer in whole[1].layers}
    for layer in applications.layers[1:]:
        assert [w.shape for w in layer.weights] == [w.shape for w in ours[layer.name].weights], layer.name


def multiscale_grid(image_size: int) -> np.ndarray:
    """The zoo's generator: levels 3 to 7, anchor scale 4, aspect ratios 1, 2, 0.5, two scales an octave; xyxy."""
    anchors = []
    for level in range(3, 8):
        stride = 2.0**level
        for row in range(-(-image_size // 2**level)):
            for column in range(-(-image_size // 2**level)):
                for ratio in (1.0, 2.0, 0.5):  # width / height
                    for scale in (2**0.0, 2**0.5):
                        width, height = 4 * stride * scale * ratio**0.5, 4 * stride * scale / ratio**0.5
                        x, y = (column + 0.5) * stride, (row + 0.5) * stride
                        anchors.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return np.array(anchors)


def test_anchors_are_those_of_the_zoos_generator(whole):
    from keras_retinanet.utils.anchors import AnchorParameters, anchors_for_shape

    own = whole[0].settings
    ratios, scales = np.float32(own.ratios), np.float32(own.scales)
    anchors = anchors_for_shape((640, 640), anchor_params=AnchorParameters(own.sizes, own.strides, ratios, scales))
    assert anchors.shape == (6 * (80**2 + 40**2 + 20**2 + 10**2 + 5**2), 4) == (51_150, 4)
    np.testing.assert_allclose(anchors, multiscale_grid(640), atol=1e-3)
    first_of_p3 = [  # the middle is (4, 4), the size 32 by 32 before scale and ratio
        [-12, -12, 20, 20],
        [-18.62742, -18.62742, 26.62742, 26.62742],  # 45.25483
        [-18.62742, -7.313708, 26.62742, 15.313708],  # 45.25483 x 22.627417
        [-28, -12, 36, 20],
        [-7.313708, -18.62742, 15.313708, 26.62742],
        [-12, -28, 20, 36],
    ]
    last_of_p7 = [  # the middle is (576, 576), the size 512 by 512
        [320, 320, 832, 832],
        [213.96133, 213.96133, 938.03867, 938.03867],  # 724.07734
        [213.96133, 394.98067, 938.03867, 757.01933],  # 724.07734 x 362.03867
        [64, 320, 1088, 832],
        [394.98067, 213.96133, 757.01933, 938.03867],
        [320, 64, 832, 1088],
    ]
    np.testing.assert_allclose(anchors[:6], first_of_p3, atol=1e-4)
    np.testing.assert_allclose(anchors[-6:], last_of_p7, atol=1e-3)


def test_targets_are_for_the_same_anchors(whole):
    import tensorflow

    box = multiscale_grid(640)[30_003]  # the fourth at its place on P3
    given = [[box]], [[1]], [[640, 640]]
    boxes, labels, sizes = (
        tensorflow.constant(value, kind) for value, kind in zip(given, ("float32", "int32", "int32"), strict=True)
    )
    matched = whole[0].targets(boxes, labels, sizes, (640, 640))["matched"]
    assert matched.shape == (1, 51_150) and matched[0, 30_003] == 0


def test_a_batch_gives_what_its_images_give_alone(small):
    images = np.random.default_rng(1).normal(0, 0.7, (3, 64, 64, 3)).astype(np.float32)
    together = small[1](images)
    for index in range(3):
        alone = small[1](images[index : index + 1])
        for output, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(output[index], single[0], atol=1e-5)
    assert together[0].shape == (3, 6 * (64 + 16 + 4 + 1 + 1), 4) and np.ptp(together[0], axis=0).max() > 0.01


def test_every_level_has_its_own_normalisation_and_shares_the_rest(small):
    network = small[1]
    means = [network.get_layer(f"head_norm_1_P{level}").moving_mean.numpy() for level in range(3, 8)]
    assert all(np.abs(one - other).max() > 1e-3 for one, other in zip(means, means[1:], strict=False))
    assert len([layer for layer in network.layers if layer.name.startswith("head_conv_")]) == 4


def test_the_same_seed_gives_the_same_weights_and_no_penalty_can_be_had(small, again):
    pairs = zip(again.trainable_weights, small[1].trainable_weights, strict=True)
    assert all((one.numpy() == other.numpy()).all() for one, other in pairs)
    kernels = [again.get_layer(f"head_conv_{number}").pointwise_kernel.numpy() for number in range(4)]
    assert all((one != other).all() for one, other in zip(kernels, kernels[1:], strict=False))
    assert again.losses == []


def test_scores_begin_at_a_hundredth_and_the_signal_neither_dies_nor_explodes(small):
    keras, network = _keras.prepare(), small[1]
    assert abs(network.get_layer("head_classes").bias.numpy() + 4.6).max() < 1e-6
    features = keras.Model(network.inputs, [network.get_layer(f"head_conv_{n}").get_output_at(0) for n in range(4)])
    images = np.random.default_rng(2).normal(0, 0.7, (4, 64, 64, 3)).astype(np.float32)
    assert all(0.2 < np.std(output) < 5 for output in features(images, training=True))


def test_the_penalty_is_on_the_kernels_that_the_zoo_penalises(small):
    network = small[1]
    squares = number = 0
    for weight in network.weights:
        layer, _, part = weight.name.removesuffix(":0").rpartition("/")
        if part in ("kernel", "depthwise_kernel") and layer not in ("head_boxes", "head_classes"):
            squares, number = squares + np.square(weight.numpy().astype(np.float64)).sum(), number + 1
    assert number == 52 + 3 + 4 + 4 == len(network.losses)  # backbone, 1x1, pyramid, tower
    assert sum(map(float, network.losses)) == pytest.approx(0.5 * 4e-5 * squares, rel=1e-5)


@pytest.mark.parametrize(("localization", "delta"), [("huber", 1.0), ("smooth_l1", 1 / 9)])
def test_losses_are_those_of_keras_over_the_four_numbers_of_a_box(localization, delta):
    """keras.losses.Huber averages over the four, as the zoo does; beyond delta smooth L1 is Huber over delta."""
    keras = _keras.prepare()
    import tensorflow

    detector = detectors.create(NAME, CLASSES, image_size=64, localization=localization)
    boxes = tensorflow.constant([[[8.0, 8, 44, 50], [30, 5, 60, 30]]])
    batch = {"images": np.zeros((1, 64, 64, 3), np.uint8), "boxes": boxes, "labels": tensorflow.constant([[0, 1]])}
    batch |= detector.targets(boxes, batch["labels"], tensorflow.constant([[64, 64]]), (64, 64))
    random = np.random.default_rng(0)
    outputs = random.normal(0, 1.5, (1, 516, 4)).astype("float32"), random.uniform(0.01, 0.9, (1, 516, 2))
    losses = detector.losses([tensorflow.constant(output, "float32") for output in outputs], batch)

    offsets, classes = (target.numpy() for target in detector.dense_targets(batch))
    positive, counted = offsets[..., 4] == 1, classes[..., 2] >= 0
    assert positive.sum() == detector.counts(batch)["localization_loss"] > 3
    huber = keras.losses.Huber(delta, reduction="sum")(offsets[positive][:, :4], outputs[0][positive]) / delta
    assert float(losses["localization_loss"]) == pytest.approx(float(huber), rel=1e-5)
    focal = keras.losses.BinaryFocalCrossentropy(True, alpha=0.25, gamma=2.0, reduction="sum", axis=-1)
    expected = 2 * focal(classes[counted][:, :2], outputs[1][counted])  # Keras averages over the two classes
    assert float(losses["classification_loss"]) == pytest.approx(float(expected), rel=1e-4)


def test_frozen_is_the_normalisation_of_the_backbone_alone(whole):
    detector, network = whole
    normalisations = [
        layer for layer in network.layers if isinstance(layer, _keras.prepare().layers.BatchNormalization)
    ]
    frozen = [layer.name for layer in normalisations if not layer.trainable]
    assert len(frozen) == 52 and len(normalisations) == 52 + 4 + 20
    assert not any(name.startswith(("P", "head")) for name in frozen)
    detector.freeze_backbone(network, frozen=True)
    learning = {layer.name for layer in network.layers if layer.trainable_weights}
    assert len(learning) == 3 + 2 * 4 + 4 + 20 + 2 and "P5" in learning and "Conv_1" not in learning
    detector.freeze_backbone(network, frozen=False)
    assert network.get_layer("Conv_1").trainable and not network.get_layer("Conv_1_bn").trainable


def test_imagenet_weights_load_and_give_the_same_features(whole, applications):
    path = Path(os.environ.get("RETINAMASK_DATA", Path(__file__).parents[2] / "shared"), "weights", IMAGENET)
    if not path.is_file():
        pytest.skip(f"no {path}; name the folder above weights/ in RETINAMASK_DATA")
    keras = _keras.prepare()
    detector, network = whole
    loaded = detector.load_file(network, path)
    assert (loaded.layers, loaded.in_part, loaded.unmapped) == (104, [], [])
    applications.load_weights(path)
    image = np.random.default_rng(3).uniform(-1, 1, (1, 96, 96, 3)).astype(np.float32)
    for stage in ("block_5_add", "block_12_add", "out_relu"):
        expected, found = (keras.Model(m.inputs, m.get_layer(stage).output)(image) for m in (applications, network))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_snapshot_of_other_classes_starts_all_but_the_layer_that_names_them(small, tmp_path):
    detector, network = small
    record = {"kind": "training", "detector": NAME, "classes": CLASSES, "settings": detector.record()}
    snapshot = snapshots.save(network, tmp_path / "a.h5", record)
    assert str(snapshot) == f"{snapshot.weights} ({NAME}, training model, 64 px, classes mask, no_mask)"
    other = detectors.create_for(NAME, {"face": 0}, str(snapshot.weights), image_size=64, alpha=0.35)
    assert other.settings.normalisation == "live"
    started = other.network(seed=2)
    loaded = other.load_file(started, snapshot.weights)
    assert (loaded.in_part, loaded.unmapped) == (["head_classes"], [])
    for layer in started.layers:
        if layer.name != "head_classes":
            for one, given in zip(layer.get_weights(), network.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(one, given)
    assert started.output_shape == [(None, None, 4), (None, None, 1)]


def test_weights_of_another_width_are_refused_and_foreign_layers_are_listed(small, again, tmp_path):
    keras, layers = _keras.prepare(), _keras.prepare().layers
    wide = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(32, 3, use_bias=False, name="Conv1")])
    before = again.get_layer("Conv1").get_weights()[0]
    wide.save_weights(tmp_path / "wide.h5")
    message = r"1 of the 1 layers .* Conv1: \[\(3, 3, 3, 32\)\], expected \[\(3, 3, 3, 16\)\]; is it .* another width"
    with pytest.raises(WeightsError, match=message):
        small[0].load_file(again, tmp_path / "wide.h5")
    assert (again.get_layer("Conv1").get_weights()[0] == before).all()
    narrow = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(16, 3, use_bias=False, name="Conv1")])
    narrow.add(layers.Dense(5, name="predictions"))
    narrow.save_weights(tmp_path / "narrow.h5")
    assert small[0].load_file(again, tmp_path / "narrow.h5") == Loaded(1, [], ["predictions"])
    assert (again.get_layer("Conv1").get_weights()[0] == narrow.get_weights()[0]).all()
    again.get_layer("Conv1").set_weights([before])


def test_pixels_become_minus_one_to_one_in_the_order_rgb(small):
    batch, _ = small[0].prepare([np.full((32, 64, 3), (255, 0, 51), np.uint8)])
    np.testing.assert_allclose(batch[0, 0, 0], [1, -1, 51 / 127.5 - 1], atol=1e-6)
    assert (batch[0, 32:] == 0).all()


def test_a_snapshot_gives_the_same_and_boxes_come_from_the_zoos_anchors(small, again, tmp_path):
    detector, network = small
    network.get_layer("head_classes").bias.assign(np.linspace(-3, 0, 12))
    record = {"kind": "training", "detector": NAME, "classes": CLASSES, "settings": detector.record()}
    detectors.load_weights(again, snapshots.save(network, tmp_path / "a.h5", record).weights)
    image = np.random.default_rng(4).normal(0, 0.7, (1, 64, 64, 3)).astype(np.float32)
    for one, other in zip(network(image), again(image), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    converted = detector.inference_network(network)
    model = _keras.prepare().Model(converted.inputs, [*converted.outputs, converted.get_layer("anchors").output])
    boxes, scores, _, anchors = model(image)
    assert boxes.shape == (1, 300, 4) and (scores[0, :10].numpy() > 0.05).all()
    np.testing.assert_allclose(anchors[0], multiscale_grid(64), atol=1e-3)


def test_published_weights_are_where_keras_applications_has_them(monkeypatch, tmp_path):
    def get_file(name, origin, cache_subdir):
        assert cache_subdir == "models"
        asked.append((name, origin))
        return tmp_path / name

    asked = []
    monkeypatch.setattr(_keras.prepare().utils, "get_file", get_file)
    detectors.create(NAME, CLASSES).published_weights("imagenet")
    folder = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    assert asked == [(IMAGENET, folder + IMAGENET)]
    with pytest.raises(WeightsError, match=r"unpack http://.*coco17_tpu-8.tar.gz .*checkpoint/ckpt-0"):
        detectors.create(NAME, CLASSES).published_weights("coco")
    with pytest.raises(WeightsError, match=r"for alpha 0.35, 0.5, .*not for 0.6"):
        detectors.create(NAME, CLASSES, alpha=0.6).published_weights("imagenet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 600}, "image_size is 600, expected .* multiple of 32"),
        ({"image_size": 32}, "image_size is 32"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"normalisation": "warm"}, "normalisation is 'warm', expected frozen or live"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"localization": "giou"}, "localization is 'giou', expected huber or smooth_l1"),
        ({"regularisation": -1.0}, "regularisation is -1.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        detectors.create(NAME, CLASSES, **settings)


def test_the_record_gives_the_same_detector():
    detector = detectors.create(NAME, CLASSES, image_size=320, alpha=0.5, scales=(1.0, 1.5))
    assert type(detector).from_record(CLASSES, detector.record()).settings == detector.settings
