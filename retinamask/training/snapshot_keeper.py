"""Which snapshots of a run stay: the best, the last, and as many numbered epochs as were asked for."""

import itertools
import logging
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinamask.detectors import snapshots
from retinamask.detectors.snapshots import Snapshot, SnapshotError
from retinamask.training.settings import TrainingError

log = logging.getLogger(__name__)

Rank = tuple[float, float, float]


class SnapshotKeeper:
    """Keeps ``<stem>_last.h5``, ``<stem>_best.h5`` and, if more than one of a kind is kept, ``<stem>_<epoch>.h5``.

    Only files that this run has written are ever removed.

    Attributes:
        best, last: the snapshots of those names; None before the first epoch.
    """

    def __init__(self, stem: str | Path, keep_best: int = 1, keep_last: int = 1):
        """``keep_best`` and ``keep_last`` are the numbers of epochs that stay; 1 and 1 need no numbered files."""
        self.stem, self.keep_best, self.keep_last = Path(stem), keep_best, keep_last
        self.best: Snapshot | None = None
        self.last: Snapshot | None = None
        self._best_epoch: int | None = None
        self._ranks: dict[int, Rank] = {}
        self._numbered: set[int] = set()

    def after_epoch(self, row: dict[str, Any], save: Callable[[Path], Snapshot]) -> None:
        """Write the snapshots of an epoch, then remove those that no longer qualify.

        Args:
            row: the epoch's figures: ``epoch`` and ``loss``, and if it was evaluated ``AP50`` and ``AP``, or of a
                classifier ``accuracy`` and ``val_loss``.
            save: writes the snapshot to a path. Called once, for ``last``; the others are copies, which take no time.

        An epoch that was saved before, by a run that was killed soon after, replaces what it left.
        """
        epoch = row["epoch"]
        self._ranks[epoch] = _rank(row)
        self.last = save(self.path("last"))
        if self._best_epoch in (None, epoch) or self._ranks[epoch] > self._ranks[self._best_epoch]:
            self.best = snapshots.copy(self.last, self.path("best"), {"best": True})
            self._best_epoch = epoch
        kept: set[int] = set()  # of the numbered ones
        if not self.keep_best == self.keep_last == 1:
            by_rank = sorted(sorted(self._ranks), key=self._ranks.get, reverse=True)  # of equals the earlier
            kept = {*by_rank[: self.keep_best], *sorted(self._ranks)[-self.keep_last :]}
        if epoch in kept:
            self._numbered.add(epoch)
            snapshots.copy(self.last, self.path(f"{epoch:03d}"), {})
        for number in sorted(self._numbered - kept):
            snapshots.remove(self.path(f"{number:03d}"))
            self._numbered.remove(number)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON values."""
        ranks = [[epoch, *rank] for epoch, rank in self._ranks.items()]
        return {"best_epoch": self._best_epoch, "ranks": ranks, "numbered": sorted(self._numbered)}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave. Warn if the best snapshot is missing; the next epoch becomes best."""
        self._ranks = {epoch: tuple(rank) for epoch, *rank in state["ranks"]}
        self._numbered = set(state["numbered"])
        for end in ("last", "best") if self._ranks else ():
            try:
                setattr(self, end, snapshots.read(self.path(end)))
            except SnapshotError as error:
                log.warning("%s; training continues without it", error)
        self._best_epoch = state["best_epoch"] if self.best else None

    def path(self, end: str) -> Path:
        """The weights file of a name's end: ``best``, ``last`` or an epoch in three digits."""
        return self.stem.with_name(f"{self.stem.name}_{end}.h5")


def refuse_existing(stem: str | Path) -> None:
    """Raise `TrainingError` if a run of this name has left snapshots or checkpoints: they are never overwritten."""
    left = [path for path in _left_by(Path(stem)) if not path.stem.endswith("_inference")]
    if left:
        raise TrainingError(f"{left[0]} exists; choose another run name, move it away, or resume that run")


def run_stem(folder: str | Path, run: str, resume: bool = False) -> Path:
    """Give the stem under which a notebook's run writes; to resume the last one that was begun.

    That is ``<folder>/<run>``, or with ``-2``, ``-3`` ... after it the first under which no run has left anything.
    """
    stem, before = Path(folder, run), None
    for number in itertools.count(2):
        if not _left_by(stem):
            return before if resume and before else stem
        stem, before = Path(folder, f"{run}-{number}"), stem


def _left_by(stem: Path) -> list[Path]:
    """Snapshots, converted ones too, and checkpoints of a stem."""
    names = r"(best|last|\d{3,})(_inference)?\.(h5|json)|checkpoint-\d+\.(npz|state)"
    pattern = re.compile(rf"{re.escape(stem.name)}_({names})")
    there = sorted(stem.parent.iterdir()) if stem.parent.is_dir() else []
    return [path for path in there if pattern.fullmatch(path.name)]


def _rank(row: dict[str, Any]) -> Rank:
    """Higher is better: AP50, then AP, then a lower loss; an epoch without an evaluation ranks after all others.

    Of a classifier: accuracy, then a lower loss on the validation images, then a lower loss.
    """

    def figure(name: str) -> float:  # -1 if it was not measured or there was nothing to measure it on
        value = row.get(name)
        return -1.0 if value is None or math.isnan(value) else float(value)

    loss = float(row["loss"] if math.isfinite(row["loss"]) else sys.float_info.max)
    if "accuracy" in row:
        return figure("accuracy"), -float(row.get("val_loss", sys.float_info.max)), -loss
    return figure("AP50"), figure("AP"), -loss
