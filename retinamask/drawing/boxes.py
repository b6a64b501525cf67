"""Boxes drawn on an image. Lines and text grow with it, so that they are as legible on a thumbnail as on a photo."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageColor, ImageDraw, ImageFont

from retinamask.dataset.annotations import objects
from retinamask.dataset.boxes import overlaps
from retinamask.drawing.style import class_colors, shortened, text_font

_SHADOW = (0, 0, 0, 110)
_FALLBACK_COLOR = "#8c8c8c"  # for a class that is not among the classes
_LABELLED = 0.4  # share of an image that labels may cover, or there are none


def draw_boxes(
    image_rgb: np.ndarray,
    boxes: pd.DataFrame,
    classes: dict[str, int],
    ground_truth: pd.DataFrame | None = None,
    labels: bool = True,
) -> Image.Image:
    """Return a copy of the image with its boxes, each labelled with its class and, if it has them, track and score.

    Args:
        image_rgb: ``uint8`` array of shape ``(height, width, 3)``, which stays as it is.
        boxes: annotations or detections of this image; the best scores are drawn last, on top.
        classes: name to id; decides the colors.
        ground_truth: annotations to draw below the boxes, as dashed white lines without labels.
        labels: whether to write them; on a small picture of many boxes they would hide it.
    """
    image = Image.fromarray(np.ascontiguousarray(image_rgb))
    draw = ImageDraw.Draw(image, "RGBA")
    line_width = max(2, round(max(image.size) / 240))
    if ground_truth is not None:
        for row in objects(ground_truth).itertuples(index=False):
            _draw_dashed(draw, _pixels(row, image.size), line_width)
    boxes = objects(boxes)
    if "score" in boxes.columns:
        boxes = boxes.sort_values("score", kind="stable")
    rows, known = list(boxes.itertuples(index=False)), class_colors(classes)
    colors = [known.get(row.class_name, _FALLBACK_COLOR) for row in rows]
    for row, color in zip(rows, colors, strict=True):
        left, top, right, bottom = _pixels(row, image.size)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_SHADOW, width=line_width + 2)
        draw.rectangle((left, top, right, bottom), outline=color, width=line_width)
    if labels:  # after all outlines, so that no line crosses a label
        _draw_labels(draw, rows[::-1], image.size, line_width, colors[::-1])
    return image


def place_labels(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
    """Find a place for the label of each box: at the box, or the nearest that is free.

    Args:
        boxes_xyxy: shape ``(N, 4)``; the first choose first.
        sizes_wh: of the labels, shape ``(N, 2)``.
        image_wh: of the image, inside which all labels stay, as far as they are not larger.

    Returns:
        The labels as boxes ``int (N, 4)``. They overlap only where there is no room.
    """
    boxes_xyxy, image_wh = np.asarray(boxes_xyxy, float).reshape(-1, 4), np.asarray(image_wh)
    placed = np.empty((0, 4))
    for index, (size_wh, (x1, y1, x2, y2)) in enumerate(zip(np.asarray(sizes_wh), boxes_xyxy, strict=True)):
        width, height = size_wh
        last = np.maximum(0, image_wh - size_wh)
        # Above, below, inside and beside the box.
        wanted = np.array([[x1, x2 - width, x2, x1 - width], [y1 - height, y2, y1, y2 - height]])
        xs, ys = np.round(np.clip(wanted, 0, last[:, None]))
        covered = _covered(xs, ys, size_wh, placed)
        hidden = _covered(xs, ys, size_wh, np.delete(boxes_xyxy, index, axis=0))
        hidden += 0.5 * _covered(xs, ys, size_wh, boxes_xyxy[index : index + 1])
        hidden += height * (np.abs(xs - wanted[0]) + np.abs(ys - wanted[1])[:, None])  # moved by the image's edge
        if covered.min() > 0:  # the nearest free place anywhere
            xs, ys = (np.arange(0, end + 1, max(1, side // 3)) for end, side in zip(last, size_wh, strict=True))
            covered = _covered(xs, ys, size_wh, placed)
            hidden = np.abs(xs + (width - x1 - x2) / 2) + np.abs(ys + (height - y1 - y2) / 2)[:, None]
        best = np.unravel_index(np.lexsort((hidden.ravel(), covered.ravel()))[0], covered.shape)
        corner = np.array([xs[best[1]], ys[best[0]]])
        placed = np.append(placed, [[*corner, *(corner + size_wh)]], axis=0)
    return placed.astype(int)


def _covered(xs: np.ndarray, ys: np.ndarray, size_wh: np.ndarray, others_xyxy: np.ndarray) -> np.ndarray:
    """Area that others cover of a label of ``size_wh`` with its left top corner at each ``x`` and ``y``, ``(Y, X)``."""
    shared = []
    for axis, starts in enumerate((xs, ys)):
        ends = np.minimum(starts[:, None] + size_wh[axis], others_xyxy[:, 2 + axis])
        shared.append(np.clip(ends - np.maximum(starts[:, None], others_xyxy[:, axis]), 0, None))
    return shared[1] @ shared[0].T


def _pixels(row: NamedTuple, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the first and last pixels of a box that are inside the image: left, top, right, bottom."""
    width, height = size_wh
    left, top = min(max(round(row.x1), 0), width - 1), min(max(round(row.y1), 0), height - 1)
    # The right and bottom edges are half-open: the last pixel is the one before.
    right, bottom = min(round(row.x2) - 1, width - 1), min(round(row.y2) - 1, height - 1)
    return left, top, max(left, right), max(top, bottom)


def _draw_dashed(draw: ImageDraw.ImageDraw, box: tuple, line_width: int) -> None:
    """Draw a dashed white rectangle on a dark one, so that it shows on bright images too."""
    left, top, right, bottom = box
    thickness, dash = max(1, line_width // 2), 3 * line_width
    draw.rectangle(box, outline=_SHADOW, width=thickness)
    for x in range(left, right + 1, 2 * dash):
        for y in (top, max(top, bottom - thickness + 1)):
            draw.rectangle((x, y, min(x + dash, right), min(y + thickness - 1, bottom)), fill="white")
    for y in range(top, bottom + 1, 2 * dash):
        for x in (left, max(left, right - thickness + 1)):
            draw.rectangle((x, y, min(x + thickness - 1, right), min(y + dash, bottom)), fill="white")


def _draw_labels(
    draw: ImageDraw.ImageDraw, rows: list[NamedTuple], size_wh: tuple[int, int], line_width: int, colors: list[str]
) -> None:
    """Draw track, class and score of each box on a chip; a line leads to one that is not at its box.

    Where there is no room they get smaller, then the score has to do, since the color says the class.
    """
    boxes_xyxy = np.array([_pixels(row, size_wh) for row in rows]).reshape(-1, 4) + [0, 0, 1, 1]
    chips = np.empty((0, 4), int)
    for size, named in ((max(12, max(size_wh) / 50), True), (9, True), (9, False)):
        font = text_font(size)
        padding, height = round(font.size / 3), round(font.size * 1.35)
        texts = [_label_text(row, named, font, size_wh[0] - 2 * padding) for row in rows]
        if not all(texts):
            continue
        sizes_wh = [(round(font.getlength(text)) + 2 * padding, height) for text in texts]
        if sum(width * height for width, height in sizes_wh) > _LABELLED * size_wh[0] * size_wh[1]:
            chips = chips[:0]  # they would hide the image, and still each other
            continue
        chips = place_labels(boxes_xyxy, sizes_wh, size_wh)
        if not (overlaps(chips, chips) > np.eye(len(chips))).any():
            break
    for chip, box, color in zip(chips, boxes_xyxy, colors, strict=False):
        ends = [(np.clip(one[:2], other[:2], other[2:])) for one, other in ((box, chip), (chip, box))]
        if np.abs(ends[0] - ends[1]).max() > 2:
            draw.line([tuple(end) for end in ends], fill=color, width=max(1, line_width // 2))
    for (left, top, right, bottom), text, color in zip(chips.tolist(), texts, colors, strict=False):
        draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
        # Black or white, whichever contrasts more by WCAG 2.2's relative luminance.
        channels = np.array(ImageColor.getrgb(color)) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        ink = "black" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white"
        draw.text((left + padding, (top + bottom) / 2), text, fill=ink, font=font, anchor="lm")


def _label_text(row: NamedTuple, named: bool, font: ImageFont.FreeTypeFont, room: float) -> str:
    """Return what a label says; nothing if that needs more room, and a long name without a score with dots."""
    score, track = getattr(row, "score", None), getattr(row, "track", None)
    if score is None or pd.isna(score):
        return shortened(row.class_name, font, room)
    text = f"{' '.join(row.class_name.split())} {score:.2f}" if named else f"{score:.2f}"
    text = text if track is None or pd.isna(track) else f"#{track} {text}"
    return text if font.getlength(text) <= room or not named else ""
