"""Findings of the audit, and their table, the worst first."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pandas as pd

SEVERITIES = ("error", "warning", "note")  # makes training wrong; makes it worse; good to know
MOST_EXAMPLES = 10

_SINGULARS = {"boxes": "box", "classes": "class", "groups of names": "group of names"}


class Example(NamedTuple):
    """One case of a finding: the files it is about, what is special there, and the box that is meant, if any."""

    files: tuple[str, ...]
    detail: str = ""
    box_xyxy: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    Attributes:
        name: what it is, in a few words.
        severity: one of `SEVERITIES`.
        count: how many cases there are; ``unit`` says of what.
        unit: such as ``images`` or ``boxes``, in the plural.
        message: what follows from it and what to do.
        examples: at most `MOST_EXAMPLES` of the cases.
    """

    name: str
    severity: str
    count: int
    unit: str
    message: str
    examples: tuple[Example, ...] = ()

    def counted(self) -> str:
        """Number and unit, such as ``1 box`` or ``1,200 boxes``."""
        return f"{self.count:,} {_SINGULARS.get(self.unit, self.unit[:-1]) if self.count == 1 else self.unit}"

    def files(self) -> list[str]:
        """The files of the examples, each once, at most `MOST_EXAMPLES`."""
        return list(dict.fromkeys(file for example in self.examples for file in example.files))[:MOST_EXAMPLES]

    def record(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        examples = [
            {"files": list(example.files[:MOST_EXAMPLES]), "detail": example.detail} for example in self.examples
        ]
        return {**asdict(self), "examples": examples}


def found(name: str, severity: str, unit: str, message: str, examples: Sequence[Example]) -> list[Finding]:
    """A finding of these cases, or none if there are no cases; its examples are of as many files as there are."""
    if not examples:
        return []
    first_of_file = dict(reversed([(example.files, position) for position, example in enumerate(examples)]))
    chosen = sorted(first_of_file.values())[:MOST_EXAMPLES]
    others = [position for position in range(len(examples)) if position not in set(first_of_file.values())]
    chosen += others[: MOST_EXAMPLES - len(chosen)]
    return [Finding(name, severity, len(examples), unit, message, tuple(examples[position] for position in chosen))]


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sorted by severity; among equals the order stays."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The findings as a table for reading: severity, name, count, what to do, files."""
    columns = ["severity", "finding", "count", "of", "what to do", "examples"]
    rows = [(f.severity, f.name, f.count, f.unit, f.message, ", ".join(f.files())) for f in findings]
    return pd.DataFrame(rows, columns=columns)
