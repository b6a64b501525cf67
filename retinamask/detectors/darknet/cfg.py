"""Read a Darknet ``.cfg`` and check it: the layers and heads that `network` and `weights` work from.

The file format is AlexeyAB's, https://github.com/AlexeyAB/darknet (``src/parser.c``); the layers are those of
YOLOv4-tiny and its variant with three heads. Darknet ignores what it does not know and reads ``atoi`` of anything; here
that is refused, so that a network is never built differently from what its file says. Layers are counted as Darknet
counts them: from 0, without ``[net]``.
"""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

SIDE_STEP = 32
"""Sides of the input are multiples of this, the stride of YOLOv4-tiny's coarsest head."""

MAX_CLASSES = 1000

_MAX_SIDE, _MAX_FILTERS = 4096, 4096
_MAX_BYTES = 1_000_000
_NUMBERS = {
    int: ("whole number", re.compile(r"[+-]?[0-9]{1,12}")),
    float: ("number", re.compile(r"[+-]?([0-9]{1,12}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][+-]?[0-9]{1,2})?")),
}

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


class CfgError(ValueError):
    """A ``.cfg`` that cannot be used."""


@dataclass(frozen=True)
class Section:
    """One ``[name]``; ``options`` have by name the value and its line in the file, which errors name."""

    name: str
    line: int
    source: str
    options: dict[str, tuple[str, int]] = field(default_factory=dict)

    def values(self, kind: type, name: str, default: list | None = None, low=0, high=10**9, count: int | None = None):
        """Read the ``int`` or ``float`` between commas, each from ``low`` to ``high``; no default: it must be there."""
        if name not in self.options:
            if default is None:
                self.refuse(f"no {name} in [{self.name}], expected a line {name}=...")
            return default
        texts = [text.strip() for text in self.options[name][0].split(",")]
        if count not in (None, len(texts)):
            self.refuse(f"{self._found(name)}, which are {len(texts)} values, expected {count}", name)
        word, pattern = _NUMBERS[kind]
        values = [kind(text) if pattern.fullmatch(text) else None for text in texts]
        if any(value is None or not low <= value <= high for value in values):
            what = f"a {word}" if count == 1 else f"{word}s, separated by commas, each"
            self.refuse(f"{self._found(name)}, expected {what} from {low:g} to {high:g}", name)
        return values

    def integer(self, name: str, default: int | None = None, low: int = 0, high: int = 10**9) -> int:
        return self.values(int, name, None if default is None else [default], low, high, 1)[0]

    def number(self, name: str, default: float, low: float = 0.0, high: float = 1e6) -> float:
        return self.values(float, name, [default], low, high, 1)[0]

    def choice(self, name: str, default: str, *choices: str) -> str:
        """Read an option that has to be one of ``choices``; ``default`` is what Darknet takes without it."""
        value, found = default, f"no {name} in [{self.name}], which means {default}"
        if name in self.options:
            value, found = self.options[name][0], self._found(name)
        if value not in choices:
            self.refuse(f"{found}, expected {' or '.join(f'{name}={choice}' for choice in choices)}", name)
        return value

    def ignored(self) -> list[str]:
        """Name the options that only Darknet's training reads; refuse unknown ones."""
        training_only = _TRAINING_ONLY.get(self.name, "").split()
        known = sorted([*_KNOWN[self.name].split(), *training_only])
        for name in self.options:
            if name not in known:
                near = "".join(f" ({close}?)" for close in difflib.get_close_matches(name, known, 1))
                self.refuse(
                    f"unknown option {name!r}{near} in [{self.name}], expected one of {', '.join(known)}; "
                    "take the line out if the network is the same without it",
                    name,
                )
        return [name for name in self.options if name in training_only]

    def refuse(self, what: str, name: str | None = None) -> NoReturn:
        """Raise a `CfgError` that names the line of the option ``name``, or of the section."""
        line = self.options[name][1] if name in self.options else self.line
        raise CfgError(f"{self.source}, line {line}: {what}")

    def _found(self, name: str) -> str:
        return f"[{self.name}] has {name}={self.options[name][0][:60]}"


@dataclass(frozen=True)
class Layer:
    """A section after ``[net]``, of the ``kind`` that its brackets say; ``line`` is its own in the file.

    ``sources`` are the layers it reads, -1 the image. What it gives has ``filters`` channels and is ``scale`` times
    smaller than the image. A convolution is padded by ``size // 2`` on all sides; a route joins its sources along the
    channels, or gives of one the part ``group_id`` of ``groups``; the source of a yolo is its head's raw map.
    """

    kind: str
    index: int
    line: int
    sources: tuple[int, ...]
    filters: int
    scale: int
    in_channels: int = 0
    size: int = 1
    stride: int = 1
    batch_normalize: bool = False
    activation: str = "linear"
    groups: int = 1
    group_id: int = 0

    @property
    def parameters(self) -> int:
        """How many numbers a ``.weights`` file holds for it."""
        if self.kind != "convolutional":
            return 0
        return self.filters * (self.in_channels * self.size**2 + (4 if self.batch_normalize else 1))


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
    def convolutions(self) -> tuple[Layer, ...]:
        """The layers that have weights, in the order of a ``.weights`` file."""
        return tuple(layer for layer in self.layers if layer.kind == "convolutional")

    @property
    def last_convolutions(self) -> tuple[Layer, ...]:
        """The convolution before each ``[yolo]``, in the order of ``heads``."""
        return tuple(self.layers[layer.sources[0]] for layer in self.layers if layer.kind == "yolo")


def read(path: str | Path) -> str:
    """Read the text of a ``.cfg`` file, for `describe`; `CfgError` if there is no such file, or no text."""
    path = Path(path)
    if not path.is_file():
        raise CfgError(f"{path} does not exist; expected a Darknet .cfg file")
    if path.stat().st_size > _MAX_BYTES:
        raise CfgError(f"{path} has {path.stat().st_size} bytes, expected a .cfg of at most {_MAX_BYTES}")
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise CfgError(f"{path} is not UTF-8 text ({error}); expected a Darknet .cfg file") from None


def parse(text: str, source: str = "cfg") -> list[Section]:
    """Split the text of a ``.cfg`` into its sections; ``#`` begins a comment, and ``;`` a line of comment.

    Raises:
        CfgError: a line that is neither ``[section]`` nor ``name=value``, or an option given twice.
    """
    sections: list[Section] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.split("#")[0].strip()
        if not line or line.startswith(";"):
            continue
        if line.startswith("[") and line.endswith("]"):
            sections.append(Section(line[1:-1].strip(), number, source))
            continue
        name, _, value = (part.strip() for part in line.partition("="))
        if not (name and value and sections):
            where = "after a [section]" if sections else "with [net] first"
            raise CfgError(f"{source}, line {number}: found {line[:60]!r}, expected [section] or name=value {where}")
        last = sections[-1]
        if name in last.options:
            lines = f"{name} is in line {last.options[name][1]} and again in line {number} of one [{last.name}]"
            last.refuse(f"{lines}; keep one of them", name)
        last.options[name] = value, number
    return sections


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
    net = sections[0]
    ignored = dict.fromkeys(net.ignored())
    width, height = (net.integer(name, None, 1, 10**6) for name in ("width", "height"))
    if image_size is not None:
        width = height = image_size
        lines = text.split("\n")
        for name in ("width", "height"):
            lines[net.options[name][1] - 1] = f"{name}={image_size}"
        text = "\n".join(lines)
    found = f"[net] has width={width} and height={height}"
    if width != height:
        net.refuse(f"{found}, expected a square; make them equal", "height")
    if width % SIDE_STEP or not 0 < width <= _MAX_SIDE:
        near = min(max(round(width / SIDE_STEP), 1) * SIDE_STEP, _MAX_SIDE)
        net.refuse(f"{found}, expected multiples of {SIDE_STEP} up to {_MAX_SIDE}, such as {near}", "width")
    if net.integer("channels", 3) != 3:
        net.refuse(f"[net] has channels={net.options['channels'][0]}, expected channels=3 (RGB)", "channels")
    layers: list[Layer] = []
    heads: list[Head] = []
    for before, section in zip(sections, sections[1:], strict=False):
        layer = _layer(section, layers)
        ignored |= dict.fromkeys(section.ignored())
        if layer.scale > SIDE_STEP:
            what = f"here an image is {layer.scale} times smaller, expected {SIDE_STEP} times at most"
            section.refuse(what, "stride")
        if section.name == "yolo":
            heads.append(_head(section, before, layers, heads, class_count))
        layers.append(layer)
    if not heads:
        raise CfgError(f"{source}: no [yolo] section, expected one after each last [convolutional]")
    return Network(width, tuple(layers), tuple(heads), heads[0].class_count, tuple(ignored), text)


def _layer(section: Section, layers: list[Layer]) -> Layer:
    """Check a section after those of ``layers``; the options of a yolo are left to `_head`."""
    name, index = section.name, len(layers)
    if name not in _KNOWN or name == "net":
        known = ", ".join(f"[{name}]" for name in _KNOWN if name != "net")
        section.refuse(f"unknown layer [{name}], known are {known}")
    if name in ("maxpool", "upsample") and not layers:
        section.refuse(f"[{name}] is the first layer, expected a [convolutional]")
    last = layers[-1] if layers else Layer("image", -1, 0, (), filters=3, scale=1)
    if last.kind == "yolo" and name != "route":
        section.refuse(f"[{name}] after a [yolo], expected a [route] to an earlier layer")
    sources, given = (index - 1,), {"filters": last.filters, "scale": last.scale}
    if name == "convolutional":
        filters = section.integer("filters", None, 1, _MAX_FILTERS)
        size, stride = section.integer("size", 1, 1, 15), section.integer("stride", 1, 1, 2)
        if size % 2 == 0:
            section.refuse(f"[convolutional] has size={size}, expected an odd number", "size")
        if size > 1 and section.integer("pad", 0, 0, 1) != 1:
            section.refuse(f"[convolutional] of size {size} without pad=1, expected pad=1", "pad")
        given = {"filters": filters, "scale": last.scale * stride, "in_channels": last.filters}
        given |= {"size": size, "stride": stride, "batch_normalize": section.integer("batch_normalize", 0, 0, 1) == 1}
        given["activation"] = section.choice("activation", "logistic", "leaky", "linear")
    elif name == "route":
        sources, given = _route(section, layers)
    elif name == "maxpool":
        stride = section.integer("stride", 1, 1, 64)
        size = section.integer("size", stride, 1, 64)
        if (size, stride) != (2, 2):
            section.refuse(f"[maxpool] has size={size} and stride={stride}, expected size=2 and stride=2", "size")
        given["scale"] = 2 * last.scale
    elif name == "upsample":
        stride = section.integer("stride", 2, 2, SIDE_STEP)
        if last.scale % stride:
            section.refuse(f"[upsample] has stride={stride}, expected a divisor of {last.scale}", "stride")
        given |= {"scale": last.scale // stride, "stride": stride}
    elif last.kind != "convolutional" or last.activation != "linear" or last.batch_normalize:
        expected = "expected a [convolutional] with activation=linear and without batch_normalize"
        section.refuse(f"[yolo] with something else above, {expected}")
    return Layer(name, index, section.line, sources, **given)


def _route(section: Section, layers: list[Layer]) -> tuple[tuple[int, ...], dict[str, int]]:
    """Check a ``[route]``; give its sources and the other fields of its layer."""
    index = len(layers)
    numbers = section.values(int, "layers", None, -index, index - 1)
    sources = [layers[number] for number in numbers]  # from the end where below 0, as Darknet counts too
    for number, source in zip(numbers, sources, strict=True):
        if source.kind == "yolo":
            section.refuse(f"[route] has layer {number}, a [yolo], expected a layer with features", "layers")
    scales = sorted({source.scale for source in sources})
    if len(scales) > 1:
        section.refuse(f"[route] joins layers of strides {scales}, expected maps of one size", "layers")
    groups = section.integer("groups", 1, 1, _MAX_FILTERS)
    group_id = section.integer("group_id", 0, 0, groups - 1)
    if groups > 1 and len(sources) > 1:  # OpenCV loses count of its layers over such a one
        section.refuse(f"[route] of {len(sources)} layers has groups={groups}, expected one layer", "groups")
    channels = [source.filters for source in sources]
    if channels[0] % groups:
        section.refuse(f"[route] has groups={groups}, expected a divisor of its {channels} channels", "groups")
    shape = {"filters": sum(channels) // groups, "scale": scales[0], "groups": groups, "group_id": group_id}
    return tuple(source.index for source in sources), shape


def _head(section: Section, before: Section, layers: list[Layer], heads: list[Head], class_count: int | None) -> Head:
    """Check the options of a ``[yolo]``, which follows the ``[convolutional]`` ``before``."""
    section.choice("iou_loss", "mse", "ciou")
    section.number("truth_thresh", 1.0, 1.0, 1.0)
    count = section.integer("num", None, 1, 100)
    values = section.values(float, "anchors", None, 0.1, 10 * _MAX_SIDE)
    if len(values) != 2 * count:
        section.refuse(f"[yolo] has {len(values)} numbers in anchors, expected 2 * num = {2 * count}", "anchors")
    anchors = np.array(values).reshape(count, 2)
    classes = section.integer("classes", 20, 1, MAX_CLASSES)
    if heads:
        line = next(layer.line for layer in layers if layer.kind == "yolo")
        if not np.array_equal(anchors, heads[0].all_anchors_wh):
            section.refuse(f"other anchors than in line {line}, expected the same in every [yolo]", "anchors")
        if classes != heads[0].class_count:
            found = f"[yolo] has classes={classes}, the one in line {line} has {heads[0].class_count}"
            section.refuse(f"{found}; expected the same", "classes")
    if class_count not in (None, classes):
        section.refuse(
            f"[yolo] has classes={classes}, expected classes={class_count}; write that in every [yolo], and "
            f"filters=(classes + 5) * anchors in mask in the [convolutional] above it",
            "classes",
        )
    mask = section.values(int, "mask", list(range(count)), 0, count - 1)
    if len(set(mask)) < len(mask):
        section.refuse(f"[yolo] has mask={','.join(map(str, mask))}, expected each anchor once", "mask")
    expected = (classes + 5) * len(mask)
    if layers[-1].filters != expected:
        before.refuse(
            f"[convolutional] before a [yolo] has filters={layers[-1].filters}, expected (classes + 5) * anchors in "
            f"mask = ({classes} + 5) * {len(mask)} = {expected}; write filters={expected}",
            "filters",
        )
    return Head(
        anchors_wh=anchors[mask],
        all_anchors_wh=anchors,
        mask=tuple(mask),
        class_count=classes,
        stride=layers[-1].scale,
        scale_x_y=section.number("scale_x_y", 1.0, 1.0, 4.0),
        ignore_threshold=section.number("ignore_thresh", 0.5, 0.0, 1.0),
        iou_threshold=section.number("iou_thresh", 1.0, 0.0, 1.0),
        iou_normalizer=section.number("iou_normalizer", 0.75),
        objectness_normalizer=section.number("obj_normalizer", 1.0),
        class_normalizer=section.number("cls_normalizer", 1.0),
    )
