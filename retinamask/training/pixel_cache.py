"""Images decoded and resized once, kept as bytes in memory or in a file beside the data.

The file, ``.retinamask_cache/<images>-<state>.pixels`` beside the images, is a TFRecord file
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details) with a record for each image, so that
TensorFlow reads any of them by itself and checks it; the ``.index`` of the same stem, in JSON, says how many bytes
there must be and which images are damaged (readers of annotations would look into a ``.json``). ``<images>`` stands
for the paths and their scales, ``<state>`` for the sizes and times of the image files: a change gives another name.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import mmap
import os
import shutil
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinamask.dataset import files, images
from retinamask.detectors import _keras
from retinamask.progress import track

try:
    import fcntl
except ImportError:  # Windows, which removes no file that is open
    fcntl = None

log = logging.getLogger(__name__)

FOLDER = ".retinamask_cache"
MEMORY_BYTES = 2_000_000_000  # up to here ``auto`` keeps pixels in memory
_RECORD_OVERHEAD = 16  # bytes of a record: length and its checksum, 12, then the content and its checksum
_UNUSED_SECONDS = 14 * 86_400  # a file that nothing opened for so long is removed
_ABANDONED_SECONDS = 3_600  # a half-written file that nothing writes to any more is removed


class PixelCacheError(ValueError):
    """The pixels cannot be kept where they should be; the message says why and what to do."""


class _Image(NamedTuple):
    """One image as its header describes it; ``begin`` is where its record begins, in memory its bytes."""

    path: str
    original_wh: tuple[int, int]
    scale: float
    size_wh: tuple[int, int]
    begin: int

    @property
    def nbytes(self) -> int:
        return self.size_wh[0] * self.size_wh[1] * 3


class Pixels:
    """The resized pixels of all usable images.

    Attributes:
        paths: of the usable images, in the order given.
        unusable: one message for each image that is missing or damaged.
        original_sizes_wh: upright size of each usable image as stored.
        sizes_wh: its size after resizing.
        scales: what it was resized by.
        nbytes: bytes of all pixels together.
        where: ``memory``, or the path of the file; as long as this object lives, no other run removes it.
    """

    def __init__(self, usable: list[_Image], unusable: list[str], held=None, path: Path | None = None):
        """``held``: a ``uint8`` tensor of all pixels, else ``path`` is that of a file."""
        self._usable, self.unusable, self._held, self._path = usable, unusable, held, path
        self.where = str(path or "memory")
        self.keep([True] * len(usable))
        if path:
            file = open(path, "rb")  # noqa: SIM115 - open as long as this object is in use
            weakref.finalize(self, file.close)
            with contextlib.suppress(OSError):  # a file system without locks
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                os.utime(path.with_suffix(".index"))  # in use today

    def keep(self, kept: Sequence[bool]) -> None:
        """Leave out the images for which ``kept``, of one truth value an image, is False."""
        self._usable = [image for image, stays in zip(self._usable, kept, strict=True) if stays]
        self.paths = [image.path for image in self._usable]
        self.original_sizes_wh = [image.original_wh for image in self._usable]
        self.sizes_wh = [image.size_wh for image in self._usable]
        self.scales = [image.scale for image in self._usable]
        self.nbytes = sum(image.nbytes for image in self._usable)

    def reader(self):
        """Make a function from an index, an integer or a tensor, to a tensor ``uint8 (height, width, 3)`` of RGB.

        For graphs and eagerly, from any thread; only TensorFlow is at work in it. A file is read and not mapped: pages
        of a map would count as this process's memory, and a file that shrinks would end it.
        """
        import tensorflow as tf

        with tf.device("CPU"):
            begins = tf.constant([image.begin for image in self._usable], tf.int64)
            shapes = tf.constant([(height, width, 3) for width, height in self.sizes_wh], tf.int64, (len(begins), 3))

        def read(index):
            begin, shape = tf.gather(begins, index), tf.gather(shapes, index)
            if self._path:
                from_here = tf.raw_ops.TFRecordDatasetV2(
                    filenames=[str(self._path)],
                    compression_type="",
                    buffer_size=tf.constant(0, tf.int64),
                    byte_offsets=tf.reshape(begin, (1,)),
                )
                kinds = {"output_types": [tf.string], "output_shapes": [()]}
                one = tf.raw_ops.TakeDataset(input_dataset=from_here, count=tf.constant(1, tf.int64), **kinds)
                pixels = tf.io.decode_raw(tf.raw_ops.DatasetToSingleElement(dataset=one, **kinds)[0], tf.uint8)
            else:
                pixels = tf.slice(self._held, begin[None], tf.reduce_prod(shape)[None])
            return tf.ensure_shape(tf.reshape(pixels, shape), (None, None, 3))

        return read

    def read(self, index: int) -> np.ndarray:
        """Read one image into a new ``uint8`` array; `PixelCacheError` if the file was damaged or removed meanwhile."""
        import tensorflow as tf

        try:
            with tf.device("CPU"):
                return np.array(self.reader()(index))
        except tf.errors.OpError as error:
            raise PixelCacheError(
                f"{self.where}: damaged or removed while it was in use ({error.message}); start again, "
                "it will be made anew"
            ) from error


def open_pixels(
    folder: str | Path, paths: list[str], scale: Callable[[tuple[int, int]], float], cache: str = "auto"
) -> Pixels:
    """Decode and resize every image once, on all cores, or take what an earlier run left in a file.

    What is about to be kept is printed first.

    Args:
        folder: the folder that ``paths`` are relative to; a file is made in the folder that all images are below.
        paths: the images; one that cannot be read is left out and named in ``unusable``.
        scale: resized size / original size, from an original ``(width, height)``.
        cache: ``memory``, ``file``, or ``auto``: memory up to `MEMORY_BYTES`.

    Raises:
        PixelCacheError: no room, or no permission to write beside the data.
    """
    _keras.prepare()
    import tensorflow as tf

    folder, damaged = Path(folder), {}
    laid_out, unusable = _lay_out(folder, paths, scale)
    nbytes, held, path = sum(image.nbytes for image in laid_out), None, None
    needed, size = nbytes + _RECORD_OVERHEAD * len(laid_out), f"{len(laid_out)} images, {nbytes / 1e6:,.0f} MB"
    if cache == "memory" or (cache == "auto" and nbytes <= MEMORY_BYTES):
        print(f"{size} in memory", flush=True)
        try:
            filled = np.frombuffer(mmap.mmap(-1, needed or 1), np.uint8)  # which begins where TensorFlow wants it
        except OSError:
            raise PixelCacheError(f"{nbytes:,} bytes of pixels do not fit into memory; use cache='file'") from None
        for image, pixels in zip(laid_out, _decoded(folder, laid_out, damaged), strict=True):
            filled[image.begin : image.begin + image.nbytes] = pixels.reshape(-1)
        held = tf.experimental.dlpack.from_dlpack(filled.__dlpack__())  # the same memory: a copy would double it
    else:
        path = _path_for([(folder / image.path, image.scale) for image in laid_out], folder)
        known = _damaged_images(path, needed)
        print(f"{size} {'found ' if known is not None else ''}in {path}", flush=True)
        damaged = _write(path, needed, folder, laid_out) if known is None else known
        _remove_stale(path)
    usable = [image for image in laid_out if image.begin not in damaged]
    unusable += [damaged[image.begin] for image in laid_out if image.begin in damaged]
    return Pixels(usable, unusable, held, path)


def _lay_out(folder: Path, paths: list[str], scale) -> tuple[list[_Image], list[str]]:
    """Size and place of each image by its header, and messages about those without a readable one."""

    def size_or_error(path: str) -> tuple[int, int] | images.ImageError:
        try:
            return images.image_size(folder / path)
        except images.ImageError as error:
            return error

    laid_out, unusable, begin = [], [], 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, found in zip(paths, pool.map(size_or_error, paths), strict=True):
            if isinstance(found, images.ImageError):
                unusable.append(str(found))
                continue
            factor = float(scale(found))
            laid_out.append(_Image(path, found, factor, _resized(found, factor), begin))
            begin += laid_out[-1].nbytes + _RECORD_OVERHEAD
    return laid_out, unusable


def _resized(size_wh: tuple[int, int], scale: float) -> tuple[int, int]:
    """The size that `images.resize` gives: OpenCV rounds halves to the even number, as Python does."""
    width, height = (max(1, round(side * max(scale, 1 / side))) for side in size_wh)
    return width, height


def _decoded(folder: Path, laid_out: list[_Image], damaged: dict[int, str]) -> Iterator[np.ndarray]:
    """Every image in order, resized; black for a damaged one, noted by its begin. Few are held at any time."""

    def decode(image: _Image) -> np.ndarray:
        try:
            pixels = images.resize(images.read_image(folder / image.path), image.scale)
            if pixels.shape[1::-1] == image.size_wh:
                return pixels
            found = f"its header says {image.original_wh}, but it holds another size; save it anew"
            damaged[image.begin] = f"{folder / image.path}: {found}"
        except images.ImageError as error:
            damaged[image.begin] = str(error)
        return np.zeros((*image.size_wh[::-1], 3), np.uint8)

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead, waiting = iter(laid_out), deque()
        for _ in track(laid_out, "decoding", "image"):
            for image in itertools.islice(ahead, 2 * workers + 1 - len(waiting)):
                waiting.append(pool.submit(decode, image))
            yield waiting.popleft().result()


def _path_for(which: list[tuple[Path, float]], otherwise: Path) -> Path:
    """Where the pixels of the images ``which``, of path and scale, in their present state belong.

    In the folder that all images are below, so that every run on them finds it, wherever its table lies; in the folder
    ``otherwise`` if there is none or it must not be written to.
    """
    resolved = {parent: parent.resolve() for parent in {path.parent for path, _ in which}}
    paths = [resolved[path.parent] / path.name for path, _ in which]
    home = otherwise.resolve()
    with contextlib.suppress(ValueError):  # of no folder, or on several drives
        common = Path(os.path.commonpath(list(resolved.values())))
        if common != Path(common.anchor) and os.access(common, os.W_OK):
            home = common
    names = [(os.path.relpath(path, home), scale) for path, (_, scale) in zip(paths, which, strict=True)]
    state = [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, paths)]
    stems = (hashlib.sha256(repr(part).encode()).hexdigest()[:16] for part in (names, state))
    return home / FOLDER / f"{'-'.join(stems)}.pixels"


def _damaged_images(path: Path, nbytes: int) -> dict[int, str] | None:
    """Messages about damaged images, by begin, from the index; None if ``path`` is not whole and as it was written."""
    index = path.with_suffix(".index")
    if not (path.exists() and index.exists()):
        return None
    try:
        record, stat = json.loads(index.read_text(encoding="utf-8")), path.stat()
        if record["bytes"] == stat.st_size == nbytes and record["written"] == stat.st_mtime_ns:
            return {int(begin): message for begin, message in record["damaged"]}  # no dict of paths, as once
        found = f"{stat.st_size:,} bytes, expected {nbytes:,}, untouched since they were written"
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
    log.warning("%s: damaged, cut short or changed (%s); the images are decoded again", path, found)
    return None


def _write(path: Path, nbytes: int, folder: Path, laid_out: list[_Image]) -> dict[int, str]:
    """Write all records and then the index, whole or not at all; give messages about damaged images, by begin."""
    import tensorflow as tf

    damaged: dict[int, str] = {}
    try:
        path.parent.mkdir(exist_ok=True)
        files.write_text(path.parent / ".gitignore", "*\n")
        if shutil.disk_usage(path.parent).free < nbytes:
            raise OSError("the disk is too full")
        with files.replacing(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for pixels in _decoded(folder, laid_out, damaged):
                writer.write(pixels.tobytes())
        index = {"bytes": nbytes, "written": path.stat().st_mtime_ns, "damaged": list(damaged.items())}
        files.write_json(path.with_suffix(".index"), index)
    except (OSError, tf.errors.OpError) as error:
        why = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
        with contextlib.suppress(OSError):
            why += f"; {shutil.disk_usage(path.parents[1]).free:,} bytes are free"
        raise PixelCacheError(
            f"{path}: cannot be written ({why}; {nbytes:,} bytes are needed); make room, move the data to a disk with "
            "more room where you may write, or keep the pixels in memory with cache='memory'"
        ) from error
    return damaged


def _remove_stale(path: Path) -> None:
    """Remove files of the same images in another state, those long unused, and what was never finished.

    Nothing that another run has open.
    """
    for other in [*path.parent.glob("*.pixels"), *path.parent.glob(".*.pixels"), *path.parent.glob(".*.index")]:
        index = other.with_suffix(".index")
        with contextlib.suppress(OSError):
            outdated = other.name.partition("-")[0] == path.name.partition("-")[0] and other != path
            age = time.time() - (index if index.exists() else other).stat().st_mtime
            if outdated or age > (_UNUSED_SECONDS if index.exists() else _ABANDONED_SECONDS):
                if fcntl:
                    with open(other, "rb") as file:  # an `OSError` if another run uses it
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.unlink()
                index.unlink(missing_ok=True)
