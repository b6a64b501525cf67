"""How far two detectors are from each other on the same images, box by box."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import BOX_COLUMNS, objects
from retinamask.dataset.boxes import overlaps


class Agreement(NamedTuple):
    """The distance of two tables of detections; true if to 0.001 pixels and 0.00001 in score at most."""

    images: int
    boxes: int  # of the first
    boxes_lost: int  # of these, without one of the second on them
    boxes_more: int  # that the second has more than the first, or less if negative
    box_difference: float  # pixels, the largest over all edges of boxes that are not lost
    score_difference: float  # the largest

    def __bool__(self) -> bool:
        same = not (self.boxes_lost or self.boxes_more)
        return same and self.box_difference <= 1e-3 and self.score_difference <= 1e-5


def agreement(first: pd.DataFrame, second: pd.DataFrame) -> Agreement:
    """Compare each box of the first table of detections with the nearest of its image and class in the second.

    A box is lost if the nearest one does not overlap it by half (IoU).
    """
    lost, pixels, scores = 0, 0.0, 0.0
    others = dict(list(objects(second).groupby(["image_path", "class_name"])))
    for key, rows in objects(first).groupby(["image_path", "class_name"]):
        if key not in others:
            lost += len(rows)
            continue
        boxes_xyxy, others_xyxy = (each[BOX_COLUMNS].to_numpy(float) for each in (rows, others[key]))
        distances = np.abs(boxes_xyxy[:, None] - others_xyxy).max(axis=2)
        match = distances.argmin(axis=1)
        same = overlaps(boxes_xyxy, others_xyxy)[np.arange(len(rows)), match] >= 0.5
        lost += int((~same).sum())
        pixels = max(pixels, distances.min(axis=1)[same].max(initial=0))
        differences = np.abs(rows["score"].to_numpy() - others[key]["score"].to_numpy()[match])[same]
        scores = max(scores, differences.max(initial=0))
    boxes = len(objects(first))
    more = len(objects(second)) - boxes
    return Agreement(first["image_path"].nunique(), boxes, lost, more, float(pixels), float(scores))
