"""The two formats that a session can save in, one file an image: Pascal VOC XML and YOLO text with ``classes.txt``.

Both are read and written by `retinamask.dataset.formats`; what is here is how labelImg 1.8.6 reads them.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask.dataset import boxes, files
from retinamask.dataset.annotations import AnnotationError, make_table
from retinamask.dataset.formats import FORMATS, Problem, read_pairs, voc, yolo
from retinamask.dataset.formats.reading import in_pixels
from retinamask.dataset.formats.writing import Picture

SUFFIXES = {"voc": ".xml", "yolo": ".txt"}
CLASSES_TXT = "classes.txt"

Labelled = list[tuple[str, tuple[float, float, float, float]]]  # class name and box, xyxy pixels


def load(path: Path, size_wh: tuple[int, int], class_names: list[str]) -> Labelled:
    """Read one annotation file, checked to be what labelImg would show.

    Args:
        path: the XML or txt file.
        size_wh: width and height of its upright image.
        class_names: the lines of ``classes.txt``; not used for VOC.

    Raises:
        ValueError: with path: not readable, or labelImg would leave boxes out, which saving would then lose.
    """
    is_yolo = path.suffix == SUFFIXES["yolo"]
    found = yolo.objects(path, class_names) if is_yolo else voc.parse(path).objects
    if wrong := next((item for item in found if item.wrong), None):
        raise ValueError(f"{wrong.where}: {wrong.wrong}")
    if not is_yolo:
        from libs.pascal_voc_io import PascalVocReader  # labelImg's own; it passes over what it cannot read

        shown = len(PascalVocReader(str(path)).get_shapes())
        if shown != len(found):
            raise ValueError(f"{path}: labelImg would show {shown} of {len(found)} box(es); mend the file first")
        return [(item.name, item.box_xyxy) for item in found]
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if len(line.strip().split(" ")) != 5:
            raise ValueError(f"{path}: line {number}: labelImg reads five numbers with one space between; mend it")
    shares = np.array([item.box_xyxy for item in found]).reshape(-1, 4)
    boxes_xyxy = boxes.clip(in_pixels(shares, size_wh), size_wh).round(2)  # six decimals: dust
    if not boxes.areas(boxes.whole_pixels(boxes_xyxy)).all():
        raise ValueError(f"{path}: a box under one pixel, which saving would lose; remove it")
    return [(item.name, tuple(box)) for item, box in zip(found, boxes_xyxy.tolist(), strict=True)]


def write(path: Path, image_path: Path, size_wh: tuple[int, int], found: Labelled, class_names: list[str]) -> None:
    """Write one annotation file as labelImg would, the boxes rounded to whole pixels, halves up.

    Args:
        path: the XML or txt file to write.
        image_path: its image.
        size_wh: width and height of the upright image.
        found: class names and boxes; the classes of a txt file must be among ``class_names``.
        class_names: the lines of ``classes.txt``; not used for VOC.
    """
    names = [name for name, _ in found]
    boxes_xyxy = boxes.whole_pixels(np.array([box for _, box in found], dtype=float).reshape(-1, 4))
    if path.suffix == SUFFIXES["voc"]:
        voc.write_voc(path, image_path, size_wh, boxes_xyxy, names)
        return
    ids = {name: number for number, name in enumerate(class_names)}
    files.write_text(path, yolo.label_lines(Picture(image_path, size_wh, boxes_xyxy, names), ids, digits=6))


def read_all(
    pairs: Iterable[tuple[Path, Path]], image_folder: Path, csv_folder: Path
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read all annotation files of a session, given each with its image; see `read_pairs`."""
    pairs = sorted(pairs)
    if not pairs:
        return make_table([]), []
    form = next(FORMATS[name] for name, suffix in SUFFIXES.items() if pairs[0][0].suffix == suffix)
    try:
        return read_pairs(form, pairs, csv_folder, image_folder)
    except AnnotationError as error:  # not one of them could be used
        return make_table([]), [Problem("skipped file", str(pairs[0][0].parent), str(error))]


def read_class_lines(folder: Path) -> list[str]:
    """Read the names in a folder's ``classes.txt`` in order, none where there is no such file.

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
