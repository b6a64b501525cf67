"""Judge a classifier's probabilities against the true classes, by scikit-learn's metrics.

Everywhere ``labels`` are class ids of shape ``(N,)``, ``probabilities`` have the shape ``(N, classes)``, one column
a class id, rows with the sum 1, and ``classes`` is name to id. A share of nothing is ``None``, not 0.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn import metrics

BINS = 10  # of the calibration, each a tenth of the probabilities


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
    # Guo et al., On Calibration of Modern Neural Networks, 2017 (https://arxiv.org/abs/1706.04599), equation 3.
    bins = _calibration(probabilities.argmax(axis=1) == labels, probabilities.max(axis=1))
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
    known = ", ".join(_names(classes))
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
    for name in _names(classes):
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
    return {name: _calibration(labels == classes[name], probabilities[:, classes[name]]) for name in _names(classes)}


def mistakes(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the indices of the wrong predictions, most confident first."""
    wrong = np.flatnonzero(labels != predicted)
    return wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]


def _names(classes: Mapping[str, int]) -> list[str]:
    """Return the names in the order of their ids."""
    return sorted(classes, key=classes.__getitem__)


def _calibration(is_class: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probability)
    binned = pd.DataFrame({"probability": probability.astype(float), "share": is_class}).groupby(places)
    return binned.mean().assign(images=binned.size()).reset_index(drop=True)
