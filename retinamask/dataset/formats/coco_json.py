"""COCO JSON (``images``, ``annotations``, ``categories``; ``bbox`` is x, y, width, height) to entries and back."""

from collections.abc import Iterator
from pathlib import Path

from retinamask.dataset import boxes, files
from retinamask.dataset.annotations import relative_path
from retinamask.dataset.formats import parsing
from retinamask.dataset.formats.entries import Asked, Entry, FoundObject, Problem, found_object
from retinamask.dataset.formats.writing import Picture

FILE_NAME = "annotations.json"


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Read one file: one entry an image, sorted by image name; what is wrong with single records is reported.

    Images without annotations are images without objects. Crowd annotations are dropped and reported. Category ids
    may have gaps and start anywhere. A file of captions holds no boxes and does not annotate its images.
    Format: https://cocodataset.org/#format-data, section 1, object detection.
    """
    document = parsing.load_json(path, dict)
    annotations = parsing.member(document, "annotations", list)
    if annotations and all(isinstance(record, dict) and "caption" in record for record in annotations):
        yield Problem("note", str(path), "captions, no boxes; nothing is read from it")
        return
    categories, roots = _categories(document), _roots(document)
    asked.class_list.update(dict.fromkeys(name for name in categories.values() if name not in roots))
    for name in roots:
        yield Problem("note", str(path), f"category {name!r} is only the supercategory of others; it is no class")
    images: dict[int | str, tuple] = {}
    records = parsing.member(document, "images", list)
    listed = {repr(record.get("id")) for record in records if isinstance(record, dict)}
    yield from _read_images(path, records, images)
    found: dict[int | str, list[FoundObject]] = {image_id: [] for image_id in images}
    seen: dict[int | str, dict] = {}
    strays = 0
    for number, annotation in enumerate(annotations):
        where, image_id = f"{path} annotations[{number}]", None
        try:
            image_id = _id(annotation, "image_id")
            if image_id not in found:
                raise ValueError(f"image id {image_id!r} is not among the images")
            own_id = annotation.get("id")
            if isinstance(own_id, (int, str)):
                where += f" (id {own_id!r})" if len(str(own_id)[:50]) < 50 else ""
                before = seen.setdefault(own_id, annotation)
                if before is not annotation:
                    if all(before.get(key) == annotation.get(key) for key in ("image_id", "category_id", "bbox")):
                        raise ValueError("the same annotation stands here twice; the first counts")
                    yield Problem("note", where, "another annotation has this id too; both are used")
            found[image_id].append(found_object(where, _object, annotation, categories))
        except ValueError as error:
            yield Problem("dropped box", where, str(error))
            strays += image_id is None or repr(image_id) not in listed
    if strays and not all(found.values()):  # they may belong to images that otherwise seem to show nothing
        images = {image_id: image for image_id, image in images.items() if found[image_id]}
        left_out = f"{len(found) - len(images)} image(s) without any are left out"
        yield Problem("note", str(path), f"{strays} annotation(s) of no known image; {left_out}")
    for image_id, (name, size, _) in sorted(images.items(), key=lambda item: item[1][0]):
        where = f"{path} image {name!r}"
        yield Entry(path, where, found[image_id], name, size_wh=size, size_label="width and height")


def write_coco(new: Path, pictures: list[Picture], classes: dict[str, int], folder: Path) -> None:
    """Write ``annotations.json``; ``file_name`` is the image's path relative to it, all ids are 1, 2, 3, ..."""
    ordered = sorted(classes, key=classes.get)
    images, annotations = [], []
    for image_id, picture in enumerate(pictures, 1):
        width, height = picture.size_wh
        file_name = relative_path(picture.path, folder)
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        areas = boxes.areas(picture.boxes_xyxy).tolist()
        for (x1, y1, x2, y2), area, name in zip(picture.boxes_xyxy.tolist(), areas, picture.class_names, strict=True):
            place = {"id": len(annotations) + 1, "image_id": image_id, "category_id": ordered.index(name) + 1}
            shape = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "segmentation": [], "iscrowd": 0}
            annotations.append(place | shape)
    record = {
        "info": {"description": "written by retinamask"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(ordered, 1)],
    }
    files.write_json(new / FILE_NAME, record)


def _categories(document: dict) -> dict[int | str, str]:
    """Category id to name, in the order of the ids."""
    names: dict[int | str, str] = {}
    for number, record in enumerate(parsing.member(document, "categories", list)):
        try:
            category_id, name = _id(record, "id"), parsing.text(record, "name")
            if names.setdefault(category_id, name) != name:
                raise ValueError(f"id {category_id!r} stands for {names[category_id]!r} and for {name!r}; keep one")
        except ValueError as error:
            raise ValueError(f"categories[{number}]: {error}") from None
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _roots(document: dict) -> list[str]:
    """Categories that no annotation has and that are only the supercategory of others, as Roboflow's first is."""
    plain = [record for record in document["annotations"] if isinstance(record, dict)]
    used = {id_ for record in plain if isinstance(id_ := record.get("category_id"), (int, float, str))}
    records = document["categories"]
    above = {str(record.get("supercategory")) for record in records if record.get("supercategory") != record["name"]}
    return [record["name"] for record in records if record["name"] in above and record["id"] not in used]


def _read_images(path: Path, records: list, images: dict[int | str, tuple]) -> Iterator[Problem]:
    """Fill in image id to file name, size and number; ids that stand for two images are left out."""
    ambiguous = set()
    for number, record in enumerate(records):
        where = f"{path} images[{number}]"
        try:
            image_id, name = _id(record, "id"), parsing.text(record, "file_name")
            parsing.refuse_other_lists(record, ())
            size_wh = parsing.size_wh(record.get("width"), record.get("height"))
            image = images.setdefault(image_id, (name, size_wh, number))
            if image[0] != name:
                ambiguous.add(image_id)
                raise ValueError(f"id {image_id!r} stands for {image[0]!r} and for {name!r}; neither is used")
            if image[2] != number:
                yield Problem("note", where, f"image id {image_id!r} stands here twice; the first counts")
        except ValueError as error:
            yield Problem("skipped file", where, str(error))
    for image_id in ambiguous:
        del images[image_id]


def _object(annotation: dict, categories: dict) -> tuple[str, tuple[float, ...]]:
    category = _id(annotation, "category_id")
    if category not in categories:
        known = ", ".join(map(repr, categories))
        raise ValueError(f"category id {category!r} is not among the categories ({known})")
    bbox = parsing.member(annotation, "bbox", list)
    x, y, width, height = map(parsing.number, bbox) if len(bbox) == 4 else (0, 0, 0, 0)
    if not (width > 0 and height > 0 and x + y < float("inf")):  # false for nan too
        raise ValueError(f"bbox is {bbox[:9]}, expected four numbers x, y, width, height, the last two above 0")
    if annotation.get("iscrowd"):
        raise ValueError("a crowd (iscrowd), not one object")
    return categories[category], (x, y, x + width, y + height)


def _id(record: dict, key: str) -> int | str:
    """An id: a whole number, or a text as some programs write."""
    value = record.get(key) if isinstance(record, dict) else None
    if isinstance(value, float) and value.is_integer():  # as pandas writes a column with gaps
        return int(value)
    return parsing.member(record, key, str if isinstance(value, str) else int)
