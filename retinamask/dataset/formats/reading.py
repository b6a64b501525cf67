"""What all readers of this folder share: finding the image, checking it, clipping and dropping boxes.

Between `entries` and the readers: a `Format` gives `Entry` tuples, one an image, and `read_sources` makes the table of
them. What is wrong with one is a `Problem`, and the rest is read.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask import progress
from retinamask.dataset import boxes, images
from retinamask.dataset.annotations import AnnotationError, looks_like_shares, make_table, relative_path
from retinamask.dataset.formats.class_names import likely_slips, unwritable
from retinamask.dataset.formats.entries import Asked, Entry, Format, Problem
from retinamask.dataset.formats.places import Places, labels_of
from retinamask.dataset.image_files import is_utf8, shown, walk

CLIP_LIMIT = 5  # pixels that a box may reach past the image and still be clipped, not dropped
SHARE_DIGITS = 1e-6  # labelImg writes shares with six decimals, of a centre and of a size
ROUNDING = {True: 0.5, False: 1e-6}  # pixels past the image that are the rounding of shares, or of floats

_NO_OBJECT = (None,) * 5
_TURNED = "the image is turned by EXIF; keras-retinanet's own reader does not turn it"


@dataclass
class _Reading:
    """What is asked for, and what has been gathered so far."""

    form: Format
    csv_folder: Path
    classes: dict[str, int] | None
    places: Places
    rows: list[tuple] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    taken: dict[str, str] = field(default_factory=dict)  # an image's real place: its annotation
    shown: dict[str, str] = field(default_factory=dict)  # the same, of those with objects, before they are taken
    doubtful: set[str] = field(default_factory=set)  # stems of images whose annotation could not be used
    names: Counter = field(default_factory=Counter)  # classes, how many boxes are called so
    asked_for: int = 0  # how many of `Format.counted` there are
    memory: dict = field(default_factory=dict)  # what the format has looked up
    list_lost: bool = False  # a file about many images could not be read: nobody knows about which

    def skip(self, where: str, error: ValueError, image_path: str | None = None) -> None:
        """Report what cannot be used."""
        message = shown(str(error).removeprefix(f"{where}: "))
        self.problems.append(Problem("skipped file", shown(where), message, image_path))


def summary(problems: list[Problem]) -> str:
    """One line: how many of each kind, such as ``2 skipped file, 10 clipped box``."""
    counts = Counter(problem.action for problem in problems)
    return ", ".join(f"{count} {action}" for action, count in counts.items()) or "no problems"


def read_sources(
    form: Format,
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read files and folders of one format; see `retinamask.dataset.formats.read`."""
    sources = list(map(Path, sources))
    if image_folder and not Path(image_folder).is_dir():
        raise AnnotationError(f"{image_folder} is not a folder; expected the folder of the images")
    reading = _Reading(form, Path(csv_folder), classes, Places(Path(image_folder) if image_folder else None))
    walks = {folder: walk(folder) for folder in filter(Path.is_dir, sources)}
    paths = _annotation_files(form, sources, walks)
    entries, listed = [], []
    for path in sorted(paths):
        root = paths[path]
        for item in _items(path, root, reading):
            if isinstance(item, Entry):
                entries.append((item, root))
            elif isinstance(item, Path):
                listed.append(item)
            elif item not in reading.problems:
                reading.problems.append(item)
                reading.list_lost |= item.action == "skipped file" and not form.suffix
    if not entries and not reading.problems and not listed:
        what, expected = form.expected
        raise AnnotationError(f"no {what} below {', '.join(map(str, sources))}; expected {expected}")
    # where a file says itself where its images are, others are not its business
    looked_for = not entries or any(entry.image_path is None for entry, _ in entries)
    if image_folder:
        walks[Path(image_folder)] = walk(image_folder)
        folders = [Path(image_folder)]
    else:
        folders = [source if source.is_dir() else source.parent for source in sources] if looked_for else []
    for folder in folders:
        walks.setdefault(folder, None) or walks.update({folder: walk(folder)})
        listed += walks[folder].images()
    for folder, seen in walks.items():
        reading.problems += [Problem("note", shown(folder), note) for note in seen.notes()]
    reading.asked_for = len(paths) if form.suffix else len(entries)
    return _read_entries(entries, listed, reading, with_unannotated, ", ".join(map(str, folders or sources)))


def read_pairs(
    form: Format, pairs: Iterable[tuple[Path, Path]], csv_folder: str | Path, image_folder: Path
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read annotation files whose images are known, whatever name they have inside; else as `read_sources`.

    Args:
        form: a format with one file an image.
        pairs: each annotation file with its image.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: the folder of all images; those without annotation are counted.
    """
    pairs = list(pairs)
    reading = _Reading(form, Path(csv_folder), None, Places(None), asked_for=len(pairs))
    entries = [
        (item._replace(image_path=image_path, own_stem=False), path.parent)
        for path, image_path in pairs
        for item in _items(path, path.parent, reading)
    ]
    return _read_entries(entries, walk(image_folder).images(), reading, False, str(image_folder))


def _annotation_files(form: Format, sources: list[Path], walks: dict) -> dict[Path, Path]:
    """The files to read, each with the folder that the user named."""
    paths: dict[Path, Path] = {}
    for source in sources:
        if not source.exists():
            raise AnnotationError(f"{source} does not exist; expected {form.expected[1]}")
        if source in walks:
            paths = dict.fromkeys(form.select(walks[source].files), source) | paths
        else:
            paths.setdefault(source, source.parent)
    return paths


def _items(path: Path, root: Path, reading: _Reading) -> list:
    """What one file says; what makes it unusable is reported."""
    try:
        return list(reading.form.entries(path, Asked(root, reading.classes, reading.memory)))
    except ValueError as error:
        image_path = None
        if reading.form.suffix:
            with contextlib.suppress(ValueError):  # several of that stem
                image_path = reading.places.of_own_stem(Entry(path, str(path), [], own_stem=True), root)
        known = relative_path(image_path, reading.csv_folder) if image_path else None
        reading.skip(str(path), error, known)
        reading.doubtful.add(path.stem)
        # an XML may name any image, if it is not the one of its stem
        reading.list_lost |= not reading.form.suffix or (known is None and path.suffix.lower() == ".xml")
        return []


def _read_entries(entries, others, reading: _Reading, with_unannotated: bool, where: str) -> tuple:
    """Check every image and gather the rows; ``entries`` come with the folder that the user named."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        outcomes = pool.map(lambda pair: _checked(*pair, reading.places), entries)
        pairs = list(zip(entries, progress.track(outcomes, "reading", "image", len(entries)), strict=True))
        reading.shown |= {
            _real(outcome[0]): entry.where
            for (entry, _), outcome in pairs[::-1]
            if entry.objects and isinstance(outcome, tuple)
        }
        for (entry, _), outcome in pairs:
            _take(entry, outcome, reading)
        _take_unannotated(others, with_unannotated, pool, reading, where)
    if not reading.taken:
        shown_problems = "\n".join(map(str, reading.problems[:20]))
        raise AnnotationError(
            f"none of the {reading.asked_for} {reading.form.counted} could be used:\n{shown_problems}"
        )
    reading.problems += [Problem("note", where, slip) for slip in likely_slips(reading.names, reading.classes)]
    return make_table(reading.rows), reading.problems


def _checked(entry: Entry, root: Path, places: Places) -> tuple | ValueError:
    """The image of an entry, its size, whether EXIF turns it, and another that has the annotation's own stem."""
    try:
        image_path = entry.image_path or places.find(entry, root)
        rival = places.of_own_stem(entry, root) if entry.written_name and not entry.image_path else None
        return image_path, *images.check_image(image_path), rival if rival != image_path else None
    except ValueError as error:  # returned, so that the others are read
        return error


def _take(entry: Entry, outcome: tuple | ValueError, reading: _Reading) -> None:
    """Add one image's rows, or the reason why there are none."""
    if isinstance(outcome, ValueError):
        known = relative_path(entry.image_path, reading.csv_folder) if entry.image_path else None
        reading.skip(entry.where, outcome, known)
        reading.doubtful |= {Path(entry.written_name.replace("\\", "/")).stem} if entry.written_name else set()
        reading.doubtful |= {entry.source.stem} if entry.own_stem or entry.image_path else set()
        return
    image_path, size_wh, turned, rival = outcome
    relative, place = relative_path(image_path, reading.csv_folder), _real(image_path)
    if not is_utf8(relative):
        reading.skip(entry.where, ValueError(f"{image_path}: the name is not UTF-8; rename it"))
        return
    # of two annotations the first counts, but one without objects never hides those of another
    if first := reading.taken.get(place) or (not entry.objects and reading.shown.get(place)):
        message = f"{image_path} is already annotated by {first}; keep one {reading.form.kind} for an image"
        reading.skip(entry.where, ValueError(message), relative)
        return
    reading.taken[place] = entry.where
    _note(entry, relative, size_wh, turned, reading.problems)
    if rival:
        message = f"it names {image_path.name}, but labelImg shows it with {rival}; look whose boxes they are"
        reading.problems.append(Problem("note", entry.where, message, relative))
    kept = _kept(entry, relative, size_wh, reading)
    if entry.objects and not kept:  # it shows something: it must not be learnt as an image without objects
        reading.skip(entry.where, ValueError("no box is left; the image is left out"), relative)
        return
    reading.rows += [(relative, *box) for box in kept] or [(relative, *_NO_OBJECT)]


def _note(entry: Entry, relative: str, size_wh: tuple[int, int], turned: bool, problems: list[Problem]) -> None:
    """Add what a person should know about an annotation that is used all the same."""
    if entry.size_label and entry.size_wh is None:
        message = f"no {entry.size_label}; the image's own {size_wh[0]} x {size_wh[1]} is used"
        problems.append(Problem("note", entry.where, message, relative))
    elif entry.size_wh and entry.size_wh != size_wh:
        message = (
            f"{entry.size_label} says {entry.size_wh[0]} x {entry.size_wh[1]}, the upright image has "
            f"{size_wh[0]} x {size_wh[1]}; look at its boxes"
        )
        problems.append(Problem("note", entry.where, message, relative, entry.size_wh))
    if turned:
        problems.append(Problem("note", entry.where, _TURNED, relative))


def _kept(entry: Entry, relative: str, size_wh: tuple[int, int], reading: _Reading) -> list[tuple]:
    """``(x1, y1, x2, y2, class_name)`` of each object that can be used, clipped if need be."""
    boxes_xyxy = np.array([item.box_xyxy for item in entry.objects], dtype=float).reshape(-1, 4)
    if entry.relative:
        boxes_xyxy = in_pixels(boxes_xyxy, size_wh)
    clipped, reaches = boxes.clip(boxes_xyxy, size_wh), boxes.reach_outside(boxes_xyxy, size_wh).tolist()
    areas, whole = boxes.areas(clipped).tolist(), boxes.areas(boxes.whole_pixels(clipped)).tolist()
    image = f"the image of {size_wh[0]} x {size_wh[1]} pixels"
    kept = []
    for number, item in enumerate(entry.objects):
        box, reach = boxes_xyxy[number].tolist(), reaches[number]
        wrong = item.wrong or _what_is_wrong(item.name, box, entry.relative, reading.classes)
        if not wrong and (not areas[number] or reach > CLIP_LIMIT):
            wrong = f"box {_shown(box)} lies outside {image}"
        if not wrong and not whole[number]:
            wrong = f"box {_shown(box)} is under one pixel"
        reading.names[item.name] += 1
        if wrong:
            reading.problems.append(Problem("dropped box", item.where, wrong, relative))
            continue
        if reach > ROUNDING[entry.relative]:
            message = f"box {_shown(box)} reaches {reach:g} px past {image}"
            reading.problems.append(Problem("clipped box", item.where, message, relative))
        kept.append((*clipped[number].tolist(), item.name))
    return kept


def in_pixels(shares_xyxy: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Shares of the image as pixels; where six decimals cannot tell an edge from a whole pixel, that pixel."""
    sides = np.array([*size_wh, *size_wh])
    boxes_xyxy = shares_xyxy * sides
    whole = boxes.whole_pixels(boxes_xyxy)
    return np.where(np.abs(boxes_xyxy - whole) <= SHARE_DIGITS * sides, whole, boxes_xyxy)


def _what_is_wrong(name: str, box_xyxy: list[float], relative: bool, classes: dict[str, int] | None) -> str | None:
    """Why an object cannot be used on any image, or ``None``."""
    if not name:
        return "object without a class name"
    if unwritable(name):
        return f"class {name!r} has a line end or control character; rename it"
    if classes is not None and name not in classes:
        return f"class {name!r} is not among the classes ({', '.join(classes)}); add it or fix the label"
    if not np.isfinite(box_xyxy).all():
        return f"box of {name!r} is {_shown(box_xyxy)}, expected four numbers xmin, ymin, xmax, ymax"
    x1, y1, x2, y2 = box_xyxy
    if x1 >= x2 or y1 >= y2:
        return f"box {_shown(box_xyxy)} is empty or inverted; expected xmin < xmax and ymin < ymax"
    if not relative and looks_like_shares(box_xyxy):
        return f"box {_shown(box_xyxy)}: these may be shares of the image's size, expected pixels; convert them"
    return None


def _shown(box_xyxy: list[float]) -> str:
    return "(" + ", ".join(f"{edge:g}" for edge in box_xyxy) + ")"


def _real(path: Path) -> str:
    """Where an image is, whatever links lead to its folder; a linked image keeps its own name."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def _take_unannotated(listed: list[Path], wanted: bool, pool, reading: _Reading, where: str) -> None:
    """Images without annotation: rows without objects if wanted, and a note with their number either way."""
    suffix = reading.form.suffix
    lonely = [
        path
        for place, path in {_real(path): path for path in reversed(listed)}.items()
        if place not in reading.taken and path.stem not in reading.doubtful and not (suffix and labels_of(path, suffix))
    ][::-1]
    if not lonely:
        return
    done = "taken as images without objects" if wanted else "left out"
    if wanted and reading.list_lost:
        wanted, done = False, "left out, because they may stand in a file that could not be read"
    message = f"{len(lonely)} image(s) without {reading.form.kind} {done}, such as {lonely[0]}"
    reading.problems.append(Problem("note", where, message))
    for path, outcome in zip(lonely, pool.map(_turned, lonely), strict=True) if wanted else ():
        relative = relative_path(path, reading.csv_folder)
        if isinstance(outcome, ValueError):
            reading.skip(str(path), outcome, relative)
        elif not is_utf8(relative):
            reading.skip(str(path), ValueError("the name is not UTF-8; rename it"))
        else:
            reading.problems += [Problem("note", str(path), _TURNED, relative)] * outcome
            reading.rows.append((relative, *_NO_OBJECT))


def _turned(path: Path) -> bool | ValueError:
    """Whether EXIF turns the image, or why it cannot be used."""
    try:
        return images.check_image(path)[1]
    except ValueError as error:
        return error
