"""Group the images of a table that must stay on one side of a split: copies, frames of a video, one person."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinamask.dataset import copies
from retinamask.dataset.dealing import whole_counts

_MOST_PAIRS = 100  # of an image: the frames of a still camera would all match


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
        return copies.groups(len(self.paths), self.near_pairs)


def by_path(paths: Iterable[str]) -> ImageGroups:
    """Make each image a group of its own, without reading the files."""
    paths = sorted(set(paths))
    return ImageGroups(paths, np.arange(len(paths)), paths, np.empty((0, 2), dtype=np.int64), [], 0)


def image_groups(paths: Iterable[str], folder: str | Path, pattern: str | Iterable[str] = "") -> ImageGroups:
    """Group images by what they show and, with a pattern, by what their paths say.

    Args:
        paths: as in a table, relative to ``folder``, in any order.
        folder: see ``paths``.
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
    hashes = copies.hash_images(paths, folder)
    position = {path: index for index, path in enumerate(paths)}
    readable = np.array([position[path] for path in hashes.paths], dtype=np.int64)
    near = readable[copies.near_pairs(hashes, most_per_image=_MOST_PAIRS)]
    numbers = copies.groups(len(paths), np.concatenate([near, np.array(tied, dtype=np.int64).reshape(-1, 2)]))
    contents = dict(zip(hashes.paths, hashes.sha256, strict=True))
    keys = [contents.get(path, path) for path in paths]
    return ImageGroups(paths, numbers, keys, near, hashes.unreadable, unmatched)


def leaked_by_chance(found: ImageGroups, shares: dict[str, float], seeds: Iterable[int]) -> list[int]:
    """Count the images of test that have a near copy in train when single images are split by chance.

    Args:
        found: the groups.
        shares: of ``train``, ``val`` and ``test``.
        seeds: one split for each.

    Returns:
        A number of images for each seed.
    """
    counts = whole_counts(len(found.paths), np.array([shares[side] for side in ("test", "val", "train")]))
    ends = np.cumsum(counts).astype(int)
    leaked = []
    for seed in seeds:
        dealt = np.random.default_rng(seed).permutation(len(found.paths))
        in_test, in_train = (np.isin(np.arange(len(dealt)), part) for part in (dealt[: ends[0]], dealt[ends[1] :]))
        both_ways = np.concatenate([found.near_pairs, found.near_pairs[:, ::-1]])
        leaking = in_test[both_ways[:, 0]] & in_train[both_ways[:, 1]]
        leaked.append(len(set(both_ways[leaking, 0].tolist())))
    return leaked
