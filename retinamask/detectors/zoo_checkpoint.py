"""Reads a checkpoint of the TensorFlow 2 detection zoo into the network of `mobilenet_v2_fpnlite`.

The zoo's checkpoints are those of ``tf.train.Checkpoint``: a variable is named by the attributes that lead to it from
the root, here those of the classes of the TensorFlow Object Detection API (``research/object_detection`` of
https://github.com/tensorflow/models), so the names are its too. Only arrays are read.
"""

from pathlib import Path

import numpy as np

from retinamask.detectors import _keras
from retinamask.detectors.mobilenet_v2_fpnlite import LEVELS, TOWER_LAYERS
from retinamask.detectors.starting_weights import Loaded, WeightsError

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_ROOT = "model/"
_BLOCKS = 16  # of MobileNetV2 after the first, which does not widen
_BOXES, _CLASSES = "head_boxes", "head_classes"
_FEATURES = "model/_feature_extractor/"
_PREDICTOR = "model/_box_predictor/"

# The zoo codes a box as y, x, log height and log width of its middle against the anchor, times 10, 10, 5 and 5;
# keras-retinanet as its edges, left, top, right and bottom, times 5. To first order one is a matrix times the other.
_EDGES_OF_CODE = np.float32([[0, 0.5, 0, 0.5], [0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5], [-0.5, 0, 0.5, 0]])


def prefix_of(path: Path) -> Path | None:
    """Give the name of a checkpoint without ``.index``, of that or the index file; None if there is no such file."""
    if path.suffix == ".index":
        path = path.with_suffix("")
    return path if path.with_name(f"{path.name}.index").is_file() else None


def table() -> dict[str, str]:
    """Give for each layer of the network that has weights the name of its counterpart in the checkpoint."""
    # The checkpoint numbers MobileNetV2's layers in their order.
    names = ["Conv1", "bn_Conv1"]
    names += [f"expanded_conv_{part}" for part in ("depthwise", "depthwise_BN", "project", "project_BN")]
    parts = ("expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN")
    names += [f"block_{number}_{part}" for number in range(1, _BLOCKS + 1) for part in parts]
    names += ["Conv_1", "Conv_1_bn"]
    found = {name: f"{_FEATURES}classification_backbone/layer_with_weights-{n}" for n, name in enumerate(names)}
    # The zoo goes from P5 down to P3, and counts P6 and P7 as coarse.
    pyramid = f"{_FEATURES}_fpn_features_generator/"
    for name, theirs in (
        ("P5", "top_layers/0"),
        ("C4_reduced", "residual_blocks/0/0"),
        ("C3_reduced", "residual_blocks/1/0"),
    ):
        found[name] = pyramid + theirs
    convolved = {"P4": f"{pyramid}conv_layers/0", "P3": f"{pyramid}conv_layers/1"}
    convolved |= {"P6": f"{_FEATURES}_coarse_feature_layers/0", "P7": f"{_FEATURES}_coarse_feature_layers/1"}
    for level, theirs in convolved.items():
        found |= {f"{level}_conv": f"{theirs}/0", f"{level}_norm": f"{theirs}/1"}
    # Shared convolutions, then for each level convolution, normalisation and activation in turn, and the two ends.
    towers = f"{_PREDICTOR}_base_tower_layers_for_heads/box_encodings"
    for n in range(TOWER_LAYERS):
        found[f"head_conv_{n}"] = f"{_PREDICTOR}_head_scope_conv_layers/PredictionTower/{n}"
        for index, level in enumerate(LEVELS):
            found[f"head_norm_{n}_{level}"] = f"{towers}/{index}/{3 * n + 1}"
    found[_BOXES] = f"{_PREDICTOR}_box_prediction_head/_box_encoder_layers/0"
    found[_CLASSES] = f"{_PREDICTOR}_prediction_heads/class_predictions_with_background/_class_predictor_layers/0"
    return found


def load(network, prefix: Path) -> Loaded:
    """Start ``network`` from a checkpoint of ``ssd_mobilenet_v2_fpnlite``, 320 or 640, or one trained on from it.

    All is taken as it is but the two convolutions that predict. That of the boxes is turned from the zoo's code into
    keras-retinanet's, exactly for boxes of the anchor's size and nearly for others: one that is 1.4 times as large
    comes out 1.34 times as large. That of the classes fits if the checkpoint has as many classes; then its background,
    which the zoo never trains, is left away. Otherwise only its part within channels is taken.

    Returns:
        ``in_part`` names the layers of which a part was left as it was, ``unmapped`` the unused variables of the model.

    Raises:
        WeightsError: the checkpoint is damaged, lacks a layer, or a layer has another shape.
    """
    _keras.prepare()
    import tensorflow as tf

    damage = tf.errors.OpError, ValueError, RuntimeError, IndexError
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
    except damage as error:
        raise _damaged(prefix, error) from None
    anchor_count = network.get_layer(_BOXES).filters // 4
    values, in_part, used = {}, set(), set()
    for name, theirs in table().items():
        layer, values[name] = network.get_layer(name), []
        for weight in layer.weights:
            part = weight.name.rpartition("/")[2].partition(":")[0]  # "kernel" of "Conv1/kernel:0"
            key = f"{theirs}/{part}{_VALUE}"
            if key not in shapes:
                there = ", ".join(sorted(name.removesuffix(_VALUE) for name in shapes if name.startswith(_ROOT))[:3])
                raise WeightsError(
                    f"{prefix}: has no {key.removesuffix(_VALUE)}; it holds {there or 'no model'} ... Expected a "
                    "checkpoint of the TensorFlow 2 detection zoo's ssd_mobilenet_v2_fpnlite, or one that was trained "
                    "on from it"
                )
            try:
                array = _converted(layer, part, reader.get_tensor(key), anchor_count)
            except damage as error:
                raise _damaged(prefix, error) from None
            if array is None:
                array = weight.numpy()
                in_part.add(name)
            else:
                used.add(key)
            if array.shape != tuple(weight.shape):
                raise WeightsError(
                    f"{prefix}: {key.removesuffix(_VALUE)} has the shape {array.shape}, layer {name} expects "
                    f"{tuple(weight.shape)}; the zoo's has alpha 1, 2 scales and 3 ratios: build the network so, or "
                    "start from another file"
                )
            values[name].append(array)
    for name, arrays in values.items():  # only now, so that a network is never half loaded
        network.get_layer(name).set_weights(arrays)
    of_model = [
        key for key in shapes if key.startswith(_ROOT) and key.endswith(_VALUE) and ".OPTIMIZER_SLOT" not in key
    ]
    return Loaded(len(values), sorted(in_part), sorted(key.removesuffix(_VALUE) for key in of_model if key not in used))


def _converted(layer, part: str, array: np.ndarray, anchor_count: int) -> np.ndarray | None:
    """Give the zoo's array as our layer takes it; None where nothing fits."""
    if part not in ("pointwise_kernel", "bias") or layer.name not in (_BOXES, _CLASSES):
        return array
    if array.shape[-1] % anchor_count:
        return array  # refused for its shape by the caller
    each = array.reshape(*array.shape[:-1], anchor_count, -1)
    if layer.name == _CLASSES:
        each = each[..., 1:]
        return each.reshape(*array.shape[:-1], -1) if each.shape[-1] * anchor_count == layer.filters else None
    return (each @ _EDGES_OF_CODE).reshape(array.shape) if each.shape[-1] == 4 else array


def _damaged(prefix: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{prefix}: not readable as a TensorFlow checkpoint ({error}); copy or download it again")
