"""What an evaluation says beside COCO's figures, by hand and against other libraries."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_coco import CLASSES, pycocotools_evaluator, random_tables
from test_matches import FOUND, TRUTH

import retinamask as rm
from retinamask.dataset.annotations import BOX_COLUMNS, DETECTION_COLUMNS, make_table
from retinamask.evaluation import coco


def test_tables_show_intervals_and_best_thresholds():
    annotations, detections = random_tables(2, images=30)
    found = rm.evaluate(detections, annotations, CLASSES)
    table = found.table().set_index("name")
    assert table.loc["AP50", ["low", "high"]].tolist() == list(found.intervals["AP50"])
    assert table.loc["AR1", ["low", "high"]].isna().all()
    found = rm.evaluate(FOUND, TRUTH, CLASSES)
    assert found.table()["low"].isna().all()  # two images
    mask, no_mask, _ = found.class_table().to_dict("records")
    assert [mask[name] for name in ("threshold", "precision", "recall", "F1")] == pytest.approx([0.9, 1, 0.5, 2 / 3])
    assert np.isnan(no_mask["threshold"]) and no_mask["boxes"] == 1


def test_thresholds_chosen_elsewhere_are_taken():
    found = rm.evaluate(FOUND, TRUTH, CLASSES, thresholds={"mask": 0.65, "no_mask": 0.5})
    mask, no_mask, _ = found.class_table().to_dict("records")
    assert [mask[name] for name in ("threshold", "precision", "recall", "F1")] == pytest.approx([0.65, 1 / 3, 0.5, 0.4])
    assert [no_mask[name] for name in ("threshold", "recall", "F1")] == [0.5, 0, 0] and np.isnan(no_mask["precision"])
    assert found.shown["score"].tolist() == [0.9, 0.7] and found.best_thresholds == {"mask": 0.9}


def test_rows_are_told_even_if_tables_were_joined():
    again = TRUTH.assign(image_path=TRUTH["image_path"] + "x")
    found = rm.evaluate(FOUND, pd.concat([TRUTH, again]), CLASSES)
    assert (found.causes["cause"] == "missed").sum() == 1 + 3


def test_a_box_of_a_class_that_is_not_annotated_counts_as_a_mistake():
    found = make_table([("a.jpg", 50, 50, 60, 60, "no_mask", 0.95)], DETECTION_COLUMNS)
    evaluation = rm.evaluate(found, TRUTH.iloc[:1], CLASSES)
    assert evaluation.confusion().loc["background", "no_mask"] == 1 and "background" in set(
        evaluation.mistakes["cause"]
    )


def test_confusion_by_hand():
    """Each face has one box, of its best class: one is taken for mask, one is missed, one box is on nothing."""
    faces = [("a.jpg", 0, 0, 10, 10, "mask"), ("a.jpg", 50, 0, 60, 10, "no_mask"), ("b.jpg", 0, 0, 9, 9, "mask")]
    found = [
        ("a.jpg", 0, 0, 10, 10, "mask", 0.9),
        ("a.jpg", 0, 0, 10, 10, "no_mask", 0.6),  # the same face
        ("a.jpg", 50, 0, 60, 10, "no_mask", 0.5),
        ("a.jpg", 50, 0, 60, 10, "mask", 0.95),
        ("b.jpg", 50, 50, 60, 60, "mask", 0.92),
    ]
    counts = rm.evaluate(make_table(found, DETECTION_COLUMNS), make_table(faces), CLASSES).confusion()
    expected = pd.DataFrame(0.0, [*CLASSES, "background"], [*CLASSES, "missed"])
    expected.loc["mask"] = [1, 0, 0, 1]
    expected.loc["no_mask", "mask"] = expected.loc["background", "mask"] = 1
    expected.loc["background", "missed"] = np.nan
    pd.testing.assert_frame_equal(counts, expected)


@pytest.mark.parametrize("seed", range(3))
def test_figures_by_size_are_pycocotools_of_the_resized_boxes(seed):
    """With COCO's own ranges, whose edges 32 and 96 are put in the place of ours."""
    annotations, detections = random_tables(seed)
    scales = {path: 0.5 + 0.1 * number for number, path in enumerate(sorted(set(annotations["image_path"])))}
    resized = [
        table.assign(**table[BOX_COLUMNS].mul(table["image_path"].map(scales), axis=0))
        for table in (annotations, detections)
    ]
    expected = pycocotools_evaluator(*resized).stats
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco, "SIDES", (0, 32, 96))
        table = coco.by_size(annotations, detections, CLASSES, scales)
    assert table["AP"].tolist() == pytest.approx(expected[3:6]) and table["AR100"].tolist() == pytest.approx(
        expected[9:12]
    )
    assert table["boxes"].sum() == annotations["x1"].notna().sum()


def test_figures_by_size_are_of_the_faces_at_the_networks_input(tmp_path):
    """Images are halved, so faces have 20, 25 and 35 pixels; one image cannot be read, and its face is left out.

    Of the two smaller faces one is found, and one box is on none: 51 of COCO's 101 recalls are reached.
    """

    class Halving:
        @staticmethod
        def scale(size_wh):
            assert size_wh == (200, 100)
            return 0.5

    for name in ("a.png", "b.png"):
        Image.new("RGB", (200, 100)).save(tmp_path / name)
    (tmp_path / "broken.png").write_text("no picture")
    truth = [("a.png", 0, 0, 32, 50, "mask"), ("a.png", 100, 0, 170, 70, "mask"), ("b.png", 9, 9, 59, 59, "mask")]
    truth += [("broken.png", 0, 0, 50, 50, "mask")]
    found = [("a.png", 0, 0, 32, 50, "mask", 0.9), ("b.png", 120, 9, 160, 49, "mask", 0.8)]
    found += [("a.png", 100, 0, 170, 70, "mask", 0.7)]
    metrics = rm.evaluate(make_table(found, DETECTION_COLUMNS), make_table(truth), CLASSES)
    table = metrics.size_table(tmp_path, Halving).set_index("from")
    assert table["boxes"].to_dict() == {0: 0, 8: 0, 16: 2, 32: 1, 64: 0, 128: 0}
    assert table["AP50"].dropna().to_dict() == pytest.approx({16: 51 / 101, 32: 1})


def test_pictures_are_drawn_of_anything():
    for tables in (random_tables(1), (TRUTH, FOUND.iloc[:0])):
        annotations, detections = tables
        pictures = rm.evaluate(detections, annotations, CLASSES).pictures()
        assert list(pictures) == ["precision_recall", "thresholds", "confusion_matrix", "calibration", "errors"]
