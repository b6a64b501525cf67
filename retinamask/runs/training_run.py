"""One training in a notebook: what is shown and kept before, while and after a network learns."""

import math
from pathlib import Path

import pandas as pd
from PIL import Image

from retinamask import detectors
from retinamask.detectors._keras import device_line
from retinamask.detectors.mask_classifier import balanced_weights
from retinamask.evaluation import plots
from retinamask.evaluation.augmentation_sheet import augmentation_sheet
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.evaluation.watchers import LiveFigure, TensorBoardWatcher
from retinamask.runs.enter import NotebookRun
from retinamask.runs.parameters import training_settings
from retinamask.training.checkpoints import run_stem
from retinamask.training.input_pipeline import Examples
from retinamask.training.learning_rate import suggested
from retinamask.training.train import Trained, find_learning_rate, train


class TrainingRun:
    """The training of a notebook; each method is a step and returns the picture that it saves in the run's folder.

    Args:
        detector: its name.
        parts: tables ``train`` and ``val``, image paths relative to the run's folder.
        classes: name to id.
        run: from `enter`; its parameters, those in ``more`` too, are the settings of network and training.

    Attributes:
        detector: the detector, ready to start from ``weights``.
        examples: the training images.
        settings: `TrainingSettings`.
        evaluate: judges an epoch on ``val``; the best by AP50, or by accuracy, is the best snapshot.

    Raises:
        ValueError: an unknown name in ``more``, or a wrong value.

    Example:
        >>> training = rm.TrainingRun("retinanet", parts, classes, run)
        >>> trained = training.train()
    """

    def __init__(self, detector: str, parts: dict[str, pd.DataFrame], classes: dict[str, int], run: NotebookRun):
        self.run, self._parts = run, parts
        given = run.parameters
        self.settings, network = training_settings(detector, given.pop("more"), **given)
        if given.get("balance_classes"):
            network["class_weights"] = balanced_weights(parts["train"]["class_name"], classes)
        self._learn_with(detectors.create_for(detector, classes, given["weights"], **network))

    def _learn_with(self, detector) -> None:
        self.detector = detector
        self.examples = Examples(self._parts["train"], self.run.folder, detector, self.settings.cache)
        self.evaluate = epoch_evaluation(detector, self._parts["val"], self.run.folder)

    def __repr__(self) -> str:
        settings, weights = self.detector.settings, self.run.parameters["weights"]
        name = f"{self.detector.name} {getattr(settings, 'backbone', '')}".rstrip()
        train, val = (self._parts[part]["image_path"].nunique() for part in ("train", "val"))
        return (
            f"{name}, weights {weights}, batch normalisation {getattr(settings, 'normalisation', 'live')}\n"
            f"{train} training and {val} validation images\n{device_line()}"
        )

    def fit_anchors(self) -> None:
        """Take anchors by k-means from the training boxes instead of the published ones; for ``yolov4_tiny``."""
        self._learn_with(self.detector.with_anchors(self.examples.boxes))

    def augmentation(self) -> Image.Image:
        """Draw three training images as they are and as each kind of change alters them: ``augmentation.png``."""
        sheet = augmentation_sheet(self.examples, self.settings.augmentation, rows=3)
        return self.run.keep(sheet, "augmentation.png")

    def learning_rate(self) -> Image.Image:
        """Draw the rate of each step: ``learning_rate.png``."""
        updates = self.settings.steps or math.ceil(len(self.examples) / self.settings.batch_size)
        return self.run.keep(plots.learning_rate_curve(self.settings, updates), "learning_rate.png")

    def find_learning_rate(self) -> Image.Image:
        """Train a copy with a rising rate and draw its loss: ``learning_rate_finding.png``; print a suggestion."""
        weights = self.run.parameters["weights"]
        found = find_learning_rate(self.examples, self.settings, weights)
        print(f"suggested learning_rate: {suggested(found):.1e}, used: {self.settings.learning_rate:.1e}")
        return self.run.keep(plots.learning_rate_finding(found), "learning_rate_finding.png")

    def train(self) -> Trained:
        """Train with a live figure and TensorBoard's events; snapshots are named for the run."""
        name, given = self.run.folder.name, self.run.parameters
        stem = run_stem(given["snapshots_dir"], name, given["resume"])  # with a number if the run has trained before
        events = Path(self.run.folder, f"tensorboard{stem.name.removeprefix(name)}")
        trained = train(
            self.examples,
            self.settings,
            stem,
            given["weights"],
            evaluate=self.evaluate,
            watchers=[LiveFigure(), TensorBoardWatcher(events, self.evaluate)],
            record={"run": name},
            log_csv=self.run.folder / "log.csv",
            resume=given["resume"],
        )
        print(f"best: {trained.best}\nlast: {trained.last}")
        return trained

    def curves(self, trained: Trained) -> Image.Image:
        """Draw losses and precision over the epochs: ``training_curves.png``."""
        return self.run.keep(plots.training_curves(trained.log), "training_curves.png")
