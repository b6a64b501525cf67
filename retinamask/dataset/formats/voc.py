"""Pascal VOC XML as labelImg writes it, to the table and back.

labelImg's numbers are taken as 0-based half-open edges, without a shift. Every file is read, what
is wrong with one is a `Problem` that names file and line, and the rest goes on. Format:
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf, as written by labelImg 1.8.6.
"""

import math
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import boxes, images
from retinamask.dataset.annotations import AnnotationError, make_table, relative_path
from retinamask.dataset.formats.image_files import ImageIndex, is_hidden
from retinamask.dataset.formats.voc_xml import VocFile, VocObject, parse

CLIP_LIMIT = 5  # pixels that a box may reach past the image and still be clipped, not dropped

_NO_OBJECT = (None,) * 5
_TURNED = "the image is turned by EXIF; keras-retinanet's own reader does not turn it"


class Problem(NamedTuple):
    """Something wrong in one annotation file, and what was done about it."""

    action: str  # "skipped file", "dropped box", "clipped box" or "note"
    where: str  # file, and line where there is one
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} ({self.action})"


@dataclass
class _Reading:
    """What has been gathered so far."""

    rows: list[tuple] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    taken: dict[Path, Path] = field(default_factory=dict)  # image: its annotation file
    doubtful: set[Path] = field(default_factory=set)  # images whose annotation file could not be used


class _Pair(NamedTuple):
    """An annotation file and its image, both sound."""

    voc: VocFile
    image_path: Path
    size_wh: tuple[int, int]
    turned: bool


class _Unusable(NamedTuple):
    """Why an annotation file cannot be used, and which images it may belong to."""

    error: ValueError
    image_paths: list[Path]


def read_voc(
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read folder trees of labelImg XML, or single XML files, into the table.

    Args:
        sources: folders (searched with all below them) or XML files.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: where the images are; without it, below the sources.
        classes: if given, boxes of other classes are dropped and reported.
        with_unannotated: take images that have no XML as images without objects; not those whose XML is bad.

    Returns:
        The table, sorted by XML path, and the problems. Boxes that reach at most `CLIP_LIMIT` pixels past
        the image are clipped; others that make no sense are dropped.

    Raises:
        AnnotationError: no XML file at all, or none that could be used.
    """
    sources = [Path(source) for source in sources]
    xml_paths = _xml_paths(sources)
    if image_folder and not Path(image_folder).is_dir():
        raise AnnotationError(f"{image_folder} is not a folder; expected the folder of the images")
    index = ImageIndex([Path(image_folder)] if image_folder else _folders(sources))
    reading = _Reading()
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        for xml_path, outcome in zip(xml_paths, pool.map(lambda path: _load(path, index), xml_paths), strict=True):
            _take(xml_path, outcome, Path(csv_folder), classes, reading)
        _take_unannotated(index, Path(csv_folder), with_unannotated, pool, reading)
    if not reading.taken:
        listed = "\n".join(map(str, reading.problems[:20]))
        raise AnnotationError(f"none of the {len(xml_paths)} XML file(s) could be used:\n{listed}")
    return make_table(reading.rows), reading.problems


def class_ids(table: pd.DataFrame) -> dict[str, int]:
    """Number the classes in the order of their first appearance in the table."""
    names = dict.fromkeys(table.loc[table["class_name"].notna(), "class_name"])
    return {name: number for number, name in enumerate(names)}


def summary(problems: list[Problem]) -> str:
    """One line: how many of each kind, such as ``2 skipped file, 10 clipped box``."""
    counts = Counter(problem.action for problem in problems)
    return ", ".join(f"{count} {action}" for action, count in counts.items()) or "no problems"


def _xml_paths(sources: list[Path]) -> list[Path]:
    """All XML files of the sources, each once, sorted; no hidden ones, such as macOS puts into archives."""
    found: set[Path] = set()
    for source in sources:
        if not source.exists():
            raise AnnotationError(f"{source} does not exist; expected a folder of labelImg XML files")
        found.update(filter(_is_xml, source.rglob("*")) if source.is_dir() else [source])
    if not found:
        raise AnnotationError(
            f"no XML file below {', '.join(map(str, sources))}; expected Pascal VOC files as labelImg saves them"
        )
    return sorted(found)


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and not is_hidden(path) and path.is_file()


def _folders(sources: list[Path]) -> list[Path]:
    return list(dict.fromkeys(source if source.is_dir() else source.parent for source in sources))


def _load(xml_path: Path, index: ImageIndex) -> _Pair | _Unusable:
    """Parse one XML and check its image; the error is returned, so that the others go on."""
    voc = None
    try:
        voc = parse(xml_path)
        image_path = index.find(xml_path, voc.filename)
        return _Pair(voc, image_path, *images.check_image(image_path))
    except ValueError as error:
        return _Unusable(error, index.candidates(xml_path, voc.filename if voc else ""))


def _take(
    xml_path: Path, outcome: _Pair | _Unusable, csv_folder: Path, classes: dict[str, int] | None, reading: _Reading
) -> None:
    """Add one file's rows, or the reason why there are none."""
    if isinstance(outcome, _Unusable):
        message = str(outcome.error).removeprefix(f"{xml_path}: ")
        reading.problems.append(Problem("skipped file", str(xml_path), message))
        reading.doubtful.update(outcome.image_paths)
        return
    voc, image_path, size_wh, turned = outcome
    if image_path in reading.taken:
        message = f"{image_path} is already annotated by {reading.taken[image_path]}; keep one XML for an image"
        reading.problems.append(Problem("skipped file", str(xml_path), message))
        return
    reading.taken[image_path] = xml_path
    reading.problems += _notes(xml_path, voc, size_wh, turned)
    relative = relative_path(image_path, csv_folder)
    kept = _kept(xml_path, voc.objects, size_wh, classes, reading)
    if voc.objects and not kept:  # it shows something: it must not be learnt as an image without objects
        reading.problems.append(Problem("skipped file", str(xml_path), "no box is left; the image is left out"))
        return
    reading.rows += [(relative, *box) for box in kept] or [(relative, *_NO_OBJECT)]


def _notes(xml_path: Path, voc: VocFile, size_wh: tuple[int, int], turned: bool) -> list[Problem]:
    """What a person should know about a file that is used all the same."""
    notes = []
    if voc.size_wh is None:
        notes.append(f"no <size>; the image's own {size_wh[0]} x {size_wh[1]} is used")
    elif voc.size_wh != size_wh:
        notes.append(
            f"<size> says {voc.size_wh[0]} x {voc.size_wh[1]}, the upright image has {size_wh[0]} x {size_wh[1]}; "
            "look at its boxes"
        )
    if turned:
        notes.append(_TURNED)
    return [Problem("note", str(xml_path), note) for note in notes]


def _kept(
    xml_path: Path,
    objects: list[VocObject],
    size_wh: tuple[int, int],
    classes: dict[str, int] | None,
    reading: _Reading,
) -> list[tuple]:
    """``(x1, y1, x2, y2, class_name)`` of each object that can be used, clipped if need be."""
    boxes_xyxy = np.array([item.box_xyxy for item in objects]).reshape(-1, 4)
    clipped, reaches = boxes.clip(boxes_xyxy, size_wh), boxes.reach_outside(boxes_xyxy, size_wh).tolist()
    areas, whole = boxes.areas(clipped).tolist(), boxes.areas(boxes.whole_pixels(clipped)).tolist()
    image = f"the image of {size_wh[0]} x {size_wh[1]} pixels"
    kept = []
    for item, box, area, whole_area, reach in zip(objects, clipped.tolist(), areas, whole, reaches, strict=True):
        where = f"{xml_path} line {item.line}"
        wrong = _what_is_wrong(item, classes)
        if not wrong and (not area or reach > CLIP_LIMIT):
            wrong = f"box {_shown(item.box_xyxy)} lies outside {image}"
        if not wrong and not whole_area:
            wrong = f"box {_shown(item.box_xyxy)} is under one pixel"
        if wrong:
            reading.problems.append(Problem("dropped box", where, wrong))
            continue
        if reach:
            message = f"box {_shown(item.box_xyxy)} reaches {reach:g} px past {image}"
            reading.problems.append(Problem("clipped box", where, message))
        kept.append((*box, item.name))
    return kept


def _what_is_wrong(item: VocObject, classes: dict[str, int] | None) -> str | None:
    """Why an object cannot be used on any image, or ``None``."""
    if not item.name:
        return "object without a <name>"
    if classes is not None and item.name not in classes:
        return f"class {item.name!r} is not among the classes ({', '.join(classes)}); add it or fix the label"
    if not all(map(math.isfinite, item.box_xyxy)):
        return f"box of {item.name!r} is {_shown(item.box_xyxy)}, expected four numbers xmin, ymin, xmax, ymax"
    x1, y1, x2, y2 = item.box_xyxy
    if x1 >= x2 or y1 >= y2:
        return f"box {_shown(item.box_xyxy)} is empty or inverted; expected xmin < xmax and ymin < ymax"
    return None


def _shown(box_xyxy: tuple) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in box_xyxy) + ")"


def _take_unannotated(
    index: ImageIndex, csv_folder: Path, wanted: bool, pool: ThreadPoolExecutor, reading: _Reading
) -> None:
    """Images without XML: rows without objects if wanted, and a note with their number either way."""
    known = reading.taken.keys() | reading.doubtful
    lonely = [path for path in index.all() if path not in known and not path.with_suffix(".xml").is_file()]
    if not lonely:
        return
    done = "taken as images without objects" if wanted else "left out"
    where = ", ".join(map(str, index.folders))
    reading.problems.append(Problem("note", where, f"{len(lonely)} image(s) without XML {done}, such as {lonely[0]}"))
    if wanted:
        for path, outcome in zip(lonely, pool.map(_check_image, lonely), strict=True):
            _take_lonely(path, outcome, csv_folder, reading)


def _check_image(path: Path) -> bool | ValueError:
    """Whether EXIF turns the image, or why it cannot be used."""
    try:
        return images.check_image(path)[1]
    except ValueError as error:
        return error


def _take_lonely(path: Path, outcome: bool | ValueError, csv_folder: Path, reading: _Reading) -> None:
    """Add the row of one image without XML."""
    if isinstance(outcome, ValueError):
        reading.problems.append(Problem("skipped file", str(path), str(outcome).removeprefix(f"{path}: ")))
        return
    if outcome:
        reading.problems.append(Problem("note", str(path), _TURNED))
    reading.rows.append((relative_path(path, csv_folder), *_NO_OBJECT))
