"""SSD MobileNet V2 FPNLite as the TensorFlow 2 detection zoo has it, trained here; it says what differs from RetinaNet.

The published recipe is ``ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8``. Its trainer, the TensorFlow Object Detection
API, is unmaintained. Network, anchors, losses and weight penalty are those of its configuration; targets, decoding and
training are ours and those of keras-retinanet. So these differ from the original:

- An image keeps its proportions and is padded; there it is stretched into the square.
- Boxes are learnt as offsets of their edges in fifths of the anchor, not as centre and logarithm of the size.
- An anchor is to find a box from an overlap of 0.5 on, and is ignored above 0.4. There nothing is ignored, and a box
  that no anchor overlaps so much still gets the best one.
- At sizes that 128 does not divide, the original's grids of P6 or P7 start at the edge of the image, ours at half a
  stride from it.

The zoo's checkpoints are those of ``tf.train.Checkpoint``: a variable is named by the attributes that lead to it from
the root, here those of the classes of the TensorFlow Object Detection API (``research/object_detection`` of
https://github.com/tensorflow/models). Only arrays are read.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from retinamask.detectors import _keras, mobilenet_v2_fpnlite
from retinamask.detectors.mobilenet_v2_fpnlite import LEVELS, TOWER_LAYERS
from retinamask.detectors.retinanet import MOMENTUM, NORMALISATIONS, RetinaNet
from retinamask.detectors.starting_weights import Loaded, WeightsError, load_by_name
from retinamask.setting import check_settings, setting

LOCALIZATIONS = {"huber": 1.0, "smooth_l1": 3.0}
"""Losses of the offsets, and the sigma with which keras-retinanet's smooth L1 is that loss.

``huber`` is the zoo's: a parabola below 1, that is a fifth of the anchor's side; ``smooth_l1`` is keras-retinanet's
own, a line from a ninth of that on.
"""

ZOO_URL = (
    "http://download.tensorflow.org/models/object_detection/tf2/20200711/"
    "ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8.tar.gz"
)

_CODE_SIZE = 4  # numbers that say where a box is; the zoo divides the localization loss by it

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_ROOT = "model/"
_BLOCKS = 16  # of MobileNetV2 after the first, which does not widen
_BOXES, _CLASSES = "head_boxes", "head_classes"
_FEATURES = "model/_feature_extractor/"
_PREDICTOR = "model/_box_predictor/"

# The zoo codes a box as y, x, log height and log width of its middle against the anchor, times 10, 10, 5 and 5;
# keras-retinanet as its edges, left, top, right and bottom, times 5. To first order one is a matrix times the other.
_EDGES_OF_CODE = np.float32([[0, 0.5, 0, 0.5], [0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5], [-0.5, 0, 0.5, 0]])


@dataclass(frozen=True)
class SSDMobileNetV2FPNLiteSettings:
    """All that is needed, with the classes, to build the same network again.

    The zoo has image sizes of 320 and 640, and a momentum of 0.997, for 50,000 steps. On photographs, from ImageNet
    weights, live normalisation learnt far faster: AP50 0.94 against 0.57 after 400 updates.
    """

    image_size: int = setting(640, "images are fitted into a square of this side, a multiple of 32 pixels", 64, 4096)
    alpha: float = setting(1.0, mobilenet_v2_fpnlite.ALPHA_HELP, 0.1, 4)
    normalisation: str = setting(
        "live", "batch normalisation of the backbone; frozen is for batches of one or two", choices=NORMALISATIONS
    )
    momentum: float = setting(0.9, **MOMENTUM)
    localization: str = setting("huber", "loss of the offsets", choices=tuple(LOCALIZATIONS))
    regularisation: float = setting(4e-5, "half of it times the sum of squares is the weight penalty", 0, 0.9999)
    # in the zoo's order; a size is the zoo's anchor scale of 4 times the stride
    ratios: tuple[float, ...] = setting((1.0, 0.5, 2.0), "height / width of the anchors at a place", 0.01, 100)
    scales: tuple[float, ...] = setting((1.0, 2**0.5), "relative sizes of them", 0.01, 100)
    sizes: tuple[int, ...] = setting((32, 64, 128, 256, 512), "anchor sizes of the levels P3 to P7 in pixels", 1)
    strides: tuple[int, ...] = setting((8, 16, 32, 64, 128), "strides of the levels in pixels", 1)
    max_side: ClassVar[int] = 0  # RetinaNet's other way of resizing is not for this network

    def __post_init__(self):
        check_settings(self)
        if self.image_size % 32:
            raise ValueError(f"image_size is {self.image_size}, expected a multiple of 32")


class SSDMobileNetV2FPNLite(RetinaNet):
    """The zoo's network on keras-retinanet's anchors, losses and decoding."""

    name = "ssd_mobilenet_v2_fpnlite"
    Settings = SSDMobileNetV2FPNLiteSettings
    normalisation_by_weights = False
    published = ("imagenet",)
    weight_files = "an .h5 file, or a checkpoint of TensorFlow's detection zoo"
    preprocessing = "tf_rgb"
    own_layers = re.compile(r"C[34]_reduced|P[3-7](_|$)|head_|regression|classification")

    @property
    def sigma(self) -> float:
        """Of smooth L1, see `RetinaNet`."""
        return LOCALIZATIONS[self.settings.localization]

    def network(self, seed: int | None = None):
        """See `RetinaNet.network`; the weights are drawn so that training from nothing works."""
        keras = _keras.prepare()
        if seed is not None:
            keras.utils.set_random_seed(seed)
        chosen = self.settings
        anchor_count = len(chosen.ratios) * len(chosen.scales)
        network = mobilenet_v2_fpnlite.build(
            len(self.classes), anchor_count, chosen.alpha, chosen.momentum, chosen.regularisation
        )
        self.freeze_backbone(network, frozen=False)  # freezes normalisation where the settings say so
        return network

    def losses(self, outputs, batch: dict) -> dict:
        """See `RetinaNet.losses`; as in the zoo, the offsets count for a quarter: one part for each of the four."""
        summed = super().losses(outputs, batch)
        return {**summed, "localization_loss": summed["localization_loss"] / _CODE_SIZE}

    def published_weights(self, name: str) -> Path:
        """See `Detector.published_weights`; ``imagenet`` is what keras.applications downloads, into the same place."""
        if name != "imagenet":
            raise WeightsError(
                f"the COCO weights are a checkpoint in an archive; unpack {ZOO_URL} and give the path "
                "<where>/checkpoint/ckpt-0 as weights"
            )
        return mobilenet_v2_fpnlite.imagenet_weights(float(self.settings.alpha))

    def load_file(self, network, path: Path) -> Loaded:
        """See `Detector.load_file`: an ``.h5``, of a backbone alone too, or a checkpoint of the TensorFlow 2 zoo."""
        checkpoint = checkpoint_of(path)
        return load_checkpoint(network, checkpoint) if checkpoint else load_by_name(network, path)


def checkpoint_of(path: Path) -> Path | None:
    """Give the name of a checkpoint without ``.index``, of that or the index file; None if there is no such file."""
    if path.suffix == ".index":
        path = path.with_suffix("")
    return path if path.with_name(f"{path.name}.index").is_file() else None


def checkpoint_names() -> dict[str, str]:
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


def load_checkpoint(network, prefix: Path) -> Loaded:
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
    for name, theirs in checkpoint_names().items():
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
