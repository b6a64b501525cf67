"""The filter after the network: keras-retinanet's `FilterDetections` on random boxes and behind a real network."""

import cv2
import numpy as np
import pandas as pd
import pytest

from retinamask import detectors
from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table
from retinamask.detectors import _keras
from retinamask.inference.detect import any_class
from retinamask.inference.suppression import SUPPRESS, filter_detections, non_maximum

CLASSES = {"mask": 0, "no_mask": 1, "worn_wrongly": 2}


def drawn(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that crowd and scores of which about half are strong, some of them equal."""
    random = np.random.default_rng(seed)
    centres, sides = random.uniform(0, 300, (count, 2)), random.uniform(0, 120, (count, 2))
    boxes_xyxy = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).clip(0, 300)
    return boxes_xyxy.astype(np.float32), random.beta(0.5, 2, (count, classes)).round(4).astype(np.float32)


def by_keras(boxes_xyxy, class_scores, suppress: str, score_threshold=0.05, nms_threshold=0.5):
    _keras.prepare()
    from keras_retinanet.layers.filter_detections import filter_detections as theirs

    found = theirs(
        boxes_xyxy,
        class_scores,
        class_specific_filter=suppress == "per_class",
        score_threshold=score_threshold,
        nms_threshold=nms_threshold,
    )
    boxes, scores, labels = (each.numpy() for each in found)
    return boxes[labels >= 0], scores[labels >= 0], labels[labels >= 0]


def assert_same(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("suppress", SUPPRESS)
@pytest.mark.parametrize(("count", "classes"), [(0, 2), (1, 1), (200, 2), (3000, 3), (12_000, 2)])
def test_it_is_keras_retinanet_s_filter(count, classes, suppress):
    boxes_xyxy, class_scores = drawn(count, classes, seed=count)
    for thresholds in ({}, {"score_threshold": 0.4, "nms_threshold": 0.2}, {"nms_threshold": 0.95}):
        found = filter_detections(boxes_xyxy, class_scores, suppress=suppress, **thresholds)
        assert_same(found, by_keras(boxes_xyxy, class_scores, suppress, **thresholds))
        assert len(found[1]) > 0 or not count or "score_threshold" in thresholds


@pytest.mark.parametrize("suppress", SUPPRESS)
def test_inverted_boxes_of_an_untrained_network_suppress_as_in_tensorflow(suppress):
    boxes_xyxy, class_scores = drawn(3000, 2, seed=5)
    boxes_xyxy[::3] = boxes_xyxy[::3][:, [2, 1, 0, 3]]
    boxes_xyxy[1::3] = boxes_xyxy[1::3][:, [2, 3, 0, 1]]
    assert_same(
        filter_detections(boxes_xyxy, class_scores, suppress=suppress), by_keras(boxes_xyxy, class_scores, suppress)
    )


def test_a_crowd_in_which_few_boxes_stay_is_walked_to_its_end():
    boxes_xyxy, class_scores = drawn(9000, 2, seed=1)
    boxes_xyxy[:, 2:] = boxes_xyxy[:, :2] + np.float32(150)  # so large that a few suppress all others
    found = filter_detections(boxes_xyxy, class_scores, nms_threshold=0.3)
    assert 0 < len(found[1]) < 300
    assert_same(found, by_keras(boxes_xyxy, class_scores, "any_class", nms_threshold=0.3))


@pytest.mark.parametrize("name", ["retinanet", "ssd_mobilenet_v2_fpnlite", "yolov4_tiny"])
def test_it_is_the_filter_that_a_converted_network_has(name):
    settings = {"backbone": "mobilenet128_0.25", "normalisation": "live"} if name == "retinanet" else {}
    detector = detectors.create(name, CLASSES, image_size=96, **settings)
    network = detector.network(seed=3)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 3)).astype(np.float32)
    converted = detector.inference_network(network, score_threshold=1e-6)  # it has learnt nothing and hardly scores
    expected = converted.predict_on_batch(images)
    outputs = network.predict_on_batch(images)
    class_scores = detector.scores(outputs)
    assert class_scores.shape[::2] == (2, len(CLASSES))
    for index in range(2):
        boxes_xyxy = detector.boxes(outputs, index, np.arange(class_scores.shape[1]), (96, 96))
        found = filter_detections(boxes_xyxy, class_scores[index], 1e-6, suppress="per_class")
        there = expected[2][index] >= 0
        assert there.sum() > 10
        np.testing.assert_allclose(found[0], expected[0][index][there], atol=1e-3)
        np.testing.assert_allclose(found[1], expected[1][index][there], atol=1e-6)
        np.testing.assert_array_equal(found[2], expected[2][index][there])


def test_one_face_has_one_box_unless_classes_are_counted_apart():
    boxes_xyxy = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], np.float32)
    class_scores = np.array([[0.9, 0.3], [0.2, 0.8], [0.1, 0.5]], np.float32)
    found = filter_detections(boxes_xyxy, class_scores, 0.25)
    assert found[1].tolist() == pytest.approx([0.9, 0.5]) and found[2].tolist() == [0, 1]
    found = filter_detections(boxes_xyxy, class_scores, 0.25, suppress="per_class")
    assert found[1].tolist() == pytest.approx([0.9, 0.8, 0.5]) and found[2].tolist() == [0, 1, 1]
    assert len(filter_detections(boxes_xyxy, class_scores, 0.25, max_detections=1)[1]) == 1
    assert len(filter_detections(boxes_xyxy, class_scores, np.float32(0.5))[1]) == 2  # at the threshold is above it
    with pytest.raises(ValueError, match="suppress is 'all', expected any_class or per_class"):
        filter_detections(boxes_xyxy, class_scores, suppress="all")


def test_a_table_that_was_suppressed_per_class_is_drawn_with_one_box_a_face():
    rows = [
        ("a.jpg", 0.0, 0.0, 10.0, 10.0, "mask", 0.6),
        ("a.jpg", 1.0, 0.0, 11.0, 10.0, "no_mask", 0.8),
        ("b.jpg", *[None] * 6),
        ("c.jpg", 0.0, 0.0, 10.0, 10.0, "mask", 0.6),
    ]
    table = any_class(make_table(rows, DETECTION_COLUMNS))
    pd.testing.assert_frame_equal(table.reset_index(drop=True), make_table(rows[1:], DETECTION_COLUMNS))


@pytest.mark.parametrize("nms_threshold", [0.2, 0.5, 0.9])
def test_suppression_is_opencv_s(nms_threshold):
    random = np.random.default_rng(0)
    corners = random.uniform(0, 60, (300, 2))
    boxes_xyxy = np.concatenate([corners, corners + random.uniform(5, 40, (300, 2))], axis=1)
    scores = random.uniform(0.1, 1, 300)
    boxes_xywh = np.concatenate([corners, boxes_xyxy[:, 2:] - corners], axis=1)
    expected = cv2.dnn.NMSBoxes(boxes_xywh.tolist(), scores.tolist(), 0.0, nms_threshold)
    assert non_maximum(boxes_xyxy, scores, nms_threshold).tolist() == list(expected)


def test_a_part_of_a_stronger_box_goes_only_if_asked_for():
    boxes_xyxy, scores = np.array([[0, 0, 100, 100], [10, 10, 50, 50], [60, 60, 140, 140]]), np.array([0.9, 0.8, 0.7])
    assert non_maximum(boxes_xyxy, scores, 0.5).tolist() == [0, 1, 2]
    assert non_maximum(boxes_xyxy, scores, 0.5, inside=0.7).tolist() == [0, 2]
    assert non_maximum(np.empty((0, 4)), np.empty(0), 0.5).tolist() == []


def test_of_very_many_boxes_the_strongest_stay():
    scores = np.random.default_rng(0).permutation(23_000) / 23_000
    corners = 10.0 * np.arange(23_000)[:, None] * [1, 1]
    kept = non_maximum(np.concatenate([corners, corners + 9], axis=1), scores, 0.5)
    assert scores[kept].tolist() == (np.arange(22_999, 20_999, -1) / 23_000).tolist()
