"""The network that learns, with its optimizer, its averages and its step: all state that training changes.

Between `steps` and `train`. Its state can be taken out as arrays and put back, bit by bit.
"""

from typing import Any

import numpy as np

from retinamask.detectors import starting_weights
from retinamask.training import distribution, precision
from retinamask.training.optimizers import Optimizer
from retinamask.training.settings import TrainingError, TrainingSettings
from retinamask.training.steps import Averages, TrainingStep


class Learner:
    """A network ready to be trained.

    Args:
        detector: builds the network.
        settings: how to train.
        strategy: how devices share the work.
        used: the precision, ``float32``, ``bfloat16`` or ``float16``.
        weights: what to start from, see `retinamask.detectors.starting_weights.start`; None if state will be put in.

    Attributes:
        step: the `TrainingStep`.
        loaded: what is known of the starting weights, for the record.
    """

    def __init__(self, detector, settings: TrainingSettings, strategy, used: str, weights: str | None = None):
        self.detector, self.settings = detector, settings
        with strategy.scope(), precision.building(used):
            self.network = detector.network(settings.seed)
            self.loaded: dict[str, Any] = starting_weights.start(self.network, detector, weights) if weights else {}
            self.optimizer = Optimizer(settings, used)
            self.optimizer.build(self.network.trainable_variables)
            self.averages = Averages(self.network) if settings.ema else None
            self.step = TrainingStep(detector, self.network, self.optimizer, settings, strategy, self.averages)
        plain = distribution.is_default(strategy) and precision.policy(used) == "float32" and not settings.ema
        self._twin = None if plain else detector.network(settings.seed)
        self._is_frozen = False

    def freeze_backbone(self, frozen: bool) -> None:
        """Freeze or unfreeze the backbone; nothing happens if it is so already."""
        if frozen != self._is_frozen:
            self.detector.freeze_backbone(self.network, frozen)
            self.step.trace()
            self._is_frozen = frozen

    def shown(self):
        """The network to judge and to keep, on one device, of the averaged weights if there are any.

        It is built in float32. (While oneDNN computes in bfloat16 on a processor, so does this network.)

        With several workers all must call this together. It is the same object every time.
        """
        if self._twin is None:
            return self.network
        self._twin.set_weights(self.averages.values() if self.averages else self.network.get_weights())
        return self._twin

    def arrays(self) -> dict[str, np.ndarray]:
        """All state by name; with several workers all must call this together."""
        parts = {"network": self.network.get_weights(), "optimizer": self.optimizer.variables}
        if self.averages:
            parts["averages"] = self.averages.variables
        return {
            f"{part}/{number:04d}": np.asarray(value.numpy() if hasattr(value, "numpy") else value)
            for part, values in parts.items()
            for number, value in enumerate(values)
        }

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Put back what `arrays` gave."""
        by_part: dict[str, list[np.ndarray]] = {}
        for name in sorted(arrays):
            by_part.setdefault(name.partition("/")[0], []).append(arrays[name])
        self.network.set_weights(by_part["network"])
        _assign(self.optimizer.variables, by_part["optimizer"], "optimizer")
        if self.averages:
            _assign(self.averages.variables, by_part.get("averages", []), "averages")


def _assign(variables, values, what: str) -> None:
    if len(variables) != len(values):
        raise TrainingError(
            f"the checkpoint holds {len(values)} variables of the {what}, {len(variables)} are expected; "
            "it was written by another version, start the run anew"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
