"""Assign boxes to cells and anchors of a head, and excuse predictions that overlap a box, in TensorFlow's graph.

The rules of AlexeyAB's Darknet, ``src/yolo_layer.c`` (https://github.com/AlexeyAB/darknet), for a whole
batch at once. Anchors and boxes are compared in pixels of the canvas, as there, also when it is larger or smaller
than in the cfg.
"""

from typing import NamedTuple

import numpy as np

from retinamask.detectors.darknet.ciou import iou

CLASS_THRESHOLD = 0.25  # probability of any class from which on a prediction that overlaps a box may be excused


class Matches(NamedTuple):
    """Where in a head each box is to be found; a place is ``(row * columns + column) * anchors + anchor``."""

    places: object  # int32 (B, M, n): one for each anchor of the head, all in the cell that the box's centre is in
    hit: object  # bool (B, M, n): whether the box is to be found there


def match(boxes_xyxy, labels, head, cells_wh, canvas_wh) -> Matches:
    """Match boxes with places of one head.

    Of the anchors of all heads the one whose shape overlaps the box's most is to find it, the first of equal ones,
    and so is every further one whose shape overlaps it by more than the head's ``iou_threshold``; both only if they
    belong to this head. Several boxes may want the same place.

    Args:
        boxes_xyxy: ``float32`` tensor ``(B, M, 4)`` in pixels of the canvas.
        labels: ``int32`` tensor ``(B, M)``; -1 marks padding.
        head: a `retinamask.detectors.darknet.cfg.Head`.
        cells_wh: columns and rows of the head, ``int32`` numbers or tensor ``(2,)``.
        canvas_wh: width and height of the canvas, ``float32``.
    """
    import tensorflow as tf

    overlaps = _shape_overlaps(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], head.all_anchors_wh)
    hit = tf.argmax(overlaps, -1)[..., None] == np.array(head.mask)
    if head.iou_threshold < 1:
        hit |= tf.gather(overlaps, head.mask, axis=-1) > head.iou_threshold
    centres = (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2
    cells = tf.cast(centres / canvas_wh * tf.cast(cells_wh, tf.float32), tf.int32)
    cells = tf.clip_by_value(cells, 0, cells_wh - 1)  # a centre on the edge of the canvas
    cell = cells[..., 1:] * cells_wh[0] + cells[..., :1]
    count = len(head.mask)
    return Matches(cell * count + tf.range(count), hit & (labels >= 0)[..., None])


def targets(matches: Matches, labels, place_count, class_count: int):
    """Return the class targets of the places of a head.

    A place that several boxes of different classes want gets all of their classes.

    Args:
        matches: of `match`, for ``labels`` ``(B, M)``.
        place_count: places of the head, ``P``.
        class_count: ``C``.

    Returns:
        ``float32`` tensor ``(B, P, C)`` of 0 and 1; all 0 where no box is to be found.
    """
    import tensorflow as tf

    batch = tf.shape(labels)[0]
    indices = matches.places + tf.range(batch)[:, None, None] * place_count
    classes = tf.one_hot(labels, class_count)[:, :, None] * tf.cast(matches.hit, tf.float32)[..., None]
    flat = tf.reshape(indices, (-1, 1)), tf.reshape(classes, (-1, class_count))
    counted = tf.scatter_nd(*flat, tf.stack([batch * place_count, class_count]))
    return tf.reshape(tf.minimum(counted, 1.0), tf.stack([batch, place_count, class_count]))


def excused(predicted_xyxy, class_probabilities, boxes_xyxy, labels, ignore_threshold: float):
    """Return which predictions are excluded from the no-object loss: they overlap some box, and name a class.

    Args:
        predicted_xyxy: ``(B, P, 4)`` in pixels of the canvas.
        class_probabilities: ``(B, P, C)``.
        boxes_xyxy, labels: as for `match`.
        ignore_threshold: overlap above which they are excused.

    Returns:
        ``bool`` tensor ``(B, P)``.
    """
    import tensorflow as tf

    boxes_xyxy *= tf.cast(labels >= 0, tf.float32)[..., None]  # padding overlaps nothing
    best = tf.reduce_max(iou(predicted_xyxy[:, :, None], boxes_xyxy[:, None]), -1)
    return (best > ignore_threshold) & (tf.reduce_max(class_probabilities, -1) > CLASS_THRESHOLD)


def _shape_overlaps(sizes_wh, anchors_wh: np.ndarray):
    """Return the overlap of boxes ``(..., 2)`` with anchors ``(A, 2)`` if they had one centre, ``(..., A)``."""
    import tensorflow as tf

    anchors_wh = np.asarray(anchors_wh, np.float32)
    shared = tf.reduce_prod(tf.minimum(sizes_wh[..., None, :], anchors_wh), -1)
    areas = tf.reduce_prod(sizes_wh, -1)[..., None] + anchors_wh.prod(1)
    return shared / (areas - shared)
