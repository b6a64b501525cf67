"""keras-retinanet's CSV as a format beside the others: its images are checked and its boxes clipped like theirs."""

import os
from collections.abc import Iterator
from pathlib import Path

from retinamask.dataset import annotations
from retinamask.dataset.annotations import BOX_COLUMNS
from retinamask.dataset.formats.entries import Asked, Entry, FoundObject
from retinamask.dataset.formats.writing import Picture
from retinamask.dataset.image_files import is_image

FILE_NAME = "annotations.csv"
CLASSES_NAME = "classes.csv"


def select(files: list[Path]) -> list[Path]:
    """All files ``annotations.csv``; where there are none, all CSV files but ``classes.csv``."""
    tables = [path for path in files if path.suffix.lower() == ".csv" and path.name != CLASSES_NAME]
    return [path for path in tables if path.name == FILE_NAME] or tables


def entries(path: Path, asked: Asked) -> Iterator[Entry | Path]:
    """Read one CSV: one entry an image in its order, and the other images in the same folders.

    The user named the list, so that its paths may lead anywhere. One with bad rows is not read; all are named.
    Format: https://github.com/fizyr/keras-retinanet#csv-datasets.
    """
    refuse_detections(path)
    folders: dict[Path, None] = {}
    for name, rows in annotations.read_annotations(path).groupby("image_path", sort=False):
        where, boxes = f"{path} image {name!r}", annotations.objects(rows)
        pairs = zip(boxes["class_name"], boxes[BOX_COLUMNS].itertuples(index=False, name=None), strict=True)
        image_path = Path(os.path.normpath(path.parent / name))
        folders |= {image_path.parent: None}
        objects = [FoundObject(where, *pair) for pair in pairs]
        yield Entry(path, where, objects, name, image_path if image_path.is_file() else None)
    for folder in filter(Path.is_dir, folders):
        yield from (other for other in sorted(folder.iterdir()) if is_image(other) and other.name[0] != ".")


def refuse_detections(path: Path) -> None:
    """Raise `ValueError` for a table with a score in each row: detections must not become labels unseen."""
    try:
        annotations.parse_csv(path, annotations.DETECTION_COLUMNS)
    except ValueError:
        return
    raise ValueError(
        f"{path}: detections with scores, expected annotations; to use them, leave out header and last column"
    )


def write_csv(new: Path, pictures: list[Picture], classes: dict[str, int], folder: Path) -> None:
    """Write ``annotations.csv`` (whole pixels, image paths relative to it) and ``classes.csv``."""
    rows = []
    for picture in pictures:
        image_path, boxes = annotations.relative_path(picture.path, folder), picture.boxes_xyxy.tolist()
        rows += [(image_path, *box, name) for box, name in zip(boxes, picture.class_names, strict=True)]
        rows += [(image_path, *[None] * 5)] * (not boxes)
    annotations.write_annotations(annotations.make_table(rows), new / FILE_NAME)
    annotations.write_classes(classes, new / CLASSES_NAME)
