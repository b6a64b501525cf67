"""Judge a classifier's probabilities against the true classes, by scikit-learn's metrics.

Everywhere ``labels`` are class ids of shape ``(N,)`` and ``probabilities`` have the shape ``(N, classes)``, one column
a class id. A share of nothing is ``None``, not 0.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn import metrics

BINS = 10  # of the calibration, each a tenth of the probabilities


class ClassificationError(ValueError):
    """Labels, probabilities, classes or threshold do not fit together."""


def figures(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Mapping[str, int],
    threshold: float = 0.5,
    threshold_class: str | None = None,
) -> dict:
    """Compute the figures of a classifier.

    Args:
        labels: the true class ids, shape ``(N,)``.
        probabilities: shape ``(N, classes)``, 0..1; each row sums to 1.
        classes: name to id; the ids are the columns.
        threshold, threshold_class: see `decide`.

    Returns:
        ``images``; ``accuracy`` (0..1, as all shares) and ``accuracy_interval``, its 95 % interval after Wilson (1927);
        ``balanced_accuracy``, the mean recall of the classes that occur; ``loss``, the mean cross-entropy in nats;
        ``calibration_error``, the expected one; ``per_class``, from name to ``precision``, ``recall``, ``f1``,
        ``roc_auc`` (against all others) and ``support`` (images of that class); ``classes``, the names in the order of
        their ids, and in that order ``confusion``, counts with a row for each true class and a column for each
        predicted one; ``threshold`` and ``threshold_class`` as given. All of it can be written as JSON.

    Raises:
        ClassificationError: the arguments do not fit together, or there is no image.
    """
    labels, probabilities = _checked(labels, probabilities, classes)
    predicted = decide(probabilities, classes, threshold, threshold_class)
    names = _names(classes)
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
    return {
        "images": len(labels),
        "accuracy": right / len(labels),
        "accuracy_interval": list(map(float, binomtest(right, len(labels)).proportion_ci(0.95, "wilson"))),
        "balanced_accuracy": float(np.nanmean(shares[1])),
        "loss": float(metrics.log_loss(labels, probabilities / probabilities.sum(1, keepdims=True), labels=ids)),
        "calibration_error": _calibration_error(labels, probabilities),
        "per_class": per_class,
        "classes": names,
        "confusion": metrics.confusion_matrix(labels, predicted, labels=ids).tolist(),
        "threshold": threshold,
        "threshold_class": threshold_class,
    }


def decide(
    probabilities: np.ndarray, classes: Mapping[str, int], threshold: float = 0.5, threshold_class: str | None = None
) -> np.ndarray:
    """Return the class id that each row is taken for, shape ``(N,)``.

    Without a named class it is the most likely one. With one, that class is taken from ``threshold`` on, and below it
    the most likely of the others: a high threshold on ``with_mask`` lets fewer bare faces pass for masked.

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


def roc(labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[str, int]) -> dict[str, pd.DataFrame]:
    """Return the receiver operating characteristic of each class against all others.

    Returns:
        Name to a table with a row for each probability that occurs, highest first, after one at which nothing is
        found: ``threshold``, ``false_positive_rate`` and ``true_positive_rate`` (0..1). It is empty where a class has
        no image, or all.
    """
    labels, probabilities = _checked(labels, probabilities, classes)
    curves = {}
    for name in _names(classes):
        is_class, columns = labels == classes[name], np.empty((3, 0))
        if is_class.any() and not is_class.all():
            false, true, thresholds = metrics.roc_curve(
                is_class, probabilities[:, classes[name]], drop_intermediate=False
            )
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
    labels, probabilities = _checked(labels, probabilities, classes)
    return {name: _calibration(labels == classes[name], probabilities[:, classes[name]]) for name in _names(classes)}


def mistakes(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of the wrong predictions, most confident first."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    wrong = np.flatnonzero(labels != predicted)
    return wrong[np.argsort(-np.asarray(probabilities)[wrong, predicted[wrong]], kind="stable")]


def _calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the expected calibration error: by how much the probability of the most likely class misses its accuracy.

    Guo et al., On Calibration of Modern Neural Networks, 2017 (https://arxiv.org/abs/1706.04599), equation 3, with
    `BINS` bins.
    """
    table = _calibration(probabilities.argmax(axis=1) == labels, probabilities.max(axis=1))
    gaps = (table["probability"] - table["share"]).abs()
    return float((gaps * table["images"]).sum() / len(labels))


def _names(classes: Mapping[str, int]) -> list[str]:
    """Return the names in the order of their ids."""
    return sorted(classes, key=classes.__getitem__)


def _checked(
    labels: np.ndarray, probabilities: np.ndarray, classes: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the arguments as arrays; the probabilities keep their float type."""
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


def _calibration(is_class: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability)
    binned = pd.DataFrame({"probability": probability.astype(float), "share": is_class}).groupby(places)
    return binned.mean().assign(images=binned.size()).reset_index(drop=True)
