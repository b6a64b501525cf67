"""Begin a notebook, as strict by hand or in plain papermill as in `retinamask run`; the steps of one that trains."""

import ast
import json
import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from retinamask import detectors
from retinamask.dataset import annotations, splits
from retinamask.detectors import snapshots
from retinamask.detectors._keras import device_line
from retinamask.detectors.mask_classifier import balanced_weights
from retinamask.evaluation import plots
from retinamask.evaluation.augmentation_sheet import augmentation_sheet
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.evaluation.page import PAGE_NAME, write_page
from retinamask.evaluation.watchers import LiveFigure, TensorBoardWatcher
from retinamask.runs.parameters import converted, training_settings, unknown
from retinamask.runs.record import record_by_hand
from retinamask.training.checkpoints import run_stem
from retinamask.training.input_pipeline import Examples
from retinamask.training.learning_rate import suggested
from retinamask.training.train import Trained, find_learning_rate, train

MOST_LISTED = 10  # snapshots in a message


def enter(notebook: str, given: dict[str, Any]) -> "NotebookRun":
    """Make the project's root the working folder, check the parameters, and make the run's folder.

    The first cell of code of every notebook does so. JupyterLab starts a notebook in the notebook's own folder,
    papermill where it was called; papermill passes on unknown names and texts for any type, such as "false".

    Args:
        notebook: its name, under which its run is recorded.
        given: the notebook's ``globals()``; its parameters get the types that its `parameters` cell declares.

    Raises:
        ValueError: not inside the project, a parameter that the notebook does not have, or a value of a wrong type.

    Example:
        >>> run = rm.enter("05_evaluate", globals())
    """
    enter_project()
    declared = given["__annotations__"]
    injected = [source for source in given.get("In", []) if source.startswith("# Parameters\n")]  # by papermill
    for statement in ast.parse("\n".join(injected)).body:
        if statement.targets[0].id not in declared:
            raise ValueError(unknown(statement.targets[0].id, declared))
    for name, kind in declared.items():
        given[name] = converted(name, given[name], str(kind) if kind in (list[str], list[float]) else kind.__name__)
    run = NotebookRun(given)
    record_by_hand(run.folder, notebook, run.parameters)
    return run


def enter_project() -> None:
    """Make the project's root the working folder, from anywhere below it."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "retinamask").is_dir():
            os.chdir(folder)
            return
    raise ValueError(f"{here} is not inside the project; start the notebook below the folder that has notebooks/")


class NotebookRun:
    """The run of a notebook, from `enter`: its parameters, its folder, and the splits and snapshots that belong to it.

    Attributes:
        folder: what the notebook writes to; image paths in the tables of a run are relative to it.
    """

    def __init__(self, given: dict[str, Any]):
        self._given, self.folder = given, Path(given["run_dir"])

    @property
    def parameters(self) -> dict[str, Any]:
        """The notebook's parameters as they are now."""
        return {name: self._given[name] for name in self._given["__annotations__"]}

    def keep(self, picture: Image.Image | Figure, name: str) -> Image.Image:
        """Save a picture in the run's folder and return it, for the notebook to show; renew the page of the run."""
        picture = plots.keep(picture, self.folder / name)
        if (self.folder / PAGE_NAME).exists():  # of an earlier `retinamask run`, which writes it when all is done
            write_page(self.folder)
        return picture

    def split(
        self, table: pd.DataFrame, classes: dict[str, int], val: float, test: float, seed: int, like: str | Path = ""
    ) -> dict[str, pd.DataFrame]:
        """Split a table without copies across the parts, and write the parts into the run's folder.

        Args:
            table: annotations, image paths relative to the run's folder.
            classes: name to id.
            val, test: shares of the images.
            seed: decides which image goes where.
            like: an annotation CSV; images keep their part in a split that lies beside it.
        """
        return splits.write_splits(table, classes, self.folder, self.folder, val, test, seed, like)

    def splits(
        self, annotations_csv: str, classes_csv: str, seed: int
    ) -> tuple[dict[str, pd.DataFrame], dict[str, int]]:
        """Read ``train``, ``val``, ``test`` and classes of the run, or split a table, see `splits.splits_of_run`."""
        return splits.splits_of_run(self.folder, annotations_csv, classes_csv, seed)

    def snapshot(self, snapshot: str, snapshots_dir: str, *kinds: str, classifier: bool = False) -> snapshots.Snapshot:
        """Read the named snapshot, or else the newest that this run has left; never that of another run.

        Args:
            snapshot: path of an ``.h5``, or empty.
            snapshots_dir: where to look, not in folders below it.
            kinds: ``training`` and ``inference``, the preferred one first.
            classifier: look for a classifier of faces instead of a detector.

        Raises:
            ValueError: the run has none; the message names those that there are.
            SnapshotError: a file is missing or damaged.
        """
        if snapshot:
            return snapshots.read(snapshot)
        run, found, others = self.folder.name, [], []
        for path in sorted(Path(snapshots_dir).glob("[!.]*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                training, is_classifier = record.get("training", {}), detectors.named(record["detector"]).classifies
                rank = -kinds.index(record["kind"]), training.get("started", ""), training.get("best", False), str(path)
            except (ValueError, KeyError, AttributeError):
                continue  # no snapshot's description, or not of these kinds
            if is_classifier == classifier:
                (found if training.get("run") == run else others).append(rank)
        if found:
            return snapshots.read(max(found)[-1])
        first = "08_train_mask_classifier" if classifier else "a training notebook"
        first += "" if "training" in kinds else " and 03_convert_snapshot"
        listed = ", ".join(rank[-1].replace(".json", ".h5") for rank in others[:MOST_LISTED])
        more = f" and {len(others) - MOST_LISTED} more" if len(others) > MOST_LISTED else ""
        raise ValueError(
            f"the run {run!r} has no {' or '.join(kinds)} snapshot in {snapshots_dir}; run {first} in this run first, "
            f"or name one with the parameter snapshot; there are: {listed or 'none'}{more}"
        )

    def check(self, snapshot: snapshots.Snapshot, parts: dict[str, pd.DataFrame], classes: dict[str, int]) -> bool:
        """Refuse a model of other classes, and print a warning if it may have been trained on the test images.

        Args:
            snapshot: the model's; of a classifier the faces that this run has cut out count as training images.
            parts, classes: the split of which the model is to be judged on a part.

        Returns:
            Whether the test images are held out: the model was trained on this split's training images.
        """
        snapshots.check_classes(snapshot, classes)
        train, faces = parts["train"], self.folder / "faces_train"
        if snapshot.classifies and (faces / "faces.csv").is_file():
            train = annotations.moved(annotations.read_annotations(faces / "faces.csv"), faces, self.folder)
        held_out = snapshots.trained_on(snapshot, train)
        if not held_out:
            print("WARNING: this model was trained on another split; it may have seen the images it is judged on.")
        return held_out


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
