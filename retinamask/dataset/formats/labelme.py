"""LabelMe JSON: one file an image, its rectangles by two opposite corners in pixels.

Above `json_files`. Format: https://github.com/wkentaro/labelme, labelme/label_file.py. The image that a file may
carry in ``imageData`` is not used: it must lie where ``imagePath`` says.
"""

import math
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from retinamask.dataset.formats import json_files
from retinamask.dataset.formats.entries import NO_BOX, Asked, Entry, FoundObject


def looks_like(head: str) -> bool:
    """Tell whether the beginning of a JSON is LabelMe's."""
    return re.search(r'"shapes"\s*:\s*\[|"image(Path|Data)"\s*:', head) is not None


def entries(path: Path, asked: Asked) -> Iterator[Entry]:
    """Give the one entry of a file.

    Raises:
        ValueError: not JSON, or without ``imagePath`` or ``shapes``.
    """
    document = json_files.load_json(path, dict)
    name = json_files.text(document, "imagePath")
    shapes = json_files.member(document, "shapes", list)
    json_files.refuse_other_lists(document, ("shapes",))
    objects = [_object(f"{path} shapes[{number}]", shape) for number, shape in enumerate(shapes)]
    size_wh = json_files.size_wh({"width": document.get("imageWidth"), "height": document.get("imageHeight")})
    label = "imageWidth, imageHeight" if size_wh else ""  # older files have none
    yield Entry(path, str(path), objects, name, size_wh=size_wh, size_label=label)


def _object(where: str, shape) -> FoundObject:
    try:
        name = json_files.text(shape, "label")
        kind = shape.get("shape_type", "polygon")  # LabelMe's own default, of files before 3.5
        if kind != "rectangle":
            raise ValueError(f"'shape_type' is {json_files.called(kind)}, expected \"rectangle\"; only boxes are read")
        return FoundObject(where, name, _box_xyxy(json_files.member(shape, "points", list)))
    except ValueError as error:
        return FoundObject(where, "", NO_BOX, str(error))


def _box_xyxy(points: list) -> tuple[float, float, float, float]:
    """The box of two opposite corners in any order, or of all four, as X-AnyLabeling writes them."""
    corners = [tuple(map(json_files.number, point)) if isinstance(point, list) else () for point in points]
    sound = all(len(corner) == 2 and all(map(math.isfinite, corner)) for corner in corners)
    if sound and len(corners) in (2, 4):
        xs, ys = ({corner[axis] for corner in corners} for axis in (0, 1))
        if len(corners) == 2 or set(corners) == set(product(xs, ys)):
            return min(xs), min(ys), max(xs), max(ys)
    shown = ", ".join(map(str, corners[:4]))
    raise ValueError(
        f"found {len(points)} point(s) {shown}; expected two opposite corners, or the four of an upright box"
    )
