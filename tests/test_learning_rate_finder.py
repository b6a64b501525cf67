"""The learning rate finder, on a bowl of which the largest rate is known by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from retinamask.training.learning_rate import find, suggested
from retinamask.training.settings import TrainingError

CURVATURES = np.array([10.0, 1.0])


def bowl():
    """Gradient descent on the sum of c w^2 / 2: w becomes (1 - rate c) w, which grows once rate > 2 / c."""
    weights = np.ones(2)

    def step(rate: float) -> float:
        nonlocal weights
        loss = float((CURVATURES * weights**2).sum() / 2)
        weights = weights * (1 - rate * CURVATURES)
        return loss

    return step


def losses(values):
    """A step that gives these losses whatever the rate."""
    given = iter(values)
    return lambda rate: next(given)


def test_a_bowl_blows_up_above_two_by_its_curvature():
    """The steeper direction, of curvature 10, falls below a rate of 0.2 and grows above it."""
    table = find(bowl(), low=1e-4, high=10, steps=200)
    assert table["rate"][0] == pytest.approx(1e-4) and table["rate"].iloc[-1] < 10
    falling = table["rate"] <= 0.2  # the loss of a row is what the rates before have led to
    assert (np.diff(table["measured"][falling]) <= 0).all()
    assert table["rate"].iloc[-1] > 0.2 and table["measured"].iloc[-1] > table["measured"].min()
    assert table["rate"][table["measured"].idxmin()] > 0.2
    assert 0.01 < suggested(table) < 0.2


def test_a_rate_that_is_suggested_trains_the_bowl_and_ten_times_the_lowest_does_not():
    table = find(bowl(), low=1e-4, high=10, steps=200)
    good, bad = bowl(), bowl()
    rate = suggested(table)
    assert [good(rate) for _ in range(200)][-1] < 0.01 < [bad(rate * 100) for _ in range(20)][-1]


def test_the_rates_grow_by_the_same_factor():
    table = find(losses(np.linspace(2, 1, 13)), low=1e-6, high=1, steps=13)
    np.testing.assert_allclose(table["rate"], [10 ** (power / 2) for power in range(-12, 1)])


def test_the_average_is_corrected_for_its_start():
    """0.1 of each and 0.9 of what was: 0.4 / 0.1, then (0.36 + 0.2) / 0.19, then (0.504 + 0.1) / 0.271."""
    table = find(losses([4.0, 2.0, 1.0] + [math.nan]), steps=10)
    assert table["measured"].tolist() == [4, 2, 1]
    assert table["loss"].tolist() == pytest.approx([4, 0.56 / 0.19, 0.604 / 0.271])


def test_a_constant_loss_is_its_own_average():
    assert find(losses([3.0] * 60))["loss"].tolist() == pytest.approx([3.0] * 60)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_it_ends_before_a_loss_that_is_no_number(broken):
    assert len(find(losses([1.0, 0.9, 0.8, broken]))) == 3


def test_it_ends_with_four_times_the_lowest_average():
    """(0.09 + 0.1 x) / 0.19 with x = 7 is 4.16 times the first average of 1; with x = 6 it is 3.63."""
    assert len(find(losses([1.0, 7.0]))) == 2
    assert len(find(losses([1.0, 6.0, math.nan]))) == 2
    with pytest.raises(StopIteration):  # 3.63 is not enough, another is asked for
        find(losses([1.0, 6.0]))


def test_a_tenth_of_the_rate_at_the_lowest_average_is_suggested():
    table = pd.DataFrame({"rate": [1e-3, 1e-2, 1e-1, 1.0], "measured": [5.0, 1, 0, 9], "loss": [5.0, 3, 2, 4]})
    assert suggested(table) == pytest.approx(1e-2)


def test_a_loss_that_only_rises_gives_no_suggestion():
    with pytest.raises(TrainingError, match="lowered the loss"):
        suggested(find(losses(np.linspace(1, 2, 60))))


def test_a_first_loss_that_is_no_number_is_said():
    with pytest.raises(TrainingError, match="before anything was learnt"):
        find(losses([math.nan]))


@pytest.mark.parametrize("options", [{"low": 0}, {"low": 1, "high": 0.1}, {"steps": 3}])
def test_rates_that_are_no_range_are_refused(options):
    with pytest.raises(ValueError, match="expected 0 < low < high"):
        find(bowl(), **options)
