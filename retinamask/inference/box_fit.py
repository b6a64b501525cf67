"""Fit a detector to a data set: boxes in its convention (faces or whole heads), thresholds that suit its classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import boxes
from retinamask.dataset.annotations import BOX_COLUMNS, image_paths, objects
from retinamask.inference.detect import Detections, detect
from retinamask.inference.suppression import non_maximum

_SAME_FACE = 0.1  # IoU of a box and of an annotation in another convention
_FEWEST = 10  # pairs of a box and an annotation
_SURE = 0.5  # the score from which boxes are compared


class BoxFit(NamedTuple):
    """How a detector's boxes become those of a data set, in shares of the sides of each box.

    Attributes:
        right, down: how far the centre moves.
        width, height: factors of the sides.
    """

    right: float
    down: float
    width: float
    height: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "BoxFit":
        """Make one of its four numbers; others are refused with `ValueError`."""
        if len(numbers) != 4 or not min(numbers[2:]) > 0:
            raise ValueError(f"box_fit is {numbers}, expected right, down and two positive factors: 0,-0.1,1.3,1.4")
        return cls(*numbers)

    def __str__(self) -> str:
        """Give the numbers as ``--box-fit`` takes them."""
        return ",".join(f"{number:g}" for number in self)

    @property
    def inverse(self) -> "BoxFit":
        """The fit that brings boxes of the data set back to what the detector finds."""
        return BoxFit(-self.right / self.width, -self.down / self.height, 1 / self.width, 1 / self.height)

    def __call__(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Move and scale boxes ``(N, 4)``."""
        sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
        centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2 + sides * self[:2]
        return np.hstack([centres - sides * self[2:] / 2, centres + sides * self[2:] / 2])


def fit_boxes(detections: pd.DataFrame, annotations: pd.DataFrame) -> BoxFit:
    """Learn how a detector's boxes must move and grow to be those of a data set: the medians over all faces.

    Each annotation is compared with the most confident box that overlaps it by an IoU of 0.1 and no other more.

    Args:
        detections: on training images, such as with a ``score_threshold`` of 0.5; classes do not matter.
        annotations: of the same images, with the same paths.

    Raises:
        ValueError: fewer than 10 faces were found.

    Example:
        >>> fit = rm.fit_boxes(model.detect(parts["train"]), parts["train"])
        >>> rm.load("snapshots/mine_best.h5", box_fit=fit)
    """
    truths, pairs = dict(list(objects(annotations).groupby("image_path"))), []
    for path, rows in objects(detections).sort_values("score", ascending=False, kind="stable").groupby("image_path"):
        if path not in truths:
            continue
        found, truth = (table[BOX_COLUMNS].to_numpy(float) for table in (rows, truths[path]))
        ious = boxes.overlaps(found, truth)
        nearest = np.where(ious.max(axis=1) >= _SAME_FACE, ious.argmax(axis=1), -1)
        for place, first in zip(*np.unique(nearest, return_index=True), strict=True):
            if place >= 0:
                pairs.append((found[first], truth[place]))
    if len(pairs) < _FEWEST:
        raise ValueError(
            f"{len(pairs)} of {len(objects(annotations))} annotated faces were found, expected at least {_FEWEST} to "
            "learn from; give more images, or a lower score threshold"
        )
    found, truth = np.array(pairs).transpose(1, 0, 2)
    sides = found[:, 2:] - found[:, :2]
    moved = ((truth[:, :2] + truth[:, 2:]) - (found[:, :2] + found[:, 2:])) / 2 / sides
    scaled = (truth[:, 2:] - truth[:, :2]) / sides
    return BoxFit(*np.median(np.hstack([moved, scaled]), axis=0).round(4).tolist())


class Fitted:
    """A predictor whose boxes are moved and scaled by a `BoxFit`, or that leaves out weak boxes of each class.

    Args:
        predictor: the predictor.
        box_fit: the four numbers of a `BoxFit`; the moved boxes are cut to the image.
        thresholds: class to the score below which its boxes are left out.
    """

    def __init__(
        self, predictor, box_fit: Sequence[float] = (0, 0, 1, 1), thresholds: Mapping[str, float] | None = None
    ):
        self.predictor, self.box_fit = predictor, BoxFit.of(box_fit)
        self.class_names, self.many = predictor.class_names, getattr(predictor, "many", None)
        self.detector = getattr(predictor, "detector", None)  # of a plain `Predictor`
        self._least = np.array([(thresholds or {}).get(name, 0.0) for name in self.class_names])
        self._nms_threshold = getattr(predictor, "nms_threshold", 0.5)
        self.concurrent = getattr(predictor, "concurrent", False)  # a `TwoStage` is not

    def __call__(
        self, images_rgb: Sequence[np.ndarray], score_threshold: float = 0.05, suppress: str = "any_class"
    ) -> list[Detections]:
        """Detect as the predictor does."""
        # A face that is too weak for its best class may be strong enough for another one, so this comes first.
        later = suppress == "any_class" and self._least.any()
        seen, every = self.predictor(images_rgb, score_threshold, "per_class" if later else suppress), []
        for found, image_rgb in zip(seen, images_rgb, strict=True):
            kept = np.flatnonzero(found.scores >= self._least[found.labels])
            if later:
                kept = kept[non_maximum(found.boxes_xyxy[kept], found.scores[kept], self._nms_threshold)]
            fitted = boxes.clip(self.box_fit(found.boxes_xyxy[kept]), image_rgb.shape[1::-1])
            inside = boxes.areas(fitted) > 0
            every.append(
                Detections(fitted[inside], found.scores[kept][inside], found.labels[kept][inside], found.best_score)
            )
        return every


def fit_predictor(predictor, annotations: pd.DataFrame, folder: str | Path) -> tuple[Fitted, list[str]]:
    """Fit the boxes of a predictor to those of training images, as `fit_boxes` does.

    Args:
        predictor: the predictor.
        annotations: of the training images.
        folder: what their paths are relative to.

    Returns:
        The predictor with the fit, and messages on images that cannot be read.
    """
    detections, unreadable = detect(predictor, image_paths(annotations), folder, _SURE)
    return Fitted(predictor, fit_boxes(detections, annotations)), unreadable
