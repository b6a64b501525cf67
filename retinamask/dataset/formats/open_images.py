"""Open Images CSV (``ImageID,...,LabelName,...,XMin,XMax,YMin,YMax``, shares of the image) to the table.

On top of `reading`. Format: https://storage.googleapis.com/openimages/web/download_v7.html, "Boxes" and "Class names".
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats.reading import (
    Entry,
    FoundObject,
    Problem,
    Reading,
    files_below,
    image_index,
    read_documents,
)

COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")


def read_open_images(
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read box CSVs of Open Images, or folder trees with them, into the table.

    A file ``class-descriptions*.csv`` beside them, if there is one, turns labels such as ``/m/0gxl3`` into names.
    Boxes around a group of objects (``IsGroupOf``) are dropped and reported. The format has no images without objects.

    Args:
        sources: CSV files, or folders (searched with all below them).
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: where the images are; without it, below the sources. They are found by ``ImageID``.
        classes: if given, boxes of other classes are dropped and reported.
        with_unannotated: take images that no row names as images without objects.

    Returns:
        The table, sorted by CSV path and image id, and the problems.

    Raises:
        AnnotationError: no box CSV at all, or no image that could be used.
    """
    sources = [Path(source) for source in sources]
    reading = Reading(Path(csv_folder), classes, "Open Images row", "Open Images image(s)")
    paths = files_below(sources, [".csv"], "Open Images CSV files")
    descriptions = {*filter(_describes, paths), *(side for path in paths for side in _beside(path))}
    names: dict[str, str] = {}
    for path in sorted(descriptions):
        try:
            names |= _descriptions(path)
        except ValueError as error:
            reading.problems.append(Problem("skipped file", str(path), str(error)))
    boxes = [path for path in paths if path not in descriptions and path.name != "classes.csv"]
    if not boxes and not reading.problems:
        raise AnnotationError(f"no CSV file below {', '.join(map(str, sources))}; expected boxes of Open Images")
    index = image_index(sources, image_folder)
    return read_documents(boxes, lambda path, _: _entries(path, names), index, reading, with_unannotated)


def has_box_header(path: Path) -> bool:
    """Whether the first line of a CSV names Open Images' columns."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return set(COLUMNS) <= set(next(csv.reader([file.readline(10_000)]), []))
    except (OSError, ValueError, csv.Error):
        return False


def _describes(path: Path) -> bool:
    return "class-descriptions" in path.name.lower()  # oidv7-class-descriptions-boxable.csv and the like


def _beside(path: Path) -> list[Path]:
    return [other for other in path.parent.glob("*.csv") if _describes(other)]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields.

    Raises:
        ValueError: not UTF-8, not CSV, or not readable at all.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if any(map(str.strip, row)):
                    yield reader.line_num, [field.strip() for field in row]
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise ValueError(f"not readable as CSV ({error})") from None


def _descriptions(path: Path) -> dict[str, str]:
    """Label to name; the header of newer files is left out."""
    names = {}
    for line, row in _rows(path):
        if len(row) != 2:
            raise ValueError(f"line {line}: found {len(row)} columns, expected 2: label,name")
        if row != ["LabelName", "DisplayName"]:
            names[row[0]] = row[1]
    return names


def _entries(path: Path, names: dict[str, str]) -> list[Entry]:
    """One entry an image of one file, sorted by image id."""
    rows = _rows(path)
    _, header = next(rows, (1, []))
    if not set(COLUMNS) <= set(header):
        raise ValueError(f"line 1: found {','.join(header)[:200]!r}, expected a header with {','.join(COLUMNS)}")
    found: dict[str, list[FoundObject]] = {}
    for line, row in rows:
        if len(row) < len(header):
            raise ValueError(f"line {line}: found {len(row)} columns, expected the {len(header)} of the header")
        record = dict(zip(header, row, strict=False))
        found.setdefault(record["ImageID"], []).append(_object(f"{path} line {line}", record, names))
    return [
        Entry(path, f"{path} image {image_id!r}", objects, image_id, relative=True)
        for image_id, objects in sorted(found.items())
    ]


def _object(where: str, record: dict[str, str], names: dict[str, str]) -> FoundObject:
    """One row; edges outside 0 to 1 are no shares of an image."""
    name = names.get(record["LabelName"], record["LabelName"])
    texts = [record[column] for column in ("XMin", "YMin", "XMax", "YMax")]
    try:
        x1, y1, x2, y2 = box_xyxy = tuple(map(float, texts))
    except ValueError:
        x1, y1, x2, y2 = box_xyxy = (0.0,) * 4
    wrong = None
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):  # false for nan too
        shown = ", ".join(texts)
        wrong = f"XMin, YMin, XMax, YMax are {shown}, expected numbers from 0 to 1, the maxima above the minima"
    elif record.get("IsGroupOf") == "1":
        wrong = "a group of objects (IsGroupOf), not one object"
    return FoundObject(where, name, box_xyxy, wrong)
