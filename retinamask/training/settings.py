"""How to train: every parameter with its default, bounds and help, checked before anything heavy starts.

Command line and notebooks take names, defaults and help from here; `KNOWN` lists all.
"""

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field
from typing import Any

from retinamask.setting import check_settings, described, setting

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("cosine", "step", "plateau", "constant", "darknet")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CACHES = ("auto", "memory", "file")


class TrainingError(RuntimeError, ValueError):
    """Training cannot start or continue; the message says what to do."""


@dataclass(frozen=True)
class AugmentationSettings:
    """How training images are varied; the defaults of every field together leave faces natural.

    Example:
        >>> rm.AugmentationSettings(mosaic=0.5, zoom_in=2.0)
    """

    flip: float = setting(0.5, "probability of a flip left to right", 0, 1)
    # The factor of the zoom is drawn evenly in its logarithm; above 1 a part is cut out at a random place, below 1 the
    # image is shrunk and padded.
    zoom_out: float = setting(0.8, "smallest factor of the random zoom; 1 for none", 0.1, 1)
    zoom_in: float = setting(1.25, "largest factor of the random zoom, which cuts out a part of the image", 1, 10)
    visible_share: float = setting(0.4, "a box of which the cut leaves less than this share is dropped", 0, 1)
    brightness: float = setting(25.0, "grey levels of 255, up or down at most", 0, 255)
    contrast: float = setting(0.2, "share up or down at most", 0, 1)
    saturation: float = setting(0.2, "share up or down at most", 0, 1)
    mosaic: float = setting(0.0, "probability of an example put together from four images", 0, 1)
    multi_scale: float = setting(
        1.0, "yolov4_tiny: every ten updates another side of the input, by at most this factor, in steps of 32", 1, 4
    )
    rotate: float = setting(0.0, "classifiers: degrees either way at most", 0, 180)
    shift: float = setting(0.0, "classifiers: share of width and height at most", 0, 1)
    shear: float = setting(0.0, "classifiers: slant at most, as a tangent", 0, 1)
    erase: float = setting(0.0, "classifiers: probability of a noisy rectangle in the lower half of the face", 0, 1)

    def __post_init__(self):
        check_settings(self)


NO_AUGMENTATION = AugmentationSettings(
    flip=0, zoom_out=1, zoom_in=1, visible_share=0, brightness=0, contrast=0, saturation=0
)


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; each field says what it is, and the bounds that its value must keep.

    Example:
        >>> rm.TrainingSettings(epochs=5, augmentation=rm.AugmentationSettings(flip=0.0))
    """

    epochs: int = setting(20, "each ends with an evaluation if due, a snapshot and a checkpoint", 1)
    steps: int = setting(0, "updates in an epoch; 0 shows every image once", 0)
    batch_size: int = setting(4, "images of one update, over all devices and parts together", 1)
    accumulate: int = setting(1, "parts in which a batch is computed, to save memory; the update is the same", 1)
    # adamw: Loshchilov and Hutter, https://arxiv.org/abs/1711.05101
    optimizer: str = setting("adam", "how gradients become updates", choices=OPTIMIZERS)
    learning_rate: float = setting(1e-4, "peak of the schedule", 1e-9, 10)
    schedule: str = setting(
        "cosine",
        "of the learning rate: cosine falls to a hundredth, step tenfold at 2/3 and 8/9 of all steps, plateau tenfold "
        "when AP50 or accuracy stops rising, darknet tenfold at 80 and 90 percent",
        choices=SCHEDULES,
    )
    warm_up: float = setting(0.1, "share of all steps over which the rate rises to its peak", 0, 0.99999)
    momentum: float = setting(0.9, "of sgd", 0, 0.99999)
    weight_decay: float = setting(1e-4, "of adamw; not on biases and normalisation", 0)
    gradient_clip: float = setting(10.0, "largest norm of the whole gradient; 0 for none", 0)
    # With averaging, evaluations and snapshots show the averaged weights.
    ema: float = setting(
        0.0, "share of the averaged weights that a step keeps, such as 0.998; 0 for no averaging", 0, 0.99999
    )
    freeze_epochs: int = setting(0, "epochs in which the backbone is frozen, for pretrained weights; -1 for all", -1)
    fine_tune_rate: float = setting(1.0, "share of the learning rate once the backbone is unfrozen", 1e-6, 1)
    # Repeat factor sampling, https://arxiv.org/abs/1908.03195, section B.2, with the commonest class as the measure.
    balance: bool = setting(False, "show images of rare classes more often")
    early_stop: int = setting(0, "evaluations without a better AP50, or accuracy, that end training; 0 for never", 0)
    plateau_patience: int = setting(
        3, "evaluations without a better AP50, or accuracy, after which plateau lowers the rate", 1
    )
    evaluate_every: int = setting(1, "epochs between two evaluations", 1)
    keep_best: int = setting(
        1, "epochs of the best AP50, or accuracy, whose snapshots stay; beyond 1 under their numbers too", 1
    )
    keep_last: int = setting(1, "last epochs whose snapshots stay", 1)
    checkpoint_minutes: float = setting(10.0, "minutes between checkpoints within an epoch", 0)
    precision: str = setting(
        "auto",
        "auto goes by the GPU, measures once on processors with bfloat16 if the run is long, else takes float32; "
        "float16 is for GPUs",
        choices=PRECISIONS,
    )
    cache: str = setting(
        "auto", "where decoded images are kept; file: beside the images; auto: in memory up to 2 GB", choices=CACHES
    )
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    seed: int = setting(0, "decides order, augmentation and random weights", 0, 2**32 - 1)  # what NumPy takes

    def __post_init__(self):
        check_settings(self)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size {self.batch_size} does not divide into accumulate {self.accumulate} equal parts"
            )

    def record(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


KNOWN: dict[str, Field] = described(TrainingSettings) | described(AugmentationSettings)
"""Every setting of training and augmentation by name; a field's ``metadata`` has its ``help``, bounds and choices."""


def settings_of(given: Mapping[str, Any]) -> TrainingSettings:
    """Make settings of those of the values that are named as in `KNOWN`, such as ``{"epochs": 5, "mosaic": 0.5}``.

    ``augment`` False stands for `NO_AUGMENTATION`. A value out of its bounds is a `ValueError`.
    """

    def of(kind: type) -> dict[str, Any]:
        return {name: given[name] for name in described(kind) if name in given}

    augmentation = AugmentationSettings(**of(AugmentationSettings)) if given.get("augment", True) else NO_AUGMENTATION
    return TrainingSettings(**of(TrainingSettings), augmentation=augmentation)
