"""CVAT for images 1.1: one XML with many images and their boxes in pixels.

Above `voc_xml`. Format: https://docs.cvat.ai/docs/other/xml_format, "Annotation", as written by CVAT's
cvat/apps/dataset_manager/formats/cvat.py.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.handler import ContentHandler

from retinamask.dataset.annotations import number
from retinamask.dataset.formats.entries import NO_BOX, Asked, Entry, FoundObject, Problem
from retinamask.dataset.formats.voc_xml import parse_with

MAX_BYTES = 256 * 1024 * 1024  # a million boxes have about 150 MB
VIDEO = "CVAT's XML for videos; export the task as 'CVAT for images 1.1'"


class _Element(NamedTuple):
    """An element of the XML: an image, or what is drawn on one."""

    line: int
    tag: str  # with what it lies in, from the image on: "box", or "group/box"
    attributes: dict[str, str]


def looks_like(head: str) -> bool:
    """Tell whether the beginning of an XML is CVAT's, for images or for videos."""
    return re.search(r"<annotations[\s>]", head) is not None


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Give one entry an image, sorted by name; an image without a name is a problem.

    Raises:
        ValueError: with path and line: too large, not XML, cut short, with entities, or not CVAT's XML for images.
    """
    found = []
    for image, shapes in parse_with(_Handler(), path, MAX_BYTES):
        where = f"{path} line {image.line}"
        name = image.attributes.get("name", "").strip()
        if not name:
            yield Problem("skipped file", where, "found an <image> without a name, expected name=...")
            continue
        # a tag says something of the whole image: only an image that has nothing else is left out for it
        drawn = [shape for shape in shapes if shape.tag != "tag"] or shapes
        objects = [_object(f"{path} line {shape.line} image {name!r}", shape) for shape in drawn]
        sides = [number(image.attributes.get(side, "")) for side in ("width", "height")]
        size_wh = tuple(map(int, sides)) if all(side >= 1 for side in sides) else None  # nan compares false
        label = "width and height of <image>"
        found.append(Entry(path, f"{where} image {name!r}", objects, name, size_wh=size_wh, size_label=label))
    yield from sorted(found, key=lambda entry: entry.written_name)


def _object(where: str, shape: _Element) -> FoundObject:
    texts = {edge: shape.attributes.get(edge, "") for edge in ("xtl", "ytl", "xbr", "ybr")}
    box_xyxy = tuple(map(number, texts.values()))
    rotation = shape.attributes.get("rotation", "0")
    wrong = None
    if shape.tag != "box":
        wrong = f"found <{shape.tag}>, expected <box>; only upright boxes are read"
    elif number(rotation) != 0:  # true for nan too
        wrong = f"the box is rotated by {rotation} degrees; only upright boxes are read"
    elif not all(map(math.isfinite, box_xyxy)):
        wrong = f"found {', '.join(f'{edge} {text!r}' for edge, text in texts.items())}; expected four numbers"
    return FoundObject(where, shape.attributes.get("label", "").strip(), NO_BOX if wrong else box_xyxy, wrong)


class _Handler(ContentHandler):
    """Gathers images and their shapes; what stands where it should not is a shape of an unknown tag, or an error."""

    def __init__(self):
        super().__init__()
        self._images: list[tuple[_Element, list[_Element]]] = []
        self._tags: list[str] = []

    def startElement(self, name, attrs):
        line, depth = self._locator.getLineNumber(), len(self._tags)
        if depth == 0 and name != "annotations":
            raise ValueError(f"line {line}: found <{name}>, expected CVAT's <annotations>")
        if depth == 1 and name == "image":
            self._images.append((_Element(line, name, dict(attrs.items())), []))
        elif depth == 1 and name not in ("version", "meta"):
            hint = f"; this is {VIDEO}" if name == "track" else ""
            raise ValueError(f"line {line}: found <{name}>, expected <image>{hint}")
        elif depth >= 2 and self._tags[1] == "image" and name != "attribute" and "skeleton" not in self._tags:
            self._images[-1][1].append(_Element(line, "/".join([*self._tags[2:], name]), dict(attrs.items())))
        self._tags.append(name)

    def endElement(self, name):
        self._tags.pop()

    def result(self) -> list[tuple[_Element, list[_Element]]]:
        """Each image with what is drawn on it."""
        return self._images
