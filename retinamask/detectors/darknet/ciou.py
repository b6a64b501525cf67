"""Overlap of boxes in TensorFlow's graph: plain, and complete (CIoU), which the box loss of YOLOv4 takes.

Sizes may be anything from a pixel's fraction to far more
than an image.
"""

import math

_TINY = 1e-9  # keeps 0 / 0 away; far below any side or area in pixels


def iou(boxes_xyxy, others_xyxy):
    """Return the intersection over union.

    Args:
        boxes_xyxy, others_xyxy: ``float32`` tensors ``(..., 4)`` in the same pixels, whose leading axes broadcast.

    Returns:
        ``(...)``, 0 to 1; 0 where both boxes have no area.
    """
    import tensorflow as tf

    x1, y1, x2, y2 = tf.unstack(boxes_xyxy, axis=-1)
    u1, v1, u2, v2 = tf.unstack(others_xyxy, axis=-1)
    width = tf.maximum(tf.minimum(x2, u2) - tf.maximum(x1, u1), 0.0)
    height = tf.maximum(tf.minimum(y2, v2) - tf.maximum(y1, v1), 0.0)
    shared = width * height
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    return shared / tf.maximum(union, _TINY)


def ciou(boxes_xyxy, truths_xyxy):
    """Complete intersection over union, Zheng et al., https://arxiv.org/abs/1911.08287, equations 8 to 11.

    The overlap less the distance of the centres (squared, over the squared diagonal of the box around both) less
    ``alpha * v``, where ``v`` is what the aspects differ by. As in the paper ``alpha`` is a constant to the gradient.
    The paper leaves ``1 / (w^2 + h^2)`` out of the gradient of ``v``, because it explodes where sides are shares of an
    image; here it stays, and the gradient is the true one.

    Args:
        boxes_xyxy: ``float32`` tensor ``(..., 4)``, right and bottom not before left and top.
        truths_xyxy: the same, in the same pixels; leading axes broadcast.

    Returns:
        ``(...)``, above -2 and at most 1, which is for equal boxes.
    """
    import tensorflow as tf

    overlap = iou(boxes_xyxy, truths_xyxy)
    left_top = tf.minimum(boxes_xyxy[..., :2], truths_xyxy[..., :2])
    right_bottom = tf.maximum(boxes_xyxy[..., 2:], truths_xyxy[..., 2:])
    diagonal = tf.reduce_sum(tf.square(right_bottom - left_top), -1)
    apart = boxes_xyxy[..., :2] + boxes_xyxy[..., 2:] - truths_xyxy[..., :2] - truths_xyxy[..., 2:]
    distance = tf.reduce_sum(tf.square(apart), -1) / 4  # `apart` is twice the way from centre to centre
    unlike = 4 / math.pi**2 * tf.square(_aspect(truths_xyxy) - _aspect(boxes_xyxy))
    alpha = tf.stop_gradient(unlike / tf.maximum(1 - overlap + unlike, _TINY))
    return overlap - distance / tf.maximum(diagonal, _TINY) - alpha * unlike


def _aspect(boxes_xyxy):
    """Return the angle whose tangent is width / height; of a box that shrank to a point that of a square."""
    import tensorflow as tf

    width, height = tf.unstack(tf.maximum(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], _TINY), axis=-1)
    return tf.atan2(width, height)
