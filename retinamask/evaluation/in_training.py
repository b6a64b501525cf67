"""Judge a network while it trains: COCO figures of a detector, or the accuracy of a classifier, on a table."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import images
from retinamask.dataset.annotations import DETECTION_COLUMNS, AnnotationError, image_paths, make_table, objects
from retinamask.evaluation import coco, matches
from retinamask.inference.detect import Predictor, table_rows
from retinamask.progress import track

log = logging.getLogger(__name__)

KEPT_BYTES = 1_000_000_000  # resized images kept in memory; further ones are decoded again each time
_LEAST = 1e-7  # probability that the loss counts with, which would be infinite at 0; as Keras has it


class Picture(NamedTuple):
    """A validation image as the network wants it: resized by ``scale`` from a file of ``size_wh`` pixels."""

    path: str
    resized_rgb: np.ndarray
    scale: float
    size_wh: tuple[int, int]


def epoch_evaluation(detector, table: pd.DataFrame, folder: str | Path) -> "EpochEvaluation":
    """Return a function from a training network to its figures on ``table``.

    Args:
        detector: from `retinamask.detectors.create`.
        table: annotations of the validation images; for a classifier the class of each is that of its first box.
        folder: the folder that the image paths are relative to.

    Raises:
        AnnotationError: there is no box, or none of the images.
    """
    if objects(table).empty:
        raise AnnotationError("the validation table holds no box; nothing can be evaluated on it")
    if detector.classifies:
        table = objects(table).drop_duplicates("image_path")
    paths = image_paths(table)
    if not any(Path(folder, path).is_file() for path in paths):
        raise AnnotationError(f"none of the {len(paths)} validation images is below {folder}, such as {paths[0]}")
    return (EpochAccuracy if detector.classifies else EpochEvaluation)(detector, table, folder)


class EpochEvaluation:
    """Judge a training network when called, without a touch to its weights or to random numbers.

    Image files are read at the first call and kept, resized, up to `KEPT_BYTES`.

    Attributes:
        detector, table, folder: what is judged, and on what.
        detections: what was found at the last call, boxes suppressed ``per_class`` as COCO figures need it; ``None``
            before the first.
        unreadable: path to message of the images that cannot be read, known after the first call.
    """

    left_out_as = "counted as without detections"  # what happens to an image that cannot be read
    batch_size = 4  # images per network call

    def __init__(self, detector, table: pd.DataFrame, folder: str | Path):
        self.detector, self.table, self.folder = detector, table, Path(folder)
        self.detections: pd.DataFrame | None = None
        self.unreadable: dict[str, str] = {}
        self._kept: dict[str, Picture] = {}
        self._free_bytes = KEPT_BYTES
        self._network = self._predictor = None

    def __call__(self, network: Any) -> dict[str, float | None]:
        """Return the twelve figures of `coco.MEANINGS`, and of each class ``AP50/<class>`` and ``threshold/<class>``.

        0 to 1, or ``None`` where there is nothing to find; the threshold is the score from which its F1 is highest.
        Not a single image that can be read is an `AnnotationError`.
        """
        if network is not self._network:
            self._predictor = Predictor(self.detector, network)
            self._network = network
        rows = []
        for pictures, batch in self._batches():
            scales, sizes_wh = [picture.scale for picture in pictures], [picture.size_wh for picture in pictures]
            found = self._predictor.in_batch(batch, scales, sizes_wh, 0.05, "per_class")
            for picture, detections in zip(pictures, found, strict=True):
                rows += table_rows(picture.path, detections, self._predictor.class_names)
        self.detections = make_table(rows, DETECTION_COLUMNS)
        judged = self.table, self.detections, self.detector.classes
        figures, thresholds = coco.evaluate(*judged), matches.best_thresholds(matches.match(*judged, [0.5]))
        per_class = {f"AP50/{name}": each["AP50"] for name, each in figures["per_class"].items()}
        per_class |= {f"threshold/{name}": thresholds.get(name) for name in figures["per_class"]}
        return {name: figures[name] for name in coco.MEANINGS} | per_class

    def _batches(self) -> Iterator[tuple[list[Picture], np.ndarray]]:
        """Yield the images in parts with their network input; the next is made while the network looks at this one."""
        paths = [path for path in image_paths(self.table) if path not in self.unreadable]
        parts = [paths[start : start + self.batch_size] for start in range(0, len(paths), self.batch_size)]
        with ThreadPoolExecutor() as readers, ThreadPoolExecutor(1) as maker:

            def make(part: list[str]) -> tuple[list[Picture], np.ndarray | None]:
                pictures = [picture for picture in readers.map(self._read, part) if picture]
                for picture in pictures:
                    if picture.path not in self._kept and picture.resized_rgb.nbytes <= self._free_bytes:
                        self._kept[picture.path] = picture
                        self._free_bytes -= picture.resized_rgb.nbytes
                return pictures, self.detector.batch([p.resized_rgb for p in pictures]) if pictures else None

            following = [maker.submit(make, part) for part in parts[:1]]
            for place, _ in enumerate(track(parts, "evaluating", "image", count=len)):
                pictures, batch = following.pop().result()
                following += [maker.submit(make, part) for part in parts[place + 1 : place + 2]]
                if pictures:
                    yield pictures, batch
        if set(image_paths(self.table)) <= set(self.unreadable):
            first = next(iter(self.unreadable.values()))
            raise AnnotationError(f"none of the {len(self.unreadable)} validation images can be read, such as: {first}")

    def _read(self, path: str) -> Picture | None:
        if path in self._kept:
            return self._kept[path]
        try:
            image_rgb = images.read_image(self.folder / path)
        except images.ImageError as error:
            self.unreadable[path] = str(error)
            log.warning("%s: %s", self.left_out_as, error)
            return None
        size_wh = image_rgb.shape[1::-1]
        scale = self.detector.scale(size_wh)
        return Picture(path, images.resize(image_rgb, scale), scale, size_wh)


class EpochAccuracy(EpochEvaluation):
    """Judge a classifier; otherwise as `EpochEvaluation`.

    Attributes:
        detections: after a call, each image's most likely class as one box that covers the image, the probability as
            its score.
    """

    left_out_as = "left out of the validation"
    batch_size = 32

    def __call__(self, network: Any) -> dict[str, float | None]:
        """Return ``accuracy``, ``val_loss`` (mean cross-entropy) and ``accuracy/<class>``, the recall or ``None``."""
        if network is not self._network:
            self._predictor = self.detector.inference_network(network)
            self._network = network
        found, rows, names = [], [], list(self.detector.classes)
        for pictures, batch in self._batches():
            found.append(self._predictor.predict_on_batch(batch))
            for picture, each in zip(pictures, found[-1], strict=True):
                rows.append((picture.path, 0, 0, *picture.size_wh, names[each.argmax()], float(each.max())))
        self.detections, probabilities = make_table(rows, DETECTION_COLUMNS), np.concatenate(found)
        true = self.table.set_index("image_path")["class_name"].map(self.detector.classes)
        labels = true[self.detections["image_path"]].to_numpy(int)
        right, of_true = probabilities.argmax(1) == labels, probabilities[np.arange(len(labels)), labels]
        per_class = {
            f"accuracy/{name}": float(right[labels == number].mean()) if (labels == number).any() else None
            for name, number in self.detector.classes.items()
        }
        loss = -np.log(np.clip(of_true.astype(float), _LEAST, 1)).mean()
        return {"accuracy": float(right.mean()), "val_loss": float(loss), **per_class}
