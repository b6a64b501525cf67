"""The choices of a training notebook: a few parameters, and the rest in its parameter `more`."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from retinamask import detectors
from retinamask.runs.parameters import unknown
from retinamask.training.settings import AugmentationSettings, TrainingSettings, settings_of


def training_settings(detector: str, more: Mapping[str, Any], **given: Any) -> tuple[TrainingSettings, dict[str, Any]]:
    """Divide a notebook's choices into how to train and how the detector's network is built.

    The names are the fields of `TrainingSettings`, of `AugmentationSettings` and of the detector's own settings,
    whose docstrings explain them; ``retinamask run NOTEBOOK --help`` lists them.

    Args:
        detector: its name.
        more: further choices by name, such as ``{"mosaic": 0.5, "optimizer": "adamw"}``.
        given: the notebook's own parameters; ``augment`` False leaves the images as they are.

    Returns:
        The settings of training, and the detector's settings by name.

    Raises:
        ValueError: an unknown name, or one that is a parameter of the notebook itself; a wrong value.
    """
    kinds = (TrainingSettings, AugmentationSettings)
    of_training = [field.name for kind in kinds for field in fields(kind) if field.default is not MISSING]
    of_network = [field.name for field in fields(detectors.named(detector).Settings) if field.name not in of_training]
    for name in more:
        if name in given:
            raise ValueError(f"more has {name!r}, which is a parameter of its own; set it there")
        if name not in (*of_training, *of_network):
            raise ValueError(f"more: {unknown(name, [*of_training, *of_network])}")
    together = {**given, **more}
    network = {name: together[name] for name in of_network if name in together}
    network = {name: tuple(value) if isinstance(value, list) else value for name, value in network.items()}
    training = {name: together[name] for name in (*of_training, "augment") if name in together}
    return settings_of(training), network
