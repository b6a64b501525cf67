"""One Pascal VOC XML: parsed safely, with line numbers for messages, or written as labelImg does.

Below `voc`, which makes sense of what is parsed here. defusedxml refuses entity bombs and external
entities; a SAX handler is used because it knows the line of every element.
"""

import math
from pathlib import Path
from typing import NamedTuple
from xml.sax import SAXParseException
from xml.sax.handler import ContentHandler
from xml.sax.saxutils import escape

import defusedxml
import defusedxml.sax
import numpy as np

from retinamask.dataset import files

MAX_BYTES = 16 * 1024 * 1024  # a labelImg file with 10,000 boxes has 4 MB


class VocObject(NamedTuple):
    """One ``<object>``: ``box_xyxy`` holds ``nan`` where a number is missing or is none."""

    line: int
    name: str
    box_xyxy: tuple[float, float, float, float]


class VocFile(NamedTuple):
    """What a VOC file says; ``size_wh`` is ``None`` if it has no usable ``<size>``."""

    filename: str
    size_wh: tuple[int, int] | None
    objects: list[VocObject]


def parse(path: Path) -> VocFile:
    """Read one XML file.

    Raises:
        ValueError: with path and line: too large, not XML, cut short, with entities, or not Pascal VOC.
    """
    handler = _Handler()
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, expected an annotation of at most {MAX_BYTES:,}")
        defusedxml.sax.parseString(path.read_bytes(), handler)
    except SAXParseException as error:
        raise ValueError(f"{path}: line {error.getLineNumber()}: not well-formed XML ({error.getMessage()})") from None
    except defusedxml.DefusedXmlException as error:
        raise ValueError(f"{path}: XML entities and outside files are refused ({type(error).__name__})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (LookupError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return handler.result()


class _Handler(ContentHandler):
    """Gathers the texts of ``/annotation/...`` by their path of tags."""

    def __init__(self):
        super().__init__()
        self._tags: list[str] = []
        self._text: list[str] = []
        self._head: dict[str, str] = {}
        self._objects: list[tuple[int, dict[str, str]]] = []

    def startElement(self, name, attrs):
        if not self._tags and name != "annotation":
            raise ValueError(
                f"line {self._locator.getLineNumber()}: found <{name}>, expected Pascal VOC's <annotation>"
            )
        self._tags.append(name)
        self._text = []
        if self._tags == ["annotation", "object"]:
            self._objects.append((self._locator.getLineNumber(), {}))

    def characters(self, content):
        self._text.append(content)

    def endElement(self, name):
        text = "".join(self._text).strip()
        if text and len(self._tags) <= _DEPTH:
            in_object = self._tags[1:2] == ["object"]
            place, start = (self._objects[-1][1], 2) if in_object else (self._head, 1)
            place.setdefault("/".join(self._tags[start:]), text)
        self._tags.pop()
        self._text = []

    def result(self) -> VocFile:
        width, height = (_number(self._head.get(f"size/{side}")) for side in ("width", "height"))
        size_wh = (int(width), int(height)) if width >= 1 and height >= 1 else None  # nan compares false
        objects = [
            VocObject(line, texts.get("name", ""), tuple(_number(texts.get(f"bndbox/{edge}")) for edge in _EDGES))
            for line, texts in self._objects
        ]
        return VocFile(self._head.get("filename", ""), size_wh, objects)


_DEPTH = 4  # annotation/object/bndbox/xmin; what lies deeper (labels of body parts) is not ours
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def _number(text: str | None) -> float:
    """The text as a finite number, else ``nan``."""
    try:
        number = float(text or "nan")
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


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
