"""Anchors from a user's own boxes: k-means over widths and heights, as Darknet's ``calc_anchors`` does it.

Two shapes are as far apart as 1 - IoU of both laid on one corner; a cluster's
centre is the mean of its widths and heights. See "how to calculate anchors" in https://github.com/AlexeyAB/darknet
and section 2 of YOLO9000, https://arxiv.org/abs/1612.08242.
"""

import numpy as np

_MOST_BOXES = 5000  # drawn at random; of 100,000 that takes seconds instead of minutes, and fits no worse
_STARTS = 10  # k-means ends where it began; the best of several is kept
_MOST_STEPS = 300  # the mean is not the centre that 1 - IoU would choose, so that rarely steps go round in a circle


def suggest(sizes_wh: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Find anchors that fit boxes: the same input and seed give the same answer.

    Args:
        sizes_wh: ``(N, 2)`` widths and heights of the boxes in pixels of the network's input, above 0.
        count: how many anchors.
        seed: of the starts, which are drawn from the boxes, those that nothing fits yet more often (k-means++); and
            of the boxes that are looked at, where there are more than 5000.

    Returns:
        ``(count, 2)`` pixels, to a tenth of a pixel, by growing area.

    Raises:
        ValueError: not so many different boxes, or sizes that are none.
    """
    sizes_wh = _checked(np.round(sizes_wh, 3))  # the same share of images of two sizes may differ in the last bit
    generator = np.random.default_rng(seed)
    if len(sizes_wh) > _MOST_BOXES:
        sizes_wh = sizes_wh[generator.choice(len(sizes_wh), _MOST_BOXES, replace=False)]
    different = len(np.unique(sizes_wh, axis=0))
    if different < count:
        raise ValueError(
            f"found {different} different box size(s), expected at least {count} for as many anchors; "
            "add boxes, or keep the published anchors"
        )
    found = [_clusters(sizes_wh, count, generator) for _ in range(_STARTS)]
    best = max(found, key=lambda anchors_wh: mean_best_overlap(sizes_wh, anchors_wh))
    rounded = np.maximum(np.round(best, 1), 0.1)
    return rounded[np.argsort(rounded.prod(axis=1), kind="stable")]


def mean_best_overlap(sizes_wh: np.ndarray, anchors_wh: np.ndarray) -> float:
    """Return the IoU of a box with its best anchor, all on one corner: the mean over ``(N, 2)`` boxes, 0 to 1.

    Darknet calls it "avg IoU".
    """
    return float(_overlaps(_checked(sizes_wh), np.asarray(anchors_wh, dtype=float)).max(axis=1).mean())


def _checked(sizes_wh: np.ndarray) -> np.ndarray:
    sizes_wh = np.asarray(sizes_wh, dtype=float)
    if sizes_wh.ndim != 2 or sizes_wh.shape[1] != 2 or not len(sizes_wh):
        raise ValueError(f"sizes_wh has shape {sizes_wh.shape}, expected (N, 2) with N of 1 or more")
    if not (np.isfinite(sizes_wh).all() and (sizes_wh > 0).all()):
        raise ValueError("sizes_wh has a width or height that is not above 0; remove empty boxes")
    return sizes_wh


def _overlaps(sizes_wh: np.ndarray, anchors_wh: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes and anchors on one corner, ``(N, anchors)``."""
    shared = np.minimum(sizes_wh[:, None], anchors_wh[None]).prod(axis=2)
    return shared / (sizes_wh.prod(axis=1)[:, None] + anchors_wh.prod(axis=1) - shared)


def _clusters(sizes_wh: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Run k-means from a k-means++ start; a cluster that loses its last box stays where it was."""
    chosen = [int(generator.integers(len(sizes_wh)))]
    nearest = np.zeros(len(sizes_wh))  # IoU with the best of those chosen
    while len(chosen) < count:
        nearest = np.maximum(nearest, _overlaps(sizes_wh, sizes_wh[chosen[-1:]])[:, 0])
        distances = np.where(nearest > 1 - 1e-12, 0, 1 - nearest)  # one that is chosen is not chosen again
        chosen.append(int(generator.choice(len(sizes_wh), p=distances / distances.sum())))
    centres_wh, belongs = sizes_wh[chosen].copy(), None
    for _ in range(_MOST_STEPS):
        now = _overlaps(sizes_wh, centres_wh).argmax(axis=1)
        if belongs is not None and (now == belongs).all():
            break
        belongs = now
        sums = np.stack([np.bincount(now, sizes_wh[:, axis], count) for axis in (0, 1)], axis=1)
        counts = np.bincount(now, minlength=count)[:, None]
        centres_wh = np.where(counts, sums / np.maximum(counts, 1), centres_wh)
    return centres_wh
