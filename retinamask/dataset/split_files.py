"""Split a table into CSV files beside it, and keep the split up to date as images come.

``annotations.csv`` gets ``annotations_train.csv``, ``annotations_val.csv`` and
``annotations_test.csv``; with folds ``annotations_test.csv`` and, for each fold, ``annotations_fold1_train.csv`` and
``annotations_fold1_val.csv``. An image keeps its side for good, because a model may have been trained on it.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import AnnotationError, image_paths, of_images, write_annotations
from retinamask.dataset.copies import ImageGroups, image_groups
from retinamask.dataset.dealing import whole_counts
from retinamask.dataset.splits import beside, deal_images, plain_shares, sides_in, tables_of

LEAK_SEEDS = 20  # how many splits by chance the report averages over


class SplitSettings(NamedTuple):
    """Settings of a split."""

    val_share: float = 0.15
    test_share: float = 0.15
    seed: int = 0
    folds: int = 0  # 0 is one split; else so many, where each has another fold as val
    group_by: str = ""  # see `retinamask.dataset.copies.image_groups`
    anew: bool = False  # forget the split that is there
    forget_gone: bool = False  # although images of the split have left the table


class Split(NamedTuple):
    """A split that was written, and what changed."""

    tables: dict[str, pd.DataFrame]  # by side: train, val, test, or test, fold1, fold2, ...
    files: list[Path]
    groups: ImageGroups
    kept: int  # images that were in the split before
    gone: list[str]  # images that were, and that the table has no more
    rejoined: list[str]  # one message for each image that changed its side
    leaked: list[int]  # see `leaked_by_chance`; the first is that of the seed


def split_beside(annotations_csv: str | Path, table: pd.DataFrame, settings: SplitSettings) -> Split:
    """Split a table into files beside it; a split that is there already decides where its images stay.

    A group that has old images on two sides, because a new image ties them together, goes to test if one of them is
    there, else to val, else to the fold with the lowest number. Only groups without old images are balanced.

    Raises:
        AnnotationError: too few groups, a side without a box, or files of another split in the way.
        ValueError: impossible settings.
    """
    shares = _shares(settings)
    side_files, train_files = _files(annotations_csv, settings.folds)
    files = [*side_files.values(), *train_files.values()]
    there = {side: path for side, path in side_files.items() if path.exists()}
    old = {} if settings.anew else sides_in(there)
    _refuse_other_kind(annotations_csv, files)
    here = set(image_paths(table))
    known = {path: set(sides) for path, sides in old.items() if path in here}
    gone = sorted(set(old) - here)
    if old and not known:
        raise AnnotationError(
            f"the split beside {annotations_csv} has none of its images, but {gone[0]}; "
            "move it away, or replace it with --force"
        )
    if gone and not settings.forget_gone:
        raise AnnotationError(
            f"{len(gone)} image(s) of the split are not in {annotations_csv}, such as {gone[0]}, and would lose their "
            "side; put them back, or forget them with --forget-gone"
        )
    groups = image_groups(table["image_path"], Path(annotations_csv).parent, settings.group_by)
    if len(groups.unreadable) == len(groups.paths):
        raise AnnotationError(f"none of {len(groups.paths)} image(s) can be read, the first: {groups.unreadable[0]}")
    sides = deal_images(table, groups, shares, settings.seed, known)
    tables = tables_of(table, sides, shares)
    for side, path in side_files.items():  # most protected first: interrupted, an image is in two files, never in none
        write_annotations(tables[side], path)
    for side, path in train_files.items():
        others = [image for name in train_files if name != side for image in image_paths(tables[name])]
        write_annotations(of_images(table, others), path)
    seeds = range(settings.seed, settings.seed + LEAK_SEEDS)
    made = shares if settings.folds else {name: len(image_paths(part)) / len(sides) for name, part in tables.items()}
    val_share = made.get("val", made.get("fold1"))
    one_split = {"train": 1 - val_share - made["test"], "val": val_share, "test": made["test"]}
    leaked = leaked_by_chance(groups, one_split, seeds)
    rejoined = []
    for path, was in sorted(known.items()):
        if was != {side := sides[path]}:
            now = "only" if side in was else "now, where a copy of it was"
            rejoined.append(f"{path}: was in {' and '.join(sorted(was))}, is in {side} {now}")
    return Split(tables, files, groups, len(known), gone, rejoined, leaked)


def _shares(settings: SplitSettings) -> dict[str, float]:
    """Return the shares of the sides, the most protected first."""
    if not settings.folds:
        return plain_shares(settings.val_share, settings.test_share)
    if settings.folds < 2 or not 0 < settings.test_share < 1:
        raise ValueError(
            f"folds is {settings.folds} and test_share {settings.test_share}, expected 2 folds or more and 0 to 1"
        )
    share = (1 - settings.test_share) / settings.folds
    return {"test": settings.test_share, **{f"fold{k}": share for k in range(1, settings.folds + 1)}}


def _files(annotations_csv: str | Path, folds: int) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the files that say which side an image is on, the most protected first, and each fold's training file.

    Each image is in one of the first; a training file holds the other folds.
    """
    names = [f"fold{k}" for k in range(1, folds + 1)]
    paths = beside(annotations_csv, ["test", *[f"{name}_val" for name in names]] if folds else ["test", "val", "train"])
    return (
        {side.removesuffix("_val"): path for side, path in paths.items()},
        {name: beside(annotations_csv, [f"{name}_train"])[f"{name}_train"] for name in names},
    )


def _refuse_other_kind(annotations_csv: str | Path, own: Iterable[Path]) -> None:
    """Splits with and without folds, or with more folds, share a test file; one would change it under the other."""
    path = Path(annotations_csv)
    of_a_split = re.compile(re.escape(path.stem) + r"_(fold\d+_)?(train|val)\.csv")
    there = {found for found in path.parent.glob("*.csv") if of_a_split.fullmatch(found.name)}
    if others := sorted(there - set(own)):
        raise AnnotationError(
            f"{', '.join(map(str, others[:4]))}: files of a split with other folds, or with none where folds are "
            "asked for; move them away first"
        )


def copies_found(groups: ImageGroups) -> tuple[int, int, int]:
    """Count the groups of near copies, the images that they hold, and the copies byte for byte.

    The last counts every file but one of those with the same bytes.
    """
    sizes = [size for size in Counter(groups.of_copies().tolist()).values() if size > 1]
    return len(sizes), sum(sizes), len(groups.keys) - len(set(groups.keys))


def leaked_by_chance(found: ImageGroups, shares: dict[str, float], seeds: Iterable[int]) -> list[int]:
    """Count for each seed the images of test with a near copy in train when single images are split by chance."""
    counts = whole_counts(len(found.paths), np.array([shares[side] for side in ("test", "val", "train")]))
    in_test, in_train = np.arange(len(found.paths)) < counts[0], np.arange(len(found.paths)) >= counts[:2].sum()
    one, other = np.concatenate([found.near_pairs, found.near_pairs[:, ::-1]]).T
    leaked = []
    for seed in seeds:
        place = np.argsort(np.random.default_rng(seed).permutation(len(found.paths)))
        leaked.append(len(np.unique(one[in_test[place[one]] & in_train[place[other]]])))
    return leaked
