"""Read a Darknet ``.cfg`` and check it: the layers and heads that `network` and `weights` work from.

The file format is AlexeyAB's, https://github.com/AlexeyAB/darknet (``src/parser.c``); the layers are those of
YOLOv4-tiny and its variant with three heads. Anything else is refused, so that a network is never built differently
from what its file says. Layers are counted as Darknet counts them: from 0, without ``[net]``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinamask.detectors.darknet.sections import CfgError, Section, parse

__all__ = ["CfgError", "Convolutional", "Head", "Network", "Route", "Upsample", "Yolo", "describe", "read"]

SIDE_STEP = 32
"""Sides of the input are multiples of this, the stride of YOLOv4-tiny's coarsest head."""

MAX_CLASSES = 1000

_MAX_SIDE, _MAX_FILTERS = 4096, 4096
_MAX_BYTES = 1_000_000

_TRAINING_ONLY = {
    "net": "batch subdivisions time_steps momentum decay adam B1 B2 eps learning_rate learning_rate_min burn_in power "
    "max_batches policy steps scales seq_scales step scale gamma sgdr_cycle sgdr_mult angle aspect saturation exposure "
    "hue flip blur gaussian_noise mosaic mosaic_bound mixup cutmix letter_box max_crop min_crop resize_step "
    "dynamic_minibatch label_smooth_eps ema_alpha try_fix_nan loss_scale optimized_memory workspace_size_limit_MB",
    "yolo": "jitter random resize max nms_kind beta_nms show_details",
}
"""Options that do not change the network. The training here has settings of its own and does not read them."""
_KNOWN = {
    "net": "width height channels",
    "convolutional": "batch_normalize filters size stride pad activation",
    "route": "layers groups group_id",
    "maxpool": "size stride",
    "upsample": "stride",
    "yolo": "classes num mask anchors scale_x_y ignore_thresh truth_thresh iou_thresh iou_loss iou_normalizer "
    "obj_normalizer cls_normalizer",
}


@dataclass(frozen=True)
class Layer:
    """A section after ``[net]``; ``sources`` are the layers it reads, -1 the image, ``line`` is its own in the file.

    What it gives has ``filters`` channels and is ``scale`` times smaller than the image.
    """

    index: int
    line: int
    sources: tuple[int, ...]
    filters: int
    scale: int


@dataclass(frozen=True)
class Convolutional(Layer):
    """A convolution with its normalisation and activation; padded by ``size // 2`` on all sides."""

    in_channels: int
    size: int
    stride: int
    batch_normalize: bool
    activation: str

    @property
    def parameters(self) -> int:
        """How many numbers a ``.weights`` file holds for it."""
        return self.filters * (self.in_channels * self.size**2 + (4 if self.batch_normalize else 1))


@dataclass(frozen=True)
class Route(Layer):
    """Earlier layers, joined along the channels; or of the channels of one the part ``group_id`` of ``groups``."""

    groups: int
    group_id: int


class MaxPool(Layer):
    """The largest of each 2 x 2 pixels."""


@dataclass(frozen=True)
class Upsample(Layer):
    """Each pixel becomes ``stride`` x ``stride``."""

    stride: int


class Yolo(Layer):
    """The end of a head: the convolution that it reads gives the head's raw map."""


@dataclass(frozen=True, eq=False)
class Head:
    """The options of a ``[yolo]`` section; their names in the file in brackets where ours differ.

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
    layers: tuple[Layer, ...]
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
        """The convolution before each ``[yolo]``, in the order of ``heads``."""
        return tuple(self.layers[layer.sources[0]] for layer in self.layers if isinstance(layer, Yolo))


def read(path: str | Path) -> str:
    """Read the text of a ``.cfg`` file, for `describe`.

    Raises:
        CfgError: no such file, or no text.
    """
    path = Path(path)
    if not path.is_file():
        raise CfgError(f"{path} does not exist; expected a Darknet .cfg file")
    if path.stat().st_size > _MAX_BYTES:
        raise CfgError(f"{path} has {path.stat().st_size} bytes, expected a .cfg of at most {_MAX_BYTES}")
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise CfgError(f"{path} is not UTF-8 text ({error}); expected a Darknet .cfg file") from None


def describe(text: str, source: str = "cfg", class_count: int | None = None, image_size: int | None = None) -> Network:
    """Read and check the text of a ``.cfg``.

    Args:
        text: the whole file.
        source: its name, for messages.
        class_count: how many classes each ``[yolo]`` has to have.
        image_size: takes the place of width and height, in the description's ``text`` too.

    Raises:
        CfgError: anything that cannot be built exactly as written, or that Darknet would fail on.
    """
    sections = parse(text, source)
    if not sections or sections[0].name != "net":
        found = f"line {sections[0].line}: the first section is [{sections[0].name}]" if sections else "no section"
        raise CfgError(f"{source}, {found}, expected [net] with width, height and channels")
    if image_size is not None:
        lines = text.split("\n")
        for name in ("width", "height"):
            sections[0].integer(name, None, 1, 10**6)
            lines[sections[0].options[name].line - 1] = f"{name}={image_size}"
        text = "\n".join(lines)
        sections = parse(text, source)
    ignored: dict[str, None] = {}
    for section in sections:
        if section.name in _KNOWN:
            training_only = _TRAINING_ONLY.get(section.name, "").split()
            section.only_knows([*_KNOWN[section.name].split(), *training_only])
            ignored |= dict.fromkeys(name for name in section.options if name in training_only)
    net = sections[0]
    width, height = (net.integer(name, None, 1, 10**6) for name in ("width", "height"))
    found = f"[net] has width={width} and height={height}"
    if width != height:
        net.refuse(f"{found}, expected a square; make them equal", "height")
    if width % SIDE_STEP or width > _MAX_SIDE:
        near = min(max(round(width / SIDE_STEP), 1) * SIDE_STEP, _MAX_SIDE)
        net.refuse(f"{found}, expected multiples of {SIDE_STEP} up to {_MAX_SIDE}, such as {near}", "width")
    if net.integer("channels", 3) != 3:
        net.refuse(f"[net] has channels={net.options['channels'].value}, expected channels=3 (RGB)", "channels")
    walk = _Walk(class_count)
    for section in sections[1:]:
        walk.add(section)
    if not walk.heads:
        raise CfgError(f"{source}: no [yolo] section, expected one after each last [convolutional]")
    return Network(width, tuple(walk.layers), tuple(walk.heads), walk.heads[0].class_count, tuple(ignored), text)


class _Walk:
    """Goes through the sections in order and makes a layer of each."""

    def __init__(self, class_count: int | None):
        self.class_count = class_count
        self.layers: list[Layer] = []
        self.heads: list[Head] = []
        self.sections: list[Section] = []

    def add(self, section: Section) -> None:
        """Check a section and append its layer."""
        makers = {
            "convolutional": self._convolutional,
            "route": self._route,
            "maxpool": self._maxpool,
            "upsample": self._upsample,
            "yolo": self._yolo,
        }
        if section.name not in makers:
            section.refuse(f"unknown layer [{section.name}], known are {', '.join(f'[{name}]' for name in makers)}")
        last = self.layers[-1] if self.layers else None
        if section.name in ("maxpool", "upsample") and last is None:
            section.refuse(f"[{section.name}] is the first layer, expected a [convolutional]")
        if isinstance(last, Yolo) and section.name != "route":
            section.refuse(f"[{section.name}] after a [yolo], expected a [route] to an earlier layer")
        image = Layer(-1, 0, (), filters=3, scale=1)
        place = {"index": len(self.layers), "line": section.line, "sources": (len(self.layers) - 1,)}
        layer = makers[section.name](section, last or image, place)
        if layer.scale > SIDE_STEP:
            section.refuse(
                f"here an image is {layer.scale} times smaller, expected {SIDE_STEP} times at most", "stride"
            )
        self.layers.append(layer)
        self.sections.append(section)

    def _convolutional(self, section: Section, last: Layer, place: dict) -> Layer:
        filters = section.integer("filters", None, 1, _MAX_FILTERS)
        size, stride = section.integer("size", 1, 1, 15), section.integer("stride", 1, 1, 2)
        if size % 2 == 0:
            section.refuse(f"[convolutional] has size={size}, expected an odd number", "size")
        if size > 1 and section.integer("pad", 0, 0, 1) != 1:
            section.refuse(f"[convolutional] of size {size} without pad=1, expected pad=1", "pad")
        normalised = section.integer("batch_normalize", 0, 0, 1) == 1
        activation = section.choice("activation", "logistic", ("leaky", "linear"))
        shape = {"filters": filters, "scale": last.scale * stride, "in_channels": last.filters}
        return Convolutional(
            **place, **shape, size=size, stride=stride, batch_normalize=normalised, activation=activation
        )

    def _route(self, section: Section, _: Layer, place: dict) -> Layer:
        index = place["index"]
        given = section.integers("layers", None, -index, index - 1)
        sources = [self.layers[number if number >= 0 else index + number] for number in given]
        for number, source in zip(given, sources, strict=True):
            if isinstance(source, Yolo):
                section.refuse(f"[route] has layer {number}, a [yolo], expected a layer with features", "layers")
        scales = sorted({source.scale for source in sources})
        if len(scales) > 1:
            section.refuse(f"[route] joins layers of strides {scales}, expected maps of one size", "layers")
        groups = section.integer("groups", 1, 1, _MAX_FILTERS)
        group = section.integer("group_id", 0, 0, groups - 1)
        if groups > 1 and len(sources) > 1:  # OpenCV loses count of its layers over such a one
            section.refuse(f"[route] of {len(sources)} layers has groups={groups}, expected one layer", "groups")
        channels = [source.filters for source in sources]
        if channels[0] % groups:
            section.refuse(f"[route] has groups={groups}, expected a divisor of its {channels} channels", "groups")
        place["sources"] = tuple(source.index for source in sources)
        return Route(**place, filters=sum(channels) // groups, scale=scales[0], groups=groups, group_id=group)

    def _maxpool(self, section: Section, last: Layer, place: dict) -> Layer:
        stride = section.integer("stride", 1, 1, 64)
        size = section.integer("size", stride, 1, 64)
        if (size, stride) != (2, 2):
            section.refuse(f"[maxpool] has size={size} and stride={stride}, expected size=2 and stride=2", "size")
        return MaxPool(**place, filters=last.filters, scale=2 * last.scale)

    def _upsample(self, section: Section, last: Layer, place: dict) -> Layer:
        stride = section.integer("stride", 2, 2, SIDE_STEP)
        if last.scale % stride:
            section.refuse(f"[upsample] has stride={stride}, expected a divisor of {last.scale}", "stride")
        return Upsample(**place, filters=last.filters, scale=last.scale // stride, stride=stride)

    def _yolo(self, section: Section, last: Layer, place: dict) -> Layer:
        if not isinstance(last, Convolutional) or last.activation != "linear" or last.batch_normalize:
            section.refuse(
                "[yolo] with something else above, expected a [convolutional] with activation=linear and without "
                "batch_normalize"
            )
        section.choice("iou_loss", "mse", ("ciou",))
        section.number("truth_thresh", 1.0, 1.0, 1.0)
        first = next((earlier for earlier in self.sections if earlier.name == "yolo"), section)
        count, values = section.integer("num", None, 1, 100), section.numbers("anchors", 0.1, 10 * _MAX_SIDE)
        if len(values) != 2 * count:
            section.refuse(f"[yolo] has {len(values)} numbers in anchors, expected 2 * num = {2 * count}", "anchors")
        anchors = np.array(values).reshape(count, 2)
        if self.heads and not np.array_equal(anchors, self.heads[0].all_anchors_wh):
            line = first.options["anchors"].line
            section.refuse(f"other anchors than in line {line}, expected the same in every [yolo]", "anchors")
        classes = section.integer("classes", 20, 1, MAX_CLASSES)
        if self.heads and classes != self.heads[0].class_count:
            found = f"[yolo] has classes={classes}, the one in line {first.line} has {self.heads[0].class_count}"
            section.refuse(f"{found}; expected the same", "classes")
        if self.class_count not in (None, classes):
            section.refuse(
                f"[yolo] has classes={classes}, expected classes={self.class_count}; write that in every [yolo], and "
                f"filters=(classes + 5) * anchors in mask in the [convolutional] above it",
                "classes",
            )
        mask = section.integers("mask", list(range(len(anchors))), 0, len(anchors) - 1)
        if len(set(mask)) < len(mask):
            section.refuse(f"[yolo] has mask={','.join(map(str, mask))}, expected each anchor once", "mask")
        expected = (classes + 5) * len(mask)
        if last.filters != expected:
            self.sections[-1].refuse(
                f"[convolutional] before a [yolo] has filters={last.filters}, expected (classes + 5) * anchors in "
                f"mask = ({classes} + 5) * {len(mask)} = {expected}; write filters={expected}",
                "filters",
            )
        head = Head(
            anchors_wh=anchors[mask],
            all_anchors_wh=anchors,
            mask=tuple(mask),
            class_count=classes,
            stride=last.scale,
            scale_x_y=section.number("scale_x_y", 1.0, 1.0, 4.0),
            ignore_threshold=section.number("ignore_thresh", 0.5, 0.0, 1.0),
            iou_threshold=section.number("iou_thresh", 1.0, 0.0, 1.0),
            iou_normalizer=section.number("iou_normalizer", 0.75),
            objectness_normalizer=section.number("obj_normalizer", 1.0),
            class_normalizer=section.number("cls_normalizer", 1.0),
        )
        self.heads.append(head)
        return Yolo(**place, filters=last.filters, scale=last.scale)
