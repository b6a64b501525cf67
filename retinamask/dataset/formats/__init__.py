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
    labelme,
    open_images,
    retinanet_csv,
    via,
    voc,
    vott,
    yolo,
)
from retinamask.dataset.formats.class_names import apply_class_map, class_ids, map_classes, parse_class_map
from retinamask.dataset.formats.entries import Format, Problem, ending
from retinamask.dataset.formats.guessing import guess
from retinamask.dataset.formats.reading import read_pairs, read_sources, summary
from retinamask.dataset.formats.voc import write_voc

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
    "summary",
    "write",
    "write_voc",
]

_XML, _JSON = ending(".xml"), ending(".json")

# fmt: off
FORMATS = {
    "voc": Format(
        voc.entries, _XML, "XML file", "Pascal VOC files as labelImg saves them", "XML", "XML file(s)",
        None, voc.write_voc_folder, ".xml",
    ),
    "yolo": Format(
        yolo.entries, yolo.label_files, "label file", "YOLO's .txt files, one an image", "label file", "label file(s)",
        yolo.classes, yolo.write_yolo, ".txt",
    ),
    "coco": Format(
        coco_json.entries, _JSON, "JSON file", "COCO annotations", "COCO entry", "COCO image(s)",
        coco_json.classes, coco_json.write_coco,
    ),
    "createml": Format(
        createml.entries, _JSON, "JSON file", "CreateML annotations", "CreateML entry", "CreateML image(s)",
        None, createml.write_createml,
    ),
    "csv": Format(
        retinanet_csv.entries, retinanet_csv.select, "CSV file", "rows of path,x1,y1,x2,y2,class", "CSV row",
        "image(s) of the CSV", None, retinanet_csv.write_csv,
    ),
    "open_images": Format(
        open_images.entries, open_images.select, "CSV file", "boxes of Open Images", "Open Images row",
        "Open Images image(s)",
    ),
    "cvat": Format(cvat.entries, _XML, "XML file", "CVAT for images 1.1", "CVAT entry", "CVAT image(s)"),
    "labelme": Format(
        labelme.entries, _JSON, "JSON file", "LabelMe's files, one an image", "LabelMe file", "LabelMe file(s)"
    ),
    "via": Format(via.entries, _JSON, "JSON file", "a project or annotations of VIA", "VIA entry", "VIA image(s)"),
    "vott": Format(
        vott.entries, ending(".json", ".csv"), "JSON or CSV file", "an export of VoTT, or its *-asset.json",
        "VoTT asset", "VoTT asset(s)",
    ),
    "class_folders": Format(
        class_folders.entries, class_folders.select, "image", "a folder of class folders", "class folder", "image(s)",
        class_folders.folder_classes,
    ),
}
# fmt: on


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
    reported, and its image left out; so is an image that is annotated twice, differently. Boxes that reach at most
    `reading.CLIP_LIMIT` pixels past the image are clipped; others that make no sense are dropped, and an image that
    has no box left is left out.

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
    """Class ids: the order that the files themselves list, then the others as they first appear in the table.

    Beside files of formats without a list, writers leave a ``classes.csv``.
    """
    sources, form = list(map(Path, sources)), _named(format_name)
    if form.classes:
        return class_ids(table, form.classes(sources))
    paths = [(source if source.is_dir() else source.parent) / "classes.csv" for source in sources]
    return class_ids(table, [name for path in paths if path.is_file() for name in read_classes(path)])


def _named(format_name: str) -> Format:
    if format_name not in FORMATS:
        raise AnnotationError(f"format is {format_name!r}, expected one of: {', '.join(FORMATS)}")
    return FORMATS[format_name]
