"""Images decoded and resized once, kept as bytes in memory or in a file beside the data.

Above `pixel_file`; `examples` has the pixels of every pass from here.
"""

import ctypes
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinamask.dataset import images
from retinamask.detectors import _keras
from retinamask.progress import track
from retinamask.training import pixel_file
from retinamask.training.pixel_file import PixelCacheError, PixelFile

MEMORY_BYTES = 2_000_000_000  # up to here ``auto`` keeps pixels in memory
_ROW_BYTES = 4096

Scale = Callable[[tuple[int, int]], float]


class _Image(NamedTuple):
    """One image as its header describes it, and its place among the bytes of all."""

    number: int
    path: str
    original_wh: tuple[int, int]
    scale: float
    size_wh: tuple[int, int]
    offset: int

    @property
    def nbytes(self) -> int:
        return self.size_wh[0] * self.size_wh[1] * 3

    @property
    def record(self) -> int:
        """Where its record begins in a file."""
        return self.offset + self.number * pixel_file.RECORD_OVERHEAD


class Pixels:
    """The resized pixels of all usable images.

    Attributes:
        paths: of the usable images, in the order given.
        unusable: one message for each image that is missing or damaged.
        original_sizes_wh: upright size of each usable image as stored.
        sizes_wh: its size after resizing.
        scales: what it was resized by.
        nbytes: bytes of all pixels together.
        where: ``memory``, or the path of the file.
    """

    def __init__(self, laid_out: list[_Image], unusable: list[str], damaged: dict[str, str], held):
        """``held``: a ``uint8`` tensor of all pixels, or a `PixelFile`."""
        self.unusable = unusable + list(damaged.values())
        self.where = str(held.path) if isinstance(held, PixelFile) else "memory"
        self._held = held
        self._take([image for image in laid_out if image.path not in damaged])

    def keep(self, kept: Sequence[bool]) -> None:
        """Leave out the images for which ``kept``, of one truth value an image, is False."""
        self._take([image for image, stays in zip(self._usable, kept, strict=True) if stays])

    def _take(self, usable: list[_Image]) -> None:
        self._usable = usable
        self.paths = [image.path for image in usable]
        self.original_sizes_wh = [image.original_wh for image in usable]
        self.sizes_wh = [image.size_wh for image in usable]
        self.scales = [image.scale for image in usable]
        self.nbytes = sum(image.nbytes for image in usable)
        in_file = isinstance(self._held, PixelFile)
        self._begins = [image.record if in_file else image.offset for image in usable]

    def reader(self):
        """A function from an index, an integer or a tensor, to pixels ``uint8 (height, width, 3)`` RGB as a tensor.

        For graphs and eagerly, from any thread; only TensorFlow is at work in it.
        """
        import tensorflow as tf

        with tf.device("CPU"):
            begins = tf.constant(self._begins, tf.int64)
            shapes = tf.constant([(height, width, 3) for width, height in self.sizes_wh], tf.int64, (len(begins), 3))

        def read(index):
            begin, shape = tf.gather(begins, index), tf.gather(shapes, index)
            if isinstance(self._held, PixelFile):
                pixels = self._held.record(begin)
            else:
                pixels = tf.slice(self._held, begin[None], tf.reduce_prod(shape)[None])
            return tf.ensure_shape(tf.reshape(pixels, shape), (None, None, 3))

        return read

    def read(self, index: int) -> np.ndarray:
        """Pixels of one image, ``uint8`` RGB ``(height, width, 3)``, a new array.

        Raises:
            PixelCacheError: the file was damaged or removed meanwhile.
        """
        import tensorflow as tf

        try:
            with tf.device("CPU"):
                return np.array(self.reader()(index))
        except tf.errors.OpError as error:
            raise PixelCacheError(
                f"{self.where}: damaged or removed while it was in use ({error.message}); start again, "
                "it will be made anew"
            ) from error


def open_pixels(folder: str | Path, paths: list[str], scale: Scale, cache: str = "auto") -> Pixels:
    """Decode and resize every image once, on all cores, or take what an earlier run left in a file.

    What is about to be kept is printed first.

    Args:
        folder: the folder that ``paths`` are relative to; a file is made beside the images, see `pixel_file.path_for`.
        paths: the images; one that cannot be read is left out and named in ``unusable``.
        scale: resized size / original size, from an original ``(width, height)``.
        cache: ``memory``, ``file``, or ``auto``: memory up to `MEMORY_BYTES`.

    Raises:
        PixelCacheError: no room, or no permission to write beside the data.
    """
    _keras.prepare()
    folder = Path(folder)
    laid_out, unusable = _lay_out(folder, paths, scale)
    nbytes = sum(image.nbytes for image in laid_out)
    if cache == "memory" or (cache == "auto" and nbytes <= MEMORY_BYTES):
        _say(laid_out, "in memory")
        return _in_memory(folder, laid_out, unusable)
    return _in_file(folder, laid_out, unusable)


def _say(laid_out: list[_Image], where: str) -> None:
    nbytes = sum(image.nbytes for image in laid_out)
    print(f"{len(laid_out)} images, {nbytes / 1e6:,.0f} MB {where}", flush=True)


def _lay_out(folder: Path, paths: list[str], scale: Scale) -> tuple[list[_Image], list[str]]:
    """Size and place of each image by its header, and messages about those without a readable one."""

    def size_or_error(path: str) -> tuple[int, int] | images.ImageError:
        try:
            return images.image_size(folder / path)
        except images.ImageError as error:
            return error

    laid_out, unusable, offset = [], [], 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, found in zip(paths, pool.map(size_or_error, paths), strict=True):
            if isinstance(found, images.ImageError):
                unusable.append(str(found))
                continue
            factor = float(scale(found))
            laid_out.append(_Image(len(laid_out), path, found, factor, _resized(found, factor), offset))
            offset += laid_out[-1].nbytes
    return laid_out, unusable


def _resized(size_wh: tuple[int, int], scale: float) -> tuple[int, int]:
    """The size that `images.resize` gives: OpenCV rounds halves to the even number, as Python does."""
    width, height = (max(1, round(side * max(scale, 1 / side))) for side in size_wh)
    return width, height


def _decoded(folder: Path, laid_out: list[_Image]) -> Iterator[tuple[_Image, np.ndarray | str]]:
    """Every image in order, resized, or the message about its damage; only a few are held at any time."""

    def decode(image: _Image) -> np.ndarray | str:
        try:
            pixels = images.resize(images.read_image(folder / image.path), image.scale)
        except images.ImageError as error:
            return str(error)
        if pixels.shape[1::-1] != image.size_wh:
            return (
                f"{folder / image.path}: its header says {image.original_wh}, but it holds another size; save it anew"
            )
        return pixels

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead, waiting = iter(laid_out), deque()
        for _ in track(laid_out, "decoding", "image"):
            for image in itertools.islice(ahead, 2 * workers + 1 - len(waiting)):
                waiting.append((image, pool.submit(decode, image)))
            image, future = waiting.popleft()
            yield image, future.result()


def _in_file(folder: Path, laid_out: list[_Image], unusable: list[str]) -> Pixels:
    """The pixels in the file that is there for them, else in a new one."""
    path = pixel_file.path_for([(folder / image.path, image.scale) for image in laid_out], folder)
    nbytes = sum(image.nbytes + pixel_file.RECORD_OVERHEAD for image in laid_out)
    damaged = pixel_file.damaged_images(path, nbytes)
    _say(laid_out, f"in {path}" if damaged is None else f"found in {path}")
    if damaged is None:
        damaged = {}
        pixel_file.write(path, nbytes, _sound(_decoded(folder, laid_out), damaged), damaged)
    pixel_file.remove_stale(path)
    return Pixels(laid_out, unusable, damaged, PixelFile(path))


def _sound(decoded: Iterator[tuple[_Image, np.ndarray | str]], damaged: dict[str, str]) -> Iterator[np.ndarray]:
    """The pixels of every image; black in the place of a damaged one, which is noted."""
    for image, pixels in decoded:
        if isinstance(pixels, str):
            damaged[image.path] = pixels
            pixels = np.zeros((*image.size_wh[::-1], 3), np.uint8)
        yield pixels


def _in_memory(folder: Path, laid_out: list[_Image], unusable: list[str]) -> Pixels:
    """The pixels in one tensor."""
    import tensorflow as tf

    nbytes, damaged = sum(image.nbytes for image in laid_out), {}
    try:
        held = _unfilled(nbytes)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise PixelCacheError(f"{nbytes:,} bytes of pixels do not fit into memory; use cache='file'") from None
    filled = _writable(held)
    for image, pixels in zip(laid_out, _sound(_decoded(folder, laid_out), damaged), strict=True):
        filled[image.offset : image.offset + image.nbytes] = pixels.reshape(-1)
    return Pixels(laid_out, unusable, damaged, held)


def _unfilled(nbytes: int):
    """A ``uint8`` tensor of ``nbytes`` or a few more, whose memory nothing has touched yet."""
    import tensorflow as tf

    with tf.device("CPU"):  # in rows, since TensorFlow takes no side of 2**31 here
        rows = tf.raw_ops.Empty(shape=[-(-nbytes // _ROW_BYTES), _ROW_BYTES], dtype=tf.uint8, init=False)
        return tf.reshape(rows, [-1])


def _writable(tensor) -> np.ndarray:
    """The memory of a ``uint8`` tensor ``(n,)`` that is not in use yet; it lasts as long as the tensor.

    A tensor made of a full array, or read from a variable filled step by step, would be a second copy of it all.
    """
    address = np.from_dlpack(tensor).ctypes.data
    return np.ctypeslib.as_array((ctypes.c_uint8 * tensor.shape[0]).from_address(address))
