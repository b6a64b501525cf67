"""A training run in TensorBoard: losses by the step; COCO figures and detected boxes by the evaluation.

A watcher, see `watchers`. The tags are those of the TensorFlow Object Detection API (its ``model_lib_v2.py`` and
``coco_evaluation.py``), so that curves of both can be laid over each other.
"""

import io
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from retinamask.dataset.annotations import image_paths, objects
from retinamask.detectors import _keras
from retinamask.drawing.contact_sheet import contact_sheet, examples
from retinamask.evaluation.watchers import Watcher
from retinamask.inference.detect import any_class

log = logging.getLogger(__name__)

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
}
CLASS_TAGS = {"AP50/": "DetectionBoxes_Precision mAP@.50IOU ByCategory/", "accuracy/": "Accuracy ByCategory/"}
IMAGES_TAG = "detections"

_FLUSH_SECONDS = 10
_JPEG_QUALITY = 90


class TensorBoardWatcher(Watcher):
    """Writes event files; ``tensorboard --logdir`` reads them while they grow.

    A resumed run adds a file to the same folder. What the killed run had written past its last checkpoint is
    marked as void, so that each step counts once.
    """

    def __init__(self, folder: str | Path, evaluation: Any = None, images: int = 8, score_threshold: float = 0.3):
        """Choose what is shown.

        Args:
            folder: where the event files go; made if it does not exist.
            evaluation: the `in_training.EpochEvaluation` that judges the run; its detections are drawn.
            images: how many of its images are shown, spread over those that hold boxes; 0 for none.
            score_threshold: detections below this score are not drawn.
        """
        if images < 0 or not 0 <= score_threshold <= 1:
            raise ValueError(
                f"images is {images} and score_threshold {score_threshold}, expected at least 0 and 0 to 1"
            )
        self.folder, self.evaluation = Path(folder), evaluation
        self.images, self.score_threshold = images, score_threshold
        self._writer, self._void_from, self._drawn = None, None, None

    def started(self, run: Any) -> None:
        _keras.prepare()  # TensorBoard imports TensorFlow
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(self.folder), flush_secs=_FLUSH_SECONDS)
        self._void_from = run.first_step + 1 if run.first_step else None  # not every step is told

    def after_step(self, step: int, figures: dict[str, float]) -> None:
        if self._void_from:
            self._mark_void(self._void_from)
            self._void_from = None
        self._write_scalars(step, figures)

    def after_epoch(self, row: dict[str, float], network: Any) -> None:
        figures = {_tag(name): value for name, value in row.items() if _tag(name)}
        self._write_scalars(row["step"], figures)
        if self.images and self.evaluation is not None and self.evaluation.detections is not self._drawn:
            self._write_image(row["step"], self._sheet(f"Epoch {row['epoch']:.0f}"))
            self._drawn = self.evaluation.detections
        self._call("flush")

    def ended(self) -> None:
        self._call("close")
        self._writer = None

    def _sheet(self, title: str):
        """Some validation images with what is annotated and what was found, as one picture."""
        judged = self.evaluation
        paths = [path for path in image_paths(objects(judged.table)) if path not in judged.unreadable]
        shown = [paths[round(place)] for place in np.linspace(0, len(paths) - 1, min(self.images, len(paths)))]
        found = any_class(judged.detections[~(judged.detections["score"] < self.score_threshold)])
        title += f": detections that score {self.score_threshold:g} or more"
        return contact_sheet(examples(shown, judged.folder, found, judged.table), judged.detector.classes, title=title)

    def _write_scalars(self, step: int, figures: dict[str, float]) -> None:
        known = {tag: value for tag, value in figures.items() if value is not None}
        if known:
            self._write(step, [{"tag": tag, "simple_value": value} for tag, value in known.items()])

    def _write_image(self, step: int, image) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        encoded = io.BytesIO()
        image.save(encoded, "JPEG", quality=_JPEG_QUALITY)
        picture = Summary.Image(
            width=image.width, height=image.height, colorspace=3, encoded_image_string=encoded.getvalue()
        )
        self._write(step, [{"tag": IMAGES_TAG, "image": picture}])

    def _write(self, step: int, values: list[dict[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        self._call("add_event", Event(wall_time=time.time(), step=int(step), summary=summary))

    def _mark_void(self, from_step: int) -> None:
        """Tell TensorBoard to forget what earlier files hold from this step on."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        restart = SessionLog(status=SessionLog.START)
        self._call("add_event", Event(wall_time=time.time(), step=int(from_step), session_log=restart))

    def _call(self, what: str, *arguments: Any) -> None:
        """Call the writer; if it cannot write any more, say so once and leave it at that: training matters more."""
        from tensorflow.errors import OpError

        try:
            if self._writer is not None:
                getattr(self._writer, what)(*arguments)
        except (OSError, OpError) as error:
            self._writer = None
            log.warning("%s: cannot be written (%s); TensorBoard shows no more of this run", self.folder, error)


def _tag(column: str) -> str | None:
    """TensorBoard's name for a column of the log; none for what the steps tell already."""
    for prefix, tag in CLASS_TAGS.items():
        if column.startswith(prefix):
            return tag + column.removeprefix(prefix)
    return TAGS.get(column)
