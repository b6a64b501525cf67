"""Judge a classifier's probabilities against the true classes by scikit-learn's metrics, and draw what came out.

Everywhere ``labels`` are class ids of shape ``(N,)``, ``probabilities`` have the shape ``(N, classes)``, one column
a class id, rows with the sum 1, and ``classes`` is name to id. A share of nothing is ``None``, not 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter
from PIL import Image, ImageOps
from scipy.stats import binomtest
from sklearn import metrics

from retinamask.drawing import style
from retinamask.drawing.style import begin, class_colors, note, short, shown_text, styled
from retinamask.inference.classify import Classified

BINS = 10  # of the calibration, each a tenth of the probabilities
_CELL_SIDE, _COLUMNS = 256, 6  # of the grid of faces: pixels that a face is shown with at most, and faces in a row
_FACE_SIDE, _PITCH_WH, _HEADING = 1.8, (2.0, 2.5), 0.45  # inches


def figures(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Mapping[str, int],
    threshold: float = 0.5,
    threshold_class: str | None = None,
) -> dict:
    """Compute the figures of a classifier on at least one image.

    Returns:
        ``images``; ``accuracy`` (0..1, as all shares) and ``accuracy_interval``, its 95 % interval after Wilson (1927);
        ``balanced_accuracy``, the mean recall of the classes that occur; ``loss``, the mean cross-entropy in nats;
        ``calibration_error``, the expected one; ``per_class``, from name to ``precision``, ``recall``, ``f1``,
        ``roc_auc`` (against all others) and ``support`` (images of that class); ``classes``, the names in the order of
        their ids, and in that order ``confusion``, counts with a row for each true class and a column for each
        predicted one; ``threshold`` and ``threshold_class`` as given, see `decide`. All of it can be written as JSON.

    Raises:
        ValueError: see `decide`.
    """
    predicted = decide(probabilities, classes, threshold, threshold_class)
    names = sorted(classes, key=classes.get)
    ids = range(len(names))
    shares = metrics.precision_recall_fscore_support(labels, predicted, labels=ids, zero_division=np.nan)
    curves = roc(labels, probabilities, classes)
    per_class = {}
    for name, *of_class, support in zip(names, *shares, strict=True):
        rates = curves[name]["false_positive_rate"], curves[name]["true_positive_rate"]
        of_class.append(np.nan if curves[name].empty else metrics.auc(*rates))
        found = zip(("precision", "recall", "f1", "roc_auc"), of_class, strict=True)
        per_class[name] = {key: None if np.isnan(share) else float(share) for key, share in found}
        per_class[name]["support"] = int(support)
    right = int((labels == predicted).sum())
    # Guo et al., On Calibration of Modern Neural Networks, 2017 (https://arxiv.org/abs/1706.04599), equation 3.
    bins = binned(probabilities.argmax(axis=1) == labels, probabilities.max(axis=1))
    gaps = (bins["probability"] - bins["share"]).abs() * bins["images"]
    return {
        "images": len(labels),
        "accuracy": right / len(labels),
        "accuracy_interval": list(map(float, binomtest(right, len(labels)).proportion_ci(0.95, "wilson"))),
        "balanced_accuracy": float(np.nanmean(shares[1])),
        "loss": float(metrics.log_loss(labels, probabilities / probabilities.sum(1, keepdims=True), labels=ids)),
        "calibration_error": float(gaps.sum() / len(labels)),
        "per_class": per_class,
        "classes": names,
        "confusion": metrics.confusion_matrix(labels, predicted, labels=ids).tolist(),
        "threshold": threshold,
        "threshold_class": threshold_class,
    }


def summary(figures: dict) -> str:
    """Return `figures`, with ``left_out`` beside them, as lines and a table of the classes."""
    low, high = figures["accuracy_interval"]
    names, left_out = figures["classes"], f", {figures['left_out']} left out" if figures["left_out"] else ""
    table = pd.DataFrame.from_dict(figures["per_class"], orient="index").rename(columns={"support": "faces"})
    table = table.astype(dict.fromkeys(("precision", "recall", "f1", "roc_auc"), float))
    taken = pd.DataFrame(figures["confusion"], names, [f"as {name}" for name in names])
    return (
        f"{figures['images']} faces{left_out}\n"
        f"accuracy {figures['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f}), loss {figures['loss']:.4f}\n"
        f"balanced accuracy {figures['balanced_accuracy']:.4f}, calibration {figures['calibration_error']:.4f} off\n"
        + table.join(taken).to_string(float_format="{:.4f}".format, na_rep="-")
    )


def decide(
    probabilities: np.ndarray, classes: Mapping[str, int], threshold: float = 0.5, threshold_class: str | None = None
) -> np.ndarray:
    """Return the class id that each row is taken for, shape ``(N,)``.

    Without a named class it is the most likely one. With one, that class is taken from ``threshold`` on, and below it
    the most likely of the others: a high threshold on ``with_mask`` lets fewer bare faces pass for masked.

    Raises:
        ValueError: the class is unknown, or a threshold is given that no class is named for.
    """
    check_threshold(classes, threshold, threshold_class)
    if threshold_class is None:
        return np.argmax(probabilities, axis=1)
    column = classes[threshold_class]
    others = np.array(probabilities, dtype=float)
    others[:, column] = -1
    return np.where(probabilities[:, column] >= threshold, column, np.argmax(others, axis=1))


def check_threshold(classes: Mapping[str, int], threshold: float, threshold_class: str | None) -> None:
    """Raise `ValueError` for what `decide` does not take."""
    known = ", ".join(sorted(classes, key=classes.get))
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}, expected 0 to 1")
    if threshold_class is None and threshold != 0.5:
        raise ValueError(f"threshold is {threshold}, but of no class; name one of: {known}")
    if threshold_class is not None and threshold_class not in classes:
        raise ValueError(f"threshold class is {threshold_class!r}, expected one of: {known}")


def roc(labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[str, int]) -> dict[str, pd.DataFrame]:
    """Return the receiver operating characteristic of each class against all others.

    Returns:
        Name to a table with a row for each probability that occurs, highest first, after one at which nothing is
        found: ``threshold``, ``false_positive_rate`` and ``true_positive_rate`` (0..1). It is empty where a class has
        no image, or all.
    """
    curves = {}
    for name in sorted(classes, key=classes.get):
        is_class, columns = labels == classes[name], np.empty((3, 0))
        if is_class.any() and not is_class.all():
            probability = probabilities[:, classes[name]]
            false, true, thresholds = metrics.roc_curve(is_class, probability, drop_intermediate=False)
            columns = thresholds, false, true
        keys = ("threshold", "false_positive_rate", "true_positive_rate")
        curves[name] = pd.DataFrame(dict(zip(keys, columns, strict=True)))
    return curves


def calibration(labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[str, int]) -> dict[str, pd.DataFrame]:
    """Return how often each class was there, by the probability that it got.

    Returns:
        Name to a table with a row for each bin that holds an image: ``probability`` (the mean of the bin),
        ``share`` (0..1, of the images in the bin that are of the class) and ``images``. The bins are equally wide and
        hold their upper edge.
    """
    return {
        name: binned(labels == classes[name], probabilities[:, classes[name]])
        for name in sorted(classes, key=classes.get)
    }


def mistakes(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of the wrong predictions, most confident first."""
    wrong = np.flatnonzero(labels != predicted)
    return wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]


def binned(is_class: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Give the table of one class for `calibration`, of ``bool`` and ``float`` arrays ``(N,)``."""
    places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability)
    grouped = pd.DataFrame({"probability": probability.astype(float), "share": is_class}).groupby(places)
    return grouped.mean().assign(images=grouped.size()).reset_index(drop=True)


@styled
def roc_curves(curves: Mapping[str, pd.DataFrame], figures: Mapping[str, Any]) -> Figure:
    """Draw `roc`, the receiver operating characteristic of each class against all others."""
    figure, axes = begin(5, 5)
    axes.plot([0, 1], [0, 1], color=style.FADED_INK, linewidth=1, linestyle="--", label="by chance: 0.5")
    colors = class_colors(curves)
    for name, curve in curves.items():
        area = figures["per_class"][name]["roc_auc"]
        score = "all images or none" if area is None else f"area {area:.3f}"
        rates = curve["false_positive_rate"], curve["true_positive_rate"]
        axes.plot(*rates, color=colors[name], label=f"{shown_text(short(name))}: {score}")
    axes.set(title="Receiver operating characteristic", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_xlabel("false positive rate: share of the others taken for the class")
    axes.set_ylabel("true positive rate: share of the class that is found")
    axes.set_aspect("equal")
    axes.legend(loc="lower right")
    return figure


@styled
def calibration_curves(
    curves: Mapping[str, pd.DataFrame],
    figures: Mapping[str, Any],
    labels: tuple[str, str, str] = ("probability of the class", "share that is of the class", "images"),
) -> Figure:
    """Draw `calibration`: how often each class was there by the probability it got, for how many.

    ``labels`` are those of the axes: along, up, and of the counts.
    """
    figure, (axes, counts) = begin(6.8, 5.8, 2, 1, height_ratios=(4, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color=style.FADED_INK, linewidth=1, linestyle="--", label="as often as predicted")
    colors = class_colors(curves)
    for name, curve in curves.items():
        line = {"color": colors[name], "marker": "o", "markersize": 4}
        axes.plot(curve["probability"], curve["share"], label=shown_text(short(name)), **line)
        counts.plot(curve["probability"], curve["images"], **line)
    axes.set(title=f"Calibration: expected error {figures['calibration_error']:.3f}", ylim=(-0.02, 1.02))
    axes.set_ylabel(labels[1])
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # a curve may run anywhere
    counts.set(xlabel=labels[0], ylabel=labels[2], xlim=(-0.02, 1.02), yscale="log")
    counts.set_ylim(0.7, 2 * figures["images"])
    counts.yaxis.set_major_formatter("{x:g}")
    counts.yaxis.set_minor_formatter(NullFormatter())
    return figure


def prediction_plot(classified: Classified, predicted: np.ndarray, count: int = 24) -> Figure:
    """Draw the first faces, each with its true and its predicted class; the wrong ones are framed in red."""
    shown = np.arange(min(count, len(predicted)))
    wrong = int((predicted[shown] != classified.labels[shown]).sum())
    return prediction_grid(classified, predicted, shown, f"First {len(shown)} faces: {wrong} wrong")


def most_confident_mistakes(classified: Classified, predicted: np.ndarray, count: int = 24) -> Figure:
    """Draw the wrongly predicted faces, most confident first; otherwise as `prediction_plot`."""
    order = mistakes(classified.labels, predicted, classified.probabilities)
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
        answer = f"{'✗' if wrong else '✓'} {shown_text(short(names[number]))}"
        lines = [(f"{answer} {classified.probabilities[index, number]:.2f}", color, 8)]
        lines.append((f"true: {shown_text(short(row['class_name']))}", style.INK, 8))
        lines.append((shown_text(short(row["image_path"].rsplit("/", 1)[-1], 32)), style.FADED_INK, 6.5))
        for line, (text, ink, size) in enumerate(lines):
            axes.text(0, 1.08 + 0.1 * line, text, color=ink, fontsize=size, va="center")
    return figure
