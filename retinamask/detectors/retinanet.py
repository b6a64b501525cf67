"""RetinaNet: keras-retinanet's network, anchors, targets, losses and decoding.

Lin et al., *Focal Loss for Dense Object Detection*, https://arxiv.org/abs/1708.02002. Everything is
keras-retinanet's own, as installed from PyPI; this file says how it is put together.
"""

import re
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from retinamask.dataset import anchors, images
from retinamask.detectors import _keras
from retinamask.detectors.anchor_targets import AnchorMatcher
from retinamask.detectors.detector import Detector
from retinamask.detectors.starting_weights import WeightsError, downloaded, downloaded_from

BACKBONES = {
    **dict.fromkeys(["resnet50", "resnet101", "resnet152", "vgg16", "vgg19"], "caffe"),
    **dict.fromkeys(["densenet121", "densenet169", "densenet201"], "tf"),
    **{f"mobilenet{side}_{alpha}": "tf" for side in (128, 160, 192, 224) for alpha in ("0.25", "0.5", "0.75", "1.0")},
}
"""Backbones of keras-retinanet that run on this TensorFlow, and how each wants its images normalised."""

COCO_URLS = {
    "resnet50": "https://github.com/fizyr/keras-retinanet/releases/download/0.5.1/resnet50_coco_best_v2.1.0.h5",
}

NORMALISATIONS = ("frozen", "live")
LOSSES = ("localization_loss", "classification_loss")


@dataclass(frozen=True)
class RetinaNetSettings:
    """All that is needed, with the classes, to build the same network again.

    Attributes:
        backbone: one of `BACKBONES`.
        image_size: side in pixels of the square that an image is fitted into, or with max_side of its shorter side.
        max_side: resize as keras-retinanet does, the longer side to this many pixels at most; 0 for a square.
        normalisation: frozen (batch normalisation keeps its pretrained statistics, as keras-retinanet always has it) or
            live (it learns them: needed when the weights start from random numbers).
        momentum: share of the old moving average that each step keeps, for live only.
        ratios, scales: height / width and relative size of the anchors at a place.
        sizes, strides: anchor sizes and strides of the pyramid levels P3 to P7 in pixels.
    """

    backbone: str = "resnet50"
    image_size: int = 512
    max_side: int = 0
    normalisation: str = "frozen"
    momentum: float = 0.9
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    scales: tuple[float, ...] = (2**0, 2 ** (1 / 3), 2 ** (2 / 3))
    sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)

    def __post_init__(self):
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone is {self.backbone!r}, expected one of: {', '.join(BACKBONES)}")
        if not 64 <= self.image_size <= 4096:
            raise ValueError(f"image_size is {self.image_size}, expected 64 to 4096 pixels")
        if self.max_side and self.max_side < self.image_size:
            raise ValueError(f"max_side is {self.max_side}, expected 0 or at least image_size ({self.image_size})")
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(f"normalisation is {self.normalisation!r}, expected {' or '.join(NORMALISATIONS)}")
        if not 0 < self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}, expected a number between 0 and 1")


class RetinaNet(Detector):
    """keras-retinanet's RetinaNet: its settings and classes; networks are built on request."""

    name = "retinanet"
    Settings = RetinaNetSettings
    normalisation_by_weights = True
    published = ("imagenet", "coco")
    unreached = "reach no anchor (none overlaps them by half) and are never learnt: take a larger image_size"
    sigma = 3.0  # of smooth L1, which is a parabola below 1 / sigma ** 2
    own_layers = re.compile(r"C[345]_reduced|P[3-7](_|$)|C6_relu|regression|classification")  # the rest is the backbone

    @property
    def preprocessing(self) -> str:
        """How pixels are normalised: a name in `retinamask.dataset.images.PREPROCESSINGS`."""
        return BACKBONES[self.settings.backbone]

    def scale(self, size_wh: tuple[int, int]) -> float:
        """Resized size / original size of an image."""
        if self.settings.max_side:
            return images.sides_scale(size_wh, self.settings.image_size, self.settings.max_side)
        return images.fit_scale(size_wh, self.settings.image_size)

    def batch(self, resized_rgb: list[np.ndarray]) -> np.ndarray:
        """Resized images normalised and laid into one network input, ``float32`` ``(N, height, width, 3)``."""
        side = self.settings.image_size
        normalised = [images.normalise(image, self.preprocessing) for image in resized_rgb]
        return images.pad(normalised, None if self.settings.max_side else (side, side))

    def network(self, seed: int | None = None):
        """The training network: image in, ``regression`` and ``classification`` of every anchor out.

        Random weights, the same for the same ``seed``; with ``live`` normalisation they are drawn so that
        training from nothing works.
        """
        keras = _keras.prepare()
        if seed is not None:
            keras.utils.set_random_seed(seed)
        from keras_retinanet import models

        live = self.settings.normalisation == "live"
        with warnings.catch_warnings():
            # keras-retinanet gives one unseeded initializer to several layers, which then start out equal.
            # Not so here: the weights of the heads are drawn anew below.
            warnings.filterwarnings("ignore", message="The initializer RandomNormal is unseeded")
            if live and self.settings.backbone.startswith("resnet"):
                network = self._live_resnet(keras)
            else:
                backbone = models.backbone(self.settings.backbone)
                network = backbone.retinanet(len(self.classes), num_anchors=self._num_anchors())
        _draw_heads(network, keras.initializers.HeNormal if live else _focal_loss_initializer)
        if not live:
            for layer in network.layers:  # keras-retinanet freezes only its ResNets
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False
        if live:
            _ready_for_training_from_nothing(network, self.settings.momentum)
        return network

    def inference_network(self, network, score_threshold: float = 0.05, nms_threshold: float = 0.5):
        """``network`` with decoding and NMS behind it, sharing its weights.

        Outputs boxes ``(N, 300, 4)`` in input pixels, scores and labels ``(N, 300)``, padded with -1.
        """
        _keras.prepare()
        from keras_retinanet.models import convert_model

        return convert_model(
            network,
            anchor_params=self._anchor_parameters(),
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
        )

    def canvas_wh(self, sizes_wh: list[tuple[int, int]]) -> tuple[int, int]:
        """Width and height of network input that holds resized images of these sizes."""
        side = self.settings.image_size
        if not self.settings.max_side:
            return side, side
        return max(width for width, _ in sizes_wh), max(height for _, height in sizes_wh)

    def targets(self, boxes, labels, sizes_wh, canvas_wh: tuple[int, int]) -> dict:
        """In the graph: what each anchor should say, compactly.

        Args:
            boxes: ``(N, M, 4)`` in input pixels.
            labels: ``(N, M)`` class ids, -1 for rows that only fill up.
            sizes_wh: ``(N, 2)``, the part of each image that is not padding.
            canvas_wh: width and height of the input.

        Returns:
            ``matched`` ``(N, anchors)``: index of the box, or `BACKGROUND` or `IGNORED` of `anchor_targets`.
        """
        return {"matched": self._matcher.match(boxes, labels, sizes_wh, canvas_wh)}

    def reached(self, boxes_xyxy: np.ndarray, of_image: np.ndarray, sizes_wh: np.ndarray) -> np.ndarray:
        """See `Detector.reached`: whether some anchor overlaps the box by half."""
        chosen = self.settings
        own = anchors.Anchors(chosen.sizes, chosen.strides, chosen.ratios, chosen.scales)
        return anchors.best_overlaps(boxes_xyxy, sizes_wh, own) >= anchors.POSITIVE_OVERLAP

    def counts(self, batch: dict) -> dict:
        """In the graph: the anchors with an object, by which both losses are divided."""
        import tensorflow

        positives = tensorflow.math.count_nonzero(batch["matched"] >= 0, dtype=tensorflow.float32)
        return dict.fromkeys(LOSSES, positives)

    def losses(self, outputs, batch: dict) -> dict:
        """In the graph: smooth L1 of the offsets and focal loss (alpha 0.25, gamma 2) of the classes, summed.

        Both are keras-retinanet's, which divides by the objects it sees; that is undone here, because only the
        caller knows the whole batch.
        """
        import tensorflow
        from keras_retinanet import losses

        regression, classification = (tensorflow.cast(output, tensorflow.float32) for output in outputs)
        offsets, classes = self.dense_targets(batch)
        positives = tensorflow.maximum(1.0, self.counts(batch)["localization_loss"])
        return {
            "localization_loss": losses.smooth_l1(self.sigma)(offsets, regression) * positives,
            "classification_loss": losses.focal()(classes, classification) * positives,
        }

    def dense_targets(self, batch: dict) -> tuple:
        """In the graph: the targets of a batch as keras-retinanet's losses read them.

        Returns:
            ``(N, anchors, 5)`` for the offsets and ``(N, anchors, classes + 1)`` for the classes; the last column is
            the anchor's state: 1 object, 0 background, -1 ignored.
        """
        canvas_wh = batch["images"].shape[2], batch["images"].shape[1]
        return self._matcher.dense(batch["matched"], batch["boxes"], batch["labels"], len(self.classes), canvas_wh)

    def rest_backbone(self, network, resting: bool) -> None:
        """Keep the backbone's weights as they are, or let it learn again; what is always frozen stays so."""
        keras = _keras.prepare()
        frozen = self.settings.normalisation == "frozen"
        for layer in network.layers:
            if not self.own_layers.match(layer.name):
                normalises = isinstance(layer, keras.layers.BatchNormalization)
                layer.trainable = not resting and not (normalises and frozen)

    def published_weights(self, name: str) -> Path:
        """See `Detector.published_weights`; into Keras's cache, ~/.keras/models."""
        backbone = self.settings.backbone
        if name == "imagenet":
            from keras_retinanet import models

            # keras-retinanet checks the MD5 that it knows for each file.
            return downloaded(models.backbone(backbone).download_imagenet, f"ImageNet weights for {backbone}")
        if backbone not in COCO_URLS:
            raise WeightsError(f"COCO weights are published for {', '.join(COCO_URLS)}, not for {backbone}")
        return downloaded_from(COCO_URLS[backbone], f"COCO weights for {backbone}")

    @cached_property
    def _matcher(self) -> AnchorMatcher:
        chosen = self.settings
        return AnchorMatcher(chosen.sizes, chosen.strides, chosen.ratios, chosen.scales)

    def _anchor_parameters(self):
        from keras_retinanet.utils.anchors import AnchorParameters

        chosen = self.settings
        ratios, scales = (np.array(values, np.float32) for values in (chosen.ratios, chosen.scales))
        return AnchorParameters(list(chosen.sizes), list(chosen.strides), ratios, scales)

    def _num_anchors(self) -> int:
        return len(self.settings.ratios) * len(self.settings.scales)

    def _live_resnet(self, keras):
        """As `keras_retinanet.models.resnet.resnet_retinanet`, which always freezes normalisation."""
        import keras_resnet.models
        from keras_retinanet.models.retinanet import retinanet

        resnet = getattr(keras_resnet.models, self.settings.backbone.replace("resnet", "ResNet"))
        inputs = keras.layers.Input(shape=(None, None, 3))
        backbone = resnet(inputs, include_top=False, freeze_bn=False)
        stages = dict(zip(("C2", "C3", "C4", "C5"), backbone.outputs, strict=True))
        return retinanet(inputs, stages, len(self.classes), num_anchors=self._num_anchors())


def _focal_loss_initializer():
    """What the RetinaNet paper draws its heads from, section 4.1."""
    return _keras.prepare().initializers.RandomNormal(stddev=0.01)


def _draw_heads(network, initializer) -> None:
    """Draw the hidden convolutions of both heads, each from an initializer of its own."""
    keras = _keras.prepare()
    for name in ("regression_submodel", "classification_submodel"):
        hidden = [layer for layer in network.get_layer(name).layers if isinstance(layer, keras.layers.Conv2D)][:-1]
        for layer in hidden:
            layer.kernel.assign(initializer()(layer.kernel.shape))


def _ready_for_training_from_nothing(network, momentum: float) -> None:
    """Set the batch normalisation so that a short training from random numbers gets somewhere.

    Moving averages with Keras's momentum of 0.99 lag behind in a run of a few hundred steps. Each residual
    branch starts at zero (Goyal et al., https://arxiv.org/abs/1706.02677, section 5.1). The heads are drawn
    with He et al.'s deviation (https://arxiv.org/abs/1502.01852): with the usual 0.01, a third of that, hardly
    anything of the features is left after four convolutions.
    """
    keras = _keras.prepare()
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
            if layer.name.endswith("_branch2c"):
                layer.gamma.assign(np.zeros(layer.gamma.shape))
