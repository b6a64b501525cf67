"""The usable images of a table with their boxes and class ids, in network-input pixels.

Between `pixel_cache`, which holds the pixels, and `input_pipeline`, which makes batches of them.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import BOX_COLUMNS, AnnotationError, check_classes, image_paths, objects
from retinamask.dataset.boxes import areas, clip, reach_outside
from retinamask.training import distribution
from retinamask.training.pixel_cache import open_pixels

log = logging.getLogger(__name__)


class Examples:
    """What a training run draws from.

    Attributes:
        table, detector: what they were made from.
        paths: image paths as in the table, without unusable ones.
        unusable: one message for each image that was left out because it is missing or damaged.
        pixels: the resized images, by `retinamask.training.pixel_cache.Pixels.read`.
        canvas_wh: width and height of the network's input.
        boxes: an array ``(M, 4)`` of ``float32`` for each image, in its resized pixels, clipped to it.
        labels: an array ``(M,)`` of ``int32`` class ids for each image.

    Args:
        table: annotations; image paths relative to ``folder``.
        folder: the folder that the image paths are relative to.
        detector: from `retinamask.detectors.create`; gives classes, scale and canvas.
        cache: where the pixels are kept, see `retinamask.training.pixel_cache.open_pixels`.
        progress: called with how many images are decoded and how many there are.

    Raises:
        AnnotationError: a class is unknown, or not one image can be read.
        PixelCacheError: no room for the pixels.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        folder: str | Path,
        detector,
        cache: str = "auto",
        progress: Callable[[int, int], None] | None = None,
    ):
        check_classes(table, detector.classes, "the training table")
        distribution.strategy()  # with several machines before TensorFlow is used for anything, and pixels are tensors
        self.table, self.detector = table, detector
        self.pixels = open_pixels(folder, image_paths(table), detector.scale, cache, progress)
        self.paths, self.unusable = self.pixels.paths, self.pixels.unusable
        if not self.paths:
            listed = "\n".join(self.unusable[:20])
            raise AnnotationError(f"none of the images below {folder} can be read:\n{listed}")
        for message in self.unusable:
            log.warning("left out of training: %s", message)
        self.canvas_wh: tuple[int, int] = detector.canvas_wh(self.pixels.sizes_wh)
        self.boxes: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self._read_objects(objects(table))

    def __len__(self) -> int:
        return len(self.paths)

    def _read_objects(self, table: pd.DataFrame) -> None:
        rows = dict(iter(table.groupby("image_path")))
        none = table.iloc[:0]
        for path, size_wh, scale in zip(self.paths, self.pixels.original_sizes_wh, self.pixels.scales, strict=True):
            boxes, labels = self._clipped(rows.get(path, none), size_wh)
            self.boxes.append((boxes * scale).astype(np.float32))
            self.labels.append(labels)

    def _clipped(self, rows: pd.DataFrame, size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """An image's boxes ``(M, 4)``, clipped to it, and class ids; what reaches outside is logged."""
        written = rows[BOX_COLUMNS].to_numpy(float)
        for box in written[reach_outside(written, size_wh) > 0]:
            log.warning("%s: box %s reaches outside the image of %s", rows["image_path"].iloc[0], box.tolist(), size_wh)
        inside = clip(written, size_wh)
        keep = areas(inside) > 0
        return inside[keep], rows["class_name"].map(self.detector.classes).to_numpy(np.int32)[keep]
