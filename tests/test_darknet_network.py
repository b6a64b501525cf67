"""The network of a cfg: its numbers are those of OpenCV's Darknet importer, and it can be trained from nothing."""

import cv2
import numpy as np
import pytest
from darknet_networks import SMALL_CFG, described, drawn

from retinamask.dataset import images
from retinamask.dataset.sample import draw_sample
from retinamask.detectors import _keras
from retinamask.detectors.darknet import cfg, network, weights


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """A drawn scene that is wider than high."""
    folder = tmp_path_factory.mktemp("scene")
    draw_sample(folder, images=1, size=320, seed=4)
    image_rgb = images.read_image(next(folder.rglob("*.jpg")))
    return image_rgb[: image_rgb.shape[0] * 2 // 3]


def letterboxed(image_rgb: np.ndarray, side: int) -> np.ndarray:
    """``uint8`` RGB fitted into a square, zeros right and below."""
    resized = images.resize(image_rgb, images.fit_scale(image_rgb.shape[1::-1], side))
    squared = np.zeros((side, side, 3), np.uint8)
    squared[: resized.shape[0], : resized.shape[1]] = resized
    return squared


def opencv(model, description, image_rgb: np.ndarray, folder) -> tuple[list, list]:
    """Raw maps ``(values, h, w)`` and detections of OpenCV, from files that we write."""
    (folder / "ours.cfg").write_text(description.text)
    weights.write(model, description, folder / "ours.weights")
    net = cv2.dnn.readNetFromDarknet(str(folder / "ours.cfg"), str(folder / "ours.weights"))
    net.setInput(cv2.dnn.blobFromImage(image_rgb, 1 / 255))
    raw = [f"conv_{layer.index}" for layer in description.last_convolutions]
    outputs = net.forward([*raw, *net.getUnconnectedOutLayersNames()])
    return [output[0] for output in outputs[: len(raw)]], outputs[len(raw) :]


@pytest.mark.parametrize(
    ("levels", "side"),
    [(2, 416), (3, 608), *(pytest.param(*other, marks=pytest.mark.slow) for other in [(3, 416), (2, 608)])],
)
def test_numbers_and_boxes_are_opencvs(levels, side, photograph, tmp_path):
    description = described(levels, side)
    model = drawn(description, seed=levels)
    image_rgb = letterboxed(photograph, side)
    ours = model(images.network_input([image_rgb], "unit_rgb", image_rgb.shape[1::-1]))
    theirs, detections = opencv(model, description, image_rgb, tmp_path)
    for raw, their_raw, head, detected in zip(ours, theirs, description.heads, detections, strict=True):
        own = raw[0].numpy().transpose(2, 0, 1)
        assert own.std(axis=(1, 2)).min() > 0.01  # not only its bias
        np.testing.assert_allclose(own, their_raw, rtol=1e-3, atol=1e-3 * np.abs(their_raw).mean())
        boxes, objectness, classes = (output[0].numpy() for output in network.decode(raw, head, (side, side)))
        centres, sizes = detected[:, :2] * side, detected[:, 2:4] * side
        expected = np.hstack([centres - sizes / 2, centres + sizes / 2])
        assert np.abs(boxes - expected).max() < 0.1 and 10 < sizes.max() < 4 * side
        np.testing.assert_allclose(objectness, detected[:, 4], atol=1e-3)
        seen = detected[:, 5:] > 0  # OpenCV zeroes what its threshold hides
        np.testing.assert_allclose((objectness[:, None] * classes)[seen], detected[:, 5:][seen], atol=1e-3)
        assert seen.any()


def test_a_small_variance_is_normalised_as_in_darknet(tmp_path):
    """Darknet and TensorFlow add 1e-5 to it, OpenCV 1e-6; OpenCV gets the difference in the file."""
    description = cfg.describe(SMALL_CFG)
    model = drawn(description)
    layer = model.get_layer("norm_00")
    gamma, beta, mean, _ = layer.get_weights()
    image_rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    variance = np.full(8, 1e-4, np.float32)
    layer.set_weights([gamma, beta, mean, variance])
    own = model(images.network_input([image_rgb], "unit_rgb", image_rgb.shape[1::-1]))
    layer.set_weights([gamma, beta, mean, variance + np.float32(9e-6)])
    theirs, _ = opencv(model, description, image_rgb, tmp_path)
    np.testing.assert_allclose(own[0].numpy().transpose(2, 0, 1), theirs[0], rtol=1e-3, atol=1e-3)


def test_boxes_worked_out_by_hand():
    """One row of two places, 32 px apart, with scale_x_y 2 and the anchors 10 x 20 and 30 x 40."""
    head = cfg.describe(SMALL_CFG.replace("37,58", "30,40").replace("iou_loss", "scale_x_y=2\niou_loss")).heads[0]
    raw = np.zeros((1, 1, 2, 21), np.float32)
    raw[0, 0, 1, 14:21] = [np.log(3), -np.log(3), np.log(2), np.log(0.5), np.log(9), -np.log(4), 0]
    boxes, objectness, classes = (output.numpy() for output in network.decode(raw, head, (64, 32)))
    assert boxes.shape == (1, 6, 4) and objectness.shape == (1, 6) and classes.shape == (1, 6, 2)
    # x: (1 + 2 * 3 / 4 - 1 / 2) / 2 * 64 = 64, y: (2 * 1 / 4 - 1 / 2) * 32 = 0, 60 wide and 20 high
    np.testing.assert_allclose(boxes[0, 5], [64 - 30, -10, 64 + 30, 10], atol=1e-4)
    np.testing.assert_allclose(boxes[0, 0], [16 - 5, 16 - 7, 16 + 5, 16 + 7], atol=1e-4)
    np.testing.assert_allclose([objectness[0, 5], *classes[0, 5]], [0.9, 0.2, 0.5], atol=1e-6)


def test_boxes_stay_finite_whatever_comes_out():
    head = cfg.describe(SMALL_CFG).heads[0]
    outputs = network.decode(np.full((1, 2, 2, 21), 3e38, np.float32), head, (64, 64))
    assert all(np.isfinite(output).all() for output in outputs)


def test_any_sides_divisible_by_32_and_a_batch_gives_what_its_images_give():
    model = drawn(described(3))
    batch = np.random.default_rng(1).random((2, 96, 160, 3), np.float32)
    together = model(batch)
    assert [output.shape[1:] for output in together] == [(3, 5, 24), (6, 10, 24), (12, 20, 24)]
    for place in range(2):
        for output, alone in zip(together, model(batch[place : place + 1]), strict=True):
            np.testing.assert_allclose(output[place], alone[0], rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_network():
    description = cfg.describe(SMALL_CFG)
    first, second, other, unseeded = (network.build(description, seed=seed) for seed in (7, 7, 8, None))
    names = [[layer.name for layer in model.layers] for model in (first, second)]
    assert (
        names[0]
        == names[1]
        == [
            *["image", "pad_00", "conv_00", "norm_00", "leaky_00", "group_01", "pool_02"],
            *["conv_03", "norm_03", "leaky_03", "upsample_04", "route_05", "conv_06"],
        ]
    )
    same = [np.array_equal(*pair) for pair in zip(first.get_weights(), second.get_weights(), strict=True)]
    assert all(same)
    for model in (other, unseeded):
        assert not np.array_equal(first.get_weights()[0], model.get_weights()[0])


def test_features_keep_their_size_at_the_start_and_nothing_is_an_object_yet():
    """He et al.'s deviation: 2 / fan-in of variance, so that leaky layers neither swell nor fade."""
    description = described(2)
    model = network.build(description, seed=3)
    for layer in description.convolutions[:-1]:
        kernel = model.get_layer(f"conv_{layer.index:02d}").get_weights()[0]
        expected = 0.01 if layer in description.last_convolutions else (2 / (layer.in_channels * layer.size**2)) ** 0.5
        assert kernel.std() == pytest.approx(expected, rel=0.1)
    outputs = model(np.random.default_rng(2).random((4, 96, 96, 3), np.float32), training=True)
    for output, head in zip(outputs, description.heads, strict=True):
        boxes, objectness, classes = network.decode(output, head, (96, 96))
        assert 0.005 < objectness.numpy().mean() < 0.02 and 0.4 < classes.numpy().mean() < 0.6
    assert model.get_layer("norm_00").momentum == 0.9


def test_a_saved_network_is_read_back_whole_or_as_weights(tmp_path):
    keras = _keras.prepare()
    description = cfg.describe(SMALL_CFG)
    model = drawn(description)
    with pytest.warns(UserWarning, match="saving your model as an HDF5 file"):
        model.save(tmp_path / "whole.h5", include_optimizer=False)
    custom = {"ChannelGroup": network.channel_group()}
    whole = keras.models.load_model(tmp_path / "whole.h5", custom_objects=custom, compile=False)
    built = network.build(description)
    built.load_weights(tmp_path / "whole.h5")
    image = np.random.default_rng(6).random((1, 64, 64, 3), np.float32)
    assert np.array_equal(model(image), whole(image)) and np.array_equal(model(image), built(image))


def test_it_may_be_built_for_mixed_precision():
    keras = _keras.prepare()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        description = cfg.describe(SMALL_CFG)
        (raw,) = [network.build(description, seed=1)(np.zeros((1, 32, 32, 3), np.float32))]
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert raw.dtype == "bfloat16"
    assert {output.dtype.name for output in network.decode(raw, description.heads[0], (32, 32))} == {"float32"}
