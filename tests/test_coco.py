"""COCO figures: equal to pycocotools', right where worked out by hand, refused where they would mislead."""

import contextlib
import io
import json

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinamask.dataset.annotations import BOX_COLUMNS, DETECTION_COLUMNS, make_table
from retinamask.evaluation import coco
from retinamask.evaluation.evaluate import evaluate

CLASSES = {"mask": 0, "no_mask": 1, "worn_wrong": 2}
EMPTY = (None,) * 5
NOTHING_FOUND = make_table([], DETECTION_COLUMNS)

ONE_FACE = make_table([("a.jpg", 0, 0, 100, 100, "mask")])
ONE_HIT = make_table([("a.jpg", 0, 0, 100, 100, "mask", 0.9)], DETECTION_COLUMNS)


# --- Cases worked out by hand ---


def test_nothing_found_gives_zeros():
    metrics = coco.evaluate(ONE_FACE, NOTHING_FOUND, CLASSES)
    assert metrics["AP"] == metrics["AP50"] == metrics["AR1"] == metrics["APl"] == 0
    assert metrics["APs"] is metrics["ARm"] is None  # no small and no medium face to find
    figures = ("AP", "AP50", "AP75", "AR100")
    assert metrics["per_class"]["mask"] == dict.fromkeys(figures, 0) | {"boxes": 1}
    assert metrics["per_class"]["no_mask"] == dict.fromkeys(figures) | {"boxes": 0}
    assert (metrics["images"], metrics["boxes"]) == (1, 1)


def test_everything_found_gives_ones():
    metrics = coco.evaluate(ONE_FACE, ONE_HIT, CLASSES)
    assert metrics["AP"] == metrics["AP75"] == metrics["AR100"] == metrics["APl"] == pytest.approx(1)


def test_an_overlap_of_seven_tenths_counts_at_five_of_ten_thresholds():
    # 100 x 72 pixels of 100 x 100: IoU 0.72, which reaches 0.50, 0.55, 0.60, 0.65 and 0.70.
    detections = make_table([("a.jpg", 0, 0, 100, 72, "mask", 0.9)], DETECTION_COLUMNS)
    metrics = coco.evaluate(ONE_FACE, detections, CLASSES)
    assert (metrics["AP50"], metrics["AP75"]) == pytest.approx((1, 0))
    assert metrics["AP"] == pytest.approx(0.5)
    assert metrics["AR100"] == pytest.approx(0.5)


def test_two_faces_of_three_with_a_false_alarm_between():
    annotations = make_table([(f"{name}.jpg", 0, 0, 100, 100, "mask") for name in "abc"])
    detections = make_table(
        [
            ("a.jpg", 0, 0, 100, 100, "mask", 0.9),
            ("b.jpg", 200, 200, 300, 300, "mask", 0.8),
            ("b.jpg", 0, 0, 100, 100, "mask", 0.7),
        ],
        DETECTION_COLUMNS,
    )
    # Precision 1 up to recall 1/3 (0.00 to 0.33, 34 points), 2/3 up to recall 2/3 (0.34 to 0.66, 33 points).
    expected = (34 * 1 + 33 * 2 / 3) / 101
    metrics = coco.evaluate(annotations, detections, CLASSES)
    assert (metrics["AP"], metrics["AP50"]) == pytest.approx((expected, expected), abs=1e-9)
    assert metrics["AR1"] == pytest.approx(1 / 3)
    assert metrics["AR10"] == pytest.approx(2 / 3)

    curve = coco.precision_recall(annotations, detections, CLASSES)["mask"]
    assert curve["precision"].to_list() == pytest.approx([1.0] * 34 + [2 / 3] * 33 + [0.0] * 34)
    assert curve["score"].to_list() == pytest.approx([0.9] * 34 + [0.7] * 33 + [np.nan] * 34, nan_ok=True)


def test_a_detection_on_an_image_without_objects_is_a_false_alarm():
    annotations = make_table([("a.jpg", 0, 0, 100, 100, "mask"), ("empty.jpg", *EMPTY)])
    alarm = make_table([("empty.jpg", 0, 0, 100, 100, "mask", 0.95)], DETECTION_COLUMNS)
    metrics = coco.evaluate(annotations, pd.concat([ONE_HIT, alarm]), CLASSES)
    assert metrics["AP"] == pytest.approx(0.5)
    assert (metrics["images"], metrics["boxes"]) == (2, 1)


# --- Random tables against pycocotools ---


def random_tables(seed: int, images: int = 12) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Annotations and detections with empty images, misses, wrong classes, false alarms and equal scores.

    The third class is never detected.
    """
    generator = np.random.default_rng(seed)
    names = list(CLASSES)
    annotations, detections = [], []
    for number in range(images):
        path = f"images/{number:02d}.jpg"
        boxes = [random_box(generator) for _ in range(generator.integers(0, 6))]
        labels = generator.choice(names, len(boxes))
        annotations += [(path, *box, str(label)) for box, label in zip(boxes, labels, strict=True)]
        if not boxes:
            annotations.append((path, *EMPTY))
        jittered = [box + generator.normal(0, 0.06, 4) * (box[2] - box[0]) for box in boxes for _ in range(2)]
        found = [*jittered, *(random_box(generator) for _ in range(2))]
        for box in found:
            score = round(generator.random(), 1)  # one decimal, so that many scores are equal
            detections.append((path, *box, str(generator.choice(names[:2])), score))
    return make_table(annotations), make_table(detections, DETECTION_COLUMNS)


def random_box(generator: np.random.Generator) -> np.ndarray:
    """A box with sides from about 10 to 300 pixels, so that every area range occurs."""
    sides = np.exp(generator.uniform(np.log(10), np.log(300))) * generator.uniform(0.8, 1.25, 2)
    corner = generator.uniform(0, 300, 2)
    return np.array([*corner, *(corner + sides)])


def pycocotools_evaluator(annotations: pd.DataFrame, detections: pd.DataFrame) -> COCOeval:
    """The reference, with images by path and boxes by class and position."""
    ids = {path: number for number, path in enumerate(sorted(set(annotations["image_path"])), start=1)}

    def boxes(table):
        table = table.dropna(subset=["x1"]).sort_values(["image_path", "class_name", *BOX_COLUMNS])
        for number, row in enumerate(table.to_dict("records"), start=1):
            width, height = row["x2"] - row["x1"], row["y2"] - row["y1"]
            yield {
                "id": number,
                "image_id": ids[row["image_path"]],
                "category_id": CLASSES[row["class_name"]],
                "bbox": [row["x1"], row["y1"], width, height],
                "area": width * height,
                "iscrowd": 0,
                "score": row.get("score"),
            }

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": number} for number in ids.values()],
            "categories": [{"id": number, "name": name} for name, number in CLASSES.items()],
            "annotations": list(boxes(annotations)),
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(list(boxes(detections))), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def as_coco(value: float | None) -> float:
    return -1.0 if value is None else value


@pytest.mark.parametrize("seed", range(6))
def test_all_figures_equal_those_of_pycocotools(seed):
    annotations, detections = random_tables(seed)
    metrics = coco.evaluate(annotations, detections, CLASSES)
    reference = pycocotools_evaluator(annotations, detections)

    assert list(metrics) == [*coco.MEANINGS, "per_class", "images", "boxes"]
    figures = [as_coco(metrics[name]) for name in coco.MEANINGS]
    np.testing.assert_allclose(figures, reference.stats, rtol=0, atol=1e-9)
    for name, number in CLASSES.items():
        precision = reference.eval["precision"][:, :, number, 0, -1]
        expected = [precision.mean(), precision[0].mean(), precision[5].mean()]
        expected.append(reference.eval["recall"][:, number, 0, -1].mean())
        figures = [as_coco(metrics["per_class"][name][key]) for key in ("AP", "AP50", "AP75", "AR100")]
        np.testing.assert_allclose(figures, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("iou_threshold, index", [(0.5, 0), (0.75, 5), (0.95, 9)])
def test_curves_equal_those_of_pycocotools(iou_threshold, index):
    annotations, detections = random_tables(7)
    curves = coco.precision_recall(annotations, detections, CLASSES, iou_threshold)
    reference = pycocotools_evaluator(annotations, detections)
    assert list(curves) == list(CLASSES)
    for name, number in CLASSES.items():
        expected = reference.eval["precision"][index, :, number, 0, -1]
        np.testing.assert_allclose(curves[name]["precision"], expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(curves[name]["recall"], np.linspace(0, 1, 101))


def test_only_the_hundred_best_detections_of_an_image_count():
    misses = [("a.jpg", 300, 300, 310, 310, "mask", 0.9)] * 100
    detections = make_table([*misses, ("a.jpg", 0, 0, 100, 100, "mask", 0.1)], DETECTION_COLUMNS)
    assert coco.evaluate(ONE_FACE, detections, CLASSES)["AR100"] == 0


def test_the_order_of_rows_and_classes_does_not_matter():
    annotations, detections = random_tables(11)
    shuffled = [table.sample(frac=1, random_state=3) for table in (annotations, detections)]
    expected = coco.evaluate(annotations, detections, CLASSES)
    assert coco.evaluate(*shuffled, CLASSES) == expected
    assert coco.evaluate(*shuffled, dict(reversed(CLASSES.items()))) == expected


def test_tables_stay_as_they_were_and_nothing_is_printed(capsys):
    annotations, detections = random_tables(5)
    copies = annotations.copy(), detections.copy()
    coco.evaluate(annotations, detections, CLASSES)
    coco.precision_recall(annotations, detections, CLASSES)
    pd.testing.assert_frame_equal(annotations, copies[0])
    pd.testing.assert_frame_equal(detections, copies[1])
    assert capsys.readouterr() == ("", "")


# --- Edges and refusals ---


def test_a_curve_has_no_rows_for_a_class_without_annotations():
    curves = coco.precision_recall(ONE_FACE, ONE_HIT, CLASSES)
    assert [len(curves[name]) for name in CLASSES] == [101, 0, 0]
    assert curves["mask"]["precision"].mean() == pytest.approx(1)


def test_images_without_detections_may_be_named_in_the_detections():
    named = make_table([("a.jpg", *EMPTY, None)], DETECTION_COLUMNS)
    assert coco.evaluate(ONE_FACE, named, CLASSES)["AP"] == 0


def detection(path: str = "a.jpg", class_name: str = "mask", score: float | None = 0.5) -> pd.DataFrame:
    return make_table([(path, 0, 0, 9, 9, class_name, score)], DETECTION_COLUMNS)


@pytest.mark.parametrize(
    "annotations, detections, message",
    [
        (make_table([]), NOTHING_FOUND, "nothing to evaluate"),
        (make_table([("a.jpg", *EMPTY)]), NOTHING_FOUND, "nothing to evaluate"),
        (make_table([("a.jpg", 0, 0, 9, 9, "helmet")]), NOTHING_FOUND, "annotations: class 'helmet'"),
        (ONE_FACE, detection(class_name="helmet"), "detections: class 'helmet'"),
        (ONE_FACE, detection(path="b.jpg"), r"1 image\(s\) without annotations: b.jpg"),
        (ONE_FACE, pd.concat([detection(path=f"{n}.jpg") for n in range(5)]), "5 image.*2.jpg and 2 more"),
        (ONE_FACE, detection(score=None), "1 box.* without a score"),
        (ONE_FACE, detection(score=1.5), "1 box.* without a score"),
        (ONE_FACE, ONE_FACE, "column score is missing"),
    ],
)
def test_tables_that_cannot_be_evaluated_are_refused(annotations, detections, message):
    with pytest.raises(ValueError, match=message):
        coco.evaluate(annotations, detections, CLASSES)


@pytest.mark.parametrize("iou_threshold", [0, -0.5, 1.1, float("nan")])
def test_an_overlap_out_of_range_is_refused(iou_threshold):
    with pytest.raises(ValueError, match="iou_threshold"):
        coco.precision_recall(ONE_FACE, ONE_HIT, CLASSES, iou_threshold)


# --- Showing and writing ---


def test_metrics_table_explains_twelve_figures():
    table = evaluate(ONE_HIT, ONE_FACE, CLASSES).table()
    assert list(table.columns) == ["name", "meaning", "value", "low", "high"]
    assert list(table["name"]) == list(coco.MEANINGS)
    assert table["value"].isna().sum() == 4  # small and medium faces: there are none
    assert table["meaning"].str.len().min() > 15


def test_the_table_of_classes_has_a_row_for_each():
    table = evaluate(ONE_HIT, ONE_FACE, CLASSES).class_table()
    best = ["threshold", "precision", "recall", "F1"]
    assert list(table.columns) == ["class", "AP", "AP50", "AP75", "AR100", "boxes", *best]
    assert list(table["class"]) == list(CLASSES) and list(table["boxes"]) == [1, 0, 0]
    assert table["AP"].iloc[0] == pytest.approx(1) and table["AP"].iloc[1:].isna().all()


def test_figures_are_strict_json():
    metrics = coco.evaluate(ONE_FACE, ONE_HIT, CLASSES)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_detections_that_begin_at_a_high_score_are_remarked_on():
    weak = pd.concat([detection(score=0.06), detection(score=0.9)])
    assert coco.remarks(weak) == [] and coco.remarks(make_table([], DETECTION_COLUMNS)) == []
    strong = detection(score=0.5)
    assert "no detection scores below 0.50" in coco.remarks(strong)[0]
    strong.attrs["score_threshold"] = 0.5  # as tables have that were not read from a file
    assert coco.remarks(strong)
    strong.attrs["score_threshold"] = 0.05
    assert coco.remarks(strong) == []


def test_without_classes_those_of_the_annotations_count():
    assert evaluate(ONE_HIT, ONE_FACE) == coco.evaluate(ONE_FACE, ONE_HIT, {"mask": 0})
    other = ONE_HIT.assign(class_name="with_mask")
    with pytest.raises(
        ValueError, match=r"class 'with_mask' is not among those of the annotations \(mask\); .*classes="
    ):
        evaluate(other, ONE_FACE)
    judged = evaluate(other, ONE_FACE, {"mask": 0, "with_mask": 1})
    assert judged["AP50"] == 0 and judged.precision_recall()["mask"]["precision"].max() == 0
