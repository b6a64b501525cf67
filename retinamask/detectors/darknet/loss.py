"""The losses of a YOLOv4 head on a batch: boxes, objectness and classes, in TensorFlow's graph.

The detector adds up its heads. The rules are those of AlexeyAB's Darknet,
``src/yolo_layer.c``, with two differences. ``cls_normalizer`` weighs the classes, which there it does only together
with ``counters_per_class``. And the gradient of the box loss is the true one. Darknet takes the derivative of CIoU by a
box in shares of the image and hands it to the raw outputs almost as it is: in between, it leaves out the
sigmoid's slope, the grid's cells and the anchor's size. So at 416 pixels and stride 32 its gradient is larger by 50 for
a centre in the middle of its cell (13 / 1.05 * 4) and by 1.2 to 5 for the sides, at stride 16 by 100, and by 7 to 42.
`BOX_WEIGHT` makes up for that, so that an ``iou_normalizer`` of 0.07 means about what it does there.
"""

from retinamask.detectors.darknet import assignment
from retinamask.detectors.darknet.ciou import ciou
from retinamask.detectors.darknet.decoding import decode

BOX_WEIGHT = 30.0  # of 10, 30 and 100 what found most in trainings of 200 updates on drawn scenes, AP50 and AP together
LOSSES = ("localization_loss", "objectness_loss", "classification_loss")


def head_losses(raw, head, boxes_xyxy, labels, canvas_wh) -> dict:
    """Compute the losses of one head, summed over the batch.

    Every pair of a box and a place that is to find it loses 1 - CIoU, also where two boxes want one place; with an
    ``iou_threshold`` below 1, over the number of classes of the place. Objectness and classes are cross
    entropies: of every place that is not excused, and of those that are to find a box.

    Args:
        raw: the head's map ``(B, h, w, n * (5 + C))``, ``float32``.
        head: a `retinamask.detectors.darknet.cfg.Head`.
        boxes_xyxy: ``float32`` ``(B, M, 4)`` in pixels of the canvas.
        labels: ``int32`` ``(B, M)``, -1 for padding.
        canvas_wh: width and height of the canvas, ``float32`` tensor ``(2,)``.

    Returns:
        Scalars by the names of `LOSSES`.
    """
    import tensorflow as tf

    rows, columns = tf.unstack(tf.shape(raw)[1:3])
    place_count = rows * columns * len(head.mask)
    boxes, _, probabilities = decode(raw, head, canvas_wh)
    matches = assignment.match(boxes_xyxy, labels, head, tf.stack([columns, rows]), canvas_wh)
    classes = assignment.targets(matches, labels, place_count, head.class_count)
    present = tf.reduce_max(classes, -1)
    seen = tf.stop_gradient(boxes), tf.stop_gradient(probabilities)
    excused = assignment.excused(*seen, boxes_xyxy, labels, head.ignore_threshold)
    logits = tf.reshape(raw, (-1, place_count, 5 + head.class_count))[..., 4:]
    objectness = tf.nn.sigmoid_cross_entropy_with_logits(present, logits[..., 0])
    objectness *= tf.maximum(present, 1 - tf.cast(excused, tf.float32))
    named = tf.nn.sigmoid_cross_entropy_with_logits(classes, logits[..., 1:]) * present[..., None]
    lost = _box_losses(boxes, boxes_xyxy, matches, classes, head)
    return {
        "localization_loss": tf.reduce_sum(lost) * (head.iou_normalizer * BOX_WEIGHT),
        "objectness_loss": tf.reduce_sum(objectness) * head.objectness_normalizer,
        "classification_loss": tf.reduce_sum(named) * head.class_normalizer,
    }


def _box_losses(boxes, truths_xyxy, matches: assignment.Matches, classes, head):
    """1 - CIoU of each pair of a box and an anchor that is to find it, else 0; ``(B, M, n)``."""
    import tensorflow as tf

    predicted = tf.gather(boxes, matches.places, batch_dims=1)
    weights = tf.cast(matches.hit, tf.float32)
    if head.iou_threshold < 1:
        class_count = tf.gather(tf.reduce_sum(classes, -1), matches.places, batch_dims=1)
        weights /= tf.maximum(class_count, 1.0)
    # Pairs that do not count get a box with area, so that not even their gradients can be infinite.
    hit = matches.hit[..., None]
    truths = tf.where(hit, truths_xyxy[:, :, None], tf.constant([0.0, 0.0, 1.0, 1.0]))
    return (1 - ciou(tf.where(hit, predicted, truths), truths)) * weights
