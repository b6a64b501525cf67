"""Every image looked at once: one decode gives all that the checks and the search for copies need.

What is kept of an image is a few hundred bytes, so that memory holds one decoded image a processor however many
images there are.
"""

import itertools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from retinamask.dataset import files, images
from retinamask.dataset.copies import packed_hashes

HASH_SIDE = 512  # a JPEG need not be decoded any larger for its hash; the splits hash at the same size

_CHUNK = 256  # images handed to the threads at a time


class Look(NamedTuple):
    """What is known of one image file; without ``size_wh`` it could not be read and ``trouble`` says why."""

    path: str  # as in the table
    size_wh: tuple[int, int] | None = None  # as stored in the file
    upright_wh: tuple[int, int] | None = None  # after the turn that EXIF asks for
    orientation: int = 1  # EXIF's, 1 to 8
    traits: tuple[str, ...] = ()  # see `images.Inspection`
    trouble: str = ""  # "missing", "unreadable", "damaged" or "too large"
    message: str = ""  # the trouble in words
    sha256: bytes = b""  # of the file, 32 bytes
    hashes: bytes = b""  # of the image and of its mirror image, 20 bytes


def look_at(
    paths: Sequence[str], folder: str | Path, max_pixels: int = images.MAX_PIXELS, progress: bool = False
) -> list[Look]:
    """Look at image files, several at a time.

    Args:
        paths: as in a table, relative to ``folder``.
        folder: see ``paths``.
        max_pixels: images with more are not decoded.
        progress: show a bar, if this is a terminal.

    Returns:
        One for each path, in their order.
    """
    looks: list[Look] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,  # Pillow decodes and hashlib sums outside Python's lock
        tqdm(total=len(paths), unit="image", desc="looking", disable=None if progress else True) as bar,
    ):
        for chunk in _chunks(paths):
            for look in pool.map(lambda path: _look(path, folder, max_pixels), chunk):
                looks.append(look)
                bar.update()
    return looks


def _chunks(paths: Iterable[str]) -> Iterable[list[str]]:
    paths = iter(paths)
    while chunk := list(itertools.islice(paths, _CHUNK)):
        yield chunk


def _look(path: str, folder: str | Path, max_pixels: int) -> Look:
    """Look at one file; whatever is wrong with it is part of the answer."""
    full = Path(folder, path)
    sha256 = b""
    try:
        sha256 = bytes.fromhex(files.sha256(full))
        seen = images.inspect_image(full, max_pixels, HASH_SIDE)
    except images.ImageError as error:
        message = str(error).removeprefix(f"{full}: ")
        return Look(path, trouble=_TROUBLES.get(type(error), "unreadable"), message=message, sha256=sha256)
    except FileNotFoundError:
        return Look(path, trouble="missing", message="no such file")
    except OSError as error:
        return Look(path, trouble="unreadable", message=f"cannot be read ({error.strerror})")
    hashes = packed_hashes(seen.image_rgb).tobytes()
    return Look(path, seen.size_wh, seen.upright_wh, seen.orientation, seen.traits, sha256=sha256, hashes=hashes)


_TROUBLES = {images.DamagedImageError: "damaged", images.TooManyPixelsError: "too large"}
