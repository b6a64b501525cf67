"""The loop over steps and epochs: what happens after each, and what is saved when.

Everything that the loop knows is in its checkpoint, so that a killed run resumes as if nothing had happened.
"""

import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retinamask.dataset import files
from retinamask.detectors import snapshots
from retinamask.detectors.snapshots import Snapshot, SnapshotError
from retinamask.training import checkpoints, distribution, input_pipeline
from retinamask.training.learning_rate import plateaus, rate_at
from retinamask.training.settings import TrainingError

log = logging.getLogger(__name__)

_STEADIER = "use a smaller learning_rate or gradient_clip, or start from pretrained weights"
_SHOWN = ("loss", "localization_loss", "objectness_loss", "classification_loss", "AP50", "AP", "accuracy", "val_loss")


class Loop:
    """One run of training.

    Args:
        learner: a `Learner`.
        steps: updates in an epoch.
        examples, stem, strategy, evaluate, watchers, log_csv: as for `retinamask.training.train.train`.
        record: what a snapshot remembers of the run.

    Attributes:
        rows: the log, a dict an epoch.
        keeper: the run's snapshots.
        first_step, total_steps: updates before this process began, and at the end of the run.
    """

    SECONDS_BETWEEN_LINES = 10.0
    SECONDS_BETWEEN_REPORTS = 1.0
    STEPS_BETWEEN_LOOKS = 10  # at the chief's clock

    def __init__(
        self, learner, examples, steps: int, stem: Path, strategy, evaluate, watchers: list, log_csv, record: dict
    ):
        self.learner, self.detector, self.settings = learner, learner.detector, learner.settings
        self.examples, self.steps, self.stem, self._strategy = examples, steps, stem, strategy
        self._evaluate, self._log_csv, self.record = evaluate, log_csv, record
        self._is_chief = distribution.is_chief(strategy)
        self._watchers = watchers if self._is_chief else []
        self.rows: list[dict[str, Any]] = []
        self.keeper = SnapshotKeeper(stem, self.settings.keep_best, self.settings.keep_last)
        self.first_step, self.total_steps = 0, steps * self.settings.epochs
        self._step, self._read_steps, self._sums = 0, 0, {}  # begun; read, and their losses, of this epoch
        self._earlier_seconds, self._has_checkpoint = 0.0, False

    def run(self, saved: checkpoints.Checkpoint | None = None) -> None:
        """Train to the end, from a checkpoint on if there is one."""
        settings = self.settings
        if saved:
            self.learner.load_arrays(saved.arrays)
            self.rows, self._sums, self._earlier_seconds = (saved.record[name] for name in ("rows", "sums", "seconds"))
            self.record |= saved.record["record"]
            self.first_step = self._step = saved.step
            self._read_steps = saved.step - len(self.rows) * self.steps  # all, if killed before the epoch was judged
            self._has_checkpoint = True
            self.keeper.find(self.rows)
            print(f"resuming after step {saved.step} of {self.total_steps}", flush=True)
        self._started = self._printed = self._reported = self._saved = time.monotonic()
        batches = iter(input_pipeline.dealt_out(self._strategy, self.examples, settings, self._step))
        try:
            self._notify("started", self)
            while not self._has_finished():
                epoch = len(self.rows) + 1
                self.learner.freeze_backbone(settings.freeze_epochs == -1 or epoch <= settings.freeze_epochs)
                self._train_epoch(batches, epoch * self.steps)
                self._end_epoch(epoch)
        finally:
            self._notify("ended")
        distribution.from_chief(self._strategy, 0)  # TensorFlow takes a worker that leaves early for a lost one

    def _has_finished(self) -> bool:
        """Whether all epochs are done, or early stop ends the run."""
        early_stop = self.settings.early_stop
        return len(self.rows) == self.settings.epochs or bool(early_stop and self._plateaus(early_stop))

    def _plateaus(self, patience: int) -> int:
        every = self.settings.evaluate_every
        evaluated = [row for row in self.rows if self._evaluate and row["epoch"] % every == 0]
        return plateaus((row.get("AP50", row.get("accuracy", -math.inf)) for row in evaluated), patience)

    def _train_epoch(self, batches, end: int) -> None:
        """Take the steps that are left until step ``end``."""
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
        settings, factor = self.settings, 1.0
        if settings.schedule == "plateau":
            factor /= 10 ** self._plateaus(settings.plateau_patience)
        if 0 < settings.freeze_epochs <= len(self.rows):
            factor *= settings.fine_tune_rate
        return rate_at(settings, step, self.total_steps, factor)

    def _take_in(self, waiting) -> None:
        """Add the losses of a step, stop if one is no number, tell the watchers and print a line now and then."""
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
        now = time.monotonic()
        if now - self._reported > self.SECONDS_BETWEEN_REPORTS or self._read_steps in (1, self.steps):
            speed = (self._step - self.first_step) / max(now - self._started, 1e-9)
            figures = {f"Loss/{name}": value for name, value in losses.items()} | {"learning_rate": rate}
            figures |= {"steps_per_sec": speed, "images_per_sec": speed * self.settings.batch_size}
            self._notify("after_step", step, figures)
            self._reported = now
        if now - self._printed > self.SECONDS_BETWEEN_LINES:
            self._print(f"  step {self._read_steps}/{self.steps}", {"loss": losses["total_loss"], **losses})

    def _end_epoch(self, epoch: int) -> None:
        """Evaluate, log, and save snapshots and a checkpoint; when the run has finished the checkpoints go."""
        means = {name: total / self._read_steps for name, total in self._sums.items()}
        row = {"epoch": epoch, "step": self._step, "loss": means.pop("total_loss"), **means}
        row["learning_rate"] = self._rate(self._step - 1)
        arrays = self._sound_arrays()
        if not self._has_checkpoint:
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
        finished = self._has_finished()
        if self._is_chief:
            if self._log_csv:
                files.write_text(self._log_csv, pd.DataFrame(self.rows).to_csv(index=False, lineterminator="\n"))
                log = Path(self._log_csv)
                for left in log.parent.glob(f".{log.stem[:40]}-????????.csv"):
                    left.unlink(missing_ok=True)  # of a process that was killed while it wrote
            self.keeper.after_epoch(self.rows, lambda path: self._snapshot(path, row, network, finished))
        if not finished:
            self._save_checkpoint(arrays)
        elif self._is_chief:
            checkpoints.remove(self.stem)
        self._notify("after_epoch", row, network)
        self._print(f"epoch {epoch}/{self.settings.epochs}", row)

    def _evaluation(self, epoch: int, network) -> dict[str, float]:
        """Judge an epoch if it is due: all figures on the chief, on the others the one that steers the run."""
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
        shared, failed = distribution.from_chief(self._strategy, np.float64([judged, error is not None]))
        if failed:
            raise error or TrainingError("the evaluation failed on the first worker, whose output says why")
        figures = figures if self._is_chief else {"AP50": float(shared)}
        return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}

    def _snapshot(self, path: Path, row: dict[str, Any], network, finished: bool) -> Snapshot:
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
            state = {"rows": self.rows, "sums": self._sums, "seconds": self._seconds(), "record": self.record}
            checkpoints.save(self.stem, self._step, arrays, state)
        self._saved, self._has_checkpoint = time.monotonic(), True

    def _seconds(self) -> float:  # spent on the run, by earlier processes too
        return self._earlier_seconds + time.monotonic() - self._started

    def _notify(self, what: str, *given) -> None:
        for watcher in self._watchers:
            getattr(watcher, what)(*given)

    def _print(self, where: str, figures: dict[str, float]) -> None:
        self._printed = time.monotonic()
        if self._is_chief:
            numbers = ", ".join(f"{name} {figures[name]:.3f}" for name in _SHOWN if name in figures)
            print(f"{where}  {numbers}  ({self._seconds():.0f} s)", file=sys.stdout, flush=True)


class SnapshotKeeper:
    """Keeps ``<stem>_last.h5``, ``<stem>_best.h5`` and, if more than one of a kind is kept, ``<stem>_<epoch>.h5``.

    Which of them stay follows from the log. Only files that this run has written are ever removed.

    Attributes:
        best, last: the snapshots of those names; None before the first epoch.
    """

    def __init__(self, stem: Path, keep_best: int = 1, keep_last: int = 1):
        """``keep_best`` and ``keep_last`` are the numbers of epochs that stay; 1 and 1 need no numbered files."""
        self.stem, self._keep_best, self._keep_last = stem, keep_best, keep_last
        self.best: Snapshot | None = None
        self.last: Snapshot | None = None

    def find(self, rows: list[dict[str, Any]]) -> None:
        """Find what a run with this log has left. Warn if the best is missing; the next epoch becomes best."""
        for end in ("last", "best") if rows else ():
            try:
                setattr(self, end, snapshots.read(self.path(end)))
            except SnapshotError as error:
                log.warning("%s; training continues without it", error)

    def after_epoch(self, rows: list[dict[str, Any]], save: Callable[[Path], Snapshot]) -> None:
        """Write the snapshots of the last epoch of the log, then remove those that no longer qualify.

        ``save`` writes the snapshot to a path. It is called once, for ``last``; the others are copies, which take no
        time. An epoch that was saved before, by a run that was killed soon after, replaces what it left.
        """
        epoch = rows[-1]["epoch"]
        self.last = save(self.path("last"))
        best = self.best and self.best.record["training"]["metrics"]
        if not best or best["epoch"] == epoch or _rank(rows[-1]) > _rank(best):
            self.best = snapshots.copy(self.last, self.path("best"), {"best": True})
        kept = self._numbered(rows)
        if epoch in kept:
            snapshots.copy(self.last, self.path(f"{epoch:03d}"), {})
        for number in {row["epoch"] for row in rows} - kept:
            snapshots.remove(self.path(f"{number:03d}"))

    def _numbered(self, rows: list[dict[str, Any]]) -> set[int]:
        """Epochs whose snapshots stay under their numbers; of equally good ones the earlier."""
        if self._keep_best == self._keep_last == 1:
            return set()
        best = sorted(rows, key=_rank, reverse=True)[: self._keep_best]
        return {row["epoch"] for row in best + rows[-self._keep_last :]}

    def path(self, end: str) -> Path:
        """The weights file of a name's end: ``best``, ``last`` or an epoch in three digits."""
        return self.stem.with_name(f"{self.stem.name}_{end}.h5")


def _rank(row: dict[str, Any]) -> tuple[float, float, float]:
    """Higher is better: AP50, then AP, then a lower loss; an epoch without an evaluation ranks after all others.

    Of a classifier: accuracy, then a lower loss on the validation images, then a lower loss.
    """
    if "accuracy" in row:
        return row["accuracy"], -row["val_loss"], -row["loss"]
    return row.get("AP50", -1.0), row.get("AP", -1.0), -row["loss"]
