"""JSON annotation files, read with care: damage and nonsense end in a message, whatever they are.

Below `coco_json` and `createml`.
"""

import json
import math
from pathlib import Path

from retinamask.dataset.formats.entries import ending

MAX_BYTES = 1024 * 1024 * 1024  # COCO's own instances_train2017.json has 448 MB
select = ending(".json")
_CALLED = {dict: "an object {...}", list: "a list [...]", str: "a text", int: "a whole number"}
_CALLED[dict, list] = "an object {...} or a list [...]"


def load_json(path: Path, kind: type | tuple[type, ...]):
    """The content of a JSON file, a ``dict`` or ``list`` as ``kind`` says.

    Raises:
        ValueError: with path and line: missing, too large, not JSON, ``NaN`` or ``Infinity`` (JSON has neither),
            nested too deeply, a name twice in one object, or of another kind.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, expected an annotation of at most {MAX_BYTES:,}")
        content = json.loads(path.read_bytes(), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply; expected an annotation file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path}: found {called(content)}, expected {_CALLED[kind]}")
    return content


def member(record, key: str, kind: type):
    """``record[key]`` of the right kind.

    Raises:
        ValueError: the record is no object, lacks the key, or has something else there.
    """
    if not isinstance(record, dict):
        raise ValueError(f"found {called(record)}, expected {_CALLED[dict]} with {key!r}")
    if key not in record:
        raise ValueError(f"found no {key!r}, expected {_CALLED[kind]} of that name")
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key!r} is {called(value)}, expected {_CALLED[kind]}")
    return value


def text(record, key: str) -> str:
    """``record[key]`` as a text without white space around.

    Raises:
        ValueError: there is none, or nothing is in it.
    """
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


def size_wh(record: dict) -> tuple[int, int] | None:
    """``width`` and ``height`` of a record, if both are whole numbers above 0."""
    sides = number(record.get("width")), number(record.get("height"))
    if not all(side >= 1 and side == int(side) for side in sides):  # nan compares false
        return None
    return int(sides[0]), int(sides[1])


def box_of_sides(record: dict, sides: tuple[str, ...]) -> tuple[float, float, float, float]:
    """Read the box of four numbers of a JSON object: left, top, width and height, under the names ``sides``.

    Raises:
        ValueError: one is missing or no number, or the width or height is not above 0.
    """
    left, top, width, height = (number(record.get(side)) for side in sides)
    if not (width > 0 and height > 0 and left + top < math.inf):  # false for nan too
        shown = ", ".join(f"{side} {called(record.get(side))}" for side in sides)
        raise ValueError(f"found {shown}; expected numbers, width and height above 0")
    return left, top, left + width, top + height


def called(value) -> str:
    """What a JSON value is, short enough for a message."""
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
