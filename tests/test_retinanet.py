"""The RetinaNet against keras-retinanet's own: parameters, anchors, targets, starting weights."""

import numpy as np
import pytest

from retinamask import detectors
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import _keras
from retinamask.detectors.retinanet import BACKBONES


@pytest.fixture(scope="module")
def live():
    detector = detectors.create("retinanet", CLASSES, image_size=128, normalisation="live")
    return detector, detector.network()


def hidden_kernels(network, head):
    keras = _keras.prepare()
    layers = [layer for layer in network.get_layer(head).layers if isinstance(layer, keras.layers.Conv2D)]
    return [layer.kernel.numpy() for layer in layers[:-1]]


def test_the_live_network_is_keras_retinanets_layer_by_layer(live):
    from keras_retinanet import models

    with pytest.warns(UserWarning, match="RandomNormal is unseeded"):  # their heads start out equal; ours do not
        theirs = models.backbone("resnet50").retinanet(len(CLASSES))
    ours = live[1]
    assert [layer.name for layer in ours.layers][1:] == [layer.name for layer in theirs.layers][1:]
    assert sorted(str(w.shape) for w in ours.weights) == sorted(str(w.shape) for w in theirs.weights)
    assert ours.count_params() == theirs.count_params()


def test_with_three_classes_it_has_the_known_number_of_parameters():
    detector = detectors.create("retinanet", {"a": 0, "b": 1, "c": 2})
    assert detector.network().count_params() == 36_424_447  # measured on keras-retinanet 1.0.0 itself


def test_random_weights_keep_the_size_of_the_signal_and_differ(live):
    for head in ("regression_submodel", "classification_submodel"):
        kernels = hidden_kernels(live[1], head)
        assert len(kernels) == 4
        assert not np.allclose(kernels[0], kernels[1])
        expected = np.sqrt(2 / (3 * 3 * 256))
        assert all(abs(kernel.std() / expected - 1) < 0.05 for kernel in kernels)


def test_live_normalisation_learns_its_statistics(live):
    keras = _keras.prepare()
    layers = [layer for layer in live[1].layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert layers and all(layer.trainable and layer.momentum == 0.9 for layer in layers)
    before = layers[0].moving_mean.numpy()
    live[1](np.ones((1, 128, 128, 3), np.float32), training=True)
    assert not np.allclose(before, layers[0].moving_mean.numpy())


def test_prepare_fits_and_pads_with_zeros():
    detector = detectors.create("retinanet", CLASSES, image_size=64)
    batch, scales = detector.prepare([np.full((50, 100, 3), 200, np.uint8), np.full((64, 32, 3), 10, np.uint8)])
    assert batch.shape == (2, 64, 64, 3) and scales == [0.64, 1.0]
    assert (batch[0, 32:] == 0).all() and (batch[0, :32] != 0).all()
    np.testing.assert_allclose(batch[1, 0, 0], np.array([10, 10, 10]) - [103.939, 116.779, 123.68], rtol=1e-5)


def test_the_record_gives_the_same_detector():
    detector = detectors.create("retinanet", CLASSES, image_size=320, ratios=(0.8, 1.0, 1.25))
    again = type(detector).from_record(CLASSES, detector.record())
    assert again.settings == detector.settings


@pytest.mark.parametrize("name", ["mobilenet224_1.0", "densenet121", "vgg16"])
def test_other_backbones_build(name):
    detector = detectors.create("retinanet", CLASSES, backbone=name, image_size=64)
    regression, classification = detector.network()(np.zeros((1, 64, 64, 3), np.float32))
    assert classification.shape[-1] == 2 and regression.shape[1] == classification.shape[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet18"}, "backbone is 'resnet18', expected one of: resnet50"),
        ({"image_size": 8}, "image_size is 8, expected 64 to 4096"),
        ({"normalisation": "maybe"}, "expected frozen or live"),
        ({"momentum": 1.0}, "momentum is 1.0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        detectors.create("retinanet", CLASSES, **settings)


def test_an_unknown_detector_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no detector named 'yolo'; there are: retinanet"):
        detectors.create("yolo", CLASSES)


def test_every_backbone_has_a_preprocessing():
    assert set(BACKBONES.values()) == {"caffe", "tf"}
