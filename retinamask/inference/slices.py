"""Small faces in large images with any detector of ours: the whole image, and its tiles one by one."""

from collections.abc import Sequence

import numpy as np

from retinamask.inference import tiles
from retinamask.inference.detect import Detections, Predictor
from retinamask.inference.suppression import non_maximum


class Slices:
    """A `Predictor` that looks at images larger than its network's input a second time, in tiles.

    Tiles overlap by a quarter, see `retinamask.inference.tiles`; faces that are larger than the overlap are found in
    the whole image. As the network resizes a tile to its input, smaller ones show smaller faces, and take longer.

    Args:
        tile: side of a tile in pixels; that of the network's input if left out, but no less than a quarter of the
            image's longer side.
    """

    def __init__(self, predictor: Predictor, tile: int | None = None):
        if tile is not None and tile < 32:
            raise ValueError(f"slices is {tile}, expected a side of tiles of at least 32 pixels")
        self.predictor, self.tile = predictor, tile
        self.class_names, self.concurrent, self.many = predictor.class_names, predictor.concurrent, predictor.many

    def __call__(
        self, images_rgb: Sequence[np.ndarray], score_threshold: float = 0.05, suppress: str = "any_class"
    ) -> list[Detections]:
        """Detect as the predictor does."""
        options = score_threshold, suppress
        found = self.predictor(images_rgb, *options)
        return [self._with_tiles(image, whole, *options) for image, whole in zip(images_rgb, found, strict=True)]

    def _with_tiles(
        self, image_rgb: np.ndarray, whole: Detections, score_threshold: float, suppress: str
    ) -> Detections:
        """Add to what was found in the whole of an image what its tiles show, without repetitions."""
        size_wh = image_rgb.shape[1::-1]
        side = self.tile or tiles.tile_side(size_wh, self.predictor.detector.settings.image_size)
        if max(size_wh) <= side:
            return whole
        best_scores = [whole.best_score]

        def find(tiles_rgb: list[np.ndarray]) -> list[tuple[np.ndarray, ...]]:
            in_tiles = self.predictor(tiles_rgb, score_threshold, suppress)
            best_scores.extend(found.best_score for found in in_tiles)
            return [found[:3] for found in in_tiles]

        found = [whole[:3], *tiles.find_in_tiles(find, image_rgb, side)]
        boxes_xyxy, scores, labels = map(np.concatenate, zip(*found, strict=True))
        faces = np.zeros_like(labels) if suppress == "any_class" else labels
        kept = []
        for face in np.unique(faces):
            of_it = np.flatnonzero(faces == face)
            options = self.predictor.nms_threshold, len(of_it), tiles.INSIDE
            kept.append(of_it[non_maximum(boxes_xyxy[of_it], scores[of_it], *options)])
        order = np.concatenate([np.empty(0, int), *kept])
        order = order[np.argsort(-scores[order], kind="stable")]
        return Detections(boxes_xyxy[order], scores[order], labels[order], max(best_scores))
