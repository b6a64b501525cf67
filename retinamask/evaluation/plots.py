"""Figures of a data set, a training and an evaluation.

Each function returns a new `matplotlib.figure.Figure` and saves nothing: write `figure.savefig(path)`. pyplot
is never imported, so there is no global state and figures are freed like any other object; in a notebook,
`%matplotlib inline` makes the returned figures show. Colors of classes are those of `drawing`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter
from PIL import Image

from retinamask.dataset import files
from retinamask.dataset.annotations import objects
from retinamask.dataset.images import fit_scale
from retinamask.drawing.style import (
    AMBER,
    BLUE,
    FADED_INK,
    GREEN,
    INK,
    PURPLE,
    VERMILLION,
    class_colors,
    note,
    shown_text,
    styled,
)

SPLIT_COLORS = (BLUE, AMBER, GREEN, PURPLE)

# What training logs, in panels: each column's label and color.
LOSS, PRECISION, ACCURACY, RATE = "Loss", "Average precision", "Accuracy", "Learning rate"
CLASSES = {"AP50/": "AP50 of each class", "accuracy/": "Accuracy of each class"}
TRAINING_PANELS = {
    LOSS: {
        "loss": ("loss", INK),
        "localization_loss": ("box regression", BLUE),
        "objectness_loss": ("objectness", GREEN),
        "classification_loss": ("classification", AMBER),
        "regularization_loss": ("regularization", PURPLE),
        "val_loss": ("on validation images", VERMILLION),
    },
    PRECISION: {"AP50": ("AP50", GREEN), "AP": ("AP", BLUE), "AP75": ("AP75", AMBER)},
    ACCURACY: {"accuracy": ("accuracy", GREEN)},
    RATE: {"learning_rate": ("learning rate", INK)},
}
SMOOTHED_FROM = 20  # points of a loss by the step, which jumps from batch to batch


@styled
def training_curves(log: pd.DataFrame) -> Figure:
    """Draw the losses, average precision or accuracy, that of each class and the learning rate over the epochs.

    Args:
        log: one row per epoch with the column `epoch`, any of the columns in `TRAINING_PANELS`, and `AP50/<class>` or
            `accuracy/<class>`; those that are missing or empty are left out. A NaN, where an epoch was not
            evaluated, is skipped.
    """
    *judged, rate = TRAINING_PANELS.items()
    by_class = [(title, _class_lines(log, prefix)) for prefix, title in CLASSES.items()]
    return _panels([(*panel, log, "epoch") for panel in (*judged, *by_class, rate)])


@styled
def live_curves(steps: pd.DataFrame, log: pd.DataFrame) -> Figure:
    """Draw a run that is still going on: losses and learning rate over the steps, precision over the epochs.

    Args:
        steps: one row per point with the column `step` and the losses and the learning rate as in `log`.
        log: as for `training_curves`, the epochs so far; it may be empty.
    """
    over = {LOSS: (steps, "step"), PRECISION: (log, "epoch"), ACCURACY: (log, "epoch"), RATE: (steps, "step")}
    return _panels([(title, lines, *over[title]) for title, lines in TRAINING_PANELS.items()])


@styled
def precision_recall_curves(curves: Mapping[str, pd.DataFrame], metrics: Mapping[str, Any]) -> Figure:
    """Draw the precision-recall curve of each class.

    Args:
        curves: from `coco.precision_recall` at IoU 0.5.
        metrics: from `coco.evaluate`, for the AP50 in the key.
    """
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    colors = class_colors(dict.fromkeys(curves, 0))
    handles, labels = [], []
    for name, curve in curves.items():
        ap50 = metrics["per_class"].get(name, {}).get("AP50")
        # The curve ends at the highest recall; the zeros beyond it are no measurements.
        reached = curve[curve["precision"] > 0]
        handles += axes.plot(reached["recall"], reached["precision"], color=colors[name])
        labels.append(f"{shown_text(name)}: " + ("no annotations" if ap50 is None else f"AP50 {ap50:.3f}"))
    axes.set(title="Precision and recall at IoU 0.50", xlim=(0, 1.01), ylim=(0, 1.03))
    axes.set_xlabel("recall: share of the faces that are found")
    axes.set_ylabel("precision: share of the detections that are right")
    axes.set_aspect("equal")
    if handles:
        axes.legend(handles, labels, loc="lower left")
    return figure


@styled
def class_counts(table: pd.DataFrame, classes: dict[str, int], split_column: str | None = None) -> Figure:
    """Draw how many boxes each class has, as bars.

    Args:
        table: annotations.
        classes: name to id.
        split_column: a column of `table`, such as `split`, for one bar per class and value.
    """
    boxes = objects(table)
    splits = {"boxes": boxes} if split_column is None else dict(list(boxes.groupby(split_column, sort=False)))
    thickness = 0.8 / max(1, len(splits))
    figure = Figure(figsize=(6.4, 1.3 + 0.42 * len(classes) * max(1.3, len(splits))))
    axes = figure.subplots()
    for index, (split, rows) in enumerate(splits.items()):
        counts = rows["class_name"].value_counts().reindex(list(classes), fill_value=0)
        positions = np.arange(len(classes)) + (index - (len(splits) - 1) / 2) * thickness
        color = list(class_colors(classes).values()) if split_column is None else SPLIT_COLORS[index % 4]
        bars = axes.barh(positions, counts, thickness * 0.9, color=color, label=shown_text(split))
        axes.bar_label(bars, padding=4, fontsize=9, color=FADED_INK)
    axes.set_yticks(np.arange(len(classes)), [shown_text(name) for name in classes])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.14 * max([1, *(bar.get_width() for bar in axes.patches)]))  # room for the numbers
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=f"{len(boxes)} boxes in {table['image_path'].nunique()} images", xlabel="boxes")
    axes.grid(False, axis="y")
    if split_column is not None and splits:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def box_sizes(
    table: pd.DataFrame,
    image_sizes: Mapping[str, tuple[int, int]],
    anchor_sizes: Sequence[float],
    input_size: int,
    anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
) -> Figure:
    """Draw the sizes and aspect ratios of the boxes against those of the network's anchors.

    Args:
        table: annotations.
        image_sizes: image path to (width, height) in pixels, for every image that has a box.
        anchor_sizes: sides of the square anchors in pixels of the model input, drawn as vertical lines.
        input_size: side in pixels of the square that the model fits each image into.
        anchor_ratios: height / width of the anchors.
    """
    boxes = objects(table)
    if boxes.empty:
        return note("There are no boxes.")
    scales = boxes["image_path"].map(lambda path: fit_scale(image_sizes[path], input_size)).astype(float)
    widths, heights = boxes["x2"] - boxes["x1"], boxes["y2"] - boxes["y1"]
    figure = Figure(figsize=(9.6, 3.6))
    size_axes, ratio_axes = figure.subplots(1, 2, width_ratios=(3, 2))
    sides = np.sqrt(widths * heights) * scales
    _log_histogram(size_axes, sides, anchor_sizes, "{x:.0f}")
    size_axes.set(title=f"Size of {len(boxes)} boxes", xlabel=f"√area at input size {input_size}, pixels")
    _log_histogram(ratio_axes, heights / widths, anchor_ratios, "{x:.2g}")
    ratio_axes.set(title="Aspect ratio", xlabel="height / width")
    return figure


def keep(figure: Figure, path: str | Path) -> Image.Image:
    """Write a figure as PNG and return it as an image, which a notebook shows."""
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
    with Image.open(path) as image:
        return image.copy()


def _log_histogram(axes: Axes, values: pd.Series, anchors: Sequence[float], tick_format: str) -> None:
    """Draw a histogram on a logarithmic axis that is marked at the anchors, and at nothing else."""
    every = np.array([*values, *anchors], dtype=float)
    low, high = np.log2(every.min()) - 0.25, np.log2(every.max()) + 0.25
    axes.hist(values, bins=2 ** np.linspace(low, high, 41), color=BLUE, alpha=0.75)
    for index, anchor in enumerate(anchors):
        axes.axvline(anchor, color=AMBER, linewidth=1.5, linestyle="--", label=None if index else "anchor")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(anchors))
    axes.xaxis.set_major_formatter(StrMethodFormatter(tick_format))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(False, axis="x")
    axes.set_ylabel("boxes")
    axes.legend(loc="upper right", fontsize=8.5)


def _panels(panels: Sequence[tuple[str, Mapping[str, tuple[str, str]], pd.DataFrame, str]]) -> Figure:
    """Draw panels side by side; one without a single value is left out, and four make a square.

    Args:
        panels: title, column to label and color, the table, and its column that goes along.
    """
    filled = [(title, lines, table, along, _filled_columns(table, lines)) for title, lines, table, along in panels]
    filled = [panel for panel in filled if panel[-1]]
    if not filled:
        return note("No epoch has been trained.")
    columns = 2 if len(filled) == 4 else len(filled)
    rows = -(-len(filled) // columns)
    figure = Figure(figsize=(1.2 + 4.2 * columns, 3.6 * rows))
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, filled, strict=True):
        _draw_panel(axes, *panel)
    return figure


def _draw_panel(
    axes: Axes, title: str, lines: Mapping[str, tuple[str, str]], table: pd.DataFrame, along: str, columns: list[str]
) -> None:
    for column in columns:
        label, color = lines[column]
        known = table[[along, column]].dropna()
        x, y = known[along], known[column]
        if along == "step" and title == LOSS and len(y) > SMOOTHED_FROM:
            axes.plot(x, y, color=color, alpha=0.25, linewidth=1)
            y = y.rolling(max(5, len(y) // 50), center=True, min_periods=1).mean()
        axes.plot(x, y, color=color, label=label, **_dots(len(known)))
    margin = 0.5 if along == "epoch" else max(0.5, 0.02 * np.ptp(table[along]))
    axes.set(title=title, xlabel=along, xlim=(table[along].min() - margin, table[along].max() + margin))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if title in (PRECISION, ACCURACY, *CLASSES.values()):
        axes.set_ylim(-0.02, 1.02)
    else:
        _start_at_zero(axes)
    if title in (PRECISION, ACCURACY):
        _mark_best(axes, table, columns[0])
    if len(columns) > 1 or title in CLASSES.values():
        # Below, where it covers no curve: "best" looks at the points of a line and not between them.
        axes.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False)


def _filled_columns(table: pd.DataFrame, lines: Mapping[str, Any]) -> list[str]:
    """The columns that say something; most networks have no regularization, and a line of zeros would be clutter."""
    filled = [column for column in lines if column in table.columns and table[column].notna().any()]
    return [column for column in filled if column != "regularization_loss" or table[column].any()]


def _class_lines(log: pd.DataFrame, prefix: str) -> dict[str, tuple[str, str]]:
    """Column to label and color for a figure of each class; none for a single class, which has the overall figure."""
    names = [column.removeprefix(prefix) for column in log.columns if column.startswith(prefix)]
    colors = class_colors(dict.fromkeys(names, 0))
    return {f"{prefix}{name}": (shown_text(name), colors[name]) for name in names} if len(names) > 1 else {}


def _dots(count: int) -> dict[str, Any]:
    """Return the marker options of a line: with few points each is shown, and a single one can be seen."""
    return {"marker": "o", "markersize": 4} if count <= 12 else {}


def _start_at_zero(axes: Axes) -> None:
    axes.set_ylim(0, max(axes.get_ylim()[1], 1e-12))


def _mark_best(axes: Axes, log: pd.DataFrame, column: str) -> None:
    """Write the best value and its epoch into the panel's title."""
    best = log.loc[log[column].idxmax()]
    axes.set_title(f"{axes.get_title('left')}, best {column} {best[column]:.3f} in epoch {best['epoch']:.0f}")
