"""The text of a Darknet ``.cfg``: sections of ``name=value`` lines, and reading their values; below `cfg`.

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
    """A ``.cfg`` that cannot be used; the message says which line, what was found and what to write instead."""


@dataclass(frozen=True)
class Option:
    """What stands behind ``name=``, and in which line of the file."""

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
        """The value of an option as a whole number from ``low`` to ``high``; without a default it must be there."""
        (value,) = self.integers(name, None if default is None else [default], low, high, count=1)
        return value

    def integers(
        self, name: str, default: list[int] | None = None, low: int = 0, high: int = 10**9, count: int | None = None
    ) -> list[int]:
        """The whole numbers between commas, each from ``low`` to ``high``."""
        texts = self._texts(name, default is None, count)
        if texts is None:
            return default
        values = [int(text) if _INTEGER.fullmatch(text) else None for text in texts]
        if any(value is None or not low <= value <= high for value in values):
            plural = "a whole number" if count == 1 else "whole numbers, separated by commas, each"
            self.refuse(f"{self._found(name)}, expected {plural} from {low} to {high}", name)
        return values

    def number(self, name: str, default: float | None = None, low: float = 0.0, high: float = 1e6) -> float:
        """The value of an option as a number from ``low`` to ``high``; without a default it must be there."""
        (value,) = self.numbers(name, None if default is None else [default], low, high, count=1)
        return value

    def numbers(
        self,
        name: str,
        default: list[float] | None = None,
        low: float = 0.0,
        high: float = 1e6,
        count: int | None = None,
    ) -> list[float]:
        """The numbers between commas, each from ``low`` to ``high``."""
        texts = self._texts(name, default is None, count)
        if texts is None:
            return default
        values = [float(text) if _NUMBER.fullmatch(text) else None for text in texts]
        if any(value is None or not low <= value <= high for value in values):
            plural = "a number" if count == 1 else "numbers, separated by commas, each"
            self.refuse(f"{self._found(name)}, expected {plural} from {low:g} to {high:g}", name)
        return values

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """The value of an option that has to be one of ``choices``; ``default`` is what Darknet takes without it."""
        value = self.options[name].value if name in self.options else default
        if value not in choices:
            found = self._found(name) if name in self.options else f"no {name} in [{self.name}], which means {default}"
            self.refuse(f"{found}, expected {' or '.join(f'{name}={choice}' for choice in choices)}", name)
        return value

    def refuse(self, what: str, name: str | None = None) -> NoReturn:
        """Raise a `CfgError` that names the line of the option ``name``, or of the section."""
        line = self.options[name].line if name in self.options else self.line
        raise CfgError(f"{self.source}, line {line}: {what}")

    def _texts(self, name: str, needed: bool, count: int | None) -> list[str] | None:
        if name not in self.options:
            if needed:
                self.refuse(f"no {name} in [{self.name}], expected a line {name}=...")
            return None
        texts = [text.strip() for text in self.options[name].value.split(",")]
        if count is not None and len(texts) != count:
            self.refuse(f"{self._found(name)}, which are {len(texts)} values, expected {count}", name)
        return texts

    def _found(self, name: str) -> str:
        return f"[{self.name}] has {name}={self.options[name].value[:60]}"


def parse(text: str, source: str = "cfg") -> list[Section]:
    """Split the text of a ``.cfg`` into its sections.

    Lines that start with ``#`` or ``;`` are comments, as is what stands behind a ``#``.

    Args:
        text: the whole file.
        source: its name, for messages.

    Raises:
        CfgError: a line that is neither ``[section]`` nor ``name=value``, or an option given twice.
    """
    sections = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.split("#")[0].strip()
        if not line or line.startswith(";"):
            continue
        if line.startswith("[") and line.endswith("]"):
            sections.append(Section(line[1:-1].strip(), number, source))
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not (name and equals and value and sections):
            where = "behind a [section]" if sections else "with [net] first"
            raise CfgError(f"{source}, line {number}: found {line[:60]!r}, expected [section] or name=value {where}")
        options = sections[-1].options
        if name in options:
            sections[-1].refuse(
                f"{name} stands in line {options[name].line} and again in line {number} of one [{sections[-1].name}]; "
                "keep one of them",
                name,
            )
        options[name] = Option(value, number)
    return sections
