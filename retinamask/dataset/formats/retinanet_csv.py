"""keras-retinanet's CSV as a format beside the others: its images are checked and its boxes clipped like theirs.

On top of `retinamask.dataset.annotations`, which knows the file itself, and `reading`.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from retinamask.dataset import annotations
from retinamask.dataset.annotations import BOX_COLUMNS, AnnotationError
from retinamask.dataset.formats import writing
from retinamask.dataset.formats.image_files import ImageIndex, is_image
from retinamask.dataset.formats.reading import (
    Entry,
    FoundObject,
    Problem,
    Reading,
    files_below,
    image_index,
    read_entries,
)

FILE_NAME = "annotations.csv"
CLASSES_NAME = "classes.csv"


def read_csv(
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read annotation CSVs into the table, with their images checked.

    Args:
        sources: CSV files, or folders: their ``annotations.csv``, else all CSV files below but ``classes.csv``.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: where the images are that are not where the CSV says.
        classes: if given, boxes of other classes are dropped and reported.
        with_unannotated: take images beside those of the CSV as images without objects.

    Returns:
        The table in the order of the CSV, and the problems. A CSV with bad rows is left out; all are named.

    Raises:
        AnnotationError: no CSV at all, or no image that could be used.
    """
    sources = [Path(source) for source in sources]
    reading = Reading(Path(csv_folder), classes, "CSV row", "image(s) of the CSV")
    tables = {}
    for path in _csv_paths(sources):
        try:
            tables[path] = annotations.read_annotations(path)
        except ValueError as error:
            reading.skip_file(path, error)
    if image_folder:
        index = image_index(sources, image_folder)
    else:
        index = _index_beside([writing.located(path.parent, name) for path in tables for name in _names(tables[path])])
    real = {path.parent.resolve() / path.name: path for path in index.all()}
    entries = [entry for path, table in tables.items() for entry in _entries(path, table, real)]
    return read_entries(entries, lambda entry: entry, index, reading, with_unannotated)


def write_csv(table: pd.DataFrame, classes: dict[str, int], folder: str | Path, csv_folder: str | Path) -> None:
    """Write ``annotations.csv`` (whole pixels, image paths relative to it) and ``classes.csv``.

    Args:
        table: annotations with image paths relative to ``csv_folder``.
        classes: name to id.
        folder: new or empty.

    Raises:
        AnnotationError: nothing is written then.
    """
    writing.pictures(table, classes, csv_folder)  # for its checks
    moved = annotations.moved(table, csv_folder, folder)
    with writing.new_folder(folder) as new:
        annotations.write_annotations(moved, new / FILE_NAME)
        annotations.write_classes(classes, new / CLASSES_NAME)


def _csv_paths(sources: list[Path]) -> list[Path]:
    """The annotation CSVs of the sources."""
    named = [source / FILE_NAME if (source / FILE_NAME).is_file() else source for source in sources]
    paths = [path for path in files_below(named, [".csv"], "CSV files") if path.name != CLASSES_NAME]
    if not paths:
        raise AnnotationError(f"no CSV file below {', '.join(map(str, sources))}; expected annotations")
    return paths


def _names(table: pd.DataFrame) -> list[str]:
    return annotations.image_paths(table)


def _index_beside(paths: list[Path]) -> ImageIndex:
    """The images that lie in the same folders as ``paths``, not below them."""
    folders = sorted({path.parent for path in paths if path.parent.is_dir()})
    return ImageIndex(folders, [path for folder in folders for path in folder.iterdir() if is_image(path)])


def _entries(path: Path, table: pd.DataFrame, real: dict[Path, Path]) -> list[Entry]:
    """One entry an image; ``real`` tells how the index calls a file."""
    entries = []
    for name, rows in table.groupby("image_path", sort=False):
        where = f"{path} image {name!r}"
        boxes = rows[rows["x1"].notna()]
        pairs = zip(boxes[BOX_COLUMNS].itertuples(index=False, name=None), boxes["class_name"], strict=True)
        objects = [FoundObject(where, class_name, box) for box, class_name in pairs]
        place = writing.located(path.parent, name)
        image_path = real.get(place, place) if place.is_file() else None
        entries.append(Entry(path, where, objects, name, image_path))
    return entries
