"""The Keras network of a Darknet ``.cfg``: pixels in, the raw map of each head out.

Between `cfg`, which describes the layers, and `decoding`, which turns raw maps into boxes. The numbers are Darknet's
and those of OpenCV's ``cv2.dnn.readNetFromDarknet``; the tests compare with the latter.
"""

import functools

import numpy as np

from retinamask.detectors import _keras
from retinamask.detectors.darknet.cfg import Network
from retinamask.detectors.darknet.description import Convolutional, MaxPool, Route, Upsample

LEAKY_SLOPE = 0.1
EPSILON = 1e-5
"""What Darknet adds to a variance. OpenCV adds 1e-6, so a layer gives 0.05 % more there at a variance of 0.01."""

OBJECTNESS_AT_START = 0.01


def build(network: Network, momentum: float = 0.9, seed: int | None = None):
    """Build the network.

    Layers are named by their place in the cfg: ``conv_00``, ``norm_00``, ``leaky_00`` and so on, in every build.
    Sides of the input may be any multiples of 32. Kernels are drawn as He et al. have it,
    https://arxiv.org/abs/1502.01852, those in front of a ``[yolo]`` from a deviation of 0.01 with the bias of
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
    image = keras.layers.Input((None, None, 3), name="image")
    last = {layer.index: head for layer, head in zip(network.last_convolutions, network.heads, strict=True)}
    outputs = {-1: image}
    for layer in network.layers:
        if isinstance(layer, Convolutional):
            begins = _Beginning(seed, last.get(layer.index))
            outputs[layer.index] = _convolved(outputs[layer.source], layer, momentum, begins)
        elif isinstance(layer, Route):
            outputs[layer.index] = _routed([outputs[source] for source in layer.sources], layer)
        elif isinstance(layer, MaxPool):
            outputs[layer.index] = keras.layers.MaxPool2D(2, name=f"pool_{layer.index:02d}")(outputs[layer.source])
        elif isinstance(layer, Upsample):
            repetition = custom_layers()["Repetition"](layer.stride, name=f"upsample_{layer.index:02d}")
            outputs[layer.index] = repetition(outputs[layer.source])
    return keras.Model(image, [outputs[layer.index] for layer in network.last_convolutions], name="darknet")


class _Beginning:
    """How the weights of one convolution are drawn."""

    def __init__(self, seed: int | None, head):
        self.seed, self.head = seed, head

    def kernel(self, index: int):
        keras = _keras.prepare()
        seed = None if self.seed is None else int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0] >> 1)
        if self.head is None:
            return keras.initializers.HeNormal(seed)
        return keras.initializers.RandomNormal(stddev=0.01, seed=seed)

    def bias(self):
        keras = _keras.prepare()
        if self.head is None:
            return keras.initializers.Zeros()
        bias = np.zeros((len(self.head.mask), 5 + self.head.class_count), np.float32)
        bias[:, 4] = np.log(OBJECTNESS_AT_START / (1 - OBJECTNESS_AT_START))
        return keras.initializers.Constant(bias.ravel().tolist())  # a list, which a saved model can hold


def _convolved(features, layer: Convolutional, momentum: float, begins: _Beginning):
    """Padding, convolution, normalisation and activation of a ``[convolutional]``."""
    keras = _keras.prepare()
    number = f"{layer.index:02d}"
    if layer.stride > 1:  # Darknet pads both sides, TensorFlow's "same" would pad right and bottom only
        features = keras.layers.ZeroPadding2D(layer.size // 2, name=f"pad_{number}")(features)
    features = keras.layers.Conv2D(
        layer.filters,
        layer.size,
        layer.stride,
        padding="valid" if layer.stride > 1 else "same",
        use_bias=not layer.batch_normalize,
        kernel_initializer=begins.kernel(layer.index),
        bias_initializer=begins.bias(),
        name=f"conv_{number}",
    )(features)
    if layer.batch_normalize:
        normalisation = keras.layers.BatchNormalization(momentum=momentum, epsilon=EPSILON, name=f"norm_{number}")
        features = normalisation(features)
    if layer.activation == "leaky":
        features = keras.layers.LeakyReLU(LEAKY_SLOPE, name=f"leaky_{number}")(features)
    return features


def _routed(features: list, layer: Route):
    """The layers that a ``[route]`` names, behind one another; or one group of the channels of one."""
    keras = _keras.prepare()
    if layer.groups > 1:
        group = custom_layers()["ChannelGroup"](layer.groups, layer.group_id, name=f"group_{layer.index:02d}")
        return group(features[0])
    if len(features) == 1:
        return features[0]
    return keras.layers.Concatenate(name=f"route_{layer.index:02d}")(features)


@functools.cache
def custom_layers() -> dict[str, type]:
    """The two layers that Keras lacks, by name: for ``custom_objects``, and made late because they need TensorFlow."""
    keras = _keras.prepare()
    import tensorflow

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

    class Repetition(keras.layers.Layer):
        """Each pixel ``times`` x ``times``, by copying: XLA has no gradient for TensorFlow's resizing."""

        def __init__(self, times: int, **keywords):
            super().__init__(**keywords)
            self.times = times

        def call(self, inputs):
            batch, height, width = tensorflow.unstack(tensorflow.shape(inputs)[:3])
            channels = inputs.shape[-1]
            columns = tensorflow.concat([inputs] * self.times, axis=-1)  # read as pixels: each `times` times
            rows = tensorflow.reshape(columns, (batch, height, width * self.times * channels))
            rows = tensorflow.concat([rows] * self.times, axis=-1)
            repeated = tensorflow.reshape(rows, (batch, height * self.times, width * self.times, channels))
            repeated.set_shape(self.compute_output_shape(inputs.shape))
            return repeated

        def compute_output_shape(self, input_shape):
            batch, height, width, channels = input_shape
            return batch, height and height * self.times, width and width * self.times, channels

        def get_config(self):
            return {**super().get_config(), "times": self.times}

    return {"ChannelGroup": ChannelGroup, "Repetition": Repetition}
