"""The Keras network of a Darknet ``.cfg``: pixels in, the raw map of each head out.

`cfg` describes the layers, `decoding` turns raw maps into boxes. The numbers are Darknet's
and those of OpenCV's ``cv2.dnn.readNetFromDarknet``; the tests compare with the latter.
"""

import functools

import numpy as np

from retinamask.detectors import _keras
from retinamask.detectors.darknet.cfg import Convolutional, Head, MaxPool, Network, Route, Upsample

LEAKY_SLOPE = 0.1
EPSILON = 1e-5
"""What Darknet adds to a variance. OpenCV adds 1e-6, so a layer gives 0.05 % more there at a variance of 0.01."""

OBJECTNESS_AT_START = 0.01


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
        if isinstance(layer, Convolutional):
            found = _convolve(found, layer, heads.get(layer.index), momentum, seed)
        elif isinstance(layer, MaxPool):
            found = keras.layers.MaxPool2D(2, name=f"pool_{number}")(found)
        elif isinstance(layer, Upsample):
            found = keras.layers.UpSampling2D(layer.stride, name=f"upsample_{number}")(found)
        elif isinstance(layer, Route) and layer.groups > 1:
            found = channel_group()(layer.groups, layer.group_id, name=f"group_{number}")(found)
        elif len(inputs) > 1:
            found = keras.layers.Concatenate(name=f"route_{number}")(inputs)
        outputs[layer.index] = found
    return keras.Model(outputs[-1], [outputs[index] for index in heads], name="darknet")


def _convolve(features, layer: Convolutional, head: Head | None, momentum: float, seed: int | None):
    """Add padding, convolution, normalisation and activation of a ``[convolutional]``, the last of ``head`` if any."""
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
    """Return the one layer that Keras lacks; made late because it needs TensorFlow."""
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
