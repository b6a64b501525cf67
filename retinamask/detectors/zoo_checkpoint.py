"""Reads a checkpoint of the TensorFlow 2 detection zoo into the network of `mobilenet_v2_fpnlite`.

Beside that module; `ssd_mobilenet_v2_fpnlite` calls it. The zoo's checkpoints are those of ``tf.train.Checkpoint``: a
variable is named by the attributes that lead to it from the root, here those of the classes of the TensorFlow Object
Detection API (``research/object_detection`` of https://github.com/tensorflow/models), so the names are its too. Only
arrays are read.
"""

from pathlib import Path

import numpy as np

from retinamask.detectors import _keras
from retinamask.detectors.mobilenet_v2_fpnlite import LEVELS, TOWER_LAYERS
from retinamask.detectors.starting_weights import Loaded, WeightsError

_INDEX = ".index"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_ROOT = "model/"
_BLOCKS = 16  # of MobileNetV2 after the first, which does not widen
_BOXES, _CLASSES = "head_boxes", "head_classes"

_FEATURES = "model/_feature_extractor/"
_PYRAMID = _FEATURES + "_fpn_features_generator/"
_PREDICTOR = "model/_box_predictor/"

# The zoo codes a box as y, x, log height and log width of its middle against the anchor, times 10, 10, 5 and 5;
# keras-retinanet as its edges, left, top, right and bottom, times 5. To first order one is a matrix times the other.
_EDGES_OF_CODE = np.float32([[0, 0.5, 0, 0.5], [0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5], [-0.5, 0, 0.5, 0]])


def prefix_of(path: Path) -> Path | None:
    """What a checkpoint is called without ``.index``, given that or the index file; None if there is no such file."""
    if path.suffix == _INDEX:
        path = path.with_suffix("")
    return path if path.with_name(path.name + _INDEX).is_file() else None


def table() -> dict[str, str]:
    """For each layer of the network that has weights, the name of its counterpart in the checkpoint."""
    return _backbone() | _pyramid() | _head()


def load(network, prefix: Path) -> Loaded:
    """Start ``network`` from a checkpoint of ``ssd_mobilenet_v2_fpnlite``, 320 or 640, or one trained on from it.

    All is taken as it is but the two convolutions that predict. That of the boxes is turned from the zoo's code into
    keras-retinanet's, exactly for boxes of the anchor's size and nearly for others: one that is 1.4 times as large
    comes out 1.34 times as large. That of the classes fits if the checkpoint has as many classes; then its background,
    which the zoo never trains, is left away. Otherwise only its part within channels is taken.

    Returns:
        ``in_part`` names the layers of which a part was left as it was, ``unmapped`` what of the model is not used.

    Raises:
        WeightsError: the checkpoint is damaged, lacks a layer, or a layer has another shape.
    """
    reader, shapes = _opened(prefix)
    anchor_count = network.get_layer(_BOXES).filters // 4
    values, in_part, used = {}, set(), set()
    for name, theirs in table().items():
        layer, values[name] = network.get_layer(name), []
        for weight in layer.weights:
            key = f"{theirs}/{_part(weight)}{_VALUE}"
            if key not in shapes:
                raise _missing(prefix, key, shapes)
            array = _converted(layer, _part(weight), _read(reader, key, prefix), anchor_count)
            if array is None:
                array = weight.numpy()
                in_part.add(name)
            else:
                used.add(key)
            _check_shape(prefix, key, array.shape, name, tuple(weight.shape))
            values[name].append(array)
    for name, arrays in values.items():  # only now, so that a network is never half loaded
        network.get_layer(name).set_weights(arrays)
    left = [key.removesuffix(_VALUE) for key in shapes if key not in used and _is_of_model(key)]
    return Loaded(len(values), sorted(in_part), sorted(left))


def _backbone() -> dict[str, str]:
    """MobileNetV2's layers, which the checkpoint numbers in their order."""
    first = ["Conv1", "bn_Conv1"]
    first += [f"expanded_conv_{part}" for part in ("depthwise", "depthwise_BN", "project", "project_BN")]
    parts = ("expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN")
    blocks = [f"block_{number}_{part}" for number in range(1, _BLOCKS + 1) for part in parts]
    names = [*first, *blocks, "Conv_1", "Conv_1_bn"]
    return {name: f"{_FEATURES}classification_backbone/layer_with_weights-{n}" for n, name in enumerate(names)}


def _pyramid() -> dict[str, str]:
    """The zoo goes from P5 down to P3, and counts P6 and P7 as coarse."""
    named = {"P5": "top_layers/0", "C4_reduced": "residual_blocks/0/0", "C3_reduced": "residual_blocks/1/0"}
    named = {name: _PYRAMID + theirs for name, theirs in named.items()}
    convolved = {"P4": _PYRAMID + "conv_layers/0", "P3": _PYRAMID + "conv_layers/1"}
    convolved |= {"P6": _FEATURES + "_coarse_feature_layers/0", "P7": _FEATURES + "_coarse_feature_layers/1"}
    for level, theirs in convolved.items():
        named |= {f"{level}_conv": f"{theirs}/0", f"{level}_norm": f"{theirs}/1"}
    return named


def _head() -> dict[str, str]:
    """Shared convolutions, then for each level convolution, normalisation and activation in turn, and the two ends."""
    named = {
        f"head_conv_{number}": f"{_PREDICTOR}_head_scope_conv_layers/PredictionTower/{number}"
        for number in range(TOWER_LAYERS)
    }
    towers = f"{_PREDICTOR}_base_tower_layers_for_heads/box_encodings"
    for index, level in enumerate(LEVELS):
        named |= {f"head_norm_{n}_{level}": f"{towers}/{index}/{3 * n + 1}" for n in range(TOWER_LAYERS)}
    classes = "_prediction_heads/class_predictions_with_background/_class_predictor_layers/0"
    return named | {
        _BOXES: f"{_PREDICTOR}_box_prediction_head/_box_encoder_layers/0",
        _CLASSES: _PREDICTOR + classes,
    }


def _opened(prefix: Path):
    """A reader of the checkpoint, and the shapes of all that it holds by name."""
    _keras.prepare()
    import tensorflow

    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        return reader, reader.get_variable_to_shape_map()
    except (tensorflow.errors.OpError, ValueError, RuntimeError) as error:
        raise _damaged(prefix, error) from None


def _read(reader, key: str, prefix: Path) -> np.ndarray:
    import tensorflow

    try:
        return reader.get_tensor(key)
    except (tensorflow.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise _damaged(prefix, error) from None


def _converted(layer, part: str, array: np.ndarray, anchor_count: int) -> np.ndarray | None:
    """What of the zoo's array is put into our layer; None where nothing fits."""
    if part not in ("pointwise_kernel", "bias") or layer.name not in (_BOXES, _CLASSES):
        return array
    if array.shape[-1] % anchor_count:
        return array  # has another shape, as will be said
    each = array.reshape(*array.shape[:-1], anchor_count, -1)
    if layer.name == _CLASSES:
        each = each[..., 1:]
        return each.reshape(*array.shape[:-1], -1) if each.shape[-1] * anchor_count == layer.filters else None
    return (each @ _EDGES_OF_CODE).reshape(array.shape) if each.shape[-1] == 4 else array


def _missing(prefix: Path, key: str, shapes: dict) -> WeightsError:
    there = ", ".join(sorted(name.removesuffix(_VALUE) for name in shapes if name.startswith(_ROOT))[:3])
    return WeightsError(
        f"{prefix}: has no {key.removesuffix(_VALUE)}; it holds {there or 'no model'} ... Expected a checkpoint of the "
        "TensorFlow 2 detection zoo's ssd_mobilenet_v2_fpnlite, or one that was trained on from it"
    )


def _check_shape(prefix: Path, key: str, found: tuple, layer: str, expected: tuple) -> None:
    if tuple(found) != expected:
        raise WeightsError(
            f"{prefix}: {key.removesuffix(_VALUE)} has the shape {tuple(found)}, layer {layer} expects {expected}; "
            "the zoo's has alpha 1, 2 scales and 3 ratios: build the network so, or start from another file"
        )


def _damaged(prefix: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{prefix}: not readable as a TensorFlow checkpoint ({error}); copy or download it again")


def _part(weight) -> str:
    """``kernel`` of ``Conv1/kernel:0``."""
    return weight.name.rpartition("/")[2].partition(":")[0]


def _is_of_model(key: str) -> bool:
    """Not of the optimizer, nor what is counted along the way."""
    return key.startswith(_ROOT) and ".OPTIMIZER_SLOT" not in key and key.endswith(_VALUE)
