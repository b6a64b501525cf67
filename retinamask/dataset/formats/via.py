"""VGG Image Annotator (VIA) 1 and 2 JSON: a project, or exported annotations; rectangles in pixels.

Above `json_files`. Format: https://www.robots.ox.ac.uk/~vgg/software/via/ (via.js: ``_via_img_metadata``, regions
with ``shape_attributes`` and ``region_attributes``). A region has attributes of any name; with exactly one name in a
file, that is the class.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from retinamask.dataset.formats import json_files
from retinamask.dataset.formats.entries import NO_BOX, Asked, Entry, FoundObject, Problem


def looks_like(head: str) -> bool:
    """Tell whether the beginning of a JSON is VIA's."""
    return re.search(r'"(_via_\w+|region_attributes|file_attributes)"\s*:', head) is not None


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Give one entry an image, sorted by name; a record that is none is a problem.

    Raises:
        ValueError: not JSON, not VIA's, or several attributes of which any may be the class.
    """
    document = json_files.load_json(path, dict)
    project = "_via_img_metadata" in document
    images = []
    for key, record in (json_files.member(document, "_via_img_metadata", dict) if project else document).items():
        where = f"{path} {key!r}"
        try:
            images.append((where, json_files.text(record, "filename"), _regions(record)))
        except ValueError as error:
            yield Problem("skipped file", where, str(error))
    attribute = _class_attribute([region for _, _, regions in images for region in regions])
    for where, name, regions in sorted(images, key=lambda image: image[1]):
        objects = [_object(f"{where} regions[{number}]", region, attribute) for number, region in enumerate(regions)]
        yield Entry(path, where, objects, name)


def _regions(record: dict) -> list:
    """The regions, which VIA 1 numbers in an object and VIA 2 lists."""
    json_files.refuse_other_lists(record, ("regions",))
    regions = record.get("regions")
    return list(regions.values()) if isinstance(regions, dict) else json_files.member(record, "regions", list)


def _class_attribute(regions: list) -> str:
    """The one attribute that says something in the regions; empty if none does."""
    said: dict[str, dict[str, None]] = defaultdict(dict)
    for region in regions:
        attributes = region.get("region_attributes") if isinstance(region, dict) else None
        for name, value in attributes.items() if isinstance(attributes, dict) else ():
            for text in _texts(value):
                said[name][text] = None
    if len(said) > 1:
        listed = "; ".join(f"{name!r} ({', '.join(list(texts)[:5])})" for name, texts in said.items())
        raise ValueError(
            f"regions have {len(said)} attributes, and nothing says which is the class: {listed}; "
            "keep that one alone in a copy of the file"
        )
    return next(iter(said), "")


def _texts(value) -> list[str]:
    """What an attribute says: a text, or the boxes that are ticked."""
    if isinstance(value, dict):
        return [name.strip() for name, ticked in value.items() if ticked is True]
    text = value.strip() if isinstance(value, str) else json_files.called(value)
    return [text] if text else []


def _object(where: str, region, attribute: str) -> FoundObject:
    try:
        shape = json_files.member(region, "shape_attributes", dict)
        kind = json_files.text(shape, "name")
        if kind != "rect":
            raise ValueError(f"the region is a {kind}, expected a rect; only boxes are read")
        box_xyxy = json_files.box_of_sides(shape, ("x", "y", "width", "height"))
        value = json_files.member(region, "region_attributes", dict).get(attribute, "")
        names = _texts(value)
        if len(names) != 1 or not isinstance(value, (str, dict)):
            shown = f"{attribute!r} {', '.join(names)}" if names else "none"
            raise ValueError(f"found {shown} in 'region_attributes', expected one class as text")
    except ValueError as error:
        return FoundObject(where, "", NO_BOX, str(error))
    return FoundObject(where, names[0], box_xyxy)
