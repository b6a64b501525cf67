"""Snapshots: a weights file and a JSON file of the same stem that says everything about it.

The weights file of a RetinaNet is the ``.h5`` that keras-retinanet itself writes (the whole model
without optimizer), so that keras-retinanet can read it; we read only its weights and build the
network from the JSON. Nothing pickled and no stored code is ever loaded.
"""

import contextlib
import itertools
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retinamask.dataset import files
from retinamask.dataset.annotations import AnnotationError, fingerprint
from retinamask.detectors import pairs

FORMAT = 1
KINDS = ("training", "inference")
CLASSIFIER = "mask_classifier"  # the one that finds no boxes
_FIELDS = {"kind": str, "detector": str, "classes": dict, "settings": dict, "weights_sha256": str}


class SnapshotError(ValueError):
    """A snapshot is missing, damaged, or not what was asked for; the message says what to do."""


@dataclass(frozen=True)
class Snapshot:
    """A checked snapshot on disk.

    Attributes:
        weights: the ``.h5`` file.
        record: the JSON beside it: ``kind`` (``training`` or ``inference``), ``detector``, ``classes`` (name to
            id), ``settings`` (of the detector), ``inference`` (thresholds, for that kind), ``training`` (parameters,
            fingerprint of the training table, metrics, versions), ``created`` and ``weights_sha256``.
    """

    weights: Path
    record: dict[str, Any]

    @property
    def kind(self) -> str:
        return self.record["kind"]

    @property
    def classes(self) -> dict[str, int]:
        return self.record["classes"]

    @property
    def classifies(self) -> bool:
        """Whether it is a classifier of faces, which finds no boxes."""
        return self.record["detector"] == CLASSIFIER

    def __str__(self) -> str:
        settings = self.record["settings"]
        network = " ".join(filter(None, (self.record["detector"], settings.get("backbone"))))
        side = settings.get("image_size") or f"{settings.get('image_width')} x {settings.get('image_height')}"
        return f"{self.weights} ({network}, {self.kind} model, {side} px, classes {', '.join(self.classes)})"


def save(network, weights: str | Path, record: dict[str, Any]) -> Snapshot:
    """Write ``network`` to ``weights`` (``.h5``) and ``record`` beside it.

    An older snapshot of that name is replaced; killed at any moment, `read` gives the old one or the new one. The
    checksum and the time are added to the record.

    Raises:
        SnapshotError: the disk is full; an older snapshot of that name is as it was.
    """
    with _replacing(Path(weights), lambda: 4 * network.count_params()) as temporary:
        with _without_advice():
            network.save(temporary, include_optimizer=False)
        checksum = files.sha256(temporary)
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"format": FORMAT, **record, "created": created, "weights_sha256": checksum}
        pairs.commit(Path(weights), record, checksum)
    return Snapshot(Path(weights), record)


def copy(snapshot: Snapshot, weights: str | Path, training: dict[str, Any]) -> Snapshot:
    """The same snapshot under another name, with further entries in its training record.

    The weights are a second name of the same file where the file system has that, so they take no room; nothing here
    ever writes into a weights file, so neither can change the other.

    Raises:
        SnapshotError: the disk is full; an older snapshot of that name is as it was.
    """
    record = {**snapshot.record, "training": {**snapshot.record.get("training", {}), **training}}
    with _replacing(Path(weights), lambda: snapshot.weights.stat().st_size) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(snapshot.weights, temporary)
        except OSError:  # not on this file system, or too many names
            shutil.copyfile(snapshot.weights, temporary)
        pairs.commit(Path(weights), record, record["weights_sha256"])
    return Snapshot(Path(weights), record)


def remove(weights: str | Path) -> None:
    """Remove a snapshot: its JSON, then its weights, then what saves that were cut short have left."""
    weights = Path(weights)
    weights.with_suffix(".json").unlink(missing_ok=True)
    weights.unlink(missing_ok=True)
    pairs.tidy(weights, None)


@contextlib.contextmanager
def _replacing(weights: Path, needed_bytes: Callable[[], int]) -> Iterator[Path]:
    """Give the path for new weights, say it well if the disk is full, and leave nothing half written."""
    check_name(weights)
    weights.parent.mkdir(parents=True, exist_ok=True)
    described = weights.with_suffix(".json")
    try:
        yield pairs.fresh(weights)
    except (OSError, RuntimeError) as error:  # HDF5 raises both
        if not files.is_full(error):
            raise
        stays = f"the {weights.name} that was there before stays" if described.is_file() else "nothing was there before"
        raise SnapshotError(
            f"{files.no_room(weights, needed_bytes())}; {stays}. Free space, then resume or try again"
        ) from None
    finally:
        current = _try_record(described)
        pairs.tidy(weights, current and current["weights_sha256"])


def check_name(weights: Path) -> None:
    """Raise `SnapshotError` for a name that tf-keras would not read again as what it is."""
    if weights.suffix != ".h5" or weights.name.endswith(".weights.h5"):
        raise SnapshotError(f"{weights}: expected a name that ends in .h5, and not in .weights.h5")


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Silence tf-keras on HDF5, which is chosen because keras-retinanet reads it, and on unused metrics."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are saving your model as an HDF5 file")
            yield
    finally:
        logger.setLevel(level)


def read(path: str | Path) -> Snapshot:
    """Read and verify a snapshot, given its ``.h5`` or its ``.json``.

    Raises:
        SnapshotError: a file is missing or damaged, or the weights are not those that the JSON describes.
    """
    weights, described = Path(path).with_suffix(".h5"), Path(path).with_suffix(".json")
    while True:
        if not described.is_file():
            theirs = f". If {weights.name} is keras-retinanet's own: retinamask convert {weights} --classes classes.csv"
            raise _missing(described, theirs) if weights.is_file() else _missing(weights)
        record = _read_record(described)
        _settle(weights, record)
        if not weights.is_file():
            raise _missing(weights)
        if files.sha256(weights) == record["weights_sha256"]:
            return Snapshot(weights, record)
        if _read_record(described) == record:  # else another process has saved meanwhile
            raise SnapshotError(
                f"{weights}: SHA-256 differs from the one in {described.name}; the file is damaged or was replaced. "
                "Copy both files again, or train anew"
            )


def _missing(file: Path, advice: str = "") -> SnapshotError:
    return SnapshotError(f"{file} does not exist; a snapshot is an .h5 and a .json file{advice}")


def _settle(weights: Path, record: dict[str, Any]) -> None:
    """Finish a save of which the process was killed just before its last step."""
    try:
        pairs.settle(weights, record["weights_sha256"])
    except OSError as error:
        raise SnapshotError(
            f"{weights}: its last save was cut short and cannot be finished ({error}); make {weights.parent} writable"
        ) from None


def free_stem(folder: str | Path, run: str) -> Path:
    """The first of `stems` under which no run has left snapshots or checkpoints."""
    return next(stem for stem in stems(folder, run) if not _is_taken(stem))


def stems(folder: str | Path, run: str) -> Iterator[Path]:
    """What runs of one name are called in a folder: ``<folder>/<run>``, then with ``-2``, ``-3`` ... behind it."""
    yield Path(folder, run)
    yield from (Path(folder, f"{run}-{number}") for number in itertools.count(2))


def _is_taken(stem: Path) -> bool:
    left = re.compile(rf"{re.escape(stem.name)}_((best|last|\d{{3,}})(_inference)?\.(h5|json)|checkpoint-\d+\.state)")
    return stem.parent.is_dir() and any(left.fullmatch(path.name) for path in stem.parent.iterdir())


def trained_on(snapshot: Snapshot, table) -> bool:
    """Whether ``table`` is what the snapshot was trained on, so that the run's other splits are held out."""
    return snapshot.record.get("training", {}).get("training_table_fingerprint") == fingerprint(table, snapshot.classes)


def check_classes(snapshot: Snapshot, classes: dict[str, int]) -> None:
    """Raise `AnnotationError` unless the snapshot was trained for these classes in this order."""
    if list(snapshot.classes.items()) != list(classes.items()):
        raise AnnotationError(
            f"{snapshot.weights} was trained for the classes {_listed(snapshot.classes)}, "
            f"the annotations have {_listed(classes)}; use the classes.csv it was trained with, or train anew"
        )


def _listed(classes: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in classes.items())


def _read_record(path: Path) -> dict[str, Any]:
    """The JSON, checked to have what loading needs."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SnapshotError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise SnapshotError(f"{path}: not a snapshot description of format {FORMAT}")
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(record.get(name), kind)]
    if wrong or record["kind"] not in KINDS:
        raise SnapshotError(
            f"{path}: {', '.join(wrong) or 'kind'} is missing or wrong; it was not written by retinamask"
        )
    return record


def _try_record(path: Path) -> dict[str, Any] | None:
    try:
        return _read_record(path)
    except SnapshotError:
        return None
