"""The text of a Darknet ``.cfg``: sections of ``name=value`` lines, and reading their values.

Darknet itself ignores what it does not know and reads ``atoi`` of anything; here every surprise is an error.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,12}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?")


class CfgError(ValueError):
    """A ``.cfg`` that cannot be used."""


@dataclass(frozen=True)
class Option:
    """The value of ``name=value``, and its line in the file."""

    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """One ``[name]`` with its options; the readers below raise `CfgError` with the option's line."""

    name: str
    line: int
    source: str
    options: dict[str, Option] = field(default_factory=dict)

    def only_knows(self, names: Iterable[str]) -> None:
        """Refuse options other than ``names``."""
        names = sorted(names)
        for name in self.options:
            if name not in names:
                near = "".join(f" ({close}?)" for close in difflib.get_close_matches(name, names, 1))
                self.refuse(
                    f"unknown option {name!r}{near} in [{self.name}], expected one of {', '.join(names)}; "
                    "take the line out if the network is the same without it",
                    name,
                )

    def integer(self, name: str, default: int | None = None, low: int = 0, high: int = 10**9) -> int:
        """Read a whole number from ``low`` to ``high``; without a default the option must be there."""
        return self._values(name, None if default is None else [default], low, high, int, 1)[0]

    def integers(self, name: str, default: list[int] | None = None, low: int = 0, high: int = 10**9) -> list[int]:
        """Read the whole numbers between commas, each from ``low`` to ``high``."""
        return self._values(name, default, low, high, int)

    def number(self, name: str, default: float | None = None, low: float = 0.0, high: float = 1e6) -> float:
        """Read a number from ``low`` to ``high``; without a default the option must be there."""
        return self._values(name, None if default is None else [default], low, high, float, 1)[0]

    def numbers(self, name: str, low: float = 0.0, high: float = 1e6) -> list[float]:
        """Read the numbers between commas, each from ``low`` to ``high``."""
        return self._values(name, None, low, high, float)

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """Read an option that has to be one of ``choices``; ``default`` is what Darknet takes without it."""
        value, found = default, f"no {name} in [{self.name}], which means {default}"
        if name in self.options:
            value, found = self.options[name].value, self._found(name)
        if value not in choices:
            self.refuse(f"{found}, expected {' or '.join(f'{name}={choice}' for choice in choices)}", name)
        return value

    def refuse(self, what: str, name: str | None = None) -> NoReturn:
        """Raise a `CfgError` that names the line of the option ``name``, or of the section."""
        line = self.options[name].line if name in self.options else self.line
        raise CfgError(f"{self.source}, line {line}: {what}")

    def _values(self, name: str, default: list | None, low: float, high: float, kind: type, count: int | None = None):
        if name not in self.options:
            if default is None:
                self.refuse(f"no {name} in [{self.name}], expected a line {name}=...")
            return default
        texts = [text.strip() for text in self.options[name].value.split(",")]
        if count not in (None, len(texts)):
            self.refuse(f"{self._found(name)}, which are {len(texts)} values, expected {count}", name)
        pattern, word = (_INTEGER, "whole number") if kind is int else (_NUMBER, "number")
        values = [kind(text) if pattern.fullmatch(text) else None for text in texts]
        if any(value is None or not low <= value <= high for value in values):
            what = f"a {word}" if count == 1 else f"{word}s, separated by commas, each"
            limits = f"from {low} to {high}" if kind is int else f"from {low:g} to {high:g}"
            self.refuse(f"{self._found(name)}, expected {what} {limits}", name)
        return values

    def _found(self, name: str) -> str:
        return f"[{self.name}] has {name}={self.options[name].value[:60]}"


def parse(text: str, source: str = "cfg") -> list[Section]:
    """Split the text of a ``.cfg`` into its sections.

    Lines that start with ``#`` or ``;`` are comments, as is the rest of a line after a ``#``.

    Args:
        text: the whole file.
        source: its name, for messages.

    Raises:
        CfgError: a line that is neither ``[section]`` nor ``name=value``, or an option given twice.
    """
    sections: list[Section] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.split("#")[0].strip()
        if not line or line.startswith(";"):
            continue
        if line.startswith("[") and line.endswith("]"):
            sections.append(Section(line[1:-1].strip(), number, source))
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not (name and equals and value and sections):
            where = "after a [section]" if sections else "with [net] first"
            raise CfgError(f"{source}, line {number}: found {line[:60]!r}, expected [section] or name=value {where}")
        options = sections[-1].options
        if name in options:
            sections[-1].refuse(
                f"{name} is in line {options[name].line} and again in line {number} of one [{sections[-1].name}]; "
                "keep one of them",
                name,
            )
        options[name] = Option(value, number)
    return sections
