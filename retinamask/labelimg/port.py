"""The two formats that a session can save in, one file an image: Pascal VOC XML and YOLO text with ``classes.txt``.

At the bottom of what runs in our process. VOC is read and written by `retinamask.dataset.formats`. YOLO lines are
``class x_center y_center width height``, the class an index into ``classes.txt``, the rest parts of the image's sides:
https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects, as labelImg 1.8.6 writes them.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask.dataset import boxes, files, images
from retinamask.dataset.annotations import AnnotationError, make_table, relative_path
from retinamask.dataset.formats import Problem, voc_xml, write_voc
from retinamask.dataset.formats.voc import read_voc_pairs

SUFFIXES = {"voc": ".xml", "yolo": ".txt"}
CLASSES_TXT = "classes.txt"

Labelled = list[tuple[str, tuple[float, float, float, float]]]  # class name and box, xyxy pixels


def load(path: Path, size_wh: tuple[int, int], class_names: list[str]) -> Labelled:
    """What one annotation file says, checked to be what labelImg would show.

    Args:
        path: the XML or txt file.
        size_wh: width and height of its upright image.
        class_names: the lines of ``classes.txt``; of no use for VOC.

    Raises:
        ValueError: with path: not readable, or labelImg would leave boxes out, which saving would then lose.
    """
    if path.suffix == SUFFIXES["yolo"]:
        found = _parse_yolo(path, size_wh, class_names)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if len(line.strip().split(" ")) != 5:
                raise ValueError(f"{path}: line {number}: labelImg reads five numbers with one space between; mend it")
        return found
    from libs.pascal_voc_io import PascalVocReader  # labelImg's own; it passes over what it cannot read

    found = voc_xml.parse(path).objects
    shown = len(PascalVocReader(str(path)).get_shapes())
    if shown != len(found):
        raise ValueError(f"{path}: labelImg would show {shown} of {len(found)} box(es); mend the file first")
    return [(item.name, item.box_xyxy) for item in found]


def write(path: Path, image_path: Path, size_wh: tuple[int, int], found: Labelled, class_names: list[str]) -> None:
    """Write one annotation file as labelImg would, the boxes rounded to whole pixels, halves up.

    Args:
        path: the XML or txt file to write.
        image_path: its image.
        size_wh: width and height of the upright image.
        found: class names and boxes; the classes of a txt file must be among ``class_names``.
        class_names: the lines of ``classes.txt``; of no use for VOC.
    """
    names = [name for name, _ in found]
    boxes_xyxy = boxes.whole_pixels(np.array([box for _, box in found], dtype=float).reshape(-1, 4))
    if path.suffix == SUFFIXES["voc"]:
        write_voc(path, image_path, size_wh, boxes_xyxy, names)
        return
    sides = np.array(size_wh)
    centres, extents = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2 / sides, (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2])
    numbers = np.hstack([centres, extents / sides]).tolist()
    lines = [
        f"{class_names.index(name)} " + " ".join(f"{number:.6f}" for number in row) + "\n"
        for name, row in zip(names, numbers, strict=True)
    ]
    files.write_text(path, "".join(lines))


def read_all(
    pairs: Iterable[tuple[Path, Path]], image_folder: Path, csv_folder: Path
) -> tuple[pd.DataFrame, list[Problem]]:
    """The table of all annotation files of a session, sorted by them, and what is wrong with them.

    Args:
        pairs: each annotation file with its image.
        image_folder: the folder of the session's images.
        csv_folder: what the table's image paths are relative to.
    """
    pairs = sorted(pairs)
    if not pairs:
        return make_table([]), []
    if pairs[0][0].suffix == SUFFIXES["yolo"]:
        return _read_yolo(pairs, csv_folder)
    try:
        return read_voc_pairs(pairs, csv_folder, image_folder)
    except AnnotationError as error:  # not one of them could be used
        return make_table([]), [Problem("skipped file", str(pairs[0][0].parent), str(error))]


def read_class_lines(folder: Path) -> list[str]:
    """The names in a folder's ``classes.txt`` in order, none where there is no such file.

    Raises:
        AnnotationError: not UTF-8 text, or a name stands there twice.
    """
    path = folder / CLASSES_TXT
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: cannot be read ({error}); expected UTF-8 text, a class a line") from None
    names = [line.strip() for line in lines]
    if names != lines or "" in names or path.read_bytes().startswith(b"\xef\xbb\xbf"):
        raise AnnotationError(
            f"{path}: labelImg would take an empty line, a blank at an end or a byte order mark for a part of the "
            "classes; mend the file first"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AnnotationError(f"{path}: {', '.join(map(repr, twice))} stand(s) there twice; keep each class once")
    return names


def _read_yolo(pairs: list[tuple[Path, Path]], csv_folder: Path) -> tuple[pd.DataFrame, list[Problem]]:
    rows, problems = [], []
    class_names = read_class_lines(pairs[0][0].parent)
    for path, image_path in pairs:
        relative = relative_path(image_path, csv_folder)
        try:
            found = _parse_yolo(path, images.check_image(image_path)[0], class_names)
        except ValueError as error:
            problems.append(Problem("skipped file", str(path), str(error).removeprefix(f"{path}: ")))
            continue
        rows += [(relative, *box, name) for name, box in found] or [(relative, *[None] * 5)]
    return make_table(rows), problems


def _parse_yolo(path: Path, size_wh: tuple[int, int], class_names: list[str]) -> Labelled:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_parse_line(line, size_wh, class_names))
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: {error}") from None
    return found


def _parse_line(line: str, size_wh: tuple[int, int], class_names: list[str]) -> tuple[str, tuple]:
    fields = line.split()
    try:
        index, numbers = int(fields[0]), np.array([float(field) for field in fields[1:]])
    except (ValueError, IndexError):
        raise ValueError(f"found {line!r}, expected a class index and four numbers") from None
    if len(numbers) != 4 or not ((numbers >= 0) & (numbers <= 1)).all():  # nan compares false
        raise ValueError(f"found {line!r}, expected x_center y_center width height, each from 0 to 1")
    if not 0 <= index < len(class_names):
        raise ValueError(f"class index {index}, expected 0 to {len(class_names) - 1}: {CLASSES_TXT} lists no more")
    centre, extent = numbers[:2] * size_wh, numbers[2:] * size_wh
    box = boxes.clip(np.hstack([centre - extent / 2, centre + extent / 2]), size_wh)[0].round(2)  # six decimals: dust
    if not boxes.areas(boxes.whole_pixels(box))[0]:
        raise ValueError(f"found {line!r}, a box under one pixel")
    return class_names[index], tuple(box.tolist())
