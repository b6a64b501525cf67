"""One Pascal VOC XML: parsed safely, with line numbers for messages, or written as labelImg does.

Below `voc` and `cvat`, which make sense of what is parsed here. defusedxml refuses entity bombs and external
entities; a SAX handler is used because it knows the line of every element.
"""

import math
import re
from pathlib import Path
from typing import NamedTuple
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler
from xml.sax.saxutils import escape

import defusedxml
import defusedxml.sax
import numpy as np

from retinamask.dataset import files
from retinamask.dataset.annotations import number

MAX_BYTES = 16 * 1024 * 1024  # a labelImg file with 10,000 boxes has 4 MB


class VocObject(NamedTuple):
    """One ``<object>``: ``box_xyxy`` holds ``nan`` where a number is missing or is none."""

    line: int
    name: str
    box_xyxy: tuple[float, float, float, float]
    wrong: str | None = None  # why it cannot be used, whatever its numbers are


class VocFile(NamedTuple):
    """What a VOC file says; ``size_wh`` is ``None`` if it has no usable ``<size>``."""

    filename: str
    folder: str
    size_wh: tuple[int, int] | None
    objects: list[VocObject]


def parse(path: Path) -> VocFile:
    """Read one XML file.

    Raises:
        ValueError: with path and line: too large, not XML, cut short, with entities, or not Pascal VOC.
    """
    return parse_with(_Handler(), path, MAX_BYTES)


def parse_with(handler: ContentHandler, path: Path, max_bytes: int):
    """Read one XML file by a handler whose errors are `ValueError`; what its ``result`` gives.

    Raises:
        ValueError: with path, and line where there is one.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ValueError(f"{size:,} bytes, expected an annotation of at most {max_bytes:,}")
        defusedxml.sax.parseString(path.read_bytes(), handler)
        return handler.result()
    except SAXParseException as error:
        raise ValueError(f"{path}: line {error.getLineNumber()}: not well-formed XML ({error.getMessage()})") from None
    except defusedxml.DefusedXmlException as error:
        raise ValueError(f"{path}: XML entities and outside files are refused ({type(error).__name__})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (LookupError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


class _Handler(ContentHandler):
    """Gathers the texts of ``/annotation/...`` by their path of tags; refuses what may hold boxes elsewhere."""

    def __init__(self):
        super().__init__()
        self._paths: list[str] = []  # of the open elements, below <annotation>
        self._text: list[str] = []
        self._head: dict[str, str] = {}
        self._objects: list[tuple[int, dict[str, str], list[str]]] = []  # line, texts, what stands there twice

    def startElement(self, name, attrs):
        depth = len(self._paths)
        path = f"{self._paths[-1]}/{name}" if depth > 1 else name * depth
        top = path.partition("/")[0]
        if not depth and name != "annotation":
            self._refuse(f"found <{name}>, expected Pascal VOC's <annotation>")
        if depth == 1 and name == "object":
            self._objects.append((self._locator.getLineNumber(), {}, []))
        elif depth == 1 and name not in _HEAD and (attrs or name in _TELLING):
            self._refuse(f"<{name}> in <annotation>, which may be a box; expected <object>")
        elif depth > 1 and top == "object":
            if path in _ONCE:
                _, texts, twice = self._objects[-1]
                if path in texts:
                    twice.append(name)
                texts.setdefault(path, "")
            elif name in _TELLING and path not in _IN_OBJECT:
                self._refuse(f"<{name}> in <{self._paths[-1]}>, where no box is expected; mend the file")
        elif depth > 1 and (top not in _HEAD or name in ("object", "bndbox")):
            self._refuse(f"<{name}> in <{self._paths[-1]}>, which may be a box; expected it in <annotation/object>")
        self._paths.append(path)
        self._text = []

    def characters(self, content):
        self._text.append(content)

    def endElement(self, name):
        path, text = self._paths.pop(), "".join(self._text).strip()
        self._text = []
        if text:
            if path.startswith("object/"):
                texts = self._objects[-1][1]
                texts[path] = texts.get(path) or text
            elif path not in _HEAD and _FOUR_NUMBERS.search(text):
                self._refuse(f"{text[:80]!r} in <{path or name}> may be a box; expected <object>")
            elif self._head.setdefault(path, text) != text and name == "filename":
                self._refuse(f"a second <filename>, {text!r}; keep one")

    def result(self) -> VocFile:
        if not self._head and not self._objects:
            raise ValueError("<annotation> has nothing in it; expected at least <filename> or <size>")
        width, height = (_number(self._head.get(f"size/{side}")) for side in ("width", "height"))
        size_wh = (int(width), int(height)) if width >= 1 and height >= 1 else None  # nan compares false
        objects = [
            VocObject(
                line,
                texts.get("object/name", ""),
                tuple(_number(texts.get(f"object/bndbox/{edge}")) for edge in _EDGES),
                _wrong(texts, twice),
            )
            for line, texts, twice in self._objects
        ]
        return VocFile(self._head.get("filename", ""), self._head.get("folder", ""), size_wh, objects)

    def _refuse(self, message: str) -> None:
        raise ValueError(f"line {self._locator.getLineNumber()}: {message}")


_EDGES = ("xmin", "ymin", "xmax", "ymax")
# what VOC, VOC 2007 and their tools have beside objects; other elements may hold text, but no elements
_HEAD = ("folder", "filename", "path", "source", "owner", "size", "segmented")
_FOUR_NUMBERS = re.compile(r"(?<![\d.:-])\d+(\.\d+)?([\s,;]+\d+(\.\d+)?){3}")
_TELLING = ("object", "bndbox", "name", *_EDGES)
_ONCE = {f"object/{path}" for path in ("name", "bndbox", *(f"bndbox/{edge}" for edge in _EDGES))}
# labels of body parts (VOC) and attributes (CVAT) are not those of the object
_IN_OBJECT = {"object/attributes/attribute/name", *(path.replace("object", "object/part") for path in _ONCE)}


def _wrong(texts: dict[str, str], twice: list[str]) -> str | None:
    if twice:
        return f"<{twice[0]}> stands twice in one object; expected one name and one box, draw each face by itself"
    return None if texts.get("object/name") else "object without a <name>"


def _number(text: str | None) -> float:
    return number(text) if text else math.nan


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
    lines = [
        "<annotation>",
        f"\t{_leaf('folder', image_path.parent.name)}",
        f"\t{_leaf('filename', image_path.name)}",
        f"\t{_leaf('path', image_path.name)}",
        "\t<source>\n\t\t<database>Unknown</database>\n\t</source>",
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>",
        "\t<segmented>0</segmented>",
    ]
    for box, name in zip(np.asarray(boxes_xyxy).reshape(-1, 4).tolist(), class_names, strict=True):
        lines += _object_lines([int(edge) for edge in box], name, size_wh)
    files.write_text(xml_path, "\n".join([*lines, "</annotation>", ""]))


def _object_lines(box: list[int], name: str, size_wh: tuple[int, int]) -> list[str]:
    x1, y1, x2, y2 = box
    truncated = int(x1 == 1 or y1 == 1 or x2 == size_wh[0] or y2 == size_wh[1])  # labelImg's own rule
    return [
        "\t<object>",
        f"\t\t{_leaf('name', name)}",
        "\t\t<pose>Unspecified</pose>",
        f"\t\t<truncated>{truncated}</truncated>",
        "\t\t<difficult>0</difficult>",
        f"\t\t<bndbox>\n\t\t\t<xmin>{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>",
        f"\t\t\t<xmax>{x2}</xmax>\n\t\t\t<ymax>{y2}</ymax>\n\t\t</bndbox>",
        "\t</object>",
    ]


def _leaf(tag: str, text: str) -> str:
    return f"<{tag}>{escape(text)}</{tag}>" if text else f"<{tag}/>"
