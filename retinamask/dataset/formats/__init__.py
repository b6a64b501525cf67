"""Annotation file formats, each to and from the one table of `retinamask.dataset.annotations`.

`FORMATS` names them; `read`, `write` and `classes_of` take such a name, and `guess` finds it out.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from retinamask.dataset.annotations import AnnotationError, read_classes
from retinamask.dataset.formats import (
    class_folders,
    coco_json,
    createml,
    cvat,
    json_files,
    labelme,
    open_images,
    retinanet_csv,
    via,
    voc,
    vott,
    yolo,
    yolo_write,
)
from retinamask.dataset.formats.class_names import apply_class_map, class_ids, map_classes, parse_class_map
from retinamask.dataset.formats.entries import Format, Problem, ending
from retinamask.dataset.formats.guessing import guess
from retinamask.dataset.formats.reading import read_pairs, read_sources, summary
from retinamask.dataset.formats.voc_xml import write_voc

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
    "read_pairs",
    "read_voc",
    "summary",
    "write",
    "write_voc",
]


def _beside(sources: list[Path]) -> list[str]:
    """The classes of ``classes.csv`` in the sources, which the writers of formats without a list leave there."""
    names: dict[str, None] = {}
    for source in sources:
        path = (source if source.is_dir() else source.parent) / "classes.csv"
        names |= dict.fromkeys(read_classes(path)) if path.is_file() else {}
    return list(names)


FORMATS = {
    "voc": Format(
        select=ending(".xml"),
        entries=voc.entries,
        expected=("XML file", "Pascal VOC files as labelImg saves them"),
        kind="XML",
        counted="XML file(s)",
        classes=_beside,
        write=voc.write_voc_folder,
        suffix=".xml",
    ),
    "yolo": Format(
        select=yolo.label_files,
        entries=yolo.entries,
        expected=("label file", "YOLO's .txt files, one an image"),
        kind="label file",
        counted="label file(s)",
        classes=yolo.classes,
        write=yolo_write.write_yolo,
        suffix=".txt",
    ),
    "coco": Format(
        select=json_files.select,
        entries=coco_json.entries,
        expected=("JSON file", "COCO annotations"),
        kind="COCO entry",
        counted="COCO image(s)",
        classes=coco_json.classes,
        write=coco_json.write_coco,
    ),
    "createml": Format(
        select=json_files.select,
        entries=createml.entries,
        expected=("JSON file", "CreateML annotations"),
        kind="CreateML entry",
        counted="CreateML image(s)",
        classes=_beside,
        write=createml.write_createml,
    ),
    "csv": Format(
        select=retinanet_csv.select,
        entries=retinanet_csv.entries,
        expected=("CSV file", "rows of path,x1,y1,x2,y2,class"),
        kind="CSV row",
        counted="image(s) of the CSV",
        classes=_beside,
        write=retinanet_csv.write_csv,
    ),
    "open_images": Format(
        select=open_images.select,
        entries=open_images.entries,
        expected=("CSV file", "boxes of Open Images"),
        kind="Open Images row",
        counted="Open Images image(s)",
        classes=_beside,
    ),
    "cvat": Format(
        *(ending(".xml"), cvat.entries, ("XML file", "CVAT for images 1.1")),
        *("CVAT entry", "CVAT image(s)", _beside),
    ),
    "labelme": Format(
        *(json_files.select, labelme.entries, ("JSON file", "LabelMe's files, one an image")),
        *("LabelMe file", "LabelMe file(s)", _beside),
    ),
    "via": Format(
        *(json_files.select, via.entries, ("JSON file", "a project or annotations of VIA")),
        *("VIA entry", "VIA image(s)", _beside),
    ),
    "vott": Format(
        *(ending(".json", ".csv"), vott.entries, ("JSON or CSV file", "an export of VoTT, or its *-asset.json")),
        *("VoTT asset", "VoTT asset(s)", _beside),
    ),
    "class_folders": Format(
        select=class_folders.select,
        entries=class_folders.entries,
        expected=("image", "a folder of class folders"),
        kind="class folder",
        counted="image(s)",
        classes=class_folders.folder_classes,
    ),
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

    An image is where its annotation says: see `retinamask.dataset.formats.places`. What is not understood is
    reported, and its image left out. Boxes that reach at most `reading.CLIP_LIMIT` pixels past the image are clipped;
    others that make no sense are dropped, and an image that has no box left is left out.

    Args:
        format_name: one of `FORMATS`.
        sources: files, or folders that are searched with all below them, linked ones too.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: where the images are, if not where the annotations say.
        classes: if given, boxes of other classes are dropped and reported.
        with_unannotated: take images that have no annotation as images without objects; not those whose annotation
            could not be used.

    Returns:
        The table, sorted by annotation file and image, and what was wrong.

    Raises:
        AnnotationError: the sources hold nothing that could be used.
    """
    if format_name == "class_folders" and image_folder:
        raise AnnotationError("class folders hold their images themselves; leave the folder of the images away")
    return read_sources(_named(format_name), sources, csv_folder, image_folder, classes, with_unannotated)


def read_voc(*args, **options) -> tuple[pd.DataFrame, list[Problem]]:
    """Read labelImg's XML; see `read`."""
    return read("voc", *args, **options)


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
    return class_ids(table, _named(format_name).classes(list(map(Path, sources))))


def _named(format_name: str) -> Format:
    if format_name not in FORMATS:
        raise AnnotationError(f"format is {format_name!r}, expected one of: {', '.join(FORMATS)}")
    return FORMATS[format_name]
