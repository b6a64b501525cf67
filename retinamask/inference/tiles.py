"""Large images in overlapping tiles, for networks that shrink what they see to a few hundred pixels; NumPy only.

A face that is whole in some tile is found there. What a tile's edge cuts is dropped, because the overlap shows it whole
in the next tile, or the whole image does if it is larger than that.
"""

from collections.abc import Callable

import numpy as np

from retinamask.dataset import boxes

TILING = ("auto", "always", "never")

Finder = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From ``uint8`` RGB to boxes ``(N, 4)`` in its pixels and scores ``(N,)``."""

_MOST = 2000  # each is compared with each; a network of 22,743 boxes that are all strong would take gigabytes
_TILES_ALONG = 4  # about as many along the longer side at most, for the time that it takes
_NEAR = 1.5
_OVERLAP = 0.25  # of a tile's side, with the next tile
_INSIDE = 0.7  # share of a box within a stronger one from which it is taken for a part of the same face
_EDGE = 0.01  # of a tile's side: how near to a cut a box counts as cut


def suppress(boxes_xyxy: np.ndarray, scores: np.ndarray, nms_threshold: float, inside: float = 1.01) -> np.ndarray:
    """Greedy non-maximum suppression.

    Args:
        boxes_xyxy: shape ``(N, 4)``.
        scores: shape ``(N,)``.
        nms_threshold: a box goes that overlaps a stronger one more than this (IoU).
        inside: it also goes if the intersection has more than this share of the smaller of the two; off above 1.

    Returns:
        Indices of what stays, the best score first; of more than 2000 boxes the strongest 2000 are looked at.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")[:_MOST]
    boxes_xyxy = np.asarray(boxes_xyxy, float).reshape(-1, 4)[order]
    shared = _intersections(boxes_xyxy)
    sizes = boxes.areas(boxes_xyxy)
    smaller = np.minimum(sizes[:, None], sizes[None, :])
    part = np.divide(shared, smaller, out=np.zeros_like(shared), where=smaller > 0)
    same = (boxes.overlaps(boxes_xyxy, boxes_xyxy) > nms_threshold) | (part > inside)
    kept: list[int] = []
    for index in range(len(order)):
        if not same[index, kept].any():
            kept.append(index)
    return order[kept]


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

    It does if nothing was found, or the smallest face that was found is shown to the network at less than 1.5 times the
    least size that it finds: others may be just too small.
    """
    if not len(boxes_xyxy):
        return True
    sides = np.sqrt(boxes.areas(boxes_xyxy))
    return bool(sides.min() * network_side / max(size_wh) < _NEAR * least_in_network)


def tile_side(size_wh: tuple[int, int], network_side: int) -> int:
    """Return the side of an image's tiles: what the network takes in, but no less than a quarter of the longer side."""
    return max(network_side, -(-max(size_wh) // _TILES_ALONG))


def find_in_tiles(find: Finder, image_rgb: np.ndarray, tile: int, nms_threshold: float) -> tuple[np.ndarray, ...]:
    """Find faces in all tiles, in pixels of the whole image; those that a cut goes through are left out.

    Args:
        find: finds the faces of one tile.
        image_rgb: shape ``(height, width, 3)``.
        tile: side of the square tiles in pixels; those of a smaller image are as small as it is.
        nms_threshold: as in `suppress`.

    Returns:
        Boxes ``(N, 4)`` and scores ``(N,)``.
    """
    height, width = image_rgb.shape[:2]
    found_boxes, found_scores = [np.empty((0, 4))], [np.empty(0)]
    for top in tile_corners(height, tile):
        for left in tile_corners(width, tile):
            part = image_rgb[top : top + tile, left : left + tile]
            boxes_xyxy, scores = find(part)
            whole = _not_cut(boxes_xyxy, part.shape[1::-1], (left, top), (width, height))
            found_boxes.append(boxes_xyxy[whole] + [left, top, left, top])
            found_scores.append(scores[whole])
    return merge(found_boxes, found_scores, nms_threshold)


def merge(
    boxes_xyxy: list[np.ndarray], scores: list[np.ndarray], nms_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """What several looks at one image found as one list, without those that are the same face or a part of it."""
    all_boxes, all_scores = np.concatenate(boxes_xyxy), np.concatenate(scores)
    kept = suppress(all_boxes, all_scores, nms_threshold, _INSIDE)
    return all_boxes[kept], all_scores[kept]


def _not_cut(
    boxes_xyxy: np.ndarray, tile_wh: tuple[int, int], corner_xy: tuple[int, int], size_wh: tuple[int, int]
) -> np.ndarray:
    """Return which boxes of a tile stay clear of those of its edges that are not the image's own."""
    tile_wh, corner_xy = np.array(tile_wh), np.array(corner_xy)
    near = _EDGE * tile_wh.max()
    cut_before = (boxes_xyxy[:, :2] < near) & (corner_xy > 0)
    cut_behind = (boxes_xyxy[:, 2:] > tile_wh - near) & (corner_xy + tile_wh < np.array(size_wh))
    return ~(cut_before | cut_behind).any(axis=1)


def _intersections(boxes_xyxy: np.ndarray) -> np.ndarray:
    """Areas that each two boxes share, ``(N, N)``."""
    top_left = np.maximum(boxes_xyxy[:, None, :2], boxes_xyxy[None, :, :2])
    bottom_right = np.minimum(boxes_xyxy[:, None, 2:], boxes_xyxy[None, :, 2:])
    return np.clip(bottom_right - top_left, 0, None).prod(axis=2)
