"""VoTT 2: its JSON export, the JSON of one asset that it keeps in the project's folder, and its CSV export.

Above `json_files` and `open_images`. Format: https://github.com/microsoft/VoTT, src/providers/export/vottJson.ts and
csv.ts, types in src/models/applicationState.ts. Boxes are in pixels. An asset that nobody has opened (``state`` 0) is
not annotated; one that was opened and has no region is an image without objects.
"""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from retinamask.dataset.annotations import number
from retinamask.dataset.formats import json_files
from retinamask.dataset.formats.entries import NO_BOX, Asked, Entry, FoundObject, Problem
from retinamask.dataset.formats.open_images import csv_rows

COLUMNS = ["image", "xmin", "ymin", "xmax", "ymax", "label"]

_FRAMES = (2, 3)  # types of assets: a video, and a frame of one


def looks_like(head: str) -> bool:
    """Tell whether the beginning of a JSON or CSV is VoTT's."""
    header = head.partition("\n")[0].replace('"', "").strip()
    return header == ",".join(COLUMNS) or re.search(r'"assets?"\s*:\s*\{', head) is not None


def entries(path: Path, asked: Asked) -> Iterable[Entry | Problem]:
    """Give one entry an image, sorted by name; an asset that is none is a problem.

    Raises:
        ValueError: not JSON or CSV, or not VoTT's.
    """
    return _of_csv(path) if path.suffix.lower() == ".csv" else _of_json(path)


def _of_json(path: Path) -> Iterator[Entry | Problem]:
    document = json_files.load_json(path, dict)
    one = "asset" in document
    found, unopened = [], 0
    for key, record in ({"": document} if one else json_files.member(document, "assets", dict)).items():
        where = str(path) if one else f"{path} asset {key!r}"
        try:
            asset, regions = json_files.member(record, "asset", dict), json_files.member(record, "regions", list)
            name = json_files.text(asset, "name")
            json_files.refuse_other_lists(record, ("regions",))
            if asset.get("type") in _FRAMES:
                raise ValueError(f"{name!r} is a video or a frame of one; save the frame as an image")
        except ValueError as error:
            yield Problem("skipped file", where, str(error))
            continue
        if asset.get("state") == 0 and not regions:
            unopened += 1
            continue
        objects = [_object(f"{where} regions[{number}]", region) for number, region in enumerate(regions)]
        size_wh = json_files.size_wh(asset["size"]) if isinstance(asset.get("size"), dict) else None
        label = "size" if size_wh else ""
        found.append(Entry(path, where, objects, _decoded(path, name), size_wh=size_wh, size_label=label))
    if unopened:
        message = f"{unopened} asset(s) that nobody opened in VoTT count as images without annotation"
        yield Problem("note", str(path), message)
    yield from sorted(found, key=lambda entry: entry.written_name)


def _decoded(path: Path, name: str) -> str:
    """The image's name; VoTT takes it from a URL, so it may say ``a%20b.jpg``, which its exports copy it to."""
    return name if "%" not in name or os.path.exists(path.parent / name) else unquote(name)


def _object(where: str, region) -> FoundObject:
    try:
        kind, tags = json_files.text(region, "type"), json_files.member(region, "tags", list)
        if kind not in ("RECTANGLE", "SQUARE"):
            raise ValueError(f"the region is a {kind}, expected a RECTANGLE; only boxes are read")
        if len(tags) != 1:
            raise ValueError(f"found {len(tags)} tags ({', '.join(map(str, tags))}), expected one class")
        name = json_files.text({"tag": tags[0]}, "tag")
        box_xyxy = json_files.box_of_sides(
            json_files.member(region, "boundingBox", dict), ("left", "top", "width", "height")
        )
        if region.get("points"):
            _check_points(json_files.member(region, "points", list), box_xyxy)
    except ValueError as error:
        return FoundObject(where, "", NO_BOX, str(error))
    return FoundObject(where, name, box_xyxy)


def _check_points(points: list, box_xyxy: tuple[float, ...]) -> None:
    """The corners say the box again; two that differ by more than a pixel are two boxes."""
    for axis, first, last in (("x", box_xyxy[0], box_xyxy[2]), ("y", box_xyxy[1], box_xyxy[3])):
        places = [json_files.number(point.get(axis) if isinstance(point, dict) else None) for point in points]
        near = all(min(abs(place - first), abs(place - last)) <= 1 for place in places)  # false for nan
        if not near or max(places) - min(places) < last - first - 2:
            raise ValueError(
                f"'points' have {axis} {places[:4]}, 'boundingBox' {first:g} to {last:g}; draw the box anew"
            )


def _of_csv(path: Path) -> Iterator[Entry]:
    """One entry an image; VoTT writes a row for each tag of a region."""
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    if header != COLUMNS:
        raise ValueError(f"line 1: found {','.join(header)[:200]!r}, expected {','.join(COLUMNS)}")
    images: dict[str, list[tuple[int, list[str]]]] = defaultdict(list)
    labels: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for line, row in rows:
        if len(row) != len(COLUMNS) or not row[0]:
            raise ValueError(f"line {line}: found {','.join(row)[:200]!r}, expected {','.join(COLUMNS)}")
        images[row[0]].append((line, row))
        labels[tuple(row[:5])].add(row[5])
    for name, found in sorted(images.items()):
        objects = [_row(f"{path} line {line}", row, labels[tuple(row[:5])]) for line, row in found]
        yield Entry(path, f"{path} image {name!r}", objects, _decoded(path, name))


def _row(where: str, row: list[str], tags: set[str]) -> FoundObject:
    box_xyxy, wrong = tuple(map(number, row[1:5])), None
    if len(tags) > 1:
        wrong = f"found {len(tags)} tags ({', '.join(sorted(tags))}) on one box, expected one class"
    elif not all(map(math.isfinite, box_xyxy)):
        wrong = f"found {','.join(row[1:5])[:200]!r}, expected four numbers xmin,ymin,xmax,ymax"
    return FoundObject(where, row[5], NO_BOX if wrong else box_xyxy, wrong)
