"""Settings: default, help and bounds stand beside each field of a settings dataclass and are checked in one place.

Command line and notebooks make their options from the fields of training, augmentation and detectors.
"""

import math
from collections.abc import Callable
from dataclasses import Field, field, fields
from typing import Any, get_args, get_origin


def setting(
    default: Any,
    text: str,
    low: float = -math.inf,
    high: float = math.inf,
    choices: tuple[str, ...] = (),
    read: Callable[[str], Any] | None = None,
) -> Any:
    """Declare a field.

    Args:
        default: its value if none is given.
        text: its help.
        low, high: bounds of a number, or of each number of a tuple.
        choices: the texts that it takes; any if empty.
        read: makes its value of the path of a file, which the command line takes in its place.
    """
    known = {"help": text, "low": low, "high": high, "choices": choices, "read": read}
    return field(default=default, metadata=known)


def described(settings: type) -> dict[str, Field]:
    """Give the fields of a dataclass that `setting` declared, by name."""
    return {known.name: known for known in fields(settings) if known.metadata}


def value_of(known: Field, given: Any) -> Any:
    """Make a field's value of what a command line, a notebook or JSON gives.

    That is a tuple of a text such as ``128,64``, of ``none`` or of a list, and the content of a file of its path.

    Raises:
        ValueError: a text that is no list of numbers, or a file that cannot be read.
    """
    kind = get_args(known.type)[0] if get_origin(known.type) is tuple else None
    if kind in (int, float) and isinstance(given, str):
        try:
            return tuple(kind(part) for part in given.split(",") if part not in ("", "none"))
        except ValueError:
            text = f"{known.name} is {given!r}"
            raise ValueError(f"{text}, expected numbers with commas between them, such as 128,64") from None
    if known.metadata["read"] and given and "\n" not in str(given):
        return known.metadata["read"](given)
    return _as_tuple(given)


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def check_settings(settings: Any) -> None:
    """Raise `ValueError` for a field whose value is not of its type or not within its bounds."""
    for name, known in described(type(settings)).items():
        value = getattr(settings, name)
        if expected := _expected(known, value):
            raise ValueError(f"{name} is {value!r}, expected {expected}")


def _expected(known: Field, value: Any) -> str | None:
    """Say what a field takes, if ``value`` is something else."""
    kind, values, each = known.type, (value,), ""
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            return "a tuple"
        kind, values, each = get_args(kind)[0], value, " each"
    if kind not in (int, float):
        choices = known.metadata["choices"] or ((True, False) if kind is bool else values)
        if all(one in choices for one in values):
            return None
        return " or ".join(map(str, choices)) if len(choices) < 3 else f"one of: {', '.join(choices)}"
    for one in values:
        if isinstance(one, bool) or not isinstance(one, (int, kind)) or not math.isfinite(one):
            return ("a whole number" if kind is int else "a finite number") + each
    low, high = known.metadata["low"], known.metadata["high"]
    if all(low <= one <= high for one in values):
        return None
    return (f"at least {low}" if high == math.inf else f"{low} to {high}") + each
