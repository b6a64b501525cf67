"""The choices of a training notebook: a few parameters, and the rest in its parameter `more`."""

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from retinamask import detectors
from retinamask.training.settings import KNOWN, TrainingSettings, known_in, settings_of


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
    for name in more.keys() & given.keys():
        raise ValueError(f"more has {name!r}, which is a parameter of its own; set it there")
    together = {**given, **more}
    of_network = [field.name for field in fields(detectors.named(detector).Settings) if field.name not in KNOWN]
    for name in more:
        if name not in (*KNOWN, *of_network, "augment"):
            close = difflib.get_close_matches(name, [*KNOWN, *of_network], n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ";"
            raise ValueError(f"{detector} has no {name}{meant} it has {', '.join([*of_network, *KNOWN])}")
    network = {name: together[name] for name in of_network if name in together}
    return settings_of(known_in(together)), {n: tuple(v) if isinstance(v, list) else v for n, v in network.items()}
