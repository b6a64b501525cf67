"""Train, validation and test splits of a table, by image, the same for the same seed.

The three tables are written as CSVs into a run's folder, so that every step of the run reads the same.
"""

import json
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

SPLITS = ("train", "val", "test")


def split(table: pd.DataFrame, val_share: float, test_share: float, seed: int) -> dict[str, pd.DataFrame]:
    """Deal the images of a table to train, val and test.

    Args:
        table: annotations.
        val_share: share of the images for validation, 0 to 1; at least one image.
        test_share: share of the images for the final test, likewise.
        seed: decides which image goes where; the order of the table does not.

    Returns:
        Tables by the names in `SPLITS`; each image is in exactly one.

    Raises:
        AnnotationError: too few images, or a split without a single box.
    """
    if val_share <= 0 or test_share <= 0 or val_share + test_share >= 1:
        raise ValueError(
            f"val_share is {val_share} and test_share {test_share}, expected both above 0, together below 1"
        )
    paths = sorted(image_paths(table))
    if len(paths) < 3:
        raise AnnotationError(f"found {len(paths)} image(s), expected at least 3: one each for train, val and test")
    dealt = [paths[i] for i in np.random.default_rng(seed).permutation(len(paths))]
    val_count, test_count = (max(1, round(share * len(paths))) for share in (val_share, test_share))
    test_count = min(test_count, len(paths) - val_count - 1)
    ends = np.cumsum([len(paths) - val_count - test_count, val_count])
    parts = (dealt[: ends[0]], dealt[ends[0] : ends[1]], dealt[ends[1] :])
    tables = {name: of_images(table, part) for name, part in zip(SPLITS, parts, strict=True)}
    empty = [name for name, part in tables.items() if objects(part).empty]
    if empty:
        raise AnnotationError(f"no box in {', '.join(empty)}; add images, enlarge the share, or try another seed")
    return tables


def named(tables: dict[str, pd.DataFrame], name: str) -> pd.DataFrame:
    """The split of that name."""
    if name not in tables:
        raise ValueError(f"split is {name!r}, expected one of: {', '.join(tables)}")
    return tables[name]


def write_splits(
    table: pd.DataFrame,
    classes: dict[str, int],
    folder: str | Path,
    run_dir: str | Path,
    val_share: float = 0.15,
    test_share: float = 0.15,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Split a table and write ``train.csv``, ``val.csv``, ``test.csv``, ``classes.csv`` and ``dataset.json``.

    Args:
        table: annotations with image paths relative to ``folder``.
        classes: name to id.
        folder: see ``table``.
        run_dir: where the files go; image paths in them, and in what is returned, are relative to it.
        val_share, test_share, seed: as in `split`.
    """
    run_dir = Path(run_dir)
    tables = split(moved(table, folder, run_dir), val_share, test_share, seed)
    for name, part in tables.items():
        write_annotations(part, run_dir / f"{name}.csv")
    write_classes(classes, run_dir / "classes.csv")
    record = {
        "fingerprint": fingerprint(table, classes),
        "seed": seed,
        "classes": classes,
        "images": {name: len(image_paths(part)) for name, part in tables.items()},
        "boxes": {name: len(objects(part)) for name, part in tables.items()},
    }
    files.write_json(run_dir / "dataset.json", record)
    return tables


def splits_of_run(
    run_dir: str | Path, annotations_csv: str | Path = "", classes_csv: str | Path = "", seed: int = 0
) -> tuple[dict[str, pd.DataFrame], dict[str, int]]:
    """The splits in a run's folder; if there are none yet, those of ``annotations_csv``, which are then written.

    Args:
        run_dir: the run's folder.
        annotations_csv: the table; empty is the run's own, or ``annotations.csv`` if it has none.
        classes_csv: its classes; empty is ``classes.csv`` beside the table.
        seed: of the split, if it is made here.

    Returns:
        Tables by the names in `SPLITS`, image paths relative to ``run_dir``, and the classes.

    Raises:
        AnnotationError: the folder holds the splits of another table than the one that is asked for.
    """
    run_dir = Path(run_dir)
    if annotations_csv or not (run_dir / "dataset.json").is_file():
        annotations_csv = Path(annotations_csv or "annotations.csv")
        classes = read_classes(classes_csv or annotations_csv.with_name("classes.csv"))
        table = read_annotations(annotations_csv, classes)
        if not (run_dir / "dataset.json").is_file():
            return write_splits(table, classes, annotations_csv.parent, run_dir, seed=seed), classes
        if json.loads((run_dir / "dataset.json").read_text())["fingerprint"] != fingerprint(table, classes):
            raise AnnotationError(
                f"{run_dir} holds splits of another table than {annotations_csv}; use another run_dir"
            )
    classes = read_classes(run_dir / "classes.csv")
    return {name: read_annotations(run_dir / f"{name}.csv", classes) for name in SPLITS}, classes
