"""The layers and heads of a network that a Darknet ``.cfg`` describes; `cfg` makes them, the rest of the package reads.

Layers are counted as Darknet counts them: from 0, without ``[net]``.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Convolutional:
    """A convolution with its normalisation and activation; padded by ``size // 2`` on all sides."""

    index: int
    line: int
    source: int
    """Index of the layer it reads; -1 for the image."""
    in_channels: int
    filters: int
    size: int
    stride: int
    batch_normalize: bool
    activation: str

    @property
    def parameters(self) -> int:
        """How many numbers a ``.weights`` file holds for it."""
        return self.filters * (self.in_channels * self.size**2 + (4 if self.batch_normalize else 1))


@dataclass(frozen=True)
class Route:
    """Earlier layers, one behind the other; or of the channels of one the part ``group_id`` of ``groups``."""

    index: int
    line: int
    sources: tuple[int, ...]
    groups: int
    group_id: int


@dataclass(frozen=True)
class MaxPool:
    """The largest of each 2 x 2 pixels."""

    index: int
    line: int
    source: int


@dataclass(frozen=True)
class Upsample:
    """Each pixel becomes ``stride`` x ``stride``."""

    index: int
    line: int
    source: int
    stride: int


@dataclass(frozen=True)
class Yolo:
    """Where a head ends: the convolution ``source`` gives its raw map."""

    index: int
    line: int
    source: int


@dataclass(frozen=True, eq=False)
class Head:
    """What a ``[yolo]`` section says; option names of the file in brackets where ours differ.

    ``anchors_wh`` are those of ``mask``, ``all_anchors_wh`` those of all heads, in pixels of the input whatever its
    size. ``iou_threshold`` (iou_thresh): further anchors whose shape fits a box better than this learn it too.
    """

    anchors_wh: np.ndarray
    all_anchors_wh: np.ndarray
    mask: tuple[int, ...]
    class_count: int
    stride: int
    scale_x_y: float
    ignore_threshold: float
    iou_threshold: float
    iou_normalizer: float
    objectness_normalizer: float
    class_normalizer: float


@dataclass(frozen=True, eq=False)
class Network:
    """A checked ``.cfg``. ``layers`` are its sections without ``[net]``, in order; ``text`` describes the same.

    ``ignored`` names the options in the file that are known and not read: Darknet's training has them.
    """

    image_size: int
    layers: tuple[Convolutional | Route | MaxPool | Upsample | Yolo, ...]
    heads: tuple[Head, ...]
    class_count: int
    ignored: tuple[str, ...]
    text: str

    @property
    def convolutions(self) -> tuple[Convolutional, ...]:
        """The layers that have weights, in the order of a ``.weights`` file."""
        return tuple(layer for layer in self.layers if isinstance(layer, Convolutional))

    @property
    def last_convolutions(self) -> tuple[Convolutional, ...]:
        """The convolution in front of each ``[yolo]``, in the order of ``heads``."""
        return tuple(self.layers[layer.source] for layer in self.layers if isinstance(layer, Yolo))
