"""Network input in the graph against the NumPy road of ``dataset/images.py``, and keras-retinanet's own numbers."""

import numpy as np
import pytest

from retinamask.dataset import images
from retinamask.detectors import _keras
from retinamask.detectors.detector import network_input

SIZES_WH = [(37, 21), (64, 48), (1, 48), (64, 1)]


@pytest.fixture(scope="module")
def drawn():
    """Images of several sizes, and all of them on a canvas of 64 x 48 with rubbish where there is no image."""
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (height, width, 3), np.uint8) for width, height in SIZES_WH]
    canvas = generator.integers(0, 256, (len(pictures), 48, 64, 3), np.uint8)
    for slot, picture in zip(canvas, pictures, strict=True):
        slot[: picture.shape[0], : picture.shape[1]] = picture
    return pictures, canvas


@pytest.mark.parametrize("preprocessing", images.PREPROCESSINGS)
def test_it_equals_the_numpy_road(drawn, preprocessing):
    tf = in_graph()
    pictures, canvas = drawn
    made = tf.function(lambda *batch: network_input(*batch, preprocessing))(canvas, np.int32(SIZES_WH))
    expected = images.network_input(pictures, preprocessing, (64, 48))
    assert made.dtype == tf.float32 and made.shape == expected.shape
    assert np.abs(made.numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("preprocessing", ["caffe", "tf"])
def test_it_equals_keras_retinanets(drawn, preprocessing):
    in_graph()
    from keras_retinanet.utils.image import preprocess_image

    whole = drawn[1][:1]
    expected = preprocess_image(whole[0, ..., ::-1], mode=preprocessing)
    made = network_input(whole, np.int32([(64, 48)]), preprocessing)[0].numpy()
    assert np.abs(made - expected).max() <= 2e-5  # theirs takes the mean off in float64


def test_shapes_are_known_as_far_as_those_of_the_images():
    tf = in_graph()
    made = tf.data.Dataset.from_tensors((np.zeros((2, 8, 9, 3), np.uint8), np.int32([(9, 8)] * 2)))
    assert made.map(lambda *batch: network_input(*batch, "tf")).element_spec.shape == (2, 8, 9, 3)


def in_graph():
    _keras.prepare()
    import tensorflow

    return tensorflow
