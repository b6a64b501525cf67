"""Causes of wrong boxes, worked out by hand, and what mending them brings."""

import numpy as np
import pytest
from test_coco import CLASSES, random_tables

from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table
from retinamask.evaluation import coco
from retinamask.evaluation.errors import CAUSES, find_causes, gains

TRUTH = make_table(
    [("a.jpg", 0, 0, 10, 10, "mask"), ("a.jpg", 50, 0, 60, 10, "no_mask"), ("b.jpg", 0, 0, 10, 10, "mask")]
)


def one(*rows):
    return make_table([("a.jpg", *row) for row in rows], DETECTION_COLUMNS)


@pytest.mark.parametrize(
    ("row", "cause", "annotation"),
    [
        ((0, 0, 10, 8, "mask", 0.5), "right", 0),
        ((0, 0, 10, 4, "mask", 0.5), "poor box", 0),
        ((0, 0, 10, 8, "no_mask", 0.5), "wrong class", 0),
        ((0, 0, 10, 4, "no_mask", 0.5), "wrong class and poor box", 0),
        ((20, 20, 30, 30, "mask", 0.5), "background", -1),
        ((0, 0, 100, 100, "mask", 0.5), "background", -1),  # IoU 0.01
    ],
)
def test_a_cause_by_hand(row, cause, annotation):
    found = find_causes(TRUTH, one(row), CLASSES)
    assert found[["cause", "annotation"]].iloc[0].tolist() == [cause, annotation]
    reached = {0} if cause in ("right", "poor box", "wrong class") else set()
    assert set(found.loc[found["cause"] == "missed", "annotation"]) == {0, 1, 2} - reached
    assert len(found) == 1 + 3 - len(reached)


def test_the_more_confident_of_two_boxes_is_right():
    found = find_causes(TRUTH, one((0, 0, 10, 8, "mask", 0.5), (0, 0, 10, 10, "mask", 0.4)), CLASSES)
    assert found["cause"].tolist()[:2] == ["right", "duplicate"]
    assert found["iou"].tolist()[:2] == pytest.approx([0.8, 1.0])


def test_what_mending_brings_by_hand():
    """Of a face of each class, no_mask is called mask and the mask has a poor box: AP50 is 0."""
    truth = TRUTH.iloc[:2]
    found = one((50, 0, 60, 10, "mask", 0.9), (0, 0, 10, 4, "mask", 0.8))
    table = gains(truth, found, CLASSES, find_causes(truth, found, CLASSES)).set_index("cause")
    assert table["count"].to_dict() == {**dict.fromkeys(CAUSES, 0), "wrong class": 1, "poor box": 1}
    # The class put right: no_mask has AP50 1. The box put right: mask has it in second place, precision 1/2.
    assert table["gain"].to_dict() == pytest.approx({**dict.fromkeys(CAUSES, 0), "wrong class": 0.5, "poor box": 0.25})


def test_an_image_stays_when_its_missed_faces_are_mended():
    """Its box on background still counts, before the right one of the other image: AP50 is 1/4, mended 1/2."""
    truth = make_table([("a.jpg", 0, 0, 10, 10, "mask"), ("b.jpg", 0, 0, 10, 10, "mask")])
    rows = [("a.jpg", 50, 50, 60, 60, "mask", 0.9), ("b.jpg", 0, 0, 10, 10, "mask", 0.5)]
    found = make_table(rows, DETECTION_COLUMNS)
    table = gains(truth, found, CLASSES, find_causes(truth, found, CLASSES)).set_index("cause")
    assert table.loc["missed", "gain"] == pytest.approx(1 / 2 - 51 / 101 / 2)  # 51 of COCO's 101 recalls are reached


@pytest.mark.parametrize("seed", range(5))
def test_every_box_has_one_cause_and_mending_never_harms(seed):
    annotations, detections = random_tables(seed)
    found = find_causes(annotations, detections, CLASSES)
    boxes = found[found["cause"] != "missed"]
    assert len(boxes) == len(detections) and set(found["cause"]) <= {"right", *CAUSES}
    missed, right = (set(found.loc[found["cause"] == cause, "annotation"]) for cause in ("missed", "right"))
    assert not missed & right
    table = gains(annotations, detections, CLASSES, found)
    assert (table["gain"] > -1e-9).all() and table["gain"].max() > 0
    ap50 = coco.evaluate(annotations, detections, CLASSES)["AP50"]
    assert (ap50 + table["gain"] < 1 + 1e-9).all() and np.isfinite(table["gain"]).all()
