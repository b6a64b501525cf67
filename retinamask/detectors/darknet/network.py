"""The Keras network of a Darknet ``.cfg``: pixels in, the raw map of each head out, which `decode` turns into boxes.

The numbers are Darknet's and those of OpenCV's ``cv2.dnn.readNetFromDarknet``; the tests compare with the latter.
"""

import functools

import numpy as np

from retinamask.detectors import _keras
from retinamask.detectors.darknet.cfg import Head, Layer, Network

LEAKY_SLOPE = 0.1
EPSILON = 1e-5
"""Darknet adds it to a variance. OpenCV adds 1e-6, so a layer gives 0.05 % more there at a variance of 0.01."""

OBJECTNESS_AT_START = 0.01
MAX_EXPONENT = 10.0
"""An anchor grows at most e^10 = 22026 fold: wider than any image, but never infinite, which would make losses NaN."""


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
