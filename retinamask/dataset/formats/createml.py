"""CreateML JSON as labelImg writes it (centre x and y, width and height in pixels) to entries and back.

Above `json_files`.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from retinamask.dataset import files
from retinamask.dataset.annotations import write_classes
from retinamask.dataset.formats import json_files, writing
from retinamask.dataset.formats.entries import NO_BOX, Asked, Entry, FoundObject, Problem

FILE_NAME = "annotations.json"

_SIDES = ("x", "y", "width", "height")


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Read one file: one entry an image, sorted by image name; what is wrong with single records is reported.

    Format: https://developer.apple.com/documentation/createml (data source of an object detector), as written by
    labelImg 1.8.6.
    """
    found = []
    for number, record in enumerate(json_files.load_json(path, list)):
        where = f"{path} [{number}]"
        try:
            name = json_files.text(record, "image")
            annotations = json_files.member(record, "annotations", list)
            json_files.refuse_other_lists(record, ("annotations",))
        except ValueError as error:
            yield Problem("skipped file", where, str(error))
            continue
        where += f" image {name!r}"
        objects = [_object(f"{where} annotations[{place}]", item) for place, item in enumerate(annotations)]
        found.append(Entry(path, where, objects, name))
    yield from sorted(found, key=lambda entry: entry.written_name)


def write_createml(table: pd.DataFrame, classes: dict[str, int], folder: str | Path, csv_folder: str | Path) -> None:
    """Write ``annotations.json``, and ``classes.csv``, which keeps the order of the classes.

    Images of one folder are called by their file name, which is what labelImg looks for; those of several folders have
    what differs of the folders before it.

    Args:
        table: annotations with image paths relative to ``csv_folder``.
        classes: name to id.
        folder: new or empty.

    Raises:
        AnnotationError: nothing is written then.
    """
    pictures = writing.pictures(table, classes, csv_folder)
    names = _names([picture.path for picture in pictures])
    records = [{"image": names[picture.path], "annotations": _annotations(picture)} for picture in pictures]
    with writing.new_folder(folder) as new:
        files.write_json(new / FILE_NAME, records)
        write_classes(classes, new / "classes.csv")


def _object(where: str, annotation) -> FoundObject:
    try:
        name = json_files.text(annotation, "label")
        place = json_files.member(annotation, "coordinates", dict)
        x, y, width, height = (json_files.number(place.get(side)) for side in _SIDES)
        if not (width > 0 and height > 0 and x + y < float("inf")):  # false for nan too
            found = ", ".join(f"{side} {json_files.called(place.get(side))}" for side in _SIDES)
            raise ValueError(f"coordinates: {found}; expected numbers, width and height above 0")
    except ValueError as error:
        return FoundObject(where, "", NO_BOX, str(error))
    return FoundObject(where, name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def _names(paths: list[Path]) -> dict[Path, str]:
    """File names, with the folders before them that the images do not have in common."""
    return {path: (Path(stem).parent / path.name).as_posix() for path, stem in writing.stems(paths).items()}


def _annotations(picture: writing.Picture) -> list[dict]:
    records = []
    for (x1, y1, x2, y2), name in zip(picture.boxes_xyxy.tolist(), picture.class_names, strict=True):
        values = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        records.append({"label": name, "coordinates": dict(zip(_SIDES, values, strict=True))})
    return records
