"""The two formats that a session can save in, one file an image: Pascal VOC XML and YOLO text with ``classes.txt``.

At the bottom of what runs in our process. VOC is read and written by `retinamask.dataset.formats`. YOLO lines are
``class x_center y_center width height``, the class an index into ``classes.txt``, the rest parts of the image's sides:
https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects, as labelImg 1.8.6 writes them.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask.dataset import boxes, files
from retinamask.dataset.annotations import AnnotationError, make_table
from retinamask.dataset.formats import FORMATS, Problem, read_pairs, voc, write_voc, yolo
from retinamask.dataset.formats.reading import in_pixels

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
        found = yolo.objects(path, class_names)
        if wrong := next((item for item in found if item.wrong), None):
            raise ValueError(f"{wrong.where}: {wrong.wrong}")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if len(line.strip().split(" ")) != 5:
                raise ValueError(f"{path}: line {number}: labelImg reads five numbers with one space between; mend it")
        shares = np.array([item.box_xyxy for item in found]).reshape(-1, 4)
        boxes_xyxy = boxes.clip(in_pixels(shares, size_wh), size_wh).round(2)  # six decimals: dust
        if not boxes.areas(boxes.whole_pixels(boxes_xyxy)).all():
            raise ValueError(f"{path}: a box under one pixel, which saving would lose; remove it")
        return [(item.name, tuple(box)) for item, box in zip(found, boxes_xyxy.tolist(), strict=True)]
    from libs.pascal_voc_io import PascalVocReader  # labelImg's own; it passes over what it cannot read

    found = voc.parse(path).objects
    if wrong := next((item for item in found if item.wrong), None):
        raise ValueError(f"{wrong.where}: {wrong.wrong}")
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
    form = FORMATS["yolo" if pairs[0][0].suffix == SUFFIXES["yolo"] else "voc"]
    try:
        return read_pairs(form, pairs, csv_folder, image_folder)
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
