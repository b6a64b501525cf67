"""Text, CSV, XML and JSON read with care: damage and nonsense end in a message with path and line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler

import defusedxml
import defusedxml.sax

from retinamask.dataset.annotations import csv_lines, not_utf8

TEXT_BYTES = 64 * 1024 * 1024  # a list of 500,000 images has 30 MB
JSON_BYTES = 1024 * 1024 * 1024  # COCO's own instances_train2017.json has 448 MB

_CALLED = {dict: "an object {...}", list: "a list [...]", str: "a text", int: "a whole number"}
_CALLED[dict, list] = "an object {...} or a list [...]"


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The content of a file; `ValueError` if it is larger or cannot be read."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ValueError(f"{path}: {size:,} bytes, expected an annotation of at most {max_bytes:,}")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file with line ends as ``\\n``; `ValueError` as `read_bytes`, or if it is not UTF-8."""
    try:
        return read_bytes(path, TEXT_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {not_utf8(error)}") from None


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields without white space around; `ValueError` if it is not UTF-8, or not CSV."""
    try:
        yield from ((line, [field.strip() for field in row]) for line, row in csv_lines(path))
    except ValueError as error:
        raise ValueError(str(error).removeprefix(f"{path} ")) from None


def parse_xml(path: Path, handler: ContentHandler, max_bytes: int) -> None:
    """Feed an XML file to a handler, whose errors are `ValueError`.

    defusedxml refuses entity bombs and external entities; SAX knows the line of every element.

    Raises:
        ValueError: with path, and line where there is one.
    """
    content = read_bytes(path, max_bytes)
    try:
        defusedxml.sax.parseString(content, handler)
    except SAXParseException as error:
        raise ValueError(f"{path}: line {error.getLineNumber()}: not well-formed XML ({error.getMessage()})") from None
    except defusedxml.DefusedXmlException as error:
        raise ValueError(f"{path}: XML entities and outside files are refused ({type(error).__name__})") from None
    except (LookupError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def load_json(path: Path, kind: type | tuple[type, ...]):
    """The content of a JSON file, a ``dict`` or ``list`` as ``kind`` says.

    Raises:
        ValueError: with path and line: missing, too large, not JSON, ``NaN`` or ``Infinity`` (JSON has neither),
            nested too deeply, a name twice in one object, or of another kind.
    """
    content = read_bytes(path, JSON_BYTES)
    try:
        content = json.loads(content, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {not_utf8(error)}") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply; expected an annotation file") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path}: found {called(content)}, expected {_CALLED[kind]}")
    return content


def member(record, key: str, kind: type):
    """``record[key]`` of the right kind; `ValueError` if the record is no object, or has none or another there."""
    if not isinstance(record, dict):
        raise ValueError(f"found {called(record)}, expected {_CALLED[dict]} with {key!r}")
    if key not in record:
        raise ValueError(f"found no {key!r}, expected {_CALLED[kind]} of that name")
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key!r} is {called(value)}, expected {_CALLED[kind]}")
    return value


def text(record, key: str) -> str:
    """``record[key]`` as a text without white space around; `ValueError` if there is none or it is empty."""
    value = member(record, key, str).strip()
    if not value:
        raise ValueError(f"{key!r} is empty, expected a name")
    return value


def number(value) -> float:
    """The value as a float, ``nan`` if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:  # a whole number of 400 digits
        return math.nan


def size_wh(width, height) -> tuple[int, int] | None:
    """Width and height, if both are whole numbers above 0."""
    sides = number(width), number(height)
    if not all(side >= 1 and side == int(side) for side in sides):  # nan compares false
        return None
    return int(sides[0]), int(sides[1])


def sized_box(record: dict, names: tuple[str, ...], label: str = "found ") -> list[float]:
    """Four numbers of a JSON object: a place (x, y), width and height, under the names given.

    Raises:
        ValueError: one is missing or no number, or the width or height is not above 0.
    """
    x, y, width, height = found = [number(record.get(name)) for name in names]
    if not (width > 0 and height > 0 and x + y < math.inf):  # false for nan too
        shown = ", ".join(f"{name} {called(record.get(name))}" for name in names)
        raise ValueError(f"{label}{shown}; expected numbers, width and height above 0")
    return found


def called(value) -> str:
    """Describe a JSON value, short enough for a message."""
    if isinstance(value, dict):
        return f"an object with {len(value)} member(s)"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    try:
        shown = json.dumps(value)
    except ValueError:  # more digits than Python shows
        return "a huge number"
    return shown if len(shown) <= 40 else shown[:40] + "..."


def refuse_other_lists(record: dict, known: tuple[str, ...]) -> None:
    """Raise `ValueError` if a record has a list of objects that is not ``known``: it may hold boxes."""
    for key, value in record.items():
        if key not in known and isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
            raise ValueError(f"{key!r} is {called(value)}, which may be boxes; expected none in this place")


def _unique(pairs: list[tuple]) -> dict:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands twice in one object; keep one")
    return record


def _refuse_constant(name: str):
    raise ValueError(f"found {name}, which JSON does not have; expected numbers")
