"""Class names: their ids, names that look like slips, and class maps that join or rename them."""

import re
from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from retinamask.dataset.annotations import AnnotationError

# Control characters, line ends, halves of surrogate pairs: no file format could hold a name with one of them
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def class_ids(table: pd.DataFrame, first: Iterable[str] = ()) -> dict[str, int]:
    """Number the classes: those of ``first`` in their order, then the others as they first appear in the table.

    The readers sort their tables by file, so that the same files give the same ids on any machine.
    """
    found = table.loc[table["class_name"].notna(), "class_name"]
    return {name: number for number, name in enumerate(dict.fromkeys([*first, *found]))}


def unwritable(name: str) -> bool:
    """Whether a name has characters that no annotation format could hold: line ends, control characters."""
    return bool(_UNWRITABLE.search(name))


def likely_slips(names: Iterable[str], classes: Iterable[str] | None = None) -> list[str]:
    """Messages about classes, found or listed, that differ only in case or white space: ``noMask`` and ``nomask``."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys([*(classes or ()), *names]):
        alike["".join(name.split()).casefold()].append(name)
    return [
        f"classes {' and '.join(map(repr, group))} differ only in case or white space, probably a slip; "
        f"a class map makes them one: {group[-1]}={group[0]}"
        for key, group in alike.items()
        if key and len(group) > 1
    ]


def parse_class_map(text: str) -> dict[str, str]:
    """Read ``with_mask=mask,without_mask=no_mask``.

    Raises:
        AnnotationError: a part is not ``old=new``, or one name stands twice on the left.
    """
    names: dict[str, str] = {}
    for part in text.split(","):
        old, equals, new = (piece.strip() for piece in part.partition("="))
        if not (old and equals and new) or "=" in new:
            raise AnnotationError(f"class map: found {part!r}, expected old=new,old=new such as with_mask=mask")
        if old in names:
            raise AnnotationError(f"class map: {old!r} stands on the left twice; remove one")
        names[old] = new
    return names


def apply_class_map(
    table: pd.DataFrame, classes: dict[str, int], class_map: dict[str, str]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rename classes, old to new; several may become one, and those not in the map stay.

    Returns:
        The table, and the classes numbered anew in the order in which the old ids first lead to them.

    Raises:
        AnnotationError: an old name is not among the classes.
    """
    unknown = [name for name in class_map if name not in classes]
    if unknown:
        known = ", ".join(map(repr, classes))
        raise AnnotationError(f"class map: found no class {', '.join(map(repr, unknown))}; the classes are {known}")
    new_names = dict.fromkeys(class_map.get(old, old) for old in sorted(classes, key=classes.get))
    renamed = table["class_name"].map(lambda name: class_map.get(name, name)).astype(object)
    return table.assign(class_name=renamed), {name: number for number, name in enumerate(new_names)}
