"""From a training snapshot to an inference model: decoding and NMS become part of the network.

What ``retinanet-convert-model`` does, with a check that both say the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinamask import detectors
from retinamask.detectors import snapshots
from retinamask.detectors.snapshots import Snapshot, SnapshotError
from retinamask.inference.detect import Predictor


class Agreement(NamedTuple):
    """How far two predictors are apart on some images."""

    images: int
    boxes: int
    box_difference: float  # pixels, the largest over all edges
    score_difference: float  # the largest

    def __bool__(self) -> bool:
        """Whether the two are the same for every purpose: to 0.001 pixels and 0.00001 in score."""
        return self.box_difference <= 1e-3 and self.score_difference <= 1e-5


def convert(
    snapshot: Snapshot,
    weights: str | Path | None = None,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
) -> Snapshot:
    """Write the inference model of a training snapshot.

    Args:
        snapshot: a training snapshot.
        weights: the ``.h5`` to write; ``<stem>_inference.h5`` beside the snapshot if left out. An existing
            file is never replaced.
        score_threshold: weaker boxes are dropped before NMS, 0 to 1.
        nms_threshold: of two boxes of one class that overlap more than this (IoU) the weaker goes, 0 to 1.

    Raises:
        SnapshotError: the snapshot is converted already, or the file exists.
    """
    for name, threshold in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
        if not 0 <= threshold <= 1:
            raise ValueError(f"{name} is {threshold}, expected 0 to 1")
    weights = Path(weights) if weights else snapshot.weights.with_name(f"{snapshot.weights.stem}_inference.h5")
    if weights.suffix != ".h5":
        raise SnapshotError(f"{weights}: expected a name that ends in .h5")
    if weights.exists():
        raise SnapshotError(f"{weights} exists; choose another name or move it away")
    detector, network = detectors.load(snapshot, "training")
    thresholds = {"score_threshold": score_threshold, "nms_threshold": nms_threshold}
    record = {name: value for name, value in snapshot.record.items() if name != "weights_sha256"}
    record |= {"kind": "inference", "inference": thresholds, "converted_from": snapshot.weights.name}
    return snapshots.save(detector.inference_network(network, **thresholds), weights, record)


def agreement(first: Predictor, second: Predictor, images_rgb: Sequence[np.ndarray]) -> Agreement:
    """Compare two predictors box by box, in the order of the scores.

    A different number of boxes in any image counts as infinitely far apart.
    """
    boxes, box_difference, score_difference = 0, 0.0, 0.0
    for image in images_rgb:
        one, other = first([image])[0], second([image])[0]
        if len(one.scores) != len(other.scores) or (one.labels != other.labels).any():
            return Agreement(len(images_rgb), boxes, float("inf"), float("inf"))
        boxes += len(one.scores)
        box_difference = max(box_difference, np.abs(one.boxes_xyxy - other.boxes_xyxy).max(initial=0))
        score_difference = max(score_difference, np.abs(one.scores - other.scores).max(initial=0))
    return Agreement(len(images_rgb), boxes, float(box_difference), float(score_difference))
