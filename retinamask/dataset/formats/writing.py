"""Shared by all writers: the images with their boxes, checked, and a new folder to write into."""

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import boxes, images
from retinamask.dataset.annotations import (
    BOX_COLUMNS,
    AnnotationError,
    check_classes,
    first_lines,
    image_paths,
    objects,
)
from retinamask.dataset.formats.class_names import unwritable
from retinamask.dataset.formats.entries import value_or_error


class Picture(NamedTuple):
    """One image of the table: its file and its boxes."""

    path: Path  # absolute
    size_wh: tuple[int, int]  # upright
    boxes_xyxy: np.ndarray  # (N, 4), pixels, inside the image
    class_names: list[str]  # N


def pictures(table: pd.DataFrame, classes: dict[str, int], csv_folder: str | Path) -> list[Picture]:
    """The images of a table in its order, with sizes and boxes.

    Raises:
        AnnotationError: a class is not in ``classes`` or cannot be written, an image cannot be read, or a box
            reaches past its image; all are named, twenty at most.
    """
    check_classes(table, classes, "the table")
    check_names(classes, image_paths(table))
    bad, found, paths = [], [], {path: located(csv_folder, path) for path in image_paths(table)}
    with ThreadPoolExecutor() as pool:
        measured = pool.map(lambda path: value_or_error(images.image_size, path), paths.values())
        sizes = dict(zip(paths, measured, strict=True))
    for image_path, rows in table.groupby("image_path", sort=False):
        if isinstance(sizes[image_path], ValueError):
            bad.append(str(sizes[image_path]))
            continue
        rows = objects(rows)
        boxes_xyxy = rows[BOX_COLUMNS].to_numpy(dtype=float)
        if boxes.reach_outside(boxes_xyxy, sizes[image_path]).any():
            width, height = sizes[image_path]
            bad.append(f"{paths[image_path]}: a box reaches past the image of {width} x {height} pixels; clip it")
        found.append(Picture(paths[image_path], sizes[image_path], boxes_xyxy, rows["class_name"].tolist()))
    if bad:
        raise AnnotationError(first_lines(bad))
    return found


def check_names(classes: Iterable[str], paths: Iterable[str]) -> None:
    """Raise `AnnotationError` for a name that would break the files that hold one a line."""
    bad = [name for name in (*classes, *paths) if unwritable(name)]
    bad += [name for name in classes if not name or name != name.strip()]
    if bad:
        raise AnnotationError(
            f"found the name {bad[0]!r}, expected names without line ends, control characters or white space around; "
            "rename it"
        )


def located(csv_folder: str | Path, image_path: str) -> Path:
    """The absolute path of an image; a link keeps its own name."""
    path = Path(csv_folder) / image_path
    return path.parent.resolve() / path.name


def stems(paths: list[Path]) -> dict[Path, str]:
    """A name without extension for each image, unique on any file system.

    Where the images lie in several folders, the names have these folders too, as far as they differ. Of two
    images that differ only in the extension each gets it into its name.
    """
    top = Path(os.path.commonpath([path.parent for path in paths]))
    plain = {path: path.relative_to(top).with_suffix("").as_posix() for path in sorted(set(paths))}
    times = Counter(stem.casefold() for stem in plain.values())
    used = {stem.casefold() for stem in plain.values() if times[stem.casefold()] == 1}
    for path, stem in plain.items():
        if times[stem.casefold()] > 1:
            stem = f"{stem}_{path.suffix[1:]}"
            while stem.casefold() in used:
                stem += "_"
            used.add(stem.casefold())
            plain[path] = stem
    return plain
