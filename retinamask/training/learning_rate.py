"""The learning rate of each update as a plain function, when it has to fall, and how to find its peak.

A rate depends on nothing but the number of the step and the log, so that a resumed run continues exactly where it
stopped.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from retinamask.training.settings import TrainingError, TrainingSettings

BURN_IN_POWER = 4  # Darknet's, of the share of the burn-in that has passed
FIRST_SHARE = 0.1  # of the peak, at the first step of the warm-up
LAST_SHARE = 0.01  # of the peak, at the last step of the cosine
SMOOTHING = 0.9  # share of the moving average that each step of `find` keeps
DIVERGED = 4.0  # times the lowest smoothed loss


def rate_at(settings: TrainingSettings, step: int, total_steps: int, factor: float = 1.0) -> float:
    """Give the learning rate of one update.

    Args:
        settings: peak, schedule and warm-up.
        step: number of the update, from 0; after the last one the rate stays.
        total_steps: updates in the whole run, so that the last one is ``total_steps - 1``.
        factor: multiplies the whole schedule; tenfold lower after each of the `plateaus`.

    Returns:
        During warm-up a line from a tenth of the peak to the peak; then as ``settings.schedule`` says: the half
        cosine of Loshchilov and Hutter, https://arxiv.org/abs/1608.03983, from the peak to a hundredth of it, steps
        down to a tenth and a hundredth after 2/3 and 8/9 of all updates, or the peak. ``darknet`` is what Darknet
        makes of ``burn_in`` and of ``steps`` at 80 and 90 % of ``max_batches``: up with the fourth power, down twice.
    """
    peak, warm_up_steps = settings.learning_rate * factor, 0
    if settings.warm_up > 0:  # at least one step of it, and at least one after it
        warm_up_steps = min(total_steps - 1, max(1, round(settings.warm_up * total_steps)))
    if settings.schedule == "darknet":
        burnt_in = min(1.0, (step + 1) / max(1, warm_up_steps))  # Darknet counts a batch before it asks for its rate
        falls = int(5 * step >= 4 * total_steps) + int(10 * step >= 9 * total_steps)
        return peak * burnt_in**BURN_IN_POWER / 10**falls
    if step < warm_up_steps:
        return peak * (FIRST_SHARE + (1 - FIRST_SHARE) * step / warm_up_steps)
    if settings.schedule == "cosine":
        done = min(1.0, (step - warm_up_steps) / max(1, total_steps - 1 - warm_up_steps))
        return peak * (LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * done)) / 2)
    if settings.schedule == "step":
        falls = int(3 * step >= 2 * total_steps) + int(9 * step >= 8 * total_steps)  # NumPy's True + True is True
        return peak / 10**falls
    return peak


def plateaus(figures: Iterable[float], patience: int) -> int:
    """Count how often ``patience`` figures in a row, higher is better, brought nothing above the best before them."""
    best, waited, found = -math.inf, 0, 0
    for figure in figures:
        best, waited = (figure, 0) if figure > best else (best, waited + 1)
        if waited == patience:
            found, waited = found + 1, 0
    return found


def find(step: Callable[[float], float], low: float = 1e-6, high: float = 1.0, steps: int = 60) -> pd.DataFrame:
    """Take training steps with a growing learning rate until the loss blows up.

    The range test of Smith, *Cyclical Learning Rates for Training Neural Networks*, https://arxiv.org/abs/1506.01186,
    section 3.3.

    Args:
        step: one update with this learning rate; gives the loss of the batch before it.
        low, high: first and last rate; those between grow by the same factor.
        steps: how many, if the loss does not blow up before.

    Returns:
        A row per step with columns ``rate``, ``measured``, the loss of that batch, and ``loss``, its moving average
        with the start corrected for (Kingma and Ba, https://arxiv.org/abs/1412.6980, section 3). The last row is
        the first whose average is more than four times the lowest; one that is no finite number is left out.

    Raises:
        ValueError: the rates are no range, or there are too few steps to see anything.
        TrainingError: the very first loss is no finite number.
    """
    if not 0 < low < high or steps < 10:
        raise ValueError(f"low is {low}, high {high}, steps {steps}; expected 0 < low < high and at least 10 steps")
    rows: list[tuple[float, float, float]] = []
    average, best = 0.0, math.inf
    for number, rate in enumerate(np.geomspace(low, high, steps).tolist(), 1):
        measured = float(step(rate))
        if not math.isfinite(measured):
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * measured
        loss = average / (1 - SMOOTHING**number)
        rows.append((rate, measured, loss))
        best = min(best, loss)
        if loss > DIVERGED * best:
            break
    if not rows:
        raise TrainingError(
            f"the loss is {measured} before anything was learnt, at learning rate {low}; "
            "look at the images, the boxes and the starting weights"
        )
    return pd.DataFrame(rows, columns=["rate", "measured", "loss"])


def suggested(table: pd.DataFrame) -> float:
    """Suggest a peak learning rate from the table of `find`: a tenth of the rate at which the smoothed loss is lowest.

    At the lowest point the loss is about to rise, and the average lags. The place of steepest fall, the other common
    choice, jumps with the noise of single batches. A loss that never fell is a `TrainingError`.
    """
    lowest = table["loss"].idxmin()
    if lowest == table.index[0]:
        raise TrainingError(
            f"no learning rate from {table['rate'].min():.2g} to {table['rate'].max():.2g} lowered the loss; "
            "start from a lower one, or with more steps"
        )
    return float(table["rate"][lowest]) / 10
