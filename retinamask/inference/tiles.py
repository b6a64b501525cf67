"""Large images in overlapping tiles, for networks that shrink what they see to a few hundred pixels; NumPy only.

A face that is whole in some tile is found there. What a tile's edge cuts is dropped, because the overlap shows it whole
in the next tile, or the whole image does if it is larger than that.
"""

from collections.abc import Callable, Iterable

import numpy as np

from retinamask.dataset import boxes
from retinamask.inference.suppression import non_maximum

TILING = ("auto", "always", "never")

_AT_ONCE = 4  # tiles in a call of a network
_TILES_ALONG = 4  # about as many along the longer side at most, for the time that it takes
_NEAR = 1.5  # times the least size that a network finds
_OVERLAP = 0.25  # of a tile's side, with the next tile
INSIDE = 0.7  # share of a box within a stronger one from which it is taken for a part of the same face
_EDGE = 0.01  # of a tile's side: how near to a cut a box counts as cut


def tile_corners(length: int, tile: int) -> list[int]:
    """Return where tiles begin along a side of ``length`` pixels: evenly, overlapping by a quarter or more."""
    if length <= tile:
        return [0]
    steps = int(np.ceil((length - tile) / (tile * (1 - _OVERLAP))))
    return [round(step * (length - tile) / steps) for step in range(steps + 1)]


def faces_would_vanish(
    size_wh: tuple[int, int], boxes_xyxy: np.ndarray, network_side: int, least_in_network: float
) -> bool:
    """Decide for ``tiling="auto"`` whether an image larger than a tile needs tiles, from what was found in the whole.

    It does if nothing was found, or the network saw the smallest face near the least size: others may be too small.
    """
    smallest = np.sqrt(boxes.areas(boxes_xyxy)).min(initial=np.inf)
    return not len(boxes_xyxy) or bool(smallest * network_side / max(size_wh) < _NEAR * least_in_network)


def tile_side(size_wh: tuple[int, int], network_side: int) -> int:
    """Return the side of an image's tiles: what the network takes in, but no less than a quarter of the longer side."""
    return max(network_side, -(-max(size_wh) // _TILES_ALONG))


def cut(image_rgb: np.ndarray, tile: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give the left top corner ``(x, y)`` and the pixels of all tiles of an image, ``tile`` pixels square."""
    corners = [
        (left, top) for top in tile_corners(len(image_rgb), tile) for left in tile_corners(image_rgb.shape[1], tile)
    ]
    return [(np.array([left, top]), image_rgb[top : top + tile, left : left + tile]) for left, top in corners]


def uncut(
    boxes_xyxy: np.ndarray, corner_xy: np.ndarray, tile_wh: tuple[int, int], size_wh: tuple[int, int]
) -> np.ndarray:
    """Tell which boxes of a tile, in its pixels, lie whole in it, ``bool (N,)``: not at an edge that cuts the image."""
    near, tile_wh = _EDGE * max(tile_wh), np.array(tile_wh)
    before = (boxes_xyxy[:, :2] < near) & (corner_xy > 0)
    after = (boxes_xyxy[:, 2:] > tile_wh - near) & (corner_xy + tile_wh < size_wh)
    return ~(before | after).any(axis=1)


def find_in_tiles(
    find: Callable[[list[np.ndarray]], Iterable[tuple[np.ndarray, ...]]], image_rgb: np.ndarray, tile: int
) -> list[tuple[np.ndarray, ...]]:
    """Find faces in all tiles, ``tile`` pixels square, in pixels of the whole image; those that are cut are left out.

    ``find`` gives for each of up to four tiles what is returned for each of all: boxes ``(N, 4)``, and ``(N,)`` scores
    and whatever else.
    """
    every, parts = [], cut(image_rgb, tile)
    for start in range(0, len(parts), _AT_ONCE):
        corners_xy, pixels = zip(*parts[start : start + _AT_ONCE], strict=True)
        for corner_xy, tile_rgb, (boxes_xyxy, *others) in zip(corners_xy, pixels, find(list(pixels)), strict=True):
            whole = uncut(boxes_xyxy, corner_xy, tile_rgb.shape[1::-1], image_rgb.shape[1::-1])
            every.append((boxes_xyxy[whole] + np.tile(corner_xy, 2), *(column[whole] for column in others)))
    return every


def merge(found: Iterable[tuple[np.ndarray, np.ndarray]], nms_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Join the boxes and scores of several passes over one image, without repetitions and parts of the same face."""
    boxes_xyxy, scores = map(np.concatenate, zip(*found, strict=True))
    kept = non_maximum(boxes_xyxy, scores, nms_threshold, inside=INSIDE)
    return boxes_xyxy[kept], scores[kept]
