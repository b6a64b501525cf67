"""What all readers of this folder share: finding the image, checking it, clipping and dropping boxes.

Between `entries` and the readers. A reader turns its files into `Entry` tuples, one an image, and
`read_entries` makes the table of them. What is wrong with one is a `Problem`, and the rest goes on.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import boxes, images
from retinamask.dataset.annotations import AnnotationError, make_table, relative_path
from retinamask.dataset.formats.class_names import likely_slips, unwritable
from retinamask.dataset.formats.entries import Entry, FoundObject, Problem, Reading
from retinamask.dataset.formats.image_files import ImageIndex, is_hidden, nearness

CLIP_LIMIT = 5  # pixels that a box may reach past the image and still be clipped, not dropped
SHARE_DIGITS = 1e-6  # labelImg writes shares with six decimals, of a centre and of a size
ROUNDING = {True: 0.5, False: 1e-6}  # pixels past the image that are the rounding of shares, or of floats

__all__ = ["Entry", "FoundObject", "Problem", "Reading", "files_below", "image_index", "read_entries", "summary"]

_NO_OBJECT = (None,) * 5
_TURNED = "the image is turned by EXIF; keras-retinanet's own reader does not turn it"


class _Pair(NamedTuple):
    """An annotation and its image, both sound."""

    entry: Entry
    image_path: Path
    size_wh: tuple[int, int]
    turned: bool
    rival: Path | None  # another image that has the annotation file's own stem


class _Unusable(NamedTuple):
    """Why an annotation cannot be used, and which images it may belong to."""

    where: str
    error: ValueError
    image_paths: list[Path]


def summary(problems: list[Problem]) -> str:
    """One line: how many of each kind, such as ``2 skipped file, 10 clipped box``."""
    counts = Counter(problem.action for problem in problems)
    return ", ".join(f"{count} {action}" for action, count in counts.items()) or "no problems"


def files_below(sources: Iterable[Path], suffixes: Sequence[str], what: str) -> list[Path]:
    """All files with one of ``suffixes`` below the sources, and sources that are files; each once, sorted.

    Hidden ones are left out, such as macOS puts into archives.

    Raises:
        AnnotationError: a source does not exist, or there is no such file; the message says ``what`` is expected.
    """
    found: set[Path] = set()
    for source in sources:
        if not source.exists():
            raise AnnotationError(f"{source} does not exist; expected a folder of {what}")
        found.update(_with_suffix(source, suffixes) if source.is_dir() else [source])
    return sorted(found)


def image_index(sources: list[Path], image_folder: str | Path | None) -> ImageIndex:
    """The images in ``image_folder``, or else below the sources (for a file: in its folder)."""
    if image_folder and not Path(image_folder).is_dir():
        raise AnnotationError(f"{image_folder} is not a folder; expected the folder of the images")
    folders = dict.fromkeys(source if source.is_dir() else source.parent for source in sources)
    return ImageIndex([Path(image_folder)] if image_folder else list(folders))


def read_entries(
    keys: Sequence, load: Callable[..., Entry], index: ImageIndex, reading: Reading, with_unannotated: bool = False
) -> tuple[pd.DataFrame, list[Problem]]:
    """Load every key, check its image, and gather the rows.

    Args:
        keys: one an image, in the order of the table: files, or what ``load`` makes entries of.
        load: gives the `Entry` of a key; a `ValueError` of it is reported under the key's name.
        index: the images.
        reading: what is asked for; problems so far may stand in it.
        with_unannotated: take images without annotation as images without objects.

    Raises:
        AnnotationError: nothing could be used.
    """
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        outcomes = list(pool.map(lambda key: _checked(key, load, index), keys))
        homes = {outcome.entry.source.parent for outcome in outcomes if isinstance(outcome, _Pair)}
        for outcome in outcomes:
            _take(_at_home(outcome, homes), reading)
        _take_unannotated(index, with_unannotated, pool, reading)
    if not reading.taken:
        listed = "\n".join(map(str, reading.problems[:20]))
        raise AnnotationError(f"none of the {len(keys)} {reading.counted} could be used:\n{listed}")
    where = ", ".join(map(str, index.folders))
    reading.problems += [Problem("note", where, slip) for slip in likely_slips(reading.names, reading.classes)]
    return make_table(reading.rows), reading.problems


def read_documents(
    paths: Iterable[Path],
    entries_of: Callable[[Path, Reading], list[Entry]],
    index: ImageIndex,
    reading: Reading,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read files that are each about many images; one that cannot be used is reported, and the rest goes on.

    Args:
        paths: the files.
        entries_of: gives the entries of one; its `ValueError` is reported under the file's name.
        index, reading, with_unannotated: as in `read_entries`.

    Raises:
        AnnotationError: nothing could be used.
    """
    entries: list[Entry] = []
    for path in paths:
        try:
            entries += entries_of(path, reading)
        except ValueError as error:
            reading.skip_file(path, error)
    return read_entries(entries, lambda entry: entry, index, reading, with_unannotated)


def _with_suffix(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return [path for path in paths if not is_hidden(path) and path.is_file()]


def _checked(key, load: Callable[..., Entry], index: ImageIndex) -> _Pair | _Unusable:
    """Load one entry and check its image; the error is returned, so that the others go on."""
    entry = None
    try:
        entry = load(key)
        image_path = entry.image_path or index.find(entry.source, entry.written_name, entry.own_stem, entry.hint)
        looked_for = entry.own_stem and not entry.image_path
        rival = index.rival(entry.source, image_path) if looked_for else None
        return _Pair(entry, image_path, *images.check_image(image_path), rival)
    except ValueError as error:
        if entry is None:
            return _Unusable(str(key), error, index.candidates(Path(key), ""))
        known = [entry.image_path] if entry.image_path else None
        possible = known or index.candidates(entry.source, entry.written_name, entry.own_stem)
        return _Unusable(entry.where, error, possible)


def _at_home(outcome: _Pair | _Unusable, homes: set[Path]) -> _Pair | _Unusable:
    """The pair, or why not: its image lies with the annotations of another folder."""
    if isinstance(outcome, _Unusable) or outcome.entry.image_path:
        return outcome
    own, place = outcome.entry.source.parent, outcome.image_path.parent
    beside = [other for other in homes if other not in (own, *own.parents) and own not in other.parents]
    if not any(nearness(other, place) < nearness(own, place) for other in beside):
        return outcome
    error = ValueError(f"the only image of that name is {outcome.image_path}, with the annotations of another folder")
    return _Unusable(outcome.entry.where, error, [])


def _take(outcome: _Pair | _Unusable, reading: Reading) -> None:
    """Add one image's rows, or the reason why there are none."""
    if isinstance(outcome, _Unusable):
        message = str(outcome.error).removeprefix(f"{outcome.where}: ")
        reading.problems.append(Problem("skipped file", outcome.where, message))
        reading.doubtful.update(outcome.image_paths)
        return
    entry, image_path, size_wh, turned, rival = outcome
    if image_path in reading.taken:
        message = f"{image_path} is already annotated by {reading.taken[image_path]}; "
        message += f"keep one {reading.kind} for an image"
        reading.problems.append(Problem("skipped file", entry.where, message))
        return
    reading.taken[image_path] = entry.where
    reading.problems += _notes(entry, size_wh, turned)
    if rival:
        message = f"it names {image_path.name}, but labelImg shows it with {rival}; look whose boxes they are"
        reading.problems.append(Problem("note", entry.where, message))
    relative = relative_path(image_path, reading.csv_folder)
    kept = _kept(entry, size_wh, reading)
    if entry.objects and not kept:  # it shows something: it must not be learnt as an image without objects
        reading.problems.append(Problem("skipped file", entry.where, "no box is left; the image is left out"))
        return
    reading.rows += [(relative, *box) for box in kept] or [(relative, *_NO_OBJECT)]


def _notes(entry: Entry, size_wh: tuple[int, int], turned: bool) -> list[Problem]:
    """What a person should know about an annotation that is used all the same."""
    notes = []
    if entry.size_label and entry.size_wh is None:
        notes.append(f"no {entry.size_label}; the image's own {size_wh[0]} x {size_wh[1]} is used")
    elif entry.size_wh and entry.size_wh != size_wh:
        notes.append(
            f"{entry.size_label} says {entry.size_wh[0]} x {entry.size_wh[1]}, the upright image has "
            f"{size_wh[0]} x {size_wh[1]}; look at its boxes"
        )
    if turned:
        notes.append(_TURNED)
    return [Problem("note", entry.where, note) for note in notes]


def _kept(entry: Entry, size_wh: tuple[int, int], reading: Reading) -> list[tuple]:
    """``(x1, y1, x2, y2, class_name)`` of each object that can be used, clipped if need be."""
    boxes_xyxy = np.array([item.box_xyxy for item in entry.objects], dtype=float).reshape(-1, 4)
    if entry.relative:
        boxes_xyxy = _pixels(boxes_xyxy, size_wh)
    clipped, reaches = boxes.clip(boxes_xyxy, size_wh), boxes.reach_outside(boxes_xyxy, size_wh).tolist()
    areas, whole = boxes.areas(clipped).tolist(), boxes.areas(boxes.whole_pixels(clipped)).tolist()
    image = f"the image of {size_wh[0]} x {size_wh[1]} pixels"
    kept = []
    for number, item in enumerate(entry.objects):
        box, reach = boxes_xyxy[number].tolist(), reaches[number]
        wrong = item.wrong or _what_is_wrong(item.name, box, reading.classes)
        if not wrong and (not areas[number] or reach > CLIP_LIMIT):
            wrong = f"box {_shown(box)} lies outside {image}"
        if not wrong and not whole[number]:
            wrong = f"box {_shown(box)} is under one pixel"
        reading.names[item.name] += 1
        if wrong:
            reading.problems.append(Problem("dropped box", item.where, wrong))
            continue
        if reach > ROUNDING[entry.relative]:
            message = f"box {_shown(box)} reaches {reach:g} px past {image}"
            reading.problems.append(Problem("clipped box", item.where, message))
        kept.append((*clipped[number].tolist(), item.name))
    return kept


def _pixels(shares_xyxy: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Shares of the image as pixels; where six decimals cannot tell an edge from a whole pixel, that pixel."""
    sides = np.array([*size_wh, *size_wh])
    boxes_xyxy = shares_xyxy * sides
    whole = boxes.whole_pixels(boxes_xyxy)
    return np.where(np.abs(boxes_xyxy - whole) <= SHARE_DIGITS * sides, whole, boxes_xyxy)


def _what_is_wrong(name: str, box_xyxy: list[float], classes: dict[str, int] | None) -> str | None:
    """Why an object cannot be used on any image, or ``None``."""
    if not name:
        return "object without a class name"
    if unwritable(name):
        return f"class {name!r} has a line end or control character; rename it"
    if classes is not None and name not in classes:
        return f"class {name!r} is not among the classes ({', '.join(classes)}); add it or fix the label"
    if not all(map(math.isfinite, box_xyxy)):
        return f"box of {name!r} is {_shown(box_xyxy)}, expected four numbers xmin, ymin, xmax, ymax"
    x1, y1, x2, y2 = box_xyxy
    if x1 >= x2 or y1 >= y2:
        return f"box {_shown(box_xyxy)} is empty or inverted; expected xmin < xmax and ymin < ymax"
    return None


def _shown(box_xyxy: Sequence[float]) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in box_xyxy) + ")"


def _take_unannotated(index: ImageIndex, wanted: bool, pool: ThreadPoolExecutor, reading: Reading) -> None:
    """Images without annotation: rows without objects if wanted, and a note with their number either way."""
    known = reading.taken.keys() | reading.doubtful
    lonely = [path for path in index.all() if path not in known and not reading.annotated(path)]
    if not lonely:
        return
    done = "taken as images without objects" if wanted else "left out"
    if wanted and reading.list_lost:
        wanted, done = False, "left out, because they may stand in a file that could not be read"
    where = ", ".join(map(str, index.folders))
    message = f"{len(lonely)} image(s) without {reading.kind} {done}, such as {lonely[0]}"
    reading.problems.append(Problem("note", where, message))
    if wanted:
        for path, outcome in zip(lonely, pool.map(_check_image, lonely), strict=True):
            _take_lonely(path, outcome, reading)


def _check_image(path: Path) -> bool | ValueError:
    """Whether EXIF turns the image, or why it cannot be used."""
    try:
        return images.check_image(path)[1]
    except ValueError as error:
        return error


def _take_lonely(path: Path, outcome: bool | ValueError, reading: Reading) -> None:
    """Add the row of one image without annotation."""
    if isinstance(outcome, ValueError):
        reading.problems.append(Problem("skipped file", str(path), str(outcome).removeprefix(f"{path}: ")))
        return
    if outcome:
        reading.problems.append(Problem("note", str(path), _TURNED))
    reading.rows.append((relative_path(path, reading.csv_folder), *_NO_OBJECT))
