"""The loop over steps and epochs: what happens after each, and what is saved when.

Everything that the loop knows is in its checkpoint, so that a killed run resumes as if nothing had happened.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retinamask.dataset import files
from retinamask.detectors import snapshots
from retinamask.training import checkpoints, distribution, input_pipeline, schedules
from retinamask.training.settings import TrainingError
from retinamask.training.snapshot_keeper import SnapshotKeeper

_STEADIER = "use a smaller learning_rate or gradient_clip, or start from pretrained weights"
_SHOWN = ("loss", "localization_loss", "objectness_loss", "classification_loss", "AP50", "AP", "accuracy", "val_loss")


class Loop:
    """One run of training.

    Args:
        learner: a `Learner`.
        steps: updates in an epoch.
        examples, stem, strategy, evaluate, watchers, log_csv: as for `retinamask.training.train.train`.

    Attributes:
        record: what a snapshot remembers of the run.
        constants: what a checkpoint remembers beside the loop's own state.
        rows: the log, a dict an epoch.
        keeper: the run's snapshots.
        first_step, total_steps: updates before this process began, and at the end of the run.
    """

    SECONDS_BETWEEN_LINES = 10.0
    SECONDS_BETWEEN_REPORTS = 1.0
    STEPS_BETWEEN_LOOKS = 10  # at the chief's clock

    def __init__(self, learner, examples, steps: int, stem: Path, strategy, evaluate, watchers: list, log_csv):
        self.learner, self.detector, self.settings = learner, learner.detector, learner.settings
        self.examples, self.steps, self.stem, self._strategy = examples, steps, stem, strategy
        self._evaluate, self._log_csv = evaluate, log_csv
        self._is_chief = distribution.is_chief(strategy)
        self._watchers = watchers if self._is_chief else []
        self.record: dict[str, Any] = {}
        self.constants: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.keeper = SnapshotKeeper(stem, self.settings.keep_best, self.settings.keep_last)
        self.first_step, self.total_steps = 0, steps * self.settings.epochs
        self._step, self._read_steps, self._sums = 0, 0, {}  # begun; read, and their losses, of this epoch
        self._factor, self._stopped, self._earlier_seconds = 1.0, False, 0.0
        self._is_saved = False  # whether there is a checkpoint of this run
        self._plateau = schedules.Patience(self.settings.plateau_patience)
        self._early_stop = schedules.Patience(self.settings.early_stop or math.inf)

    def run(self, saved: checkpoints.Checkpoint | None = None) -> None:
        """Train to the end, from a checkpoint on if there is one."""
        if saved:
            self._restore(saved)
        self._started = self._printed = self._reported = self._saved = time.monotonic()
        batches = iter(input_pipeline.dealt_out(self._strategy, self.examples, self.settings, self._step))
        try:
            self._notify("started", self)
            while len(self.rows) < self.settings.epochs and not self._stopped:
                epoch, frozen = len(self.rows), self.settings.freeze_epochs
                self.learner.freeze_backbone(frozen == -1 or epoch < frozen)
                self._train_epoch(batches, (epoch + 1) * self.steps)
                self._end_epoch(epoch + 1)
        finally:
            self._notify("ended")
        distribution.from_chief(self._strategy, 0)  # TensorFlow takes a worker that leaves early for a lost one

    def _restore(self, saved: checkpoints.Checkpoint) -> None:
        """Go back to the moment of a checkpoint."""
        known = saved.record
        self.learner.load_arrays(saved.arrays)
        self.first_step = self._step = saved.step
        self.rows, self._sums = known["rows"], known["sums"]
        self._read_steps = saved.step - len(self.rows) * self.steps  # all of them if killed before the epoch was judged
        self._is_saved = True
        self._factor, self._earlier_seconds = known["factor"], known["seconds"]
        self._plateau.restore(known["plateau"])
        self._early_stop.restore(known["early_stop"])
        self.keeper.restore(known["keeper"])
        self.record |= known["record"]
        print(f"resuming after step {saved.step} of {self.total_steps}", flush=True)

    def _train_epoch(self, batches, end: int) -> None:
        """The steps that are left until step ``end``."""
        waiting = None  # a step's losses are read when the next one has begun, so that a GPU never waits
        while self._step < end:
            rate = self._rate(self._step)
            self.learner.optimizer.set_rate(rate)
            losses = self.learner.step(next(batches), self._step)
            self._step += 1
            self._take_in(waiting)
            waiting = losses, rate
            if self._step < end and self._checkpoint_is_due():
                self._take_in(waiting)
                waiting = None
                self._save_checkpoint(self._sound_arrays())
        self._take_in(waiting)

    def _rate(self, step: int) -> float:
        """The learning rate of a step of the current epoch."""
        rate = schedules.rate_at(self.settings, step, self.total_steps, self._factor)
        is_unfrozen = 0 < self.settings.freeze_epochs <= len(self.rows)
        return rate * self.settings.fine_tune_rate if is_unfrozen else rate

    def _take_in(self, waiting) -> None:
        """Take in the losses of a step, and stop if one is no number."""
        if waiting is None:
            return
        losses, rate = {name: float(value) for name, value in waiting[0].items()}, waiting[1]
        self._read_steps += 1
        step = len(self.rows) * self.steps + self._read_steps
        if not all(map(math.isfinite, losses.values())):
            raise TrainingError(
                f"the loss became {losses['total_loss']} in step {step}, epoch {len(self.rows) + 1}; {_STEADIER}. "
                "The last good snapshot is kept"
            )
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in losses.items()}
        self._report(step, losses, rate)

    def _report(self, step: int, losses: dict[str, float], rate: float) -> None:
        """Tell the watchers of a step once in a while, and print a line now and then."""
        now, taken = time.monotonic(), self._step - self.first_step
        if now - self._reported > self.SECONDS_BETWEEN_REPORTS or self._read_steps in (1, self.steps):
            speed = taken / max(now - self._started, 1e-9)
            figures = {f"Loss/{name}": value for name, value in losses.items()} | {"learning_rate": rate}
            figures |= {"steps_per_sec": speed, "images_per_sec": speed * self.settings.batch_size}
            self._notify("after_step", step, figures)
            self._reported = now
        if now - self._printed > self.SECONDS_BETWEEN_LINES:
            self._print(f"  step {self._read_steps}/{self.steps}", {"loss": losses["total_loss"], **losses})

    def _end_epoch(self, epoch: int) -> None:
        """Evaluate, log, and save snapshots and a checkpoint; when the run has finished the checkpoints go."""
        rate = self._rate(self._step - 1)
        means = {name: total / self._read_steps for name, total in self._sums.items()}
        row = {"epoch": epoch, "step": self._step, "loss": means.pop("total_loss"), **means, "learning_rate": rate}
        arrays = self._sound_arrays()
        if not self._is_saved:
            self._save_checkpoint(arrays)  # first, or a run killed right after its snapshot could not resume
        network = self.learner.shown()
        try:
            row |= self._evaluation(epoch, network)
        except BaseException:  # must not take the epoch's weights along; what is resumed judges them again
            self._save_checkpoint(arrays)
            if self._is_chief:
                self._snapshot(self.keeper.path("last"), row, network, finished=False)
            raise
        row["seconds"] = round(self._seconds(), 1)
        self.rows.append(row)
        self._sums, self._read_steps = {}, 0
        finished = self._stopped or self._step == self.total_steps
        if self._is_chief:
            if self._log_csv:
                files.write_text(self._log_csv, pd.DataFrame(self.rows).to_csv(index=False, lineterminator="\n"))
            self.keeper.after_epoch(row, lambda path: self._snapshot(path, row, network, finished))
        if not finished:
            self._save_checkpoint(arrays)
        elif self._is_chief:
            checkpoints.remove(self.stem)
        self._notify("after_epoch", row, network)
        self._print(f"epoch {epoch}/{self.settings.epochs}", row)

    def _evaluation(self, epoch: int, network) -> dict[str, float]:
        """Judge an epoch if it is due; the figures steer plateau and early stop."""
        if self._evaluate is None or (epoch < self.settings.epochs and epoch % self.settings.evaluate_every):
            return {}
        figures: dict[str, float | None] = {}
        error: BaseException | None = None
        if self._is_chief:
            try:
                figures = self._evaluate(network)
            except BaseException as raised:  # raised again once the other workers know
                error = raised
        judged = figures.get("AP50", figures.get("accuracy"))
        judged = math.nan if judged is None else judged
        shared, failed = distribution.from_chief(self._strategy, np.float32([judged, error is not None]))
        if failed:
            raise error or TrainingError("the evaluation failed on the first worker, whose output says why")
        if self.settings.schedule == "plateau" and self._plateau.update(float(shared)):
            self._factor /= 10
        self._stopped = bool(self.settings.early_stop) and self._early_stop.update(float(shared))
        return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}

    def _snapshot(self, path: Path, row: dict[str, Any], network, finished: bool) -> snapshots.Snapshot:
        epoch = {"best": False, "epoch": row["epoch"], "metrics": row, "finished": finished}
        description = {
            "kind": "training",
            "detector": self.detector.name,
            "classes": self.detector.classes,
            "settings": self.detector.record(),
            "preprocessing": self.detector.preprocessing,
            "training": self.record | epoch,
        }
        return snapshots.save(network, path, description)

    def _checkpoint_is_due(self) -> bool:
        """Whether the last checkpoint is old enough; with several workers the chief's clock counts."""
        if self._step % self.STEPS_BETWEEN_LOOKS and distribution.shard(self._strategy)[1] > 1:
            return False  # asking the chief makes a GPU wait
        due = time.monotonic() - self._saved > 60 * self.settings.checkpoint_minutes
        return bool(distribution.from_chief(self._strategy, due))

    def _sound_arrays(self) -> dict[str, np.ndarray]:
        """The learner's state; all workers together. A loss shows only one step later that its weights are ruined."""
        arrays = self.learner.arrays()
        if not all(np.isfinite(array).all() for name, array in arrays.items() if not name.startswith("optimizer/")):
            raise TrainingError(
                f"step {self._step} made weights that are no finite numbers; {_STEADIER}. "
                "The last good snapshot is kept"
            )
        return arrays

    def _save_checkpoint(self, arrays: dict[str, np.ndarray]) -> None:
        if self._is_chief:
            state = {
                "rows": self.rows,
                "sums": self._sums,
                "factor": self._factor,
                "seconds": self._seconds(),
                "plateau": self._plateau.state(),
                "early_stop": self._early_stop.state(),
                "keeper": self.keeper.state(),
                "record": self.record,
                **self.constants,
            }
            checkpoints.save(self.stem, self._step, arrays, state)
        self._saved, self._is_saved = time.monotonic(), True

    def _seconds(self) -> float:
        """Time spent on the run, by earlier processes too."""
        return self._earlier_seconds + time.monotonic() - self._started

    def _notify(self, what: str, *given) -> None:
        for watcher in self._watchers:
            getattr(watcher, what)(*given)

    def _print(self, where: str, figures: dict[str, float]) -> None:
        self._printed = time.monotonic()
        if self._is_chief:
            numbers = ", ".join(f"{name} {figures[name]:.3f}" for name in _SHOWN if name in figures)
            print(f"{where}  {numbers}  ({self._seconds():.0f} s)", file=sys.stdout, flush=True)
