"""Figures of the learning rate: over a run, and how it was found.

In the style of `plot_style`; each function returns a new figure and saves nothing.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from retinamask.drawing.style import AMBER, BLUE, FADED_INK, INK, styled
from retinamask.training.learning_rate_finder import suggested
from retinamask.training.schedules import rate_at
from retinamask.training.settings import TrainingError, TrainingSettings


@styled
def learning_rate_curve(settings: TrainingSettings, steps_per_epoch: int) -> Figure:
    """Draw the learning rate of every update of a run, over its epochs.

    Args:
        settings: how to train. What ``plateau`` does depends on the evaluations; its line stays at the peak.
        steps_per_epoch: updates in an epoch.
    """
    total = steps_per_epoch * settings.epochs
    figure = Figure(figsize=(6.4, 3.2))
    axes = figure.subplots()
    epochs = np.arange(total + 1) / steps_per_epoch  # a rate holds until the next update
    rates = [rate_at(settings, step, total) for step in range(total)]
    axes.step(epochs, [*rates, rates[-1]], where="post", color=INK)
    axes.set_title(f"{settings.schedule}, peak {settings.learning_rate:g}, updates: {total}")
    axes.set(xlabel="epoch", ylabel="learning rate", xlim=(0, settings.epochs), ylim=(0, 1.1 * settings.learning_rate))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    if settings.schedule == "plateau":
        text = f"a tenth whenever {settings.plateau_patience} evaluations in a row bring nothing better"
        axes.text(0.98, 0.06, text, transform=axes.transAxes, ha="right", color=FADED_INK, fontsize=8.5)
    return figure


@styled
def learning_rate_finding(table: pd.DataFrame) -> Figure:
    """Draw the loss against the learning rate, and the rate that is suggested.

    Args:
        table: from `learning_rate_finder.find`.
    """
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    axes.plot(table["rate"], table["measured"], ".", markersize=4, color=BLUE, alpha=0.35, label="loss of the batch")
    axes.plot(table["rate"], table["loss"], color=BLUE, label="moving average")
    try:
        rate = suggested(table)
        axes.axvline(rate, color=AMBER, linewidth=1.5, linestyle="--", label="a tenth of the rate at the lowest")
        axes.set_title(f"Suggested learning rate: {rate:.2g}")
    except TrainingError:
        axes.set_title("No learning rate lowered the loss")
    axes.set_xscale("log")
    before = table["loss"][: table["loss"].idxmin() + 1].max()  # how far it explodes afterwards does not matter
    axes.set(xlabel="learning rate", ylabel="loss", ylim=(0, max(2 * before, 1e-12)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(loc="best", fontsize=8.5)
    return figure
