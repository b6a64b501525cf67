"""The text of YOLOv4-tiny's cfg for a user's own classes, with two or three heads.

At the bottom of this package; `files` writes it into a folder for Darknet, and the detector is built from it.
Layers, options and numbers: https://github.com/AlexeyAB/darknet ``cfg/yolov4-tiny-custom.cfg`` and
``cfg/yolov4-tiny-3l.cfg``; what depends on the classes: "How to train (to detect your custom objects)" there.
"""

from collections.abc import Sequence

import numpy as np

ANCHORS_PER_HEAD = 3
STRIDE = 32  # of the coarsest head, which every side has to be divisible by
# Widths and heights in pixels of the network's input, from small to large: by how many heads there are
YOLOV4_TINY_ANCHORS = {
    2: ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)),
    3: ((12, 16), (19, 36), (40, 28), (36, 75), (76, 55), (72, 146), (142, 110), (192, 243), (459, 401)),
}
LEAST_BATCHES, BATCHES_PER_CLASS = 6000, 2000

_BLOCKS = (64, 128, 256)  # filters of the three blocks whose halves part and meet again
_BLOCK_LENGTH = 8
_LEAVE_BLOCK = 2 + 5  # section of the first block's last convolution, counted from the first convolution as 0

Section = tuple[str, dict[str, object]]


def yolov4_tiny_cfg(
    class_count: int,
    image_size: int = 416,
    levels: int = 2,
    anchors_wh: Sequence[tuple[float, float]] | np.ndarray | None = None,
    max_batches: int | None = None,
    batch: int = 64,
    subdivisions: int = 16,
) -> str:
    """YOLOv4-tiny as a Darknet cfg.

    Args:
        class_count: how many classes; each head gets ``(class_count + 5) * 3`` filters.
        image_size: width and height of the network's input, divisible by 32.
        levels: 2 heads (strides 32, 16) as ``yolov4-tiny-custom``, or 3 (and 8) as ``yolov4-tiny-3l``.
        anchors_wh: ``(3 * levels, 2)`` pixels of the network's input, in any order; the published ones if left out,
            which are not rescaled to ``image_size`` (nor does Darknet). The largest three go to stride 32.
        max_batches: how many updates Darknet trains for; 2000 a class if left out, 6000 at least. The rate falls
            tenfold at 80 % and at 90 % of them.
        batch: images of an update.
        subdivisions: parts that Darknet cuts a batch into, so that it fits into memory; divides ``batch``.

    Returns:
        The text, in which sections stand in the order of the published files.

    Raises:
        ValueError: an argument is out of its range.
    """
    if max_batches is None:
        max_batches = batches_for(class_count)
    _check(class_count, image_size, levels, max_batches, batch, subdivisions)
    anchors = _checked_anchors(YOLOV4_TINY_ANCHORS[levels] if anchors_wh is None else anchors_wh, levels)
    sections = [
        _training(image_size, max_batches, batch, subdivisions),
        *_trunk(),
        *(section for level in range(levels) for section in _head(level, levels, class_count, anchors)),
    ]
    return "\n".join(_text(name, options) for name, options in sections)


def batches_for(class_count: int, image_count: int = 0) -> int:
    """How many updates Darknet's guide asks for: 2000 a class, but not fewer than 6000 or than training images."""
    return max(LEAST_BATCHES, BATCHES_PER_CLASS * class_count, image_count)


def _check(class_count: int, image_size: int, levels: int, max_batches: int, batch: int, subdivisions: int) -> None:
    if class_count < 1:
        raise ValueError(f"class_count is {class_count}, expected 1 or more")
    if image_size < STRIDE or image_size % STRIDE:
        raise ValueError(f"image_size is {image_size}, expected a multiple of {STRIDE} such as 416 or 608")
    if levels not in YOLOV4_TINY_ANCHORS:
        raise ValueError(f"levels is {levels}, expected 2 (yolov4-tiny) or 3 (yolov4-tiny-3l)")
    if max_batches < 1:
        raise ValueError(f"max_batches is {max_batches}, expected 1 or more")
    if batch < 1 or subdivisions < 1 or batch % subdivisions:
        raise ValueError(f"batch is {batch} and subdivisions {subdivisions}, expected a divisor of the batch")


def _checked_anchors(anchors_wh: Sequence[tuple[float, float]] | np.ndarray, levels: int) -> np.ndarray:
    """The anchors by growing area, as masks expect them."""
    anchors = np.asarray(anchors_wh, dtype=float)
    wanted = (ANCHORS_PER_HEAD * levels, 2)
    if anchors.shape != wanted:
        raise ValueError(f"anchors_wh has shape {anchors.shape}, expected {wanted}: a width and a height each")
    if not (np.isfinite(anchors).all() and (anchors > 0).all()):
        raise ValueError(f"anchors_wh is {anchors.tolist()}, expected numbers of pixels above 0")
    return anchors[np.argsort(anchors.prod(axis=1), kind="stable")]


def _training(image_size: int, max_batches: int, batch: int, subdivisions: int) -> Section:
    """What Darknet trains with; our own training takes its settings from elsewhere."""
    options = {
        "batch": batch,
        "subdivisions": subdivisions,
        "width": image_size,
        "height": image_size,
        "channels": 3,
        "momentum": 0.9,
        "decay": 0.0005,
        "angle": 0,
        "saturation": 1.5,
        "exposure": 1.5,
        "hue": 0.1,
        "learning_rate": 0.00261,
        "burn_in": 1000,
        "max_batches": max_batches,
        "policy": "steps",
        "steps": f"{max_batches * 8 // 10},{max_batches * 9 // 10}",
        "scales": ".1,.1",
    }
    return "net", options


def _trunk() -> list[Section]:
    """Everything that the heads share: 28 sections, strides 2 to 32."""
    sections = [_convolution(32, stride=2), _convolution(64, stride=2)]
    for filters in _BLOCKS:
        sections += [
            _convolution(filters),
            ("route", {"layers": -1, "groups": 2, "group_id": 1}),
            _convolution(filters // 2),
            _convolution(filters // 2),
            ("route", {"layers": "-1,-2"}),
            _convolution(filters, size=1),
            ("route", {"layers": "-6,-1"}),
            ("maxpool", {"size": 2, "stride": 2}),
        ]
    return [*sections, _convolution(512), _convolution(256, size=1)]


def _head(level: int, levels: int, class_count: int, anchors_wh: np.ndarray) -> list[Section]:
    """The sections of one head, the coarsest being level 0; a finer one starts where the one before it branched."""
    filters = 512 >> level
    sections = []
    if level:
        block = len(_BLOCKS) - level
        back = -4 if level == 1 else -3  # the trunk's last convolution; later ones have none between it and the head
        sections = [
            ("route", {"layers": back}),
            _convolution(filters // 2, size=1),
            ("upsample", {"stride": 2}),
            ("route", {"layers": f"-1,{_LEAVE_BLOCK + _BLOCK_LENGTH * block}"}),
        ]
    linear = {
        "size": 1,
        "stride": 1,
        "pad": 1,
        "filters": (class_count + 5) * ANCHORS_PER_HEAD,
        "activation": "linear",
    }
    first = ANCHORS_PER_HEAD * (levels - 1 - level)
    yolo = _yolo(range(first, first + ANCHORS_PER_HEAD), class_count, anchors_wh)
    return [*sections, _convolution(filters), ("convolutional", linear), yolo]


def _yolo(mask: range, class_count: int, anchors_wh: np.ndarray) -> Section:
    options = {
        "mask": ",".join(map(str, mask)),
        "anchors": ", ".join(f"{width:.6g},{height:.6g}" for width, height in anchors_wh),
        "classes": class_count,
        "num": len(anchors_wh),
        "jitter": 0.3,
        "scale_x_y": 1.05,
        "cls_normalizer": 1.0,
        "iou_normalizer": 0.07,
        "iou_loss": "ciou",
        "ignore_thresh": 0.7,
        "truth_thresh": 1,
        "random": 0,
        "resize": 1.5,
        "nms_kind": "greedynms",
        "beta_nms": 0.6,
    }
    return "yolo", options


def _convolution(filters: int, size: int = 3, stride: int = 1) -> Section:
    options = {"filters": filters, "size": size, "stride": stride, "pad": 1, "activation": "leaky"}
    return "convolutional", {"batch_normalize": 1, **options}


def _text(name: str, options: dict[str, object]) -> str:
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in options.items())
