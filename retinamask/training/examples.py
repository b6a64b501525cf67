"""The usable images of a table with their boxes and class ids, in network-input pixels."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import BOX_COLUMNS, AnnotationError, check_classes, image_paths, objects
from retinamask.dataset.boxes import areas, clip, reach_outside
from retinamask.training import distribution
from retinamask.training.pixel_cache import open_pixels
from retinamask.training.settings import TrainingError

log = logging.getLogger(__name__)


class Examples:
    """The images, boxes and labels that a training run draws from.

    Args:
        table: annotations; image paths relative to ``folder``.
        folder: the folder that the image paths are relative to.
        detector: from `retinamask.detectors.create`; gives classes, scale and canvas.
        cache: where the pixels are kept, see `retinamask.training.pixel_cache.open_pixels`.

    Attributes:
        paths: image paths as in the table, without unusable ones.
        unusable: one message for each image that was left out: missing, damaged, or with all of its boxes outside.
        pixels: the resized images, by `retinamask.training.pixel_cache.Pixels.read`.
        canvas_wh: width and height of the network's input.
        boxes: an array ``(M, 4)`` of ``float32`` for each image, in its resized pixels, clipped to it.
        labels: an array ``(M,)`` of ``int32`` class ids for each image.

    Raises:
        AnnotationError: a class is unknown, or not one image can be used.
        PixelCacheError: no room for the pixels.
    """

    def __init__(self, table: pd.DataFrame, folder: str | Path, detector, cache: str = "auto"):
        check_classes(table, detector.classes, "the training table")
        distribution.strategy()  # with several machines before TensorFlow is used for anything, and pixels are tensors
        self.table, self.detector = table, detector
        self.pixels = open_pixels(folder, image_paths(table), detector.scale, cache)
        self.boxes: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        rows, outside, kept = dict(iter(objects(table).groupby("image_path"))), [], []
        pixels = self.pixels
        for path, size_wh, scale in zip(pixels.paths, pixels.original_sizes_wh, pixels.scales, strict=True):
            written = rows[path][BOX_COLUMNS].to_numpy(float) if path in rows else np.empty((0, 4))
            inside = clip(written, size_wh)
            stays = areas(inside) > 0
            for box, remains in zip(written, stays, strict=True):
                if reach_outside(box[None], size_wh)[0] > 0:
                    what = "is cut at the edge of" if remains else "is left out: it lies outside"
                    log.warning("%s: box %s %s the image of %s", path, box.tolist(), what, size_wh)
            kept.append(path not in rows or bool(stays.any()))
            if kept[-1]:
                names = rows[path]["class_name"] if path in rows else pd.Series([], dtype=object)
                self.boxes.append((inside[stays] * scale).astype(np.float32))
                self.labels.append(names.map(detector.classes).to_numpy(np.int32)[stays])
            else:
                outside.append(f"{path}: all of its boxes lie outside the image of {size_wh[0]} x {size_wh[1]} pixels")
        self.pixels.keep(kept)
        self.paths, self.unusable = self.pixels.paths, self.pixels.unusable + outside
        for message in self.unusable:
            log.warning("left out of training: %s", message)
        if not self.paths:
            listed = "\n".join(self.unusable[:20])
            raise AnnotationError(f"none of the images below {folder} can be used:\n{listed}")
        self.canvas_wh: tuple[int, int] = detector.canvas_wh(self.pixels.sizes_wh)

    def __len__(self) -> int:
        return len(self.paths)

    def summary(self) -> str:
        """Say, a line each, what there is to learn: images, boxes, those that training cannot use, empty classes.

        Raises:
            TrainingError: there is nothing to learn.
        """
        detector, labels = self.detector, np.concatenate(self.labels)
        counts = {name: int(np.count_nonzero(labels == number)) for name, number in detector.classes.items()}
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        if not len(labels):
            raise TrainingError(f"nothing to learn: none of the {len(self)} images has a box that lies inside it")
        if detector.classifies:
            lines = [f"learning from {len(self)} images: {listed}"]
        else:
            empty = sum(not len(each) for each in self.labels)
            what = f"{len(self)} images, {empty} of them without a box, and {len(labels)} boxes: {listed}"
            of_image = np.repeat(np.arange(len(self)), list(map(len, self.boxes)))
            sizes_wh = np.array(self.pixels.sizes_wh)[of_image]
            reached = int(np.count_nonzero(detector.reached(np.concatenate(self.boxes), of_image, sizes_wh)))
            side = f"{self.canvas_wh[0]} x {self.canvas_wh[1]} pixels"
            figure = f"every box reaches an anchor at {side}"
            if reached < len(labels):
                figure = f"{reached} of {len(labels)} boxes can be learnt at {side}; the rest {detector.unreached}"
            if not reached:
                raise TrainingError(f"nothing to learn: {figure}")
            lines = [f"learning from {what}", figure]
        if self.unusable:
            lines.append(f"{len(self.unusable)} image(s) left out, named above")
        if absent := [name for name, count in counts.items() if not count]:
            what = "images" if detector.classifies else "boxes"
            lines.append(f"nothing to learn for {', '.join(absent)}: the training table has no {what} of it")
        return "\n".join(lines)
