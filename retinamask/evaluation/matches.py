"""Which detections are right: COCO's matching, for curves, thresholds, intervals and the confusion matrix.

The matching is that of pycocotools (https://github.com/cocodataset/cocoapi, ``evaluateImg``): in each image and class,
the most confident detection first, each takes the free annotation that it overlaps most.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import BOX_COLUMNS, image_paths, objects
from retinamask.dataset.boxes import overlaps
from retinamask.evaluation.coco import checked

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_MOST = 100  # detections of an image and class, as COCO counts
_RESAMPLES = 1000
_FEWEST_IMAGES = 10  # with objects, for an interval


class Matches(NamedTuple):
    """The detections of all images, the most confident first, and whether each is right.

    Attributes:
        scores: ``(D,)``.
        labels: class ids ``(D,)``.
        images: numbers of the images ``(D,)``.
        correct: ``bool (10, D)``, for each of the IoU thresholds.
        boxes: how many are annotated, ``(images, classes)``.
        classes: name to id.
    """

    scores: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    correct: np.ndarray
    boxes: np.ndarray
    classes: dict[str, int]


def match(
    annotations: pd.DataFrame,
    detections: pd.DataFrame,
    classes: dict[str, int],
    iou_thresholds: np.ndarray = IOU_THRESHOLDS,
) -> Matches:
    """Match detections with annotations; arguments and errors are those of `retinamask.evaluation.coco.evaluate`.

    With the first of `IOU_THRESHOLDS` alone it is ten times as fast, and enough for `by_threshold`.
    """
    checked(annotations, detections, classes)
    numbers = {path: number for number, path in enumerate(sorted(image_paths(annotations)))}
    boxes = np.zeros((len(numbers), len(classes)), int)
    truths = {}
    for (path, name), rows in objects(annotations).groupby(["image_path", "class_name"]):
        truths[path, name] = rows[BOX_COLUMNS].to_numpy(float)
        boxes[numbers[path], classes[name]] = len(rows)
    found = []
    for (path, name), rows in objects(detections).groupby(["image_path", "class_name"]):
        rows = rows.sort_values(["score", *BOX_COLUMNS], ascending=[False, True, True, True, True])[:_MOST]
        ious = overlaps(rows[BOX_COLUMNS].to_numpy(float), truths.get((path, name), np.empty((0, 4))))
        correct = np.array([_taken(ious, threshold) for threshold in iou_thresholds])
        found.append((rows["score"].to_numpy(float), classes[name], numbers[path], correct))
    if not found:
        none = np.empty(0, int)
        return Matches(none.astype(float), none, none, np.empty((len(iou_thresholds), 0), bool), boxes, classes)
    counts = [len(each[0]) for each in found]
    scores, correct = np.concatenate([each[0] for each in found]), np.hstack([each[3] for each in found])
    labels, images = (np.repeat([each[column] for each in found], counts) for column in (1, 2))
    order = np.lexsort([images, -scores])
    return Matches(scores[order], labels[order], images[order], correct[:, order], boxes, classes)


def _taken(ious: np.ndarray, threshold: float) -> np.ndarray:
    """Say which detections, the most confident first, find a free annotation; of equal ones the last, as COCO does."""
    ious, taken = np.where(ious >= min(threshold, 1 - 1e-10), ious, -1.0), np.zeros(len(ious), bool)
    for place in np.flatnonzero((ious >= 0).any(axis=1)):
        best = ious.shape[1] - 1 - ious[place, ::-1].argmax()
        if ious[place, best] >= 0:
            taken[place], ious[:, best] = True, -1
    return taken


def average_precision(matches: Matches, copies: np.ndarray | None = None) -> np.ndarray:
    """Give COCO's average precision for each IoU and class, ``(10, classes)``; NaN for a class without annotations.

    Args:
        matches: from `match`.
        copies: how often each image counts, ``int (images,)``; once if left out.
    """
    copies = np.ones(len(matches.boxes), int) if copies is None else copies
    found = np.full((len(IOU_THRESHOLDS), len(matches.classes)), np.nan)
    for label in matches.classes.values():
        annotated = copies @ matches.boxes[:, label]
        own = matches.labels == label
        counts = copies[matches.images[own]]
        if not annotated:
            continue
        for row, correct in zip(found, matches.correct[:, own], strict=True):
            right = np.cumsum(counts * correct)
            precision = right / np.maximum(np.cumsum(counts), 1)
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            places = np.searchsorted(right / annotated, _RECALLS, side="left")
            row[label] = np.append(precision, 0)[places].mean()
    return found


def intervals(matches: Matches, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Estimate how far AP and AP50 depend on which images were held out.

    Bootstrap (Efron, 1979): whole images are drawn with replacement, and the figures computed again, 1000 times.

    Returns:
        ``AP``, ``AP50`` and ``AP50/CLASS`` to the ends of their 95 % intervals; nothing for fewer than 10 images with
        objects, of which no interval can be told.
    """
    random, count = np.random.default_rng(seed), len(matches.boxes)
    if matches.boxes.any(axis=1).sum() < _FEWEST_IMAGES:
        return {}
    drawn = random.multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    drawn = drawn[(drawn @ matches.boxes).any(axis=1)]
    every = np.array([average_precision(matches, copies) for copies in drawn])  # (resamples, IoU, class)
    with_boxes = matches.boxes.any(axis=0)
    figures = {
        "AP": np.nanmean(every[..., with_boxes], axis=(1, 2)),
        "AP50": np.nanmean(every[:, 0, with_boxes], axis=1),
    }
    figures |= {f"AP50/{name}": every[:, 0, label] for name, label in matches.classes.items() if with_boxes[label]}
    return {name: tuple(np.nanpercentile(values, (2.5, 97.5)).tolist()) for name, values in figures.items()}


def by_threshold(matches: Matches) -> dict[str, pd.DataFrame]:
    """Give ``precision``, ``recall`` and ``F1`` of each class at each ``score_threshold`` that changes them, IoU 0.5.

    Returns:
        Class name to a table with a row per score, the highest first; a class without annotations is left out.
    """
    tables = {}
    for name, label in matches.classes.items():
        own, annotated = matches.labels == label, matches.boxes[:, label].sum()
        if not annotated:
            continue
        scores, right = matches.scores[own], np.cumsum(matches.correct[0, own])
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])  # of equal scores
        columns = {"precision": right[last] / (last + 1), "recall": right[last] / annotated}
        columns["F1"] = 2 * right[last] / (last + 1 + annotated)
        tables[name] = pd.DataFrame({"score_threshold": scores[last], **columns})
    return tables


def best_thresholds(matches: Matches) -> dict[str, float]:
    """Give the score threshold of each class where its F1 is highest, rounded down to three digits."""
    best = {}
    for name, table in by_threshold(matches).items():
        if table["F1"].max() > 0:
            best[name] = np.floor(1000 * table["score_threshold"][table["F1"].argmax()]).item() / 1000
    return best
