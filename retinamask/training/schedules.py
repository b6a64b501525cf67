"""The learning rate of each update as a plain function, and patience with a figure that no longer rises.

A rate depends on nothing but the number of the step, so that a resumed run continues exactly where it stopped; what
patience remembers is part of a checkpoint.
"""

import math
from typing import Any

from retinamask.training.settings import TrainingSettings

BURN_IN_POWER = 4  # Darknet's, of the share of the burn-in that has passed
FIRST_SHARE = 0.1  # of the peak, at the first step of the warm-up
LAST_SHARE = 0.01  # of the peak, at the last step of the cosine


def rate_at(settings: TrainingSettings, step: int, total_steps: int, factor: float = 1.0) -> float:
    """Give the learning rate of one update.

    Args:
        settings: peak, schedule and warm-up.
        step: number of the update, from 0; after the last one the rate stays.
        total_steps: updates in the whole run, so that the last one is ``total_steps - 1``.
        factor: multiplies the whole schedule; `plateau` lowers it tenfold each time that its patience ends.

    Returns:
        During warm-up a line from a tenth of the peak to the peak; then as ``settings.schedule`` says: the half
        cosine of Loshchilov and Hutter, https://arxiv.org/abs/1608.03983, from the peak to a hundredth of it, steps
        down to a tenth and a hundredth after 2/3 and 8/9 of all updates, or the peak. ``darknet`` is what Darknet
        makes of ``burn_in`` and of ``steps`` at 80 and 90 % of ``max_batches``: up with the fourth power, down twice.
    """
    peak = settings.learning_rate * factor
    warm_up_steps = 0
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


class Patience:
    """Notices when a figure has not risen for ``limit`` evaluations in a row; a limit of 0 is patience for ever.

    It then counts again from 0, with the best value kept.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.best: float | None = None
        self.waited = 0

    def update(self, value: float | None) -> bool:
        """Take the figure of one evaluation, higher is better; None and NaN are nothing better."""
        if value is not None and math.isfinite(value) and (self.best is None or value > self.best):
            self.best, self.waited = float(value), 0
            return False
        self.waited += 1
        if self.limit == 0 or self.waited < self.limit:
            return False
        self.waited = 0
        return True

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint keeps, as plain JSON values; the inverse of `restore`."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self.best, self.waited = state["best"], state["waited"]
