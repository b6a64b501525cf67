"""MobileNetV2 as a classifier of cut-out faces: the second stage of the two-stage recipe.

A detector whose images are faces, each with one box that covers it; so it is trained, kept and resumed as the others
are. MobileNetV2 is https://arxiv.org/abs/1801.04381, as keras.applications builds it; on top are a pooling, dense
layers with dropout, and a number for each class.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinamask.dataset import images
from retinamask.dataset.crops import MARGIN
from retinamask.detectors import _keras, mobilenet_v2_fpnlite
from retinamask.detectors.detector import Detector
from retinamask.detectors.replayed_dropout import replayed_dropout
from retinamask.detectors.retinanet import NORMALISATIONS
from retinamask.detectors.starting_weights import WeightsError

POOLINGS = ("average", "max")
CLASSIFIER_LOSSES = ("categorical", "binary")
BLOCKS = 18
"""Blocks of MobileNetV2: the first convolution and 17 blocks of three, with the last convolution in the last one."""

_OWN_LAYERS = re.compile(r"classifier_")  # the rest is the backbone
_LOSS = "classification_loss"


@dataclass(frozen=True)
class MaskClassifierSettings:
    """All that is needed, with the classes, to build the same network again.

    Attributes:
        image_height, image_width: of the input in pixels; a face is stretched to it, as the published recipes do:
            padding would tell the network how long its images are, which in class folders often tells the class.
        alpha: width of the backbone, see `mobilenet_v2_fpnlite.ALPHAS` for those with ImageNet weights.
        pooling: what makes one number of each channel, ``average`` or ``max``.
        dense: units of each dense layer between pooling and answer.
        dropout: share of the inputs of each of them, and of the answer, that an update does not see.
        loss: ``categorical`` (softmax over the classes) or ``binary`` (one number for the second of two classes).
        class_weights: how much an image of each class counts, by id; empty is 1 for all.
        fine_tune_blocks: how many of the `BLOCKS`, from the last, learn when the backbone does not rest and
            normalisation is frozen; 0 lets it rest for good. With live normalisation all learn.
        normalisation: ``frozen`` (batch normalisation keeps its pretrained statistics) or ``live`` (it learns them:
            needed when the weights start from random numbers).
        momentum: share of the old moving average that each step keeps, for ``live`` only.
        margin: around the faces that it is trained on and asked about, see `retinamask.dataset.crops.crop`.
    """

    image_height: int = 224
    image_width: int = 224
    alpha: float = 1.0
    pooling: str = "average"
    dense: tuple[int, ...] = (128,)
    dropout: float = 0.5
    loss: str = "categorical"
    class_weights: tuple[float, ...] = ()
    fine_tune_blocks: int = 4
    normalisation: str = "frozen"
    momentum: float = 0.9
    margin: float = MARGIN

    def __post_init__(self):
        for side in ("image_height", "image_width"):
            if not 32 <= getattr(self, side) <= 1024:
                raise ValueError(f"{side} is {getattr(self, side)}, expected 32 to 1024 pixels")
        for name, low, high in (
            ("alpha", 0.1, 4), ("dropout", 0, 0.95), ("fine_tune_blocks", 0, BLOCKS), ("momentum", 0.01, 0.9999),
            ("margin", 0, 5),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {low} to {high}")
        for name, choices in (("pooling", POOLINGS), ("loss", CLASSIFIER_LOSSES), ("normalisation", NORMALISATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {' or '.join(choices)}")
        if any(units < 1 for units in self.dense):
            raise ValueError(f"dense is {self.dense}, expected a number of units for each layer, at least 1")
        if any(not 0 < weight < 1e6 for weight in self.class_weights):
            raise ValueError(f"class_weights are {self.class_weights}, expected numbers above 0")


class MaskClassifier(Detector):
    """MobileNetV2 with a small head: its settings and classes; networks are built on request."""

    name = "mask_classifier"
    Settings = MaskClassifierSettings
    preprocessing = "tf_rgb"
    normalisation_by_weights = True
    classifies = True
    published = ("imagenet",)

    def __init__(self, classes: dict[str, int], settings: MaskClassifierSettings):
        super().__init__(classes, settings)
        if len(classes) < 2:
            raise ValueError(f"a classifier of {', '.join(classes) or 'nothing'}; expected at least two classes")
        if settings.loss == "binary" and len(classes) != 2:
            raise ValueError(f"loss is 'binary' with the {len(classes)} classes {', '.join(classes)}; take categorical")
        if settings.class_weights and len(settings.class_weights) != len(classes):
            raise ValueError(f"class_weights are {settings.class_weights}, expected one for each of {list(classes)}")

    def scale(self, size_wh: tuple[int, int]) -> float:
        """Resized size / original size of a face that is fitted into the input, to be stretched then."""
        return min(self.settings.image_width / size_wh[0], self.settings.image_height / size_wh[1])

    def batch(self, resized_rgb: list[np.ndarray]) -> np.ndarray:
        """Resized faces stretched to the input and normalised, ``float32`` ``(N, height, width, 3)``."""
        stretched = [images.stretch(image, self.canvas_wh([])) for image in resized_rgb]
        return np.stack([images.normalise(image, self.preprocessing) for image in stretched])

    def canvas_wh(self, sizes_wh: list[tuple[int, int]]) -> tuple[int, int]:
        """Width and height of the network's input, whatever the images are."""
        return self.settings.image_width, self.settings.image_height

    def network(self, seed: int | None = None):
        """The training network: image in, logits ``(N, classes)``, or ``(N, 1)`` for the loss ``binary``, out.

        Random weights, the same for the same ``seed``. The backbone's layers have keras.applications' names, all
        others begin with ``classifier_``.
        """
        keras = _keras.prepare()
        if seed is not None:
            keras.utils.set_random_seed(seed)
        chosen = self.settings
        inputs = keras.layers.Input((chosen.image_height, chosen.image_width, 3), name="image")
        features = mobilenet_v2_fpnlite.backbone(inputs, chosen.alpha, chosen.momentum).output
        network = keras.Model(inputs, self._head(keras, features, seed or 0), name=self.name)
        self.rest_backbone(network, resting=False)  # freezes what the settings say
        return network

    def inference_network(self, network):
        """``network`` with its logits turned into probabilities ``(N, classes)``, sharing its weights."""
        keras = _keras.prepare()
        logits = keras.layers.Activation("linear", dtype="float32", name="classifier_float32")(network.output)
        if self.settings.loss == "categorical":
            probabilities = keras.layers.Softmax(dtype="float32", name="classifier_probabilities")(logits)
        else:
            second = keras.layers.Activation("sigmoid", dtype="float32", name="classifier_second")(logits)
            first = keras.layers.Rescaling(-1.0, 1.0, dtype="float32", name="classifier_first")(second)
            probabilities = keras.layers.Concatenate(name="classifier_probabilities")([first, second])
        return keras.Model(network.input, probabilities)

    def targets(self, boxes, labels, sizes_wh, canvas_wh: tuple[int, int]) -> dict:
        """In the graph: ``label`` ``(N,)``, the class id of each image's first box, -1 where there is none."""
        return {"label": labels[:, 0]}

    def counts(self, batch: dict) -> dict:
        """In the graph: the weights of the images that have a class, by which the loss is divided."""
        import tensorflow

        return {_LOSS: tensorflow.reduce_sum(self._weights(batch["label"]))}

    def losses(self, outputs, batch: dict) -> dict:
        """In the graph: the cross-entropy of each image times the weight of its class, summed."""
        import tensorflow

        labels = tensorflow.maximum(batch["label"], 0)
        logits = tensorflow.cast(outputs, tensorflow.float32)
        if self.settings.loss == "categorical":
            each = tensorflow.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        else:
            each = tensorflow.nn.sigmoid_cross_entropy_with_logits(tensorflow.cast(labels, logits.dtype), logits[:, 0])
        return {_LOSS: tensorflow.reduce_sum(each * self._weights(batch["label"]))}

    def rest_backbone(self, network, resting: bool) -> None:
        """Keep the whole backbone as it is (phase one), or let its last blocks learn (phase two)."""
        keras = _keras.prepare()
        live = self.settings.normalisation == "live"
        first = 0 if live else BLOCKS - self.settings.fine_tune_blocks
        block = 0
        for layer in network.layers:
            if _OWN_LAYERS.match(layer.name):
                continue
            block = _block_of(layer.name, block)
            normalises = isinstance(layer, keras.layers.BatchNormalization)
            layer.trainable = not resting and block >= first and (live or not normalises)

    def published_weights(self, name: str) -> Path:
        """See `Detector.published_weights`; ``imagenet`` is what keras.applications downloads, into the same place."""
        if name != "imagenet":
            raise WeightsError(f"no {name} weights are published for {self.name}; take imagenet, a file, or none")
        return mobilenet_v2_fpnlite.imagenet_weights(float(self.settings.alpha))

    def _head(self, keras, features, seed: int):
        chosen = self.settings
        pool = {"average": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}[chosen.pooling]
        tensor = pool(name="classifier_pooling")(features)
        for number, units in enumerate(chosen.dense):
            tensor = self._dropped(tensor, seed, number)
            hidden = keras.layers.Dense(units, "relu", kernel_initializer="he_normal", name=f"classifier_{number}")
            tensor = hidden(tensor)
        outputs = 1 if chosen.loss == "binary" else len(self.classes)
        return keras.layers.Dense(outputs, name="classifier_logits")(self._dropped(tensor, seed, len(chosen.dense)))

    def _dropped(self, tensor, seed: int, number: int):
        rate = self.settings.dropout
        return (
            replayed_dropout(rate, (seed + number) % 2**31, f"classifier_dropout_{number}")(tensor) if rate else tensor
        )

    def _weights(self, labels):
        """How much each image counts, 0 where it has no class."""
        import tensorflow

        each = tensorflow.constant(self.settings.class_weights or (1.0,) * len(self.classes), tensorflow.float32)
        known = tensorflow.cast(labels >= 0, tensorflow.float32)
        return tensorflow.gather(each, tensorflow.maximum(labels, 0)) * known


def balanced_weights(labels: Iterable[str], classes: dict[str, int]) -> tuple[float, ...]:
    """Weights with which all classes count the same: images / (classes x images of the class), by id.

    As scikit-learn's ``balanced``, of King and Zeng, *Logistic Regression in Rare Events Data*, 2001.

    Raises:
        ValueError: a class has no image.
    """
    labels = list(labels)
    counts = {name: labels.count(name) for name in sorted(classes, key=classes.get)}
    if not all(counts.values()):
        raise ValueError(f"no image of {', '.join(name for name in counts if not counts[name])}; add some")
    return tuple(len(labels) / (len(classes) * count) for count in counts.values())


def _block_of(name: str, before: int) -> int:
    """The block that a layer of keras.applications' MobileNetV2 is in, given that of the layer before it."""
    if numbered := re.match(r"block_(\d+)_", name):
        return int(numbered[1]) + 1
    return 1 if name.startswith("expanded_conv") else before
