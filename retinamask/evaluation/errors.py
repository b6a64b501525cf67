"""Why detections are wrong: one cause for each, and what it costs.

After TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020), with its
thresholds: a box is right from IoU 0.5 on and belongs to nothing below IoU 0.1.
"""

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import BOX_COLUMNS, objects
from retinamask.dataset.boxes import overlaps
from retinamask.evaluation.coco import checked
from retinamask.evaluation.matches import average_precision, match

RIGHT, MISSED = "right", "missed"
CAUSES = {
    "wrong class": "on a face of another class",
    "poor box": "on a face, with an IoU below 0.5",
    "wrong class and poor box": "both",
    "duplicate": "on a face that a more confident box has found",
    "background": "on no face",
    MISSED: "a face that no box is on, or only those of the last three causes",
}
"""The causes, and what they say of a box."""
_FOREGROUND, _BACKGROUND = 0.5, 0.1


def find_causes(annotations: pd.DataFrame, detections: pd.DataFrame, classes: dict[str, int]) -> pd.DataFrame:
    """Give each detection its cause, and add a row for each missed face.

    Arguments and errors are those of `retinamask.evaluation.coco.evaluate`.

    Returns:
        Rows ``image_path, x1, y1, x2, y2, class_name, score`` (NaN of a missed face) with ``cause`` (``right`` or one
        of `CAUSES`), ``true_class`` and ``annotation``, the row of ``annotations`` that is meant (-1 for background),
        and ``iou``, the overlap with it.
    """
    checked(annotations, detections, classes)
    truths = dict(list(objects(annotations).groupby("image_path")))
    found, reached = [], set()
    for path, rows in objects(detections).groupby("image_path"):
        rows = rows.sort_values(["score", *BOX_COLUMNS], ascending=[False, True, True, True, True])
        truth = truths.get(path, objects(annotations).iloc[:0])
        own = _causes_of(rows, truth)
        reached |= set(own.loc[own["cause"].isin((RIGHT, "wrong class", "poor box")), "annotation"])
        found.append(own)
    missed = objects(annotations)[lambda table: ~table.index.isin(reached)]
    missed = missed.assign(
        cause=MISSED, true_class=missed["class_name"], annotation=missed.index, score=np.nan, iou=0.0
    )
    columns = [*detections.columns, "cause", "true_class", "annotation", "iou"]
    return pd.concat([*found, missed.reindex(columns=columns)], ignore_index=True)[columns]


def _causes_of(rows: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Give the detections of an image, the most confident first, their causes."""
    ious = overlaps(rows[BOX_COLUMNS].to_numpy(float), truth[BOX_COLUMNS].to_numpy(float))
    same = rows["class_name"].to_numpy(object)[:, None] == truth["class_name"].to_numpy(object)
    taken, found = np.zeros(len(truth), bool), []
    for iou, fits in zip(ious, same, strict=True):
        free = np.where(fits & ~taken, iou, 0).max(initial=0) >= _FOREGROUND
        own, other = (np.where(fits == is_own, iou, 0) for is_own in (True, False))
        if free:
            cause, of = RIGHT, np.where(taken, 0, own)
            taken[of.argmax()] = True
        elif _BACKGROUND <= own.max(initial=0) < _FOREGROUND:
            cause, of = "poor box", own
        elif other.max(initial=0) >= _FOREGROUND:
            cause, of = "wrong class", other
        elif own.max(initial=0) >= _FOREGROUND:
            cause, of = "duplicate", own
        elif other.max(initial=0) >= _BACKGROUND:
            cause, of = "wrong class and poor box", other
        else:
            found.append(("background", None, -1, iou.max(initial=0)))
            continue
        place = of.argmax()
        found.append((cause, truth["class_name"].iloc[place], truth.index[place], iou[place]))
    return rows.assign(**dict(zip(("cause", "true_class", "annotation", "iou"), zip(*found, strict=True), strict=True)))


def gains(
    annotations: pd.DataFrame, detections: pd.DataFrame, classes: dict[str, int], causes: pd.DataFrame
) -> pd.DataFrame:
    """Say what mending each cause alone would bring, as TIDE's oracles do.

    A wrong class and a poor box are put right if their face has not been found yet, else taken away, as duplicates and
    boxes on background are; missed faces are taken from the annotations.

    Args:
        annotations, detections, classes: as for `find_causes`.
        causes: from there.

    Returns:
        A row per cause: ``cause``, ``meaning``, ``count``, and ``gain`` of AP50, 0 to 1.
    """

    def ap50(truth: pd.DataFrame, boxes: pd.DataFrame) -> float:
        if objects(truth).empty:  # all were missed
            return 1.0
        return float(np.nanmean(average_precision(match(truth, boxes, classes))[0]))

    before, boxes, rows = ap50(annotations, detections), causes[causes["cause"] != MISSED], []
    for cause, meaning in CAUSES.items():
        truth, mended, of_cause = annotations, boxes, causes["cause"] == cause
        if cause == MISSED:
            truth = annotations.copy()  # the images stay, also where all their faces were missed
            truth.loc[causes.loc[of_cause, "annotation"], [*BOX_COLUMNS, "class_name"]] = None
        else:
            right = set(boxes.loc[boxes["cause"] == RIGHT, "annotation"])
            first = causes[of_cause].sort_values("score", ascending=False).drop_duplicates("annotation")
            first = first[~first["annotation"].isin(right) & (cause in ("wrong class", "poor box"))]
            mended = boxes[~of_cause.reindex(boxes.index) | boxes.index.isin(first.index)].copy()
            faces = annotations.loc[first["annotation"]]
            mended.loc[first.index, [*BOX_COLUMNS, "class_name"]] = faces[[*BOX_COLUMNS, "class_name"]].to_numpy(object)
        rows.append((cause, meaning, int(of_cause.sum()), ap50(truth, mended[detections.columns]) - before))
    return pd.DataFrame(rows, columns=["cause", "meaning", "count", "gain"])
