"""Box arithmetic: overlap, clipping and conversion, in pixels.

The lowest layer: NumPy only, no files. A box array is always ``xyxy``: shape ``(N, 4)``, rows
``(x1, y1, x2, y2)``, half-open edges with the origin at the image's top left corner, so that the
width is ``x2 - x1``.
"""

import numpy as np


def areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Return the areas of boxes, shape ``(N,)``, in square pixels; 0 where a box is inverted."""
    boxes_xyxy = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4)
    return np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None).prod(axis=1)


def intersections(boxes_xyxy: np.ndarray, others_xyxy: np.ndarray) -> np.ndarray:
    """Return the area that each of ``(N, 4)`` boxes shares with each of ``(M, 4)`` others, ``(N, M)`` square pixels."""
    x1, y1, x2, y2 = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4).T[..., None]
    left, top, right, bottom = np.asarray(others_xyxy, dtype=float).reshape(-1, 4).T
    # Edge by edge, which is several times as fast as on arrays (N, M, 2).
    widths = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
    return widths * np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0)


def overlaps(boxes_xyxy: np.ndarray, others_xyxy: np.ndarray) -> np.ndarray:
    """Return the intersection over union (IoU) of each box with each other box.

    Args:
        boxes_xyxy: shape ``(N, 4)``.
        others_xyxy: shape ``(M, 4)``, in the same pixels.

    Returns:
        Shape ``(N, M)``, 0 to 1. Two boxes of zero area overlap by 0.
    """
    shared = intersections(boxes_xyxy, others_xyxy)
    union = areas(boxes_xyxy)[:, None] + areas(others_xyxy)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def clip(boxes_xyxy: np.ndarray, size_wh: tuple[float, float]) -> np.ndarray:
    """Cut boxes to an image of ``size_wh`` pixels; a new array of shape ``(N, 4)``."""
    width, height = size_wh
    boxes_xyxy = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4)
    return np.clip(boxes_xyxy, 0, [width, height, width, height])


def whole_pixels(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Round edges to whole pixels, halves up: a box of one pixel or more never vanishes."""
    return np.floor(boxes_xyxy + 0.5)


def reach_outside(boxes_xyxy: np.ndarray, size_wh: tuple[float, float]) -> np.ndarray:
    """Return how many pixels each box reaches past the image at its worst edge, shape ``(N,)``, 0 inside."""
    boxes_xyxy = np.asarray(boxes_xyxy, dtype=float).reshape(-1, 4)
    return np.abs(boxes_xyxy - clip(boxes_xyxy, size_wh)).max(axis=1, initial=0)
