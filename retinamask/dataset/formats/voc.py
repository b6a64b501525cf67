"""Pascal VOC XML as labelImg writes it, to entries and back.

labelImg's numbers are taken as 0-based half-open edges, without a shift.
"""

import math
import re
from pathlib import Path
from xml.sax.handler import ContentHandler
from xml.sax.saxutils import escape

import numpy as np

from retinamask.dataset import boxes, files
from retinamask.dataset.annotations import AnnotationError, number, write_classes
from retinamask.dataset.formats.entries import Asked, Entry, FoundObject
from retinamask.dataset.formats.parsing import parse_xml
from retinamask.dataset.formats.writing import Picture, stems

MAX_BYTES = 16 * 1024 * 1024  # a labelImg file with 10,000 boxes has 4 MB

_EDGES = ("xmin", "ymin", "xmax", "ymax")
# what VOC, VOC 2007 and their tools have beside objects; other elements may hold text, but no elements
_HEAD = ("folder", "filename", "path", "source", "owner", "size", "segmented")
_FOUR_NUMBERS = re.compile(r"(?<![\d.:-])\d+(\.\d+)?([\s,;]+\d+(\.\d+)?){3}")
_TELLING = ("object", "bndbox", "name", *_EDGES)
_ONCE = {f"object/{path}" for path in ("name", "bndbox", *(f"bndbox/{edge}" for edge in _EDGES))}
# labels of body parts (VOC) and attributes (CVAT) are not those of the object
_IN_OBJECT = {"object/attributes/attribute/name", *(path.replace("object", "object/part") for path in _ONCE)}


def entries(path: Path, asked: Asked) -> list[Entry]:
    """Give the one entry of a file; see `parse`."""
    return [parse(path)]


def parse(path: Path) -> Entry:
    """Read one XML; a box has ``nan`` where a number is missing or is none.

    Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf, as written by labelImg 1.8.6.

    Raises:
        ValueError: with path and line: too large, not XML, cut short, with entities, or not Pascal VOC.
    """
    handler = _Handler()
    parse_xml(path, handler, MAX_BYTES)
    head, objects = handler.head, []
    if not head and not handler.objects:
        raise ValueError(f"{path}: <annotation> has nothing in it; expected at least <filename> or <size>")
    for line, texts, twice in handler.objects:
        name, wrong = texts.get("object/name", ""), None
        if twice:
            wrong = f"<{twice[0]}> stands twice in one object; expected one name and one box, draw each face by itself"
        elif not name:
            wrong = "object without a <name>"
        box_xyxy = tuple(_number(texts.get(f"object/bndbox/{edge}")) for edge in _EDGES)
        objects.append(FoundObject(f"{path} line {line}", name, box_xyxy, wrong))
    width, height = (_number(head.get(f"size/{side}")) for side in ("width", "height"))
    size = {"size_wh": (int(width), int(height)) if width >= 1 and height >= 1 else None, "size_label": "<size>"}
    return Entry(path, str(path), objects, head.get("filename", ""), None, head.get("folder", ""), True, **size)


class _Handler(ContentHandler):
    """Gathers the texts of ``/annotation/...`` by their path of tags; refuses what may hold boxes elsewhere."""

    def __init__(self):
        super().__init__()
        self.head: dict[str, str] = {}
        self.objects: list[tuple[int, dict[str, str], list[str]]] = []  # line, texts, what stands there twice
        self._paths: list[str] = []  # of the open elements, below <annotation>
        self._text: list[str] = []
        self.characters = self._text.append  # expat calls it most of all, here without Python between

    def startElement(self, name, attrs):
        depth = len(self._paths)
        path = f"{self._paths[-1]}/{name}" if depth > 1 else name * depth
        if path.startswith("object/"):
            if path in _ONCE:
                _, texts, twice = self.objects[-1]
                if path in texts:
                    twice.append(name)
                texts.setdefault(path, "")
            elif name in _TELLING and path not in _IN_OBJECT:
                self._refuse(f"<{name}> in <{self._paths[-1]}>, where no box is expected; mend the file")
        elif depth > 1:
            if name in ("object", "bndbox") or path.partition("/")[0] not in _HEAD:
                self._refuse(f"<{name}> in <{self._paths[-1]}>, which may be a box; expected it in <annotation/object>")
        elif not depth and name != "annotation":
            self._refuse(f"found <{name}>, expected Pascal VOC's <annotation>")
        elif path == "object":
            self.objects.append((self._locator.getLineNumber(), {}, []))
        elif depth and name not in _HEAD and (attrs or name in _TELLING):
            self._refuse(f"<{name}> in <annotation>, which may be a box; expected <object>")
        self._paths.append(path)
        self._text.clear()

    def endElement(self, name):
        path, text = self._paths.pop(), "".join(self._text).strip()
        self._text.clear()
        if not text:
            return
        if path.startswith("object/"):
            texts = self.objects[-1][1]
            texts[path] = texts.get(path) or text
        elif path not in _HEAD and _FOUR_NUMBERS.search(text):
            self._refuse(f"{text[:80]!r} in <{path or name}> may be a box; expected <object>")
        elif self.head.setdefault(path, text) != text and name == "filename":
            self._refuse(f"a second <filename>, {text!r}; keep one")

    def _refuse(self, message: str) -> None:
        raise ValueError(f"line {self._locator.getLineNumber()}: {message}")


def _number(text: str | None) -> float:
    return number(text) if text else math.nan


def write_voc_folder(new: Path, pictures: list[Picture], classes: dict[str, int], folder: Path) -> None:
    """Write one XML an image as labelImg would, and ``classes.csv``, which keeps the order of the classes.

    Whole pixels, halves up. Images stay where they are; as in labelImg's files only their names are recorded, so
    that reading back takes the folder of the images. What images in several folders have in common is left out of
    the XML files' paths, the rest are folders here.
    """
    stem_of = stems([picture.path for picture in pictures])
    for picture in pictures:
        whole = boxes.whole_pixels(picture.boxes_xyxy)
        if not boxes.areas(whole).all():
            raise AnnotationError(f"{picture.path}: a box vanishes when rounded to whole pixels; remove it")
        xml_path = new / f"{stem_of[picture.path]}.xml"
        write_voc(xml_path, picture.path, picture.size_wh, whole, picture.class_names)
    write_classes(classes, new / "classes.csv")


def write_voc(
    xml_path: str | Path,
    image_path: str | Path,
    size_wh: tuple[int, int],
    boxes_xyxy: np.ndarray,
    class_names: list[str],
) -> None:
    """Write one image's boxes as labelImg 1.8.6 would, except that ``path`` holds the file name only.

    (labelImg writes the absolute path, which is wrong on every other computer and tells the user's name.)

    Args:
        xml_path: where to write, atomically.
        image_path: the image; its name and its folder's name are recorded.
        size_wh: width and height of the upright image in pixels.
        boxes_xyxy: shape ``(N, 4)``, pixels; cut to whole numbers as labelImg does.
        class_names: ``N`` names.
    """
    image_path, (width, height) = Path(image_path), size_wh

    def leaf(tag: str, text: str) -> str:
        return f"<{tag}>{escape(text)}</{tag}>" if text else f"<{tag}/>"

    lines = [
        "<annotation>",
        f"\t{leaf('folder', image_path.parent.name)}",
        f"\t{leaf('filename', image_path.name)}",
        f"\t{leaf('path', image_path.name)}",
        "\t<source>\n\t\t<database>Unknown</database>\n\t</source>",
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for (x1, y1, x2, y2), name in zip(np.asarray(boxes_xyxy).reshape(-1, 4).astype(int), class_names, strict=True):
        truncated = int(x1 == 1 or y1 == 1 or x2 == width or y2 == height)  # labelImg's own rule
        lines += [
            "\t<object>",
            f"\t\t{leaf('name', name)}",
            "\t\t<pose>Unspecified</pose>",
            f"\t\t<truncated>{truncated}</truncated>",
            "\t\t<difficult>0</difficult>",
            f"\t\t<bndbox>\n\t\t\t<xmin>{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>",
            f"\t\t\t<xmax>{x2}</xmax>\n\t\t\t<ymax>{y2}</ymax>\n\t\t</bndbox>",
            "\t</object>",
        ]
    files.write_text(xml_path, "\n".join([*lines, "</annotation>", ""]))
