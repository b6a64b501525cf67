"""VoTT 2: its JSON export, the JSON of one asset that it keeps in the project's folder, and its CSV export.

Format: https://github.com/microsoft/VoTT, src/providers/export/vottJson.ts and csv.ts, types in
src/models/applicationState.ts. Boxes are in pixels. An asset that nobody has opened (``state`` 0) is not annotated;
one that was opened and has no region is an image without objects.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from retinamask.dataset.annotations import number
from retinamask.dataset.formats import parsing
from retinamask.dataset.formats.entries import Asked, Entry, Problem, entry_each, found_object

COLUMNS = ["image", "xmin", "ymin", "xmax", "ymax", "label"]

_FRAMES = (2, 3)  # types of assets: a video, and a frame of one


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Give one entry an image, sorted by name; an asset that is none is a problem.

    Raises:
        ValueError: not JSON or CSV, or not VoTT's.
    """
    if path.suffix.lower() == ".csv":
        yield from _of_csv(path)
        return
    document, unopened = parsing.load_json(path, dict), []

    def entry(where: str, record) -> Entry | None:
        asset, regions = parsing.member(record, "asset", dict), parsing.member(record, "regions", list)
        name = parsing.text(asset, "name")
        parsing.refuse_other_lists(record, ("regions",))
        if asset.get("type") in _FRAMES:
            raise ValueError(f"{name!r} is a video or a frame of one; save the frame as an image")
        if asset.get("state") == 0 and not regions:
            return unopened.append(name)
        objects = [found_object(f"{where} regions[{n}]", _object, region) for n, region in enumerate(regions)]
        size = asset.get("size")
        size_wh = parsing.size_wh(size.get("width"), size.get("height")) if isinstance(size, dict) else None
        return Entry(path, where, objects, _decoded(path, name), size_wh=size_wh, size_label="size" * bool(size_wh))

    if "asset" in document:
        yield from entry_each([(str(path), document)], entry)
    else:
        assets = parsing.member(document, "assets", dict).items()
        yield from entry_each(((f"{path} asset {key!r}", record) for key, record in assets), entry)
    if unopened:
        message = f"{len(unopened)} asset(s) that nobody opened in VoTT count as images without annotation"
        yield Problem("note", str(path), message)


def _decoded(path: Path, name: str) -> str:
    """The image's name; VoTT takes it from a URL, so it may say ``a%20b.jpg``, which its exports copy it to."""
    return name if "%" not in name or os.path.exists(path.parent / name) else unquote(name)


def _object(region) -> tuple[str, tuple[float, ...]]:
    kind, tags = parsing.text(region, "type"), parsing.member(region, "tags", list)
    if kind not in ("RECTANGLE", "SQUARE"):
        raise ValueError(f"the region is a {kind}, expected a RECTANGLE; only boxes are read")
    if len(tags) != 1:
        raise ValueError(f"found {len(tags)} tags ({', '.join(map(str, tags))}), expected one class")
    name = parsing.text({"tag": tags[0]}, "tag")
    left, top, width, height = parsing.sized_box(
        parsing.member(region, "boundingBox", dict), ("left", "top", "width", "height")
    )
    # the corners say the box again; two that differ by more than a pixel are two boxes
    points = parsing.member(region, "points", list) if region.get("points") else []
    for axis, first, last in (("x", left, left + width), ("y", top, top + height)) if points else ():
        places = [parsing.number(point.get(axis) if isinstance(point, dict) else None) for point in points]
        near = all(min(abs(place - first), abs(place - last)) <= 1 for place in places)  # false for nan
        if not near or max(places) - min(places) < last - first - 2:
            raise ValueError(
                f"'points' have {axis} {places[:4]}, 'boundingBox' {first:g} to {last:g}; draw the box anew"
            )
    return name, (left, top, left + width, top + height)


def _of_csv(path: Path) -> Iterator[Entry]:
    """One entry an image; VoTT writes a row for each tag of a region."""
    images: dict[str, list[tuple[int, list[str]]]] = defaultdict(list)
    tags: dict[tuple[str, ...], set[str]] = defaultdict(set)
    rows = parsing.csv_rows(path)
    _, header = next(rows, (1, []))
    if header != COLUMNS:
        raise ValueError(f"line 1: found {','.join(header)[:200]!r}, expected {','.join(COLUMNS)}")
    for line, row in rows:
        if len(row) != len(COLUMNS) or not row[0]:
            raise ValueError(f"line {line}: found {','.join(row)[:200]!r}, expected {','.join(COLUMNS)}")
        images[row[0]].append((line, row))
        tags[tuple(row[:5])].add(row[5])

    def read(row: list[str]) -> tuple[str, tuple[float, ...]]:
        box_xyxy, names = tuple(map(number, row[1:5])), tags[tuple(row[:5])]
        if len(names) > 1:
            raise ValueError(f"found {len(names)} tags ({', '.join(sorted(names))}) on one box, expected one class")
        if not all(map(math.isfinite, box_xyxy)):
            raise ValueError(f"found {','.join(row[1:5])[:200]!r}, expected four numbers xmin,ymin,xmax,ymax")
        return row[5], box_xyxy

    for name, found in sorted(images.items()):
        objects = [found_object(f"{path} line {line}", read, row) for line, row in found]
        yield Entry(path, f"{path} image {name!r}", objects, _decoded(path, name))
