"""RetinaNet: keras-retinanet's network, anchors, targets, losses and decoding, as installed from PyPI.

Lin et al., *Focal Loss for Dense Object Detection*, https://arxiv.org/abs/1708.02002.
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
from retinamask.setting import check_settings, setting

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
MOMENTUM = {
    "text": "share of the old moving average that a step keeps, for live normalisation",
    "low": 0,
    "high": 0.9999,
}
LOSSES = ("localization_loss", "classification_loss")


@dataclass(frozen=True)
class RetinaNetSettings:
    """All that is needed, with the classes, to build the same network again."""

    backbone: str = setting("resnet50", "any that keras-retinanet has", choices=tuple(BACKBONES))
    image_size: int = setting(512, "images are fitted into a square of this side in pixels", 64, 4096)
    max_side: int = setting(
        0, "resize as keras-retinanet does: the shorter side to image_size, the longer to this at most; 0: a square", 0
    )
    normalisation: str = setting(
        "frozen",
        "batch normalisation keeps its pretrained statistics (frozen) or learns them (live); goes by the weights",
        choices=NORMALISATIONS,
    )
    momentum: float = setting(0.9, **MOMENTUM)
    ratios: tuple[float, ...] = setting((0.5, 1.0, 2.0), "height / width of the anchors at a place", 0.01, 100)
    scales: tuple[float, ...] = setting((2**0, 2 ** (1 / 3), 2 ** (2 / 3)), "relative sizes of them", 0.01, 100)
    sizes: tuple[int, ...] = setting((32, 64, 128, 256, 512), "anchor sizes of the levels P3 to P7 in pixels", 1)
    strides: tuple[int, ...] = setting((8, 16, 32, 64, 128), "strides of the levels in pixels", 1)

    def __post_init__(self):
        check_settings(self)
        if self.max_side and self.max_side < self.image_size:
            raise ValueError(f"max_side is {self.max_side}, expected 0 or at least image_size ({self.image_size})")


_OFFSET_DEVIATION = 0.2  # by which keras-retinanet divides the offsets that are learnt


class RetinaNet(Detector):
    """keras-retinanet's RetinaNet."""

    name = "retinanet"
    Settings = RetinaNetSettings
    normalisation_by_weights = True
    published = ("imagenet", "coco")
    unreached = "reach no anchor (none overlaps them by half) and are never learnt: take a larger image_size"
    sigma = 3.0  # of smooth L1, which is a parabola below 1 / sigma ** 2
    own_layers = re.compile(r"C[345]_reduced|P[3-7](_|$)|C6_relu|regression|classification")  # the rest is the backbone

    @property
    def preprocessing(self) -> str:
        """See `Detector`."""
        return BACKBONES[self.settings.backbone]

    def scale(self, size_wh: tuple[int, int]) -> float:
        """See `Detector.scale`; with ``max_side`` as keras-retinanet resizes."""
        if self.settings.max_side:
            return images.sides_scale(size_wh, self.settings.image_size, self.settings.max_side)
        return super().scale(size_wh)

    def network(self, seed: int | None = None):
        """Build the training network: image in, ``regression`` and ``classification`` of every anchor out.

        Random weights, the same for the same ``seed``; with ``live`` normalisation they are drawn so that
        training from nothing works.
        """
        keras = _keras.prepare()
        if seed is not None:
            keras.utils.set_random_seed(seed)
        from keras_retinanet import models

        chosen = self.settings
        live = chosen.normalisation == "live"
        with warnings.catch_warnings():
            # keras-retinanet gives one unseeded initializer to several layers, which then start out equal.
            # Not so here: the weights of the heads are drawn anew below.
            warnings.filterwarnings("ignore", message="The initializer RandomNormal is unseeded")
            if live and chosen.backbone.startswith("resnet"):
                network = self._live_resnet(keras)
            else:
                anchor_count = len(chosen.ratios) * len(chosen.scales)
                network = models.backbone(chosen.backbone).retinanet(len(self.classes), num_anchors=anchor_count)
        for name in ("regression_submodel", "classification_submodel"):
            layers = network.get_layer(name).layers
            for layer in [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)][:-1]:
                # The paper's section 4.1 draws with 0.01. Training from nothing takes He et al.'s deviation
                # (https://arxiv.org/abs/1502.01852), else hardly anything is left of the features after four of them.
                initializer = keras.initializers.HeNormal() if live else keras.initializers.RandomNormal(stddev=0.01)
                layer.kernel.assign(initializer(layer.kernel.shape))  # shared, it would make all kernels equal
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                if not live:
                    layer.trainable = False  # keras-retinanet freezes only its ResNets
                else:
                    layer.momentum = chosen.momentum  # Keras's 0.99 lags in a run of a few hundred steps
                    if layer.name.endswith("_branch2c"):  # Goyal et al., https://arxiv.org/abs/1706.02677, section 5.1
                        layer.gamma.assign(np.zeros(layer.gamma.shape))
        return network

    def inference_network(self, network, score_threshold: float = 0.05, nms_threshold: float = 0.5):
        """Add decoding and NMS to ``network``, sharing its weights.

        Outputs boxes ``(N, 300, 4)`` in input pixels, scores and labels ``(N, 300)``, padded with -1.
        """
        _keras.prepare()
        from keras_retinanet.models import convert_model
        from keras_retinanet.utils.anchors import AnchorParameters

        chosen = self.settings
        ratios, scales = (np.array(values, np.float32) for values in (chosen.ratios, chosen.scales))
        return convert_model(
            network,
            anchor_params=AnchorParameters(list(chosen.sizes), list(chosen.strides), ratios, scales),
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
        )

    def scores(self, outputs: list[np.ndarray]) -> np.ndarray:
        """Give the class scores of all anchors, ``(N, A, C)`` from 0 to 1, of what the training network puts out."""
        return outputs[1]

    def boxes(
        self, outputs: list[np.ndarray], image: int, places: np.ndarray, canvas_wh: tuple[int, int]
    ) -> np.ndarray:
        """Decode the boxes of some anchors of one image as keras-retinanet's ``RegressBoxes`` and ``ClipBoxes`` do.

        Args:
            outputs: of the training network.
            image: its number in the batch.
            places: numbers of the anchors, ``(K,)``.
            canvas_wh: width and height of the network's input.

        Returns:
            ``(K, 4)`` in pixels of the input, clipped to it.
        """
        anchors_xyxy = self._anchors.on_canvas(canvas_wh)[places]
        sides = np.tile(anchors_xyxy[:, 2:] - anchors_xyxy[:, :2], 2)
        found = anchors_xyxy + outputs[0][image][places] * np.float32(_OFFSET_DEVIATION) * sides
        return np.clip(found, 0, np.tile(np.float32(canvas_wh), 2) - 1)

    def canvas_wh(self, sizes_wh: list[tuple[int, int]]) -> tuple[int, int]:
        """See `Detector.canvas_wh`."""
        if not self.settings.max_side:
            return super().canvas_wh(sizes_wh)
        return max(width for width, _ in sizes_wh), max(height for _, height in sizes_wh)

    def targets(self, boxes, labels, sizes_wh, canvas_wh: tuple[int, int]) -> dict:
        """Say in the graph what each anchor should find, compactly.

        Arguments and ``matched`` ``(N, anchors)`` are those of `AnchorMatcher.match`.
        """
        return {"matched": self._matcher.match(boxes, labels, sizes_wh, canvas_wh)}

    def reached(self, boxes_xyxy: np.ndarray, of_image: np.ndarray, sizes_wh: np.ndarray) -> np.ndarray:
        """See `Detector.reached`: whether some anchor overlaps the box by half."""
        return anchors.best_overlaps(boxes_xyxy, sizes_wh, self._anchors) >= anchors.POSITIVE_OVERLAP

    def counts(self, batch: dict) -> dict:
        """Count in the graph the anchors with an object, by which both losses are divided."""
        import tensorflow as tf

        return dict.fromkeys(LOSSES, tf.math.count_nonzero(batch["matched"] >= 0, dtype=tf.float32))

    def losses(self, outputs, batch: dict) -> dict:
        """Sum in the graph smooth L1 of the offsets and focal loss (alpha 0.25, gamma 2) of the classes.

        Both are keras-retinanet's, which divides by the objects it sees; that is undone here, because only the
        caller knows the whole batch.
        """
        import tensorflow as tf
        from keras_retinanet import losses

        regression, classification = (tf.cast(output, tf.float32) for output in outputs)
        offsets, classes = self.dense_targets(batch)
        positives = tf.maximum(1.0, self.counts(batch)["localization_loss"])
        return {
            "localization_loss": losses.smooth_l1(self.sigma)(offsets, regression) * positives,
            "classification_loss": losses.focal()(classes, classification) * positives,
        }

    def dense_targets(self, batch: dict) -> tuple:
        """Give the targets of a batch as keras-retinanet's losses read them, see `AnchorMatcher.dense`."""
        canvas_wh = batch["images"].shape[2], batch["images"].shape[1]
        return self._matcher.dense(batch["matched"], batch["boxes"], batch["labels"], len(self.classes), canvas_wh)

    def freeze_backbone(self, network, frozen: bool) -> None:
        """Freeze the backbone, or unfreeze it; normalisation that is always frozen stays so."""
        keras = _keras.prepare()
        for layer in network.layers:
            if not self.own_layers.match(layer.name):
                normalises = isinstance(layer, keras.layers.BatchNormalization)
                layer.trainable = not frozen and not (normalises and self.settings.normalisation == "frozen")

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
    def _anchors(self) -> anchors.Anchors:
        chosen = self.settings
        return anchors.Anchors(chosen.sizes, chosen.strides, chosen.ratios, chosen.scales)

    @cached_property
    def _matcher(self) -> AnchorMatcher:
        chosen = self.settings
        return AnchorMatcher(chosen.sizes, chosen.strides, chosen.ratios, chosen.scales)

    def _live_resnet(self, keras):
        """As `keras_retinanet.models.resnet.resnet_retinanet`, which always freezes normalisation."""
        import keras_resnet.models
        from keras_retinanet.models.retinanet import retinanet

        chosen = self.settings
        resnet = getattr(keras_resnet.models, chosen.backbone.replace("resnet", "ResNet"))
        inputs = keras.layers.Input(shape=(None, None, 3))
        backbone = resnet(inputs, include_top=False, freeze_bn=False)
        stages = dict(zip(("C2", "C3", "C4", "C5"), backbone.outputs, strict=True))
        return retinanet(inputs, stages, len(self.classes), num_anchors=len(chosen.ratios) * len(chosen.scales))
