"""COCO detection figures for a table of detections, judged against a table of annotations.

The figures are those of COCO's evaluation page (https://cocodataset.org/#detection-eval), computed by faster-coco-eval,
and agree with pycocotools'. Three things hold throughout:

* No score threshold is applied: a detection with a low score costs nothing unless it is ranked above a right
  one. (COCO counts at most the 100 best detections of an image and class.)
* The area of an object is the area of its box.
* The order of the rows does not matter. Detections with equal scores are ranked by image path, then box.
"""

import gc
from collections.abc import Mapping

import numpy as np
import pandas as pd
from faster_coco_eval import COCO, COCOeval_faster

from retinamask.dataset.annotations import BOX_COLUMNS, check_classes, image_paths, objects

# The twelve COCO figures, in the order in which COCO reports them, in plain words.
MEANINGS = {
    "AP": "average precision, averaged over the overlaps IoU 0.50, 0.55 ... 0.95: the headline figure",
    "AP50": "average precision when a box counts as right from IoU 0.50 on",
    "AP75": "average precision when a box must fit well, from IoU 0.75 on",
    "APs": "AP of small objects, below 32 x 32 pixels",
    "APm": "AP of medium objects, 32 x 32 to 96 x 96 pixels",
    "APl": "AP of large objects, above 96 x 96 pixels",
    "AR1": "share of objects found with 1 detection per image and class, averaged over IoU 0.50 ... 0.95",
    "AR10": "share of objects found with 10 detections per image and class",
    "AR100": "share of objects found with 100 detections per image and class",
    "ARs": "AR100 of small objects",
    "ARm": "AR100 of medium objects",
    "ARl": "AR100 of large objects",
}

SIDES = (0, 8, 16, 32, 64, 128)  # of faces at the network's input, where ranges of `by_size` begin
SUSPICIOUS_LOWEST_SCORE = 0.1  # a table that starts higher has perhaps lost its weak detections

# On the last two axes of the evaluator's arrays: precision has the axes IoU, recall, class, area range and number of
# detections; recall has the same without the second.
_ALL_AREAS, _MOST_DETECTIONS = 0, -1


def evaluate(annotations: pd.DataFrame, detections: pd.DataFrame, classes: dict[str, int]) -> dict:
    """Return the COCO figures of ``detections`` on the images of ``annotations``.

    An image without objects counts: what is detected there is wrong.

    Args:
        annotations: what is there.
        detections: what was found, with a score from 0 to 1.
        classes: name to id.

    Returns:
        A float from 0 to 1 for each name in `MEANINGS`, or None where there is nothing to find (no small objects,
        say); ``per_class``, from class name to its ``AP``, ``AP50``, ``AP75``, ``AR100`` and ``boxes`` (how many are
        annotated); and the totals ``images`` and ``boxes``.

    Raises:
        ValueError: nothing is annotated, a class is not in ``classes``, a detection lacks a score from 0 to 1,
            or detections belong to images that are not in ``annotations``.
    """
    evaluator = _run(annotations, detections, classes)
    evaluator.summarize()
    metrics = {name: _figure(value) for name, value in zip(MEANINGS, evaluator.stats, strict=True)}
    boxes, iou_thresholds = objects(annotations), evaluator.params.iouThrs
    counts, metrics["per_class"] = boxes["class_name"].value_counts(), {}
    for index, name in enumerate(sorted(classes, key=classes.get)):
        precision = evaluator.eval["precision"][:, :, index, _ALL_AREAS, _MOST_DETECTIONS]
        metrics["per_class"][name] = {
            "AP": _figure(precision.mean()),
            "AP50": _figure(precision[np.isclose(iou_thresholds, 0.5)].mean()),
            "AP75": _figure(precision[np.isclose(iou_thresholds, 0.75)].mean()),
            "AR100": _figure(evaluator.eval["recall"][:, index, _ALL_AREAS, _MOST_DETECTIONS].mean()),
            "boxes": int(counts.get(name, 0)),
        }
    return metrics | {"images": len(image_paths(annotations)), "boxes": len(boxes)}


def remarks(detections: pd.DataFrame) -> list[str]:
    """Return what a reader of the figures should know about the detections that they judge."""
    lowest = objects(detections)["score"].min()
    if lowest > SUSPICIOUS_LOWEST_SCORE < detections.attrs.get("score_threshold", 1):
        return [
            f"WARNING: no detection scores below {lowest:.2f}. If they were cut at a threshold, average precision "
            f"comes out lower than the detector deserves: detect again with a score threshold of 0.05."
        ]
    return []


def precision_recall(
    annotations: pd.DataFrame, detections: pd.DataFrame, classes: dict[str, int], iou_threshold: float = 0.5
) -> dict[str, pd.DataFrame]:
    """Return the COCO precision-recall curve of each class.

    Args:
        annotations, detections, classes: as for `evaluate`.
        iou_threshold: the overlap from which on a box counts as right, above 0 and at most 1.

    Returns:
        Class name to a DataFrame of 101 rows: ``recall`` 0.00, 0.01 ... 1.00, the best ``precision`` at that
        recall or a higher one (0 where it is not reached: the column's mean is the average precision), and
        the ``score`` at which the recall is reached (or NaN). No rows for a class without annotations.

    Raises:
        ValueError: as `evaluate`, or for an ``iou_threshold`` out of range.

    Example:
        >>> precision_recall(annotations, detections, {"mask": 0, "no_mask": 1})
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold is {iou_threshold}, expected a number above 0 and at most 1")
    evaluator = _run(annotations, detections, classes, iou_threshold)
    curves = {}
    for index, name in enumerate(sorted(classes, key=classes.get)):
        precision = evaluator.eval["precision"][0, :, index, _ALL_AREAS, _MOST_DETECTIONS]
        score = evaluator.eval["scores"][0, :, index, _ALL_AREAS, _MOST_DETECTIONS]
        score = np.where(precision > 0, score, np.nan)
        curve = pd.DataFrame({"recall": evaluator.params.recThrs, "precision": precision, "score": score})
        # The evaluator marks a class without ground truth by a precision of -1.
        curves[name] = curve[curve["precision"] >= 0].reset_index(drop=True)
    return curves


def by_size(
    annotations: pd.DataFrame, detections: pd.DataFrame, classes: dict[str, int], scales: Mapping[str, float]
) -> pd.DataFrame:
    """Give the figures by how large faces are for the network, of all classes together.

    As COCO does for small, medium and large: a box outside a range counts neither for nor against it.

    Args:
        annotations, detections, classes: as for `evaluate`.
        scales: image path to resized size / original size; boxes in images without one are left out.

    Returns:
        A row per range of `SIDES`: ``from`` and ``to`` in pixels of the network's input (square root of the area),
        ``boxes`` annotated, ``AP50``, ``AP`` and ``AR100``, NaN where there are none.
    """
    tables = [
        table.assign(**table[BOX_COLUMNS].mul(table["image_path"].map(scales), axis=0))
        for table in (annotations, detections)
    ]
    ranges = list(zip(SIDES, [*SIDES[1:], 1e5], strict=True))
    found, boxes = _run(*tables, classes, sides=ranges).eval, objects(tables[0])
    sides = np.sqrt((boxes["x2"] - boxes["x1"]) * (boxes["y2"] - boxes["y1"]))
    rows = []
    for place, (low, high) in enumerate(ranges):
        precision, recall = found["precision"][:, :, :, place, -1], found["recall"][:, :, place, -1]
        figures = [precision[0], precision, recall]
        means = [values[values >= 0].mean() if (values >= 0).any() else np.nan for values in figures]
        rows.append((low, high if high < 1e5 else np.inf, int(((sides >= low) & (sides < high)).sum()), *means))
    return pd.DataFrame(rows, columns=["from", "to", "boxes", "AP50", "AP", "AR100"])


def checked(annotations: pd.DataFrame, detections: pd.DataFrame, classes: dict[str, int]) -> None:
    """Raise the `ValueError` of `evaluate` if these cannot be judged."""
    if objects(annotations).empty:
        raise ValueError("the annotations hold no objects: there is nothing to evaluate against")
    check_classes(annotations, classes, "annotations")
    check_classes(detections, classes, "detections")
    strangers = sorted(set(image_paths(detections)) - set(image_paths(annotations)))
    if strangers:
        some = ", ".join(strangers[:3]) + (f" and {len(strangers) - 3} more" if len(strangers) > 3 else "")
        raise ValueError(f"detections of {len(strangers)} image(s) without annotations: {some}")
    if "score" not in detections.columns:
        raise ValueError("detections: the column score is missing")
    if bad := (~objects(detections)["score"].astype(float).between(0, 1)).sum():
        raise ValueError(f"detections: {bad} box(es) without a score from 0 to 1")


def _run(
    annotations, detections, classes: dict[str, int], iou_threshold: float | None = None, sides: list | None = None
) -> COCOeval_faster:
    """Return faster-coco-eval's evaluator, accumulated but not summarized."""
    checked(annotations, detections, classes)
    image_ids = {path: number for number, path in enumerate(sorted(image_paths(annotations)), start=1)}
    was_on = gc.isenabled()
    gc.disable()  # searching for garbage among the many new dicts takes as long as the evaluation itself
    try:
        truth, found = (_coco_dataset(table, classes, image_ids) for table in (annotations, detections))
        evaluator = COCOeval_faster(truth, found, iouType="bbox", print_function=lambda *_: None)
        if iou_threshold:
            evaluator.params.iouThrs = np.array([iou_threshold], dtype=float)
        if sides:
            evaluator.params.areaRng = [[low**2, high**2] for low, high in sides]
            evaluator.params.areaRngLbl = list(map(str, sides))
        evaluator.evaluate()
        evaluator.accumulate()
    finally:
        if was_on:
            gc.enable()
    return evaluator


def _coco_dataset(table: pd.DataFrame, classes: dict[str, int], image_ids: dict[str, int]) -> COCO:
    """Return boxes as COCO annotations or, with a score, COCO results, in an order that is theirs alone."""
    boxes = objects(table)
    images, labels = (boxes[name].map(ids) for name, ids in (("image_path", image_ids), ("class_name", classes)))
    corners = boxes[BOX_COLUMNS].to_numpy(float)
    scores = boxes["score"].to_numpy(float) if "score" in boxes.columns else np.zeros(len(boxes))
    order = np.lexsort([*corners.T[::-1], labels, images])
    sides = corners[:, 2:] - corners[:, :2]
    columns = (images.to_numpy(), labels.to_numpy(), np.hstack([corners[:, :2], sides]), sides.prod(1), scores)
    rows = zip(*(column[order].tolist() for column in columns), strict=True)
    dataset = {
        "images": [{"id": image_id} for image_id in image_ids.values()],
        "categories": [{"id": classes[name], "name": name} for name in sorted(classes, key=classes.get)],
        # Ids start at 1, since the evaluator takes a match with id 0 for no match.
        "annotations": [
            {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "score": score}
            for number, (image, label, box, area, score) in enumerate(rows, start=1)
        ],
    }
    return COCO(dataset, print_function=lambda *_: None)


def _figure(value: float) -> float | None:
    """Return a COCO figure as a float, or None for COCO's -1, which says that there is nothing to find."""
    return None if value < 0 else float(value)
