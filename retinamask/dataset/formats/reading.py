"""Make the table of entries: find each image, check it, clip and drop boxes; what is wrong with one is a `Problem`."""

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask import progress
from retinamask.dataset import boxes, images
from retinamask.dataset.annotations import AnnotationError, first_lines, looks_like_shares, make_table, relative_path
from retinamask.dataset.formats.class_names import likely_slips, unwritable
from retinamask.dataset.formats.entries import Asked, Entry, Format, Problem, value_or_error
from retinamask.dataset.formats.places import Places, labels_of
from retinamask.dataset.image_files import is_utf8, shown, walk

CLIP_LIMIT = 5  # pixels that a box may reach past the image and still be clipped, not dropped
SHARE_DIGITS = 1e-6  # labelImg writes shares with six decimals, of a centre and of a size
ROUNDING = {True: 0.5, False: 1e-6}  # pixels past the image that are the rounding of shares, or of floats

_NO_OBJECT = (None,) * 5
_TURNED = "the image is turned by EXIF; keras-retinanet's own reader does not turn it"


@dataclass
class _Reading:
    """The request, and what has been gathered so far."""

    form: Format
    csv_folder: Path
    classes: dict[str, int] | None
    places: Places
    entries: list[Entry] = field(default_factory=list)
    listed: list[Path] = field(default_factory=list)  # images that may have no annotation
    rows: list[tuple] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    annotated: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))  # by an image's real place
    doubtful: set[str] = field(default_factory=set)  # stems of images whose annotation could not be used
    names: dict[str, None] = field(default_factory=dict)  # classes as they are written
    memory: dict = field(default_factory=dict)  # what the format has looked up
    class_list: dict[str, None] = field(default_factory=dict)  # the classes that the files list
    list_lost: bool = False  # a file about many images could not be read: nobody knows about which
    _real: dict[Path, str] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """Where an image is, whatever links lead to its folder; a linked image keeps its own name."""
        if path.parent not in self._real:
            self._real[path.parent] = os.path.realpath(path.parent)
        return os.path.join(self._real[path.parent], path.name)

    def skip(self, where: str, message: object, image_path: Path | None = None) -> None:
        """Report what cannot be used."""
        known = relative_path(image_path, self.csv_folder) if image_path else None
        message = shown(str(message).removeprefix(f"{where}: "))
        known = known if known and is_utf8(known) else None
        self.problems.append(Problem("skipped file", shown(where), message, known))


def summary(problems: list[Problem]) -> str:
    """One line: how many of each kind, such as ``2 skipped file, 10 clipped box``."""
    counts = Counter(problem.action for problem in problems)
    return ", ".join(f"{count} {action}" for action, count in counts.items()) or "no problems"


def read_sources(
    form: Format,
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None,
    classes: dict[str, int] | None,
    with_unannotated: bool,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read files and folders of one format; see `retinamask.dataset.formats.read`."""
    sources = list(map(Path, sources))
    if image_folder and not Path(image_folder).is_dir():
        raise AnnotationError(f"{image_folder} is not a folder; expected the folder of the images")
    reading = _Reading(form, Path(csv_folder), classes, Places(Path(image_folder) if image_folder else None))
    walks, paths = {}, {}  # the files to read, each with the folder that the user named
    for source in sources:
        if not source.exists():
            raise AnnotationError(f"{source} does not exist; expected {form.expected}")
        if source.is_dir():
            walks[source] = walk(source)
            paths = dict.fromkeys(form.select(walks[source].files), source) | paths
        else:
            paths.setdefault(source, source.parent)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        checks = pool.map(lambda pair: _checked(*pair, reading), _parsed(paths, reading))
        entries = reading.entries
        if not entries and not reading.problems and not reading.listed:
            raise AnnotationError(f"no {form.file} below {', '.join(map(str, sources))}; expected {form.expected}")
        # where a file says itself where its images are, others are not its business
        looked_for = not entries or any(entry.image_path is None for entry in entries)
        folders = [source if source.is_dir() else source.parent for source in sources] if looked_for else []
        folders = [Path(image_folder)] if image_folder else folders
        for folder in folders:
            walks[folder] = walks.get(folder) or walk(folder)
            reading.listed += walks[folder].images()
        for folder, seen in walks.items():
            reading.problems += [Problem("note", shown(folder), note) for note in seen.notes()]
        where = ", ".join(map(str, folders or sources))
        return _table(checks, reading, pool, with_unannotated, where, len(paths) if form.suffix else len(entries))


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
    image_of = dict(pairs)
    reading = _Reading(form, Path(csv_folder), None, Places(None), listed=walk(image_folder).images())
    parsed = _parsed({path: path.parent for path in image_of}, reading)
    with ThreadPoolExecutor() as pool:
        known = ((entry._replace(image_path=image_of[entry.source], own_stem=False), root) for entry, root in parsed)
        checks = pool.map(lambda pair: _checked(*pair, reading), known)
        return _table(checks, reading, pool, False, str(image_folder), len(image_of))


def _parsed(paths: dict[Path, Path], reading: _Reading) -> Iterator[tuple[Entry, Path]]:
    """Entries with the folder that the user named, one by one, so that images are decoded meanwhile."""
    for path, root in sorted(paths.items()):
        try:
            items = list(reading.form.entries(path, Asked(root, reading.classes, reading.memory, reading.class_list)))
        except ValueError as error:
            image_path = None
            if reading.form.suffix:
                with contextlib.suppress(ValueError):  # several of that stem
                    image_path = reading.places.of_own_stem(Entry(path, str(path), [], own_stem=True), root)
            reading.skip(str(path), error, image_path)
            reading.doubtful.add(path.stem)
            # an XML may name any image, if it is not the one of its stem
            reading.list_lost |= not reading.form.suffix or (image_path is None and path.suffix.lower() == ".xml")
            continue
        for item in items:
            if isinstance(item, Entry):
                reading.entries.append(item)
                yield item, root
            elif isinstance(item, Path):
                reading.listed.append(item)
            elif item not in reading.problems:
                reading.problems.append(item)
                reading.list_lost |= item.action == "skipped file" and not reading.form.suffix


def _checked(entry: Entry, root: Path, reading: _Reading) -> tuple:
    """An entry, its image with its place and size, whether EXIF turns it, and another of the annotation's own stem."""
    places = reading.places
    try:
        image_path = entry.image_path or places.find(entry, root)
        relative = relative_path(image_path, reading.csv_folder)
        if not is_utf8(relative):
            raise ValueError(f"{image_path}: the name is not UTF-8; rename it")
        rival = places.of_own_stem(entry, root) if entry.written_name and not entry.image_path else None
        rival = rival if rival != image_path else None
        return entry, image_path, relative, reading.place(image_path), *images.check_image(image_path), rival
    except ValueError as error:  # returned, so that the others are read
        return entry, error, *[None] * 5


def _table(
    checks: Iterator[tuple], reading: _Reading, pool, with_unannotated: bool, where: str, count: int
) -> tuple[pd.DataFrame, list[Problem]]:
    """Gather the rows of every image."""
    checked = list(progress.track(checks, "reading", "image", len(reading.entries)))
    for entry, _, _, place, *_ in checked:
        if place:
            reading.annotated[place].append(entry)
    for found in checked:
        _take(*found, reading)
    _take_unannotated(with_unannotated, pool, reading, where)
    if not reading.annotated:
        listed = first_lines(list(map(str, reading.problems)))
        raise AnnotationError(f"none of the {count} {reading.form.counted} could be used:\n{listed}")
    reading.problems += [Problem("note", where, slip) for slip in likely_slips(reading.names, reading.classes)]
    table = make_table(reading.rows)
    table.attrs["class_list"] = list(reading.class_list)
    return table, reading.problems


def _take(
    entry: Entry, image_path: Path | ValueError, relative: str, place: str, size_wh, turned, rival, reading: _Reading
) -> None:
    """Add one image's rows, or the reason why there are none."""
    if isinstance(image_path, ValueError):
        reading.skip(entry.where, image_path, entry.image_path)
        reading.doubtful |= {Path(entry.written_name.replace("\\", "/")).stem} if entry.written_name else set()
        reading.doubtful |= {entry.source.stem} if entry.own_stem or entry.image_path else set()
        return
    kind, same_image = reading.form.kind, reading.annotated[place]
    other = next((other for other in same_image if other is not entry), None)
    if other and len({repr(sorted(map(repr, (item[1:] for item in each.objects)))) for each in same_image}) > 1:
        message = f"{image_path} is annotated by {other.where} too, differently; the image is left out"
        reading.skip(entry.where, f"{message}, keep one {kind} for an image", image_path)
        return

    def note(message: str, written_wh: tuple[int, int] | None = None) -> None:
        reading.problems.append(Problem("note", entry.where, message, relative, written_wh))

    if entry is not same_image[0]:
        first = same_image[0].where
        note(f"{image_path} is already annotated by {first}, with the same objects; keep one {kind} for an image")
        return
    if entry.size_label and entry.size_wh is None:
        note(f"no {entry.size_label}; the image's own {size_wh[0]} x {size_wh[1]} is used")
    elif entry.size_wh and entry.size_wh != size_wh:
        says = f"{entry.size_label} says {entry.size_wh[0]} x {entry.size_wh[1]}"
        note(f"{says}, the upright image has {size_wh[0]} x {size_wh[1]}; look at its boxes", entry.size_wh)
    if turned:
        note(_TURNED)
    if rival:
        note(f"it names {image_path.name}, but labelImg shows it with {rival}; look whose boxes they are")
    kept = _kept(entry, relative, size_wh, reading)
    if entry.objects and not kept:  # it shows something: it must not be learnt as an image without objects
        reading.skip(entry.where, "no box is left; the image is left out", image_path)
        return
    reading.rows += [(relative, *box) for box in kept] or [(relative, *_NO_OBJECT)]


def _kept(entry: Entry, relative: str, size_wh: tuple[int, int], reading: _Reading) -> list[tuple]:
    """``(x1, y1, x2, y2, class_name)`` of each object that can be used, clipped if need be."""
    boxes_xyxy = np.array([item.box_xyxy for item in entry.objects], dtype=float).reshape(-1, 4)
    if entry.relative:
        boxes_xyxy = in_pixels(boxes_xyxy, size_wh)
    clipped = boxes.clip(boxes_xyxy, size_wh)
    reaches = np.abs(boxes_xyxy - clipped).max(axis=1, initial=0).tolist()
    whole = boxes.whole_pixels(clipped)
    outside, gone = ((edges[:, :2] >= edges[:, 2:]).any(axis=1).tolist() for edges in (clipped, whole))
    image = f"the image of {size_wh[0]} x {size_wh[1]} pixels"
    kept, found = [], []
    for number, (item, box) in enumerate(zip(entry.objects, boxes_xyxy.tolist(), strict=True)):
        reach = reaches[number]
        wrong = item.wrong or _what_is_wrong(item.name, box, entry.relative, reading.classes)
        if not wrong and (outside[number] or reach > CLIP_LIMIT):
            wrong = f"box {_shown(box)} lies outside {image}"
        if not wrong and gone[number]:
            wrong = f"box {_shown(box)} is under one pixel"
        reading.names[item.name] = None
        if wrong:
            found.append(Problem("dropped box", item.where, wrong, relative))
            continue
        if reach > ROUNDING[entry.relative]:
            message = f"box {_shown(box)} reaches {reach:g} px past {image}"
            found.append(Problem("clipped box", item.where, message, relative))
        kept.append((*clipped[number].tolist(), item.name))
    background = "; the image keeps its other boxes, and what is in this one becomes background"
    for problem in found:
        lost = kept and problem.action == "dropped box"
        reading.problems.append(problem._replace(message=problem.message + background) if lost else problem)
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


def _take_unannotated(wanted: bool, pool, reading: _Reading, where: str) -> None:
    """Images without annotation: rows without objects if wanted, and a note with their number either way."""
    suffix = reading.form.suffix
    lonely = [
        path
        for place, path in {reading.place(path): path for path in reversed(reading.listed)}.items()
        if place not in reading.annotated
        and path.stem not in reading.doubtful
        and not (suffix and labels_of(path, suffix))
    ][::-1]
    if not lonely:
        return
    done = "taken as images without objects" if wanted else "left out"
    if wanted and reading.list_lost:
        wanted, done = False, "left out, because they may stand in a file that could not be read"
    message = f"{len(lonely)} image(s) without {reading.form.kind} {done}, such as {lonely[0]}"
    reading.problems.append(Problem("note", where, message))
    outcomes = pool.map(lambda path: value_or_error(images.check_image, path), lonely if wanted else ())
    for path, outcome in zip(lonely, outcomes, strict=True) if wanted else ():
        relative = relative_path(path, reading.csv_folder)
        if isinstance(outcome, ValueError):
            reading.skip(str(path), outcome, path)
        elif not is_utf8(relative):
            reading.skip(str(path), "the name is not UTF-8; rename it")
        else:
            reading.problems += [Problem("note", str(path), _TURNED, relative)] * outcome[1]
            reading.rows.append((relative, *_NO_OBJECT))
