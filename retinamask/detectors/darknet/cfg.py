"""What a Darknet ``.cfg`` describes, checked: the layers and heads that `network`, `decoding` and `weights` work from.

The file format is AlexeyAB's, https://github.com/AlexeyAB/darknet (``src/parser.c``); the layers are those of
YOLOv4-tiny and its variant with three heads. Anything else is refused, so that a network is never built differently
from what its file says.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from retinamask.detectors.darknet.description import Convolutional, Head, MaxPool, Network, Route, Upsample, Yolo
from retinamask.detectors.darknet.sections import CfgError, Section, parse

__all__ = ["CfgError", "Head", "Network", "Section", "describe", "parse", "read"]

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


def read(path: str | Path) -> str:
    """The text of a ``.cfg`` file, for `describe`.

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
    net, *sections = sections
    if image_size is not None:
        text = _resized(text, net, image_size)
        net = parse(text, source)[0]
    side = _input(net)
    walk = _Walk(class_count)
    for section in sections:
        walk.add(section)
    if not walk.heads:
        raise CfgError(f"{source}: no [yolo] section, expected one behind each last [convolutional]")
    ignored = [name for section in (net, *sections) for name in _not_used(section)]
    layers, heads = tuple(walk.layers), tuple(walk.heads)
    return Network(side, layers, heads, heads[0].class_count, tuple(dict.fromkeys(ignored)), text)


def _input(net: Section) -> int:
    """Side of the input."""
    net.only_knows(["width", "height", "channels", *_TRAINING_ONLY["net"].split()])
    width, height = (net.integer(name, None, 1, 10**6) for name in ("width", "height"))
    if width != height:
        net.refuse(f"[net] has width={width} and height={height}, expected a square; make them equal", "height")
    if width % SIDE_STEP or width > _MAX_SIDE:
        near = min(max(round(width / SIDE_STEP), 1) * SIDE_STEP, _MAX_SIDE)
        expected = f"multiples of {SIDE_STEP} up to {_MAX_SIDE}"
        net.refuse(f"[net] has width={width} and height={height}, expected {expected}, such as {near}", "width")
    if net.integer("channels", 3) != 3:
        net.refuse(f"[net] has channels={net.options['channels'].value}, expected channels=3 (RGB)", "channels")
    return width


def _resized(text: str, net: Section, image_size: int) -> str:
    """The text with another width and height."""
    lines = text.split("\n")
    for name in ("width", "height"):
        net.integer(name, None, 1, 10**6)
        lines[net.options[name].line - 1] = f"{name}={image_size}"
    return "\n".join(lines)


def _not_used(section: Section) -> list[str]:
    known = _TRAINING_ONLY.get(section.name, "").split()
    return [name for name in section.options if name in known]


class _Walk:
    """Goes through the sections in order and keeps what each layer gives: its channels and stride."""

    def __init__(self, class_count: int | None):
        self.class_count = class_count
        self.layers, self.sections, self.heads = [], [], []
        self.channels, self.strides = [], []

    def add(self, section: Section) -> None:
        """Check a section and append its layer."""
        readers: dict[str, Callable] = {
            "convolutional": self._convolutional,
            "route": self._route,
            "maxpool": self._maxpool,
            "upsample": self._upsample,
            "yolo": self._yolo,
        }
        if section.name not in readers:
            section.refuse(f"unknown layer [{section.name}], known are {', '.join(f'[{name}]' for name in readers)}")
        if self.layers and isinstance(self.layers[-1], Yolo) and section.name != "route":
            section.refuse(f"[{section.name}] behind a [yolo], expected a [route] to an earlier layer")
        layer, channels, stride = readers[section.name](section, len(self.layers))
        if stride > SIDE_STEP:
            section.refuse(f"here an image is {stride} times smaller, expected {SIDE_STEP} times at most", "stride")
        self.layers.append(layer)
        self.sections.append(section)
        self.channels.append(channels)
        self.strides.append(stride)

    def _convolutional(self, section: Section, index: int):
        section.only_knows(["batch_normalize", "filters", "size", "stride", "pad", "activation"])
        source = index - 1
        channels, stride = (self.channels[source], self.strides[source]) if index else (3, 1)
        filters = section.integer("filters", None, 1, _MAX_FILTERS)
        size, step = section.integer("size", 1, 1, 15), section.integer("stride", 1, 1, 2)
        if size % 2 == 0:
            section.refuse(f"[convolutional] has size={size}, expected an odd number", "size")
        if size > 1 and section.integer("pad", 0, 0, 1) != 1:
            section.refuse(f"[convolutional] of size {size} without pad=1, expected pad=1", "pad")
        normalised = section.integer("batch_normalize", 0, 0, 1) == 1
        activation = section.choice("activation", "logistic", ("leaky", "linear"))
        layer = Convolutional(index, section.line, source, channels, filters, size, step, normalised, activation)
        return layer, filters, stride * step

    def _route(self, section: Section, index: int):
        section.only_knows(["layers", "groups", "group_id"])
        given = section.integers("layers", None, -index, index - 1)
        sources = tuple(index + place if place < 0 else place for place in given)
        for place, source in zip(given, sources, strict=True):
            if isinstance(self.layers[source], Yolo):
                section.refuse(f"[route] has layer {place}, a [yolo], expected a layer with features", "layers")
        strides = sorted({self.strides[source] for source in sources})
        if len(strides) > 1:
            section.refuse(f"[route] joins layers of strides {strides}, expected maps of one size", "layers")
        groups = section.integer("groups", 1, 1, _MAX_FILTERS)
        group = section.integer("group_id", 0, 0, groups - 1)
        if groups > 1 and len(sources) > 1:  # OpenCV loses count of its layers over such a one
            section.refuse(f"[route] of {len(sources)} layers has groups={groups}, expected one layer", "groups")
        channels = [self.channels[source] for source in sources]
        if any(count % groups for count in channels):
            section.refuse(f"[route] has groups={groups}, expected a divisor of its {channels} channels", "groups")
        return Route(index, section.line, sources, groups, group), sum(channels) // groups, strides[0]

    def _maxpool(self, section: Section, index: int):
        section.only_knows(["size", "stride"])
        self._needs_a_layer(section, index)
        stride = section.integer("stride", 1, 1, 64)
        size = section.integer("size", stride, 1, 64)
        if (size, stride) != (2, 2):
            section.refuse(f"[maxpool] has size={size} and stride={stride}, expected size=2 and stride=2", "size")
        return MaxPool(index, section.line, index - 1), self.channels[-1], 2 * self.strides[-1]

    def _upsample(self, section: Section, index: int):
        section.only_knows(["stride"])
        self._needs_a_layer(section, index)
        stride = section.integer("stride", 2, 2, SIDE_STEP)
        if self.strides[-1] % stride:
            section.refuse(f"[upsample] has stride={stride}, expected a divisor of {self.strides[-1]}", "stride")
        return Upsample(index, section.line, index - 1, stride), self.channels[-1], self.strides[-1] // stride

    def _needs_a_layer(self, section: Section, index: int) -> None:
        if not index:
            section.refuse(f"[{section.name}] is the first layer, expected a [convolutional]")

    def _yolo(self, section: Section, index: int):
        names = "classes num mask anchors scale_x_y ignore_thresh truth_thresh iou_thresh iou_loss iou_normalizer"
        names += " obj_normalizer cls_normalizer " + _TRAINING_ONLY["yolo"]
        section.only_knows(names.split())
        last = self.layers[-1] if self.layers else None
        if not isinstance(last, Convolutional) or last.activation != "linear" or last.batch_normalize:
            section.refuse(
                "[yolo] with something else above, expected a [convolutional] with activation=linear and without "
                "batch_normalize"
            )
        head = self._head(section)
        expected = (head.class_count + 5) * len(head.mask)
        if last.filters != expected:
            self.sections[-1].refuse(
                f"[convolutional] in front of a [yolo] has filters={last.filters}, expected (classes + 5) * anchors in "
                f"mask = ({head.class_count} + 5) * {len(head.mask)} = {expected}; write filters={expected}",
                "filters",
            )
        self.heads.append(head)
        return Yolo(index, section.line, index - 1), last.filters, self.strides[-1]

    def _head(self, section: Section) -> Head:
        section.choice("iou_loss", "mse", ("ciou",))
        section.number("truth_thresh", 1.0, 1.0, 1.0)
        anchors = self._anchors(section)
        mask = section.integers("mask", list(range(len(anchors))), 0, len(anchors) - 1)
        if len(set(mask)) < len(mask):
            section.refuse(f"[yolo] has mask={','.join(map(str, mask))}, expected each anchor once", "mask")
        return Head(
            anchors_wh=anchors[mask],
            all_anchors_wh=anchors,
            mask=tuple(mask),
            class_count=self._classes(section),
            stride=self.strides[-1],
            scale_x_y=section.number("scale_x_y", 1.0, 1.0, 4.0),
            ignore_threshold=section.number("ignore_thresh", 0.5, 0.0, 1.0),
            iou_threshold=section.number("iou_thresh", 1.0, 0.0, 1.0),
            iou_normalizer=section.number("iou_normalizer", 0.75),
            objectness_normalizer=section.number("obj_normalizer", 1.0),
            class_normalizer=section.number("cls_normalizer", 1.0),
        )

    def _anchors(self, section: Section) -> np.ndarray:
        count = section.integer("num", None, 1, 100)
        values = section.numbers("anchors", None, 0.1, 10 * _MAX_SIDE)
        if len(values) != 2 * count:
            section.refuse(f"[yolo] has {len(values)} numbers in anchors, expected 2 * num = {2 * count}", "anchors")
        anchors = np.array(values).reshape(count, 2)
        if self.heads and not np.array_equal(anchors, self.heads[0].all_anchors_wh):
            first = self._first_yolo.options["anchors"].line
            section.refuse(f"other anchors than in line {first}, expected the same in every [yolo]", "anchors")
        return anchors

    def _classes(self, section: Section) -> int:
        found = section.integer("classes", 20, 1, MAX_CLASSES)
        if self.heads and found != self.heads[0].class_count:
            first = f"line {self._first_yolo.line} has {self.heads[0].class_count}"
            section.refuse(f"[yolo] has classes={found}, the one in {first}; expected the same", "classes")
        if self.class_count is not None and found != self.class_count:
            section.refuse(
                f"[yolo] has classes={found}, expected classes={self.class_count}; write that in every [yolo], and "
                f"filters=(classes + 5) * anchors in mask in the [convolutional] above it",
                "classes",
            )
        return found

    @property
    def _first_yolo(self) -> Section:
        return next(section for section in self.sections if section.name == "yolo")
