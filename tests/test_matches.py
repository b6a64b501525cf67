"""Matching and what rests on it: equal to pycocotools', right where worked out by hand."""

import numpy as np
import pytest
from test_coco import CLASSES, pycocotools_evaluator, random_tables

from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table
from retinamask.evaluation import matches

# Two images with three faces: found, found twice, and missed; one false alarm.
TRUTH = make_table(
    [("a.jpg", 0, 0, 10, 10, "mask"), ("a.jpg", 20, 0, 30, 10, "no_mask"), ("b.jpg", 0, 0, 10, 10, "mask")]
)
FOUND = make_table(
    [
        ("a.jpg", 0, 0, 10, 10, "mask", 0.9),
        ("a.jpg", 0, 0, 10, 8, "mask", 0.8),
        ("b.jpg", 40, 40, 50, 50, "mask", 0.7),
        ("b.jpg", 0, 0, 10, 6, "mask", 0.6),
    ],
    DETECTION_COLUMNS,
)


@pytest.mark.parametrize("cases", [range(60), pytest.param(range(60, 500), marks=pytest.mark.slow)])
def test_average_precision_is_pycocotools(cases):
    for seed in cases:
        annotations, detections = random_tables(seed, images=4)
        if annotations["x1"].isna().all():
            continue
        precision = pycocotools_evaluator(annotations, detections).eval["precision"][:, :, :, 0, -1]
        expected = np.where(precision < 0, np.nan, precision).mean(axis=1)
        own = matches.average_precision(matches.match(annotations, detections, CLASSES))
        np.testing.assert_allclose(own, expected, atol=1e-12, err_msg=str(seed))


def test_an_image_that_counts_twice_is_two_images():
    annotations, detections = random_tables(3)
    twice = "images/03.jpg"
    doubled = []
    for table in (annotations, detections):
        again = table[table["image_path"] == twice].assign(image_path=twice + "x")  # sorts right after it
        columns = list(table.columns)
        doubled.append(make_table([*table.itertuples(index=False), *again.itertuples(index=False)], columns))
    found = matches.match(annotations, detections, CLASSES)
    copies = np.ones(len(found.boxes), int)
    copies[3] = 2
    expected = matches.average_precision(matches.match(*doubled, CLASSES))
    np.testing.assert_allclose(matches.average_precision(found, copies), expected, atol=0.02)  # order of equal scores


def test_precision_recall_and_f1_by_hand():
    table = matches.by_threshold(matches.match(TRUTH, FOUND, CLASSES))["mask"]
    assert table["score_threshold"].tolist() == [0.9, 0.8, 0.7, 0.6]
    assert table["precision"].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4])
    assert table["recall"].tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 2, 1])
    assert table["F1"].tolist() == pytest.approx([2 / 3, 1 / 2, 2 / 5, 2 / 3])
    assert matches.best_thresholds(matches.match(TRUTH, FOUND, CLASSES)) == {"mask": 0.9}  # of equal ones the strictest


def test_equal_scores_are_one_threshold():
    found = FOUND.assign(score=0.5)
    table = matches.by_threshold(matches.match(TRUTH, found, CLASSES))["mask"]
    assert table.to_dict("records") == [{"score_threshold": 0.5, "precision": 0.5, "recall": 1.0, "F1": 2 / 3}]


def test_intervals_hold_the_figure_and_narrow_with_more_images():
    widths = []
    for images in (20, 160):
        annotations, detections = random_tables(5, images)
        found = matches.match(annotations, detections, CLASSES)
        ends = matches.intervals(found)
        figures = matches.average_precision(found)
        assert ends["AP50"][0] < figures[0].mean() < ends["AP50"][1]
        assert ends["AP50/mask"][0] < figures[0, 0] < ends["AP50/mask"][1]
        assert ends["AP50/worn_wrong"] == (0, 0)  # never detected
        widths.append(ends["AP50"][1] - ends["AP50"][0])
    assert widths[1] < widths[0] / 2


def test_few_images_have_no_interval():
    assert matches.intervals(matches.match(TRUTH, FOUND, CLASSES)) == {}
