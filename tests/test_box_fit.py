"""Boxes in another convention: what was done to them is found again."""

import numpy as np
import pytest

from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table
from retinamask.inference.box_fit import BoxFit, Fitted, fit_boxes
from retinamask.inference.detect import Detections

HEADS = BoxFit(0.02, -0.15, 1.3, 1.6)  # as of a detector of faces and annotated heads


def drawn(images: int = 8):
    """Two faces an image, found by a detector of faces, and annotated as heads; some annotations are sloppy."""
    random = np.random.default_rng(0)
    truth, found = [], []
    for number in range(images):
        for left in (20, 220):
            box = np.array([left, 60, left + 50 + random.uniform(0, 30), 120 + random.uniform(0, 30)])
            (head,) = HEADS(box[None])
            head += random.normal(0, 8, 4) * (random.random() < 0.2)
            truth.append((f"{number}.jpg", *head, "mask"))
            found.append((f"{number}.jpg", *box, "no_mask", random.uniform(0.5, 1)))
        found.append((f"{number}.jpg", 300, 300, 350, 350, "mask", 0.9))  # on no face
        found.append((f"{number}.jpg", 30, 70, 60, 100, "mask", 0.4))  # a weaker one on the first
    return make_table(truth), make_table(found, DETECTION_COLUMNS)


def test_what_was_done_to_the_boxes_is_found():
    annotations, detections = drawn()
    assert fit_boxes(detections, annotations) == pytest.approx(HEADS, abs=0.01)
    assert fit_boxes(detections.sample(frac=1, random_state=1), annotations) == fit_boxes(detections, annotations)


def test_too_few_faces_are_refused():
    annotations, detections = drawn(images=4)
    with pytest.raises(ValueError, match="8 of 8 annotated faces were found, expected at least 10"):
        fit_boxes(detections, annotations)


def test_a_box_by_hand():
    assert BoxFit(0.1, -0.2, 1.5, 2)(np.array([[10.0, 10, 20, 30]])).tolist() == [[8.5, -4, 23.5, 36]]
    assert BoxFit(0, 0, 1, 1)(np.empty((0, 4))).shape == (0, 4)
    back = BoxFit(0.1, -0.2, 1.5, 2).inverse(np.array([[8.5, -4, 23.5, 36]]))
    np.testing.assert_allclose(back, [[10, 10, 20, 30]])


def test_a_fitted_predictor_cuts_its_boxes_to_the_image():
    class Stub:
        class_names = ["mask"]

        def __call__(self, images_rgb, *options):
            return [Detections(np.array([[10.0, 10, 20, 30]]), np.array([0.9]), np.array([0]), 0.9) for _ in images_rgb]

    (found,) = Fitted(Stub(), (0.1, -0.2, 1.5, 2))([np.zeros((40, 22, 3), np.uint8)])
    assert found.boxes_xyxy.tolist() == [[8.5, 0, 22, 36]] and found.scores.tolist() == [0.9]


def test_weak_boxes_of_a_class_are_left_out():
    class Stub:
        class_names = ["mask", "no_mask"]

        def __call__(self, images_rgb, *options):
            assert options == (0.05, "per_class")
            scores, labels = np.array([0.9, 0.6, 0.4, 0.2]), np.array([0, 0, 1, 1])
            boxes_xyxy = np.array([[0.0, 0, 9, 9], [20, 20, 30, 30], [20, 20, 30, 31], [0, 0, 9, 9]])
            return [Detections(boxes_xyxy, scores, labels, 0.9) for _ in images_rgb]

    fitted = Fitted(Stub(), thresholds={"mask": 0.7, "no_mask": 0.4})
    (found,) = fitted([np.zeros((40, 40, 3), np.uint8)])
    assert found.scores.tolist() == [0.9, 0.4] and found.boxes_xyxy.tolist() == [[0, 0, 9, 9], [20, 20, 30, 31]]
    fitted = Fitted(Stub(), thresholds={"mask": 0.5, "no_mask": 0.1})
    (found,) = fitted([np.zeros((40, 40, 3), np.uint8)])
    assert found.labels.tolist() == [0, 0]  # one box a face


def test_a_box_that_leaves_the_image_goes():
    class Stub:
        class_names = ["mask"]

        def __call__(self, images_rgb, *options):
            return [Detections(np.array([[0.0, 0, 10, 10]]), np.array([0.9]), np.array([0]), 0.9)]

    (found,) = Fitted(Stub(), (0, -1, 1, 1))([np.zeros((40, 40, 3), np.uint8)])
    assert len(found.scores) == len(found.boxes_xyxy) == 0 and found.best_score == 0.9


@pytest.mark.parametrize("box_fit", [(0, 0, 1), (0, 0, 0, 1)])
def test_a_fit_that_is_none(box_fit):
    with pytest.raises(ValueError, match="expected right, down and two positive factors"):
        Fitted(None, box_fit)
