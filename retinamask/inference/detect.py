"""Detect with a snapshot: images in, the table out, which goes to drawing, evaluation and export as it is."""

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask import detectors
from retinamask.dataset import boxes, images
from retinamask.dataset.annotations import BOX_COLUMNS, DETECTION_COLUMNS, AnnotationError, make_table, objects
from retinamask.detectors.exported import MANY_IMAGES, ExportedNetwork
from retinamask.detectors.snapshots import Snapshot, SnapshotError, read
from retinamask.inference.suppression import filter_detections, non_maximum
from retinamask.progress import track

_BATCHES = 3  # read, seen and suppressed at a time: one in the network, one before it and one after it


class Detections(NamedTuple):
    """The boxes found in one image."""

    boxes_xyxy: np.ndarray  # (N, 4) in its pixels
    scores: np.ndarray  # (N,), the best first
    labels: np.ndarray  # class ids (N,)
    best_score: float = 0.0  # the highest score of the image, also below the threshold


class Predictor:
    """A detector with its network.

    Attributes:
        class_names: in the order of the labels.
        nms_threshold: of two boxes that overlap more than this (IoU) the weaker goes, see `suppression`.
        concurrent: whether several threads may call it at once.
    """

    def __init__(self, detector, network, nms_threshold: float = 0.5):
        """``network.predict_on_batch`` gives what the detector's training network puts out, raw."""
        self.detector, self.network, self.nms_threshold = detector, network, nms_threshold
        self.class_names = list(detector.classes)
        self.concurrent = isinstance(network, ExportedNetwork)

    @classmethod
    def load(
        cls,
        snapshot: str | Path | Snapshot,
        nms_threshold: float | None = None,
        image_size: int | None = None,
        backend: str | None = None,
        precision: str = "auto",
    ) -> "Predictor":
        """Load a snapshot or an export, without the filter that is built into a converted snapshot.

        Args:
            snapshot: the snapshot or its path.
            nms_threshold: that of the conversion, or 0.5, if left out.
            image_size: side of the square that images are fitted into; that of the training if left out.
            backend, precision: of an export, see `retinamask.detectors.exported.ExportedNetwork`.

        Raises:
            SnapshotError: it is missing, damaged, or a classifier.
        """
        snapshot = snapshot if isinstance(snapshot, Snapshot) else read(snapshot)
        if snapshot.classifies:
            raise SnapshotError(f"{snapshot.weights} is a classifier, which finds no boxes; expected a detector's")
        if nms_threshold is None:
            nms_threshold = snapshot.record.get("inference", {}).get("nms_threshold", 0.5)
        snapshot = snapshot if image_size is None else snapshot.at(image_size)
        return cls(*detectors.load(snapshot, "raw", backend, precision), nms_threshold)

    def __call__(
        self, images_rgb: list[np.ndarray], score_threshold: float = 0.05, suppress: str = "any_class"
    ) -> list[Detections]:
        """Detect in ``uint8`` RGB images ``(height, width, 3)`` of any size; the options are those of `detect`."""
        batch, scales = self.detector.prepare(images_rgb)
        return self.in_batch(batch, scales, [image.shape[1::-1] for image in images_rgb], score_threshold, suppress)

    def many(self, images_rgb: list[np.ndarray]) -> contextlib.AbstractContextManager:
        """Make an export ready for many images while a block runs, by the time that some take."""
        return self.network.many(self.detector.prepare(images_rgb)[0]) if self.concurrent else contextlib.nullcontext()

    def in_batch(
        self, batch: np.ndarray, scales: list[float], sizes_wh: list, score_threshold: float, suppress: str
    ) -> list[Detections]:
        """Detect in the ``batch`` and ``scales`` that the detector's ``prepare`` makes of images of ``sizes_wh``."""
        detections = []
        outputs = self.network.predict_on_batch(batch)
        outputs = list(map(np.asarray, outputs if isinstance(outputs, (list, tuple)) else [outputs]))
        every_score = self.detector.scores(outputs)
        for number, (scale, size_wh) in enumerate(zip(scales, sizes_wh, strict=True)):
            best = np.ascontiguousarray(every_score[number].T).max(axis=0)  # along rows of two it is 40 times slower
            strong = np.flatnonzero(best >= score_threshold)  # only these are decoded
            boxes_xyxy = self.detector.boxes(outputs, number, strong, batch.shape[2:0:-1])
            class_scores = every_score[number][strong]
            found = filter_detections(boxes_xyxy, class_scores, score_threshold, self.nms_threshold, suppress)
            original = boxes.clip(images.to_original_pixels(found[0], scale), size_wh)
            whole = boxes.areas(original) > 0  # not those that lie on the padding
            kept = original[whole], found[1][whole], found[2][whole]
            detections.append(Detections(*kept, float(best.max(initial=0))))
        return detections


class Seen(NamedTuple):
    """An image file and what was found in it, or why it cannot be read."""

    path: str
    image_rgb: np.ndarray | None
    detections: Detections | None
    problem: str | None


def look_at(
    predictor, paths: Sequence[str], folder, score_threshold: float, batch_size: int = 4, suppress: str = "any_class"
) -> Iterator[Seen]:
    """Yield what `detect` finds, image by image in the order of the paths, so that memory holds a few batches.

    While the network is busy, other threads read the next images. A ``predictor`` that is ``concurrent`` is called by
    these too, so that one batch is resized and another one suppressed meanwhile; others are called by the caller's.

    Raises:
        ValueError: ``score_threshold`` or ``batch_size`` is out of range.
    """
    check_options(score_threshold, batch_size)

    def look(batch: list[Seen]) -> list[Seen]:
        readable = [seen.image_rgb for seen in batch if not seen.problem]
        found = iter(predictor(readable, score_threshold, suppress) if readable else ())
        return [seen if seen.problem else seen._replace(detections=next(found)) for seen in batch]

    def work(batch_paths: Sequence[str]) -> list[Seen]:
        batch = [_read(path, folder) for path in batch_paths]
        return look(batch) if concurrent else batch

    concurrent = getattr(predictor, "concurrent", False)
    waiting, starts, ready = deque(), range(0, len(paths), batch_size), contextlib.nullcontext()
    if len(paths) >= MANY_IMAGES and getattr(predictor, "many", None):
        first = [seen.image_rgb for path in paths[:batch_size] if not (seen := _read(path, folder)).problem]
        ready = predictor.many(first or [np.zeros((480, 640, 3), np.uint8)])
    with ready:
        pool = ThreadPoolExecutor(_BATCHES, "detecting")
        try:
            for number in range(len(starts) + _BATCHES):
                if number < len(starts):
                    waiting.append(pool.submit(work, paths[starts[number] : starts[number] + batch_size]))
                if number >= _BATCHES:
                    batch = waiting.popleft().result()
                    yield from batch if concurrent else look(batch)
        finally:
            pool.shutdown(cancel_futures=True)


def check_options(score_threshold: float, batch_size: int) -> None:
    """Raise `ValueError` for what `look_at` does not take."""
    if not 0 <= score_threshold <= 1 or batch_size < 1:
        raise ValueError(
            f"score_threshold is {score_threshold} and batch_size {batch_size}, expected 0 to 1 and at least 1"
        )


def _read(path: str, folder) -> Seen:
    try:
        return Seen(path, images.read_image(Path(folder, path)), None, None)
    except images.ImageError as error:
        return Seen(path, None, None, str(error))


def detect(
    predictor,
    paths: Sequence[str],
    folder: str | Path,
    score_threshold: float = 0.05,
    batch_size: int = 4,
    suppress: str = "any_class",
) -> tuple[pd.DataFrame, list[str]]:
    """Detect in image files.

    Args:
        predictor: a `Predictor` or a `retinamask.inference.two_stage.TwoStage`.
        paths: image paths relative to ``folder``, as they get into the table.
        folder: where the paths start.
        score_threshold: keep detections at or above this score.
        batch_size: images per network call.
        suppress: ``any_class`` for one box a face, ``per_class`` for COCO figures; see `suppression`.

    Returns:
        The table of detections, and a message for each image that could not be read.

    Raises:
        AnnotationError: not a single image could be read.
    """
    rows, unreadable = [], []
    looked = look_at(predictor, paths, folder, score_threshold, batch_size, suppress)
    for seen in track(looked, "detecting", "image", len(paths)):
        if seen.problem:
            unreadable.append(seen.problem)
        else:
            rows += table_rows(seen.path, seen.detections, predictor.class_names)
    if paths and len(unreadable) == len(paths):
        raise AnnotationError(f"none of the {len(paths)} image(s) below {folder} can be read, such as: {unreadable[0]}")
    table = make_table(rows, DETECTION_COLUMNS)
    table.attrs["score_threshold"] = score_threshold
    return table, unreadable


def table_rows(path: str, detections: Detections, class_names: list[str]) -> list[tuple]:
    """Return the rows of an image in the table; one without a box if nothing was found."""
    found = zip(*detections[:3], strict=True)
    rows = [(path, *map(float, box), class_names[label], float(score)) for box, score, label in found]
    return rows or [(path, *[None] * 6)]


def any_class(table: pd.DataFrame, nms_threshold: float = 0.5) -> pd.DataFrame:
    """Leave one box a face in a table of detections that were suppressed ``per_class``, and all rows without a box."""
    kept = [table.index[table["x1"].isna()]]
    for _, rows in objects(table).groupby("image_path", sort=False):
        boxes_xyxy, scores = rows[BOX_COLUMNS].to_numpy(float), rows["score"].to_numpy(float)
        kept.append(rows.index[non_maximum(boxes_xyxy, scores, nms_threshold)])
    return table.loc[np.sort(np.concatenate(kept))]
