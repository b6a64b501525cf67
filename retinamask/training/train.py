"""One function that trains any detector and leaves snapshots, a log and a record.

The evaluation of each epoch comes from the caller, so that training knows nothing of it.
"""

import contextlib
import glob
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retinamask.dataset import files
from retinamask.dataset.annotations import check_classes, fingerprint
from retinamask.detectors import _keras, snapshots
from retinamask.training.input_pipeline import Examples, batches

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16")
SCHEDULES = ("cosine", "constant")
_PACKAGES = ("retinamask", "tensorflow", "tf-keras", "keras-retinanet", "numpy")

Evaluate = Callable[[Any], dict[str, float]]  # a network to figures, of which AP50 chooses the best epoch


class TrainingError(RuntimeError, ValueError):
    """Training cannot go on; the message says what to do."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    ``steps`` 0 means every image once an epoch. ``schedule`` ``cosine`` warms up over the first tenth of all
    steps and falls to a hundredth of ``learning_rate``; ``gradient_clip`` bounds the norm of each variable's
    gradient. ``precision`` ``auto`` takes bfloat16 where the processor has it in hardware.
    """

    epochs: int = 20
    steps: int = 0
    batch_size: int = 4
    learning_rate: float = 1e-4
    schedule: str = "cosine"
    gradient_clip: float = 10.0
    freeze_backbone: bool = False
    augment: bool = True
    precision: str = "auto"
    evaluate_every: int = 1
    keep_every_epoch: bool = False
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.steps < 0 or self.seed < 0:
            raise ValueError(f"steps ({self.steps}) and seed ({self.seed}) must not be negative")
        if not 0 < self.learning_rate < 1 or not self.gradient_clip > 0:
            raise ValueError(
                f"learning_rate is {self.learning_rate} and gradient_clip {self.gradient_clip}, "
                "expected 0 < learning_rate < 1 and gradient_clip > 0"
            )
        if self.schedule not in SCHEDULES or self.precision not in PRECISIONS:
            raise ValueError(
                f"schedule is {self.schedule!r} (expected {' or '.join(SCHEDULES)}) "
                f"and precision {self.precision!r} (expected {', '.join(PRECISIONS)})"
            )


@dataclass(frozen=True)
class Trained:
    """What a training run left: its best and last snapshot and the log, a row an epoch."""

    best: snapshots.Snapshot
    last: snapshots.Snapshot
    log: pd.DataFrame


def train(
    detector,
    network,
    table: pd.DataFrame,
    folder: str | Path,
    settings: TrainingSettings,
    stem: str | Path,
    evaluate: Evaluate | None = None,
    record: dict[str, Any] | None = None,
    log_csv: str | Path | None = None,
) -> Trained:
    """Train ``network`` on a table of annotations.

    Args:
        detector: from `retinamask.detectors.create`.
        network: its training network, with the starting weights in it.
        table: annotations; image paths relative to ``folder``.
        folder: the folder that the image paths are relative to.
        settings: how to train.
        stem: snapshots are written to ``<stem>_best.h5`` and ``<stem>_last.h5`` with their JSON files.
        evaluate: called with the network after every ``evaluate_every`` epochs and the last one.
        record: further entries for the snapshots' training record.
        log_csv: where to keep the log, rewritten after each epoch.

    Raises:
        AnnotationError: a class is unknown or no image can be read.
        TrainingError: the loss is no longer a finite number, or a snapshot of that name exists.
    """
    check_classes(table, detector.classes, "the training table")
    _refuse_existing(Path(stem))
    examples = Examples(table, folder, detector)
    for message in examples.unusable:
        log.warning("left out of training: %s", message)
    keras = _keras.prepare()
    keras.utils.set_random_seed(settings.seed)
    steps = settings.steps or math.ceil(len(examples) / settings.batch_size)
    drawn = batches(examples, settings.batch_size, np.random.default_rng(settings.seed), settings.augment)
    with computing(settings.precision) as precision:
        network.compile(optimizer=make_optimizer(keras, settings, steps), loss=detector.losses())
        run = EpochRecorder(detector, network, settings, steps, Path(stem), evaluate, log_csv)
        run.record = {**_record(table, detector, settings, examples, precision, Path(stem)), **(record or {})}
        callback = keras.callbacks.LambdaCallback(on_batch_end=run.after_step, on_epoch_end=run.after_epoch)
        network.fit(drawn, steps_per_epoch=steps, epochs=settings.epochs, verbose=0, callbacks=[callback])
    return Trained(run.best, run.last, pd.DataFrame(run.rows))


@contextlib.contextmanager
def computing(precision: str) -> Iterator[str]:
    """Within this block TensorFlow's graphs compute in ``precision``; gives the one that is used.

    On processors bfloat16 is oneDNN's automatic mixed precision: convolutions in bfloat16, the rest in
    float32. It is used only where the processor computes it in hardware; elsewhere it would be slow.
    """
    _keras.prepare()
    import tensorflow

    option = "auto_mixed_precision_onednn_bfloat16"
    wanted = precision == "bfloat16" or (precision == "auto" and _has_bfloat16())
    before = bool(tensorflow.config.optimizer.get_experimental_options().get(option, False))
    tensorflow.config.optimizer.set_experimental_options({option: wanted})
    try:
        yield "bfloat16" if wanted else "float32"
    finally:
        tensorflow.config.optimizer.set_experimental_options({option: before})


def _has_bfloat16() -> bool:
    """Whether a Linux processor names an instruction set for bfloat16, and there is no GPU to use instead."""
    import tensorflow

    if tensorflow.config.list_physical_devices("GPU"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def make_optimizer(keras, settings: TrainingSettings, steps: int):
    """Adam with the learning rate asked for: constant, or warmed up and falling over all steps.

    The legacy class is the one whose update is a single fused operation: on processors a step of the whole
    network is a seventh faster with it.
    """
    rate, total = settings.learning_rate, steps * settings.epochs
    if settings.schedule == "cosine" and total > 1:
        warm_up = max(1, total // 10)
        rate = keras.optimizers.schedules.CosineDecay(
            rate / 10, max(1, total - warm_up), alpha=0.01, warmup_target=rate, warmup_steps=warm_up
        )
    return keras.optimizers.legacy.Adam(learning_rate=rate, clipnorm=settings.gradient_clip)


def _current_rate(optimizer) -> float:
    rate = optimizer.learning_rate
    return float(np.asarray(rate(optimizer.iterations) if callable(rate) else rate))


def _refuse_existing(stem: Path) -> None:
    """A user's earlier snapshots are never overwritten."""
    name = glob.escape(stem.name)
    taken = [path for end in ("best", "last", "[0-9][0-9][0-9]") for path in stem.parent.glob(f"{name}_{end}.*")]
    if taken:
        raise TrainingError(f"{taken[0]} exists; choose another run name or move it away")


def _record(table, detector, settings, examples: Examples, precision: str, stem: Path) -> dict[str, Any]:
    """What a snapshot remembers of its training."""
    return {
        "run": stem.name,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "parameters": {**asdict(settings), "precision_used": precision},
        "training_table_fingerprint": fingerprint(table, detector.classes),
        "images": len(examples),
        "images_left_out": len(examples.unusable),
        "device": _keras.device_line(),
        "versions": {name: version(name) for name in _PACKAGES},
    }


class EpochRecorder:
    """The state of one run: what happens after each step and each epoch."""

    def __init__(self, detector, network, settings, steps: int, stem: Path, evaluate, log_csv):
        self.detector, self.network, self.settings, self.steps = detector, network, settings, steps
        self.stem, self.evaluate, self.log_csv = stem, evaluate, log_csv
        self.record: dict[str, Any] = {}
        self.rows: list[dict[str, float]] = []
        self.best: snapshots.Snapshot | None = None
        self.last: snapshots.Snapshot | None = None
        self._best_rank: tuple[float, ...] = ()
        self._started = self._shown = time.monotonic()

    def after_step(self, step: int, logs: dict[str, float]) -> None:
        """Stop on a loss that is no number; say where we are every ten seconds."""
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss became {logs['loss']} in epoch {len(self.rows) + 1}, step {step + 1}; use a smaller "
                "learning_rate, or start from pretrained weights. The last good snapshot is kept"
            )
        if time.monotonic() - self._shown > 10:
            self._say(f"  step {step + 1}/{self.steps}", logs)

    def after_epoch(self, epoch: int, logs: dict[str, float]) -> None:
        """Evaluate, log, and keep the last and the best snapshot."""
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}}
        row["learning_rate"] = _current_rate(self.network.optimizer)
        try:
            row |= self._evaluation(row["epoch"])
        finally:  # an evaluation that fails must not take the epoch's weights along
            row["seconds"] = round(time.monotonic() - self._started, 1)
            self.rows.append(row)
            self._write_log()
            self._keep(row)
        self._say(f"epoch {epoch + 1}/{self.settings.epochs}", row)

    def _evaluation(self, epoch: int) -> dict[str, float]:
        """The figures after this epoch, if it is one that is evaluated."""
        due = epoch == self.settings.epochs or epoch % self.settings.evaluate_every == 0
        figures = self.evaluate(self.network) if self.evaluate and due else {}
        return {name: value for name, value in figures.items() if value is not None}

    def _keep(self, row: dict[str, float]) -> None:
        """The best epoch has the highest AP50, then AP; without an evaluation, the lowest loss."""
        rank = (row.get("AP50", -1.0), row.get("AP", -1.0), -row["loss"])
        self.last = self._save("last", row, best=False)
        if self.best is None or rank > self._best_rank:
            self._best_rank = rank
            self.best = self._save("best", row, best=True)
        if self.settings.keep_every_epoch:
            self._save(f"{row['epoch']:03d}", row, best=False)

    def _save(self, end: str, row: dict[str, float], best: bool) -> snapshots.Snapshot:
        training = {**self.record, "best": best, "epoch": row["epoch"], "metrics": row}
        description = {
            "kind": "training",
            "detector": self.detector.name,
            "classes": self.detector.classes,
            "settings": self.detector.record(),
            "preprocessing": self.detector.preprocessing,
            "training": training,
        }
        return snapshots.save(self.network, self.stem.with_name(f"{self.stem.name}_{end}.h5"), description)

    def _write_log(self) -> None:
        if self.log_csv:
            files.write_text(self.log_csv, pd.DataFrame(self.rows).to_csv(index=False, lineterminator="\n"))

    def _say(self, where: str, figures: dict[str, float]) -> None:
        shown = ("loss", "regression_loss", "classification_loss", "AP50", "AP")
        numbers = ", ".join(f"{name} {figures[name]:.3f}" for name in shown if name in figures)
        self._shown = time.monotonic()
        print(f"{where}  {numbers}  ({self._shown - self._started:.0f} s)", file=sys.stdout, flush=True)
