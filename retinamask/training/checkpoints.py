"""Checkpoints: everything a run needs to go on as if it had never stopped, in one file that is whole or not there.

A leaf of `training`; the loop says what goes in. Nothing pickled is ever written or read. The file, all numbers little
endian: 16 bytes ``retinamask state``; the length of a JSON header as uint64; the header (``step``, ``record``, and
``name``, ``dtype`` and ``shape`` of each array); the arrays in that order and in C order, each begun at the next
multiple of 16 from the file's start; last the CRC-32 of all before it as uint32.
"""

import json
import logging
import math
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinamask.dataset import files
from retinamask.training.settings import TrainingError

log = logging.getLogger(__name__)

SUFFIX = ".state"
KEPT = 2
_MAGIC = b"retinamask state"
_HEADER_START = len(_MAGIC) + 8
_ALIGNMENT = 16


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
    """Write ``<stem>_checkpoint-<step>.state``; once it is whole, older ones but one and all of later steps go.

    Later steps than ``step`` are those of damaged files that `newest` has skipped.

    Args:
        stem: folder and run name; one process at a time may write for it.
        step: updates done so far.
        arrays: numbers or truth values of any shape.
        record: JSON values; NaN is allowed, tuples become lists.

    Raises:
        TrainingError: the disk is full; the earlier checkpoints are as they were.
        TypeError: an array holds something else, or ``record`` is not JSON.
    """
    stem = Path(stem)
    path = stem.with_name(f"{stem.name}_checkpoint-{step:08d}{SUFFIX}")
    chunks = list(_chunks(step, arrays, record))
    stem.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(stem)
    try:
        _write(temporary, chunks)
        temporary.replace(path)
        files.sync_folder(path.parent)
    except OSError as error:
        if not files.is_full(error):
            raise
        raise TrainingError(_no_room(stem, path, sum(map(len, chunks)))) from None
    finally:
        temporary.unlink(missing_ok=True)
    _remove_all_but(stem, step)
    return path


def newest(stem: str | Path) -> Checkpoint | None:
    """The checkpoint of the highest step that is whole, or none; damaged ones are skipped with a warning."""
    for _, path in reversed(_saved(Path(stem))):
        try:
            return read(path)
        except (ValueError, OSError) as error:
            log.warning("%s; an older checkpoint is looked for", error)
    return None


def remove(stem: str | Path) -> None:
    """Remove all checkpoints of a stem, with what a killed process left half written."""
    for _, path in _saved(Path(stem)):
        path.unlink(missing_ok=True)
    _temporary(Path(stem)).unlink(missing_ok=True)


def files_of(stem: str | Path) -> list[Path]:
    """The checkpoint files of a stem, whole or not, by step."""
    return [path for _, path in _saved(Path(stem))]


def read(path: str | Path) -> Checkpoint:
    """Read one file; raises `TrainingError` if any byte of it is not as it was written."""
    content = np.fromfile(path, np.uint8)
    if content.size < _HEADER_START + 4 or content[: len(_MAGIC)].tobytes() != _MAGIC:
        raise TrainingError(f"{path}: not a whole checkpoint")
    if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:].tobytes(), "little"):
        raise TrainingError(f"{path}: is damaged, its bytes do not have the checksum they were written with")
    position = _HEADER_START + int.from_bytes(content[len(_MAGIC) : _HEADER_START].tobytes(), "little")
    header = json.loads(content[_HEADER_START:position].tobytes())
    arrays = {}
    for about in header["arrays"]:
        position += _padding(position)
        arrays[about["name"]] = _array(content, position, about)
        position += arrays[about["name"]].nbytes
    return Checkpoint(header["step"], arrays, header["record"])


def _chunks(step: int, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> Iterator[memoryview]:
    """The file in pieces, without copying arrays that are contiguous."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biufc":
            raise TypeError(f"array {name} has type {array.dtype}, expected numbers or truth values")
    about = [{"name": name, "dtype": array.dtype.str, "shape": list(array.shape)} for name, array in arrays.items()]
    header = json.dumps({"step": step, "record": record, "arrays": about}).encode()
    yield memoryview(_MAGIC + len(header).to_bytes(8, "little") + header)
    position = _HEADER_START + len(header)
    for array in arrays.values():
        yield memoryview(bytes(_padding(position)))
        yield memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        position += _padding(position) + array.nbytes


def _array(content: np.ndarray, position: int, about: dict[str, Any]) -> np.ndarray:
    """The array at a place of the file, sharing its memory."""
    kind = np.dtype(about["dtype"])
    return content[position : position + math.prod(about["shape"]) * kind.itemsize].view(kind).reshape(about["shape"])


def _padding(position: int) -> int:
    return -position % _ALIGNMENT


def _write(path: Path, chunks: list[memoryview]) -> None:
    """Write pieces and their CRC-32, and wait until the disk has them."""
    checksum = 0
    with open(path, "wb") as file:
        for chunk in chunks:
            checksum = zlib.crc32(chunk, checksum)
            file.write(chunk)
        file.write(checksum.to_bytes(4, "little"))
        file.flush()
        os.fsync(file.fileno())


def _temporary(stem: Path) -> Path:
    """Always the same name, so that the next save takes the place of what a killed process left."""
    return stem.with_name(f".{stem.name}_checkpoint.new")


def _saved(stem: Path) -> list[tuple[int, Path]]:
    """Step and file of every checkpoint of this stem, by step."""
    pattern = re.compile(rf"{re.escape(stem.name)}_checkpoint-(\d{{8,}}){re.escape(SUFFIX)}")
    if not stem.parent.is_dir():
        return []
    matches = [(pattern.fullmatch(path.name), path) for path in stem.parent.iterdir()]
    return sorted((int(match[1]), path) for match, path in matches if match)


def _remove_all_but(stem: Path, step: int) -> None:
    """Keep the one of this step and those just before it."""
    kept = [path for saved, path in _saved(stem) if saved <= step][-KEPT:]
    for _, path in _saved(stem):
        if path not in kept:
            path.unlink(missing_ok=True)


def _no_room(stem: Path, path: Path, needed_bytes: int) -> str:
    saved = _saved(stem)
    stays = f"{saved[-1][1]} stays" if saved else "there is no earlier checkpoint of this run"
    return f"{files.no_room(path, needed_bytes)}; {stays}. Free space, then resume"
