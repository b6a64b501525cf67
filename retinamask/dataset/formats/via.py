"""VGG Image Annotator (VIA) 1 and 2 JSON: a project, or exported annotations; rectangles in pixels.

Format: https://www.robots.ox.ac.uk/~vgg/software/via/ (via.js: ``_via_img_metadata``, regions with
``shape_attributes`` and ``region_attributes``). A region has attributes of any name; with exactly one name in a file,
that is the class.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from retinamask.dataset.formats import parsing
from retinamask.dataset.formats.entries import Asked, Entry, Problem, entry_each, found_object


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Give one entry an image, sorted by name; a record that is none is a problem.

    Raises:
        ValueError: not JSON, not VIA's, or several attributes of which any may be the class.
    """
    document = parsing.load_json(path, dict)
    project = "_via_img_metadata" in document
    records = parsing.member(document, "_via_img_metadata", dict) if project else document
    values: dict[str, dict[str, None]] = defaultdict(dict)  # attribute: what it says
    for record in records.values():
        regions = record.get("regions") if isinstance(record, dict) else None
        for region in regions.values() if isinstance(regions, dict) else regions if isinstance(regions, list) else ():
            attributes = region.get("region_attributes") if isinstance(region, dict) else None
            for name, value in attributes.items() if isinstance(attributes, dict) else ():
                values |= {name: values[name] | dict.fromkeys(_texts(value))} if _texts(value) else {}
    if len(values) > 1:
        listed = "; ".join(f"{name!r} ({', '.join(list(texts)[:5])})" for name, texts in values.items())
        raise ValueError(
            f"regions have {len(values)} attributes, and nothing says which is the class: {listed}; "
            "keep that one alone in a copy of the file"
        )
    attribute = next(iter(values), "")

    def entry(where: str, record) -> Entry:
        name = parsing.text(record, "filename")
        parsing.refuse_other_lists(record, ("regions",))
        regions = record.get("regions")  # numbered in an object by VIA 1, listed by VIA 2
        regions = list(regions.values()) if isinstance(regions, dict) else parsing.member(record, "regions", list)
        objects = [
            found_object(f"{where} regions[{n}]", _object, region, attribute) for n, region in enumerate(regions)
        ]
        return Entry(path, where, objects, name)

    return entry_each(((f"{path} {key!r}", record) for key, record in records.items()), entry, "VIA")


def _texts(value) -> list[str]:
    """Return the value of an attribute: a text, or the boxes that are ticked."""
    if isinstance(value, dict):
        return [name.strip() for name, ticked in value.items() if ticked is True]
    text = value.strip() if isinstance(value, str) else parsing.called(value)
    return [text] if text else []


def _object(region, attribute: str) -> tuple[str, tuple[float, ...]]:
    shape = parsing.member(region, "shape_attributes", dict)
    kind = parsing.text(shape, "name")
    if kind != "rect":
        raise ValueError(f"the region is a {kind}, expected a rect; only boxes are read")
    x, y, width, height = parsing.sized_box(shape, ("x", "y", "width", "height"))
    value = parsing.member(region, "region_attributes", dict).get(attribute, "")
    names = _texts(value)
    if len(names) != 1 or not isinstance(value, (str, dict)):
        shown = f"{attribute!r} {', '.join(names)}" if names else "none"
        raise ValueError(f"found {shown} in 'region_attributes', expected one class as text")
    return names[0], (x, y, x + width, y + height)
