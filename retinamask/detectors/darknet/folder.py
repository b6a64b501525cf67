"""The folder that a Darknet user trains in: written from a table, and checked before it trains for hours.

Layout: "How to train (to detect your custom objects)" in https://github.com/AlexeyAB/darknet, but counted from the
folder itself, in which Darknet is to be started. Darknet itself fails late, or trains on nonsense.
"""

import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retinamask.dataset import files, formats
from retinamask.dataset.annotations import AnnotationError, read_classes
from retinamask.dataset.formats import writing, yolo
from retinamask.dataset.formats.writing import Picture
from retinamask.dataset.formats.yolo import label_lines, place_image
from retinamask.dataset.splits import splits_of_run
from retinamask.detectors.darknet import cfg, template
from retinamask.detectors.darknet.template import YOLOV4_TINY_ANCHORS, yolov4_tiny_cfg
from retinamask.setting import check_settings, setting

CFG, DATA, NAMES, IMAGE_FOLDER, BACKUP = "yolov4-tiny-custom.cfg", "obj.data", "obj.names", "obj", "backup"
# Darknet's keys; "test" it does not read, so that those images stay held out
LISTS = {"train": "train.txt", "val": "val.txt", "test": "test.txt"}
_KEYS = {"train": "train", "val": "valid"}
_DARKNET_READS = (".jpg", ".jpeg", ".png", ".bmp")  # for another ending it finds no label file


@dataclass(frozen=True)
class FolderSettings:
    """How a folder for Darknet is made."""

    image_size: int = setting(416, "side of the network's input, divisible by 32")
    levels: int = setting(2, "heads: 2 is yolov4-tiny, 3 is yolov4-tiny-3l")
    anchors: str = setting(
        "published", "published, or kmeans over the boxes to train on", choices=("published", "kmeans")
    )
    images: str = setting("link", "link or copy the images", choices=("link", "copy"))
    seed: int = setting(0, "of the split, if none lies beside the CSV, and of kmeans", 0)

    def __post_init__(self):
        check_settings(self)


class Folder(NamedTuple):
    """A folder that was written, and its figures."""

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

    ``folder`` is new or empty.

    Raises:
        AnnotationError: the table, its images or its split cannot be used; nothing is written then.
        ValueError: impossible settings.
    """
    classes = read_classes(classes_csv)
    yolov4_tiny_cfg(len(classes), settings.image_size, settings.levels)  # says what is wrong before the long work
    with files.new_folder(folder) as new:
        with tempfile.TemporaryDirectory(dir=new) as run_dir:
            tables, classes = splits_of_run(run_dir, annotations_csv, classes_csv, settings.seed)
            sides = {side: writing.pictures(part, classes, run_dir) for side, part in tables.items()}
        names = _names([picture.path for pictures in sides.values() for picture in pictures])
        for side, pictures in sides.items():
            for picture in pictures:
                placed = new / IMAGE_FOLDER / names[picture.path]
                files.write_text(placed.with_suffix(".txt"), label_lines(picture, classes))
                place_image(picture.path, placed, settings.images)
            listed = "".join(f"{IMAGE_FOLDER}/{names[picture.path]}\n" for picture in pictures)
            files.write_text(new / LISTS[side], listed)
        files.write_text(new / NAMES, "".join(f"{name}\n" for name in classes))
        lists = {key: LISTS[side] for side, key in _KEYS.items()}
        data = {"classes": len(classes), **lists, "names": NAMES, "backup": BACKUP}
        files.write_text(new / DATA, "".join(f"{key} = {value}\n" for key, value in data.items()))
        (new / BACKUP).mkdir()  # Darknet writes its weights there, and does not make it

        sizes_wh = network_sizes(sides["train"], settings.image_size)
        published = anchors_wh = np.array(YOLOV4_TINY_ANCHORS[settings.levels], dtype=float)
        if settings.anchors == "kmeans":
            anchors_wh = template.suggest_anchors(sizes_wh, template.ANCHORS_PER_HEAD * settings.levels, settings.seed)
        max_batches = template.batches_for(len(classes), len(sides["train"]))
        text = yolov4_tiny_cfg(len(classes), settings.image_size, settings.levels, anchors_wh, max_batches)
        files.write_text(new / CFG, text)
    overlaps = [template.mean_best_overlap(sizes_wh, chosen) for chosen in (anchors_wh, published)]
    images = {side: len(pictures) for side, pictures in sides.items()}
    return Folder(Path(folder, CFG), classes, images, max_batches, anchors_wh, *overlaps)


def network_sizes(pictures: Iterable[Picture], image_size: int) -> np.ndarray:
    """Give widths and heights of all boxes as Darknet sees them, ``(N, 2)`` pixels of the network's input.

    Darknet stretches every image to the square that the network takes.
    """
    sizes = [(picture.boxes_xyxy[:, 2:] - picture.boxes_xyxy[:, :2]) / picture.size_wh for picture in pictures]
    return np.concatenate([*sizes, np.empty((0, 2))]) * image_size


def _names(paths: list[Path]) -> dict[Path, str]:
    """Choose a file name for each image, under which Darknet finds its label file.

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


def folder_problems(data_path: str | Path, cfg_path: str | Path) -> list[str]:
    """Check an ``obj.data``, everything it names, and the cfg that it is to be trained with.

    The numbers of classes have to agree, the cfg has to be one that `cfg.describe` reads, the images have to have
    label files without mistakes, and none may be both in train and in valid.

    Returns:
        One message for each problem.

    Raises:
        ValueError: one of the two files cannot be read at all.
    """
    data_path = Path(data_path)
    options, text = yolo.data_options(data_path), cfg.read(cfg_path)
    if missing := [key for key in ("classes", "train", "names") if not options.get(key)]:
        return [f"{data_path}: no {', '.join(missing)}; expected a line such as {missing[0]} = ..."]
    problems, classes = [], options["classes"]
    if not (classes.isascii() and classes.isdigit() and int(classes)):
        problems.append(f"{data_path}: classes is {classes!r}, expected a whole number above 0")
    else:
        names_path = yolo.located(data_path.parent, options["names"])
        names = yolo.described_names(data_path)
        if names_path is None or names is None:
            problems.append(
                f"{data_path}: names is {options['names']}, expected a file that is there, has one name a line and "
                "ends in .names"
            )
        elif len(names) != int(classes):
            problems.append(
                f"{names_path}: {len(names)} name(s), expected {classes} as classes = {classes} in {data_path}; "
                "each class has one line, and there is no other"
            )
        try:
            cfg.describe(text, str(cfg_path), int(classes))
        except cfg.CfgError as error:
            problems.append(str(error))
    places = {key: yolo.located(data_path.parent, options[key]) for key in ("train", "valid") if options.get(key)}
    problems += [f"{data_path}: {key} is {options[key]}, which does not exist" for key in places if not places[key]]
    listed = {key: set(yolo.listed_images(place)[0]) for key, place in places.items() if place}
    if shared := sorted(listed.get("train", set()) & listed.get("valid", set())):
        problems.append(
            f"{len(shared)} image(s) are in train and in valid, such as {shared[0]}; figures on them mean nothing "
            "about other images"
        )
    try:
        problems += map(str, formats.read("yolo", [data_path], data_path.parent)[1])
    except AnnotationError as error:
        problems.append(str(error))
    return problems
