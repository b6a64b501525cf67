"""YOLOv4-tiny put together: settings, boxes against OpenCV's NMS, training of a tiny network, starting weights."""

import numpy as np
import pytest

from retinamask import detectors
from retinamask.dataset import annotations
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import _keras, snapshots, starting_weights, yolov4_tiny
from retinamask.detectors.darknet import weights as darknet_weights
from retinamask.detectors.darknet.network import LOSSES
from retinamask.detectors.darknet.template import YOLOV4_TINY_ANCHORS
from retinamask.inference.convert import convert
from retinamask.training import distribution, input_pipeline
from retinamask.training.input_pipeline import Examples
from retinamask.training.learner import Learner
from retinamask.training.settings import AugmentationSettings, TrainingSettings
from retinamask.training.train import train


def convolution(filters: int) -> str:
    return f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize=3\nstride=2\npad=1\nactivation=leaky\n"


def head(mask: str, class_count: int = 2) -> str:
    filters = (class_count + 5) * 3
    return (
        f"[convolutional]\nsize=1\nstride=1\npad=1\nfilters={filters}\nactivation=linear\n"
        f"[yolo]\nmask={mask}\nanchors=6,8, 10,12, 16,20, 24,28, 32,36, 48,50\nclasses={class_count}\nnum=6\n"
        "scale_x_y=1.05\niou_loss=ciou\niou_normalizer=0.07\nignore_thresh=.7\n"
    )


POOL = "[maxpool]\nsize=2\nstride=2\n"

# Strides 2, 4, 8, 16 and 32 and a head; another head on the layer of stride 16
TINY_CFG = (
    "[net]\nwidth=96\nheight=96\nchannels=3\n"
    f"{convolution(8)}{convolution(12)}{POOL}{convolution(16)}{POOL}{head('3,4,5')}[route]\nlayers=-4\n{head('0,1,2')}"
)


@pytest.fixture(scope="module")
def tiny_yolo():
    return detectors.create("yolov4_tiny", CLASSES, cfg=TINY_CFG)


@pytest.fixture(scope="module")
def examples(tiny, tiny_yolo):
    return Examples(annotations.read_annotations(tiny / "annotations.csv", CLASSES), tiny, tiny_yolo)


def learner_of(detector, **changes) -> Learner:
    settings = TrainingSettings(**{"precision": "float32", "schedule": "constant", "seed": 1, **changes})
    return Learner(detector, settings, distribution.strategy(), "float32", "none")


def first_batch(examples, settings) -> dict:
    return next(iter(input_pipeline.dealt_out(distribution.strategy(), examples, settings, 0)))


def test_the_size_is_that_of_the_cfg_or_the_published_one():
    made = {size: detectors.create("yolov4_tiny", CLASSES, cfg=TINY_CFG, image_size=size) for size in (0, 160)}
    assert {size: each.settings.image_size for size, each in made.items()} == {0: 96, 160: 160}
    assert made[160].description.image_size == 160 and "width=160\nheight=160\n" in made[160].description.text
    published = detectors.create("yolov4_tiny", CLASSES)
    assert published.settings.image_size == 416 and published.canvas_wh([(10, 20)]) == (416, 416)
    np.testing.assert_array_equal(published.anchors_wh, YOLOV4_TINY_ANCHORS[2])


def test_a_record_describes_the_detector():
    anchors = tuple((float(side), float(side + 2)) for side in range(10, 100, 10))
    made = detectors.create("yolov4_tiny", CLASSES, image_size=320, levels=3, anchors=anchors, momentum=0.95)
    again = detectors.named("yolov4_tiny").from_record(CLASSES, made.record())
    assert again.settings == made.settings and again.description.text == made.description.text
    assert len(made.description.heads) == 3 and made.description.heads[0].stride == 32
    np.testing.assert_array_equal(again.anchors_wh, anchors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 400}, "image_size is 400, expected a multiple of 32"),
        ({"cfg": TINY_CFG, "image_size": 100}, "width=100 and height=100, expected multiples of 32"),
        ({"levels": 4}, "levels is 4, expected 2"),
        ({"momentum": 1.0}, "momentum is 1.0, expected"),
        ({"anchors": ((10.0, 10.0),)}, "anchors_wh has shape .1, 2., expected .6, 2."),
        ({"cfg": TINY_CFG, "anchors": ((1.0, 1.0),)}, "cfg and anchors are both given"),
        ({"cfg": TINY_CFG, "levels": 3}, "cfg and levels are both given"),
        (
            {"cfg": TINY_CFG.replace("classes=2", "classes=3").replace("filters=21", "filters=24")},
            "classes=3, expected",
        ),
        ({"cfg": TINY_CFG.replace("filters=21", "filters=255")}, "filters=255, expected .classes . 5."),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        detectors.create("yolov4_tiny", CLASSES, **settings)


def test_pixels_become_rgb_from_0_to_1(tiny_yolo):
    image = np.zeros((48, 96, 3), np.uint8)
    image[:, :, 0] = 255
    batch, scales = tiny_yolo.prepare([image])
    assert scales == [1.0] and batch.shape == (1, 96, 96, 3)
    np.testing.assert_array_equal(batch[0, 10, 10], [1, 0, 0])
    assert not batch[0, 48:].any()


def restless(detector, seed: int):
    """A network whose heads say something everywhere."""
    network = detector.network(seed)
    generator = np.random.default_rng(seed)
    for layer in detector.description.last_convolutions:
        kernel, bias = network.get_layer(f"conv_{layer.index:02d}").get_weights()
        drawn = [generator.normal(0, 0.5, part.shape) for part in (kernel, bias)]
        network.get_layer(f"conv_{layer.index:02d}").set_weights(drawn)
    return network


def expected_detections(detector, raws, canvas_wh, score_threshold: float, nms_threshold: float) -> list[tuple]:
    """Boxes of one image as Darknet has them, cut to the canvas, and thinned out for each class by OpenCV."""
    import cv2

    width, height = canvas_wh
    found = []
    for raw, one in zip(raws, detector.description.heads, strict=True):
        rows, columns = raw.shape[:2]
        for row, column, anchor in np.ndindex(rows, columns, len(one.mask)):
            x, y, w, h, *logits = raw[row, column].reshape(len(one.mask), -1)[anchor].astype(float)
            chances = 1 / (1 + np.exp(-np.array([x, y, *logits])))
            centre = (np.array([column, row]) + chances[:2] * 1.05 - 0.025) / [columns, rows] * canvas_wh
            half = np.exp([w, h]) * one.anchors_wh[anchor] / 2
            box = np.clip([*(centre - half), *(centre + half)], 0, [width - 1, height - 1] * 2)
            found.append((box, chances[2] * chances[3:]))
    kept = []
    for label in range(len(detector.classes)):
        boxes_xywh = [(*box[:2], *(box[2:] - box[:2])) for box, _ in found]
        scores = [float(scores[label]) for _, scores in found]
        for index in cv2.dnn.NMSBoxes(boxes_xywh, scores, score_threshold, nms_threshold):
            kept.append((scores[index], label, found[index][0]))
    return sorted(kept, key=lambda one: -one[0])


def test_detections_are_darknets_boxes_thinned_out_as_opencv_does(tiny_yolo):
    network, canvas_wh = restless(tiny_yolo, seed=4), (160, 64)
    images = np.random.default_rng(5).uniform(0, 1, (2, *canvas_wh[::-1], 3)).astype(np.float32)
    raws = [np.asarray(raw) for raw in network.predict_on_batch(images)]
    outputs = tiny_yolo.inference_network(network, score_threshold=0.2, nms_threshold=0.4).predict_on_batch(images)
    for image in range(2):
        expected = expected_detections(tiny_yolo, [raw[image] for raw in raws], canvas_wh, 0.2, 0.4)
        boxes, scores, labels = (np.asarray(output)[image] for output in outputs)
        assert 10 < len(expected) < 300 and boxes.shape == (300, 4)
        np.testing.assert_allclose(scores[: len(expected)], [score for score, _, _ in expected], rtol=1e-4)
        assert labels[: len(expected)].tolist() == [label for _, label, _ in expected]
        np.testing.assert_allclose(boxes[: len(expected)], [box for _, _, box in expected], atol=1e-2)
        assert (labels[len(expected) :] == -1).all() and (scores[len(expected) :] == -1).all()


def test_losses_of_a_batch_are_those_of_its_images_together(tiny_yolo, examples):
    batch = first_batch(examples, TrainingSettings(batch_size=2, precision="float32"))
    network = restless(tiny_yolo, seed=6)
    raws = network(tiny_yolo.network_input(batch["images"], batch["sizes_wh"]))
    whole = tiny_yolo.losses(raws, batch)
    alone = [
        tiny_yolo.losses([raw[place : place + 1] for raw in raws], {k: v[place : place + 1] for k, v in batch.items()})
        for place in range(2)
    ]
    assert set(whole) == set(LOSSES) == set(tiny_yolo.counts(batch))
    for name in LOSSES:
        assert float(whole[name]) == pytest.approx(sum(float(one[name]) for one in alone), rel=1e-5) and whole[name] > 0
        assert float(tiny_yolo.counts(batch)[name]) == 2


def test_one_head_is_enough(examples):
    """Keras gives its map bare, not in a list."""
    detector = detectors.create("yolov4_tiny", CLASSES, cfg=TINY_CFG.split("[route]")[0])
    network = restless(detector, seed=11)
    batch = first_batch(examples, TrainingSettings(batch_size=2, precision="float32"))
    images = detector.network_input(batch["images"], batch["sizes_wh"])
    raw = network(images)
    lost = detector.losses(raw, batch)
    alone = [
        detector.losses(raw[place : place + 1], {k: v[place : place + 1] for k, v in batch.items()}) for place in (0, 1)
    ]
    for name in LOSSES:
        assert float(lost[name]) == pytest.approx(sum(float(one[name]) for one in alone), rel=1e-5)
    boxes, scores, labels = (np.asarray(found) for found in detector.inference_network(network, 0.2, 0.4)(images))
    expected = expected_detections(detector, [raw[0].numpy()], (96, 96), 0.2, 0.4)
    assert boxes.shape == (2, 300, 4) and (labels[0] >= 0).sum() == len(expected) > 5
    np.testing.assert_allclose(scores[0, : len(expected)], [score for score, _, _ in expected], rtol=1e-4)


def test_a_step_loses_what_the_losses_say_divided_by_the_images(tiny_yolo, examples):
    learner = learner_of(tiny_yolo)
    batch = first_batch(examples, learner.settings)
    raws = learner.network(tiny_yolo.network_input(batch["images"], batch["sizes_wh"]), training=True)
    expected = {name: float(lost) / 4 for name, lost in tiny_yolo.losses(raws, batch).items()}
    found = learner.step(batch, 0)
    for name in LOSSES:
        assert float(found[name]) == pytest.approx(expected[name], rel=1e-4) and expected[name] > 0
    assert float(found["total_loss"]) == pytest.approx(sum(expected.values()), rel=1e-4)


def test_raw_maps_of_half_precision_give_losses_of_single_precision(tiny_yolo, examples):
    import tensorflow as tf

    batch = first_batch(examples, TrainingSettings(batch_size=2, precision="float32"))
    raws = restless(tiny_yolo, seed=7)(tiny_yolo.network_input(batch["images"], batch["sizes_wh"]))
    halved = [tf.cast(raw, tf.bfloat16) for raw in raws]
    expected = tiny_yolo.losses([tf.cast(raw, tf.float32) for raw in halved], batch)
    for name, lost in tiny_yolo.losses(halved, batch).items():
        assert lost.dtype == tf.float32 and float(lost) == float(expected[name])


def test_a_run_is_trained_converted_and_read_again(tiny_yolo, examples, tmp_path):
    """With mosaic and changing sizes; the converted snapshot detects what the last training snapshot's maps say."""
    varied = AugmentationSettings(mosaic=0.5, multi_scale=1.5)
    settings = TrainingSettings(
        epochs=1, steps=12, batch_size=2, schedule="darknet", augmentation=varied, precision="float32"
    )
    trained = train(examples, settings, tmp_path / "yolo")
    assert f"(yolov4_tiny, training model, 96 px, classes {', '.join(CLASSES)})" in str(trained.last)
    assert set(LOSSES) <= set(trained.log) and np.isfinite(trained.log[list(LOSSES)].to_numpy()).all()
    detector, network = detectors.load(trained.last, "training")
    assert detector.description.text == tiny_yolo.description.text
    images, _ = detector.prepare([np.random.default_rng(8).integers(0, 256, (96, 64, 3)).astype(np.uint8)])
    raws = [np.asarray(raw)[0] for raw in network.predict_on_batch(images)]
    expected = expected_detections(detector, raws, (96, 96), 0.001, 0.5)
    converted = convert(trained.last, score_threshold=0.001)
    _, again = detectors.load(snapshots.read(converted.weights), "inference")
    boxes, scores, labels = (np.asarray(output)[0] for output in again.predict_on_batch(images))
    assert (labels >= 0).sum() == len(expected) > 10
    np.testing.assert_allclose(scores[: len(expected)], [score for score, _, _ in expected], rtol=1e-4)
    assert sorted(map(tuple, boxes[: len(expected)].round(1))) == sorted(
        tuple(np.float32(box).round(1)) for *_, box in expected
    )


@pytest.mark.slow
def test_changing_sides_go_through_one_graph_in_parts_too(examples, monkeypatch):
    monkeypatch.setattr(input_pipeline, "UPDATES", 1)
    varied = AugmentationSettings(multi_scale=1.5)
    learner = learner_of(examples.detector, accumulate=2, learning_rate=1e-6, augmentation=varied, seed=0)
    seen = set()
    for step, batch in enumerate(
        input_pipeline.dealt_out(distribution.strategy(), examples, learner.settings, 0).take(4)
    ):
        seen.add(batch["images"].shape[1])
        assert np.isfinite(learner.step(batch, step)["total_loss"])
    assert seen == {64, 96, 128} and learner._update.experimental_get_tracing_count() == 2


def test_the_backbone_is_what_all_heads_stand_on():
    """YOLOv4-tiny: sections 0 to 27, of which 15 + 2 are convolutions; section 28 is the first head's own."""
    detector = detectors.create("yolov4_tiny", CLASSES, image_size=64)
    network = detector.network(0)
    detector.freeze_backbone(network, True)
    resting = [layer.name for layer in network.layers if not layer.trainable and layer.weights]
    shared = [layer.index for layer in detector.description.convolutions if layer.index <= 27]
    assert sorted(resting) == sorted(f"{kind}_{index:02d}" for kind in ("conv", "norm") for index in shared)
    assert max(shared) == 27 and network.get_layer("conv_28").trainable
    detector.freeze_backbone(network, False)
    assert all(layer.trainable for layer in network.layers)


def test_darknets_weights_and_an_h5_are_starts(tiny_yolo, tmp_path):
    network = restless(tiny_yolo, seed=9)
    darknet_weights.write(network, tiny_yolo.description, tmp_path / "tiny.weights")
    network.save_weights(tmp_path / "tiny.h5")
    for name in ("tiny.weights", "tiny.h5"):
        begun = tiny_yolo.network(seed=10)
        loaded = starting_weights.start(begun, tiny_yolo, str(tmp_path / name))
        assert loaded["source"].endswith(name) and not loaded["unmapped"] and loaded["layers"] >= 5
        for one, other in zip(network.get_weights(), begun.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(starting_weights.WeightsError, match="numbers, expected"):
        other = detectors.create("yolov4_tiny", CLASSES, image_size=64)
        starting_weights.start(other.network(), other, str(tmp_path / "tiny.weights"))


def test_published_weights_are_fetched_from_alexeyab(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(yolov4_tiny, "downloaded_from", lambda url, what: asked.append(url) or tmp_path)
    both = [detectors.create("yolov4_tiny", CLASSES, levels=levels) for levels in (2, 3)]
    assert [detector.published_weights("coco") for detector in both] == [tmp_path, tmp_path]
    base = "https://github.com/AlexeyAB/darknet/releases/download/darknet_yolo_v4_pre/"
    assert asked == [f"{base}yolov4-tiny.weights", f"{base}yolov4-tiny.conv.29"]
    with pytest.raises(starting_weights.WeightsError, match="no imagenet weights are published for yolov4_tiny"):
        both[0].published_weights("imagenet")


def test_own_anchors_come_from_the_boxes(examples):
    detector = detectors.create("yolov4_tiny", CLASSES, image_size=96)
    found = detector.with_anchors(examples.boxes)
    sizes_wh = np.concatenate([boxes[:, 2:] - boxes[:, :2] for boxes in examples.boxes])
    assert found.anchors_wh.shape == (6, 2) and (np.diff(found.anchors_wh.prod(1)) >= 0).all()
    assert sizes_wh.min() <= found.anchors_wh.min() and found.anchors_wh.max() <= sizes_wh.max()
    assert detectors.named("yolov4_tiny").from_record(CLASSES, found.record()).settings == found.settings


def test_layers_have_the_same_names_in_every_build(tiny_yolo):
    """Not numbered by how many were built before: snapshots are read by the order and names of layers."""
    _keras.prepare()
    names = [[layer.name for layer in tiny_yolo.inference_network(tiny_yolo.network()).layers] for _ in range(2)]
    assert names[0] == names[1]


def test_boxes_that_share_cell_and_anchor_are_counted_by_hand():
    """Of 96 pixels, cells of 32 and 16: two tiny boxes in one cell want one place, a third elsewhere its own."""
    detector = detectors.create("yolov4_tiny", CLASSES, image_size=96)
    tiny = np.float32([[2, 2, 7, 7], [8, 8, 13, 13], [50, 50, 55, 55], [2, 2, 7, 7]])
    reached = detector.reached(tiny, np.array([0, 0, 0, 1]), np.full((4, 2), 96))
    assert reached.tolist() == [True, False, True, True]
