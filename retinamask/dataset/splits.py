"""Train, validation and test splits of a table, the same for the same seed, without copies across them.

The three tables are written as CSVs into a run's folder, so that every step of the run reads the same. `split_files`
keeps a split beside an annotation CSV.
"""

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask.dataset import files
from retinamask.dataset.annotations import (
    AnnotationError,
    fingerprint,
    image_paths,
    moved,
    objects,
    of_images,
    read_annotations,
    read_classes,
    write_annotations,
    write_classes,
)
from retinamask.dataset.copies import ImageGroups, by_path, image_groups
from retinamask.dataset.dealing import deal

SPLITS = ("train", "val", "test")

log = logging.getLogger(__name__)


def split(
    table: pd.DataFrame,
    val_share: float,
    test_share: float,
    seed: int,
    groups: ImageGroups | None = None,
    old_sides: Mapping[str, Iterable[str]] | None = None,
) -> dict[str, pd.DataFrame]:
    """Deal the images of a table to the `SPLITS`, with the classes balanced as well as groups allow.

    Args:
        table: annotations; their order does not matter.
        val_share, test_share: shares of the images, 0 to 1; at least one image each.
        seed: decides which image goes where.
        groups: images that stay together; without them each image is dealt by itself.
        old_sides: as in `deal_images`.

    Raises:
        AnnotationError: too few images or groups, or a split without a single box.
    """
    groups = groups or by_path(table["image_path"])
    sides = deal_images(table, groups, plain_shares(val_share, test_share), seed, old_sides)
    return tables_of(table, sides, SPLITS)


def plain_shares(val_share: float, test_share: float) -> dict[str, float]:
    """Return the shares of the sides, the most protected first: an image in doubt goes to test, else to val."""
    if not (val_share > 0 and test_share > 0 and val_share + test_share < 1):  # false for nan too
        raise ValueError(
            f"val_share is {val_share} and test_share {test_share}, expected both above 0, together below 1"
        )
    return {"test": test_share, "val": val_share, "train": 1 - val_share - test_share}


def deal_images(
    table: pd.DataFrame,
    groups: ImageGroups,
    shares: dict[str, float],
    seed: int,
    old_sides: Mapping[str, Iterable[str]] | None = None,
) -> dict[str, str]:
    """Give each image, by its path, the side of its group.

    Args:
        table, groups, seed: see `split`.
        shares: of the sides, the most protected first.
        old_sides: sides that images had so far; a group keeps its side, and takes the most protected of several.
    """
    count = groups.numbers.max(initial=-1) + 1
    if count < len(shares):
        apart = "" if count == len(groups.paths) else f" in {count} group(s) that stay together"
        raise AnnotationError(
            f"found {len(groups.paths)} image(s){apart}, expected at least {len(shares)}{' groups' if apart else ''}: "
            f"one each for {', '.join(shares)}"
        )
    held = defaultdict(set)
    for path, number in zip(groups.paths, groups.numbers.tolist(), strict=True):
        held[number].update((old_sides or {}).get(path, ()))
    fixed = [min(held[number], key=list(shares).index, default=None) for number in range(count)]
    keys = pd.Series(groups.keys).groupby(groups.numbers).min().tolist()
    group_of, rows = dict(zip(groups.paths, groups.numbers.tolist(), strict=True)), objects(table)
    names = sorted(rows["class_name"].unique())
    amounts = np.zeros((count, 1 + len(names)))  # images, and boxes of each class in order of their names, by group
    np.add.at(amounts[:, 0], groups.numbers, 1)
    column_of = {name: column for column, name in enumerate(names, start=1)}
    np.add.at(amounts, (rows["image_path"].map(group_of), rows["class_name"].map(column_of)), 1)
    dealt = deal(amounts, keys, shares, seed, fixed)
    return {path: dealt[number] for path, number in group_of.items()}


def tables_of(table: pd.DataFrame, sides: Mapping[str, str], names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return the rows of each side, by its name.

    Raises:
        AnnotationError: a side has no box: nothing could be learnt from it or measured on it.
    """
    tables = {name: of_images(table, [path for path in sides if sides[path] == name]) for name in names}
    if empty := [name for name, part in tables.items() if objects(part).empty]:
        raise AnnotationError(f"no box in {', '.join(empty)}; add images, enlarge the share, or try another seed")
    return tables


def write_splits(
    table: pd.DataFrame,
    classes: dict[str, int],
    folder: str | Path,
    run_dir: str | Path,
    val_share: float = 0.15,
    test_share: float = 0.15,
    seed: int = 0,
    split_of: str | Path | None = None,
) -> dict[str, pd.DataFrame]:
    """Split a table and write ``train.csv``, ``val.csv``, ``test.csv``, ``classes.csv`` and ``dataset.json``.

    Copies of a picture, as `retinamask.dataset.copies` finds them, are in one split.

    Args:
        table, classes: annotations with image paths relative to ``folder``, and name to id.
        run_dir: where the files go; image paths in them, and in what is returned, are relative to it.
        val_share, test_share, seed: as in `split`.
        split_of: an annotation CSV; if its split lies beside it, images keep the side that they have there.
    """
    groups = image_groups(table["image_path"], folder)
    if groups.unreadable:
        log.warning("%d image(s) cannot be compared: %s", len(groups.unreadable), "; ".join(groups.unreadable[:3]))
    old_sides = {}
    if split_of and split_lies_beside(split_of):  # an image is known by where its file really is
        there = sides_in(beside(split_of)).items()
        sides = {os.path.realpath(Path(split_of).parent / image): found for image, found in there}
        places = {image: os.path.realpath(Path(folder, image)) for image in groups.paths}
        old_sides = {image: sides[place] for image, place in places.items() if place in sides}
    if old_sides:
        print(f"{len(old_sides)} images keep the side that they have in the split beside {split_of}", flush=True)
    tables = split(table, val_share, test_share, seed, groups, old_sides)
    more = {"seed": seed, "groups": int(groups.numbers.max()) + 1}
    _write_run(table, tables, classes, folder, Path(run_dir), more)
    return _read_run(Path(run_dir))[0]


def splits_of_run(
    run_dir: str | Path, annotations_csv: str | Path = "", classes_csv: str | Path = "", seed: int = 0
) -> tuple[dict[str, pd.DataFrame], dict[str, int]]:
    """Read the splits of a run; at its start take or make those of ``annotations_csv`` and write them into its folder.

    Args:
        run_dir: the run's folder; image paths of the result are relative to it.
        annotations_csv: the table; empty is the run's own, or ``annotations.csv`` if it has none. A split that lies
            beside it, as ``retinamask split`` writes it, is taken as it is.
        classes_csv: its classes; empty is ``classes.csv`` beside the table.
        seed: of the split, if it is made here.

    Returns:
        Tables by the names in `SPLITS`, and the classes.

    Raises:
        AnnotationError: the folder holds the splits of another table than the one that is asked for.
    """
    run_dir = Path(run_dir)
    has_splits = (run_dir / "dataset.json").is_file()
    if has_splits and not annotations_csv:
        return _read_run(run_dir)
    annotations_csv = Path(annotations_csv or "annotations.csv")
    print(f"the data is {annotations_csv}", flush=True)
    classes = read_classes(classes_csv or annotations_csv.with_name("classes.csv"))
    table = read_annotations(annotations_csv, classes)
    if has_splits:
        if json.loads((run_dir / "dataset.json").read_text())["fingerprint"] != fingerprint(table, classes):
            raise AnnotationError(
                f"{run_dir} holds splits of another table than {annotations_csv}; use another run_dir"
            )
    elif split_lies_beside(annotations_csv):
        tables = _split_beside(table, classes, annotations_csv)
        _write_run(table, tables, classes, annotations_csv.parent, run_dir, {"split": str(annotations_csv)})
    else:
        write_splits(table, classes, annotations_csv.parent, run_dir, seed=seed)
    return _read_run(run_dir)


def beside(annotations_csv: str | Path, names: Iterable[str] = SPLITS) -> dict[str, Path]:
    """Return where the split of a table lies: ``annotations_train.csv`` beside ``annotations.csv``, and so on."""
    path = Path(annotations_csv)
    return {name: path.with_name(f"{path.stem}_{name}.csv") for name in names}


def split_lies_beside(annotations_csv: str | Path) -> bool:
    """Whether the split of a table lies beside it.

    Raises:
        AnnotationError: only a part of one, or one with folds: continuing without it would train on its test images.
    """
    there = [path for path in beside(annotations_csv).values() if path.is_file()]
    if there and len(there) < len(SPLITS):
        raise AnnotationError(
            f"{there[0]} is a part of a split, or of one with folds, of {annotations_csv}; move it away, "
            "or give this run a table of its own"
        )
    return bool(there)


def sides_in(paths: Mapping[str, Path], classes: dict[str, int] | None = None) -> dict[str, list[str]]:
    """Return the sides of each image, given the file of each side; several where a file was written halfway."""
    sides = defaultdict(list)
    for side, path in paths.items():
        for image in image_paths(read_annotations(path, classes)):
            sides[image].append(side)
    return dict(sides)


def _split_beside(table: pd.DataFrame, classes: dict[str, int], annotations_csv: Path) -> dict[str, pd.DataFrame]:
    """Read the split beside a table, if it is one of all the table's images."""
    sides = sides_in(beside(annotations_csv), classes)
    update = f"retinamask split {annotations_csv}"
    if twice := [image for image, found in sides.items() if len(found) > 1]:
        path = beside(annotations_csv)[sides[twice[0]][1]]
        raise AnnotationError(f"{path}: {twice[0]} is in another split too; run: {update}")
    images = image_paths(table)
    if lost := [image for image in images if image not in sides]:
        raise AnnotationError(
            f"the split beside {annotations_csv} lacks {len(lost)} of its images, such as {lost[0]}; "
            f"bring it up to date with: {update}"
        )
    return tables_of(table, {image: sides[image][0] for image in images}, SPLITS)


def _write_run(
    table: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    classes: dict[str, int],
    folder: str | Path,
    run_dir: Path,
    more: dict,
) -> None:
    """Write a split into a run's folder, with image paths that are right there; ``dataset.json`` comes last."""
    for name, part in tables.items():
        write_annotations(moved(part, folder, run_dir), run_dir / f"{name}.csv")
    write_classes(classes, run_dir / "classes.csv")
    record = {
        "fingerprint": fingerprint(table, classes),
        **more,
        "classes": classes,
        "images": {name: len(image_paths(part)) for name, part in tables.items()},
        "boxes": {name: len(objects(part)) for name, part in tables.items()},
    }
    files.write_json(run_dir / "dataset.json", record)


def _read_run(run_dir: Path) -> tuple[dict[str, pd.DataFrame], dict[str, int]]:
    """Read the splits in a run's folder, boxes in whole pixels, and the classes."""
    classes = read_classes(run_dir / "classes.csv")
    return {name: read_annotations(run_dir / f"{name}.csv", classes) for name in SPLITS}, classes
