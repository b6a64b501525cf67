"""From a training snapshot to an inference model: decoding and a filter become part of the file, for keras-retinanet.

What ``retinanet-convert-model`` does, with a check that both say the same.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retinamask import detectors
from retinamask.dataset import files
from retinamask.detectors import keras_retinanet, snapshots
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
    snapshot: str | Path | Snapshot,
    weights: str | Path | None = None,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
) -> Snapshot:
    """Write the inference model of a training snapshot.

    Args:
        snapshot: a training snapshot, or its path.
        weights: the ``.h5`` to write; ``<stem>_inference.h5`` beside the snapshot if left out. If the same
            conversion lies there already it is returned; another file is never replaced.
        score_threshold: of the filter that keras-retinanet gets with the file, 0 to 1; a `Predictor` is told its own.
        nms_threshold: of two boxes that overlap more than this (IoU) the weaker goes, also in a `Predictor`.

    Raises:
        SnapshotError: the snapshot is a converted model or a classifier, or another file is in the way.

    Example:
        >>> rm.convert("snapshots/mine_best.h5")
    """
    snapshot = snapshot if isinstance(snapshot, Snapshot) else snapshots.read(snapshot)
    for name, threshold in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
        if not 0 <= threshold <= 1:
            raise ValueError(f"{name} is {threshold}, expected 0 to 1")
    if snapshot.classifies:
        raise SnapshotError(f"{snapshot.weights} is a classifier, which is used as it is; nothing is to be converted")
    weights = Path(weights) if weights else snapshot.weights.with_name(f"{snapshot.weights.stem}_inference.h5")
    snapshots.check_name(weights)
    thresholds = {"score_threshold": score_threshold, "nms_threshold": nms_threshold}
    source = {"name": snapshot.weights.name, "weights_sha256": snapshot.record["weights_sha256"]}
    record = {**snapshot.record, "kind": "inference", "inference": thresholds, "converted_from": source}
    if weights.exists() or weights.with_suffix(".json").exists():
        return _same_conversion(weights, record)
    detector, network = detectors.load(snapshot, "training")
    return snapshots.save(detector.inference_network(network, **thresholds), weights, record)


def adopt(
    path: str | Path, classes: dict[str, int], backbone: str | None = None, min_side: int = 800, max_side: int = 1333
) -> Snapshot:
    """Make a snapshot of ours from an ``.h5`` of keras-retinanet, training or converted.

    Args:
        path: the file; it is checked, and only its weights are read.
        classes: name to id, as in the ``classes.csv`` of its training.
        backbone: its backbone; ResNets are recognised.
        min_side, max_side: the sides to which its training resized images. A training file does not say
            which anchors it used; keras-retinanet's usual ones are taken.

    Returns:
        The snapshot ``<stem>_adopted.h5`` beside the file.

    Raises:
        SnapshotError: the file is refused, has another number of classes, or its backbone is unknown.
    """
    found = keras_retinanet.describe(path)
    if found.class_count != len(classes):
        raise SnapshotError(
            f"{path}: was trained for {found.class_count} classes, found {len(classes)}: {list(classes)}"
        )
    if not (backbone or found.backbone):
        raise SnapshotError(f"{path}: its backbone is no ResNet and cannot be told; name it")
    sides = {"backbone": backbone or found.backbone, "image_size": min_side, "max_side": max_side}
    weights = Path(path).with_name(f"{Path(path).stem}_adopted.h5")
    source = {"name": Path(path).name, "sha256": files.sha256(path)}
    settings = {**sides, **found.settings}
    if weights.exists() or weights.with_suffix(".json").exists():
        return _adopted_before(weights, source, classes, settings)
    detector = detectors.create("retinanet", classes, **settings)
    network = detector.network()
    if found.kind == "inference":
        network = detector.inference_network(network, **found.thresholds)
    detectors.load_weights(network, Path(path))
    record = {
        "kind": found.kind,
        "detector": detector.name,
        "classes": classes,
        "settings": detector.record(),
        "preprocessing": detector.preprocessing,
        "training": {"adopted_from": source},
    }
    if found.thresholds:
        record["inference"] = found.thresholds
    return snapshots.save(network, weights, record)


def _adopted_before(
    weights: Path, source: dict[str, str], classes: dict[str, int], settings: dict[str, Any]
) -> Snapshot:
    """The snapshot at ``weights`` if it was adopted from the same file in the same way."""
    with contextlib.suppress(SnapshotError):
        existing = snapshots.read(weights)
        same = all(
            existing.record["settings"].get(name) in (value, list(value) if isinstance(value, tuple) else value)
            for name, value in settings.items()
        )
        if existing.record.get("training", {}).get("adopted_from") == source and existing.classes == classes and same:
            return existing
    raise SnapshotError(f"{weights} exists and is another model; move it away")


def _same_conversion(weights: Path, record: dict[str, Any]) -> Snapshot:
    """The snapshot at ``weights`` if it is what converting would give; anything else is not replaced."""
    with contextlib.suppress(SnapshotError):
        existing = snapshots.read(weights)
        if all(
            existing.record.get(name) == record[name] for name in ("converted_from", "inference", "classes", "settings")
        ):
            return existing
    raise SnapshotError(f"{weights} exists and is another model; choose another name or move it away")


def agreement(
    first: Predictor, second: Predictor, images_rgb: Sequence[np.ndarray], score_threshold: float = 0.05
) -> Agreement:
    """Compare two predictors box by box, in the order of the scores, from ``score_threshold`` on.

    A different number of boxes in any image counts as infinitely far apart.
    """
    boxes, box_difference, score_difference = 0, 0.0, 0.0
    for image in images_rgb:
        one, other = (look([image], score_threshold, "per_class")[0] for look in (first, second))
        if len(one.scores) != len(other.scores) or (one.labels != other.labels).any():
            return Agreement(len(images_rgb), boxes, float("inf"), float("inf"))
        boxes += len(one.scores)
        box_difference = max(box_difference, np.abs(one.boxes_xyxy - other.boxes_xyxy).max(initial=0))
        score_difference = max(score_difference, np.abs(one.scores - other.scores).max(initial=0))
    return Agreement(len(images_rgb), boxes, float(box_difference), float(score_difference))
