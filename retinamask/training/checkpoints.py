"""Checkpoints: everything that a run needs to resume as if it had never stopped, in one file, whole or absent.

``<stem>_checkpoint-<step>.npz`` is NumPy's archive of the arrays, whose checksums find damage, and of one more,
``record``: step, record and names as UTF-8 JSON. Nothing pickled is ever written or read.
"""

import itertools
import json
import logging
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinamask.dataset import files
from retinamask.training.settings import TrainingError

log = logging.getLogger(__name__)

KEPT = 2
_EARLIER = ".state"  # suffix of what an earlier version wrote
_DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint.

    Attributes:
        step: updates done when it was written.
        arrays: by name, with the shapes and types they were saved with; writable.
        record: plain JSON values.
    """

    step: int
    arrays: dict[str, np.ndarray]
    record: dict[str, Any]


def save(stem: str | Path, step: int, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> Path:
    """Write ``<stem>_checkpoint-<step>.npz``; then remove all but it and the one before it, and all of later steps.

    Later steps than ``step`` are those of damaged files that `newest` has skipped.

    One process at a time may write for a ``stem``. ``arrays`` are numbers or truth values under any name but
    ``record``; ``record`` has JSON values.

    Raises:
        TrainingError: the disk is full; the earlier checkpoints are as they were.
        TypeError, ValueError: ``record`` is not JSON, or an array holds objects.
    """
    stem = Path(stem)
    path, temporary = stem.with_name(f"{stem.name}_checkpoint-{step:08d}.npz"), _temporary(stem)
    text = json.dumps({"step": step, "record": record, "arrays": list(arrays)}).encode()
    stem.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, record=np.frombuffer(text, np.uint8), **arrays)
        files.to_disk(temporary)
        temporary.replace(path)
        files.sync_folder(path.parent)
    except (OSError, ValueError) as error:  # zipfile raises either when it cannot write its end
        if not files.is_full(error):
            raise
        needed = files.no_room(path, sum(np.asarray(array).nbytes for array in arrays.values()) + len(text))
        saved = files_of(stem)
        stays = f"{saved[-1]} stays" if saved else "there is no earlier checkpoint of this run"
        raise TrainingError(f"{needed}; {stays}. Free space, then resume") from None
    finally:
        temporary.unlink(missing_ok=True)
    found = _found(stem)
    kept = [other for saved, other in found if saved <= step][-KEPT:]
    for _, other in found:
        if other not in kept:
            other.unlink(missing_ok=True)
    return path


def newest(stem: str | Path) -> Checkpoint | None:
    """Read the checkpoint of the highest step that is whole, or none; damaged ones are skipped with a warning.

    Raises:
        TrainingError: there are only checkpoints of an earlier version.
    """
    for _, path in reversed(_found(Path(stem))):
        try:
            return read(path)
        except TrainingError as error:
            log.warning("%s; an older checkpoint is looked for", error)
    if earlier := _found(Path(stem), _EARLIER):
        raise TrainingError(
            f"{earlier[-1][1]} was written by an earlier version of retinamask and cannot be resumed; finish the run "
            "with that version, or train under another name, from its last snapshot with weights"
        )
    return None


def remove(stem: str | Path) -> None:
    """Remove all checkpoints of a stem, with what a killed process left half written."""
    for path in files_of(stem):
        path.unlink(missing_ok=True)
    _temporary(Path(stem)).unlink(missing_ok=True)


def files_of(stem: str | Path) -> list[Path]:
    """List the checkpoint files of a stem, whole or not, by step."""
    return [path for _, path in _found(Path(stem))]


def refuse_existing(stem: str | Path) -> None:
    """Raise `TrainingError` if a run of this name has left snapshots or checkpoints: they are never overwritten."""
    left = [path for path in _left_by(Path(stem)) if not path.stem.endswith("_inference")]
    if left:
        raise TrainingError(f"{left[0]} exists; choose another run name, move it away, or resume that run")


def run_stem(folder: str | Path, run: str, resume: bool = False) -> Path:
    """Give the stem under which a notebook's run writes; to resume the one before the first free one.

    That is ``<folder>/<run>``, or with ``-2``, ``-3`` ... after it the first under which no run has left anything.
    """
    stem, before = Path(folder, run), None
    for number in itertools.count(2):
        if not _left_by(stem):
            return before if resume and before else stem
        stem, before = Path(folder, f"{run}-{number}"), stem


def read(path: str | Path) -> Checkpoint:
    """Read one file; raises `TrainingError` if what it holds is not as it was written."""
    try:
        with open(path, "rb") as file, np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
        known = json.loads(arrays.pop("record").tobytes())
        if list(arrays) != known["arrays"]:  # damage to the archive's index may hide some
            raise ValueError(f"{len(arrays)} arrays, expected {len(known['arrays'])}")
        return Checkpoint(known["step"], arrays, known["record"])
    except _DAMAGE as error:
        raise TrainingError(f"{path}: is damaged or no checkpoint ({error})") from None


def _temporary(stem: Path) -> Path:
    """Always the same name, so that the next save takes the place of what a killed process left."""
    return stem.with_name(f".{stem.name}_checkpoint.new")


def _found(stem: Path, suffix: str = ".npz") -> list[tuple[int, Path]]:
    """Step and file of every checkpoint of this stem, by step."""
    return sorted((int(match[1]), path) for path, match in _files(stem, rf"checkpoint-(\d{{8,}}){re.escape(suffix)}"))


def _left_by(stem: Path) -> list[Path]:
    """Snapshots, converted ones too, and checkpoints of a stem."""
    names = r"((best|last|\d{3,})(_inference)?\.(h5|json)|checkpoint-\d+\.(npz|state))"
    return [path for path, _ in _files(stem, names)]


def _files(stem: Path, ending: str) -> list[tuple[Path, re.Match]]:
    """Files named by a stem and this regular expression, with what it matches."""
    pattern = re.compile(rf"{re.escape(stem.name)}_{ending}")
    there = sorted(stem.parent.iterdir()) if stem.parent.is_dir() else []
    return [(path, match) for path in there if (match := pattern.fullmatch(path.name))]
