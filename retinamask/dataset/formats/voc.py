"""Pascal VOC XML as labelImg writes it, to entries and back.

labelImg's numbers are taken as 0-based half-open edges, without a shift. Above `voc_xml`, which knows one file.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from retinamask.dataset import boxes
from retinamask.dataset.annotations import AnnotationError, write_classes
from retinamask.dataset.formats import voc_xml, writing
from retinamask.dataset.formats.entries import Asked, Entry, FoundObject


def entries(path: Path, asked: Asked) -> Iterator[Entry]:
    """Read one XML.

    Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf, as written by labelImg 1.8.6.
    """
    voc = voc_xml.parse(path)
    objects = [FoundObject(f"{path} line {item.line}", item.name, item.box_xyxy, item.wrong) for item in voc.objects]
    size = {"size_wh": voc.size_wh, "size_label": "<size>"}
    yield Entry(path, str(path), objects, voc.filename, folder=voc.folder, own_stem=True, **size)


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
