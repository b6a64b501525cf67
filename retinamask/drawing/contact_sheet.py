"""Many images with their boxes on one sheet, for judging by eye."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageOps

from retinamask.dataset import boxes
from retinamask.dataset.annotations import BOX_COLUMNS, objects
from retinamask.dataset.images import read_image
from retinamask.drawing.boxes import draw_boxes
from retinamask.drawing.style import CELL, FADED_INK, INK, PAPER, class_colors, shortened, text_font


class Example(NamedTuple):
    """One image of a contact sheet; ``boxes`` and ``ground_truth`` hold the rows of this image alone.

    The caption gives the file's name and ``remark``, or if there is none how many boxes there are.
    """

    image_path: str
    image_rgb: np.ndarray
    boxes: pd.DataFrame
    ground_truth: pd.DataFrame | None = None
    remark: str = ""
    labels: bool = True  # whether the boxes have them


def examples(
    paths: Iterable[str], folder: str | Path, table: pd.DataFrame, ground_truth: pd.DataFrame | None = None
) -> list[Example]:
    """Read images for a contact sheet.

    Args:
        paths: image paths relative to ``folder``, as in the tables.
        folder: where the paths start.
        table: annotations or detections to draw.
        ground_truth: annotations to draw below them.
    """

    def of(path: str, rows: pd.DataFrame | None) -> pd.DataFrame | None:
        return None if rows is None else objects(rows[rows["image_path"] == path])

    return [Example(path, read_image(Path(folder, path)), of(path, table), of(path, ground_truth)) for path in paths]


def side_by_side(
    paths: Sequence[str], folder: str | Path, tables: Mapping[str, pd.DataFrame], ground_truth: pd.DataFrame
) -> list[Example]:
    """Read images for a contact sheet with a column for each table, by the name of what it holds.

    The boxes have no labels, which would hide the faces of a crowd. The other arguments are those of `examples`.
    """
    columns = [examples(paths, folder, table, ground_truth) for table in tables.values()]
    return [
        each._replace(remark=f"{name}: {len(each.boxes)}", labels=False)
        for row in zip(*columns, strict=True)
        for name, each in zip(tables, row, strict=True)
    ]


def cut_outs(mistakes: pd.DataFrame, folder: str | Path, ground_truth: pd.DataFrame) -> list[Example]:
    """Cut boxes out of their images, with as much again on each side, for a contact sheet.

    Args:
        mistakes: boxes with their ``true_class``, as `retinamask.evaluation.errors.find_causes` gives them.
        folder: where the paths start.
        ground_truth: annotations to draw below them.
    """
    found = []
    for index, row in mistakes.iterrows():
        image_rgb = read_image(Path(folder, row["image_path"]))
        box, around = row[BOX_COLUMNS].to_numpy(float), np.repeat([[-1, 1]], 2, axis=1)
        part = boxes.clip(box + around * np.tile(box[2:] - box[:2], 2), image_rgb.shape[1::-1])
        (left, top, right, bottom) = boxes.whole_pixels(part)[0].astype(int)
        truth = ground_truth[ground_truth["image_path"] == row["image_path"]]
        truth = truth[boxes.intersections(truth[BOX_COLUMNS], part).any(axis=1)]
        shown, truth = (
            table.assign(**table[BOX_COLUMNS] - [left, top, left, top]) for table in (mistakes.loc[[index]], truth)
        )
        remark = "not annotated" if pd.isna(row["true_class"]) else f"annotated: {row['true_class']}"
        found.append(Example(row["image_path"], image_rgb[top:bottom, left:right], shown, truth, remark))
    return found


def contact_sheet(
    examples: Sequence[Example], classes: dict[str, int], columns: int = 4, cell_size: int = 320, title: str = ""
) -> Image.Image:
    """Return a grid of images with their boxes, captions, a title and a key to the colors.

    Args:
        examples: one per cell, row by row.
        classes: name to id.
        columns: cells in a row; fewer when there are fewer images.
        cell_size: side of a cell in pixels; each image is fitted into it, its aspect kept.
        title: heading of the sheet.

    Raises:
        ValueError: ``columns`` below 1, or ``cell_size`` below 64.
    """
    if columns < 1 or cell_size < 64:
        raise ValueError(f"columns is {columns} and cell_size {cell_size}, expected at least 1 and 64")
    columns = max(1, min(columns, len(examples)))
    rows = -(-len(examples) // columns)
    gap, caption, heading = cell_size // 16, cell_size // 9, cell_size // 4
    width = gap + columns * (cell_size + gap)
    sheet = Image.new("RGB", (width, heading + rows * (cell_size + caption + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = text_font(cell_size / 13)
    draw.text((gap, 0.34 * heading), shortened(title, font, width - 2 * gap), fill=INK, font=font, anchor="lm")
    has_truth = any(example.ground_truth is not None for example in examples)
    _draw_key(draw, classes, has_truth, (gap, round(0.72 * heading)), width - gap, text_font(cell_size / 23))
    for index, example in enumerate(examples):
        left = gap + index % columns * (cell_size + gap)
        top = heading + index // columns * (cell_size + caption + gap)
        _draw_cell(sheet, example, classes, (left, top), cell_size, caption)
    return sheet


def _draw_key(
    draw: ImageDraw.ImageDraw, classes: dict[str, int], has_truth: bool, start_xy: tuple[int, int], right: int, font
) -> None:
    """Draw a swatch and a name per class, and dashes for what is annotated."""
    (left, middle), side = start_xy, round(font.size * 0.8)
    for name, color in [*class_colors(classes).items()] + [("annotated", None)] * has_truth:
        if color is None:
            for x in range(left, left + 2 * side, side):
                draw.rectangle((x, middle - 1, x + side * 2 // 3, middle), fill=FADED_INK)
            left += side
        else:
            draw.rectangle((left, middle - side // 2, left + side, middle - side // 2 + side), fill=color)
        text = shortened(name, font, right - left - 1.5 * side)
        draw.text((left + 1.5 * side, middle), text, fill=FADED_INK, font=font, anchor="lm")
        left += round(font.getlength(text) + 3 * side)


def _draw_cell(
    sheet: Image.Image, example: Example, classes: dict[str, int], corner_xy: tuple[int, int], side: int, caption: int
) -> None:
    """Draw an image, fitted into its square, with its boxes; below it the file's name and the counts."""
    original = Image.fromarray(np.ascontiguousarray(example.image_rgb))
    fitted = ImageOps.contain(original, (side, side), Image.Resampling.LANCZOS)
    scales = np.tile([fitted.width / original.width, fitted.height / original.height], 2)
    both = (example.boxes, example.ground_truth)
    boxes, truth = (None if rows is None else rows.assign(**(rows[BOX_COLUMNS] * scales)) for rows in both)
    drawn = draw_boxes(np.asarray(fitted), boxes, classes, truth, example.labels)  # after the resize: lines stay crisp
    left, top = corner_xy
    sheet.paste(CELL, (left, top, left + side, top + side))
    sheet.paste(drawn, (left + (side - drawn.width) // 2, top + (side - drawn.height) // 2))

    draw, font, middle = ImageDraw.Draw(sheet), text_font(side / 23), top + side + caption / 2
    counts = f"{len(objects(example.boxes))} {'found' if 'score' in example.boxes.columns else 'annotated'}"
    if example.remark:
        counts = shortened(example.remark, font, 0.8 * side)
    elif example.ground_truth is not None:
        counts += f" / {len(objects(example.ground_truth))} expected"
    draw.text((left + side, middle), counts, fill=FADED_INK, font=font, anchor="rm")
    name = shortened(example.image_path.rsplit("/", 1)[-1], font, side - font.getlength(counts) - font.size)
    draw.text((left, middle), name, fill=INK, font=font, anchor="lm")
