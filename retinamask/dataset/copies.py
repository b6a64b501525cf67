"""Find copies, image files that show the same picture by bytes and by a perceptual hash, and group images by them.

Data sets collected from the web hold the same picture many times: scaled, cropped a little, mirrored, or with a mask
drawn on. In training and test at once, copies make a model look better than it is.

The hash is the DCT hash ("pHash") of C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
2010, with 9 x 9 frequencies instead of 8 x 8.
"""

import functools
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from retinamask.dataset import files
from retinamask.dataset.images import ImageError, read_image
from retinamask.progress import track

NEAR_BITS = 12  # copies differ by at most this many bits; two unrelated photographs by about 40
HASH_BITS = 80

_SIDE = 32  # pixels of the small grey image
_FREQUENCIES = 9  # lowest ones per direction; 9 x 9 without the mean are HASH_BITS
DECODED_SIDE = 512  # a JPEG need not be decoded any larger; tests measure what that costs
_MOST_PAIRS = 100  # of an image: the frames of a still camera would all match
_CHUNK = 512  # rows of the distance matrix in memory at a time


class Hashes(NamedTuple):
    """Hashes of ``N`` readable images; rows of the arrays and lists belong together."""

    paths: list[str]
    upright: np.ndarray  # uint8 (N, 10): the hash, eight bits a byte as np.packbits packs them
    mirrored: np.ndarray  # uint8 (N, 10): the hash of the image flipped left to right
    sha256: list[str]  # of the files' bytes
    unreadable: list[str]  # one message for each file that is left out


def packed_hashes(image_rgb: np.ndarray) -> np.ndarray:
    """Hash what an image shows, and its mirror image: which of its lowest frequencies are above their median.

    Scaling, compression and small changes of colour or detail move few bits.

    Args:
        image_rgb: ``uint8`` of shape ``(height, width, 3)``.

    Returns:
        ``uint8`` of shape ``(2, 10)``: 80 bits each, row by row from the lowest vertical frequency, packed as in
        `Hashes`; those of a blank image are all 0.
    """
    grey = Image.fromarray(image_rgb).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=np.float64)
    # Without its mean a blank image has no frequencies at all; rounding removes the traces of float arithmetic
    # where they should be 0, so that symmetric drawings get the same hash on every machine.
    frequencies = cv2.dct(pixels - pixels.mean())[:_FREQUENCIES, :_FREQUENCIES].round(6) + 0.0
    # Flipping an image left to right turns the sign of its odd horizontal frequencies, and does nothing else.
    signs = np.where(np.arange(_FREQUENCIES) % 2, -1.0, 1.0)
    return np.packbits([_above_median(frequencies), _above_median(frequencies * signs)], axis=1)


def hash_images(paths: Iterable[str], folder: str | Path) -> Hashes:
    """Hash image files, several at a time, in the order of their paths (as in a table, relative to ``folder``).

    Hashes are remembered while the program runs, since evaluations ask for leaks and for copies of the same files.
    """
    paths = list(paths)

    def hash_file(path: str) -> tuple[np.ndarray, str] | str:
        file = Path(folder, path)
        try:
            stat = file.stat() if file.exists() else None  # of one that is missing, reading says so
            return _hash_file(file, stat and (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except ImageError as error:
            return str(error)
        except OSError as error:
            return f"{file}: cannot be read ({error.strerror}); replace the file or leave it out"

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and hashlib sums outside Python's lock
        results = list(track(pool.map(hash_file, paths), "comparing", "image", len(paths)))
    unreadable = [result for result in results if isinstance(result, str)]
    hashed = [(path, *result) for path, result in zip(paths, results, strict=True) if not isinstance(result, str)]
    both = np.array([each[1] for each in hashed], dtype=np.uint8).reshape(-1, 2, HASH_BITS // 8)
    return Hashes([each[0] for each in hashed], both[:, 0], both[:, 1], [each[2] for each in hashed], unreadable)


@functools.lru_cache(100_000)
def _hash_file(path: Path, _state: tuple[int, ...] | None) -> tuple[np.ndarray, str]:
    """Hash a file; the numbers of its state tell it from another one that had its path."""
    return packed_hashes(read_image(path, DECODED_SIDE)), files.sha256(path)


def near_pairs(hashes: Hashes, most_bits: int = NEAR_BITS, most_per_image: int | None = None) -> np.ndarray:
    """Find pairs of images that show the same, as they are or one of them mirrored.

    Args:
        hashes: of ``N`` images.
        most_bits: Hamming distance up to which two hashes count as the same picture.
        most_per_image: of an image's pairs with later ones keep the nearest only, and what is needed for the same
            groups: the frames of a still camera would all match.

    Returns:
        ``int`` of shape ``(P, 2)``: positions ``i < j``, sorted, each pair once.
    """
    upright, mirrored = _signs(hashes.upright), _signs(hashes.mirrored)
    found = [np.empty((0, 2), dtype=np.int64)]
    numbers = np.arange(len(upright))  # of the groups so far
    for start in range(0, len(upright), _CHUNK):
        rows = slice(start, start + _CHUNK)
        agreement = upright[rows] @ upright[start:].T  # (rows, N - start)
        np.maximum(agreement, upright[rows] @ mirrored[start:].T, out=agreement)
        np.maximum(agreement, mirrored[rows] @ upright[start:].T, out=agreement)
        near = np.triu(agreement >= HASH_BITS - 2 * most_bits, k=1)
        if most_per_image is not None:
            near = _thinned(near, agreement, numbers, start, most_per_image)
        found.append(np.argwhere(near) + start)
    return np.concatenate(found)


def shown_in(hashes: Hashes, upright: np.ndarray) -> np.ndarray:
    """Tell which images show, as they are or mirrored, one of the pictures with the hashes ``upright``.

    Args:
        hashes: of ``N`` images.
        upright: ``uint8`` of shape ``(M, 10)``, as in `Hashes`.

    Returns:
        ``bool`` of shape ``(N,)``: whether a hash differs by at most `NEAR_BITS`.
    """
    known, found = _signs(upright).T, np.zeros(len(hashes.paths), dtype=bool)
    for start in range(0, len(found), _CHUNK):
        rows = slice(start, start + _CHUNK)
        for packed in (hashes.upright, hashes.mirrored):
            agreement = (_signs(packed[rows]) @ known).max(axis=1, initial=-HASH_BITS)
            found[rows] |= agreement >= HASH_BITS - 2 * NEAR_BITS
    return found


def groups(count: int, pairs: np.ndarray | Sequence[tuple[int, int]]) -> np.ndarray:
    """Put what is paired, directly or through others, into one group.

    Returns:
        ``int`` of shape ``(count,)``: each image's group, numbered from 0 by first appearance.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.empty(0, dtype=np.int64)
    first, second = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


class ImageGroups(NamedTuple):
    """Groups of ``N`` images; everything but the messages has one entry an image."""

    paths: list[str]  # sorted
    numbers: np.ndarray  # int (N,): which group
    keys: list[str]  # SHA-256 of the file, the path where it cannot be read: the same wherever the data lies
    near_pairs: np.ndarray  # int (P, 2): positions of images that show the same picture, the nearest of each
    unreadable: list[str]  # messages; these images are groups of their own
    unmatched: int  # images in whose path the pattern, of several the rarest, is not found

    def of_copies(self) -> np.ndarray:
        """Return the groups that near copies alone make, ``int (N,)``."""
        return groups(len(self.paths), self.near_pairs)


def by_path(paths: Iterable[str]) -> ImageGroups:
    """Make each image a group of its own, without reading the files."""
    paths = sorted(set(paths))
    return ImageGroups(paths, np.arange(len(paths)), paths, np.empty((0, 2), dtype=np.int64), [], 0)


def image_groups(paths: Iterable[str], folder: str | Path, pattern: str | Iterable[str] = "") -> ImageGroups:
    """Group images by what they show and, with a pattern, by what their paths say.

    Args:
        paths: as in a table, relative to ``folder``, in any order.
        pattern: regular expression with one group, searched in each path; images where it captures the same text
            stay together, such as ``"video_([0-9]+)"``. Of several each ties images; an empty one ties none.

    Raises:
        ValueError: the pattern is none, or is found in no path.
    """
    paths = sorted(set(paths))
    tied, unmatched = [], 0
    for each in filter(None, [pattern] if isinstance(pattern, str) else pattern):
        expected = "expected a regular expression with one group, such as 'video_([0-9]+)'"
        try:
            compiled = re.compile(each)
        except re.error as error:
            raise ValueError(f"group-by is {each!r}: {error}; {expected}") from None
        if compiled.groups != 1:
            raise ValueError(f"group-by is {each!r} with {compiled.groups} groups, {expected}")
        texts = [match[1] if (match := compiled.search(path)) else None for path in paths]
        if texts.count(None) == len(paths):
            raise ValueError(f"group-by is {each!r}, found in none of {len(paths)} paths such as {paths[0]!r}")
        unmatched = max(unmatched, texts.count(None))
        first: dict[str, int] = {}
        tied += [(first.setdefault(text, at), at) for at, text in enumerate(texts) if text is not None]
    hashes = hash_images(paths, folder)
    position = {path: index for index, path in enumerate(paths)}
    readable = np.array([position[path] for path in hashes.paths], dtype=np.int64)
    near = readable[near_pairs(hashes, most_per_image=_MOST_PAIRS)]
    numbers = groups(len(paths), np.concatenate([near, np.array(tied, dtype=np.int64).reshape(-1, 2)]))
    contents = dict(zip(hashes.paths, hashes.sha256, strict=True))
    keys = [contents.get(path, path) for path in paths]
    return ImageGroups(paths, numbers, keys, near, hashes.unreadable, unmatched)


def copies_remark(paths: Iterable[str], folder: str | Path) -> list[str]:
    """Say in one line how many of the images show the same picture as another, or nothing if none does.

    For images that something is judged on, where each copy counts. What cannot be read, or is not there, is counted.
    """
    hashes = hash_images(paths, folder)
    numbers = groups(len(hashes.paths), near_pairs(hashes, most_per_image=1))
    sizes = np.bincount(numbers)
    copied = np.flatnonzero(sizes[numbers] > 1)
    missing = f"; {len(hashes.unreadable)} cannot be read and were not compared" if hashes.unreadable else ""
    if not len(copied):
        return [f"copies among the images: none found{missing}"] if missing else []
    first = [hashes.paths[index] for index in np.flatnonzero(numbers == numbers[copied[0]])[:2]]
    count = (sizes > 1).sum()
    return [
        f"{len(copied)} of {len(hashes.paths)} images are copies of each other, in {count} "
        f"group{'s' if count > 1 else ''}, such as {' and '.join(first)}: each counts{missing}"
    ]


def _thinned(near: np.ndarray, agreement: np.ndarray, numbers: np.ndarray, start: int, most: int) -> np.ndarray:
    """Keep of each row of ``near`` the ``most`` that agree best, and one for each other group that it joins.

    ``numbers`` holds the groups of all images and is changed; the first column is that of image ``start``.
    """
    kept = np.zeros_like(near)
    for row in np.flatnonzero(near.any(axis=1)):
        columns = np.flatnonzero(near[row])
        order = np.argsort(-agreement[row, columns], kind="stable")
        kept[row, columns[order[:most]]] = True
        others, firsts = np.unique(numbers[start + columns], return_index=True)
        own = numbers[start + row]
        joining = others != own
        if joining.any():
            kept[row, columns[firsts[joining]]] = True
            numbers[np.isin(numbers, others)] = own
    return kept


def _signs(packed: np.ndarray) -> np.ndarray:
    """Give bits as -1 and 1: their distance is (80 - dot product) / 2, which a matrix product has soonest, exactly."""
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def _above_median(frequencies: np.ndarray) -> np.ndarray:
    lowest = frequencies.ravel()[1:]
    return lowest > np.median(lowest)
