"""COCO JSON (``images``, ``annotations``, ``categories``; ``bbox`` is x, y, width, height) to entries and back.

Above `json_files`.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from retinamask.dataset import boxes, files
from retinamask.dataset.annotations import relative_path
from retinamask.dataset.formats import json_files, writing
from retinamask.dataset.formats.entries import NO_BOX, Asked, Entry, FoundObject, Problem
from retinamask.dataset.image_files import walk

FILE_NAME = "annotations.json"


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Read one file: one entry an image, sorted by image name; what is wrong with single records is reported.

    Images without annotations are images without objects. Crowd annotations are dropped and reported. Category ids
    may have gaps and start anywhere. A file of captions holds no boxes and says nothing about its images.
    Format: https://cocodataset.org/#format-data, section 1, object detection.
    """
    document = json_files.load_json(path, dict)
    annotations = json_files.member(document, "annotations", list)
    if annotations and all(isinstance(record, dict) and "caption" in record for record in annotations):
        yield Problem("note", str(path), "captions, no boxes; nothing is read from it")
        return
    categories = _categories(document)
    used = {record.get("category_id") for record in annotations if _has_plain_id(record)}
    for name in _roots(document, used):
        yield Problem("note", str(path), f"category {name!r} is only the supercategory of others; it is no class")
    records: dict[int | str, tuple] = {}
    images = json_files.member(document, "images", list)
    listed = {repr(record.get("id")) for record in images if isinstance(record, dict)}
    for item in _images(path, images):
        if isinstance(item, Problem):
            yield item
        else:
            records = item
    found: dict[int | str, list[FoundObject]] = {image_id: [] for image_id in records}
    seen: dict[int | str, dict] = {}
    strays = 0
    for number, annotation in enumerate(annotations):
        where, image_id = f"{path} annotations[{number}]", None
        try:
            image_id = _id(annotation, "image_id")
            if image_id not in found:
                raise ValueError(f"image id {image_id!r} is not among the images")
            item, again = _object(where, annotation, categories, seen)
            found[image_id].append(item)
            if again:
                yield Problem("note", item.where, "another annotation has this id too; both are used")
        except ValueError as error:
            yield Problem("dropped box", where, str(error))
            strays += image_id is None or repr(image_id) not in listed
    if strays and not all(found.values()):  # they may belong to images that otherwise seem to show nothing
        records = {image_id: image for image_id, image in records.items() if found[image_id]}
        left_out = f"{len(found) - len(records)} image(s) without any are left out"
        yield Problem("note", str(path), f"{strays} annotation(s) of no known image; {left_out}")
    for image_id, (name, size) in sorted(records.items(), key=lambda item: item[1][0]):
        where = f"{path} image {name!r}"
        yield Entry(path, where, found[image_id], name, size_wh=size, size_label="width and height")


def classes(sources: list[Path]) -> list[str]:
    """Names of the categories in the order of their ids; files after the first only add what is new."""
    names: dict[str, None] = {}
    for source in sources:
        for path in sorted(json_files.select(walk(source).files)) if source.is_dir() else [source]:
            try:
                document = json_files.load_json(path, dict)
                used = {
                    record.get("category_id") for record in document.get("annotations", []) if _has_plain_id(record)
                }
                roots = _roots(document, used)
                names |= dict.fromkeys(name for name in _categories(document).values() if name not in roots)
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


def _roots(document: dict, used: set) -> list[str]:
    """Categories that no annotation has and that are only the supercategory of others, as Roboflow's first is."""
    records = [record for record in document.get("categories", []) if isinstance(record, dict)]
    above = {
        str(record.get("supercategory")) for record in records if record.get("supercategory") != record.get("name")
    }
    return [record["name"] for record in records if record.get("name") in above and record.get("id") not in used]


def _has_plain_id(record) -> bool:
    return isinstance(record, dict) and isinstance(record.get("category_id"), (int, float, str))


def _images(path: Path, records: list) -> Iterator[Problem | dict[int | str, tuple]]:
    """Problems, then image id to file name and size; ids that stand for two images are left out."""
    images: dict[int | str, tuple] = {}
    ambiguous = set()
    for number, record in enumerate(records):
        where = f"{path} images[{number}]"
        try:
            image_id, name = _id(record, "id"), json_files.text(record, "file_name")
            json_files.refuse_other_lists(record, ())
        except ValueError as error:
            yield Problem("skipped file", where, str(error))
            continue
        if image_id not in images:
            images[image_id] = (name, json_files.size_wh(record))
        elif images[image_id][0] == name:
            yield Problem("note", where, f"image id {image_id!r} stands here twice; the first counts")
        else:
            message = f"id {image_id!r} stands for {images[image_id][0]!r} and for {name!r}; neither is used"
            yield Problem("skipped file", where, message)
            ambiguous.add(image_id)
    yield {image_id: image for image_id, image in images.items() if image_id not in ambiguous}


def _object(where: str, annotation: dict, categories: dict, seen: dict) -> tuple[FoundObject, bool]:
    """One annotation, and whether another before it (``seen``, by id) has its id."""
    own_id, again = annotation.get("id"), False
    if isinstance(own_id, (int, str)):
        where += f" (id {own_id!r})" if len(str(own_id)[:50]) < 50 else ""
        if again := own_id in seen:
            same = all(seen[own_id].get(key) == annotation.get(key) for key in ("image_id", "category_id", "bbox"))
            if same:
                message = "the same annotation stands here twice; the first counts"
                return FoundObject(where, "", NO_BOX, message), False
        seen[own_id] = annotation
    try:
        category = _id(annotation, "category_id")
        if category not in categories:
            known = ", ".join(map(repr, categories))
            raise ValueError(f"category id {category!r} is not among the categories ({known})")
        box_xyxy = _box_xyxy(json_files.member(annotation, "bbox", list))
    except ValueError as error:
        return FoundObject(where, "", NO_BOX, str(error)), again
    crowd = "a crowd (iscrowd), not one object" if annotation.get("iscrowd") else None
    return FoundObject(where, categories[category], box_xyxy, crowd), again


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
