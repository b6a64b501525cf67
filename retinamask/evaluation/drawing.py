"""Boxes drawn on images, and many such images on one contact sheet, for judging by eye.

Works on images in memory and on the tables of `retinamask.dataset.annotations`; saves nothing. Lines and text
grow with the image, so that they are as legible on a thumbnail as on a photo. `plots` takes its class colors
from here, so that a class looks the same everywhere.
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from retinamask.dataset.annotations import BOX_COLUMNS, objects
from retinamask.dataset.boxes import overlaps
from retinamask.dataset.images import read_image

# The palette of Okabe and Ito, which the common kinds of colour blindness can tell apart
# (https://jfly.uni-koeln.de/color/). Masks are green and bare faces red wherever they come in the class list.
GREEN, VERMILLION, AMBER = "#009e73", "#d55e00", "#e69f00"
OTHER_COLORS = (AMBER, "#0072b2", "#cc79a7", "#56b4e9", "#f0e442", "#999999")
# What the public sets call their classes, letters alone: with_mask, WithMask, face-no-mask, mask_weared_incorrect, ...
MASK_NAMES = {"mask", "masked", "withmask", "facemask", "facewithmask", "maskedface", "correctmask"}
NO_MASK_NAMES = {"nomask", "unmasked", "withoutmask", "facenomask", "facewithoutmask", "unmaskedface", "barefaced"}
WORN_WRONGLY = ("incorrect", "wrong", "improper")  # anywhere in a name
FALLBACK_COLOR = "#8c8c8c"  # for a class that is not among the classes

INK, FADED_INK, PAPER, CELL = "#1f2933", "#66727f", "#ffffff", "#eef1f4"
SHADOW = (0, 0, 0, 110)
HALO_WIDTH = 1
_LABELLED = 0.4  # share of an image that labels may cover, or there are none
# matplotlib brings a font that knows more letters than Pillow's own.
_FONT_FILE = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


class Example(NamedTuple):
    """One image of a contact sheet; `boxes` and `ground_truth` hold the rows of this image alone."""

    image_path: str
    image_rgb: np.ndarray
    boxes: pd.DataFrame
    ground_truth: pd.DataFrame | None = None


def examples(
    paths: Iterable[str], folder: str | Path, table: pd.DataFrame, ground_truth: pd.DataFrame | None = None
) -> list[Example]:
    """Read images for a contact sheet.

    Args:
        paths: image paths relative to `folder`, as in the tables.
        folder: where the paths start.
        table: annotations or detections to draw.
        ground_truth: annotations to draw below them.
    """

    def rows_of(rows: pd.DataFrame | None, path: str) -> pd.DataFrame | None:
        return None if rows is None else objects(rows[rows["image_path"] == path])

    return [
        Example(path, read_image(Path(folder) / path), rows_of(table, path), rows_of(ground_truth, path))
        for path in paths
    ]


def class_colors(classes: dict[str, int]) -> dict[str, str]:
    """Return a color (`#rrggbb`) for each class; with many classes they repeat.

    A mask is green, none is vermillion, one that is worn wrongly is amber, whatever of the usual names they have.
    """
    known = {name: _known_color(name) for name in classes}
    free = [color for color in OTHER_COLORS if color not in known.values()]
    others = [name for name, color in known.items() if color is None]
    return known | {name: free[index % len(free)] for index, name in enumerate(others)}


def draw_boxes(
    image_rgb: np.ndarray,
    boxes: pd.DataFrame,
    classes: dict[str, int],
    ground_truth: pd.DataFrame | None = None,
    labels: bool = True,
) -> Image.Image:
    """Return a copy of the image with its boxes, each labelled with its class and, if it has one, its score.

    Args:
        image_rgb: `uint8` array of shape (height, width, 3), which stays as it is.
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
    colors = class_colors(classes)
    rows = list(_best_last(objects(boxes)).itertuples(index=False))
    for row in rows:
        _draw_outline(draw, _pixels(row, image.size), line_width, colors.get(row.class_name, FALLBACK_COLOR))
    if labels:  # after all outlines, so that no line crosses a label
        _draw_labels(draw, rows, image.size, line_width, colors)
    return image


def place_labels(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray, image_wh: tuple[int, int]) -> np.ndarray:
    """Find a place for the label of each box: at the box, or the nearest where no label stands yet.

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


def contact_sheet(
    examples: Sequence[Example],
    classes: dict[str, int],
    columns: int = 4,
    cell_size: int = 320,
    title: str = "",
) -> Image.Image:
    """Return a grid of images with their boxes, captions, a title and a key to the colors.

    Args:
        examples: one per cell, row by row.
        classes: name to id.
        columns: cells in a row; fewer when there are fewer images.
        cell_size: side of a cell in pixels; each image is fitted into it, its aspect kept.
        title: heading of the sheet.

    Raises:
        ValueError: `columns` below 1, or `cell_size` below 64.
    """
    if columns < 1 or cell_size < 64:
        raise ValueError(f"columns is {columns} and cell_size {cell_size}, expected at least 1 and 64")
    columns = max(1, min(columns, len(examples)))
    rows = -(-len(examples) // columns)
    gap, caption_height, heading_height = cell_size // 16, cell_size // 9, cell_size // 4
    width = gap + columns * (cell_size + gap)
    sheet = Image.new("RGB", (width, heading_height + rows * (cell_size + caption_height + gap)), PAPER)
    has_truth = any(example.ground_truth is not None for example in examples)
    heading = (gap, 0, width - gap, heading_height)
    _draw_heading(sheet, heading, title, cell_size)
    _draw_key(sheet, heading, classes, has_truth, cell_size)
    for index, example in enumerate(examples):
        left = gap + index % columns * (cell_size + gap)
        top = heading_height + index // columns * (cell_size + caption_height + gap)
        _paste_example(sheet, example, classes, (left, top), cell_size)
        caption_top = top + cell_size
        _draw_caption(sheet, example, (left, caption_top, left + cell_size, caption_top + caption_height))
    return sheet


def _known_color(name: str) -> str | None:
    plain = "".join(filter(str.isalpha, name.lower()))
    if any(word in plain for word in WORN_WRONGLY):
        return AMBER
    return GREEN if plain in MASK_NAMES else VERMILLION if plain in NO_MASK_NAMES else None


def _best_last(boxes: pd.DataFrame) -> pd.DataFrame:
    return boxes.sort_values("score", kind="stable") if "score" in boxes.columns else boxes


def _pixels(row: NamedTuple, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the first and last pixels of a box that are inside the image: left, top, right, bottom."""
    width, height = size_wh
    left, top = min(max(round(row.x1), 0), width - 1), min(max(round(row.y1), 0), height - 1)
    # The right and bottom edges are half-open: the last pixel is the one before.
    right, bottom = min(round(row.x2) - 1, width - 1), min(round(row.y2) - 1, height - 1)
    return left, top, max(left, right), max(top, bottom)


def _draw_outline(draw: ImageDraw.ImageDraw, box: tuple, line_width: int, color: str) -> None:
    left, top, right, bottom = box
    halo = (left - HALO_WIDTH, top - HALO_WIDTH, right + HALO_WIDTH, bottom + HALO_WIDTH)
    draw.rectangle(halo, outline=SHADOW, width=line_width + 2 * HALO_WIDTH)
    draw.rectangle(box, outline=color, width=line_width)


def _draw_dashed(draw: ImageDraw.ImageDraw, box: tuple, line_width: int) -> None:
    """Draw a dashed white rectangle on a dark one, so that it shows on bright images too."""
    left, top, right, bottom = box
    thickness, dash = max(1, line_width // 2), 3 * line_width
    draw.rectangle(box, outline=SHADOW, width=thickness)
    for x in range(left, right + 1, 2 * dash):
        for y in (top, max(top, bottom - thickness + 1)):
            draw.rectangle((x, y, min(x + dash, right), min(y + thickness - 1, bottom)), fill="white")
    for y in range(top, bottom + 1, 2 * dash):
        for x in (left, max(left, right - thickness + 1)):
            draw.rectangle((x, y, min(x + thickness - 1, right), min(y + dash, bottom)), fill="white")


def _draw_labels(
    draw: ImageDraw.ImageDraw, rows: list[NamedTuple], size_wh: tuple[int, int], line_width: int, colors: dict
) -> None:
    """Draw class and score of each box on a chip; a line leads to one that is not at its box.

    Where there is no room for all they get smaller, then the score has to do, since the color says the class.
    """
    rows = rows[::-1]
    boxes_xyxy = np.array([_pixels(row, size_wh) for row in rows]).reshape(-1, 4) + [0, 0, 1, 1]
    for size, named in ((max(12, max(size_wh) / 50), True), (9, True), (9, False)):
        font = text_font(size)
        padding, height = round(font.size / 3), round(font.size * 1.35)
        texts = [_label_text(row, named, font, size_wh[0] - 2 * padding) for row in rows]
        sizes_wh = [(round(font.getlength(text)) + 2 * padding, height) for text in texts]
        if sum(width * height for width, height in sizes_wh) > _LABELLED * size_wh[0] * size_wh[1]:
            chips = np.empty((0, 4), int)  # they would hide the image, and still each other
            continue
        chips = place_labels(boxes_xyxy, sizes_wh, size_wh)
        if not (overlaps(chips, chips) > np.eye(len(chips))).any():
            break
    chosen = [colors.get(row.class_name, FALLBACK_COLOR) for row in rows]
    for chip, box, color in zip(chips, boxes_xyxy, chosen, strict=False):
        ends = [(np.clip(one[:2], other[:2], other[2:])) for one, other in ((box, chip), (chip, box))]
        if np.abs(ends[0] - ends[1]).max() > 2:
            draw.line([tuple(end) for end in ends], fill=color, width=max(1, line_width // 2))
    for (left, top, right, bottom), text, color in zip(chips.tolist(), texts, chosen, strict=False):
        draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
        draw.text((left + padding, (top + bottom) / 2), text, fill=_readable_on(color), font=font, anchor="lm")


def _label_text(row: NamedTuple, named: bool, font: ImageFont.FreeTypeFont, room: float) -> str:
    score = getattr(row, "score", None)
    suffix = "" if score is None or pd.isna(score) else f" {score:.2f}"
    if suffix and not named:
        return suffix.strip()
    return shortened(row.class_name, font, room - font.getlength(suffix)) + suffix


def _covered(xs: np.ndarray, ys: np.ndarray, size_wh: np.ndarray, others_xyxy: np.ndarray) -> np.ndarray:
    """Area that others cover of a label of ``size_wh`` with its left top corner at each ``x`` and ``y``, ``(Y, X)``."""
    shared = []
    for axis, starts in enumerate((xs, ys)):
        ends = np.minimum(starts[:, None] + size_wh[axis], others_xyxy[:, 2 + axis])
        shared.append(np.clip(ends - np.maximum(starts[:, None], others_xyxy[:, axis]), 0, None))
    return shared[1] @ shared[0].T


def _readable_on(color: str) -> str:
    """Return black or white, whichever contrasts more by WCAG 2.2's relative luminance."""
    channels = np.array(ImageColor.getrgb(color)) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white"


def _draw_heading(sheet: Image.Image, area: tuple, title: str, cell_size: int) -> None:
    left, top, right, bottom = area
    font = text_font(cell_size / 13)
    position = (left, top + (bottom - top) * 0.34)
    text = shortened(title, font, right - left)
    ImageDraw.Draw(sheet).text(position, text, fill=INK, font=font, anchor="lm")


def _draw_key(sheet: Image.Image, area: tuple, classes: dict[str, int], has_truth: bool, cell_size: int) -> None:
    """Draw a swatch and a name per class, and dashes for what is annotated."""
    draw = ImageDraw.Draw(sheet)
    left, top, right, bottom = area
    font, middle = text_font(cell_size / 23), top + round((bottom - top) * 0.72)
    side = round(font.size * 0.8)
    entries = [*class_colors(classes).items()] + [("annotated", None)] * has_truth
    for name, color in entries:
        if color is None:
            for x in range(left, left + 2 * side, side):
                draw.rectangle((x, middle - 1, x + side * 2 // 3, middle), fill=FADED_INK)
            left += side
        else:
            draw.rectangle((left, middle - side // 2, left + side, middle - side // 2 + side), fill=color)
        text = shortened(name, font, right - left - 1.5 * side)
        draw.text((left + 1.5 * side, middle), text, fill=FADED_INK, font=font, anchor="lm")
        left += round(font.getlength(text) + 3 * side)


def _paste_example(
    sheet: Image.Image, example: Example, classes: dict[str, int], position: tuple[int, int], cell_size: int
) -> None:
    """Paste the image, fitted into its cell; boxes are drawn after the resize, so that lines stay crisp."""
    original = Image.fromarray(np.ascontiguousarray(example.image_rgb))
    fitted = ImageOps.contain(original, (cell_size, cell_size), Image.Resampling.LANCZOS)
    scales = np.tile([fitted.width / original.width, fitted.height / original.height], 2)
    truth = None if example.ground_truth is None else _scaled(example.ground_truth, scales)
    drawn = draw_boxes(np.asarray(fitted), _scaled(example.boxes, scales), classes, truth)
    left, top = position
    sheet.paste(CELL, (left, top, left + cell_size, top + cell_size))
    sheet.paste(drawn, (left + (cell_size - drawn.width) // 2, top + (cell_size - drawn.height) // 2))


def _scaled(boxes: pd.DataFrame, scales: np.ndarray) -> pd.DataFrame:
    return boxes.assign(**dict(zip(BOX_COLUMNS, (boxes[BOX_COLUMNS] * scales).to_numpy().T, strict=True)))


def _draw_caption(sheet: Image.Image, example: Example, area: tuple) -> None:
    """Draw the file name on the left and the counts on the right."""
    draw = ImageDraw.Draw(sheet)
    left, top, right, bottom = area
    font = text_font((right - left) / 23)
    count = len(objects(example.boxes))
    counts = f"{count} found" if "score" in example.boxes.columns else f"{count} annotated"
    if example.ground_truth is not None:
        counts += f" / {len(objects(example.ground_truth))} expected"
    middle = (top + bottom) / 2
    draw.text((right, middle), counts, fill=FADED_INK, font=font, anchor="rm")
    room = right - left - font.getlength(counts) - font.size
    name = shortened(example.image_path.rsplit("/", 1)[-1], font, room)
    draw.text((left, middle), name, fill=INK, font=font, anchor="lm")


def shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """Return the text on one line, its middle replaced by dots where it does not fit into `room` pixels."""
    text = " ".join(str(text).split())
    kept = len(text)
    short = text
    while kept > 2 and font.getlength(short) > room:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    return short


@functools.lru_cache(maxsize=64)
def text_font(size: float) -> ImageFont.FreeTypeFont:
    """Return the font at a size in pixels."""
    return ImageFont.truetype(_FONT_FILE, max(9, round(size)))
