"""A checkpoint that TensorFlow wrote from objects with the names of the Object Detection API's, read into the network.

The objects are put together here as that API does, of Keras's layers; TensorFlow itself makes the names of them.
"""

import copy
from pathlib import Path

import numpy as np
import pytest

from retinamask import detectors
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import _keras, starting_weights
from retinamask.detectors import ssd_mobilenet_v2_fpnlite as ssd
from retinamask.detectors.starting_weights import WeightsError

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class Zoo:
    """The layers of the API's SSD with MobileNetV2 and FPN, all random, and what it computes with them."""

    def __init__(self):
        self.keras = _keras.prepare()
        full = self.keras.applications.MobileNetV2((64, 64, 3), include_top=False, weights=None)
        taps = [full.get_layer(name).output for name in ("block_2_add", "block_5_add", "block_12_add", "out_relu")]
        self.backbone = self.keras.Model(full.inputs, taps)
        layers = self.keras.layers
        self.top = [layers.Conv2D(128, 1)]
        self.residuals = [[layers.Conv2D(128, 1)] for _ in range(2)]
        self.smoothing = [self.block(1) for _ in range(2)]
        self.coarse = [self.block(2) for _ in range(2)]
        self.shared = [layers.SeparableConv2D(128, 3, padding="same", use_bias=False) for _ in range(4)]
        norms = [[layers.BatchNormalization(epsilon=1e-3) for _ in range(4)] for _ in range(5)]
        self.towers = [[part for n in range(4) for part in (self.shared[n], norms[level][n], layers.ReLU(6.0))]
                       for level in range(5)]  # fmt: skip
        self.boxes = [layers.SeparableConv2D(24, 3, padding="same")]
        self.classes = [layers.SeparableConv2D(6 * 3, 3, padding="same")]  # two and the background
        self.predict(np.zeros((1, 64, 64, 3)))
        random = np.random.default_rng(0)
        for weight in self.model().trainable_variables:
            weight.assign(weight + random.normal(0, 0.1, weight.shape))
        for variable in self.model().variables:
            if "moving_variance" in variable.name:
                variable.assign(random.uniform(0.5, 1.5, variable.shape))

    def changed(self, attribute: str, layer, channels: int) -> "Zoo":
        """The same layers but for one list that holds another one."""
        layer.build((None, None, None, channels))
        changed = copy.copy(self)
        setattr(changed, attribute, [layer])
        return changed

    def block(self, strides: int) -> list:
        layers = self.keras.layers
        convolution = layers.SeparableConv2D(128, 3, strides, padding="same", use_bias=False)
        return [convolution, layers.BatchNormalization(epsilon=1e-3), layers.ReLU(6.0)]

    def predict(self, images):
        """Features of P3 to P7, box codes (N, anchors, 4) and logits (N, anchors, slots)."""

        def through(layers, tensor):
            for layer in layers:
                tensor = layer(tensor)
            return tensor

        _, *stages = self.backbone(images)
        levels = [through(self.top, stages[2])]
        for residual, smooth, stage in zip(self.residuals, self.smoothing, stages[1::-1], strict=True):
            enlarged = np.repeat(np.repeat(levels[0], 2, axis=1), 2, axis=2)
            levels.insert(0, through(smooth, enlarged + through(residual, stage)))
        for coarse in self.coarse:
            levels.append(through(coarse, levels[-1]))
        towers = [through(tower, level) for tower, level in zip(self.towers, levels, strict=True)]
        codes = [np.reshape(through(self.boxes, tower), (len(images), -1, 4)) for tower in towers]
        logits = [np.reshape(through(self.classes, tower), (len(images), -1, 3)) for tower in towers]
        return levels, np.concatenate(codes, 1), np.concatenate(logits, 1)

    def model(self):
        """The attributes by which the API's classes hold these layers."""
        import tensorflow

        def holding(**attributes):
            module = tensorflow.Module()
            for name, value in attributes.items():
                setattr(module, name, value)
            return module

        pyramid = holding(top_layers=self.top, residual_blocks=self.residuals, conv_layers=self.smoothing)
        class_head = holding(_class_predictor_layers=self.classes)
        return holding(
            _feature_extractor=holding(
                classification_backbone=self.backbone,
                _fpn_features_generator=pyramid,
                _coarse_feature_layers=self.coarse,
            ),
            _box_predictor=holding(
                _box_prediction_head=holding(_box_encoder_layers=self.boxes),
                _prediction_heads={"class_predictions_with_background": class_head},
                _base_tower_layers_for_heads={"box_encodings": self.towers, "class_predictions_with_background": []},
                _head_scope_conv_layers={"PredictionTower": self.shared},
            ),
        )

    def save(self, folder, **more) -> str:
        import tensorflow

        return tensorflow.train.Checkpoint(model=self.model(), **more).write(str(folder / "ckpt-0"))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = Zoo()
    return zoo, zoo.save(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def network():
    return detectors.create("ssd_mobilenet_v2_fpnlite", CLASSES, image_size=64).network(seed=2)


def test_the_names_are_the_zoos(zoo):
    """As they stand in published checkpoints."""
    import tensorflow

    names = {name.removesuffix(VALUE) for name, _ in tensorflow.train.list_variables(zoo[1])}
    assert names >= {
        "model/_feature_extractor/classification_backbone/layer_with_weights-0/kernel",
        "model/_feature_extractor/classification_backbone/layer_with_weights-2/depthwise_kernel",
        "model/_feature_extractor/classification_backbone/layer_with_weights-103/moving_variance",
        "model/_feature_extractor/_fpn_features_generator/top_layers/0/bias",
        "model/_feature_extractor/_fpn_features_generator/residual_blocks/1/0/kernel",
        "model/_feature_extractor/_fpn_features_generator/conv_layers/1/0/pointwise_kernel",
        "model/_feature_extractor/_coarse_feature_layers/1/1/gamma",
        "model/_box_predictor/_head_scope_conv_layers/PredictionTower/3/depthwise_kernel",
        "model/_box_predictor/_base_tower_layers_for_heads/box_encodings/4/10/moving_mean",
        "model/_box_predictor/_box_prediction_head/_box_encoder_layers/0/pointwise_kernel",
        "model/_box_predictor/_prediction_heads/class_predictions_with_background/_class_predictor_layers/0/bias",
    }
    assert set(ssd.checkpoint_names().values()) <= {name.rpartition("/")[0] for name in names}


def test_the_network_computes_what_the_zoos_computes(zoo, network):
    detector = detectors.create("ssd_mobilenet_v2_fpnlite", CLASSES, image_size=64)
    loaded = detector.load_file(network, Path(zoo[1] + ".index"))
    with_weights = [layer for layer in network.layers if layer.weights]
    assert (loaded.layers, loaded.in_part, loaded.unmapped) == (len(with_weights), [], [])
    images = np.random.default_rng(1).normal(0, 0.6, (2, 64, 64, 3)).astype(np.float32)
    levels, codes, logits = zoo[0].predict(images)
    ours = [network.get_layer(f"P{level}").output for level in range(3, 8)]
    *features, offsets, scores = _keras.prepare().Model(network.inputs, ours + network.outputs)(images)
    for found, expected in zip(features, levels, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits[..., 1:])), atol=1e-4)  # without the background
    assert np.std(codes) > 0.05
    y, x, height, width = np.moveaxis(codes, -1, 0)
    edges = np.stack([x - width, y - height, x + width, y + height], -1) / 2
    np.testing.assert_allclose(offsets, edges, atol=2e-4)


def test_small_codes_give_the_same_boxes():
    """The zoo's decoding and keras-retinanet's, on an anchor of 40 by 20 pixels around (100, 50)."""
    code = np.float32([0.03, -0.05, 0.04, -0.02])
    y, x, height, width = code / (10, 10, 5, 5)
    width, height, x, y = 40 * np.exp(width), 20 * np.exp(height), 100 + 40 * x, 50 + 20 * y
    left, top, right, bottom = code @ ssd._EDGES_OF_CODE * 0.2 * (40, 20, 40, 20) + (80, 40, 120, 60)
    found, expected = (left, top, right, bottom), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_other_classes_keep_their_own_start_and_what_is_left_is_listed(zoo, network, tmp_path):
    import tensorflow

    zoo = zoo[0].changed("classes", _keras.prepare().layers.SeparableConv2D(6 * 91, 3), 128)
    before = network.get_layer("head_classes").get_weights()
    prefix = zoo.save(tmp_path, step=tensorflow.Variable(7))
    loaded = ssd.load_checkpoint(network, ssd.checkpoint_of(Path(prefix)))
    head = "model/_box_predictor/_prediction_heads/class_predictions_with_background/_class_predictor_layers/0/"
    assert loaded.in_part == ["head_classes"]
    assert loaded.unmapped == [head + "bias", head + "pointwise_kernel"]
    after = network.get_layer("head_classes").get_weights()
    np.testing.assert_array_equal(after[0], zoo.classes[0].depthwise_kernel)
    assert (after[1] == before[1]).all() and (after[2] == before[2]).all()


def test_another_width_says_which_layer_and_shapes(zoo, network, tmp_path):
    wide = zoo[0].changed("top", _keras.prepare().layers.Conv2D(256, 1), 1280)
    before = network.get_layer("Conv1").get_weights()[0]
    network.get_layer("Conv1").kernel.assign(before + 1)
    with pytest.raises(WeightsError, match=r"top_layers/0/kernel has the shape \(1, 1, 1280, 256\), layer P5 expects"):
        ssd.load_checkpoint(network, Path(wide.save(tmp_path)))
    assert (network.get_layer("Conv1").get_weights()[0] == before + 1).all()


def test_checkpoints_of_other_things_and_damaged_ones_are_refused(network, zoo, tmp_path):
    import tensorflow

    other = tensorflow.train.Checkpoint(model=tensorflow.Module(), step=tensorflow.Variable(1))
    with pytest.raises(WeightsError, match=r"has no model/.*Conv|has no model/_feature_extractor.*holds no model"):
        ssd.load_checkpoint(network, Path(other.write(str(tmp_path / "other"))))
    prefix = Path(zoo[1])
    for suffix in (".index", ".data-00000-of-00001"):
        whole = prefix.with_name(prefix.name + suffix).read_bytes()
        (tmp_path / f"cut{suffix}").write_bytes(whole[: len(whole) // (2 if suffix == ".index" else 3)])
        with pytest.raises(WeightsError, match="not readable as a TensorFlow checkpoint"):
            ssd.load_checkpoint(network, tmp_path / "cut")
        (tmp_path / f"cut{suffix}").write_bytes(whole)
    assert ssd.load_checkpoint(network, tmp_path / "cut").layers > 100
    assert ssd.checkpoint_of(tmp_path / "nothing.h5") is None
    with pytest.raises(WeightsError, match="a TensorFlow checkpoint is named by its .index file"):
        detectors.check_start("ssd_mobilenet_v2_fpnlite", str(prefix.parent))
    assert (
        starting_weights.normalisation_for(str(prefix))
        == starting_weights.normalisation_for(f"{prefix}.index")
        == "frozen"
    )
