"""From the boxes and class scores of all anchors to detections: threshold, non-maximum suppression, the best of them.

NumPy only: the same for every detector, and for a network that runs outside TensorFlow. It gives what keras-retinanet's
``FilterDetections`` gives, but nothing of it is built into a network.
"""

import numpy as np

SUPPRESS = ("any_class", "per_class")
"""``any_class``: a face has one box, of its best class; keras-retinanet's ``class_specific_filter=False``.
``per_class``: boxes of different classes never suppress each other, as COCO figures count them."""

_CHUNK = 64  # candidates that are compared with each other and with all kept boxes at once
_SORTED = 8 * _CHUNK  # candidates that are sorted at once: mostly the first are enough


def filter_detections(
    boxes_xyxy: np.ndarray,
    class_scores: np.ndarray,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    suppress: str = "any_class",
    max_detections: int = 300,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Filter the boxes of one image.

    Args:
        boxes_xyxy: shape ``(A, 4)``.
        class_scores: shape ``(A, C)``, 0 to 1.
        score_threshold: keep scores at or above it.
        nms_threshold: of two boxes that overlap more than this (IoU) the weaker goes.
        suppress: one of `SUPPRESS`.
        max_detections: keep the best so many, of all classes together.

    Returns:
        Boxes ``(N, 4)``, scores ``(N,)`` and labels ``int (N,)``, the most confident first.

    Raises:
        ValueError: ``suppress`` is none of `SUPPRESS`.
    """
    if suppress not in SUPPRESS:
        raise ValueError(f"suppress is {suppress!r}, expected {' or '.join(SUPPRESS)}")
    if suppress == "any_class":
        best = class_scores.argmax(axis=1)
        columns = [(best, class_scores[np.arange(len(best)), best])]
    else:
        columns = [(np.full(len(scores), label), scores) for label, scores in enumerate(class_scores.T)]
    places, found, named = [], [], []
    for labels, scores in columns:
        strong = np.flatnonzero(scores >= score_threshold)
        kept = strong[non_maximum(boxes_xyxy[strong], scores[strong], nms_threshold, max_detections)]
        places.append(kept)
        found.append(scores[kept])
        named.append(labels[kept])
    places, scores, labels = np.concatenate(places), np.concatenate(found), np.concatenate(named)
    order = np.argsort(-scores, kind="stable")[:max_detections]
    return boxes_xyxy[places[order]], scores[order], labels[order]


def non_maximum(
    boxes_xyxy: np.ndarray, scores: np.ndarray, nms_threshold: float, most: int = 2000, inside: float = 1.0
) -> np.ndarray:
    """Suppress greedily: the most confident box stays, what overlaps it goes, and so on.

    Args:
        boxes_xyxy: shape ``(N, 4)``.
        scores: shape ``(N,)``.
        nms_threshold: a box goes that overlaps a stronger one more than this (IoU).
        most: stop when so many are kept.
        inside: a box also goes if more than this share of the smaller of the two is shared; 1 turns it off.

    Returns:
        Indices of what stays, the most confident first; of equal scores the first.
    """
    boxes_xyxy, scores = np.asarray(boxes_xyxy).reshape(-1, 4), np.asarray(scores)
    boxes_xyxy = boxes_xyxy.astype(np.result_type(boxes_xyxy, np.float32), copy=False)  # a network's stay float32
    kept, waiting = np.empty(0, np.int64), np.flatnonzero(~np.isnan(scores))
    seen = np.empty((5, 0), boxes_xyxy.dtype)  # edges and areas of those kept
    while len(waiting) and len(kept) < most:
        weakest = np.partition(scores[waiting], -_SORTED)[-_SORTED] if len(waiting) > _SORTED else -np.inf
        strong = scores[waiting] >= weakest
        order = waiting[strong][np.argsort(-scores[waiting[strong]], kind="stable")]
        waiting = waiting[~strong]
        # A network that has learnt little gives inverted boxes; TensorFlow takes them for those between their corners.
        low, high = np.sort(boxes_xyxy[order].reshape(-1, 2, 2), axis=1).transpose(1, 2, 0)
        sides = np.vstack([low, high, [(high - low).prod(axis=0)]])
        for start in range(0, len(order), _CHUNK):
            left, chunk = order[start : start + _CHUNK], sides[:, start : start + _CHUNK]
            if len(kept):
                free = ~_same(chunk, seen, nms_threshold, inside).any(axis=1)
                left, chunk = left[free], chunk[:, free]
            same = np.triu(_same(chunk, chunk, nms_threshold, inside), 1)
            alive = np.ones(len(left), bool)
            for index in np.flatnonzero(same.any(axis=1)):
                if alive[index]:
                    alive &= ~same[index]
            kept, seen = np.append(kept, left[alive]), np.hstack([seen, chunk[:, alive]])
            if len(kept) >= most:
                break
    return kept[:most]


def _same(one: np.ndarray, other: np.ndarray, nms_threshold: float, inside: float) -> np.ndarray:
    """Tell which boxes are of one face, ``bool (N, M)``, from edges and areas ``(5, N)`` and ``(5, M)``."""
    x1, y1, x2, y2, area = one[..., None]
    left, top, right, bottom, other_area = other
    shared = np.maximum(np.minimum(x2, right) - np.maximum(x1, left), 0)
    shared *= np.maximum(np.minimum(y2, bottom) - np.maximum(y1, top), 0)
    # Without a division: a union of 0 overlaps nothing.
    same = shared > nms_threshold * (area + other_area - shared)
    return same if inside >= 1 else same | (shared > inside * np.minimum(area, other_area))
