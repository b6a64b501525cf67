"""YOLO text files (``class centre_x centre_y width height``, shares of the image) to entries.

Above `yolo_lists`, which finds classes and images; `yolo_write` is the way back.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from retinamask.dataset.annotations import number
from retinamask.dataset.formats import yolo_lists
from retinamask.dataset.formats.entries import NO_BOX, Asked, Entry, FoundObject, Problem
from retinamask.dataset.formats.places import labels_of
from retinamask.dataset.image_files import walk

_EDGE = 1 + 1e-6  # what rounding makes of 1


def label_files(files: list[Path]) -> list[Path]:
    """The text files that may hold labels: all but class lists, lists of images, and notes such as a read-me."""
    texts = [path for path in files if path.suffix.lower() == ".txt" and path.name != "classes.txt"]
    return [
        path
        for path in texts
        if looks_like_labels(path)
        or not (yolo_lists.is_image_list(path) or path.name.lower().startswith(("readme.", "license.")))
        or (path.stat().st_size == 0)
    ]


def looks_like_labels(path: Path) -> bool:
    """Whether the first line of a text is a class and at least four numbers."""
    try:
        fields = yolo_lists.read_text(path).strip().split("\n")[0].split()
    except ValueError:
        return False
    return len(fields) >= 5 and all(number(field) == number(field) for field in fields)


def lists_images(path: Path) -> bool:
    """Whether a file says where the images are: ``data.yaml``, ``obj.data``, ``train.txt``."""
    suffix = path.suffix.lower()
    return suffix in (*yolo_lists.YAML, ".data") or (suffix == ".txt" and yolo_lists.is_image_list(path))


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem | Path]:
    """Read one label file, or all those of the images that a list names.

    An empty label file is an image without objects. Formats: see `yolo_lists`.
    """
    if not lists_images(path):
        yield from _labels(path, lambda: _names(path, asked))
        return
    found, missing = yolo_lists.listed_images(path)
    for name in missing:
        yield Problem("skipped file", str(path), f"{name!r} does not exist; put it there")
    own = yolo_lists.described_names(path)
    for image_path in found:
        label_path = next(iter(labels_of(image_path, ".txt")), None)
        if label_path is None:
            yield image_path
            continue
        try:
            names = (lambda: own) if own else functools.partial(_names, label_path, asked)
            for item in _labels(label_path, names):
                yield item._replace(image_path=image_path) if isinstance(item, Entry) else item
        except ValueError as error:
            yield Problem("skipped file", str(label_path), str(error).removeprefix(f"{label_path}: "))


def classes(sources: list[Path]) -> list[str]:
    """The classes in the order of their numbers; where label files have different lists, later ones add to it."""
    found: dict[str, None] = {}
    for source in sources:
        try:
            if own := yolo_lists.described_names(source) if source.is_file() else None:
                found |= dict.fromkeys(filter(None, own))
                continue
            asked = Asked(source if source.is_dir() else source.parent, None, {})
            labels = label_files(walk(source).files) if source.is_dir() else [source]
        except ValueError:
            continue  # the reader reports it
        for path in sorted(labels):
            try:
                found |= dict.fromkeys(filter(None, _names(path, asked)))
            except ValueError:
                continue
    return list(found)


def _names(path: Path, asked: Asked) -> list[str]:
    """The class list of a label file; each folder is looked through once."""
    key, memory = path.parent, asked.memory
    if key not in memory:
        try:
            memory[key] = yolo_lists.class_names(path, asked.root)
        except ValueError as error:
            memory[key] = error
    if isinstance(memory[key], ValueError):
        raise memory[key]
    return memory[key]


def _labels(path: Path, names: Callable[[], list[str]]) -> Iterator[Entry | Problem]:
    """One label file, and what is to be said about its class list."""
    known = names() if yolo_lists.read_text(path).strip() else []
    for name, count in Counter(known).items():
        if count > 1:
            message = f"class {name!r} stands in the class list {count} times; these are taken as one"
            yield Problem("note", str(path.parent), message)
    yield Entry(path, str(path), objects(path, known), own_stem=True, relative=True)


def objects(path: Path, names: list[str]) -> list[FoundObject]:
    """The lines of a label file, boxes as shares of the image.

    Raises:
        ValueError: not readable as text.
    """
    lines = enumerate(yolo_lists.read_text(path).split("\n"), 1)
    return [_object(f"{path} line {at}", line.split(), names) for at, line in lines if line.strip()]


def _object(where: str, fields: list[str], names: list[str]) -> FoundObject:
    """One line; what is wrong with it is said in the object."""
    if len(fields) != 5:
        hint = {6: "; with a score?"}.get(len(fields), "; an outline?" if len(fields) > 6 else "")
        wrong = f"found {len(fields)} numbers, expected 5: class, centre x and y, width, height{hint}"
        return FoundObject(where, "", NO_BOX, wrong)
    label, x, y, width, height = numbers = [number(field) for field in fields]
    strange = [field for field, found in zip(fields, numbers, strict=True) if found != found]
    if strange:
        return FoundObject(where, "", NO_BOX, f"found {strange[0][:40]!r}, expected a number")
    if label != int(label) or not 0 <= label < len(names):
        wrong = f"class {fields[0]} is beyond the list of {len(names)} classes ({', '.join(names)})"
        return FoundObject(where, "", NO_BOX, wrong)
    if not all(0 <= value <= _EDGE for value in (x, y, width, height)):
        hint = "; these may be pixels" if max(x, y, width, height) > 2 else ""
        wrong = f"found {' '.join(fields[1:])}, expected shares of the image from 0 to 1{hint}"
        return FoundObject(where, "", NO_BOX, wrong)
    return FoundObject(where, names[int(label)], (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
