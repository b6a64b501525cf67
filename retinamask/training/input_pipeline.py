"""From the table to batches: images decoded and resized once, augmented, with anchor targets.

Sits above `dataset` and `detectors`; `train` draws its batches from here.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from retinamask.dataset import images
from retinamask.dataset.annotations import BOX_COLUMNS, AnnotationError, image_paths, objects
from retinamask.dataset.boxes import areas, clip, reach_outside

log = logging.getLogger(__name__)

CACHE_BYTES = 2_000_000_000  # resized images kept in memory; further ones are decoded again each time


class Examples:
    """The usable images of a table with their boxes and class ids, in network-input pixels.

    Attributes:
        paths: image paths as in the table, without unusable ones.
        unusable: one message for each image that was left out because it is missing or damaged.
    """

    def __init__(self, table: pd.DataFrame, folder: str | Path, detector):
        self.folder = Path(folder)
        self.detector = detector
        self._cache: dict[str, np.ndarray] = {}
        self._cached_bytes = 0
        self.paths, self._scales, self._sizes, self.unusable = [], {}, {}, []
        self._find_usable(image_paths(table))
        rows = {path: group for path, group in objects(table).groupby("image_path") if path in self._sizes}
        self._objects = {path: self._clipped(group, self._sizes[path]) for path, group in rows.items()}
        if not self.paths:
            listed = "\n".join(self.unusable[:20])
            raise AnnotationError(f"none of the images below {folder} can be read:\n{listed}")

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One example: resized ``uint8`` RGB, boxes ``(M, 4)`` in its pixels, class ids ``(M,)``."""
        boxes, labels = self._objects.get(path, (np.zeros((0, 4)), np.zeros(0, int)))
        return self._image(path), boxes * self._scales[path], labels

    def _clipped(self, rows: pd.DataFrame, size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """An image's boxes ``(M, 4)``, clipped to it, and class ids; what reaches outside is logged."""
        written = rows[BOX_COLUMNS].to_numpy(float)
        for box in written[reach_outside(written, size_wh) > 0]:
            log.warning("%s: box %s reaches outside the image of %s", rows["image_path"].iloc[0], box.tolist(), size_wh)
        inside = clip(written, size_wh)
        keep = areas(inside) > 0
        return inside[keep], rows["class_name"].map(self.detector.classes).to_numpy(int)[keep]

    def _image(self, path: str) -> np.ndarray:
        image = self._cache.get(path)
        if image is None:
            image = images.resize(images.read_image(self.folder / path), self._scales[path])
            if self._cached_bytes + image.nbytes <= CACHE_BYTES:
                self._cache[path] = image
                self._cached_bytes += image.nbytes
        return image

    def _find_usable(self, paths: list[str]) -> None:
        """Decode every image once, so that a damaged one is found now and not in mid-epoch."""

        def size_or_error(path: str):
            try:
                return images.check_image(self.folder / path)[0]
            except images.ImageError as error:
                return error

        with ThreadPoolExecutor() as pool:
            for path, found in zip(paths, pool.map(size_or_error, paths), strict=True):
                if isinstance(found, images.ImageError):
                    self.unusable.append(str(found))
                else:
                    self.paths.append(path)
                    self._scales[path] = self.detector.scale(found)
                    self._sizes[path] = found


def batches(
    examples: Examples, batch_size: int, generator: np.random.Generator, augment: bool = True
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Endless batches for ``network.fit``: every image once in a random order, then again.

    Args:
        examples: what to draw from.
        batch_size: images in a batch.
        generator: decides order and augmentation; the same seed gives the same batches.
        augment: flip left to right in half the cases and vary brightness and contrast by up to a fifth.

    Yields:
        Network input ``(batch_size, side, side, 3)`` and targets by the name of the output.
    """
    queue: list[str] = []
    while True:
        while len(queue) < batch_size:
            queue += [examples.paths[i] for i in generator.permutation(len(examples))]
        drawn, queue = queue[:batch_size], queue[batch_size:]
        loaded = [examples.load(path) for path in drawn]
        if augment:
            loaded = [augmented(*example, generator) for example in loaded]
        yield with_targets(examples.detector, loaded)


def with_targets(detector, loaded: list[tuple]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Lay examples into one batch and compute what the network should answer."""
    shown, boxes, labels = zip(*loaded, strict=True)
    batch = detector.batch(list(shown))
    sizes_wh = [image.shape[1::-1] for image in shown]
    targets = detector.targets(batch, sizes_wh, list(boxes), list(labels))
    return batch, dict(zip(detector.losses(), targets, strict=True))


def augmented(
    image_rgb: np.ndarray, boxes_xyxy: np.ndarray, labels: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One example flipped in half the cases, its brightness and contrast varied; new arrays."""
    if generator.random() < 0.5:
        image_rgb = image_rgb[:, ::-1]
        width = image_rgb.shape[1]
        boxes_xyxy = np.stack(
            [width - boxes_xyxy[:, 2], boxes_xyxy[:, 1], width - boxes_xyxy[:, 0], boxes_xyxy[:, 3]], 1
        )
    contrast, brightness = generator.uniform(0.8, 1.2), generator.uniform(-25, 25)
    varied = np.clip((image_rgb.astype(np.float32) - 128) * contrast + 128 + brightness, 0, 255)
    return varied.astype(np.uint8), boxes_xyxy, labels
