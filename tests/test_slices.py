"""Small faces in large images: squares of many sizes, found by a stand-in that sees no small ones."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from retinamask import model
from retinamask.detectors import snapshots
from retinamask.inference import two_stage
from retinamask.inference.detect import Detections
from retinamask.inference.slices import Slices
from retinamask.inference.suppression import filter_detections

SIDE = 200


class Shrinking:
    """Finds white and grey squares, ``mask`` and ``no_mask``, of 8 pixels or more once an image is resized to 200."""

    class_names = ("mask", "no_mask")
    detector = SimpleNamespace(settings=SimpleNamespace(image_size=SIDE))
    nms_threshold, concurrent = 0.5, True

    def __init__(self):
        self.calls = []

    def many(self, images_rgb):
        pass

    def __call__(self, images_rgb, score_threshold=0.05, suppress="any_class"):
        self.calls.append(len(images_rgb))
        return [self._look(image_rgb, score_threshold, suppress) for image_rgb in images_rgb]

    def _look(self, image_rgb, score_threshold, suppress):
        scale = SIDE / max(image_rgb.shape[:2])
        _, _, found, _ = cv2.connectedComponentsWithStats((image_rgb[..., 0] > 100).astype(np.uint8))
        found = found[1:][found[1:, 2] * scale >= 8]
        boxes_xyxy = np.c_[found[:, :2], found[:, :2] + found[:, 2:4]].astype(float)
        white = image_rgb[found[:, 1], found[:, 0], 0] > 200
        class_scores = np.where(white[:, None], [[0.9, 0.3]], [[0.4, 0.8]])
        return Detections(*filter_detections(boxes_xyxy, class_scores, score_threshold, suppress=suppress), 0.9)


@pytest.fixture
def street_rgb():
    """500 x 700 pixels with 30 small white faces, 5 of middle size and a large grey one."""
    image_rgb = np.zeros((500, 700, 3), np.uint8)
    faces = [(x, y, 12) for x in range(10, 690, 70) for y in (10, 60, 110)]
    faces += [(x, 160, 40) for x in range(10, 690, 140)]
    faces.append((100, 230, 250))
    for x, y, side in faces:
        image_rgb[y : y + side, x : x + side] = 150 if side == 250 else 255
    return image_rgb, sorted([x, y, x + side, y + side] for x, y, side in faces)


@pytest.mark.parametrize(("suppress", "each"), [("any_class", 1), ("per_class", 2)])
def test_every_face_is_found_once_of_each_class_that_counts(street_rgb, suppress, each):
    image_rgb, expected = street_rgb
    predictor = Shrinking()
    whole, sliced = predictor([image_rgb], 0.2, suppress)[0], Slices(predictor)([image_rgb], 0.2, suppress)[0]
    assert len(whole.scores) == 6 * each and len(sliced.scores) == 36 * each
    assert sorted(sliced.boxes_xyxy.tolist()) == sorted(expected * each)
    assert (np.diff(sliced.scores) <= 0).all() and sliced.best_score == 0.9
    large = sliced.boxes_xyxy[:, 2] - sliced.boxes_xyxy[:, 0] == 250
    assert sorted(sliced.labels[large]) == [1] if each == 1 else [0, 1]
    assert max(predictor.calls) == 4  # tiles in a call


def test_an_image_that_fits_is_looked_at_once_and_one_without_faces_has_none():
    predictor = Shrinking()
    small, dark = np.full((100, 200, 3), 255, np.uint8), np.zeros((300, 300, 3), np.uint8)
    found = Slices(predictor)([small, dark], 0.2)
    assert found[0].boxes_xyxy.tolist() == [[0, 0, 200, 100]] and predictor.calls == [2, 4]
    assert found[1].boxes_xyxy.shape == (0, 4) and found[1].scores.shape == found[1].labels.shape == (0,)


def test_smaller_tiles_show_smaller_faces(street_rgb):
    image_rgb, expected = street_rgb
    image_rgb[480:485, 600:605] = 255
    assert len(Slices(Shrinking())([image_rgb], 0.2)[0].scores) == 36
    found = Slices(Shrinking(), 120)([image_rgb], 0.2)[0]
    assert [600, 480, 605, 485] in found.boxes_xyxy.tolist() and len(found.scores) == 37
    with pytest.raises(ValueError, match="slices is 31, expected a side of tiles of at least 32 pixels"):
        Slices(Shrinking(), 31)
    for slices in (None, "a", 64.0):
        with pytest.raises(ValueError, match=f"slices is {slices!r}, expected True, False or the side of the tiles in"):
            model.load("a.h5", slices=slices)


def record_of(tmp_path, detector="retinanet", settings=None):
    record = {"detector": detector, "classes": {"mask": 0}, "settings": settings or {"image_size": 96}}
    return snapshots.Snapshot(tmp_path / "a.h5", {"kind": "training", **record})


def test_load_hands_size_backend_and_precision_on(tmp_path, monkeypatch):
    given, classifier = [], []
    monkeypatch.setattr(model.Predictor, "load", lambda *args, **options: given.append(options) or Shrinking())
    monkeypatch.setattr(two_stage.TwoStage, "load", lambda *args, **options: classifier.append(options))
    loaded = model.load(record_of(tmp_path), image_size=640, slices=True, backend="onnxruntime", precision="float32")
    assert isinstance(loaded.predictor, Slices) and loaded.predictor.concurrent
    assert loaded.predictor.tile is None and model.load(record_of(tmp_path), slices=400).predictor.tile == 400
    assert given.pop() == {"image_size": None, "backend": None, "precision": "auto"}
    assert given == [{"image_size": 640, "backend": "onnxruntime", "precision": "float32"}]
    model.load(record_of(tmp_path), "haar", backend="litert", margin=0.5)
    assert classifier == [{"backend": "litert", "precision": "auto", "margin": 0.5}]
    for options, name in (({"image_size": 64}, "image_size"), ({"slices": True}, "slices")):
        with pytest.raises(ValueError, match=f"{name} has no effect with a face detector, which resizes"):
            model.load(record_of(tmp_path), "haar", **options)


def test_backend_and_precision_are_of_exports(tmp_path):
    with pytest.raises(ValueError, match="a.h5: backend is openvino, but it runs in TensorFlow in float32; backend"):
        model.load(record_of(tmp_path), backend="openvino")
    with pytest.raises(ValueError, match="a.h5: precision is bfloat16, but it runs in TensorFlow in float32; backend"):
        model.load(record_of(tmp_path), precision="bfloat16")
    with pytest.raises(ValueError, match="image_size"):
        model.load(record_of(tmp_path), image_size=0)
