"""CVAT for images 1.1: one XML with many images and their boxes in pixels.

Format: https://docs.cvat.ai/docs/other/xml_format, "Annotation", as written by CVAT's
cvat/apps/dataset_manager/formats/cvat.py.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.handler import ContentHandler

from retinamask.dataset.annotations import number
from retinamask.dataset.formats.entries import Asked, Entry, Problem, entry_each, found_object
from retinamask.dataset.formats.parsing import parse_xml

MAX_BYTES = 256 * 1024 * 1024  # a million boxes have about 150 MB
VIDEO = "CVAT's XML for videos; export the task as 'CVAT for images 1.1'"


class _Element(NamedTuple):
    """An element of the XML: an image, or what is drawn on one."""

    line: int
    tag: str  # with what it lies in, from the image on: "box", or "group/box"
    attributes: dict[str, str]


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Give one entry an image, sorted by name; an image without a name is a problem.

    Raises:
        ValueError: with path and line: too large, not XML, cut short, with entities, or not CVAT's XML for images.
    """
    handler = _Handler()
    parse_xml(path, handler, MAX_BYTES)

    def entry(where: str, record: tuple[_Element, list[_Element]]) -> Entry:
        image, shapes = record
        name = image.attributes.get("name", "").strip()
        if not name:
            raise ValueError("found an <image> without a name, expected name=...")
        # a tag says something of the whole image: only an image that has nothing else is left out for it
        drawn = [shape for shape in shapes if shape.tag != "tag"] or shapes
        objects = [found_object(f"{path} line {shape.line} image {name!r}", _object, shape) for shape in drawn]
        sides = [number(image.attributes.get(side, "")) for side in ("width", "height")]
        size_wh = tuple(map(int, sides)) if all(side >= 1 for side in sides) else None  # nan compares false
        label = "width and height of <image>"
        return Entry(path, f"{where} image {name!r}", objects, name, size_wh=size_wh, size_label=label)

    images = ((f"{path} line {image.line}", (image, shapes)) for image, shapes in handler.images)
    return entry_each(images, entry, "CVAT")


def _object(shape: _Element) -> tuple[str, tuple[float, ...]]:
    if shape.tag != "box":
        raise ValueError(f"found <{shape.tag}>, expected <box>; only upright boxes are read")
    rotation = shape.attributes.get("rotation", "0")
    if number(rotation) != 0:  # true for nan too
        raise ValueError(f"the box is rotated by {rotation} degrees; only upright boxes are read")
    texts = {edge: shape.attributes.get(edge, "") for edge in ("xtl", "ytl", "xbr", "ybr")}
    box_xyxy = tuple(map(number, texts.values()))
    if not all(map(math.isfinite, box_xyxy)):
        raise ValueError(
            f"found {', '.join(f'{edge} {text!r}' for edge, text in texts.items())}; expected four numbers"
        )
    return shape.attributes.get("label", "").strip(), box_xyxy


class _Handler(ContentHandler):
    """Gathers images and their shapes; what stands where it should not is a shape of an unknown tag, or an error."""

    def __init__(self):
        super().__init__()
        self.images: list[tuple[_Element, list[_Element]]] = []  # each with what is drawn on it
        self._tags: list[str] = []

    def startElement(self, name, attrs):
        line, depth = self._locator.getLineNumber(), len(self._tags)
        if depth == 0 and name != "annotations":
            raise ValueError(f"line {line}: found <{name}>, expected CVAT's <annotations>")
        if depth == 1 and name == "image":
            self.images.append((_Element(line, name, dict(attrs.items())), []))
        elif depth == 1 and name not in ("version", "meta"):
            hint = f"; this is {VIDEO}" if name == "track" else ""
            raise ValueError(f"line {line}: found <{name}>, expected <image>{hint}")
        elif depth >= 2 and self._tags[1] == "image" and name != "attribute" and "skeleton" not in self._tags:
            self.images[-1][1].append(_Element(line, "/".join([*self._tags[2:], name]), dict(attrs.items())))
        self._tags.append(name)

    def endElement(self, name):
        self._tags.pop()
