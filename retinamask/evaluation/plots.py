"""Figures of a data set, a training, an evaluation and a video; without pyplot and its global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator
from PIL import Image

from retinamask.dataset import files
from retinamask.dataset.anchors import Anchors
from retinamask.dataset.annotations import objects
from retinamask.dataset.images import fit_scale
from retinamask.drawing import style
from retinamask.drawing.style import begin, class_colors, note, short, shown_text, styled
from retinamask.training.learning_rate import rate_at, suggested
from retinamask.training.settings import TrainingError, TrainingSettings

# What training logs, in panels: each column's label and color.
LOSS, RATE = "Loss", "Learning rate"
TRAINING_PANELS = {
    LOSS: {
        "loss": ("loss", style.INK),
        "localization_loss": ("box regression", style.BLUE),
        "objectness_loss": ("objectness", style.GREEN),
        "classification_loss": ("classification", style.AMBER),
        "regularization_loss": ("regularization", style.PURPLE),
        "val_loss": ("on validation images", style.VERMILLION),
    },
    "Average precision": {"AP50": ("AP50", style.GREEN), "AP": ("AP", style.BLUE), "AP75": ("AP75", style.AMBER)},
    "Accuracy": {"accuracy": ("accuracy", style.GREEN)},
}
BY_CLASS = {"AP50 of each class": "AP50/", "Accuracy of each class": "accuracy/"}
SMOOTHED_FROM = 20  # points of a loss by the step, which jumps from batch to batch
MOST_POINTS = 300  # on the time axis; of a longer video the mean of neighbouring frames is drawn


@styled
def training_curves(log: pd.DataFrame, steps: pd.DataFrame | None = None) -> Figure:
    """Draw losses, average precision or accuracy, that of each class, and the learning rate.

    Args:
        log: one row per epoch with the column ``epoch``, any of the columns in `TRAINING_PANELS`, ``learning_rate``,
            and ``AP50/<class>`` or ``accuracy/<class>``; those that are missing or empty are left out. A NaN, where an
            epoch was not evaluated, is skipped.
        steps: of a run that has not finished: one row per point with the column ``step``, losses and learning rate,
            which are drawn from here.
    """
    panels = dict(TRAINING_PANELS)
    for title, prefix in BY_CLASS.items():
        names = [column.removeprefix(prefix) for column in log.columns if column.startswith(prefix)]
        colors = class_colors(names)
        if len(names) > 1:  # a single class has the overall figure
            panels[title] = {f"{prefix}{name}": (shown_text(name), colors[name]) for name in names}
    panels[RATE] = {"learning_rate": ("learning rate", style.INK)}
    filled = []
    for title, lines in panels.items():
        by_step = steps is not None and title in (LOSS, RATE)
        table = steps if by_step else log
        columns = [column for column in lines if column in table.columns and table[column].notna().any()]
        if "regularization_loss" in columns and not table["regularization_loss"].any():
            columns.remove("regularization_loss")  # most networks have none; zeros would be clutter
        if columns:
            filled.append((title, {column: lines[column] for column in columns}, table, "step" if by_step else "epoch"))
    if not filled:
        return note("No epoch has been trained.")
    across = 2 if len(filled) == 4 else len(filled)
    rows = -(-len(filled) // across)
    figure = Figure(figsize=(1.2 + 4.2 * across, 3.6 * rows))
    for axes, panel in zip(figure.subplots(rows, across, squeeze=False).flat, filled, strict=True):
        _draw_panel(axes, *panel)
    return figure


def _draw_panel(axes: Axes, title: str, lines: Mapping[str, tuple[str, str]], table: pd.DataFrame, along: str) -> None:
    for column, (label, color) in lines.items():
        known = table[[along, column]].dropna()
        x, y = known[along], known[column]
        if along == "step" and title == LOSS and len(y) > SMOOTHED_FROM:
            axes.plot(x, y, color=color, alpha=0.25, linewidth=1)
            y = y.rolling(max(5, len(y) // 50), center=True, min_periods=1).mean()
        dots = {"marker": "o", "markersize": 4} if len(y) <= 12 else {}  # a single point is to be seen
        axes.plot(x, y, color=color, label=label, **dots)
    margin = 0.5 if along == "epoch" else max(0.5, 0.02 * np.ptp(table[along]))
    axes.set(title=title, xlabel=along, xlim=(table[along].min() - margin, table[along].max() + margin))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter("{x:g}")
    if title in (LOSS, RATE):
        axes.set_ylim(0, max(axes.get_ylim()[1], 1e-12))
    else:
        axes.set_ylim(-0.02, 1.02)
    if title in TRAINING_PANELS and title != LOSS:
        column = next(iter(lines))
        best = table.loc[table[column].idxmax()]
        axes.set_title(f"{title}, best {column} {best[column]:.3f} in epoch {best['epoch']:.0f}")
    if len(lines) > 1:
        # Below, where it covers no curve: "best" looks at the points of a line and not between them.
        axes.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False)


@styled
def learning_rate_curve(settings: TrainingSettings, steps_per_epoch: int) -> Figure:
    """Draw the learning rate of every update of a run; of ``plateau``, which depends on evaluations, the peak."""
    total = steps_per_epoch * settings.epochs
    figure, axes = begin(6.4, 3.2)
    epochs = np.arange(total + 1) / steps_per_epoch  # a rate holds until the next update
    rates = [rate_at(settings, step, total) for step in range(total)]
    axes.step(epochs, [*rates, rates[-1]], where="post", color=style.INK)
    axes.set_title(f"{settings.schedule}, peak {settings.learning_rate:g}, updates: {total}")
    axes.set(xlabel="epoch", ylabel="learning rate", xlim=(0, settings.epochs), ylim=(0, 1.1 * settings.learning_rate))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter("{x:g}")
    if settings.schedule == "plateau":
        text = f"a tenth whenever {settings.plateau_patience} evaluations in a row bring nothing better"
        axes.text(0.98, 0.06, text, transform=axes.transAxes, ha="right", color=style.FADED_INK, fontsize=8.5)
    return figure


@styled
def learning_rate_finding(table: pd.DataFrame) -> Figure:
    """Draw the loss against the learning rate in the table of `learning_rate.find`, and the suggested rate."""
    figure, axes = begin(6.4, 3.6)
    points = {"markersize": 4, "color": style.BLUE, "alpha": 0.35, "label": "loss of the batch"}
    axes.plot(table["rate"], table["measured"], ".", **points)
    axes.plot(table["rate"], table["loss"], color=style.BLUE, label="moving average")
    try:
        rate = suggested(table)
        axes.axvline(rate, color=style.AMBER, linewidth=1.5, linestyle="--", label="a tenth of the rate at the lowest")
        axes.set_title(f"Suggested learning rate: {rate:.2g}")
    except TrainingError:
        axes.set_title("No learning rate lowered the loss")
    axes.set_xscale("log")
    before = table["loss"][: table["loss"].idxmin() + 1].max()  # how far it explodes afterwards does not matter
    axes.set(xlabel="learning rate", ylabel="loss", ylim=(0, max(2 * before, 1e-12)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="best", fontsize=8.5)
    return figure


@styled
def precision_recall_curves(curves: Mapping[str, pd.DataFrame], metrics: Mapping[str, Any]) -> Figure:
    """Draw the `coco.precision_recall` of each class at IoU 0.5, with its AP50 from `coco.evaluate` in the key."""
    figure, axes = begin(5, 5)
    colors = class_colors(curves)
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
def threshold_curves(tables: Mapping[str, pd.DataFrame], thresholds: Mapping[str, float]) -> Figure:
    """Draw precision, recall and F1 of each class by the score threshold, and mark where F1 is highest.

    Args:
        tables: of `matches.by_threshold`.
        thresholds: of `matches.best_thresholds`.
    """
    figure, panels = begin(1 + 4 * max(1, len(tables)), 4, 1, max(1, len(tables)), sharey=True, squeeze=False)
    colors = {"precision": style.BLUE, "recall": style.GREEN, "F1": style.INK}
    for axes, (name, table) in zip(panels.flat, tables.items(), strict=False):
        for column, color in colors.items():
            axes.step(table["score_threshold"], table[column], where="pre", color=color, label=column)
        title = f"{shown_text(name)}: nothing is right"
        if name in thresholds:
            axes.axvline(thresholds[name], color=style.FADED_INK, linewidth=1, linestyle="--")
            title = f"{shown_text(name)}: F1 {table['F1'].max():.3f} from {thresholds[name]:g} on"
        axes.set(title=title, xlabel="score threshold", xlim=(0, 1.01), ylim=(0, 1.03))
    if tables:
        panels.flat[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)
    return figure


@styled
def confusion_matrix(counts: pd.DataFrame, text: str) -> Figure:
    """Draw how many of each true class (rows) were taken for which (columns), shaded by their share of the row.

    Cells that cannot be are NaN; ``text`` is added to the title, which counts the diagonal.
    """
    shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0).to_numpy()
    figure, axes = begin(3.2 + 0.9 * counts.shape[1], 2.2 + 0.9 * len(counts))
    axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("shades", ["#ffffff", style.BLUE]), vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts.to_numpy(float)):
        if not np.isnan(count):
            color = "white" if shares[row, column] > 0.6 else style.INK
            shown = f"{count:.0f}\n{shares[row, column]:.1%}"
            axes.text(column, row, shown, ha="center", va="center", color=color)
    slanted = {} if counts.shape[1] < 3 else {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(counts.shape[1]), [shown_text(short(name)) for name in counts.columns], **slanted)
    axes.set_yticks(range(len(counts)), [shown_text(short(name)) for name in counts.index])
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{np.nansum(np.diag(counts)):.0f} of {np.nansum(counts):.0f} right: {text}")
    axes.grid(False)
    return figure


@styled
def error_gains(gains: pd.DataFrame) -> Figure:
    """Draw what mending each cause of `errors.gains` would bring in AP50."""
    figure, axes = begin(7, 3.2)
    bars = axes.barh(gains["cause"], 100 * gains["gain"], color=style.BLUE)
    shown = [f"+{100 * gain:.1f}  ({count})" for gain, count in zip(gains["gain"], gains["count"], strict=True)]
    axes.bar_label(bars, shown, padding=4, fontsize=9, color=style.FADED_INK)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.margins(x=0.2)
    axes.set(title="What mending each cause alone would bring", xlabel="points of AP50 (number of boxes)")
    return figure


@styled
def shares_found(groups: pd.DataFrame) -> Figure:
    """Draw the shares of `face_traits.found_by_trait` with their 95 % intervals, below each how many faces it is of."""
    titles = {
        "class": "By class",
        "size": "By size: √area at the network's input, pixels",
        "brightness": "By brightness: mean grey, 0 to 255",
        "sharpness": "By sharpness: variance of the Laplacian",
    }
    figure, panels = begin(10.4, 6.4, 2, 2, sharey=True)
    for axes, (trait, title) in zip(panels.flat, titles.items(), strict=True):
        rows = groups[groups["trait"] == trait]
        colors = class_colors(rows["group"]).values() if trait == "class" else style.BLUE
        names = [f"{shown_text(short(row.group))}\n{row.faces} faces" for row in rows.itertuples()]
        ends = (rows["share"] - rows["low"]).clip(lower=0), (rows["high"] - rows["share"]).clip(lower=0)
        bars = {"yerr": ends, "ecolor": style.INK, "error_kw": {"elinewidth": 1.2, "capsize": 3}}
        axes.bar(range(len(rows)), rows["share"], min(0.7, 0.17 * len(rows)), color=colors, **bars)
        axes.set_xticks(range(len(rows)), names, fontsize=9)
        axes.set(title=title, ylim=(0, 1.03), xlim=(-0.6, max(1, len(rows)) - 0.4))
        axes.grid(False, axis="x")
    figure.get_layout_engine().set(hspace=0.08)
    figure.supylabel("share of the faces that are found", fontsize=10, color=style.FADED_INK)
    return figure


@styled
def class_counts(table: pd.DataFrame, classes: dict[str, int], split_column: str | None = None) -> Figure:
    """Draw how many boxes each class has, as bars.

    Args:
        table: annotations.
        classes: name to id.
        split_column: a column of ``table``, such as ``split``, for one bar per class and value.
    """
    boxes = objects(table)
    splits = {"boxes": boxes} if split_column is None else dict(list(boxes.groupby(split_column, sort=False)))
    thickness = 0.8 / max(1, len(splits))
    figure, axes = begin(6.4, 1.3 + 0.42 * len(classes) * max(1.3, len(splits)))
    for index, (split, rows) in enumerate(splits.items()):
        counts = rows["class_name"].value_counts().reindex(list(classes), fill_value=0)
        positions = np.arange(len(classes)) + (index - (len(splits) - 1) / 2) * thickness
        color = list(class_colors(classes).values()) if split_column is None else style.OTHER_COLORS[index % 6]
        bars = axes.barh(positions, counts, thickness * 0.9, color=color, label=shown_text(split))
        axes.bar_label(bars, padding=4, fontsize=9, color=style.FADED_INK)
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
def box_sizes(table: pd.DataFrame, image_sizes: Mapping[str, tuple[int, int]], input_size: int) -> Figure:
    """Draw the sizes and aspect ratios of the boxes against those of a RetinaNet's anchors.

    Args:
        table: annotations.
        image_sizes: image path to (width, height) in pixels, for every image that has a box.
        input_size: side in pixels of the square that the model fits each image into.
    """
    boxes = objects(table)
    if boxes.empty:
        return note("There are no boxes.")
    scales = boxes["image_path"].map(lambda path: fit_scale(image_sizes[path], input_size)).astype(float)
    widths, heights = boxes["x2"] - boxes["x1"], boxes["y2"] - boxes["y1"]
    figure, (size_axes, ratio_axes) = begin(9.6, 3.6, 1, 2, width_ratios=(3, 2))
    sides = np.sqrt(widths * heights) * scales
    _log_histogram(size_axes, sides, Anchors().sizes, "{x:.0f}")
    size_axes.set(title=f"Size of {len(boxes)} boxes", xlabel=f"√area at input size {input_size}, pixels")
    _log_histogram(ratio_axes, heights / widths, Anchors().ratios, "{x:.2g}")
    ratio_axes.set(title="Aspect ratio", xlabel="height / width")
    return figure


def _log_histogram(axes: Axes, values: pd.Series, anchors: Sequence[float], tick_format: str) -> None:
    """Draw a histogram on a logarithmic axis that is marked at the anchors, and at nothing else."""
    every = np.array([*values, *anchors], dtype=float)
    low, high = np.log2(every.min()) - 0.25, np.log2(every.max()) + 0.25
    axes.hist(values, bins=2 ** np.linspace(low, high, 41), color=style.BLUE, alpha=0.75)
    for index, anchor in enumerate(anchors):
        axes.axvline(anchor, color=style.AMBER, linewidth=1.5, linestyle="--", label=None if index else "anchor")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(anchors))
    axes.xaxis.set_major_formatter(tick_format)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(False, axis="x")
    axes.set_ylabel("boxes")
    axes.legend(loc="upper right", fontsize=8.5)


@styled
def counts_over_time(counts: pd.DataFrame, spells: pd.DataFrame | None = None) -> Figure:
    """Draw the `counts_by_frame` of a video over its time, and below a line a person, solid where he or she was seen.

    Args:
        counts: by `retinamask.inference.video.counts_by_frame`.
        spells: by `retinamask.inference.video.when_visible`.
    """
    if counts.empty:
        return note("The video has no frame.")
    seconds = counts.index.get_level_values("seconds").to_numpy()
    groups = -(-len(counts) // MOST_POINTS)
    step = np.arange(len(counts)) // groups
    drawn, starts = counts.groupby(step).mean(), seconds[::groups]
    classes, people = max(1, len(counts.columns)), 0 if spells is None else spells["track"].nunique()
    heights = [1.1] * classes + [min(6.0, 0.5 + 0.12 * people)] * (people > 0)
    figure = Figure(figsize=(9.6, 1.0 + sum(heights)))
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    colors = class_colors(counts.columns)
    if people:
        shortest = max(seconds[-1], 1e-3) / MOST_POINTS
        _draw_people(panels[-1], spells.assign(last=spells["last"].clip(lower=spells["first"] + shortest)), colors)
    for axes, name in zip(panels[:classes], counts.columns, strict=False):  # lines on one another would hide each other
        axes.fill_between(starts, drawn[name], step="post", color=colors[name], alpha=0.35, linewidth=0)
        axes.step(starts, drawn[name], where="post", color=colors[name], linewidth=1.5)
        axes.set_title(shown_text(name), fontsize=9.5, pad=4)
    per_point = "" if groups == 1 else f", mean of {groups} each"
    figure.suptitle(f"Boxes in a frame ({len(counts)} frames{per_point})", x=0.01, ha="left", fontsize=11)
    panels[-1].set_xlim(0, max(seconds[-1], 1e-3))
    panels[-1].set_xlabel("seconds" if seconds[-1] <= 60 else "minutes:seconds")
    if seconds[-1] > 60:
        panels[-1].xaxis.set_major_formatter(lambda value, _: f"{int(value) // 60}:{int(value) % 60:02}")
        panels[-1].xaxis.set_major_locator(MaxNLocator(steps=[1, 3, 6, 10]))
    for axes in panels[:classes]:
        axes.set_ylim(0, max(1.0, 1.1 * drawn.to_numpy().max(initial=0)))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    return figure


def _draw_people(axes: Axes, spells: pd.DataFrame, colors: dict[str, str]) -> None:
    """Draw a line a person, in the order in which they came."""
    rows = pd.factorize(spells["track"])[0] + 1
    colors = spells["class_name"].map(colors)
    whole = spells.groupby(rows).agg({"first": "min", "last": "max"})
    axes.hlines(whole.index, whole["first"], whole["last"], colors="0.75", linewidth=0.8)
    width = min(4.5, 200 / rows.max())
    axes.hlines(rows, spells["first"], spells["last"], colors=colors, linewidth=width)
    axes.set_ylim(rows.max() + 0.7, 0.3)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_title(f"{rows.max()} {'person' if rows.max() == 1 else 'people'}", fontsize=9.5, pad=4)


def keep(picture: Figure | Image.Image, path: str | Path) -> Image.Image:
    """Write a figure or an image as PNG and return it as an image, which a notebook shows."""
    with files.replacing(path) as temporary:
        if isinstance(picture, Figure):
            picture.savefig(temporary, dpi=110)
        else:
            picture.save(temporary)
    with Image.open(path) as image:
        return image.copy()
