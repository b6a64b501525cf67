"""Find a learning rate: train with one that grows from step to step, and look where the loss falls and blows up.

The range test of Smith, *Cyclical Learning Rates for Training Neural Networks*, https://arxiv.org/abs/1506.01186,
section 3.3. The weights that it trains are thrown away.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from retinamask.training import distribution, input_pipeline, precision
from retinamask.training.examples import Examples
from retinamask.training.learner import Learner, step_timers
from retinamask.training.settings import TrainingError, TrainingSettings
from retinamask.training.train import explained

SMOOTHING = 0.9  # share of the moving average that each step keeps
DIVERGED = 4.0  # times the lowest smoothed loss
COLUMNS = ["rate", "measured", "loss"]


def rates_and_losses(
    examples: Examples, settings: TrainingSettings, weights: str = "none", steps: int = 60
) -> pd.DataFrame:
    """Train a copy for at most ``steps`` steps with a rising learning rate and give the table of `find`.

    The other arguments are those of `retinamask.training.train.train`.
    """
    strategy = distribution.strategy()
    used = precision.precision_to_use(examples, settings, steps, strategy, step_timers)
    with explained(settings), precision.computing(used):
        learner = Learner(examples.detector, settings, strategy, used, weights)
        batches = iter(input_pipeline.dealt_out(strategy, examples, settings, 0))

        def step(rate: float) -> float:
            learner.optimizer.set_rate(rate)
            return float(learner.step(next(batches), 0)["total_loss"])

        return find(step, steps=steps)


def find(step: Callable[[float], float], low: float = 1e-6, high: float = 1.0, steps: int = 60) -> pd.DataFrame:
    """Take training steps with a growing learning rate until the loss blows up.

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
    return pd.DataFrame(rows, columns=COLUMNS)


def suggested(table: pd.DataFrame) -> float:
    """Suggest a peak learning rate from the table of `find`: a tenth of the rate at which the smoothed loss is lowest.

    At the lowest point the loss is about to rise, and the average lags. The place of steepest fall, the other common
    choice, jumps with the noise of single batches.

    Raises:
        TrainingError: the loss never fell.
    """
    lowest = table["loss"].idxmin()
    if lowest == table.index[0]:
        raise TrainingError(
            f"no learning rate from {table['rate'].min():.2g} to {table['rate'].max():.2g} lowered the loss; "
            "start from a lower one, or with more steps"
        )
    return float(table["rate"][lowest]) / 10
