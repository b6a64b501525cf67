"""Trials on a network that is thrown away: which precision is faster, which learning rate is too high.

Between `learner` and `train`.
"""

import pandas as pd

from retinamask.detectors import _keras
from retinamask.training import distribution, failures, feeding, learning_rate_finder, precision
from retinamask.training.examples import Examples
from retinamask.training.learner import Learner
from retinamask.training.settings import TrainingSettings


def precision_to_use(examples: Examples, settings: TrainingSettings, strategy) -> str:
    """``float32``, ``bfloat16`` or ``float16``; ``auto`` measures where there is a choice.

    Several workers measure nothing, since they might come to different answers: with them ``auto`` is float32 on
    processors.
    """
    _keras.prepare()

    def seconds(name: str) -> float:
        with precision.computing(name):
            learner = Learner(examples.detector, settings, strategy, name)
            batches = iter(feeding.batches(strategy, examples, settings, 0))
            return learner.seconds_of_a_step(next(batches))

    alone = distribution.shard(strategy)[1] == 1
    return precision.choose(settings.precision, seconds if alone else None)


def rates_and_losses(
    examples: Examples, settings: TrainingSettings, weights: str = "none", steps: int = 60
) -> pd.DataFrame:
    """Train a copy for ``steps`` steps with a rising learning rate; see `learning_rate_finder.find`.

    Args:
        examples, settings, weights: as for `retinamask.training.train.train`.
        steps: how many at most; the trial ends when the loss grows out of bounds.

    Returns:
        The table of `learning_rate_finder.find`.
    """
    strategy = distribution.strategy()
    used = precision_to_use(examples, settings, strategy)
    with failures.explained(settings), precision.computing(used):
        learner = Learner(examples.detector, settings, strategy, used, weights)
        batches = iter(feeding.batches(strategy, examples, settings, 0))

        def step(rate: float) -> float:
            learner.optimizer.set_rate(rate)
            return float(learner.step(next(batches), 0)["total_loss"])

        return learning_rate_finder.find(step, steps=steps)
