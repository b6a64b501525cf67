"""How to train: every choice with its default, checked before anything heavy starts.

The lowest file of `training`; the others read it. Each parameter of the training notebooks is a field here.
"""

import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("cosine", "step", "plateau", "constant", "darknet")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CACHES = ("auto", "memory", "file")
_CHOICES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS, "cache": CACHES}


class TrainingError(RuntimeError, ValueError):
    """Training cannot go on; the message says what to do."""


def _check_numbers(settings: Any) -> None:
    """Raise `ValueError` for a field that is to hold a number, or a whole one, and holds something else."""
    for known in fields(settings):
        value = getattr(settings, known.name)
        if known.type not in (int, float):
            continue
        try:
            usable = not isinstance(value, bool) and math.isfinite(value)
            if known.type is int:
                operator.index(value)
        except TypeError:
            usable = False
        if not usable:
            raise ValueError(
                f"{known.name} is {value!r}, expected a {'whole number' if known.type is int else 'finite number'}"
            )


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        bound = f"at least {low}" if high == float("inf") else f"{low} to {high}"
        raise ValueError(f"{name} is {value}, expected {bound}")


@dataclass(frozen=True)
class AugmentationSettings:
    """How training images are varied; the defaults of every field together leave faces natural.

    Attributes:
        flip: probability of a flip left to right.
        zoom_out, zoom_in: an image is scaled by a factor drawn between these two, evenly in its logarithm; above 1
            a part of it is cut out at a random place, below 1 it is shrunk and padded. 1 and 1 leave it.
        visible_share: a box of which less than this share of the area is left after the cut is dropped.
        brightness: grey levels of 255 by which an image is made lighter or darker at most.
        contrast, saturation: share by which each is raised or lowered at most.
        mosaic: probability that an example is put together from four images.
        multi_scale: every ten updates the side of the input is drawn anew between its own divided and multiplied by
            this, in steps of 32 pixels; 1 leaves it. Only for detectors that allow it (``any_canvas``).
        rotate: degrees by which a face is turned either way at most; this and the next three are for classifiers.
        shift: share of its width and height by which a face is moved at most.
        shear: how far a face is slanted at most: the tangent of the angle.
        erase: probability that a rectangle in the lower half of a face is filled with noise.
    """

    flip: float = 0.5
    zoom_out: float = 0.8
    zoom_in: float = 1.25
    visible_share: float = 0.4
    brightness: float = 25.0
    contrast: float = 0.2
    saturation: float = 0.2
    mosaic: float = 0.0
    multi_scale: float = 1.0
    rotate: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    erase: float = 0.0

    def __post_init__(self):
        _check_numbers(self)
        for name in ("flip", "visible_share", "contrast", "saturation", "mosaic", "shift", "shear", "erase"):
            _within(name, getattr(self, name), 0, 1)
        _within("rotate", self.rotate, 0, 180)
        _within("brightness", self.brightness, 0, 255)
        _within("zoom_out", self.zoom_out, 0.1, 1)
        _within("zoom_in", self.zoom_in, 1, 10)
        _within("multi_scale", self.multi_scale, 1, 4)


NO_AUGMENTATION = AugmentationSettings(
    flip=0, zoom_out=1, zoom_in=1, visible_share=0, brightness=0, contrast=0, saturation=0
)


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        epochs: rounds; each ends with a snapshot, a checkpoint and, when due, an evaluation.
        steps: updates in an epoch; 0 means as many as show every image once.
        batch_size: images behind one update, over all devices and parts together.
        accumulate: parts into which each device's share of a batch is cut, one after the other; the update is that
            of the whole batch, the memory that of a part.
        optimizer: ``adam``, ``adamw`` (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101) or ``sgd``.
        learning_rate: peak of the schedule.
        schedule: ``cosine`` falls to a hundredth, ``step`` falls tenfold after 2/3 and 8/9 of all steps, ``plateau``
            falls tenfold when ``plateau_patience`` evaluations brought nothing better, ``constant`` stays, ``darknet``
            falls tenfold after 80 and 90 % of all steps.
        warm_up: share of all steps over which the rate rises to its peak, in a line, with ``darknet`` as the fourth
            power.
        momentum: of ``sgd``.
        weight_decay: of ``adamw``, not on biases and normalisation.
        gradient_clip: largest norm of the whole gradient; 0 for none.
        ema: share of the averaged weights that each step keeps (the first steps keep less); 0 for no averaging.
            With averaging, evaluations and snapshots show the averaged weights.
        freeze_epochs: epochs in which the backbone rests; -1 for all.
        fine_tune_rate: share of the rate that is left once the backbone no longer rests: pretrained weights take small
            steps.
        balance: show images of rare classes more often (repeat factor sampling, https://arxiv.org/abs/1908.03195,
            section B.2, with the commonest class as the measure).
        early_stop: evaluations without a better AP50, or accuracy of a classifier, after which training ends; 0 for
            never.
        plateau_patience: as ``early_stop``, for the schedule ``plateau``.
        evaluate_every: epochs between two evaluations.
        keep_best, keep_last: how many epochs' snapshots stay beside ``best`` and ``last``; 1 is those two alone.
        checkpoint_minutes: a checkpoint is written at each epoch's end, and within an epoch after this time.
        precision: ``auto`` takes what is faster on this machine, measured; see `retinamask.training.precision`.
        xla: compile the training step with XLA.
        cache: where decoded images are kept: ``memory``, ``file`` (beside the data), or ``auto``: memory up to 2 GB.
        augmentation: how images are varied.
        seed: decides order, augmentation and random weights.
    """

    epochs: int = 20
    steps: int = 0
    batch_size: int = 4
    accumulate: int = 1
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    schedule: str = "cosine"
    warm_up: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    gradient_clip: float = 10.0
    ema: float = 0.0
    freeze_epochs: int = 0
    fine_tune_rate: float = 1.0
    balance: bool = False
    early_stop: int = 0
    plateau_patience: int = 3
    evaluate_every: int = 1
    keep_best: int = 1
    keep_last: int = 1
    checkpoint_minutes: float = 10.0
    precision: str = "auto"
    xla: bool = False
    cache: str = "auto"
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    seed: int = 0

    def __post_init__(self):
        _check_numbers(self)
        for name in (
            "epochs", "batch_size", "accumulate", "evaluate_every", "keep_best", "keep_last", "plateau_patience",
        ):  # fmt: skip
            _within(name, getattr(self, name), 1, float("inf"))
        for name in ("steps", "gradient_clip", "weight_decay", "early_stop", "checkpoint_minutes"):
            _within(name, getattr(self, name), 0, float("inf"))
        _within("seed", self.seed, 0, 2**32 - 1)  # what NumPy takes
        _within("freeze_epochs", self.freeze_epochs, -1, float("inf"))
        for name in ("warm_up", "momentum", "ema"):
            _within(name, getattr(self, name), 0, 0.99999)
        _within("fine_tune_rate", self.fine_tune_rate, 1e-6, 1)
        if not 0 < self.learning_rate < 10:
            raise ValueError(f"learning_rate is {self.learning_rate}, expected more than 0 and less than 10")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {', '.join(choices)}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} does not divide into accumulate {self.accumulate} equal parts"
            )

    def record(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def settings_of(given: Mapping[str, Any]) -> TrainingSettings:
    """The settings among named values, such as a notebook's ``globals()`` or the options of a command line.

    Args:
        given: values by the names of the fields of `TrainingSettings` and `AugmentationSettings`; those left out keep
            their defaults, other names are not looked at. ``augment`` False stands for `NO_AUGMENTATION`.
    """

    def of(settings: type) -> dict[str, Any]:
        return {known.name: given[known.name] for known in fields(settings) if known.name in given}

    augmentation = AugmentationSettings(**of(AugmentationSettings)) if given.get("augment", True) else NO_AUGMENTATION
    return TrainingSettings(**{**of(TrainingSettings), "augmentation": augmentation})
