"""Ask a snapshot what it sees: images in, the table out.

A detection is an annotation with a score: the table goes to drawing, evaluation and export as it is.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask import detectors
from retinamask.dataset import boxes, images
from retinamask.dataset.annotations import DETECTION_COLUMNS, AnnotationError, make_table
from retinamask.detectors.snapshots import Snapshot, SnapshotError, read


class Detections(NamedTuple):
    """What was found in one image: ``boxes_xyxy`` ``(N, 4)`` in its pixels, ``scores`` and ``labels`` ``(N,)``."""

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Predictor:
    """A detector with its inference network, ready to look at images."""

    def __init__(self, detector, network):
        self.detector = detector
        self.network = network
        self.class_names = list(detector.classes)

    @classmethod
    def load(cls, snapshot: str | Path | Snapshot, **thresholds: float) -> "Predictor":
        """From a snapshot of either kind; a training snapshot is converted in memory.

        Args:
            snapshot: the snapshot or its path.
            thresholds: ``score_threshold`` and ``nms_threshold`` instead of the snapshot's own.

        Raises:
            SnapshotError: it is missing, damaged, or a classifier.
        """
        snapshot = snapshot if isinstance(snapshot, Snapshot) else read(snapshot)
        if snapshot.classifies:
            raise SnapshotError(f"{snapshot.weights} is a classifier, which finds no boxes; expected a detector's")
        return cls(*detectors.load(snapshot, "inference", **thresholds))

    def __call__(self, images_rgb: list[np.ndarray], score_threshold: float = 0.05) -> list[Detections]:
        """Detect in ``uint8`` RGB images of any size; the best score comes first.

        Scores below the network's own threshold of 0.05 never come out of it.
        """
        batch, scales = self.detector.prepare(images_rgb)
        return self.in_batch(batch, scales, [image.shape[1::-1] for image in images_rgb], score_threshold)

    def in_batch(
        self, batch: np.ndarray, scales: list[float], sizes_wh: list[tuple[int, int]], score_threshold: float = 0.05
    ) -> list[Detections]:
        """Detect in network input that is ready.

        Args:
            batch: from the detector's ``batch`` or ``prepare``.
            scales: resized size / original size of each image.
            sizes_wh: the original sizes.
            score_threshold: keep detections at or above this score.
        """
        outputs = [np.asarray(output) for output in self.network.predict_on_batch(batch)]
        return [
            _of_one_image(size_wh, scale, *(output[index] for output in outputs), score_threshold)
            for index, (size_wh, scale) in enumerate(zip(sizes_wh, scales, strict=True))
        ]


def detect(
    predictor: Predictor,
    paths: Iterable[str],
    folder: str | Path,
    score_threshold: float = 0.05,
    batch_size: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Detect in image files.

    Args:
        predictor: the loaded detector.
        paths: image paths relative to ``folder``; they stand in the table as they are.
        folder: where the paths start.
        score_threshold: keep detections at or above this score.
        batch_size: images per network call.
        progress: called with how many are done and how many there are.

    Returns:
        The table of detections, and a message for each image that could not be read.

    Raises:
        AnnotationError: not a single image could be read.
    """
    if not 0 <= score_threshold <= 1 or batch_size < 1:
        raise ValueError(
            f"score_threshold is {score_threshold} and batch_size {batch_size}, expected 0 to 1 and at least 1"
        )
    paths, rows, unreadable = list(paths), [], []
    for start in range(0, len(paths), batch_size):
        loaded = _read(paths[start : start + batch_size], Path(folder), unreadable)
        if loaded:
            found = predictor([image for _, image in loaded], score_threshold)
            for (path, _), detections in zip(loaded, found, strict=True):
                rows += table_rows(path, detections, predictor.class_names)
        if progress:
            progress(min(start + batch_size, len(paths)), len(paths))
    if paths and len(unreadable) == len(paths):
        raise AnnotationError(f"none of the {len(paths)} image(s) below {folder} can be read, such as: {unreadable[0]}")
    return make_table(rows, DETECTION_COLUMNS), unreadable


def table_rows(path: str, detections: Detections, class_names: list[str]) -> list[tuple]:
    """The rows of an image in the table; one without a box if nothing was found."""
    found = [
        (path, *map(float, box), class_names[label], float(score))
        for box, score, label in zip(*detections, strict=True)
    ]
    return found or [(path, *[None] * 6)]


def _of_one_image(
    size_wh: tuple[int, int],
    scale: float,
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    score_threshold: float,
) -> Detections:
    """Drop the padding of -1 and what is weak or empty, and go back to the image's own pixels."""
    original = boxes.clip(images.to_original_pixels(boxes_xyxy, scale), size_wh)
    keep = (labels >= 0) & (scores >= score_threshold) & (boxes.areas(original) > 0)
    return Detections(original[keep], scores[keep], labels[keep])


def _read(paths: list[str], folder: Path, unreadable: list[str]) -> list[tuple[str, np.ndarray]]:
    loaded = []
    for path in paths:
        try:
            loaded.append((path, images.read_image(folder / path)))
        except images.ImageError as error:
            unreadable.append(str(error))
    return loaded
