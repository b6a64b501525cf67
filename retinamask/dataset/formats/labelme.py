"""LabelMe JSON: one file an image, its rectangles by two opposite corners in pixels.

Format: https://github.com/wkentaro/labelme, labelme/label_file.py. The image that a file may carry in ``imageData``
is not used: it must lie where ``imagePath`` says.
"""

import math
from itertools import product
from pathlib import Path

from retinamask.dataset.formats import parsing
from retinamask.dataset.formats.entries import Asked, Entry, found_object


def entries(path: Path, asked: Asked) -> list[Entry]:
    """Give the one entry of a file; `ValueError` if it is not JSON, or without ``imagePath`` or ``shapes``."""
    document = parsing.load_json(path, dict)
    name, shapes = parsing.text(document, "imagePath"), parsing.member(document, "shapes", list)
    parsing.refuse_other_lists(document, ("shapes",))
    objects = [found_object(f"{path} shapes[{number}]", _object, shape) for number, shape in enumerate(shapes)]
    size_wh = parsing.size_wh(document.get("imageWidth"), document.get("imageHeight"))
    label = "imageWidth, imageHeight" if size_wh else ""  # older files have none
    return [Entry(path, str(path), objects, name, size_wh=size_wh, size_label=label)]


def _object(shape) -> tuple[str, tuple[float, ...]]:
    name = parsing.text(shape, "label")
    kind = shape.get("shape_type", "polygon")  # LabelMe's own default, of files before 3.5
    if kind != "rectangle":
        raise ValueError(f"'shape_type' is {parsing.called(kind)}, expected \"rectangle\"; only boxes are read")
    points = parsing.member(shape, "points", list)
    corners = [tuple(map(parsing.number, point)) if isinstance(point, list) else () for point in points]
    sound = all(len(corner) == 2 and all(map(math.isfinite, corner)) for corner in corners)
    if sound and len(corners) in (2, 4):  # opposite corners in any order, or all four, as X-AnyLabeling writes them
        xs, ys = ({corner[axis] for corner in corners} for axis in (0, 1))
        if len(corners) == 2 or set(corners) == set(product(xs, ys)):
            return name, (min(xs), min(ys), max(xs), max(ys))
    shown = ", ".join(map(str, corners[:4]))
    raise ValueError(
        f"found {len(points)} point(s) {shown}; expected two opposite corners, or the four of an upright box"
    )
