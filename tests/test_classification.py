"""Figures of a classifier against scikit-learn's, and by hand where it has none."""

import json

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve

from retinamask.evaluation import classification
from retinamask.evaluation.classification import decide, figures

TWO = {"with_mask": 0, "without_mask": 1}
THREE = {"without_mask": 2, "with_mask": 0, "worn wrong": 1}  # not in the order of the ids


def drawn(classes: int, count: int, seed: int, digits: int | None = None, kind=np.float64):
    """Labels and probabilities that know something of them; rounded, so that some are equal."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=count)
    logits = random.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if digits is not None:
        probabilities[:, 1:] = np.floor(probabilities[:, 1:] * 10**digits) / 10**digits
        probabilities[:, 0] = 1 - probabilities[:, 1:].sum(axis=1)
    return labels, probabilities.astype(kind)


CASES = [(TWO, 300, 0, None), (TWO, 300, 1, 1), (THREE, 400, 2, None), (THREE, 400, 3, 1), (THREE, 6, 9, None)]


@pytest.fixture(params=CASES, ids=["two", "two, ties", "three", "three, ties", "few"])
def case(request):
    classes, count, seed, digits = request.param
    return *drawn(len(classes), count, seed, digits), classes


def test_figures_are_those_of_scikit_learn(case):
    labels, probabilities, classes = case
    found, predicted, ids = figures(*case), probabilities.argmax(axis=1), list(range(len(classes)))
    confusion = metrics.confusion_matrix(labels, predicted, labels=ids)
    np.testing.assert_array_equal(found["confusion"], confusion)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert found["loss"] == pytest.approx(metrics.log_loss(labels, probabilities, labels=ids))
    theirs = metrics.precision_recall_fscore_support(labels, predicted, labels=ids, zero_division=np.nan)
    for name, ours in found["per_class"].items():
        values = [np.nan if ours[key] is None else ours[key] for key in ("precision", "recall", "f1", "support")]
        np.testing.assert_allclose(values, [column[classes[name]] for column in theirs])
        area = metrics.roc_auc_score(labels == classes[name], probabilities[:, classes[name]])
        assert ours["roc_auc"] == pytest.approx(area)
    assert found["images"] == len(labels)
    assert [classes[name] for name in found["classes"]] == ids
    json.dumps(found, allow_nan=False)


def test_curves_are_those_of_scikit_learn(case):
    labels, probabilities, classes = case
    curves, calibrations = classification.roc(*case), classification.calibration(*case)
    for name, index in classes.items():
        is_class, probability = labels == index, probabilities[:, index]
        false, true, thresholds = metrics.roc_curve(is_class, probability, drop_intermediate=False)
        expected = np.stack([thresholds, false, true], axis=1)
        np.testing.assert_allclose(curves[name].to_numpy(), expected)
        share, mean = calibration_curve(is_class, probability, n_bins=10)
        np.testing.assert_allclose(calibrations[name][["probability", "share"]], np.stack([mean, share], axis=1))
        assert calibrations[name]["images"].sum() == len(labels)


def test_the_calibration_error_weighs_the_bins_of_the_likeliest_class(case):
    labels, probabilities, _ = case
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    share, mean = calibration_curve(right, confidence, n_bins=10)
    places = np.ceil(confidence * 10 - 1e-12)  # the bins hold their upper edge
    counts = np.unique(places, return_counts=True)[1]
    assert figures(*case)["calibration_error"] == pytest.approx(counts @ abs(share - mean) / len(labels))


def test_the_calibration_error_by_hand():
    # Four of 0.75, three right: no gap. Two of 0.95, one right: a gap of 0.45 for a third of the images.
    sure = np.array([0.75] * 4 + [0.95] * 2)
    labels = np.array([0, 0, 0, 1, 0, 1])
    error = figures(labels, np.stack([sure, 1 - sure], axis=1), TWO)["calibration_error"]
    assert error == pytest.approx(0.45 / 3)


# By hand with z = 1.959964: (right + z²/2 ± z √(right (count - right) / count + z²/4)) / (count + z²)
@pytest.mark.parametrize(
    "right, count, interval", [(97, 100, [0.915481, 0.989745]), (0, 7, [0, 0.354330]), (7, 7, [0.645670, 1])]
)
def test_the_interval_is_wilsons(right, count, interval):
    probabilities = np.tile([0.9, 0.1], (count, 1))
    labels = (np.arange(count) >= right).astype(int)
    assert figures(labels, probabilities, TWO)["accuracy_interval"] == pytest.approx(interval, abs=1e-6)


def test_the_loss_of_a_certain_mistake_is_finite_as_in_scikit_learn():
    for kind in (np.float32, np.float64):
        probabilities = np.array([[1, 0], [1, 0]], dtype=kind)
        expected = metrics.log_loss([0, 1], probabilities, labels=[0, 1])
        assert figures(np.array([0, 1]), probabilities, TWO)["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_threshold_holds_for_the_class_it_names():
    probabilities = np.array([[0.6, 0.4], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
    assert decide(probabilities, TWO).tolist() == [0, 0, 0, 1]
    assert decide(probabilities, TWO, 0.8, "with_mask").tolist() == [1, 0, 1, 1]
    assert decide(probabilities, TWO, 0.3, "without_mask").tolist() == [1, 0, 1, 1]
    three = np.array([[0.45, 0.35, 0.2], [0.2, 0.35, 0.45], [0.7, 0.1, 0.2]])
    assert decide(three, THREE, 0.5, "with_mask").tolist() == [1, 2, 0]
    assert decide(three, THREE, 0.2, "without_mask").tolist() == [2, 2, 2]
    assert decide(three, THREE, 0, "with_mask").tolist() == [0, 0, 0]


def test_figures_follow_the_threshold():
    labels, probabilities = drawn(2, 200, 7)
    found = figures(labels, probabilities, TWO, 0.9, "with_mask")
    predicted = np.where(probabilities[:, 0] >= 0.9, 0, 1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    precision = metrics.precision_score(labels, predicted, pos_label=0)
    assert found["per_class"]["with_mask"]["precision"] == pytest.approx(precision)
    assert found["loss"] == figures(labels, probabilities, TWO)["loss"]


def test_a_share_of_nothing_is_none():
    found = figures(np.zeros(3, dtype=int), np.tile([0.9, 0.06, 0.04], (3, 1)), THREE)
    assert found["per_class"]["worn wrong"] == {
        "precision": None,
        "recall": None,
        "f1": None,
        "support": 0,
        "roc_auc": None,
    }
    assert found["per_class"]["with_mask"]["roc_auc"] is None
    assert found["accuracy"] == found["balanced_accuracy"] == 1


def test_the_most_confident_mistake_comes_first():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.99, 0.01], [0.8, 0.2], [0.05, 0.95]])
    labels, predicted = np.array([1, 0, 0, 1, 0]), probabilities.argmax(axis=1)
    assert classification.mistakes(labels, predicted, probabilities).tolist() == [4, 1, 3, 0]
    assert classification.mistakes(predicted, predicted, probabilities).tolist() == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"threshold": 0.7}, "name one of: with_mask, without_mask"),
        ({"threshold": 70, "threshold_class": "with_mask"}, "expected 0 to 1"),
        ({"threshold_class": "mask"}, "threshold class is 'mask'"),
    ],
)
def test_a_threshold_of_no_class_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        figures(np.array([0, 1]), np.array([[0.5, 0.5], [0.1, 0.9]]), TWO, **options)


def test_the_summary_has_a_row_for_each_class():
    found = figures(np.array([0, 0, 0, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]), TWO)
    *lines, head, first, second = classification.summary({**found, "left_out": 2}).splitlines()
    assert lines[0] == "4 faces, 2 left out" and lines[1].startswith("accuracy 0.7500 (95 %: ")
    assert head.split()[:5] == ["precision", "recall", "f1", "roc_auc", "faces"]
    assert first.split() == ["with_mask", "1.0000", "0.6667", "0.8000", "1.0000", "3", "2", "1"]
    assert second.split() == ["without_mask", "0.5000", "1.0000", "0.6667", "1.0000", "1", "0", "1"]
