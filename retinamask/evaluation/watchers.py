"""Watchers are told how a training run goes: their base class, TensorBoard's events, and a live figure in a notebook.

`retinamask.training.train` takes any number of them and knows nothing else about them. They only look: a watcher
must not change the network, nor draw from TensorFlow's, NumPy's or Python's shared random numbers.
"""

import base64
import io
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import image_paths, objects
from retinamask.detectors import _keras
from retinamask.drawing.contact_sheet import contact_sheet, examples
from retinamask.evaluation import plots
from retinamask.inference.detect import any_class

log = logging.getLogger(__name__)


class Watcher:
    """Hears of a run's start, steps, epochs and end; every method may be left as it is, which does nothing.

    On several machines only the first one's watchers are told.
    """

    def started(self, run: Any) -> None:
        """Training begins or, with ``run.first_step`` above 0, resumes.

        ``run`` has ``stem`` (path of the snapshots without their endings), ``settings``, ``first_step`` (updates made
        before), ``total_steps``, ``rows`` (the log so far, a dict an epoch) and ``record`` (of its snapshots).
        """

    def after_step(self, step: int, figures: dict[str, float]) -> None:
        """The figures of the update ``step``; they come every few steps.

        ``Loss/total_loss``, ``Loss/localization_loss``, ``Loss/classification_loss``, ``Loss/regularization_loss``,
        ``learning_rate``, ``steps_per_sec`` and ``images_per_sec``.
        """

    def after_epoch(self, row: dict[str, float], network: Any) -> None:
        """An epoch of ``network`` has ended and, if it was due, been evaluated.

        ``row``, of the log, has ``epoch``, ``step``, ``loss``, ``localization_loss``, ``classification_loss``,
        ``regularization_loss``, ``learning_rate``, ``seconds``, and the figures of `in_training`.
        """

    def ended(self) -> None:
        """Training has finished or was stopped."""


# TensorBoard's names for columns of the log: those of the TensorFlow Object Detection API (its ``model_lib_v2.py`` and
# ``coco_evaluation.py``), so that curves of both can be laid over each other.
TAGS = {
    "AP": "DetectionBoxes_Precision/mAP",
    "AP50": "DetectionBoxes_Precision/mAP@.50IOU",
    "AP75": "DetectionBoxes_Precision/mAP@.75IOU",
    "APs": "DetectionBoxes_Precision/mAP (small)",
    "APm": "DetectionBoxes_Precision/mAP (medium)",
    "APl": "DetectionBoxes_Precision/mAP (large)",
    "accuracy": "Accuracy/all classes",
    "val_loss": "Loss/val_loss",
    "AR1": "DetectionBoxes_Recall/AR@1",
    "AR10": "DetectionBoxes_Recall/AR@10",
    "AR100": "DetectionBoxes_Recall/AR@100",
    "ARs": "DetectionBoxes_Recall/AR@100 (small)",
    "ARm": "DetectionBoxes_Recall/AR@100 (medium)",
    "ARl": "DetectionBoxes_Recall/AR@100 (large)",
    "AP50/": "DetectionBoxes_Precision mAP@.50IOU ByCategory/",
    "accuracy/": "Accuracy ByCategory/",
}
_IMAGES, _SCORE_THRESHOLD = 8, 0.3  # how many of the validation, and which of their detections, are drawn


class TensorBoardWatcher(Watcher):
    """Writes event files; ``tensorboard --logdir`` reads them while they grow.

    A resumed run adds a file to the same folder. What the killed run had written past its last checkpoint is
    marked as void, so that each step counts once.

    Args:
        folder: where the event files go; made if it does not exist.
        evaluation: the `in_training.EpochEvaluation` that judges the run; its detections are drawn
            on some images, spread over those that hold boxes.
    """

    def __init__(self, folder: str | Path, evaluation: Any = None):
        self.folder, self.evaluation = Path(folder), evaluation
        self._writer, self._void_from, self._drawn = None, None, None

    def started(self, run: Any) -> None:
        _keras.prepare()  # TensorBoard imports TensorFlow
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(self.folder), flush_secs=10)
        self._void_from = run.first_step + 1 if run.first_step else None  # not every step is told

    def after_step(self, step: int, figures: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        if self._void_from:  # TensorBoard forgets what earlier files hold from this step on
            restart = SessionLog(status=SessionLog.START)
            self._call("add_event", Event(wall_time=time.time(), step=self._void_from, session_log=restart))
            self._void_from = None
        self._write(step, figures)

    def after_epoch(self, row: dict[str, float], network: Any) -> None:
        figures = {}
        for column, value in row.items():
            kind, slash, name = column.partition("/")
            if kind + slash in TAGS:  # the other figures come with the steps
                figures[TAGS[kind + slash] + name] = value
        self._write(row["step"], figures)
        judged = self.evaluation
        if judged is not None and judged.detections is not self._drawn:
            paths = [path for path in image_paths(objects(judged.table)) if path not in judged.unreadable]
            shown = [paths[round(place)] for place in np.linspace(0, len(paths) - 1, min(_IMAGES, len(paths)))]
            found = any_class(judged.detections[~(judged.detections["score"] < _SCORE_THRESHOLD)])
            title = f"Epoch {row['epoch']:.0f}: detections that score {_SCORE_THRESHOLD:g} or more"
            cells = examples(shown, judged.folder, found, judged.table)
            encoded, sheet = io.BytesIO(), contact_sheet(cells, judged.detector.classes, title=title)
            sheet.save(encoded, "JPEG", quality=90)
            picture = {"width": sheet.width, "height": sheet.height, "colorspace": 3}
            self._write(row["step"], {"detections": {**picture, "encoded_image_string": encoded.getvalue()}})
            self._drawn = judged.detections
        self._call("flush")

    def ended(self) -> None:
        self._call("close")
        self._writer = None

    def _write(self, step: int, values: dict[str, Any]) -> None:
        """Write numbers and, as dicts, images under their tags."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        kinds = {tag: "image" if isinstance(value, dict) else "simple_value" for tag, value in values.items()}
        known = [Summary.Value(tag=tag, **{kinds[tag]: value}) for tag, value in values.items() if value is not None]
        if known:
            self._call("add_event", Event(wall_time=time.time(), step=int(step), summary=Summary(value=known)))

    def _call(self, what: str, *arguments: Any) -> None:
        """Call the writer; if it cannot write any more, log that once and train on."""
        from tensorflow.errors import OpError

        try:
            if self._writer is not None:
                getattr(self._writer, what)(*arguments)
        except (OSError, OpError) as error:
            self._writer = None
            log.warning("%s: cannot be written (%s); TensorBoard shows no more of this run", self.folder, error)


MOST_POINTS = 2000  # of the live figure over the steps; beyond, neighbours are averaged
_COLUMNS = {
    "Loss/total_loss": "loss",
    "Loss/localization_loss": "localization_loss",
    "Loss/objectness_loss": "objectness_loss",
    "Loss/classification_loss": "classification_loss",
    "Loss/regularization_loss": "regularization_loss",
    "learning_rate": "learning_rate",
}
_WAIT_FOR_DRAWING = 20  # times as long as the last drawing took: drawing takes a twentieth of the time at most


class LiveFigure(Watcher):
    """Shows the `plots.training_curves` so far below a notebook's cell, and nothing outside a notebook.

    The figure is replaced after ``seconds`` within an epoch, and at the end of each unless it is short. A notebook that
    is saved holds the last one alone.
    """

    def __init__(self, seconds: float = 10.0):
        self.seconds = seconds
        self._in_notebook = self._changed = False

    def started(self, run: Any) -> None:
        ipython = sys.modules.get("IPython")  # which is not imported for this
        self._in_notebook = hasattr(ipython and ipython.get_ipython(), "kernel")
        self._points: list[dict[str, float]] = []
        self._rows = list(run.rows)  # earlier epochs, if the run is resumed
        self._shown = self._shown_after_epoch = -math.inf
        self._handle, self._took, self._changed = None, 0.0, False

    def after_step(self, step: int, figures: dict[str, float]) -> None:
        if self._in_notebook:
            known = {name: figures[tag] for tag, name in _COLUMNS.items() if tag in figures}
            self._points.append({"step": step, **known})
            if len(self._points) >= MOST_POINTS:
                table = pd.DataFrame(self._points)
                self._points = table.groupby(table.index // 2).mean().to_dict("records")
            self._redraw_after(self.seconds, self._shown)

    def after_epoch(self, row: dict[str, float], network: Any) -> None:
        if self._in_notebook:
            self._rows.append(row)
            self._redraw_after(0.0, self._shown_after_epoch)
            if not self._changed:
                self._shown_after_epoch = self._shown

    def ended(self) -> None:
        if self._changed:
            self._redraw_after(0.0, -math.inf)

    def _redraw_after(self, seconds: float, before: float) -> None:
        """Redraw if that much time has passed since ``before``."""
        from IPython.display import display

        began, self._changed = time.monotonic(), True
        if began - before < max(seconds, _WAIT_FOR_DRAWING * self._took):
            return
        figure = plots.training_curves(pd.DataFrame(self._rows), pd.DataFrame(self._points))
        figure.set_layout_engine("none")  # it is laid out already, and that takes half of the time
        encoded = io.BytesIO()
        figure.savefig(encoded, format="png", dpi=100)
        content = {"image/png": base64.b64encode(encoded.getvalue()).decode(), "text/plain": "training so far"}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
        self._shown, self._changed = time.monotonic(), False
        self._took = self._shown - began
