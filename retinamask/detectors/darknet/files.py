"""The folder that a Darknet user trains in: cfg, data file, names, image lists, images and label files.

Above `template` and `anchors`; the label files are those of `retinamask.dataset.formats.yolo`. Layout: "How to
train (to detect your custom objects)" in https://github.com/AlexeyAB/darknet, but counted from the folder itself, in
which Darknet is to be started.
"""

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinamask.dataset import files
from retinamask.dataset.annotations import AnnotationError, read_classes
from retinamask.dataset.formats import writing
from retinamask.dataset.formats.writing import Picture
from retinamask.dataset.formats.yolo import label_lines, place_image
from retinamask.dataset.splits import splits_of_run
from retinamask.detectors.darknet import anchors
from retinamask.detectors.darknet.template import (
    ANCHORS_PER_HEAD,
    YOLOV4_TINY_ANCHORS,
    batches_for,
    yolov4_tiny_cfg,
)

ANCHORS, IMAGES = ("published", "kmeans"), ("link", "copy")
CFG, DATA, NAMES, IMAGE_FOLDER, BACKUP = "yolov4-tiny-custom.cfg", "obj.data", "obj.names", "obj", "backup"
# Darknet's keys; "test" it does not read, so that those images stay held out
LISTS = {"train": "train.txt", "val": "val.txt", "test": "test.txt"}
_KEYS = {"train": "train", "val": "valid"}
_DARKNET_READS = (".jpg", ".jpeg", ".png", ".bmp")  # for another ending it finds no label file


class FolderSettings(NamedTuple):
    """How a folder for Darknet is made."""

    image_size: int = 416  # of the network's input, divisible by 32
    levels: int = 2  # heads: 2 is yolov4-tiny, 3 yolov4-tiny-3l
    anchors: str = "published"  # or "kmeans", of the boxes to train on
    images: str = "link"  # or "copy"
    seed: int = 0  # of the split, where none lies beside the table, and of k-means


class Folder(NamedTuple):
    """A folder that was written, and what there is to say about it."""

    cfg: Path
    classes: dict[str, int]
    images: dict[str, int]  # by side: train, val, test
    max_batches: int
    anchors_wh: np.ndarray  # (3 * levels, 2)
    overlap: float  # mean best IoU of the boxes to train on with these anchors
    published_overlap: float  # and with the published ones


def write_folder(
    annotations_csv: str | Path, classes_csv: str | Path, folder: str | Path, settings: FolderSettings
) -> Folder:
    """Write everything that Darknet needs to train YOLOv4-tiny on a table, whole or not at all.

    The split is the one beside the table if there is one, else dealt anew; copies of a picture stay together either
    way. Boxes are in whole pixels, as our own training takes them.

    Args:
        annotations_csv, classes_csv: the table and its classes.
        folder: new or empty.
        settings: see `FolderSettings`.

    Raises:
        AnnotationError: the table, its images or its split cannot be used; nothing is written then.
        ValueError: impossible settings.
    """
    classes = read_classes(classes_csv)
    _check(settings)
    yolov4_tiny_cfg(len(classes), settings.image_size, settings.levels)  # says what is wrong before the long work
    with writing.new_folder(folder) as new:
        with tempfile.TemporaryDirectory(dir=new) as run_dir:
            tables, classes = splits_of_run(run_dir, annotations_csv, classes_csv, settings.seed)
            sides = {side: writing.pictures(part, classes, run_dir) for side, part in tables.items()}
        _write_images(new, sides, classes, settings.images)
        _write_data(new, list(classes))
        return _write_cfg(new, Path(folder), sides, classes, settings)


def network_sizes(pictures: Iterable[Picture], image_size: int) -> np.ndarray:
    """Widths and heights of all boxes as Darknet sees them, ``(N, 2)`` pixels of the network's input.

    Darknet stretches every image to the square that the network takes.
    """
    sizes = [(picture.boxes_xyxy[:, 2:] - picture.boxes_xyxy[:, :2]) / picture.size_wh for picture in pictures]
    return np.concatenate([*sizes, np.empty((0, 2))]) * image_size


def _check(settings: FolderSettings) -> None:
    for name, allowed in (("anchors", ANCHORS), ("images", IMAGES)):
        if getattr(settings, name) not in allowed:
            raise ValueError(f"{name} is {getattr(settings, name)!r}, expected one of: {', '.join(allowed)}")


def _write_images(new: Path, sides: dict[str, list[Picture]], classes: dict[str, int], images: str) -> None:
    """Images and label files side by side, and the lists of the images."""
    names = _names([picture.path for pictures in sides.values() for picture in pictures])
    for side, pictures in sides.items():
        for picture in pictures:
            placed = new / IMAGE_FOLDER / names[picture.path]
            files.write_text(placed.with_suffix(".txt"), label_lines(picture, classes))
            place_image(picture.path, placed, images)
        listed = "".join(f"{IMAGE_FOLDER}/{names[picture.path]}\n" for picture in pictures)
        files.write_text(new / LISTS[side], listed)


def _names(paths: list[Path]) -> dict[Path, str]:
    """A file name for each image, under which Darknet finds its label file.

    It replaces a folder called ``images`` by ``labels``, and the ending only where the name has it once: so there
    are no folders, and no further dots.

    Raises:
        AnnotationError: an ending for which Darknet looks for no label file.
    """
    unread = [path for path in paths if path.suffix.lower() not in _DARKNET_READS]
    if unread:
        raise AnnotationError(
            f"{len(unread)} image(s) such as {unread[0]}: Darknet finds label files only for "
            f"{', '.join(_DARKNET_READS)}; convert them and name the new files in the table"
        )
    names, used = {}, {"classes"}  # classes.txt would be taken for a list of classes
    for path, stem in writing.stems(paths).items():
        plain = re.sub(r"[./]", "_", stem)
        while plain.casefold() in used:
            plain += "_"
        used.add(plain.casefold())
        names[path] = plain + path.suffix.lower()
    return names


def _write_data(new: Path, class_names: list[str]) -> None:
    files.write_text(new / NAMES, "".join(f"{name}\n" for name in class_names))
    lists = {key: LISTS[side] for side, key in _KEYS.items()}
    data = {"classes": len(class_names), **lists, "names": NAMES, "backup": BACKUP}
    files.write_text(new / DATA, "".join(f"{key} = {value}\n" for key, value in data.items()))
    (new / BACKUP).mkdir()  # Darknet writes its weights there, and does not make it


def _write_cfg(
    new: Path, folder: Path, sides: dict[str, list[Picture]], classes: dict[str, int], settings: FolderSettings
) -> Folder:
    sizes_wh = network_sizes(sides["train"], settings.image_size)
    published = anchors_wh = np.array(YOLOV4_TINY_ANCHORS[settings.levels], dtype=float)
    if settings.anchors == "kmeans":
        anchors_wh = anchors.suggest(sizes_wh, ANCHORS_PER_HEAD * settings.levels, settings.seed)
    max_batches = batches_for(len(classes), len(sides["train"]))
    text = yolov4_tiny_cfg(len(classes), settings.image_size, settings.levels, anchors_wh, max_batches)
    files.write_text(new / CFG, text)
    overlaps = [anchors.mean_best_overlap(sizes_wh, chosen) for chosen in (anchors_wh, published)]
    images = {side: len(pictures) for side, pictures in sides.items()}
    return Folder(folder / CFG, classes, images, max_batches, anchors_wh, *overlaps)
