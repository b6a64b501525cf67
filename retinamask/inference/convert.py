"""Turn snapshots into other files: inference models for keras-retinanet, keras-retinanet's files, and Darknet's.

`convert` is what ``retinanet-convert-model`` does, with a check that both say the same.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinamask import detectors
from retinamask.dataset import files
from retinamask.dataset.formats.class_names import unwritable
from retinamask.detectors import keras_retinanet, snapshots
from retinamask.detectors.darknet import weights as darknet_weights
from retinamask.detectors.snapshots import Snapshot, SnapshotError


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
            conversion is there already it is returned; another file is never replaced.
        score_threshold: of the filter that keras-retinanet gets with the file, 0 to 1; a `Predictor` is told its own.
        nms_threshold: of two boxes that overlap more than this (IoU) the weaker goes, also in a `Predictor`.

    Raises:
        SnapshotError: the snapshot is a converted model, an export or a classifier, or another file is in the way.

    Example:
        >>> rm.convert("snapshots/mine_best.h5")
    """
    snapshot = snapshot if isinstance(snapshot, Snapshot) else snapshots.read(snapshot)
    snapshots.refuse_export(snapshot)
    thresholds = {"score_threshold": score_threshold, "nms_threshold": nms_threshold}
    for name, threshold in thresholds.items():
        if not 0 <= threshold <= 1:
            raise ValueError(f"{name} is {threshold}, expected 0 to 1")
    if snapshot.classifies:
        raise SnapshotError(f"{snapshot.weights} is a classifier, which is used as it is; nothing is to be converted")
    weights = Path(weights) if weights else snapshot.weights.with_name(f"{snapshot.weights.stem}_inference.h5")
    snapshots.check_name(weights)
    source = {"name": snapshot.weights.name, "weights_sha256": snapshot.record["weights_sha256"]}
    record = {**snapshot.record, "kind": "inference", "inference": thresholds, "converted_from": source}
    if existing := _same_model(weights, record, ("converted_from", "inference", "classes")):
        return existing
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
    detector = detectors.create("retinanet", classes, **{**sides, **found.settings})
    record = {
        "kind": found.kind,
        "detector": detector.name,
        "classes": classes,
        "settings": detector.record(),
        "preprocessing": detector.preprocessing,
        "training": {"adopted_from": {"name": Path(path).name, "sha256": files.sha256(path)}},
    }
    if found.thresholds:
        record["inference"] = found.thresholds
    weights = Path(path).with_name(f"{Path(path).stem}_adopted.h5")
    if existing := _same_model(weights, record, ("training", "classes")):
        return existing
    network = detector.network()
    if found.kind == "inference":
        network = detector.inference_network(network, **found.thresholds)
    detectors.load_weights(network, Path(path))
    return snapshots.save(network, weights, record)


def _same_model(weights: Path, record: dict[str, Any], names: Sequence[str]) -> Snapshot | None:
    """Return the snapshot at ``weights`` if it has the record's ``names`` and settings; refuse any other file."""
    if not (weights.exists() or weights.with_suffix(".json").exists()):
        return None
    with contextlib.suppress(SnapshotError):
        existing = snapshots.read(weights)
        wanted, settings = json.loads(files.json_text(record)), existing.record["settings"]  # tuples become lists
        same = all(settings.get(name, value) == value for name, value in wanted["settings"].items())
        if same and all(existing.record.get(name) == wanted[name] for name in names):
            return existing
    raise SnapshotError(f"{weights} exists and is another model; choose another name or move it away")


class DarknetFiles(NamedTuple):
    """The files that `export_darknet` wrote."""

    cfg: Path
    weights: Path
    names: Path
    image_size: int  # side of the network's input


def export_darknet(snapshot: Snapshot, folder: str | Path, force: bool = False) -> DarknetFiles:
    """Write ``<stem>.cfg``, ``<stem>.weights`` and ``<stem>.names`` for OpenCV's DNN module and Darknet.

    The network expects RGB from 0 to 1, fitted into a square at its top left, the rest black. OpenCV's
    ``blobFromImage`` and Darknet stretch an image unless told otherwise (Darknet: ``-letter_box``), which costs
    accuracy where images are far from square. OpenCV makes scores below 0.2 zero.

    Args:
        snapshot: training or inference, of a ``yolov4_tiny``.
        folder: where the files go; made if need be.
        force: replace files of these names.

    Raises:
        SnapshotError: the snapshot is of another detector, a class name has a line end, or a file is there already.

    Example:
        >>> rm.export_darknet(trained.best, "exported")
    """
    snapshots.refuse_export(snapshot)
    detector = detectors.restore(snapshot)
    if not hasattr(detector, "description"):
        raise SnapshotError(
            f"{snapshot.weights} is a {detector.name}, for which Darknet has no layers; expected a yolov4_tiny"
        )
    if bad := [name for name in detector.classes if unwritable(name)]:
        raise SnapshotError(f"{snapshot.weights}: class {bad[0]!r} has a line end or control character, rename it")
    stem = Path(folder, snapshot.weights.stem)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("cfg", "weights", "names")]
    made = DarknetFiles(*paths, detector.description.image_size)
    for path in paths:
        files.refuse_existing(path, force, "folder")
    _, network = detectors.load(snapshot, snapshot.kind)
    files.write_text(made.names, "".join(f"{name}\n" for name in detector.classes))
    files.write_text(made.cfg, detector.description.text)
    training = snapshot.record.get("training", {})
    parameters = training.get("parameters", {})
    images = parameters.get("steps", 0) * parameters.get("batch_size", 0) or training.get("images", 0)
    images_seen = training.get("epoch", 0) * images  # counting repeats; 0 where the snapshot does not say
    darknet_weights.write(network, detector.description, made.weights, images_seen)
    return made
