"""Learning rates, worked out by hand, and the plateaus that lower them or end a run."""

import math

import numpy as np
import pytest

from retinamask.training.learning_rate import plateaus, rate_at
from retinamask.training.settings import SCHEDULES, TrainingSettings


def rates(total_steps: int, factor: float = 1.0, **options) -> list[float]:
    settings = TrainingSettings(learning_rate=1.0, **options)
    return [rate_at(settings, step, total_steps, factor) for step in range(total_steps)]


def test_warm_up_is_a_line_from_a_tenth_to_the_peak():
    # A fifth of 15 steps: 0.1, then 0.3 more each step.
    assert rates(15, schedule="constant", warm_up=0.2)[:5] == pytest.approx([0.1, 0.4, 0.7, 1.0, 1.0])


@pytest.mark.parametrize("share, total, peak_at", [(0.29, 100, 29), (0.01, 5, 1), (0.9, 3, 2), (0.0, 5, 0)])
def test_the_peak_comes_after_the_share_of_the_steps(share, total, peak_at):
    run = rates(total, schedule="constant", warm_up=share)
    assert run.index(1.0) == peak_at and set(run[peak_at:]) == {1.0}


def test_the_cosine_falls_to_a_hundredth_at_the_last_step():
    run = rates(14, schedule="cosine", warm_up=0.1)  # one step up, the peak, twelve steps down
    assert run[:2] == [0.1, 1.0] and run[-1] == pytest.approx(0.01)
    assert run[1 + 6] == pytest.approx(0.505)  # half way: half of 1 + 0.01
    assert run[1 + 4] == pytest.approx(0.01 + 0.99 * 0.75)  # a third of the way: (1 + cos 60 degrees) / 2
    assert run[1:] == sorted(run[1:], reverse=True)


def test_the_rate_stays_after_the_last_step():
    settings = TrainingSettings(learning_rate=1.0)
    assert rate_at(settings, 500, 100) == pytest.approx(0.01)


def test_steps_fall_tenfold_after_two_thirds_and_eight_ninths():
    assert rates(9, schedule="step", warm_up=0) == pytest.approx([1] * 6 + [0.1] * 2 + [0.01])
    run = rates(10, schedule="step", warm_up=0)  # 2/3 of 10 is between 6 and 7, 8/9 between 8 and 9
    assert run == pytest.approx([1] * 7 + [0.1] * 2 + [0.01])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_number_of_a_step_may_come_from_numpy(schedule):
    settings = TrainingSettings(schedule=schedule)
    for step in range(30):
        found = rate_at(settings, np.int64(step), np.int64(30), np.float64(0.5))
        assert found == rate_at(settings, step, 30, 0.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_factor_multiplies_every_schedule(schedule):
    whole = rates(20, schedule=schedule)
    assert rates(20, factor=0.1, schedule=schedule) == pytest.approx([rate / 10 for rate in whole])


def test_plateau_stays_at_the_peak_times_the_factor():
    assert rates(4, factor=0.01, schedule="plateau", warm_up=0) == pytest.approx([0.01] * 4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_of_one_step_takes_the_peak(schedule):
    assert rates(1, schedule=schedule) == [1.0]


def test_a_plateau_is_when_nothing_better_came_in_a_row():
    figures = (0.3, 0.2, 0.4, 0.4, 0.1, 0.3, 0.39, 0.5)
    # Two not above 0.4 are one plateau, then two more another; 0.5 is better.
    assert [plateaus(figures[:count], 2) for count in range(9)] == [0, 0, 0, 0, 0, 1, 1, 2, 2]


def test_an_evaluation_without_a_figure_is_nothing_better():
    nothing = -math.inf
    assert [plateaus((nothing, 0.1, nothing, nothing)[:count], 2) for count in range(5)] == [0, 0, 0, 0, 1]


def test_darknets_burn_in_and_steps():
    # 50 steps, burn_in=10: Darknet's rate of its first batch, number 1, is peak * (1 / burn_in)^4, then tenfold down.
    run = rates(50, schedule="darknet", warm_up=0.2)
    assert run[:10] == pytest.approx([(number / 10) ** 4 for number in range(1, 11)])
    assert run[10:40] == [1.0] * 30 and run[40:45] == pytest.approx([0.1] * 5) and run[45:] == pytest.approx([0.01] * 5)
