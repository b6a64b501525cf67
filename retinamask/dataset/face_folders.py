"""Class folders of faces, checked for training a classifier, and split in two without copies across.

Above `splits` and `crops`, which writes such folders from annotated images.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from retinamask.dataset.annotations import AnnotationError, first_lines, read_classes
from retinamask.dataset.copies import ImageGroups, by_path, image_groups
from retinamask.dataset.crops import CLASSES_CSV, FACES_CSV, GROUP_BY
from retinamask.dataset.formats import read_mapped
from retinamask.dataset.image_files import walk
from retinamask.dataset.images import EXTENSIONS
from retinamask.dataset.splits import deal_images, tables_of


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
    listed = folder / CLASSES_CSV
    known = read_classes(listed) if listed.is_file() else None
    table, classes, problems = read_mapped([folder], folder, known=known, format_name="class_folders")
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

    Near copies of a picture stay together, and faces that `retinamask.dataset.crops.cut_faces` cut out of one image.

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
