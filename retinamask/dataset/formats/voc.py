"""Pascal VOC XML as labelImg writes it, to the table and back.

labelImg's numbers are taken as 0-based half-open edges, without a shift. On top of `voc_xml`, which knows one
file, and `reading`. Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf, as written by
labelImg 1.8.6.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from retinamask.dataset import boxes
from retinamask.dataset.annotations import AnnotationError, write_classes
from retinamask.dataset.formats import voc_xml, writing
from retinamask.dataset.formats.reading import (
    Entry,
    FoundObject,
    Problem,
    Reading,
    files_below,
    image_index,
    read_entries,
)


def read_voc(
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read folder trees of labelImg XML, or single XML files, into the table.

    Args:
        sources: folders (searched with all below them) or XML files.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: where the images are; without it, below the sources.
        classes: if given, boxes of other classes are dropped and reported.
        with_unannotated: take images that have no XML as images without objects; not those whose XML is bad.

    Returns:
        The table, sorted by XML path, and the problems. Boxes that reach at most `reading.CLIP_LIMIT` pixels past
        the image are clipped; others that make no sense are dropped.

    Raises:
        AnnotationError: no XML file at all, or none that could be used.
    """
    sources = [Path(source) for source in sources]
    xml_paths = files_below(sources, [".xml"], "labelImg XML files")
    if not xml_paths:
        raise AnnotationError(
            f"no XML file below {', '.join(map(str, sources))}; expected Pascal VOC files as labelImg saves them"
        )
    reading = Reading(Path(csv_folder), classes, "XML", "XML file(s)", _has_xml)
    return read_entries(xml_paths, _load, image_index(sources, image_folder), reading, with_unannotated)


def read_voc_pairs(
    pairs: Iterable[tuple[Path, Path]], csv_folder: str | Path, image_folder: str | Path
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read XML files whose images are known, whatever name they have inside; else as `read_voc`.

    Args:
        pairs: each XML file with its image.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: the folder of all images; those without XML are counted.
    """
    image_of = dict(pairs)
    reading = Reading(Path(csv_folder), None, "XML", "XML file(s)", _has_xml)
    index = image_index([Path(image_folder)], image_folder)
    return read_entries(
        list(image_of), lambda path: _load(path)._replace(image_path=image_of[path], own_stem=False), index, reading
    )


def write_voc_folder(table: pd.DataFrame, classes: dict[str, int], folder: str | Path, csv_folder: str | Path) -> None:
    """Write one XML an image as labelImg would, and ``classes.csv``, which keeps the order of the classes.

    Whole pixels, halves up. Images stay where they are; as in labelImg's files only their names are recorded, so
    that reading back takes the folder of the images.

    Args:
        table: annotations with image paths relative to ``csv_folder``.
        classes: name to id.
        folder: new or empty; what images in several folders have in common is left out, the rest are folders here.

    Raises:
        AnnotationError: nothing is written then.
    """
    pictures = writing.pictures(table, classes, csv_folder)
    stems = writing.stems([picture.path for picture in pictures])
    with writing.new_folder(folder) as new:
        for picture in pictures:
            whole = boxes.whole_pixels(picture.boxes_xyxy)
            if not boxes.areas(whole).all():
                raise AnnotationError(f"{picture.path}: a box vanishes when rounded to whole pixels; remove it")
            xml_path = new / f"{stems[picture.path]}.xml"
            voc_xml.write_voc(xml_path, picture.path, picture.size_wh, whole, picture.class_names)
        write_classes(classes, new / "classes.csv")


def _load(xml_path: Path) -> Entry:
    voc = voc_xml.parse(xml_path)
    objects = [
        FoundObject(f"{xml_path} line {item.line}", item.name, item.box_xyxy, None if item.name else _NAMELESS)
        for item in voc.objects
    ]
    size = {"size_wh": voc.size_wh, "size_label": "<size>"}
    return Entry(xml_path, str(xml_path), objects, voc.filename, own_stem=True, **size)


_NAMELESS = "object without a <name>"


def _has_xml(image_path: Path) -> bool:
    return image_path.with_suffix(".xml").is_file()
