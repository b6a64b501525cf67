"""Snapshots of YOLOv4-tiny as Darknet's files: OpenCV, which we did not write, finds the same boxes with them."""

import cv2
import numpy as np
import pytest

from retinamask import detectors
from retinamask.cli import main
from retinamask.dataset import images
from retinamask.detectors import snapshots
from retinamask.detectors.darknet import cfg, weights
from retinamask.detectors.snapshots import Snapshot, SnapshotError
from retinamask.inference.convert import export_darknet
from retinamask.inference.detect import Predictor

CLASSES = {"no mask": 0, "mask": 1}
SIDE = 128
TRAINING = {"epoch": 3, "images": 40, "parameters": {"steps": 5, "batch_size": 4}}


def save(folder, levels: int, training: dict, score_threshold: float | None = None, name="yolo", classes=CLASSES):
    """A snapshot with random weights, statistics of normalisation too, that finds things of both classes."""
    detector = detectors.create("yolov4_tiny", classes, image_size=SIDE, levels=levels)
    network, generator = detector.network(seed=1), np.random.default_rng(2)
    for layer in network.layers:
        arrays = layer.get_weights()
        if len(arrays) == 4:  # gammas, betas, means, variances
            ranges = [(0.8, 1.5), (-0.3, 0.3), (-0.3, 0.3), (0.5, 1.5)]
            arrays = [generator.uniform(*bounds, array.shape) for bounds, array in zip(ranges, arrays, strict=True)]
        elif len(arrays) == 2:  # in front of a head
            arrays = [generator.normal(0, 0.01, arrays[0].shape), generator.normal(0, 0.3, (3, 5 + len(classes)))]
            arrays[1][:, 4] -= 1.5  # few objects
            arrays[1] = arrays[1].ravel()
        layer.set_weights(arrays)
    record = {"detector": detector.name, "classes": detector.classes, "settings": detector.record()}
    record |= {"kind": "training", "preprocessing": detector.preprocessing, "training": training}
    if score_threshold is not None:
        thresholds = {"score_threshold": score_threshold, "nms_threshold": 0.5}
        network = detector.inference_network(network, **thresholds)
        record |= {"kind": "inference", "inference": thresholds}
    return snapshots.save(network, folder / f"{name}.h5", record)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return save(tmp_path_factory.mktemp("snapshot"), 2, TRAINING)


@pytest.fixture(scope="module")
def photograph(tiny):
    """A drawn scene of 96 x 70 pixels, which is enlarged and padded for the network."""
    return images.read_image(min((tiny / "scenes").rglob("*.jpg")))[:70]


def opencv_finds(made, image_rgb, score_threshold: float, nms_threshold: float = 0.5) -> list[tuple]:
    """Class, score and box of what OpenCV's network and its own NMS find, the image fitted in as the export says."""
    height, width = image_rgb.shape[:2]
    scale = SIDE / max(height, width)
    fitted = images.resize(image_rgb, scale)
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    canvas[: fitted.shape[0], : fitted.shape[1]] = fitted
    network = cv2.dnn.readNetFromDarknet(str(made.cfg), str(made.weights))
    network.setInput(cv2.dnn.blobFromImage(canvas, 1 / 255, (SIDE, SIDE)))
    rows = np.concatenate(network.forward(network.getUnconnectedOutLayersNames()))
    corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], axis=1)
    corners = np.clip(corners * SIDE, 0, SIDE - 1)  # as keras-retinanet clips boxes
    found = []
    for label in range(len(CLASSES)):
        boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        for index in cv2.dnn.NMSBoxes(boxes_xywh.tolist(), rows[:, 5 + label].tolist(), score_threshold, nms_threshold):
            left, top, right, bottom = np.clip(corners[index] / scale, 0, (width, height) * 2)
            if left < right and top < bottom:  # something of it lies on the image, not on what fills it up
                found.append((label, rows[index, 5 + label], left, top, right, bottom))
    return sorted(found, key=lambda row: -row[1])


def assert_same_boxes(snapshot, photograph, folder, score_threshold: float) -> None:
    made = export_darknet(snapshot, folder)
    (ours,) = Predictor.load(snapshot)([photograph], score_threshold, "per_class")
    theirs = opencv_finds(made, photograph, score_threshold)
    assert len(theirs) == len(ours.scores) > 20 and set(ours.labels) == {0, 1}
    assert [row[0] for row in theirs] == ours.labels.tolist()
    np.testing.assert_allclose([row[1] for row in theirs], ours.scores, atol=1e-4)
    np.testing.assert_allclose([row[2:] for row in theirs], ours.boxes_xyxy, atol=0.1)


def test_opencv_finds_the_same_boxes(snapshot, photograph, tmp_path):
    assert_same_boxes(snapshot, photograph, tmp_path, 0.25)  # OpenCV makes scores below 0.2 zero


@pytest.mark.slow
def test_opencv_finds_the_same_boxes_with_three_heads(photograph, tmp_path):
    assert_same_boxes(save(tmp_path, 3, TRAINING), photograph, tmp_path / "out", 0.5)


def test_the_three_files(snapshot, tmp_path):
    made = export_darknet(snapshot, tmp_path / "new" / "out")
    assert [path.name for path in made[:3]] == ["yolo.cfg", "yolo.weights", "yolo.names"]
    assert made.names.read_text() == "no mask\nmask\n" and made.image_size == SIDE
    described = cfg.describe(cfg.read(made.cfg), "cfg", class_count=2)
    assert described.image_size == SIDE and len(described.heads) == 2
    found = weights.read(made.weights)
    assert found.seen == 60  # three epochs of five steps of four images
    assert len(found.numbers) == sum(layer.parameters for layer in described.convolutions)


@pytest.mark.slow
def test_a_converted_snapshot_gives_the_same_files(snapshot, tmp_path):
    converted = save(tmp_path / "converted", 2, {**TRAINING, "parameters": {"steps": 0}}, score_threshold=0.1)
    one, other = export_darknet(snapshot, tmp_path / "one"), export_darknet(converted, tmp_path / "other")
    assert one.cfg.read_bytes() == other.cfg.read_bytes()
    assert (weights.read(one.weights).numbers == weights.read(other.weights).numbers).all()
    assert weights.read(other.weights).seen == 120  # three epochs of all forty images


def test_nothing_is_replaced_unasked(snapshot, tmp_path, capsys):
    arguments = ["darknet-weights", str(snapshot.weights), "--out", str(tmp_path)]
    (tmp_path / "yolo.names").write_text("mine")
    assert main(arguments) == 2
    assert "yolo.names exists; choose another folder, or replace it with --force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["yolo.names"] and (
        tmp_path / "yolo.names"
    ).read_text() == "mine"
    assert main([*arguments, "--force"]) == 0
    said = capsys.readouterr().out
    assert f"fitted into {SIDE} x {SIDE} at the top left" in said and "yolo.weights" in said
    assert len(list(tmp_path.iterdir())) == 3 and (tmp_path / "yolo.names").read_text() == "no mask\nmask\n"


@pytest.mark.parametrize(
    ("detector", "classes", "message"),
    [
        ("retinanet", CLASSES, "is a retinanet, for which Darknet has no layers; expected a yolov4_tiny"),
        ("yolov4_tiny", {"no\nmask": 0}, r"class 'no\\nmask' has a line end or control character"),
    ],
)
def test_what_cannot_be_written(detector, classes, message, tmp_path):
    record = {"kind": "training", "detector": detector, "classes": classes, "settings": {}}
    with pytest.raises(SnapshotError, match=message):
        export_darknet(Snapshot(tmp_path / "x.h5", record), tmp_path / "out")
    assert not (tmp_path / "out").exists()
