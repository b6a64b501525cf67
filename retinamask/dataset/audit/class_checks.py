"""Checks on the classes: slips of the pen, classes without boxes, and rare ones."""

import re
from collections import defaultdict
from collections.abc import Mapping

import pandas as pd

from retinamask.dataset.annotations import count_boxes, objects
from retinamask.dataset.audit.findings import Example, Finding, found

RARE_SHARE = 0.1  # a class with fewer boxes than this share of the largest one is rare


def check_classes(table: pd.DataFrame, classes: Mapping[str, int], rare_share: float = RARE_SHARE) -> list[Finding]:
    """Findings about class names and their numbers.

    Args:
        table: annotations.
        classes: name to id, as in the class list.
        rare_share: see `RARE_SHARE`.
    """
    names = list(dict.fromkeys([*classes, *sorted(set(objects(table)["class_name"]))]))
    counts = count_boxes(table, dict.fromkeys(names, 0))["boxes"]
    first_files = objects(table).groupby("class_name")["image_path"].first()

    def case(name: str, detail: str) -> Example:
        return Example((first_files[name],) if name in first_files else (), detail)

    alike = [
        Example(
            tuple(first_files[name] for name in group if name in first_files),
            ", ".join(f"{name!r} ({_boxes(counts[name])})" for name in group),
        )
        for group in _alike(names)
    ]
    unknown = [case(name, f"{name!r}: {_boxes(counts[name])}") for name in names if name not in classes]
    unused = [case(name, f"{name!r}") for name in names if name in classes and not counts[name]]
    most = counts.max() if len(counts) else 0
    rare = [
        case(name, f"{name!r}: {_boxes(counts[name])} against {most} of {counts.idxmax()!r}")
        for name in names
        if 0 < counts[name] < rare_share * most
    ]
    return [
        *found("class names alike", "error", "groups of names", _ALIKE, alike),
        *found("unknown class", "error", "classes", _UNKNOWN.format(", ".join(classes)), unknown),
        *found("class without boxes", "warning", "classes", _UNUSED, unused),
        *found("rare class", "warning", "classes", _RARE.format(f"{rare_share:.0%}"), rare),
    ]


_ALIKE = (
    "Names that differ only in case, white space, hyphens or underscores are likely to be one class: the network "
    "would learn to tell it from itself. Rename the labels."
)
_UNKNOWN = "The class list ({}) lacks these. Add them to it or fix the labels."
_UNUSED = "In the class list, and on no image: it cannot be learnt. Add images, or take it off the list."
_RARE = "Fewer than {} of the boxes of the largest class: it is seldom seen in training and easily lost. Add images."


def _boxes(count: int) -> str:
    return f"{count} box" if count == 1 else f"{count} boxes"


def _alike(names: list[str]) -> list[list[str]]:
    """Groups of names that are one name when it is written plainly."""
    groups = defaultdict(list)
    for name in names:
        groups[re.sub(r"[\s_-]+", "", name.casefold())].append(name)
    return [group for group in groups.values() if len(group) > 1]
