"""The table that everything passes on: annotations, and detections with a score.

One row is one box. Columns: ``image_path`` (relative to the CSV's own folder, forward slashes),
``x1 y1 x2 y2`` (pixels of the upright image, half-open edges, ``x1 < x2``, ``y1 < y2``),
``class_name``, and in detections ``score`` (0 to 1). An image without objects is one row whose
other columns are missing.

On disk it is keras-retinanet's CSV: no header, whole pixels, ``path,,,,,`` for an image without
objects; ``classes.csv`` is ``name,id``. See https://github.com/fizyr/keras-retinanet#csv-datasets.
Detections are ours alone, two decimals for pixels and four for the score: a CSV of seven columns below a header, with
``path,,,,,,``; Parquet with the same columns, or a JSON list of records with them, and nulls for what is missing.
"""

import csv
import hashlib
import io
import json
import logging
import math
import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from retinamask.dataset import files
from retinamask.dataset.boxes import whole_pixels

BOX_COLUMNS = ["x1", "y1", "x2", "y2"]
COLUMNS = ["image_path", *BOX_COLUMNS, "class_name"]
DETECTION_COLUMNS = [*COLUMNS, "score"]
TRACKED_COLUMNS = [*DETECTION_COLUMNS, "track"]  # of a video: the number of the person, missing where none is known
ENDINGS = (".csv", ".parquet", ".json")  # of files of detections

log = logging.getLogger(__name__)


class AnnotationError(ValueError):
    """An annotation file or table is not what it should be; the message says where and why."""


def first_lines(messages: list[str], most: int = 20) -> str:
    """The first messages, a line each, and how many more there are."""
    more = [f"... and {len(messages) - most} more"] if len(messages) > most else []
    return "\n".join([*messages[:most], *more])


def make_table(rows: Iterable[tuple], columns: list[str] = COLUMNS) -> pd.DataFrame:
    """Build a table from tuples in the order of ``columns``; ``None`` marks what is missing.

    Paths are written in one way, ``./a.jpg``, ``b//../a.jpg`` as ``a.jpg``: one image must not count as two.
    """
    table = pd.DataFrame(list(rows), columns=columns)
    spelt = {path: posixpath.normpath(path) for path in set(table["image_path"])}
    table["image_path"] = table["image_path"].map(spelt)
    numbers = [column for column in columns if column in (*BOX_COLUMNS, "score")]
    table[numbers] = table[numbers].astype(float)
    for column in ("image_path", "class_name"):
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    return table


def objects(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that hold a box."""
    return table[table["x1"].notna()]


def image_paths(table: pd.DataFrame) -> list[str]:
    """Each image once, in the table's order."""
    return list(dict.fromkeys(table["image_path"]))


def of_images(table: pd.DataFrame, paths: Iterable[str]) -> pd.DataFrame:
    """The rows that belong to ``paths``, in the table's order, numbered anew."""
    return table[table["image_path"].isin(set(paths))].reset_index(drop=True)


def count_boxes(table: pd.DataFrame, classes: dict[str, int]) -> pd.DataFrame:
    """Count the boxes and images of each class: a row per class in id order, columns ``boxes`` and ``images``.

    Example:
        >>> rm.count_boxes(table, classes)
    """
    found = objects(table).groupby("class_name")["image_path"].agg(["size", "nunique"])
    found.columns = ["boxes", "images"]
    return found.reindex(list(classes), fill_value=0)


def number_classes(*tables: pd.DataFrame) -> dict[str, int]:
    """Number the class names of tables in alphabetical order."""
    names = sorted({name for table in tables for name in objects(table)["class_name"]})
    return {name: number for number, name in enumerate(names)}


def fingerprint(table: pd.DataFrame, classes: dict[str, int]) -> str:
    """SHA-256 over the sorted annotations, in whole pixels, and the classes: equal for equal ones in any order."""
    rows = sorted(_csv_rows(table[COLUMNS].assign(**whole_pixels(table[BOX_COLUMNS])), digits=0))
    return hashlib.sha256(repr((rows, sorted(classes.items()))).encode()).hexdigest()


def check_classes(table: pd.DataFrame, classes: dict[str, int], where: str) -> None:
    """Raise `AnnotationError` if the table names a class that ``classes`` lacks."""
    unknown = sorted(set(objects(table)["class_name"]) - set(classes))
    if unknown:
        raise AnnotationError(f"{where}: {_unknown_class(', '.join(map(repr, unknown)), classes)}")


def number(text: str) -> float:
    """The text as a finite number, ``nan`` if it is none; ``2_0`` and Arabic digits are Python's alone."""
    try:
        found = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def looks_like_shares(box_xyxy: Iterable[float]) -> bool:
    """Whether the edges of a box in pixels are probably shares of the image's size: all from 0 to 1."""
    return all(0 <= edge <= 1 for edge in box_xyxy)


def read_classes(path: str | Path) -> dict[str, int]:
    """Read ``classes.csv``: rows ``name,id``, ids 0 to N-1, each once.

    Returns:
        Name to id, in id order.
    """
    classes: dict[str, int] = {}
    for line, row in csv_lines(path):
        if len(row) != 2:
            raise AnnotationError(f"{path} line {line}: found {len(row)} columns, expected 2: name,id")
        name, number = (field.strip() for field in row)
        if not name or not number.isascii() or not number.isdigit():
            found = ",".join(row)
            raise AnnotationError(f"{path} line {line}: found {found!r}, expected a name and an id such as mask,0")
        if name in classes:
            raise AnnotationError(f"{path} line {line}: class {name!r} stands here twice; remove one")
        classes[name] = int(number)
    if sorted(classes.values()) != list(range(len(classes))) or not classes:
        found = ", ".join(map(str, sorted(classes.values()))) or "none"
        raise AnnotationError(f"{path}: ids must be 0, 1, 2, ... each once, found {found}; renumber them")
    return dict(sorted(classes.items(), key=lambda item: item[1]))


def write_classes(classes: dict[str, int], path: str | Path) -> None:
    """Write ``classes.csv`` in id order."""
    files.write_text(path, _csv_text(sorted(classes.items(), key=lambda item: item[1])))


def read_annotations(path: str | Path, classes: dict[str, int] | None = None) -> pd.DataFrame:
    """Read and check an annotation CSV in keras-retinanet's format.

    Everything that keras-retinanet reads is accepted (save stray quotes, which hide rows from it); a byte
    order mark, Windows line ends, decimals, backslashes and blank lines too. All bad lines are named in one
    error.

    Args:
        path: the CSV; its image paths are relative to its folder.
        classes: if given, every class must be one of them.

    Raises:
        AnnotationError: with file, line, what was found and what was expected.
    """
    return _read_table(path, COLUMNS, classes)


def read_detections(path: str | Path) -> pd.DataFrame:
    """Read detections as `write_detections` wrote them, without tracks; a CSV may also have no header.

    A sliver at the image's edge may have lost its last hundredths of a pixel: ``x1 = x2`` is accepted.

    Example:
        >>> rm.read_detections("detections.csv")
    """
    return _read_table(path, DETECTION_COLUMNS)


def write_annotations(table: pd.DataFrame, path: str | Path) -> int:
    """Write the table as keras-retinanet's CSV; coordinates are rounded to whole pixels.

    Halves go up, so that a box of one pixel or more never vanishes.

    Returns:
        How many boxes the rounding moved.

    Raises:
        AnnotationError: a box has no whole pixel left after rounding.

    Example:
        >>> rm.write_annotations(table, "mine.csv")
    """
    whole = table[COLUMNS].reset_index(drop=True)  # joined tables have rows of the same label
    boxes = objects(whole)
    rounded = whole_pixels(boxes[BOX_COLUMNS])
    vanished = ~((rounded["x1"] < rounded["x2"]) & (rounded["y1"] < rounded["y2"]))  # true for nan too
    if vanished.any():
        first = boxes[vanished].iloc[0]
        raise AnnotationError(
            f"{path}: {vanished.sum()} box(es) vanish when rounded to whole pixels, the first in "
            f"{first.image_path}: {[float(first[c]) for c in BOX_COLUMNS]}; remove boxes under one pixel"
        )
    whole.loc[boxes.index, BOX_COLUMNS] = rounded
    files.write_text(path, _csv_text(_csv_rows(whole, digits=0)))
    return int((rounded != boxes[BOX_COLUMNS]).any(axis=1).sum())


def write_detections(tables: pd.DataFrame | Iterable, path: str | Path, columns: list[str] = DETECTION_COLUMNS) -> None:
    """Write detections as the ending of ``path`` says: ``.csv``, ``.parquet`` or ``.json``.

    Args:
        tables: a table, or its parts one after the other, of which memory holds one.
        path: the file; written whole or not at all.
        columns: `TRACKED_COLUMNS` for a video.

    Raises:
        AnnotationError: another ending.

    Example:
        >>> rm.write_detections(model.detect("photos/"), "detections.csv")
    """
    suffix = check_ending(path)
    digits = dict.fromkeys(BOX_COLUMNS, 2) | {"score": 4}
    tables = [tables] if isinstance(tables, pd.DataFrame) else tables
    parts = (table[columns].round(digits) for table in tables)
    with files.replacing(path) as temporary:
        if suffix == ".parquet":
            import pyarrow.parquet

            kinds = {"image_path": pyarrow.string(), "class_name": pyarrow.string(), "track": pyarrow.int64()}
            schema = pyarrow.schema({name: kinds.get(name, pyarrow.float64()) for name in columns})
            with pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for table in parts:
                    writer.write_table(pyarrow.Table.from_pandas(table, schema, preserve_index=False))
            return
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write("[" if suffix == ".json" else _csv_text([columns]))
            between = "\n"
            for table in parts:
                if suffix == ".csv":
                    file.write(_csv_text(_csv_rows(table, digits=2)))
                    continue
                for row in table.astype(object).where(table.notna(), None).itertuples(index=False, name=None):
                    file.write(between + json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False))
                    between = ",\n"
            file.write("\n]\n" * (suffix == ".json"))


def check_ending(path: str | Path) -> str:
    """Return the ending of a file of detections in lower case; `AnnotationError` if it is none of `ENDINGS`."""
    suffix = Path(path).suffix.lower()
    if suffix not in ENDINGS:
        raise AnnotationError(f"{path}: found no known ending, expected one of {', '.join(ENDINGS)}")
    return suffix


def moved(table: pd.DataFrame, old_folder: str | Path, new_folder: str | Path) -> pd.DataFrame:
    """The table with image paths that are right for a CSV in another folder."""
    new_folder, old_folder = Path(new_folder).resolve(), Path(old_folder).resolve()
    new_paths = {path: relative_path(old_folder / path, new_folder) for path in image_paths(table)}
    return table.assign(image_path=table["image_path"].map(new_paths).astype(object))


def relative_path(path: str | Path, folder: str | Path) -> str:
    """``path`` as seen from ``folder``, with forward slashes, and ``..`` where needed."""
    relative = os.path.relpath(path, folder)
    if relative.startswith(os.pardir):  # going up leads elsewhere from a linked folder than its name says
        parent, name = os.path.split(path)
        relative = os.path.relpath(os.path.join(os.path.realpath(parent), name), os.path.realpath(folder))
    return Path(relative).as_posix()


def not_utf8(error: UnicodeDecodeError) -> str:
    """Describe a text in another encoding."""
    return f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"


def csv_lines(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """A CSV's rows with their line numbers; blank lines, and those of a spreadsheet (``,,,,,``), left out.

    Raises:
        AnnotationError: missing, not UTF-8, not CSV, or not readable at all.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            yield from ((reader.line_num, row) for row in reader if any(map(str.strip, row)))
    except FileNotFoundError:
        raise AnnotationError(f"{path} does not exist; expected a CSV file") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: {not_utf8(error)}") from None
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror}); expected a CSV file") from None
    except csv.Error as error:
        raise AnnotationError(f"{path} line {reader.line_num}: not readable as CSV ({error})") from None


def parse_csv(
    path: str | Path, columns: list[str] = COLUMNS, classes: dict[str, int] | None = None
) -> tuple[list[tuple], int]:
    """Parse all rows; how many have further columns comes second. One error names every bad line, twenty at most."""
    rows, bad, extra, known = [], [], 0, len(columns)
    for line, row in csv_lines(path) if Path(path).suffix.lower() not in ENDINGS[1:] else _records(path):
        if columns == DETECTION_COLUMNS == row[: len(columns)] and not rows:
            known += row == TRACKED_COLUMNS
            continue  # the header
        try:
            rows.append(_parse_row(row, columns, classes))
            extra += len(row) > known
        except ValueError as error:
            bad.append(f"{path} line {line}: {error}")
    if bad:
        raise AnnotationError(first_lines(bad))
    if not rows:
        raise AnnotationError(f"{path} is empty; expected rows of {','.join(columns)}")
    return rows, extra


def _records(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a Parquet or JSON file of detections, as `csv_lines` gives those of a CSV."""
    try:
        if Path(path).suffix.lower() == ".parquet":
            records = pd.read_parquet(path, columns=DETECTION_COLUMNS).to_dict("records")
        else:
            records = json.loads(Path(path).read_text(encoding="utf-8"))
        cells = [[record[name] for name in DETECTION_COLUMNS] for record in records]
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise AnnotationError(f"{path}: not readable ({error!r}); expected what retinamask detect writes") from None
    yield from enumerate((["" if pd.isna(cell) else str(cell) for cell in row] for row in cells), 1)


def _read_table(path: str | Path, columns: list[str], classes: dict[str, int] | None = None) -> pd.DataFrame:
    """The table in a CSV; ``path,,,,,`` of an image that has boxes too, and repeats of it, are dropped."""
    rows, extra = parse_csv(path, columns, classes)
    if extra:
        log.warning("%s: %d row(s) have more than %d columns; the rest is not read", path, extra, len(columns))
    table, folder = make_table(rows, columns), Path(path).parent
    # one image is spelt in one way: absolute paths, and those that lead up and back, as the others
    astray = [name for name in image_paths(table) if name.startswith(("/", "../")) and (folder / name).exists()]
    spelt = {name: relative_path(folder / name, folder) for name in astray}
    table["image_path"] = table["image_path"].map(lambda name: spelt.get(name, name)).astype(object)
    empty = table["x1"].isna()
    has_boxes = table["image_path"].isin(table.loc[~empty, "image_path"])
    return table[~(empty & (has_boxes | table["image_path"].duplicated()))].reset_index(drop=True)


def _parse_row(row: list[str], columns: list[str], classes: dict[str, int] | None) -> tuple:
    """One CSV row as a tuple in the order of ``columns``; `ValueError` says what is wrong."""
    if len(row) < len(columns):
        hint = "; use commas, not semicolons" if len(row) == 1 and ";" in row[0] else ""
        raise ValueError(f"found {len(row)} column(s), expected {len(columns)}: {','.join(columns)}{hint}")
    fields = [field.strip() for field in row[: len(columns)]]
    image_path = row[0].rstrip().replace("\\", "/")  # a name may begin with a space
    if not fields[0]:
        raise ValueError("found no image path in the first column")
    if not any(fields[1:]):
        return (image_path, *[None] * (len(columns) - 1))
    edges = [number(text) for text in fields[1:5]]
    for name, text, edge in zip(BOX_COLUMNS, fields[1:5], edges, strict=True):
        if not math.isfinite(edge):
            header = "; keras-retinanet's CSV has no header row" if text.lower() in ("x1", "xmin") else ""
            raise ValueError(f"{name} is {text!r}, expected a number of pixels{header}")
    for axis, low, high in (("x", edges[0], edges[2]), ("y", edges[1], edges[3])):
        if high < low or high == low and columns == COLUMNS:  # only a detection may be as thin as nothing
            raise ValueError(f"{axis}2 ({high:g}) must exceed {axis}1 ({low:g}) in {image_path}")
    if columns == COLUMNS and looks_like_shares(edges) and edges != [0, 0, 1, 1]:
        raise ValueError(f"{', '.join(fields[1:5])} may be shares of the size of {image_path}, expected pixels")
    if not fields[5]:
        raise ValueError(f"found a box without a class for {image_path}, expected {','.join(columns)}")
    if classes is not None and fields[5] not in classes:
        raise ValueError(_unknown_class(repr(fields[5]), classes))
    scores = [number(text) for text in fields[6:]]
    if not all(0 <= score <= 1 for score in scores):  # true for nan too
        raise ValueError(f"score is {fields[6]!r}, expected a number from 0 to 1")
    return (image_path, *edges, fields[5], *scores)


def _unknown_class(shown: str, classes: dict[str, int]) -> str:
    return f"class {shown} is not among the classes ({', '.join(classes)}); add it to classes.csv or fix the label"


def _csv_rows(table: pd.DataFrame, digits: int) -> list[tuple[str, ...]]:
    """Rows as text; missing values become empty fields."""
    rows = []
    for image_path, x1, y1, x2, y2, class_name, *more in table.itertuples(index=False, name=None):
        if math.isnan(x1):
            rows.append((image_path, *[""] * (len(table.columns) - 1)))
        else:
            pixels = (f"{round(value, digits) + 0.0:.{digits}f}" for value in (x1, y1, x2, y2))
            more = ("" if value is pd.NA else f"{value:.4f}" if isinstance(value, float) else value for value in more)
            rows.append((image_path, *pixels, class_name, *more))
    return rows


def _csv_text(rows: Iterable[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
