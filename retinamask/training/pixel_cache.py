"""Images decoded and resized once, kept as bytes in memory or in one file beside the data.

Above `dataset.images`; `examples` reads the pixels of every pass from here.

A file cache is ``<folder>/.retinamask_cache/<images>-<state>.pixels``: the images' bytes (RGB, row by row, no
padding) one after the other in the order of the paths, and a JSON of the same stem that says how many bytes there
must be and which images are damaged. ``<images>`` stands for the paths and their scales, ``<state>`` for the
sizes and times of the image files, so that a changed image leads to another name.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinamask.dataset import files, images

log = logging.getLogger(__name__)

FOLDER = ".retinamask_cache"
MEMORY_BYTES = 2_000_000_000  # up to here ``auto`` keeps pixels in memory
_ALIGNMENT = 64  # bytes; TensorFlow takes an array that begins at such an address without copying it
_UNUSED_SECONDS = 14 * 86_400  # a cache that nothing opened for so long is removed
_ABANDONED_SECONDS = 3_600  # a half-written file that nothing writes to any more is removed

Scale = Callable[[tuple[int, int]], float]
Progress = Callable[[int, int], None]


class PixelCacheError(ValueError):
    """The pixels cannot be kept where they should be; the message says why and what to do."""


class _Image(NamedTuple):
    """One image as its header describes it, and its place among the bytes of all."""

    path: str
    original_wh: tuple[int, int]
    scale: float
    size_wh: tuple[int, int]
    offset: int

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
        where: ``memory``, or the path of the file.
    """

    def __init__(self, laid_out: list[_Image], unusable: list[str], damaged: dict[str, str], where: str, source):
        usable = [image for image in laid_out if image.path not in damaged]
        self.paths = [image.path for image in usable]
        self.unusable = unusable + list(damaged.values())
        self.original_sizes_wh = [image.original_wh for image in usable]
        self.sizes_wh = [image.size_wh for image in usable]
        self.scales = [image.scale for image in usable]
        self.nbytes = sum(image.nbytes for image in usable)
        self.where = where
        self._places = [(image.offset, image.nbytes) for image in usable]
        self._read_into = source

    def read(self, index: int) -> np.ndarray:
        """Pixels of one image, ``uint8`` RGB ``(height, width, 3)``, a new array; from any thread.

        A file is read, not mapped: pages of a map would count as this process's memory and grow with the images.
        """
        offset, nbytes = self._places[index]
        width, height = self.sizes_wh[index]
        pixels = _aligned(nbytes)
        self._read_into(offset, pixels)
        return pixels.reshape(height, width, 3)


def open_pixels(
    folder: str | Path, paths: list[str], scale: Scale, cache: str = "auto", progress: Progress | None = None
) -> Pixels:
    """Decode and resize every image once, on all cores, or take what an earlier run left in a file.

    What is about to be kept is printed first.

    Args:
        folder: the folder that ``paths`` are relative to; a file cache is made in it.
        paths: the images; one that cannot be read is left out and named in ``unusable``.
        scale: resized size / original size, from an original ``(width, height)``.
        cache: ``memory``, ``file``, or ``auto``: memory up to `MEMORY_BYTES`.
        progress: called with how many images are decoded and how many there are.

    Raises:
        PixelCacheError: no room, or no permission to write beside the data.
    """
    folder = Path(folder)
    laid_out, unusable = _lay_out(folder, paths, scale)
    nbytes = sum(image.nbytes for image in laid_out)
    if cache == "memory" or (cache == "auto" and nbytes <= MEMORY_BYTES):
        print(f"{len(laid_out)} images, {_megabytes(nbytes)} in memory", flush=True)
        return _in_memory(folder, laid_out, unusable, progress)
    path = _cache_path(folder, laid_out)
    damaged = _index(path, nbytes)
    if damaged is None:
        print(f"{len(laid_out)} images, {_megabytes(nbytes)} in {path}", flush=True)
        damaged = _write(path, folder, laid_out, progress)
    else:
        print(f"{len(laid_out)} images, {_megabytes(nbytes)} found in {path}", flush=True)
    _remove_stale(path)
    return Pixels(laid_out, unusable, damaged, str(path), _file_reader(path))


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
            laid_out.append(_Image(path, found, factor, _resized(found, factor), offset))
            offset += laid_out[-1].nbytes
    return laid_out, unusable


def _resized(size_wh: tuple[int, int], scale: float) -> tuple[int, int]:
    """The size that `images.resize` gives: OpenCV rounds halves to the even number, as Python does."""
    width, height = (max(1, round(side * max(scale, 1 / side))) for side in size_wh)
    return width, height


def _decoded(
    folder: Path, laid_out: list[_Image], progress: Progress | None
) -> Iterator[tuple[_Image, np.ndarray | str]]:
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
        for done in range(len(laid_out)):
            for image in itertools.islice(ahead, 2 * workers + 1 - len(waiting)):
                waiting.append((image, pool.submit(decode, image)))
            image, future = waiting.popleft()
            yield image, future.result()
            if progress:
                progress(done + 1, len(laid_out))


def _in_memory(folder: Path, laid_out: list[_Image], unusable: list[str], progress: Progress | None) -> Pixels:
    nbytes, damaged = sum(image.nbytes for image in laid_out), {}
    try:
        held = np.empty(nbytes, np.uint8)
    except MemoryError:
        raise PixelCacheError(f"{_megabytes(nbytes)} of pixels do not fit into memory; use cache='file'") from None
    for image, pixels in _decoded(folder, laid_out, progress):
        if isinstance(pixels, str):
            damaged[image.path] = pixels
        else:
            held[image.offset : image.offset + image.nbytes] = pixels.reshape(-1)

    def read_into(offset: int, pixels: np.ndarray) -> None:
        pixels[:] = held[offset : offset + len(pixels)]

    return Pixels(laid_out, unusable, damaged, "memory", read_into)


def _cache_path(folder: Path, laid_out: list[_Image]) -> Path:
    """Where the pixels of these images in their present state belong."""
    which = [(image.path, image.scale) for image in laid_out]
    stats = [os.stat(folder / image.path) for image in laid_out]
    state = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    names = (hashlib.sha256(repr(part).encode()).hexdigest()[:16] for part in (which, state))
    return folder / FOLDER / f"{'-'.join(names)}.pixels"


def _index(path: Path, nbytes: int) -> dict[str, str] | None:
    """The damaged images by path, if ``path`` holds whole pixels as they were written; else ``None``."""
    index = path.with_suffix(".json")
    if not (path.exists() and index.exists()):
        return None
    try:
        record = json.loads(index.read_text(encoding="utf-8"))
        stat = path.stat()
        if record["bytes"] == stat.st_size == nbytes and record["written"] == stat.st_mtime_ns:
            return {str(name): str(message) for name, message in record["damaged"].items()}
        found = f"{stat.st_size} bytes, expected {nbytes} as written on {record['written']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
    log.warning("%s: damaged, cut short or changed (%s); the images are decoded again", path, found)
    return None


def _write(path: Path, folder: Path, laid_out: list[_Image], progress: Progress | None) -> dict[str, str]:
    """Fill the cache file and its index; gives the damaged images by path."""
    nbytes, damaged = sum(image.nbytes for image in laid_out), {}
    try:
        path.parent.mkdir(exist_ok=True)
        files.write_text(path.parent / ".gitignore", "*\n")
        _check_room(path, nbytes)
        with files.replacing(path) as temporary, open(temporary, "wb") as file:
            for image, pixels in _decoded(folder, laid_out, progress):
                if isinstance(pixels, str):
                    damaged[image.path] = pixels
                    file.seek(image.nbytes, os.SEEK_CUR)
                else:
                    file.write(pixels)
            file.truncate(nbytes)  # also where the last image is damaged
            file.flush()
        record = {"bytes": nbytes, "written": path.stat().st_mtime_ns, "damaged": damaged}
        files.write_json(path.with_suffix(".json"), record)
    except OSError as error:
        raise PixelCacheError(_no_room(path, nbytes, error.strerror or str(error))) from error
    return damaged


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


def _file_reader(path: Path) -> Callable[[int, np.ndarray], None]:
    """Reads bytes of the file into an array; the file stays open, so that it may be removed meanwhile."""
    file, turn = open(path, "rb", buffering=0), threading.Lock()  # noqa: SIM115 - open as long as it is read from

    def read_into(offset: int, pixels: np.ndarray) -> None:
        with turn:
            file.seek(offset)
            found = file.readinto(pixels)
        if found != len(pixels):
            raise PixelCacheError(f"{path}: cut short while it was in use; start again, it will be made anew")

    weakref.finalize(read_into, file.close)
    return read_into


def _remove_stale(path: Path) -> None:
    """Remove caches of the same images in another state, those long unused, and files that were never finished."""
    now, images_key = time.time(), path.name.partition("-")[0]
    with contextlib.suppress(OSError):
        os.utime(path.with_suffix(".json"))  # in use today
    for other in [*path.parent.glob("*.pixels"), *path.parent.glob("*.json"), *path.parent.glob(".*-*.*")]:
        with contextlib.suppress(OSError):
            index = other.with_suffix(".json")
            age = now - (index if index.exists() else other).stat().st_mtime
            outdated = other.name.partition("-")[0] == images_key and other.stem != path.stem
            limit = _ABANDONED_SECONDS if other.name.startswith(".") or not index.exists() else _UNUSED_SECONDS
            if outdated or age > limit:
                other.unlink()


def _aligned(nbytes: int) -> np.ndarray:
    """An uninitialised array of bytes that TensorFlow can take as it is."""
    whole = np.empty(nbytes + _ALIGNMENT, np.uint8)
    begin = -whole.ctypes.data % _ALIGNMENT
    return whole[begin : begin + nbytes]


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.0f} MB"
