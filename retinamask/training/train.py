"""One function that trains any detector, and resumes a run that was stopped or killed.

The evaluation of each epoch and everything that watches come from the caller, so that training knows nothing of them.
"""

import contextlib
import math
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from retinamask.dataset import files
from retinamask.dataset.annotations import fingerprint, image_paths
from retinamask.dataset.copies import HASH_BITS, hash_images
from retinamask.detectors import _keras, snapshots
from retinamask.training import checkpoints, distribution, input_pipeline, learning_rate, precision
from retinamask.training.input_pipeline import Examples
from retinamask.training.learner import Learner, step_timers
from retinamask.training.loop import Loop
from retinamask.training.settings import TrainingError, TrainingSettings

MANY_IMAGES = 5000  # from which on random numbers are a start that photographs can be learnt from

_PACKAGES = ("retinamask", "tensorflow", "tf-keras", "keras-retinanet", "numpy")
# These do not touch the weights, so that a resumed run may have other values.
_FREE = ("keep_best", "keep_last", "checkpoint_minutes", "cache", "precision", "accumulate")


class Evaluate(Protocol):
    """Gives the figures of a network on the images of a table; AP50 or accuracy chooses the best epoch."""

    table: pd.DataFrame
    folder: Path

    def __call__(self, network: Any) -> dict[str, float | None]: ...


@dataclass(frozen=True)
class Trained:
    """The result of a training run: its best and last snapshot and the log, a row an epoch.

    Of several workers only the first writes snapshots; a new run gives the others None.
    """

    best: snapshots.Snapshot | None
    last: snapshots.Snapshot | None
    log: pd.DataFrame


def train(
    examples: Examples,
    settings: TrainingSettings,
    stem: str | Path,
    weights: str = "none",
    evaluate: Evaluate | None = None,
    watchers: Iterable = (),
    record: dict[str, Any] | None = None,
    log_csv: str | Path | None = None,
    resume: bool = False,
) -> Trained:
    """Train the detector of ``examples`` on them.

    Args:
        examples: images and boxes to learn from.
        settings: how to train.
        stem: snapshots are written to ``<stem>_best.h5`` and ``<stem>_last.h5`` with their JSON files, checkpoints
            to ``<stem>_checkpoint-...`` until the run has finished.
        weights: what to start from, see `retinamask.detectors.starting_weights.start`.
        evaluate: called with the network after every ``evaluate_every`` epochs and the last one, see
            `retinamask.evaluation.in_training`.
        watchers: see `retinamask.evaluation.watchers`.
        record: further entries for the snapshots' training record.
        log_csv: where to keep the log, rewritten after each epoch.
        resume: continue the run of this ``stem`` from its last whole checkpoint, so that its end is the same as
            if it had never stopped; a finished run is returned as it is, one that never began is begun.

    Raises:
        TrainingError: the loss is no longer a finite number, a batch does not fit into memory, the disk is full,
            a worker was lost, snapshots of that name exist, or a run to be resumed was another one.
    """
    stem, detector = Path(stem), examples.detector
    input_pipeline.check(detector, settings.augmentation)
    if evaluate is None and (settings.early_stop or settings.schedule == "plateau"):
        raise TrainingError(
            "early_stop and the schedule plateau go by AP50 or accuracy, and there is nothing to measure it on; give "
            "validation images, or take early_stop 0 and another schedule"
        )
    strategy, identity = distribution.strategy(), run_identity(examples, settings, weights)
    saved = checkpoints.newest(stem) if resume else None
    if saved:
        check_same_run(saved.record["record"]["identity"], identity, stem)
    elif resume and (finished := finished_run(stem, identity, log_csv)):
        return finished
    elif distribution.is_chief(strategy):
        checkpoints.refuse_existing(stem)
    distribution.check_batch(strategy, settings)
    steps = settings.steps or math.ceil(len(examples) / settings.batch_size)
    summary = examples.summary()  # on every worker, so that all of them end where there is nothing to learn
    if distribution.is_chief(strategy):
        print(summary, flush=True)
        if weights == "none" and not saved and len(examples) < MANY_IMAGES and detector.published:
            print(
                "note: weights none starts from random numbers, which is right for the drawn sample; fewer than "
                f"{MANY_IMAGES:,} photographs are learnt faster from {' or '.join(detector.published)}",
                flush=True,
            )
    with _stopping(stem), explained(settings, stem), distribution.stopping_together(strategy):
        if saved:
            used = saved.record["record"]["parameters"]["precision_used"]
        else:
            used = precision.precision_to_use(examples, settings, steps * settings.epochs, strategy, step_timers)
        seen = {"checkpoint": saved and saved.step, "usable images": examples.paths, "precision": used, **identity}
        distribution.check_agreement(strategy, {**seen, "evaluation": evaluate is not None})
        with precision.computing(used):
            learner = Learner(detector, settings, strategy, used, None if saved else weights)
            known = {"run": stem.name, "identity": identity, "weights": learner.loaded}
            known |= _training_record(examples, settings, used) | (record or {})
            if not saved and distribution.is_chief(strategy):
                known["image_hashes"] = _image_hashes(examples, weights)
                if evaluate:
                    chosen_on = hash_images(image_paths(evaluate.table), evaluate.folder).upright
                    known["val_image_hashes"] = chosen_on.tobytes().hex()
            loop = Loop(learner, examples, steps, stem, strategy, evaluate, list(watchers), log_csv, known)
            loop.run(saved)
    return Trained(loop.keeper.best, loop.keeper.last, pd.DataFrame(loop.rows))


def _training_record(examples: Examples, settings: TrainingSettings, used: str) -> dict[str, Any]:
    return {
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "parameters": {**settings.record(), "precision_used": used},
        "training_table_fingerprint": fingerprint(examples.table, examples.detector.classes),
        "images": len(examples),
        "images_left_out": len(examples.unusable),
        "device": _keras.device_line(),
        "devices": distribution.describe(distribution.strategy()),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _image_hashes(examples: Examples, weights: str) -> str | None:
    """Give the upright hashes of all pictures learnt from, also by a snapshot that is the start; 20 digits each.

    None if that snapshot does not remember its own: a list without them would look complete.
    """
    earlier = np.empty((0, HASH_BITS // 8), np.uint8)
    with contextlib.suppress(snapshots.SnapshotError):  # the weights are no snapshot
        earlier = snapshots.image_hashes(snapshots.read(weights))
    if earlier is None:
        return None
    upright = earlier, hash_images(examples.paths, examples.folder).upright
    return np.unique(np.concatenate(upright), axis=0).tobytes().hex()


def find_learning_rate(
    examples: Examples, settings: TrainingSettings, weights: str = "none", steps: int = 60
) -> pd.DataFrame:
    """Train a copy for at most ``steps`` steps with a rising learning rate and give the table of `learning_rate.find`.

    The other arguments are those of `train`.
    """
    strategy = distribution.strategy()
    used = precision.precision_to_use(examples, settings, steps, strategy, step_timers)
    with explained(settings), precision.computing(used):
        learner = Learner(examples.detector, settings, strategy, used, weights)
        batches = iter(input_pipeline.dealt_out(strategy, examples, settings, 0))

        def step(rate: float) -> float:
            learner.optimizer.set_rate(rate)
            return float(learner.step(next(batches), 0)["total_loss"])

        return learning_rate.find(step, steps=steps)


def run_identity(examples: Examples, settings: TrainingSettings, weights: str) -> dict[str, Any]:
    """Give the choices that must be the same for a run to be resumed: with others the weights would differ."""
    detector = examples.detector
    return {
        "training table": fingerprint(examples.table, detector.classes),
        "readable images": len(examples),
        "classes": detector.classes,
        "detector": {"name": detector.name, **detector.record()},
        "weights": weights,
        **{name: value for name, value in settings.record().items() if name not in _FREE},
    }


def check_same_run(before: dict[str, Any], now: dict[str, Any], stem: Path) -> None:
    """Raise `TrainingError` if a checkpoint is of a run with other settings or other data.

    Settings that came after an identity of an earlier version are at their defaults, as it was trained.
    """
    defaults = TrainingSettings().record()
    augmentation = {**defaults["augmentation"], **before.get("augmentation", {})}
    before = {**defaults, **before, "augmentation": augmentation}
    if changed := [name for name in now if before.get(name) != now[name]]:
        listed = "\n".join(f"  {name}: {before.get(name)} then, {now[name]} now" for name in changed)
        raise TrainingError(
            f"{stem}: its checkpoint is of a run that differs:\n{listed}\n"
            "Resume it as it was begun, or train under another name"
        )


def finished_run(stem: Path, identity: dict[str, Any], log_csv: str | Path | None) -> Trained | None:
    """Read the run of this stem if it has finished, so that it has no checkpoints any more."""
    last, best = (stem.with_name(f"{stem.name}_{end}.h5") for end in ("last", "best"))
    if not last.with_suffix(".json").exists():
        if damaged := checkpoints.files_of(stem):
            raise TrainingError(f"none of the checkpoints of {stem} is whole; remove {damaged[0]} and train anew")
        return None
    snapshot = snapshots.read(last)
    training = snapshot.record["training"]
    if not training.get("finished"):
        raise TrainingError(
            f"{last} is of a run that did not end, and none of its checkpoints is whole; move its snapshots away "
            "and train anew, or start from them with weights"
        )
    check_same_run(training.get("identity", identity), identity, stem)
    rows = pd.read_csv(log_csv) if log_csv and Path(log_csv).exists() else pd.DataFrame([training["metrics"]])
    print(f"the run {stem} has finished, with epoch {training['epoch']}", file=sys.stdout, flush=True)
    return Trained(snapshots.read(best), snapshot, rows)


@contextlib.contextmanager
def _stopping(stem: Path) -> Iterator[None]:
    """Within this block take SIGTERM as Ctrl-C, and let either say from where the run can be resumed."""

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()  # elsewhere Python takes no handlers
    before = in_main and signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        saved = checkpoints.files_of(stem)
        where = f"resume continues from {saved[-1]}" if saved else "before the first checkpoint; start it again"
        raise KeyboardInterrupt(f"training stopped; {where}") from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def explained(settings: TrainingSettings, stem: Path | None = None) -> Iterator[None]:
    """Turn what runs out or vanishes within this block, memory, disk, decoded images, into a `TrainingError`.

    ``stem`` is that of the run whose snapshots and checkpoints stay; None where there are none.
    """
    import tensorflow as tf

    lost = tf.errors
    try:
        yield
    except (lost.DataLossError, lost.NotFoundError, lost.InvalidArgumentError) as error:
        # "Dataset was empty" is what TensorFlow says of a place after a file's end.
        if isinstance(error, lost.InvalidArgumentError) and "Dataset was empty" not in str(error):
            raise
        raise TrainingError(
            "the file of decoded images was damaged or removed while it was in use; resume, and it is made anew "
            f"({str(error).splitlines()[0][:200]})"
        ) from error
    except (lost.ResourceExhaustedError, MemoryError, OSError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if files.is_full(error) or "No space left on device" in said:
            what = "the disk is full; free space, then resume"
        elif isinstance(error, OSError):
            raise
        else:
            more = range(settings.accumulate + 1, settings.batch_size + 1)
            parts = next((parts for parts in more if settings.batch_size % parts == 0), None)
            smaller = "take a smaller image_size or batch_size"
            if parts:
                smaller = f"cut the batch into more parts (accumulate={parts}), or {smaller}"
            what = (
                f"a part of {settings.batch_size // settings.accumulate} images does not fit into memory; {smaller}, "
                "or cache='file'"
            )
        kept = f". The last good snapshot and checkpoint of {stem} are kept" if stem else ""
        raise TrainingError(f"{what}{kept} ({said})") from error
