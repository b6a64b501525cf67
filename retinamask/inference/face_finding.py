"""The base class of face detectors: thresholds, suppression, tiles of large images, and errors that name files."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from retinamask.dataset import boxes
from retinamask.inference import tiles
from retinamask.inference.face_model_files import FaceModelError
from retinamask.inference.suppression import non_maximum

Found = tuple[np.ndarray, np.ndarray]
"""Boxes ``(N, 4)`` in pixels of the image and scores ``(N,)`` of 0 to 1, most confident first."""

_SURE = 0.5  # the score from which a face counts for the rule of tiling


class FaceDetector:
    """Find faces in images; a subclass has ``look`` at one image, which may be a tile of a larger one.

    Attributes:
        name: as `face_detector` knows it.
        network_side: pixels to which the longer side of an image is shrunk; ``None`` if it is not.
        least_in_network: side in pixels of the smallest faces that the network finds in its input.
    """

    name: str
    network_side: int | None = None
    least_in_network = 0.0

    def __init__(self, score_threshold: float = 0.1, nms_threshold: float = 0.4, tiling: str = "never"):
        """Set what all detectors take.

        Args:
            score_threshold: weaker boxes are dropped, 0 to 1.
            nms_threshold: of two boxes that overlap more than this (IoU) the weaker goes, 0 to 1.
            tiling: ``always``, ``never``, or ``auto``, which asks `tiles.faces_would_vanish`. Images larger than a tile
                are then searched in tiles too, besides the whole.

        Raises:
            ValueError: an impossible option.
        """
        for name, threshold in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
            if not 0 < threshold < 1:
                raise ValueError(f"{name} of {self.name} is {threshold}, expected more than 0 and less than 1")
        if tiling not in tiles.TILING:
            raise ValueError(f"tiling is {tiling!r}, expected one of: {', '.join(tiles.TILING)}")
        if tiling != "never" and not self.network_side:
            raise ValueError(f"{self.name} searches every pixel; tiling has to be never, found {tiling!r}")
        self.score_threshold, self.nms_threshold, self.tiling = score_threshold, nms_threshold, tiling

    def __call__(self, image_rgb: np.ndarray) -> Found:
        """Find faces in one image."""
        if image_rgb.dtype != np.uint8 or image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or not image_rgb.size:
            raise ValueError(
                f"an image is {image_rgb.dtype} of shape {image_rgb.shape}, expected uint8 of (height, width, 3)"
            )
        found = self._checked(image_rgb)
        if self.tiling != "never" and self._wants_tiles(image_rgb, found):
            tile = tiles.tile_side(image_rgb.shape[1::-1], self.network_side)
            in_tiles = tiles.find_in_tiles(self._checked, image_rgb, tile, self.nms_threshold)
            found = tiles.merge(*map(list, zip(found, in_tiles, strict=True)), self.nms_threshold)
        return found

    def look(self, image_rgb: np.ndarray) -> Found:
        """Return boxes and scores as the detector gives them; they may be weak, overlap and reach outside."""
        raise NotImplementedError

    def _checked(self, image_rgb: np.ndarray) -> Found:
        """Return what `look` gives, clipped, strong enough and suppressed."""
        boxes_xyxy, scores = self.look(image_rgb)
        boxes_xyxy, scores = boxes.clip(boxes_xyxy, image_rgb.shape[1::-1]), np.asarray(scores, float).reshape(-1)
        keep = (scores >= self.score_threshold) & (boxes.areas(boxes_xyxy) > 0)
        boxes_xyxy, scores = boxes_xyxy[keep], np.clip(scores[keep], 0, 1)
        kept = non_maximum(boxes_xyxy, scores, self.nms_threshold)
        return boxes_xyxy[kept], scores[kept]

    def _wants_tiles(self, image_rgb: np.ndarray, found: Found) -> bool:
        size_wh = image_rgb.shape[1::-1]
        sure = found[0][found[1] >= _SURE]
        return max(size_wh) > self.network_side and (
            self.tiling == "always" or tiles.faces_would_vanish(size_wh, sure, self.network_side, self.least_in_network)
        )


def corners(boxes_xywh: np.ndarray) -> np.ndarray:
    """Convert left, top, width and height to ``xyxy``."""
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:4]], axis=1)


@contextlib.contextmanager
def loading(*paths: Path) -> Iterator[None]:
    """Turn OpenCV's error on files that it cannot load into one that names them."""
    try:
        yield
    except FaceModelError:
        raise
    except (cv2.error, SystemError, ValueError) as error:  # SystemError: how its cascades fail
        listed = " with ".join(map(str, paths))
        reason = " ".join(str(error).split())[:200]
        raise FaceModelError(
            f"{listed}: OpenCV {cv2.__version__} cannot use it ({reason}); it is cut short, damaged or of "
            "another kind, fetch it again"
        ) from None
