"""One training in a notebook: what is shown and kept before, while and after a network learns."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from retinamask.dataset import files
from retinamask.evaluation import plots
from retinamask.evaluation.augmentation_sheet import augmentation_sheet
from retinamask.evaluation.watchers import LiveFigure, TensorBoardWatcher
from retinamask.training import learning_rate_finder
from retinamask.training.examples import Examples
from retinamask.training.settings import TrainingSettings
from retinamask.training.snapshot_keeper import run_stem
from retinamask.training.train import Trained, train


@dataclass
class TrainingRun:
    """The steps of a training notebook, in their order; each returns the picture that it also keeps as a file.

    Attributes:
        examples: what is learnt from.
        settings: how to train.
        weights: what to start from: ``none``, ``imagenet``, ``coco`` or a file.
        evaluate: from `epoch_evaluation` or `epoch_accuracy`; chooses the best epoch.
        run_dir: the folder of figures, ``log.csv`` and TensorBoard's events; the run is named for it.
        snapshots_dir: the folder of the snapshots.
        resume: continue where an earlier run of this folder was stopped.
    """

    examples: Examples
    settings: TrainingSettings
    weights: str
    evaluate: Callable
    run_dir: str | Path
    snapshots_dir: str | Path
    resume: bool = False

    def augmentation(self) -> Image.Image:
        """Draw three training images as they are and as each kind of change alters them: ``augmentation.png``."""
        sheet = augmentation_sheet(self.examples, self.settings.augmentation, rows=3)
        with files.replacing(Path(self.run_dir, "augmentation.png")) as temporary:
            sheet.save(temporary)
        return sheet

    def learning_rate(self) -> Image.Image:
        """Draw the rate of each step: ``learning_rate.png``."""
        updates = self.settings.steps or math.ceil(len(self.examples) / self.settings.batch_size)
        curve = plots.learning_rate_curve(self.settings, updates)
        return plots.keep(curve, Path(self.run_dir, "learning_rate.png"))

    def find_learning_rate(self) -> Image.Image:
        """Train a copy with a rising rate and draw its loss: ``learning_rate_finding.png``; print a suggestion."""
        found = learning_rate_finder.rates_and_losses(self.examples, self.settings, self.weights)
        suggested = learning_rate_finder.suggested(found)
        print(f"suggested learning_rate: {suggested:.1e}, used: {self.settings.learning_rate:.1e}")
        figure = plots.learning_rate_finding(found)
        return plots.keep(figure, Path(self.run_dir, "learning_rate_finding.png"))

    def train(self) -> Trained:
        """Train with a live figure and TensorBoard's events; snapshots are named for the run."""
        name = Path(self.run_dir).name
        stem = run_stem(self.snapshots_dir, name, self.resume)  # with a number if the run has trained before
        events = Path(self.run_dir, f"tensorboard{stem.name.removeprefix(name)}")
        return train(
            self.examples,
            self.settings,
            stem,
            self.weights,
            evaluate=self.evaluate,
            watchers=[LiveFigure(), TensorBoardWatcher(events, self.evaluate)],
            record={"run": name},
            log_csv=Path(self.run_dir, "log.csv"),
            resume=self.resume,
        )

    def curves(self, trained: Trained) -> Image.Image:
        """Draw losses and precision over the epochs: ``training_curves.png``."""
        return plots.keep(plots.training_curves(trained.log), Path(self.run_dir, "training_curves.png"))
