"""Faces as pictures of their own: cut out of annotated images, and class folders of them, read and split.

One annotation effort serves both: the boxes train a detector, what is in them a classifier.
"""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from retinamask.dataset import boxes, images
from retinamask.dataset.annotations import (
    BOX_COLUMNS,
    AnnotationError,
    first_lines,
    make_table,
    objects,
    write_annotations,
    write_classes,
)
from retinamask.dataset.copies import ImageGroups, by_path, image_groups
from retinamask.dataset.files import new_folder
from retinamask.dataset.formats import read_annotations
from retinamask.dataset.image_files import walk
from retinamask.dataset.images import EXTENSIONS
from retinamask.dataset.splits import deal_images, tables_of
from retinamask.progress import track

MARGIN = 0.2
FACES_CSV = "faces.csv"
CLASSES_CSV = "classes.csv"
GROUP_BY = r"([0-9]{5,})_[^/]*$"
"""For `retinamask.dataset.copies.image_groups`: faces out of one image, or out of near copies of it, stay together."""


class Crops(NamedTuple):
    """Faces that were cut out.

    Attributes:
        table: an annotation table: each face with one box that covers it, paths relative to ``folder``.
        folder: where ``faces.csv`` and the class folders are.
        left_out: one message for each box or image that gave no face.
    """

    table: pd.DataFrame
    folder: Path
    left_out: list[str]


def cut_faces(
    table: pd.DataFrame,
    folder: str | Path,
    out: str | Path,
    margin: float = MARGIN,
    least_side: int = 8,
    classes: dict[str, int] | None = None,
    replace: bool = False,
) -> Crops:
    """Write what is in the boxes of a table as ``<out>/<class>/<group>_<stem>_<n>.png``, and ``faces.csv``.

    The number in front, see `GROUP_BY`, is the same for faces out of one image and out of near copies of it, so that
    a split can keep them together.

    Args:
        table, folder: annotations, and the folder that their image paths are relative to.
        out: a new or empty folder.
        margin: see `crop`.
        least_side: boxes with a shorter side of fewer pixels are left out.
        classes: name to id, for a ``classes.csv`` beside the table.
        replace: remove the faces of an earlier call from ``out``.

    Raises:
        AnnotationError: ``out`` holds something, a class cannot name a folder, or there is not one face.
    """
    _check_margin(margin)
    found = objects(table)
    bad = [name for name in found["class_name"].unique() if _safe(name) != name or name.strip(". ") != name]
    if bad:  # on one system or another
        raise AnnotationError(f"the class {bad[0]!r} cannot be the name of a folder; rename it")
    grouped = image_groups(found["image_path"], folder)
    numbers = dict(zip(grouped.paths, grouped.numbers.tolist(), strict=True))
    left_out: list[str] = []
    rows: list[tuple] = []
    taken: Counter[str] = Counter()
    if replace and Path(out, FACES_CSV).is_file():
        shutil.rmtree(out)
    with new_folder(out) as temporary:
        for path, of_image in track(found.groupby("image_path", sort=False), "cutting faces", "image"):
            try:
                image_rgb = images.read_image(Path(folder, path))
            except images.ImageError as error:
                left_out.append(str(error))
                continue
            inside = boxes.clip(of_image[BOX_COLUMNS].to_numpy(float), image_rgb.shape[1::-1])
            shorter = (inside[:, 2:] - inside[:, :2]).min(1)
            for box, side in zip(inside[shorter < least_side].tolist(), shorter[shorter < least_side], strict=True):
                shown = f"{path}: box {box} has {max(side, 0):g} pixels on its shorter side"
                left_out.append(f"{shown}, expected {least_side}")
            large = of_image[shorter >= least_side]
            cut = crop(image_rgb, large[BOX_COLUMNS].to_numpy(float), margin)
            for face_rgb, name in zip(cut, large["class_name"], strict=True):
                stem = f"{name}/{numbers[path]:05d}_{_safe(Path(path).stem)}"
                taken[stem.casefold()] += 1  # there are file systems to which A and a are one name
                rows.append((f"{stem}_{taken[stem.casefold()]}.png", 0, 0, *face_rgb.shape[1::-1], name))
                (temporary / name).mkdir(exist_ok=True)
                Image.fromarray(face_rgb).save(temporary / rows[-1][0])  # the whole folder gets its name at the end
        if not rows:
            more = f", such as: {left_out[0]}" if left_out else ""
            raise AnnotationError(f"no face could be cut out of {found['image_path'].nunique()} image(s){more}")
        faces = make_table(rows)
        write_annotations(faces, temporary / FACES_CSV)
        if classes:
            write_classes(classes, temporary / CLASSES_CSV)
    return Crops(faces, Path(out), left_out)


def crop(image_rgb: np.ndarray, boxes_xyxy: np.ndarray, margin: float = MARGIN) -> list[np.ndarray]:
    """Cut boxes out of an image, with a margin around, as squares as far as the image allows.

    A square's side is the box's longer side and twice the margin. It is moved into the image where it sticks out,
    and cut where it is larger than the image.

    Args:
        image_rgb: ``uint8`` of shape ``(height, width, 3)``.
        boxes_xyxy: ``(N, 4)`` in its pixels; they may reach outside.
        margin: on each side, as a share of the box's longer side.

    Returns:
        ``N`` copies of parts of the image; one without a pixel for a box that has no area in it.
    """
    size_wh = image_rgb.shape[1::-1]
    return [image_rgb[y1:y2, x1:x2].copy() for x1, y1, x2, y2 in squares(boxes_xyxy, size_wh, margin).tolist()]


def squares(boxes_xyxy: np.ndarray, size_wh: tuple[int, int], margin: float = MARGIN) -> np.ndarray:
    """The parts of an image of ``size_wh`` pixels that `crop` cuts, ``int (N, 4)``; zeros for an empty one."""
    _check_margin(margin)
    boxes_xyxy = np.asarray(boxes_xyxy, float).reshape(-1, 4)
    sides_wh = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    wanted = sides_wh.max(1, initial=0, keepdims=True) * (1 + 2 * margin)
    shown_wh = np.minimum(wanted, size_wh)
    left_top = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:] - shown_wh) / 2
    left_top = np.clip(left_top, 0, size_wh - shown_wh)
    whole_wh = np.clip(np.rint(shown_wh), 1, size_wh)
    left_top = np.clip(np.rint(left_top), 0, size_wh - whole_wh)
    parts = np.concatenate([left_top, left_top + whole_wh], 1).astype(int)
    parts[boxes.areas(boxes.clip(boxes_xyxy, size_wh)) <= 0] = 0
    return parts


def _check_margin(margin: float) -> None:
    if not 0 <= margin <= 5:  # false for nan too
        raise ValueError(f"margin is {margin}, expected 0 to 5, as a share of the box's longer side")


def _safe(name: str) -> str:
    """A name without what no file system, or not every one, has in names."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name)


class FaceFolders(NamedTuple):
    """Faces in class folders.

    Attributes:
        table: each image with one box that covers it, paths relative to the folder.
        classes: name to id: those of a ``classes.csv`` in the folder, else the folders' names in their order.
        left_out: one message for each file or folder that could not be used.
    """

    table: pd.DataFrame
    classes: dict[str, int]
    left_out: list[str]


class FaceSplit(NamedTuple):
    """Both sides of a split, and the groups that it kept together."""

    train: pd.DataFrame
    val: pd.DataFrame
    groups: ImageGroups


def read_face_folders(folder: str | Path, strict: bool = False) -> FaceFolders:
    """Read ``<folder>/<class>/*``; every image is decoded once.

    Args:
        folder: the folder of the class folders.
        strict: refuse a folder that holds anything that cannot be used, instead of leaving it out.

    Raises:
        AnnotationError: no folder, no image, images of fewer than two classes, or with ``strict`` what was left out.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AnnotationError(f"{folder} is not a folder; expected a folder of class folders, such as with_mask")
    if not walk(folder).images():
        raise AnnotationError(
            f"no image below {folder}; expected a folder for each class with files ending in {', '.join(EXTENSIONS)}"
        )
    table, classes, problems = read_annotations(folder, folder, format_name="class_folders")
    left_out = [*no_images(folder), *map(str, problems)]
    if strict and left_out:
        raise AnnotationError(f"{folder} is not sound:\n{first_lines(left_out)}")
    found = sorted(table["class_name"].unique())
    if len(found) < 2:
        raise AnnotationError(
            f"{folder} has images of one class alone, {found[0]}; expected a folder for each of at least two classes"
        )
    return FaceFolders(table, classes, left_out)


def split_faces(
    table: pd.DataFrame,
    folder: str | Path,
    val_share: float = 0.2,
    seed: int = 0,
    group_by: str = "",
    by_chance: bool = False,
) -> FaceSplit:
    """Deal faces to training and validation, the classes balanced as well as groups allow.

    Near copies of a picture stay together, and faces that `cut_faces` cut out of one image.

    Args:
        table: faces, paths relative to ``folder``.
        val_share: share of the images for validation.
        seed: another one deals otherwise.
        group_by: pattern, see `retinamask.dataset.copies.image_groups`; for cut faces `GROUP_BY` beside it.
        by_chance: deal single images without a look at copies, as the published recipes do: for comparison only,
            since copies of training images make every figure on such validation images too good.

    Raises:
        AnnotationError: too few groups, or a side without an image.
    """
    if not 0 < val_share < 1:
        raise ValueError(f"val_share is {val_share}, expected more than 0 and less than 1")
    patterns = group_by, GROUP_BY if Path(folder, FACES_CSV).is_file() else ""
    paths = table["image_path"]
    groups = by_path(paths) if by_chance else image_groups(paths, folder, patterns)
    sides = deal_images(table, groups, {"val": val_share, "train": 1 - val_share}, seed)
    tables = tables_of(table, sides, ("train", "val"))
    return FaceSplit(tables["train"], tables["val"], groups)


def no_images(folder: Path) -> list[str]:
    """Messages about files among the images that are none by their names."""
    seen = walk(folder)
    found = set(seen.images())
    among, known = {path.parent for path in found}, {*found, folder / FACES_CSV, folder / CLASSES_CSV}
    expected = f"is no image; expected files ending in {', '.join(EXTENSIONS)}"
    return [f"{path} {expected}" for path in seen.files if path.parent in among and path not in known]
