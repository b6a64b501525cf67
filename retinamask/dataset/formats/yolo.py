"""YOLO text files (``class centre_x centre_y width height``, shares of the image) to the table.

On top of `yolo_lists`, which finds classes and images, and `reading`; `yolo_write` is the way back. Formats: see
`yolo_lists`.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats import yolo_lists
from retinamask.dataset.formats.image_files import ImageIndex
from retinamask.dataset.formats.reading import (
    Entry,
    FoundObject,
    Problem,
    Reading,
    files_below,
    image_index,
    read_entries,
)

_EDGE = 1 + 1e-6  # what rounding makes of 1
_NO_BOX = (0.0, 0.0, 0.0, 0.0)


class _Label(NamedTuple):
    """A label file, and what is known about it beforehand."""

    root: Path  # the folder that was asked for, or the file that lists images
    image_path: Path | None = None


def read_yolo(
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read YOLO label files into the table.

    An empty label file is an image without objects. The class list is ``classes.txt``, ``*.names``, ``*.data`` or
    ``data.yaml`` in the folder of the label file or above it. The image lies beside the label file, or in
    ``images/...`` where that lies in ``labels/...``, or has its stem.

    Args:
        sources: folders (searched with all below them), label files, or what lists images: ``data.yaml``,
            ``obj.data``, ``train.txt``. Only these may point outside their folder.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: where the images are; without it, below the sources.
        classes: if given, boxes of other classes are dropped and reported.
        with_unannotated: take images that have no label file as images without objects.

    Returns:
        The table, sorted by label path, and the problems.

    Raises:
        AnnotationError: no label file at all, or none that could be used.
    """
    sources = [Path(source) for source in sources]
    reading = Reading(
        Path(csv_folder), classes, "label file", "label file(s)", lambda path: _label_of(path) is not None
    )
    lists = [source for source in sources if _lists_images(source)]
    labels, listed = _listed_labels(lists, reading)
    rest = [source for source in sources if source not in lists]
    index = _index(rest, listed, image_folder)
    labels = _labels_below(rest, index) | labels
    if not labels:
        message = f"no label file below {', '.join(map(str, sources))}; expected YOLO's .txt files, one an image"
        raise AnnotationError("\n".join([message, *map(str, reading.problems[:20])]))
    names = _Names(labels)
    reading.problems += [Problem("note", str(folder), message) for folder, message in names.repeated()]
    return read_entries(sorted(labels), lambda path: _load(path, labels[path], names), index, reading, with_unannotated)


def yolo_classes(sources: Iterable[str | Path]) -> list[str]:
    """The classes in the order of their numbers; where label files have different lists, later ones add to it."""
    found: dict[str, None] = {}
    for source in map(Path, sources):
        try:
            if _lists_images(source):
                labels = {source: _Label(source)}
            else:
                labels = _labels_below([source], image_index([source], None))
            names = _Names(labels)
            for folder in dict.fromkeys(path.parent for path in sorted(labels)):
                found |= dict.fromkeys(filter(None, names.of(next(path for path in labels if path.parent == folder))))
        except ValueError:
            continue  # the reader reports it
    return list(found)


class _Names:
    """The class list of each label file; each folder is looked through once."""

    def __init__(self, labels: dict[Path, _Label]):
        self._found: dict[tuple[Path, Path], list[str] | ValueError] = {}
        for path, label in labels.items():  # before the threads start
            key = path.parent, label.root
            if key not in self._found:
                self._found[key] = self._look(path, label.root)
        self._labels = labels

    def of(self, path: Path) -> list[str]:
        """Raises `ValueError` if there is none."""
        found = self._found[path.parent, self._labels[path].root]
        if isinstance(found, ValueError):
            raise found
        return found

    def repeated(self) -> list[tuple[Path, str]]:
        """Folders with lists that name a class twice, and a message."""
        return [
            (folder, f"class {name!r} stands in the class list {count} times; these are taken as one")
            for (folder, _), names in self._found.items()
            if not isinstance(names, ValueError)
            for name, count in Counter(names).items()
            if count > 1
        ]

    @staticmethod
    def _look(path: Path, root: Path) -> list[str] | ValueError:
        try:
            own = yolo_lists.described_names(root) if root.is_file() else None
            return own or yolo_lists.nearest_names(path, root.parent if root.is_file() else root)
        except ValueError as error:
            return error


def _lists_images(source: Path) -> bool:
    """Whether a source is a file that says where the images are."""
    if not source.is_file():
        return False
    suffix = source.suffix.lower()
    return suffix in (*yolo_lists.YAML, ".data") or (suffix == ".txt" and yolo_lists.is_image_list(source))


def _listed_labels(lists: list[Path], reading: Reading) -> tuple[dict[Path, _Label], list[Path]]:
    """Label files of all images that the lists name, and these images."""
    labels: dict[Path, _Label] = {}
    listed: list[Path] = []
    for source in lists:
        try:
            found, missing = yolo_lists.listed_images(source)
        except ValueError as error:
            reading.skip_file(source, error)
            continue
        for name in missing:
            reading.problems.append(Problem("skipped file", str(source), f"{name!r} does not exist; put it there"))
        for image_path in found:
            label_path = _label_of(image_path)
            labels |= {label_path: _Label(source, image_path)} if label_path else {}
        listed += found
    return labels, listed


def _labels_below(sources: list[Path], index: ImageIndex) -> dict[Path, _Label]:
    """Label files below folders, without the text files that are something else."""
    labels: dict[Path, _Label] = {}
    for source in sources:
        for path in files_below([source], [".txt"], "YOLO label files"):
            if path == source or _is_label(path, index):
                labels[path] = _Label(source if source.is_dir() else source.parent)
    return labels


def _is_label(path: Path, index: ImageIndex) -> bool:
    if path.name == "classes.txt":
        return False
    if index.candidates(path, ""):
        return True
    return not path.name.lower().startswith(("readme", "license")) and not yolo_lists.is_image_list(path)


def _index(sources: list[Path], listed: list[Path], image_folder: str | Path | None) -> ImageIndex:
    """The images below the sources, and those that are listed."""
    if image_folder or not listed:
        return image_index(sources, image_folder)
    below = image_index(sources, None)
    folders = list(dict.fromkeys([*below.folders, *(path.parent for path in listed)]))
    return ImageIndex(folders, [*below.all(), *listed])


def _label_of(image_path: Path) -> Path | None:
    """The label file of an image: in ``labels/...`` for ``images/...``, or beside it."""
    beside = image_path.with_suffix(".txt")
    places = [place for place in (_swapped(beside, "images", "labels"), beside) if place.is_file()]
    return places[0] if places else None


def _swapped(path: Path, old: str, new: str) -> Path:
    """The path with the last folder called ``old`` replaced by ``new``."""
    parts = list(path.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == old]
    if places:
        parts[places[-1]] = new
    return Path(*parts)


def _load(path: Path, label: _Label, names: _Names) -> Entry:
    text = yolo_lists.read_text(path)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    known = names.of(path) if lines else []
    objects = [_object(f"{path} line {number}", line.split(), known) for number, line in lines]
    hint = _swapped(path, "labels", "images")
    return Entry(path, str(path), objects, "", label.image_path, hint, own_stem=True, relative=True)


def _object(where: str, fields: list[str], names: list[str]) -> FoundObject:
    """One line; what is wrong with it is said in the object."""
    try:
        if len(fields) != 5:
            hint = {6: "; with a score?"}.get(len(fields), "; an outline?" if len(fields) > 6 else "")
            raise ValueError(f"found {len(fields)} numbers, expected 5: class, centre x and y, width, height{hint}")
        number, x, y, width, height = map(_number, fields)
        if number != int(number) or not 0 <= number < len(names):
            raise ValueError(f"class {fields[0]} is beyond the list of {len(names)} classes ({', '.join(names)})")
        if not all(0 <= value <= _EDGE for value in (x, y, width, height)):
            hint = "; these may be pixels" if max(x, y, width, height) > 2 else ""
            raise ValueError(f"found {' '.join(fields[1:])}, expected shares of the image from 0 to 1{hint}")
    except ValueError as error:
        return FoundObject(where, "", _NO_BOX, str(error))
    return FoundObject(where, names[int(number)], (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise ValueError(f"found {text[:40]!r}, expected a number")
    return number
