"""The file beside the data in which decoded pixels are kept from run to run.

Below `pixel_cache`, which fills it. ``.retinamask_cache/<images>-<state>.pixels`` beside the images is a TFRecord file
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details) with the bytes of one image in each
record, so that TensorFlow reads any of them by itself and checks it; the ``.index`` of the same stem, in JSON, says how
many bytes there must be and which images are damaged (readers of annotations would look into a ``.json``).
``<images>`` stands for the paths and their scales, ``<state>`` for the sizes and times of the image files, so that a
changed image leads to another name.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from retinamask.dataset import files
from retinamask.detectors import _keras

try:
    import fcntl
except ImportError:  # Windows, which removes no file that is open
    fcntl = None

log = logging.getLogger(__name__)

FOLDER = ".retinamask_cache"
RECORD_OVERHEAD = 16  # bytes: length, checksum of the length, and after the bytes their checksum
_UNUSED_SECONDS = 14 * 86_400  # a file that nothing opened for so long is removed
_ABANDONED_SECONDS = 3_600  # a half-written file that nothing writes to any more is removed


class PixelCacheError(ValueError):
    """The pixels cannot be kept where they should be; the message says why and what to do."""


class PixelFile:
    """A whole file of pixels; as long as this object lives, no other run removes it."""

    def __init__(self, path: Path):
        self.path = path
        file = open(path, "rb")  # noqa: SIM115 - open as long as this object is in use
        weakref.finalize(self, file.close)
        if fcntl:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):
            os.utime(_index_path(path))  # in use today

    def record(self, begin):
        """The bytes of the record that begins at ``begin``: a ``uint8`` tensor ``(n,)``, in a graph or eagerly.

        The file is read and not mapped: pages of a map would count as this process's memory, and grow with the images.
        No Python runs, which at the end of a process a thread of TensorFlow's would wait for in vain.
        """
        import tensorflow as tf

        from_here = tf.raw_ops.TFRecordDatasetV2(
            filenames=[str(self.path)],
            compression_type="",
            buffer_size=tf.constant(0, tf.int64),
            byte_offsets=tf.reshape(tf.cast(begin, tf.int64), (1,)),
        )
        kinds = {"output_types": [tf.string], "output_shapes": [()]}
        one = tf.raw_ops.TakeDataset(input_dataset=from_here, count=tf.constant(1, tf.int64), **kinds)
        (content,) = tf.raw_ops.DatasetToSingleElement(dataset=one, **kinds)
        return tf.io.decode_raw(content, tf.uint8)


def path_for(which: list[tuple[Path, float]], otherwise: Path) -> Path:
    """Where the pixels of the images ``which``, of path and scale, in their present state belong.

    In the folder that all images are below, so that every run on them finds it, wherever its table lies; in the folder
    ``otherwise`` if there is none or it must not be written to.
    """
    resolved = {parent: parent.resolve() for parent in {path.parent for path, _ in which}}
    paths = [resolved[path.parent] / path.name for path, _ in which]
    home = _common_folder(list(resolved.values())) or otherwise.resolve()
    names = [(os.path.relpath(path, home), scale) for path, (_, scale) in zip(paths, which, strict=True)]
    state = [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, paths)]
    stems = (hashlib.sha256(repr(part).encode()).hexdigest()[:16] for part in (names, state))
    return home / FOLDER / f"{'-'.join(stems)}.pixels"


def _common_folder(folders: list[Path]) -> Path | None:
    """The folder that these are, or are below, if it may be written to."""
    try:
        common = Path(os.path.commonpath(folders))
    except ValueError:  # of no folder, or on several drives
        return None
    return common if common != Path(common.anchor) and os.access(common, os.W_OK) else None


def damaged_images(path: Path, nbytes: int) -> dict[str, str] | None:
    """What the index says of damaged images, by path; ``None`` if ``path`` is not whole and as it was written."""
    if not (path.exists() and _index_path(path).exists()):
        return None
    try:
        record = json.loads(_index_path(path).read_text(encoding="utf-8"))
        stat = path.stat()
        if record["bytes"] == stat.st_size == nbytes and record["written"] == stat.st_mtime_ns:
            return {str(name): str(message) for name, message in record["damaged"].items()}
        found = f"{stat.st_size:,} bytes, expected {nbytes:,}, untouched since they were written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
    log.warning("%s: damaged, cut short or changed (%s); the images are decoded again", path, found)
    return None


def write(path: Path, nbytes: int, records: Iterable[np.ndarray], damaged: dict[str, str]) -> None:
    """Write all records and then the index, whole or not at all.

    Args:
        path: from `path_for`.
        nbytes: of the whole file, overhead included.
        records: ``uint8`` arrays; taken one at a time.
        damaged: messages by path, complete when ``records`` has ended.

    Raises:
        PixelCacheError: no room, or no permission.
    """
    _keras.prepare()
    import tensorflow as tf

    try:
        path.parent.mkdir(exist_ok=True)
        files.write_text(path.parent / ".gitignore", "*\n")
        _check_room(path, nbytes)
        with files.replacing(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for pixels in records:
                writer.write(pixels.tobytes())
        index = {"bytes": nbytes, "written": path.stat().st_mtime_ns, "damaged": damaged}
        files.write_json(_index_path(path), index)
    except OSError as error:
        raise PixelCacheError(_no_room(path, nbytes, error.strerror or str(error))) from error
    except tf.errors.OpError as error:
        raise PixelCacheError(_no_room(path, nbytes, error.message)) from error


def remove_stale(path: Path) -> None:
    """Remove files of the same images in another state, those long unused, and what was never finished.

    Nothing that another run has open.
    """
    for other in [*path.parent.glob("*.pixels"), *path.parent.glob(".*.pixels"), *path.parent.glob(".*.index")]:
        index = _index_path(other)
        with contextlib.suppress(OSError):
            outdated = other.name.partition("-")[0] == path.name.partition("-")[0] and other != path
            age = time.time() - (index if index.exists() else other).stat().st_mtime
            if outdated or age > (_UNUSED_SECONDS if index.exists() else _ABANDONED_SECONDS):
                _remove_unused(other)
                index.unlink(missing_ok=True)


def _remove_unused(path: Path) -> None:
    """Remove a file; `OSError` if another run uses it."""
    if fcntl:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    path.unlink()


def _index_path(path: Path) -> Path:
    return path.with_suffix(".index")


def _check_room(path: Path, nbytes: int) -> None:
    """Say that the disk is too small now and not when it is full."""
    if shutil.disk_usage(path.parent).free < nbytes:
        raise PixelCacheError(_no_room(path, nbytes, "the disk is too full"))


def _no_room(path: Path, nbytes: int, why: str) -> str:
    with contextlib.suppress(OSError):
        why += f"; {shutil.disk_usage(path.parents[1]).free:,} bytes are free"
    return (
        f"{path}: cannot be written ({why}; {nbytes:,} bytes are needed); make room, move the data to a disk with "
        "more room where you may write, or keep the pixels in memory with cache='memory'"
    )
