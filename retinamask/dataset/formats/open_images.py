"""Open Images CSV (``ImageID,...,LabelName,...,XMin,XMax,YMin,YMax``, shares of the image) to entries."""

from collections.abc import Iterator
from pathlib import Path

from retinamask.dataset.annotations import number
from retinamask.dataset.formats.entries import Asked, Entry, FoundObject, Problem, folders_up_to, found_object
from retinamask.dataset.formats.parsing import csv_rows

COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")


def select(files: list[Path]) -> list[Path]:
    """All CSV files but class lists and descriptions of labels."""
    tables = [path for path in files if path.suffix.lower() == ".csv" and path.name != "classes.csv"]
    return [path for path in tables if not _describes(path)]


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Read one box CSV: one entry an image, sorted by image id.

    A file ``class-descriptions*.csv`` in its folder, or between that and the folder that the user named, turns labels
    such as ``/m/0gxl3`` into names. Boxes around a group of objects (``IsGroupOf``) are dropped and reported. The
    format has no images without objects.
    Format: https://storage.googleapis.com/openimages/web/download_v7.html, "Boxes" and "Class names".
    """
    names: dict[str, str] = {}
    for other in (other for folder in folders_up_to(path, asked.root) for other in sorted(folder.glob("*.csv"))):
        if _describes(other):
            try:
                names = _descriptions(other) | names
            except ValueError as error:
                yield Problem("skipped file", str(other), str(error))
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    if not set(COLUMNS) <= set(header):
        raise ValueError(f"line 1: found {','.join(header)[:200]!r}, expected a header with {','.join(COLUMNS)}")
    found: dict[str, list[FoundObject]] = {}
    for line, row in rows:
        if len(row) < len(header):
            raise ValueError(f"line {line}: found {len(row)} columns, expected the {len(header)} of the header")
        record = dict(zip(header, row, strict=False))
        found.setdefault(record["ImageID"], []).append(found_object(f"{path} line {line}", _object, record, names))
    for image_id, objects in sorted(found.items()):
        yield Entry(path, f"{path} image {image_id!r}", objects, image_id, relative=True)


def _describes(path: Path) -> bool:
    return "class-descriptions" in path.name.lower()  # oidv7-class-descriptions-boxable.csv and the like


def _descriptions(path: Path) -> dict[str, str]:
    """Label to name; the header of newer files is left out."""
    names = {}
    for line, row in csv_rows(path):
        if len(row) != 2:
            raise ValueError(f"line {line}: found {len(row)} columns, expected 2: label,name")
        if row != ["LabelName", "DisplayName"]:
            names[row[0]] = row[1]
    return names


def _object(record: dict[str, str], names: dict[str, str]) -> tuple[str, tuple[float, ...]]:
    """One row; edges outside 0 to 1 are no shares of an image."""
    texts = [record[column] for column in ("XMin", "YMin", "XMax", "YMax")]
    x1, y1, x2, y2 = box_xyxy = tuple(map(number, texts))
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):  # false for nan too
        shown = ", ".join(texts)
        raise ValueError(
            f"XMin, YMin, XMax, YMax are {shown}, expected numbers from 0 to 1, the maxima above the minima"
        )
    if record.get("IsGroupOf") == "1":
        raise ValueError("a group of objects (IsGroupOf), not one object")
    return names.get(record["LabelName"], record["LabelName"]), box_xyxy
