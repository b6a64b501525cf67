"""COCO JSON (``images``, ``annotations``, ``categories``; ``bbox`` is x, y, width, height) to the table and back.

On top of `json_files` and `reading`. Format: https://cocodataset.org/#format-data, section 1, object detection.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from retinamask.dataset import boxes, files
from retinamask.dataset.annotations import AnnotationError, relative_path
from retinamask.dataset.formats import json_files, writing
from retinamask.dataset.formats.reading import (
    Entry,
    FoundObject,
    Problem,
    Reading,
    files_below,
    image_index,
    read_documents,
)

FILE_NAME = "annotations.json"

_NO_BOX = (0.0, 0.0, 0.0, 0.0)


def read_coco(
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read COCO JSON files, or folder trees with them, into the table.

    Images without annotations are images without objects. Crowd annotations are dropped and reported, and an image
    that has nothing else is left out. Category ids may have gaps and start anywhere.

    Args:
        sources: JSON files, or folders (searched with all below them).
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: where the images are; without it, below the sources. They are found by name.
        classes: if given, boxes of other classes are dropped and reported.
        with_unannotated: take images that no file names as images without objects.

    Returns:
        The table, sorted by JSON path and image name, and the problems.

    Raises:
        AnnotationError: no JSON file at all, or no image that could be used.
    """
    sources = [Path(source) for source in sources]
    reading = Reading(Path(csv_folder), classes, "COCO entry", "COCO image(s)")
    return read_documents(_json_paths(sources), _entries, image_index(sources, image_folder), reading, with_unannotated)


def coco_classes(sources: Iterable[str | Path]) -> list[str]:
    """Names of the categories in the order of their ids; files after the first only add what is new."""
    names: dict[str, None] = {}
    for path in _json_paths([Path(source) for source in sources]):
        try:
            names |= dict.fromkeys(_categories(json_files.load_json(path, dict)).values())
        except ValueError:
            continue  # the reader reports it
    return list(names)


def write_coco(table: pd.DataFrame, classes: dict[str, int], folder: str | Path, csv_folder: str | Path) -> None:
    """Write ``annotations.json``; ``file_name`` is the image's path relative to it, category ids are 1, 2, 3, ...

    Args:
        table: annotations with image paths relative to ``csv_folder``.
        classes: name to id.
        folder: new or empty.

    Raises:
        AnnotationError: nothing is written then.
    """
    folder = Path(folder).resolve()
    pictures = writing.pictures(table, classes, csv_folder)
    ordered = sorted(classes, key=classes.get)
    record = {
        "info": {"description": "written by retinamask"},
        "licenses": [],
        "images": [_image(number, picture, folder) for number, picture in enumerate(pictures, 1)],
        "annotations": _annotations(pictures, {name: number for number, name in enumerate(ordered, 1)}),
        "categories": [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(ordered, 1)],
    }
    with writing.new_folder(folder) as new:
        files.write_json(new / FILE_NAME, record)


def _json_paths(sources: list[Path]) -> list[Path]:
    paths = files_below(sources, [".json"], "COCO JSON files")
    if not paths:
        raise AnnotationError(f"no JSON file below {', '.join(map(str, sources))}; expected COCO annotations")
    return paths


def _entries(path: Path, reading: Reading) -> list[Entry]:
    """One entry an image of one file, sorted by image name; what is wrong with single records is reported."""
    document = json_files.load_json(path, dict)
    categories = _categories(document)
    records = _images(path, json_files.member(document, "images", list), reading)
    found: dict[int | str, list[FoundObject]] = {image_id: [] for image_id in records}
    seen: dict[int | str, dict] = {}
    strays = 0
    for number, annotation in enumerate(json_files.member(document, "annotations", list)):
        where, image_id = f"{path} annotations[{number}]", None
        try:
            image_id = _id(annotation, "image_id")
            if image_id not in found:
                raise ValueError(f"image id {image_id!r} is not among the images")
            found[image_id].append(_object(where, annotation, categories, seen, reading))
        except ValueError as error:
            reading.problems.append(Problem("dropped box", where, str(error)))
            strays += image_id is None
    if strays and not all(found.values()):  # they may belong to images that otherwise seem to show nothing
        records = {image_id: image for image_id, image in records.items() if found[image_id]}
        left_out = f"{len(found) - len(records)} image(s) without any are left out"
        reading.problems.append(Problem("note", str(path), f"{strays} annotation(s) of no known image; {left_out}"))
    entries = [
        Entry(path, f"{path} image {name!r}", found[image_id], name, size_wh=size, size_label="width and height")
        for image_id, (name, size) in records.items()
    ]
    return sorted(entries, key=lambda entry: entry.written_name)


def _categories(document: dict) -> dict[int | str, str]:
    """Category id to name, in the order of the ids."""
    names: dict[int | str, str] = {}
    for number, record in enumerate(json_files.member(document, "categories", list)):
        try:
            category_id, name = _id(record, "id"), json_files.text(record, "name")
        except ValueError as error:
            raise ValueError(f"categories[{number}]: {error}") from None
        if names.setdefault(category_id, name) != name:
            raise ValueError(
                f"categories[{number}]: id {category_id!r} stands for {names[category_id]!r} and for {name!r}; keep one"
            )
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _images(path: Path, records: list, reading: Reading) -> dict[int | str, tuple]:
    """Image id to file name and size; ids that stand for two images are left out."""
    images: dict[int | str, tuple] = {}
    ambiguous = set()
    for number, record in enumerate(records):
        where = f"{path} images[{number}]"
        try:
            image_id, name = _id(record, "id"), json_files.text(record, "file_name")
        except ValueError as error:
            reading.skip_file(where, error)
            continue
        if image_id not in images:
            images[image_id] = (name, json_files.size_wh(record))
        elif images[image_id][0] == name:
            reading.problems.append(
                Problem("note", where, f"image id {image_id!r} stands here twice; the first counts")
            )
        else:
            message = f"id {image_id!r} stands for {images[image_id][0]!r} and for {name!r}; neither is used"
            reading.skip_file(where, ValueError(message))
            ambiguous.add(image_id)
    return {image_id: image for image_id, image in images.items() if image_id not in ambiguous}


def _object(where: str, annotation: dict, categories: dict, seen: dict, reading: Reading) -> FoundObject:
    """One annotation; ``seen`` holds those before it by their ids, where they have one."""
    own_id = annotation.get("id")
    if isinstance(own_id, (int, str)):
        where += f" (id {own_id!r})" if len(str(own_id)[:50]) < 50 else ""
        if own_id in seen:
            same = all(seen[own_id].get(key) == annotation.get(key) for key in ("image_id", "category_id", "bbox"))
            if same:
                return FoundObject(where, "", _NO_BOX, "the same annotation stands here twice; the first counts")
            reading.problems.append(Problem("note", where, "another annotation has this id too; both are used"))
        seen[own_id] = annotation
    try:
        category = _id(annotation, "category_id")
        if category not in categories:
            known = ", ".join(map(repr, categories))
            raise ValueError(f"category id {category!r} is not among the categories ({known})")
        box_xyxy = _box_xyxy(json_files.member(annotation, "bbox", list))
    except ValueError as error:
        return FoundObject(where, "", _NO_BOX, str(error))
    crowd = "a crowd (iscrowd), not one object" if annotation.get("iscrowd") else None
    return FoundObject(where, categories[category], box_xyxy, crowd)


def _id(record: dict, key: str) -> int | str:
    """An id: a whole number, or a text as some programs write."""
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, float) and value.is_integer():  # as pandas writes a column with gaps
        return int(value)
    return json_files.member(record, key, str if isinstance(value, str) else int)


def _box_xyxy(bbox: list) -> tuple[float, float, float, float]:
    x, y, width, height = map(json_files.number, bbox) if len(bbox) == 4 else (0, 0, 0, 0)
    if not (width > 0 and height > 0 and x + y < float("inf")):  # false for nan too
        raise ValueError(f"bbox is {bbox[:9]}, expected four numbers x, y, width, height, the last two above 0")
    return x, y, x + width, y + height


def _image(number: int, picture: writing.Picture, folder: Path) -> dict:
    width, height = picture.size_wh
    return {"id": number, "file_name": relative_path(picture.path, folder), "width": width, "height": height}


def _annotations(pictures: list[writing.Picture], category_ids: dict[str, int]) -> list[dict]:
    """All boxes with ids counted through from 1."""
    records: list[dict] = []
    for image_id, picture in enumerate(pictures, 1):
        areas = boxes.areas(picture.boxes_xyxy).tolist()
        for box, area, name in zip(picture.boxes_xyxy.tolist(), areas, picture.class_names, strict=True):
            x1, y1, x2, y2 = box
            place = {"id": len(records) + 1, "image_id": image_id, "category_id": category_ids[name]}
            shape = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "segmentation": [], "iscrowd": 0}
            records.append(place | shape)
    return records
