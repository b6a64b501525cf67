"""The upsampling that XLA compiles, against TensorFlow's own."""

import numpy as np
import pytest

from retinamask.detectors import _keras
from retinamask.detectors.upsampling import nearest


@pytest.mark.parametrize("length", range(1, 34))
def test_neighbours_are_those_of_tensorflow(length):
    _keras.prepare()
    import tensorflow as tf

    source = tf.constant(np.random.default_rng(length).random((2, length, length + 1, 3)), tf.float32)
    for wanted in (2 * length - 1, 2 * length, 2 * length + 1):
        expected = tf.compat.v1.image.resize_nearest_neighbor(source, (wanted, wanted + 2))
        np.testing.assert_array_equal(nearest(source, wanted, wanted + 2), expected)


def test_xla_compiles_its_gradient():
    _keras.prepare()
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def gradient(source):
        return tf.gradients(tf.reduce_sum(nearest(source, 5, 4) * weights), source)[0]

    weights = np.arange(20, dtype=np.float32).reshape(1, 5, 4, 1)
    found = gradient(tf.zeros((1, 3, 2, 1)))[0, :, :, 0]
    # Rows 0 and 1, 2 and 3, and 4 alone come from one each; so do columns 0 and 1, 2 and 3.
    np.testing.assert_array_equal(
        found, [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15], [33, 37]]
    )
