"""Enlarging a pyramid level in a way that XLA compiles, which has no gradient for TensorFlow's nearest neighbours.

Beside `network_input`; a RetinaNet takes it when its training step is compiled.
"""

from retinamask.detectors import _keras


def make_compilable(network) -> None:
    """Let the ``UpsampleLike`` layers of a network gather rows and columns; numbers, weights and file stay the same."""
    _keras.prepare()
    from keras_retinanet.layers import UpsampleLike

    for layer in network.layers:
        if isinstance(layer, UpsampleLike):
            layer.call = _like_second


def nearest(source, height, width):
    """The nearest neighbours that ``tf.compat.v1.image.resize_nearest_neighbor`` takes.

    Args:
        source: tensor ``(N, h, w, C)``.
        height, width: of the result ``(N, height, width, C)``.
    """
    import tensorflow

    for axis, wanted in ((1, height), (2, width)):
        length = tensorflow.shape(source)[axis]
        share = tensorflow.cast(length, tensorflow.float32) / tensorflow.cast(wanted, tensorflow.float32)
        places = tensorflow.floor(tensorflow.cast(tensorflow.range(wanted), tensorflow.float32) * share)
        places = tensorflow.minimum(tensorflow.cast(places, tensorflow.int32), length - 1)
        source = tensorflow.gather(source, places, axis=axis)
    return source


def _like_second(inputs, **_):
    import tensorflow

    source, target = inputs
    height, width = tensorflow.unstack(tensorflow.shape(target)[1:3])
    return nearest(source, height, width)
