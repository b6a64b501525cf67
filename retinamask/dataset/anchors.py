"""How well anchors fit boxes, computed without TensorFlow, and a search for anchors that fit better.

Arithmetic only; the audit makes findings of it. keras-retinanet trains an anchor on a box when they overlap
by an IoU of at least 0.5; it never forces a match, so a box that no anchor reaches is never learnt.
See keras_retinanet/utils/anchors.py in https://github.com/fizyr/keras-retinanet.
"""

import functools
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

POSITIVE_OVERLAP = 0.5  # keras-retinanet's own


@dataclass(frozen=True)
class Anchors:
    """Anchor parameters as keras-retinanet names them; the defaults are its own.

    ``sizes`` and ``strides`` are pixels of the network input, one each for the pyramid levels P3 to P7; ``ratios``
    are height / width; every ratio comes with every scale.
    """

    sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))

    def shapes_wh(self, size: float) -> np.ndarray:
        """Widths and heights of the anchors of one level, shape ``(ratios x scales, 2)``."""
        ratios = np.repeat(np.array(self.ratios, dtype=float), len(self.scales))
        sides = size * np.tile(np.array(self.scales, dtype=float), len(self.ratios))
        widths = sides / np.sqrt(ratios)
        return np.stack([widths, widths * ratios], axis=1)

    def on_canvas(self, canvas_wh: tuple[int, int]) -> np.ndarray:
        """All anchors on an input of this size in pixels, ``float32`` ``(A, 4)`` xyxy, in keras-retinanet's order."""
        return _on_canvas(self, *canvas_wh)

    def config_text(self) -> str:
        """The section of keras-retinanet's config file, for its ``--config``."""
        lines = ["[anchor_parameters]"]
        for name in ("sizes", "strides", "ratios", "scales"):
            lines.append(f"{name} = " + " ".join(f"{value:g}" for value in getattr(self, name)))
        return "\n".join(lines) + "\n"


@functools.lru_cache(8)
def _on_canvas(anchors: Anchors, width: int, height: int) -> np.ndarray:
    levels = []
    for size, stride in zip(anchors.sizes, anchors.strides, strict=True):
        halves_wh = anchors.shapes_wh(size) / 2
        cells = np.meshgrid(np.arange(math.ceil(width / stride)), np.arange(math.ceil(height / stride)))
        centres = (np.stack(cells, axis=-1).reshape(-1, 1, 2) + 0.5) * stride
        levels.append(np.concatenate([centres - halves_wh, centres + halves_wh], axis=2).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def best_overlaps(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray, anchors: Anchors) -> np.ndarray:
    """The IoU of each box with the anchor that fits it best, on the real grid of its image.

    For an anchor of one shape the IoU only falls as its centre moves away from the box's, in either direction. So
    the nearest place of the grid is the best one, and the whole grid need not be laid out.

    Args:
        boxes_xyxy: shape ``(N, 4)``, pixels of the resized image.
        sizes_wh: shape ``(N, 2)``, width and height of the resized image of each box. Anchors centred outside it
            are left out, as keras-retinanet leaves them out of training.
        anchors: the anchors.

    Returns:
        Shape ``(N,)``, 0 to 1.
    """
    return _shape_overlaps(boxes_xyxy, sizes_wh, anchors).max(axis=1, initial=0)


def coverage(overlaps: np.ndarray) -> float:
    """The share of boxes that some anchor trains on, 0 to 1; 1 where there are no boxes."""
    return float(np.mean(np.asarray(overlaps) >= POSITIVE_OVERLAP)) if len(overlaps) else 1.0


def suggest(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray, anchors: Anchors, most_boxes: int = 500) -> Anchors:
    """Ratios and scales that cover more boxes; as many as before, so that trained weights still fit.

    Sizes and strides stay, they belong to the network. Ratios and scales are chosen in turn, each time the best set
    out of all on a grid, until neither gets better: more boxes covered, then a larger mean IoU. The same input
    gives the same answer.

    Args:
        boxes_xyxy, sizes_wh: as in `best_overlaps`.
        anchors: where the search starts.
        most_boxes: so many boxes, evenly spread over the sizes, are searched with.
    """
    order = np.argsort(np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1), kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(most_boxes, len(order))).astype(int))]
    every = replace(anchors, ratios=tuple(_RATIOS), scales=tuple(_SCALES))
    table = _shape_overlaps(boxes_xyxy[chosen], sizes_wh[chosen], every).reshape(-1, len(_RATIOS), len(_SCALES))
    table = table.transpose(2, 1, 0).astype(np.float32, "C")  # (scales, ratios, N)
    best_value, best = -1.0, anchors
    for first in itertools.combinations(range(len(_RATIOS)), len(anchors.ratios)):
        steps = set(np.diff(first).tolist())
        if len(steps) > 1 or not steps <= {2, 4}:  # a few evenly spaced ones will do to start from
            continue
        ratios, count = first, len(anchors.scales)
        value, scales = _best_set(table[:, list(ratios)].max(axis=1), count)
        while True:  # scales for the ratios, ratios for the scales and so on, while the value grows
            _, new_ratios = _best_set(table[list(scales)].max(axis=0), len(ratios))
            new_value, new_scales = _best_set(table[:, list(new_ratios)].max(axis=1), count)
            if new_value <= value:
                break
            value, scales, ratios = new_value, new_scales, new_ratios
        if value > best_value:
            best_value = value
            best = replace(anchors, ratios=_rounded(_RATIOS[list(ratios)]), scales=_rounded(_SCALES[list(scales)]))
    return best


_SCALES = 2.0 ** (np.arange(-12, 5) / 4)  # 0.125 to 2
_RATIOS = 2.0 ** (np.arange(-8, 9) / 4)  # 0.25 to 4


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 3) for value in values)


def _best_set(overlaps: np.ndarray, count: int) -> tuple[float, tuple[int, ...]]:
    """The ``count`` rows of ``overlaps`` (rows, N) whose maximum covers most boxes, then has the largest mean."""
    sets = np.array(list(itertools.combinations(range(len(overlaps)), count)))  # (sets, count)
    highest = overlaps[sets].max(axis=1)  # (sets, N)
    values = np.count_nonzero(highest >= POSITIVE_OVERLAP, axis=1) + highest.mean(axis=1)  # a mean only breaks ties
    best = int(np.argmax(values))
    return float(values[best]), tuple(sets[best].tolist())


def _shape_overlaps(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray, anchors: Anchors) -> np.ndarray:
    """Best IoU over the levels of each box and shape of anchor, ``(N, ratios x scales)``."""
    best = np.zeros((len(boxes_xyxy), len(anchors.ratios) * len(anchors.scales)))
    for size, stride in zip(anchors.sizes, anchors.strides, strict=True):
        np.maximum(best, _level_overlaps(boxes_xyxy, sizes_wh, anchors.shapes_wh(size), stride), out=best)
    return best


def _level_overlaps(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray, shapes_wh: np.ndarray, stride: int) -> np.ndarray:
    """IoU of each box with the nearest anchor of each shape of one level, shape ``(N, shapes)``."""
    boxes_xyxy, sizes_wh = np.asarray(boxes_xyxy, dtype=float), np.asarray(sizes_wh, dtype=float)
    last = np.ceil(sizes_wh / stride - 0.5) - 1  # centres stand at (i + 0.5) stride, inside the image
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    nearest = (np.clip(np.round(centres / stride - 0.5), 0, np.maximum(last, 0)) + 0.5) * stride  # (N, 2)
    half = shapes_wh[None] / 2  # (1, shapes, 2)
    low = np.maximum(boxes_xyxy[:, None, :2], nearest[:, None] - half)
    high = np.minimum(boxes_xyxy[:, None, 2:], nearest[:, None] + half)
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)[:, None] + shapes_wh.prod(axis=1) - shared
    return np.where((last >= 0).all(axis=1)[:, None], shared / union, 0)
