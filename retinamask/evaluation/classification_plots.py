"""Pictures of what a classifier got right and wrong: confusion, curves, and faces with what they were taken for.

Each function returns a new figure and saves nothing; ``figures`` are those of `classification.figures`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from PIL import Image, ImageOps

from retinamask.drawing import style
from retinamask.drawing.style import class_colors, note, shown_text, styled
from retinamask.evaluation import classification
from retinamask.inference.classify import Classified

_CELL_SIDE, _COLUMNS = 256, 6  # of the grid of faces: pixels that a face is shown with at most, and faces in a row
_FACE_SIDE, _PITCH_WH, _HEADING = 1.8, (2.0, 2.5), 0.45  # inches
_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", style.BLUE])


def all_figures(
    classified: Classified, predicted: np.ndarray, figures: Mapping[str, Any], count: int
) -> dict[str, Figure]:
    """Draw all figures of this module, by name; ``count`` faces at most in each grid."""
    judged = classified.labels, classified.probabilities, classified.classes
    return {
        "confusion_matrix": confusion_matrix(figures),
        "roc_curves": roc_curves(classification.roc(*judged), figures),
        "calibration_curves": calibration_curves(classification.calibration(*judged), figures),
        "predictions": prediction_plot(classified, predicted, count),
        "mistakes": most_confident_mistakes(classified, predicted, count),
    }


@styled
def confusion_matrix(figures: Mapping[str, Any]) -> Figure:
    """Draw how many images of each class were taken for which, shaded by their share of the true class."""
    counts = np.array(figures["confusion"])
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    names = [shown_text(_short(name)) for name in figures["classes"]]
    side = 2.2 + 0.9 * len(names)
    figure = Figure(figsize=(side + 1, side))
    axes = figure.subplots()
    axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.6 else style.INK
        axes.text(column, row, f"{count}\n{shares[row, column]:.1%}", ha="center", va="center", color=color)
    slanted = {} if len(names) < 3 else {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, **slanted)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{np.trace(counts)} of {counts.sum()} right: accuracy {figures['accuracy']:.3f}")
    axes.grid(False)
    return figure


@styled
def roc_curves(curves: Mapping[str, pd.DataFrame], figures: Mapping[str, Any]) -> Figure:
    """Draw `classification.roc`, the receiver operating characteristic of each class against all others."""
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=style.FADED_INK, linewidth=1, linestyle="--", label="by chance: 0.5")
    colors = class_colors(dict.fromkeys(curves, 0))
    for name, curve in curves.items():
        area = figures["per_class"][name]["roc_auc"]
        score = "all images or none" if area is None else f"area {area:.3f}"
        rates = curve["false_positive_rate"], curve["true_positive_rate"]
        axes.plot(*rates, color=colors[name], label=f"{shown_text(_short(name))}: {score}")
    axes.set(title="Receiver operating characteristic", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_xlabel("false positive rate: share of the others taken for the class")
    axes.set_ylabel("true positive rate: share of the class that is found")
    axes.set_aspect("equal")
    axes.legend(loc="lower right")
    return figure


@styled
def calibration_curves(curves: Mapping[str, pd.DataFrame], figures: Mapping[str, Any]) -> Figure:
    """Draw `classification.calibration`: how often each class was there by the probability it got, for how many."""
    figure = Figure(figsize=(6.8, 5.8))
    axes, counts = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color=style.FADED_INK, linewidth=1, linestyle="--", label="as often as predicted")
    colors = class_colors(dict.fromkeys(curves, 0))
    for name, curve in curves.items():
        line = {"color": colors[name], "marker": "o", "markersize": 4}
        axes.plot(curve["probability"], curve["share"], label=shown_text(_short(name)), **line)
        counts.plot(curve["probability"], curve["images"], **line)
    axes.set(title=f"Calibration: expected error {figures['calibration_error']:.3f}", ylim=(-0.02, 1.02))
    axes.set_ylabel("share that is of the class")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # a curve may run anywhere
    counts.set(xlabel="probability of the class", ylabel="images", xlim=(-0.02, 1.02), yscale="log")
    counts.set_ylim(0.7, 2 * figures["images"])
    counts.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    counts.yaxis.set_minor_formatter(NullFormatter())
    return figure


def prediction_plot(classified: Classified, predicted: np.ndarray, count: int = 24) -> Figure:
    """Draw the first faces, each with its true and its predicted class; the wrong ones are framed in red.

    Args:
        classified: from `retinamask.inference.classify.classify_faces`.
        predicted: class ids from `classification.decide`, shape ``(N,)``.
        count: how many at most.
    """
    shown = np.arange(min(count, len(predicted)))
    wrong = int((predicted[shown] != classified.labels[shown]).sum())
    return prediction_grid(classified, predicted, shown, f"First {len(shown)} faces: {wrong} wrong")


def most_confident_mistakes(classified: Classified, predicted: np.ndarray, count: int = 24) -> Figure:
    """Draw the wrongly predicted faces, most confident first; otherwise as `prediction_plot`."""
    order = classification.mistakes(classified.labels, predicted, classified.probabilities)
    if not len(order):
        return note(f"All {len(predicted)} faces are right.")
    title = f"Most confident mistakes: {min(count, len(order))} of {len(order)}, of {len(predicted)} faces"
    return prediction_grid(classified, predicted, order[:count], title)


@styled
def prediction_grid(classified: Classified, predicted: np.ndarray, indices: Sequence[int], title: str) -> Figure:
    """Draw faces in a grid, row by row; a cross marks the wrong ones too, for those who cannot see red."""
    columns = min(_COLUMNS, len(indices))
    rows = -(-len(indices) // columns)
    width, height = max(_PITCH_WH[0] * columns, 4.5), _PITCH_WH[1] * rows + _HEADING
    figure = Figure(figsize=(width, height), layout="none")
    figure.text(0.1 / width, 1 - 0.3 / height, shown_text(title), fontsize=11, va="center")
    names = {number: name for name, number in classified.classes.items()}
    for place, index in enumerate(indices):
        left = _PITCH_WH[0] * (place % columns) + 0.1
        bottom = height - _HEADING - _PITCH_WH[1] * (place // columns) - _FACE_SIDE
        axes = figure.add_axes((left / width, bottom / height, _FACE_SIDE / width, _FACE_SIDE / height))
        axes.set(xticks=[], yticks=[], facecolor=style.CELL)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        face_rgb = classified.face_rgb(index)
        if face_rgb.size:
            face = ImageOps.contain(Image.fromarray(face_rgb), (_CELL_SIDE, _CELL_SIDE), Image.Resampling.LANCZOS)
            half_wh = np.array(face.size) / max(face.size) / 2
            axes.imshow(face, extent=(0.5 - half_wh[0], 0.5 + half_wh[0], 0.5 + half_wh[1], 0.5 - half_wh[1]))
        axes.set(xlim=(0, 1), ylim=(1, 0))
        row, number = classified.faces.iloc[index], predicted[index]
        wrong = names[number] != row["class_name"]
        color = style.VERMILLION if wrong else style.GREEN
        frame = {"edgecolor": color if wrong else style.GRID, "linewidth": 3 if wrong else 1, "facecolor": "none"}
        axes.add_patch(Rectangle((0, 0), 1, 1, clip_on=False, **frame))
        answer = f"{'✗' if wrong else '✓'} {shown_text(_short(names[number]))}"
        lines = [(f"{answer} {classified.probabilities[index, number]:.2f}", color, 8)]
        lines.append((f"true: {shown_text(_short(row['class_name']))}", style.INK, 8))
        lines.append((shown_text(_short(row["image_path"].rsplit("/", 1)[-1], 32)), style.FADED_INK, 6.5))
        for line, (text, ink, size) in enumerate(lines):
            axes.text(0, 1.08 + 0.1 * line, text, color=ink, fontsize=size, va="center")
    return figure


def _short(text: str, longest: int = 22) -> str:
    """Return the text on one line, its middle replaced by dots where it has more letters."""
    text = " ".join(text.split())
    kept = longest - 3
    return text if len(text) <= longest else f"{text[: kept - kept // 2]}...{text[-(kept // 2) :]}"
