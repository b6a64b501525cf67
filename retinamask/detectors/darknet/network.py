"""The Keras network of a Darknet ``.cfg``: pixels in, the raw map of each head out; its boxes and its losses.

The numbers are Darknet's and those of OpenCV's ``cv2.dnn.readNetFromDarknet``; the tests compare with the latter. The
rules of the losses are those of AlexeyAB's Darknet, ``src/yolo_layer.c`` (https://github.com/AlexeyAB/darknet), for a
whole batch at once; anchors and boxes are compared in pixels of the canvas. There are two differences.
``cls_normalizer`` weighs the classes, which there it does only together with ``counters_per_class``. And the gradient
of the box loss is the true one. Darknet takes the derivative of CIoU by a box in shares of the image and hands it to
the raw outputs almost as it is, without the sigmoid's slope, the grid's cells and the anchor's size. So at 416 pixels
and stride 32 its gradient is larger by 50 for a centre in the middle of its cell (13 / 1.05 * 4) and by 1.2 to 5 for
the sides, at stride 16 by 100, and by 7 to 42. `BOX_WEIGHT` makes up for that, so that an ``iou_normalizer`` of 0.07
means about what it does there.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from retinamask.detectors import _keras
from retinamask.detectors.darknet.cfg import Head, Layer, Network

LEAKY_SLOPE = 0.1
EPSILON = 1e-5
"""Darknet adds it to a variance. OpenCV adds 1e-6, so a layer gives 0.05 % more there at a variance of 0.01."""

OBJECTNESS_AT_START = 0.01
MAX_EXPONENT = 10.0
"""An anchor grows at most e^10 = 22026 fold: wider than any image, but never infinite, which would make losses NaN."""

BOX_WEIGHT = 30.0  # of 10, 30 and 100 what found most in trainings of 200 updates on drawn scenes, AP50 and AP together
CLASS_THRESHOLD = 0.25  # probability of any class from which on a prediction that overlaps a box may be excused
LOSSES = ("localization_loss", "objectness_loss", "classification_loss")

_TINY = 1e-9  # keeps 0 / 0 away; far below any side or area in pixels


def build(network: Network, momentum: float = 0.9, seed: int | None = None):
    """Build the network.

    Layers are named by their place in the cfg: ``conv_00``, ``norm_00``, ``leaky_00`` and so on, in every build.
    Sides of the input may be any multiples of 32. Kernels are drawn as He et al. have it,
    https://arxiv.org/abs/1502.01852, those before a ``[yolo]`` from a deviation of 0.01 with the bias of
    objectness such that it starts at `OBJECTNESS_AT_START`: nearly all places hold no object.

    Args:
        network: from `retinamask.detectors.darknet.cfg.describe`.
        momentum: of the moving averages of batch normalisation, the share of the old one that each step keeps.
        seed: the same seed gives the same weights.

    Returns:
        A tf-keras model from ``float32`` RGB ``(B, height, width, 3)`` from 0 to 1 to a list with one map a head, in
        the order of the ``[yolo]`` sections: ``(B, height / stride, width / stride, anchors * (5 + classes))``, for
        each anchor x, y, width, height, objectness and classes before their sigmoids and exponentials. With one head
        the map alone, which is Keras's way.
    """
    keras = _keras.prepare()
    outputs = {-1: keras.layers.Input((None, None, 3), name="image")}
    heads = {layer.index: head for layer, head in zip(network.last_convolutions, network.heads, strict=True)}
    for layer in network.layers:
        inputs, number = [outputs[source] for source in layer.sources], f"{layer.index:02d}"
        found = inputs[0]
        if layer.kind == "convolutional":
            found = _convolve(found, layer, heads.get(layer.index), momentum, seed)
        elif layer.kind == "maxpool":
            found = keras.layers.MaxPool2D(2, name=f"pool_{number}")(found)
        elif layer.kind == "upsample":
            found = keras.layers.UpSampling2D(layer.stride, name=f"upsample_{number}")(found)
        elif layer.groups > 1:
            found = channel_group()(layer.groups, layer.group_id, name=f"group_{number}")(found)
        elif len(inputs) > 1:
            found = keras.layers.Concatenate(name=f"route_{number}")(inputs)
        outputs[layer.index] = found
    return keras.Model(outputs[-1], [outputs[index] for index in heads], name="darknet")


def _convolve(features, layer: Layer, head: Head | None, momentum: float, seed: int | None):
    """Add a ``[convolutional]``, the last of ``head`` if any."""
    keras = _keras.prepare()
    number = f"{layer.index:02d}"
    if seed is not None:
        seed = int(np.random.SeedSequence([seed, layer.index]).generate_state(1)[0] >> 1)
    kernel, bias = keras.initializers.HeNormal(seed), "zeros"
    if head is not None:
        kernel = keras.initializers.RandomNormal(stddev=0.01, seed=seed)
        logits = np.zeros((len(head.mask), 5 + head.class_count), np.float32)
        logits[:, 4] = np.log(OBJECTNESS_AT_START / (1 - OBJECTNESS_AT_START))
        bias = keras.initializers.Constant(logits.ravel().tolist())  # a list, which a saved model can hold
    if layer.stride > 1:  # Darknet pads both sides, TensorFlow's "same" would pad right and bottom only
        features = keras.layers.ZeroPadding2D(layer.size // 2, name=f"pad_{number}")(features)
    features = keras.layers.Conv2D(
        layer.filters,
        layer.size,
        layer.stride,
        padding="valid" if layer.stride > 1 else "same",
        use_bias=not layer.batch_normalize,
        kernel_initializer=kernel,
        bias_initializer=bias,
        name=f"conv_{number}",
    )(features)
    if layer.batch_normalize:
        normalisation = keras.layers.BatchNormalization(momentum=momentum, epsilon=EPSILON, name=f"norm_{number}")
        features = normalisation(features)
    if layer.activation == "leaky":
        features = keras.layers.LeakyReLU(LEAKY_SLOPE, name=f"leaky_{number}")(features)
    return features


@functools.cache
def channel_group() -> type:
    """Give the class of the one layer that Keras lacks."""
    keras = _keras.prepare()

    class ChannelGroup(keras.layers.Layer):
        """One of ``groups`` equal parts of the channels, counted from 0."""

        def __init__(self, groups: int, group_id: int, **keywords):
            super().__init__(**keywords)
            self.groups, self.group_id = groups, group_id

        def call(self, inputs):
            count = inputs.shape[-1] // self.groups
            return inputs[..., self.group_id * count : (self.group_id + 1) * count]

        def get_config(self):
            return {**super().get_config(), "groups": self.groups, "group_id": self.group_id}

    return ChannelGroup


def decode(raw, head: Head, canvas_wh):
    """Turn a head's raw map into boxes and probabilities of every place and anchor, in the graph.

    Bochkovskiy et al., *YOLOv4*, https://arxiv.org/abs/2004.10934, section 3.4 ("eliminate grid sensitivity" is
    ``scale_x_y``); widths and heights as in *YOLO9000*, https://arxiv.org/abs/1612.08242, section 2.

    Args:
        raw: ``(B, h, w, anchors * (5 + classes))`` from `build`, of any float type.
        head: what the cfg says about it.
        canvas_wh: width and height of the network's input in pixels, numbers or scalar tensors.

    Returns:
        Boxes ``(B, h * w * anchors, 4)`` as left, top, right, bottom in pixels of the input, not clipped to it;
        objectness ``(B, h * w * anchors)``; probabilities of the classes given an object, each on its own,
        ``(B, h * w * anchors, classes)``. All ``float32``, by row, column and anchor, as OpenCV's region layer.
    """
    import tensorflow as tf

    anchors, values = len(head.mask), 5 + head.class_count
    batch, height, width = tf.unstack(tf.shape(raw)[:3])
    maps = tf.reshape(tf.cast(raw, tf.float32), (batch, height, width, anchors, values))
    cell_xy = tf.stack(tf.meshgrid(tf.range(width), tf.range(height)), axis=-1)[:, :, None]
    cell_xy, grid_wh = tf.cast(cell_xy, tf.float32), tf.cast(tf.stack([width, height]), tf.float32)
    canvas_wh = tf.stack([tf.cast(side, tf.float32) for side in (canvas_wh[0], canvas_wh[1])])
    within_xy = tf.sigmoid(maps[..., :2]) * head.scale_x_y - (head.scale_x_y - 1) / 2
    centres = (cell_xy + within_xy) / grid_wh * canvas_wh
    exponents = tf.minimum(maps[..., 2:4], MAX_EXPONENT)
    halves = tf.exp(exponents) * tf.constant(head.anchors_wh / 2, tf.float32)
    boxes = tf.concat([centres - halves, centres + halves], axis=-1)
    count = height * width * anchors
    return (
        tf.reshape(boxes, (batch, count, 4)),
        tf.reshape(tf.sigmoid(maps[..., 4]), (batch, count)),
        tf.reshape(tf.sigmoid(maps[..., 5:]), (batch, count, head.class_count)),
    )


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

    batch, rows, columns = tf.unstack(tf.shape(raw)[:3])
    place_count, class_count = rows * columns * len(head.mask), head.class_count
    boxes, _, probabilities = decode(raw, head, canvas_wh)
    matches = match(boxes_xyxy, labels, head, tf.stack([columns, rows]), canvas_wh)

    # (B, P, C) of 0 and 1; a place that boxes of different classes want gets all of their classes.
    indices = matches.places + tf.range(batch)[:, None, None] * place_count
    wanted = tf.one_hot(labels, class_count)[:, :, None] * tf.cast(matches.hit, tf.float32)[..., None]
    flat = tf.reshape(indices, (-1, 1)), tf.reshape(wanted, (-1, class_count))
    counted = tf.scatter_nd(*flat, tf.stack([batch * place_count, class_count]))
    classes = tf.reshape(tf.minimum(counted, 1.0), tf.stack([batch, place_count, class_count]))
    present = tf.reduce_max(classes, -1)

    # Predictions that overlap some box and name a class are excluded from the no-object loss.
    real_xyxy = boxes_xyxy * tf.cast(labels >= 0, tf.float32)[..., None]  # padding overlaps nothing
    best = tf.reduce_max(iou(boxes[:, :, None], real_xyxy[:, None]), -1)
    excused = (best > head.ignore_threshold) & (tf.reduce_max(probabilities, -1) > CLASS_THRESHOLD)

    logits = tf.reshape(raw, (-1, place_count, 5 + class_count))[..., 4:]
    objectness = tf.nn.sigmoid_cross_entropy_with_logits(present, logits[..., 0])
    objectness *= tf.maximum(present, 1 - tf.cast(excused, tf.float32))
    named = tf.nn.sigmoid_cross_entropy_with_logits(classes, logits[..., 1:]) * present[..., None]

    # Pairs that do not count get a box with area, so that not even their gradients can be infinite.
    hit = matches.hit[..., None]
    truths = tf.where(hit, boxes_xyxy[:, :, None], tf.constant([0.0, 0.0, 1.0, 1.0]))
    predicted = tf.where(hit, tf.gather(boxes, matches.places, batch_dims=1), truths)
    weights = tf.cast(matches.hit, tf.float32)
    if head.iou_threshold < 1:
        weights /= tf.maximum(tf.gather(tf.reduce_sum(classes, -1), matches.places, batch_dims=1), 1.0)
    localization = tf.reduce_sum((1 - ciou(predicted, truths)) * weights)
    return {
        "localization_loss": localization * (head.iou_normalizer * BOX_WEIGHT),
        "objectness_loss": tf.reduce_sum(objectness) * head.objectness_normalizer,
        "classification_loss": tf.reduce_sum(named) * head.class_normalizer,
    }


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
        boxes_xyxy, labels, head, canvas_wh: as for `head_losses`.
        cells_wh: columns and rows of the head, ``int32`` numbers or tensor ``(2,)``.
    """
    import tensorflow as tf

    sizes_wh, anchors_wh = boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], np.float32(head.all_anchors_wh)
    shared = tf.reduce_prod(tf.minimum(sizes_wh[..., None, :], anchors_wh), -1)  # as if they had one centre
    overlaps = shared / (tf.reduce_prod(sizes_wh, -1)[..., None] + anchors_wh.prod(1) - shared)
    hit = tf.argmax(overlaps, -1)[..., None] == np.array(head.mask)
    if head.iou_threshold < 1:
        hit |= tf.gather(overlaps, head.mask, axis=-1) > head.iou_threshold
    centres = (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2
    cells = tf.cast(centres / canvas_wh * tf.cast(cells_wh, tf.float32), tf.int32)
    cells = tf.clip_by_value(cells, 0, cells_wh - 1)  # a centre on the edge of the canvas
    cell = cells[..., 1:] * cells_wh[0] + cells[..., :1]
    count = len(head.mask)
    return Matches(cell * count + tf.range(count), hit & (labels >= 0)[..., None])


def iou(boxes_xyxy, others_xyxy):
    """Compute the intersection over union.

    Boxes are ``float32`` tensors ``(..., 4)`` in the same pixels, whose leading axes broadcast. The result ``(...)`` is
    0 to 1; 0 where both have no area.
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
    """Compute the complete intersection over union, Zheng et al., https://arxiv.org/abs/1911.08287, equations 8 to 11.

    The overlap less the distance of the centres (squared, over the squared diagonal of the box around both) less
    ``alpha * v``, where ``v`` is what the aspects differ by. As in the paper ``alpha`` is a constant to the gradient.
    The paper leaves ``1 / (w^2 + h^2)`` out of the gradient of ``v``, because it explodes where sides are shares of an
    image; here it stays, and the gradient is the true one.

    Boxes are as for `iou`, with right and bottom not before left and top. The result ``(...)`` is above -2 and at most
    1, which is for equal boxes.
    """
    import tensorflow as tf

    def aspect(xyxy):  # the angle whose tangent is width / height; of a point that of a square
        width, height = tf.unstack(tf.maximum(xyxy[..., 2:] - xyxy[..., :2], _TINY), axis=-1)
        return tf.atan2(width, height)

    overlap = iou(boxes_xyxy, truths_xyxy)
    left_top = tf.minimum(boxes_xyxy[..., :2], truths_xyxy[..., :2])
    right_bottom = tf.maximum(boxes_xyxy[..., 2:], truths_xyxy[..., 2:])
    diagonal = tf.reduce_sum(tf.square(right_bottom - left_top), -1)
    apart = boxes_xyxy[..., :2] + boxes_xyxy[..., 2:] - truths_xyxy[..., :2] - truths_xyxy[..., 2:]
    distance = tf.reduce_sum(tf.square(apart), -1) / 4  # `apart` is twice the way from centre to centre
    unlike = 4 / math.pi**2 * tf.square(aspect(truths_xyxy) - aspect(boxes_xyxy))
    alpha = tf.stop_gradient(unlike / tf.maximum(1 - overlap + unlike, _TINY))
    return overlap - distance / tf.maximum(diagonal, _TINY) - alpha * unlike
