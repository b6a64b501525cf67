"""RetinaNet: keras-retinanet's network, anchors, targets, losses and decoding.

Lin et al., *Focal Loss for Dense Object Detection*, https://arxiv.org/abs/1708.02002. Everything is
keras-retinanet's own, as installed from PyPI; this file says how it is put together.
"""

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retinamask.dataset import images
from retinamask.detectors import _keras

BACKBONES = {
    **dict.fromkeys(["resnet50", "resnet101", "resnet152", "vgg16", "vgg19"], "caffe"),
    **dict.fromkeys(["densenet121", "densenet169", "densenet201"], "tf"),
    **{f"mobilenet{side}_{alpha}": "tf" for side in (128, 160, 192, 224) for alpha in ("0.25", "0.5", "0.75", "1.0")},
}
"""Backbones of keras-retinanet that run on this TensorFlow, and how each wants its images normalised."""

NORMALISATIONS = ("frozen", "live")


@dataclass(frozen=True)
class RetinaNetSettings:
    """All that is needed, with the classes, to build the same network again.

    An image is fitted into a square of ``image_size`` pixels; with a ``max_side`` it is resized as
    keras-retinanet does, its shorter side to ``image_size`` but its longer one to ``max_side`` at most.
    ``normalisation`` is ``frozen`` (batch normalisation keeps its pretrained statistics, as keras-retinanet
    always has it) or ``live`` (it learns them: needed when the weights start from random numbers).
    ``momentum`` is the share of the old moving average that each step keeps, for ``live`` only.
    Anchor sizes and strides are those of the pyramid levels P3 to P7; ratios and scales may be changed.
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


class RetinaNet:
    """One RetinaNet: its settings and classes; networks are built on request."""

    name = "retinanet"

    def __init__(self, classes: dict[str, int], settings: RetinaNetSettings):
        self.classes = dict(sorted(classes.items(), key=lambda item: item[1]))
        self.settings = settings
        self._anchors: dict[tuple[int, int], np.ndarray] = {}

    @classmethod
    def from_record(cls, classes: dict[str, int], record: dict[str, Any]) -> "RetinaNet":
        """The detector that a snapshot's JSON describes."""
        known = RetinaNetSettings.__dataclass_fields__
        unknown = sorted(set(record) - set(known))
        if unknown:
            raise ValueError(f"unknown RetinaNet setting {', '.join(unknown)}; known are {', '.join(known)}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
        return cls(classes, RetinaNetSettings(**values))

    def record(self) -> dict[str, Any]:
        """The settings as plain JSON values, the inverse of `from_record`."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self.settings).items()}

    @property
    def preprocessing(self) -> str:
        """How pixels are normalised: a mode of `retinamask.dataset.images.normalise`."""
        return BACKBONES[self.settings.backbone]

    def prepare(self, images_rgb: list[np.ndarray]) -> tuple[np.ndarray, list[float]]:
        """Images of any size to one network input, and the scale of each.

        Args:
            images_rgb: ``uint8`` arrays of shape ``(height, width, 3)``.

        Returns:
            ``float32`` of shape ``(N, height, width, 3)``, and resized size / original size.
        """
        scales = [self.scale(image.shape[1::-1]) for image in images_rgb]
        resized = [images.resize(image, scale) for image, scale in zip(images_rgb, scales, strict=True)]
        return self.batch(resized), scales

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

    def network(self, freeze_backbone: bool = False, seed: int | None = None):
        """The training network: image in, ``regression`` and ``classification`` of every anchor out.

        Random weights, the same for the same ``seed``; with ``live`` normalisation they are drawn so that
        training from nothing works.
        """
        keras = _keras.prepare()
        if seed is not None:
            keras.utils.set_random_seed(seed)
        from keras_retinanet import models
        from keras_retinanet.utils.model import freeze

        modifier = freeze if freeze_backbone else None
        live = self.settings.normalisation == "live"
        with warnings.catch_warnings():
            # keras-retinanet gives one unseeded initializer to several layers, which then start out equal.
            # Not so here: the weights of the heads are drawn anew below.
            warnings.filterwarnings("ignore", message="The initializer RandomNormal is unseeded")
            if live and self.settings.backbone.startswith("resnet"):
                network = self._live_resnet(keras, modifier)
            else:
                backbone = models.backbone(self.settings.backbone)
                network = backbone.retinanet(len(self.classes), num_anchors=self._num_anchors(), modifier=modifier)
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

    def losses(self) -> dict:
        """Smooth L1 (sigma 3) on the box offsets and focal loss (alpha 0.25, gamma 2) on the classes."""
        _keras.prepare()
        from keras_retinanet import losses

        return {"regression": losses.smooth_l1(), "classification": losses.focal()}

    def targets(
        self, batch: np.ndarray, sizes_wh: list[tuple[int, int]], boxes: list, labels: list
    ) -> list[np.ndarray]:
        """What the network should have answered for a batch.

        Args:
            batch: network input of shape ``(N, height, width, 3)``; only its shape is read.
            sizes_wh: the part of each image that is not padding.
            boxes: ``N`` arrays of shape ``(M, 4)`` in input pixels.
            labels: ``N`` arrays of ``M`` class ids.

        Returns:
            Regression targets ``(N, anchors, 5)`` and class targets ``(N, anchors, classes + 1)``; the last
            column is the anchor's state: 1 object, 0 background, -1 ignored.
        """
        _keras.prepare()
        from keras_retinanet.utils.anchors import anchor_targets_bbox

        # The reader of image_group looks at shapes alone, so views of the batch will do.
        shown = [image[:height, :width] for image, (width, height) in zip(batch, sizes_wh, strict=True)]
        objects = [{"bboxes": b, "labels": c} for b, c in zip(boxes, labels, strict=True)]
        return list(anchor_targets_bbox(self._anchors_for(batch.shape[1:3]), shown, objects, len(self.classes)))

    def _anchors_for(self, shape: tuple[int, int]) -> np.ndarray:
        from keras_retinanet.utils.anchors import anchors_for_shape

        if shape not in self._anchors:
            self._anchors[shape] = anchors_for_shape((*shape, 3), anchor_params=self._anchor_parameters())
        return self._anchors[shape]

    def _anchor_parameters(self):
        from keras_retinanet.utils.anchors import AnchorParameters

        chosen = self.settings
        ratios, scales = (np.array(values, np.float32) for values in (chosen.ratios, chosen.scales))
        return AnchorParameters(list(chosen.sizes), list(chosen.strides), ratios, scales)

    def _num_anchors(self) -> int:
        return len(self.settings.ratios) * len(self.settings.scales)

    def _live_resnet(self, keras, modifier):
        """As `keras_retinanet.models.resnet.resnet_retinanet`, which always freezes normalisation."""
        import keras_resnet.models
        from keras_retinanet.models.retinanet import retinanet

        resnet = getattr(keras_resnet.models, self.settings.backbone.replace("resnet", "ResNet"))
        inputs = keras.layers.Input(shape=(None, None, 3))
        backbone = resnet(inputs, include_top=False, freeze_bn=False)
        backbone = modifier(backbone) if modifier else backbone
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
