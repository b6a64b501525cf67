"""Begin a notebook: the same strictness by hand, in JupyterLab or plain papermill, as in `retinamask run`."""

import ast
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from retinamask.dataset import annotations, files, splits
from retinamask.detectors import named, snapshots
from retinamask.evaluation import plots
from retinamask.runs.parameters import converted, unknown
from retinamask.runs.record import record_by_hand

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
        given[name] = converted(name, given[name], "list[str]" if kind == list[str] else kind.__name__)
    run = NotebookRun(given)
    record_by_hand(run.folder, notebook, run.parameters)
    return run


def enter_project() -> None:
    """Make the project's root the working folder, from anywhere below it.

    Raises:
        ValueError: no folder at or above the working folder has `notebooks/` and `retinamask/`.
    """
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
        """Save a picture in the run's folder and return it, for the notebook to show."""
        path = self.folder / name
        if isinstance(picture, Figure):
            return plots.keep(picture, path)
        with files.replacing(path) as temporary:
            picture.save(temporary)
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
                training, is_classifier = record.get("training", {}), named(record["detector"]).classifies
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

    def check(self, snapshot: snapshots.Snapshot, parts: dict[str, pd.DataFrame], classes: dict[str, int]) -> None:
        """Refuse a model of other classes, and print a warning if it may have been trained on the test images.

        Args:
            snapshot: the model's; of a classifier the faces that this run has cut out count as training images.
            parts, classes: the split of which the model is to be judged on a part.
        """
        snapshots.check_classes(snapshot, classes)
        train, faces = parts["train"], self.folder / "faces_train"
        if snapshot.classifies and (faces / "faces.csv").is_file():
            train = annotations.moved(annotations.read_annotations(faces / "faces.csv"), faces, self.folder)
        if not snapshots.trained_on(snapshot, train):
            print("WARNING: this model was trained on another split; it may have seen the images it is judged on.")
