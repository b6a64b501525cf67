"""Figures of the learning rate: what their lines show."""

import numpy as np
import pandas as pd
import pytest

from retinamask.evaluation.plots import learning_rate_curve, learning_rate_finding
from retinamask.training.settings import SCHEDULES, TrainingSettings


def table(*losses: float) -> pd.DataFrame:
    rates = np.geomspace(1e-4, 1e-1, len(losses))
    return pd.DataFrame({"rate": rates, "measured": losses, "loss": losses})


def test_the_line_holds_each_rate_until_the_next_update():
    """Two epochs of two updates: a tenth, the peak, half way down, a hundredth."""
    axes = learning_rate_curve(TrainingSettings(epochs=2, learning_rate=1e-2), 2).axes[0]
    epochs, rates = axes.lines[0].get_data()
    assert epochs.tolist() == [0, 0.5, 1, 1.5, 2]
    assert list(rates) == pytest.approx([1e-3, 1e-2, 5.05e-3, 1e-4, 1e-4])
    assert axes.lines[0].get_drawstyle() == "steps-post"


def test_both_falls_of_the_schedule_in_steps_are_drawn():
    settings = TrainingSettings(schedule="step", epochs=9, learning_rate=1.0, warm_up=0)
    rates = learning_rate_curve(settings, 1).axes[0].lines[0].get_ydata()
    assert list(rates) == pytest.approx([1] * 6 + [0.1] * 2 + [0.01] * 2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_fits_into_the_figure_even_with_one_update(schedule, tmp_path):
    for epochs, steps in ((20, 50), (1, 1)):
        figure = learning_rate_curve(TrainingSettings(schedule=schedule, epochs=epochs), steps)
        figure.savefig(tmp_path / "curve.png")
        low, high = figure.axes[0].get_ylim()
        rates = figure.axes[0].lines[0].get_ydata()
        assert low < min(rates) and max(rates) == 1e-4 < high
        assert bool(figure.axes[0].texts) == (schedule == "plateau")


def test_the_suggested_rate_is_marked():
    figure = learning_rate_finding(table(3.0, 2.0, 1.0, 2.5))  # lowest at 1e-2
    axes = figure.axes[0]
    assert axes.lines[-1].get_xdata() == pytest.approx([1e-3, 1e-3])
    assert axes.get_title("left") == "Suggested learning rate: 0.001"


def test_a_blow_up_does_not_flatten_the_rest():
    axes = learning_rate_finding(table(3.0, 2.0, 1.0, 1e9)).axes[0]
    assert axes.get_ylim() == (0, 6)


def test_nothing_is_marked_when_no_rate_lowered_the_loss(tmp_path):
    for losses in ((1.0, 2.0, 3.0), (0.0,)):
        figure = learning_rate_finding(table(*losses))
        assert len(figure.axes[0].lines) == 2 and figure.axes[0].get_title("left").startswith("No learning rate")
        figure.savefig(tmp_path / "finding.png")


def test_the_ticks_are_numbers_and_no_formulas():
    axes = learning_rate_finding(table(3.0, 2.0, 1.0, 2.5)).axes[0]
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert {"0.001", "0.01"} <= set(shown) and not any("$" in text for text in shown)
