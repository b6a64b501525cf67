"""Annotation file formats, each to and from the one table of `retinamask.dataset.annotations`.

`FORMATS` names them; `read`, `write` and `classes_of` take such a name, and `guess` finds it out.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from retinamask.dataset.annotations import AnnotationError, read_classes
from retinamask.dataset.formats.class_folders import folder_classes, read_class_folders
from retinamask.dataset.formats.class_names import apply_class_map, class_ids, map_classes, parse_class_map
from retinamask.dataset.formats.coco_json import coco_classes, read_coco, write_coco
from retinamask.dataset.formats.createml import read_createml, write_createml
from retinamask.dataset.formats.cvat import read_cvat
from retinamask.dataset.formats.guessing import guess
from retinamask.dataset.formats.labelme import read_labelme
from retinamask.dataset.formats.open_images import read_open_images
from retinamask.dataset.formats.reading import Problem, summary
from retinamask.dataset.formats.retinanet_csv import read_csv, write_csv
from retinamask.dataset.formats.via import read_via
from retinamask.dataset.formats.voc import read_voc, write_voc_folder
from retinamask.dataset.formats.voc_xml import write_voc
from retinamask.dataset.formats.vott import read_vott
from retinamask.dataset.formats.yolo import read_yolo, yolo_classes
from retinamask.dataset.formats.yolo_write import write_yolo

__all__ = [
    "FORMATS",
    "Problem",
    "apply_class_map",
    "class_ids",
    "classes_of",
    "guess",
    "map_classes",
    "parse_class_map",
    "read",
    "read_mapped",
    "read_voc",
    "summary",
    "write",
    "write_voc",
]


class Format(NamedTuple):
    """How a format is read and written; ``None`` where it is only read."""

    read: Callable[..., tuple[pd.DataFrame, list[Problem]]]
    write: Callable[..., None] | None
    classes: Callable[[list[str | Path]], list[str]]  # the classes that the files list, in order


def _beside(sources: list[str | Path]) -> list[str]:
    """The classes of ``classes.csv`` in the sources, which the writers of formats without a list leave there."""
    names: dict[str, None] = {}
    for source in map(Path, sources):
        path = (source if source.is_dir() else source.parent) / "classes.csv"
        names |= dict.fromkeys(read_classes(path)) if path.is_file() else {}
    return list(names)


FORMATS = {
    "voc": Format(read_voc, write_voc_folder, _beside),
    "yolo": Format(read_yolo, write_yolo, yolo_classes),
    "coco": Format(read_coco, write_coco, coco_classes),
    "createml": Format(read_createml, write_createml, _beside),
    "csv": Format(read_csv, write_csv, _beside),
    "open_images": Format(read_open_images, None, _beside),
    "cvat": Format(read_cvat, None, _beside),
    "labelme": Format(read_labelme, None, _beside),
    "via": Format(read_via, None, _beside),
    "vott": Format(read_vott, None, _beside),
    "class_folders": Format(read_class_folders, None, folder_classes),
}


def read(
    format_name: str,
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read annotations of a format into the table.

    Args:
        format_name: one of `FORMATS`.
        sources: files or folders.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: where the images are; without it, below the sources.
        classes: if given, boxes of other classes are dropped and reported.
        with_unannotated: take images that have no annotation as images without objects.

    Returns:
        The table, and what was wrong.

    Raises:
        AnnotationError: the sources hold nothing that could be used.
    """
    return _named(format_name).read(sources, csv_folder, image_folder, classes, with_unannotated)


def read_mapped(
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    known: dict[str, int] | None = None,
    with_unannotated: bool = False,
    format_name: str | None = None,
    class_map: dict[str, str] | None = None,
) -> tuple[pd.DataFrame, dict[str, int], list[Problem]]:
    """Read annotations of a format that may have to be found out, and rename or join their classes.

    Args:
        sources, csv_folder, image_folder, with_unannotated: as in `read`.
        known: the classes to end up with; without them, those of the sources in their order.
        format_name: one of `FORMATS`; without it, what `guess` says.
        class_map: old class name to new one; names not in it stay.

    Returns:
        The table, its classes (name to id), and what was wrong.
    """
    sources, class_map = list(sources), class_map or {}
    format_name = format_name or guess(sources)
    wanted = known
    if known and class_map:
        unknown = sorted(set(class_map.values()) - set(known))
        if unknown:
            raise AnnotationError(f"class map: {', '.join(unknown)} is not among the classes ({', '.join(known)})")
        # what has one of the known names now, or will have it
        wanted = dict.fromkeys([*class_map, *(name for name in known if name not in class_map)])
    table, problems = read(format_name, sources, csv_folder, image_folder, wanted, with_unannotated)
    found = classes_of(format_name, sources, table)
    return apply_class_map(table, class_map, found), known or map_classes(found, class_map), problems


def write(
    format_name: str,
    table: pd.DataFrame,
    classes: dict[str, int],
    folder: str | Path,
    csv_folder: str | Path,
    **options: str,
) -> None:
    """Write a table into a new or empty folder, whole or not at all.

    Args:
        format_name: one of `FORMATS` that has a writer.
        table: annotations with image paths relative to ``csv_folder``.
        classes: name to id.
        folder: new or empty.
        csv_folder: see ``table``.
        options: what the writer of that format takes besides, such as ``images`` of YOLO's.

    Raises:
        AnnotationError: nothing is written then.
    """
    writer = _named(format_name).write
    if writer is None:
        able = ", ".join(name for name, known in FORMATS.items() if known.write)
        raise AnnotationError(f"{format_name} is only read; formats that can be written: {able}")
    writer(table, classes, folder, csv_folder, **options)


def classes_of(format_name: str, sources: Iterable[str | Path], table: pd.DataFrame) -> dict[str, int]:
    """Class ids: the order that the files themselves list, then the others as they first appear in the table."""
    return class_ids(table, _named(format_name).classes(list(sources)))


def _named(format_name: str) -> Format:
    if format_name not in FORMATS:
        raise AnnotationError(f"format is {format_name!r}, expected one of: {', '.join(FORMATS)}")
    return FORMATS[format_name]
