"""Checks on boxes: where they lie, how small they become, and whether one stands there twice."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import boxes, images
from retinamask.dataset.annotations import BOX_COLUMNS, image_paths, objects
from retinamask.dataset.audit.findings import Example, Finding, found
from retinamask.dataset.audit.image_checks import shown
from retinamask.dataset.audit.looking import Look
from retinamask.dataset.formats.reading import CLIP_LIMIT


class ImageBoxes(NamedTuple):
    """The boxes of one image: ``boxes_xyxy`` of shape ``(N, 4)`` and ``N`` class names."""

    path: str
    boxes_xyxy: np.ndarray
    class_names: list[str]


def by_image(table: pd.DataFrame) -> Iterator[ImageBoxes]:
    """The boxes of each image that has some, in the table's order."""
    rows = objects(table)
    boxes_xyxy, names = rows[BOX_COLUMNS].to_numpy(dtype=float), rows["class_name"].to_numpy()
    positions = rows.groupby("image_path", sort=False).indices
    for path in dict.fromkeys(rows["image_path"]):
        yield ImageBoxes(path, boxes_xyxy[positions[path]], names[positions[path]].tolist())


def check_boxes(
    table: pd.DataFrame,
    looks: Mapping[str, Look],
    written_sizes: Mapping[str, tuple[int, int]],
    image_size: int,
    tiny_side: float,
    same_overlap: float,
) -> list[Finding]:
    """All findings about boxes.

    Args:
        table: annotations.
        looks: by path; boxes of images that could not be read are judged only against each other.
        written_sizes: sizes that XML files name, by path; images may be left out.
        image_size: side in pixels of the square that the model fits an image into.
        tiny_side: boxes with a shorter side below this, in pixels of the model's input, are tiny.
        same_overlap: boxes that overlap by a larger IoU are the same box twice.
    """
    unturned, outside, past, tiny, twice, quarrels = [], [], [], [], [], []
    for image in by_image(table):
        look = looks[image.path]
        if look.upright_wh:
            if case := _drawn_unturned(image, look, written_sizes.get(image.path)):
                unturned.append(case)
            else:
                _sort_by_reach(image, look, outside, past)
            tiny += _tiny(image, images.fit_scale(look.upright_wh, image_size), tiny_side)
        _sort_same(image, same_overlap, twice, quarrels)
    empty = [Example((path,)) for path in image_paths(table[table["x1"].isna()])]
    return [
        *found("boxes of the unturned image", "error", "images", _UNTURNED, unturned),
        *found("box outside the image", "error", "boxes", _OUTSIDE, outside),
        *found("two classes for one box", "error", "boxes", _QUARREL, quarrels),
        *found("box past the edge", "warning", "boxes", _PAST, past),
        *found("tiny box", "warning", "boxes", _TINY.format(tiny_side, image_size), tiny),
        *found("same box twice", "warning", "boxes", _TWICE.format(same_overlap), twice),
        *found("image without objects", "note", "images", _EMPTY, empty),
    ]


_UNTURNED = (
    "Drawn on the image as stored, without the turn that EXIF asks for: retinamask, labelImg and OpenCV turn it, and "
    "the boxes no longer fit. Store the pixels upright, as the boxes need them, and drop the EXIF orientation."
)
_OUTSIDE = (
    f"More than {CLIP_LIMIT} pixels past the edge, or not on the image at all: boxes of another image or of another "
    "size of it. Redraw or drop them."
)
_PAST = f"Up to {CLIP_LIMIT} pixels past the edge, as drawn by hand. Clip them; the readers of annotation files do."
_TINY = (
    "A side of less than {:g} pixels once the image is fitted into {} pixels: hardly anything is left to learn from. "
    "Use a larger image size, cut the images into tiles, or drop such boxes."
)
_TWICE = "Two boxes of one class that overlap by an IoU above {:g}: one face, counted twice. Delete one of them."
_QUARREL = "Nearly the same box with two classes: at least one is wrong. Look, and delete it."
_EMPTY = "Backgrounds are welcome, up to a point. Look whether their faces were forgotten."


def _drawn_unturned(image: ImageBoxes, look: Look, written_wh: tuple[int, int] | None) -> Example | None:
    """The case that an image's boxes fit it only without the turn of EXIF."""
    if look.size_wh == look.upright_wh:
        return None
    detail = f"stored as {shown(look.size_wh)}, upright {shown(look.upright_wh)}"
    if written_wh == look.size_wh:
        return Example((image.path,), f"XML says {shown(written_wh)}; {detail}")
    reaches = [boxes.reach_outside(image.boxes_xyxy, size).max() for size in (look.upright_wh, look.size_wh)]
    if written_wh is None and reaches[0] > CLIP_LIMIT >= reaches[1]:
        return Example((image.path,), f"boxes reach {reaches[0]:g} px past the upright image; {detail}")
    return None


def _sort_by_reach(image: ImageBoxes, look: Look, outside: list[Example], past: list[Example]) -> None:
    """Put boxes that reach past the image with the bad cases or with the harmless ones."""
    reaches = boxes.reach_outside(image.boxes_xyxy, look.upright_wh)
    gone = boxes.areas(boxes.clip(image.boxes_xyxy, look.upright_wh)) == 0
    for position in np.flatnonzero(reaches > 0):
        box = image.boxes_xyxy[position]
        detail = f"{shown_box(box)} reaches {reaches[position]:g} px past {shown(look.upright_wh)}"
        is_bad = gone[position] or reaches[position] > CLIP_LIMIT
        (outside if is_bad else past).append(Example((image.path,), detail, tuple(box.tolist())))


def _tiny(image: ImageBoxes, scale: float, tiny_side: float) -> list[Example]:
    sides = (image.boxes_xyxy[:, 2:] - image.boxes_xyxy[:, :2]) * scale
    return [
        Example(
            (image.path,),
            f"{shown_box(image.boxes_xyxy[position])} becomes {sides[position, 0]:.1f} x {sides[position, 1]:.1f}",
            tuple(image.boxes_xyxy[position].tolist()),
        )
        for position in np.flatnonzero(sides.min(axis=1) < tiny_side)
    ]


def _sort_same(image: ImageBoxes, same_overlap: float, twice: list[Example], quarrels: list[Example]) -> None:
    """Put each pair of boxes that are nearly one with its kind: of one class, or of two."""
    overlaps = np.triu(boxes.overlaps(image.boxes_xyxy, image.boxes_xyxy), k=1)
    for first, second in np.argwhere(overlaps > same_overlap):
        names = image.class_names[first], image.class_names[second]
        box = image.boxes_xyxy[first]
        detail = f"{' and '.join(dict.fromkeys(names))} at {shown_box(box)}, IoU {overlaps[first, second]:.2f}"
        (twice if names[0] == names[1] else quarrels).append(Example((image.path,), detail, tuple(box.tolist())))


def shown_box(box_xyxy: np.ndarray) -> str:
    """A box in words."""
    return "(" + ", ".join(f"{edge:g}" for edge in box_xyxy) + ")"
