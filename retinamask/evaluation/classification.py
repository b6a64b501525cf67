"""What a classifier's probabilities are worth, judged against the true classes.

Beside `coco`, which judges boxes; NumPy alone, so that any classifier can be judged. Everywhere ``labels`` are class
ids of shape ``(N,)`` and ``probabilities`` have the shape ``(N, classes)``, one column a class id. The figures are
those of scikit-learn, where it has them; a share of nothing is ``None``, not 0.
"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

BINS = 10  # of the calibration, each a tenth of the probabilities
CONFIDENCE_Z = 1.959964  # standard deviations on either side of the middle that hold 95 % of a normal distribution


class ClassificationError(ValueError):
    """Labels, probabilities, classes or threshold do not fit together."""


def figures(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Mapping[str, int],
    threshold: float = 0.5,
    threshold_class: str | None = None,
) -> dict:
    """Return what there is to say about a classifier in numbers.

    Args:
        labels: the true class ids, shape ``(N,)``.
        probabilities: shape ``(N, classes)``, 0..1; each row sums to 1.
        classes: name to id; the ids are the columns.
        threshold, threshold_class: see `decide`.

    Returns:
        ``images``; ``accuracy`` (0..1, as all shares) and ``accuracy_interval``, its 95 % interval after Wilson (1927);
        ``balanced_accuracy``, the mean recall of the classes that occur; ``loss``, the mean cross-entropy in nats;
        ``calibration_error``, see the function; ``per_class``, from name to ``precision``, ``recall``, ``f1``,
        ``roc_auc`` (against all others) and ``support`` (images of that class); ``classes``, the names in the order of
        their ids, and in that order ``confusion``, counts with a row for each true class and a column for each
        predicted one; ``threshold`` and ``threshold_class`` as given. All of it can be written as JSON.

    Raises:
        ClassificationError: the arguments do not fit together, or there is no image.
    """
    labels, probabilities = _checked(labels, probabilities, classes)
    predicted = decide(probabilities, classes, threshold, threshold_class)
    names = _names(classes)
    confusion = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(confusion, (labels, predicted), 1)
    areas = {name: _area(curve) for name, curve in roc(labels, probabilities, classes).items()}
    per_class = {name: {**_of_class(confusion, classes[name]), "roc_auc": areas[name]} for name in names}
    recalls = [found["recall"] for found in per_class.values() if found["recall"] is not None]
    right = int(np.trace(confusion))
    return {
        "images": len(labels),
        "accuracy": right / len(labels),
        "accuracy_interval": _wilson(right, len(labels)),
        "balanced_accuracy": float(np.mean(recalls)),
        "loss": log_loss(labels, probabilities),
        "calibration_error": calibration_error(labels, probabilities),
        "per_class": per_class,
        "classes": names,
        "confusion": confusion.tolist(),
        "threshold": threshold,
        "threshold_class": threshold_class,
    }


def decide(
    probabilities: np.ndarray, classes: Mapping[str, int], threshold: float = 0.5, threshold_class: str | None = None
) -> np.ndarray:
    """Return the class id that each row is taken for, shape ``(N,)``.

    Without a named class it is the likeliest one. With one, that class is taken from ``threshold`` on, and below it
    the likeliest of the others: a high threshold on ``with_mask`` lets fewer bare faces pass for masked.

    Raises:
        ClassificationError: the class is unknown, or a threshold is given that no class is named for.
    """
    check_threshold(classes, threshold, threshold_class)
    if threshold_class is None:
        return np.argmax(probabilities, axis=1)
    column = classes[threshold_class]
    others = np.array(probabilities, dtype=float)
    others[:, column] = -1
    return np.where(np.asarray(probabilities)[:, column] >= threshold, column, np.argmax(others, axis=1))


def check_threshold(classes: Mapping[str, int], threshold: float, threshold_class: str | None) -> None:
    """Raise `ClassificationError` for what `decide` does not take."""
    known = ", ".join(_names(classes))
    if not 0 <= threshold <= 1:
        raise ClassificationError(f"threshold is {threshold}, expected 0 to 1")
    if threshold_class is None and threshold != 0.5:
        raise ClassificationError(f"threshold is {threshold}, but of no class; name one of: {known}")
    if threshold_class is not None and threshold_class not in classes:
        raise ClassificationError(f"threshold class is {threshold_class!r}, expected one of: {known}")


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -ln(probability of the true class); a zero counts as its float type's epsilon, as in scikit-learn."""
    least = np.finfo(probabilities.dtype).eps
    of_truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(of_truth, least, 1)).mean(dtype=float))


def roc(labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[str, int]) -> dict[str, pd.DataFrame]:
    """Return the receiver operating characteristic of each class against all others.

    Returns:
        Name to a table with a row for each probability that occurs, highest first, after one at which nothing is
        found: ``threshold``, ``false_positive_rate`` and ``true_positive_rate`` (0..1). It is empty where a class has
        no image, or all.
    """
    labels, probabilities = _checked(labels, probabilities, classes)
    return {name: _roc(labels == classes[name], probabilities[:, classes[name]]) for name in _names(classes)}


def calibration(
    labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[str, int], bins: int = BINS
) -> dict[str, pd.DataFrame]:
    """Return how often each class was there, by the probability that it got.

    Returns:
        Name to a table with a row for each bin that holds an image: ``probability`` (the mean of the bin),
        ``share`` (0..1, of the images in the bin that are of the class) and ``images``. The bins are equally wide and
        hold their upper edge.
    """
    labels, probabilities = _checked(labels, probabilities, classes)
    return {
        name: _calibration(labels == classes[name], probabilities[:, classes[name]], bins) for name in _names(classes)
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error: by how much the probability of the likeliest class misses its accuracy.

    Guo et al., On Calibration of Modern Neural Networks, 2017 (https://arxiv.org/abs/1706.04599), equation 3; they
    take 15 bins, `BINS` are those of the figure.
    """
    table = _calibration(probabilities.argmax(axis=1) == labels, probabilities.max(axis=1), bins)
    gaps = (table["probability"] - table["share"]).abs()
    return float((gaps * table["images"]).sum() / len(labels))


def mistakes(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of the wrong predictions, the one that was held for likeliest first."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    wrong = np.flatnonzero(labels != predicted)
    return wrong[np.argsort(-np.asarray(probabilities)[wrong, predicted[wrong]], kind="stable")]


def _names(classes: Mapping[str, int]) -> list[str]:
    """The names in the order of their ids."""
    return sorted(classes, key=classes.__getitem__)


def _checked(
    labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The arguments as arrays; probabilities keep their float type."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if sorted(classes.values()) != list(range(len(classes))):
        raise ClassificationError(f"class ids are {sorted(classes.values())}, expected 0, 1 ... without a gap")
    if labels.ndim != 1 or probabilities.shape != (len(labels), len(classes)):
        raise ClassificationError(
            f"labels have the shape {labels.shape} and probabilities {probabilities.shape}, "
            f"expected (N,) and (N, {len(classes)})"
        )
    if not len(labels):
        raise ClassificationError("there is no image to judge; expected at least one")
    if not (labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < len(classes)):
        raise ClassificationError(f"labels are {np.unique(labels)[:10]}, expected class ids below {len(classes)}")
    if probabilities.dtype.kind != "f":
        probabilities = probabilities.astype(float)
    sums = probabilities.sum(axis=1, dtype=float)
    if not (np.isfinite(sums).all() and probabilities.min() >= 0 and np.abs(sums - 1).max() < 1e-3):
        row = int(np.argmax(np.nan_to_num(np.abs(sums - 1) + (probabilities < 0).any(axis=1), nan=np.inf)))
        raise ClassificationError(f"probabilities of row {row} are {probabilities[row]}, expected 0..1 with the sum 1")
    return labels, probabilities


def _of_class(confusion: np.ndarray, column: int) -> dict:
    hits = int(confusion[column, column])
    predicted, support = int(confusion[:, column].sum()), int(confusion[column].sum())
    return {
        "precision": _share(hits, predicted),
        "recall": _share(hits, support),
        "f1": _share(2 * hits, predicted + support),
        "support": support,
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _wilson(right: int, count: int) -> list[float]:
    """The 95 % interval of a share; unlike the usual one it stays within 0..1 and holds for few images."""
    square = CONFIDENCE_Z**2
    middle = (right + square / 2) / (count + square)
    half = CONFIDENCE_Z / (count + square) * math.sqrt(right * (count - right) / count + square / 4)
    return [max(0.0, middle - half), min(1.0, middle + half)]


def _roc(is_class: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    columns = ["threshold", "false_positive_rate", "true_positive_rate"]
    if is_class.all() or not is_class.any():
        return pd.DataFrame(columns=columns, dtype=float)
    order = np.argsort(-probability, kind="stable")
    is_class, probability = is_class[order], probability[order].astype(float)
    last_of_equals = np.append(np.flatnonzero(np.diff(probability)), len(probability) - 1)
    hits = np.cumsum(is_class)[last_of_equals]
    false = last_of_equals + 1 - hits
    rows = np.stack([probability[last_of_equals], false / (~is_class).sum(), hits / is_class.sum()], axis=1)
    return pd.DataFrame(np.vstack([[np.inf, 0, 0], rows]), columns=columns)


def _area(curve: pd.DataFrame) -> float | None:
    if curve.empty:
        return None
    return float(np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"]))


def _calibration(is_class: np.ndarray, probability: np.ndarray, bins: int) -> pd.DataFrame:
    edges = np.linspace(0, 1, bins + 1)
    places = np.searchsorted(edges[1:-1], probability)
    counts = np.bincount(places, minlength=bins)
    filled = counts > 0
    means = [np.bincount(places, weights=of, minlength=bins)[filled] / counts[filled] for of in (probability, is_class)]
    return pd.DataFrame({"probability": means[0], "share": means[1], "images": counts[filled]})
