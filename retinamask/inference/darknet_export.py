"""From a snapshot to Darknet's three files, which OpenCV's DNN module and Darknet itself run.

Beside `convert`; the formats are those of `retinamask.detectors.darknet`.
"""

from pathlib import Path
from typing import NamedTuple

from retinamask import detectors
from retinamask.dataset import files
from retinamask.dataset.formats.class_names import unwritable
from retinamask.detectors.darknet import weights
from retinamask.detectors.snapshots import Snapshot, SnapshotError


class DarknetFiles(NamedTuple):
    """What `export_darknet` wrote."""

    cfg: Path
    weights: Path
    names: Path
    image_size: int  # side of the network's input


def export_darknet(snapshot: Snapshot, folder: str | Path, force: bool = False) -> DarknetFiles:
    """Write ``<stem>.cfg``, ``<stem>.weights`` and ``<stem>.names``.

    The network expects RGB from 0 to 1. It was trained on images fitted into a square at its top left, the rest black:
    that shows it objects in their own shape. OpenCV's ``blobFromImage`` and Darknet stretch an image unless told
    otherwise (Darknet: ``-letter_box``), which costs accuracy where images are far from square. OpenCV makes scores
    below 0.2 zero.

    Args:
        snapshot: of a ``yolov4_tiny``, of either kind.
        folder: where the files go; made if need be.
        force: replace files of these names.

    Raises:
        SnapshotError: the snapshot is of another detector, a class name has a line end, or a file is there already.

    Example:
        >>> rm.export_darknet(trained.best, "exported")
    """
    detector = detectors.restore(snapshot)
    if not hasattr(detector, "description"):
        raise SnapshotError(
            f"{snapshot.weights} is a {detector.name}, for which Darknet has no layers; expected a yolov4_tiny"
        )
    bad = [name for name in detector.classes if unwritable(name)]
    if bad:
        raise SnapshotError(f"{snapshot.weights}: class {bad[0]!r} has a line end or control character, rename it")
    stem = snapshot.weights.stem
    made = DarknetFiles(
        *(Path(folder) / f"{stem}.{kind}" for kind in ("cfg", "weights", "names")), detector.description.image_size
    )
    taken = [path for path in made[:3] if path.exists()]
    if taken and not force:
        raise SnapshotError(f"{taken[0]} exists; choose another folder, or replace it with --force")
    _, network = detectors.load(snapshot, snapshot.kind)
    files.write_text(made.names, "".join(f"{name}\n" for name in detector.classes))
    files.write_text(made.cfg, detector.description.text)
    weights.write(network, detector.description, made.weights, _images_seen(snapshot))
    return made


def _images_seen(snapshot: Snapshot) -> int:
    """How many images training showed, counting repeats; 0 where the snapshot does not say."""
    training = snapshot.record.get("training", {})
    parameters, epochs = training.get("parameters", {}), training.get("epoch", 0)
    a_round = parameters.get("steps", 0) * parameters.get("batch_size", 0) or training.get("images", 0)
    return epochs * a_round
