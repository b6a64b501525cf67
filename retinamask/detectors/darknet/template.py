"""The text of YOLOv4-tiny's cfg for a user's own classes, with two or three heads.

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

# What Darknet trains with; our own training takes its settings from elsewhere.
_NET = """batch=64 subdivisions=16 width={side} height={side} channels=3 momentum=0.9 decay=0.0005 angle=0
saturation=1.5 exposure=1.5 hue=0.1 learning_rate=0.00261 burn_in=1000 max_batches={batches} policy=steps
steps={first},{second} scales=.1,.1"""
_YOLO = """classes={classes} num={count} jitter=0.3 scale_x_y=1.05 cls_normalizer=1.0 iou_normalizer=0.07 iou_loss=ciou
ignore_thresh=0.7 truth_thresh=1 random=0 resize=1.5 nms_kind=greedynms beta_nms=0.6"""
_BLOCKS = (64, 128, 256)  # filters of the three blocks whose halves part and meet again


def yolov4_tiny_cfg(
    class_count: int,
    image_size: int = 416,
    levels: int = 2,
    anchors_wh: Sequence[tuple[float, float]] | np.ndarray | None = None,
    max_batches: int | None = None,
) -> str:
    """Write YOLOv4-tiny as a Darknet cfg.

    Args:
        class_count: how many classes; each head gets ``(class_count + 5) * 3`` filters.
        image_size: width and height of the network's input, divisible by 32.
        levels: 2 heads (strides 32, 16) as ``yolov4-tiny-custom``, or 3 (and 8) as ``yolov4-tiny-3l``.
        anchors_wh: ``(3 * levels, 2)`` pixels of the network's input, in any order; the published ones if left out,
            which are not rescaled to ``image_size`` (nor does Darknet). The largest three go to stride 32.
        max_batches: how many updates Darknet trains for; 2000 a class if left out, 6000 at least. The rate falls
            tenfold at 80 % and at 90 % of them.

    Returns:
        The text, with the sections in the order of the published files.

    Raises:
        ValueError: an argument is out of its range.
    """
    batches = batches_for(class_count) if max_batches is None else max_batches
    if class_count < 1:
        raise ValueError(f"class_count is {class_count}, expected 1 or more")
    if image_size < STRIDE or image_size % STRIDE:
        raise ValueError(f"image_size is {image_size}, expected a multiple of {STRIDE} such as 416 or 608")
    if levels not in YOLOV4_TINY_ANCHORS:
        raise ValueError(f"levels is {levels}, expected 2 (yolov4-tiny) or 3 (yolov4-tiny-3l)")
    if batches < 1:
        raise ValueError(f"max_batches is {batches}, expected 1 or more")
    anchors = np.asarray(YOLOV4_TINY_ANCHORS[levels] if anchors_wh is None else anchors_wh, dtype=float)
    wanted = (ANCHORS_PER_HEAD * levels, 2)
    if anchors.shape != wanted:
        raise ValueError(f"anchors_wh has shape {anchors.shape}, expected {wanted}: a width and a height each")
    if not (np.isfinite(anchors).all() and (anchors > 0).all()):
        raise ValueError(f"anchors_wh is {anchors.tolist()}, expected numbers of pixels above 0")
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]  # as masks expect them
    rate_falls = {"first": batches * 8 // 10, "second": batches * 9 // 10}
    sections = [_section("net", _NET.format(side=image_size, batches=batches, **rate_falls)), *_trunk()]
    for level in range(levels):
        sections += _head(level, levels, class_count, anchors)
    return "\n".join(sections)


def batches_for(class_count: int, image_count: int = 0) -> int:
    """Count the updates that Darknet's guide asks for: 2000 a class, at least 6000 and as many as training images."""
    return max(LEAST_BATCHES, BATCHES_PER_CLASS * class_count, image_count)


def _trunk() -> list[str]:
    """The 28 sections that the heads share, strides 2 to 32."""
    sections = [_convolution(32, stride=2), _convolution(64, stride=2)]
    for filters in _BLOCKS:
        sections += [
            _convolution(filters),
            _section("route", "layers=-1 groups=2 group_id=1"),
            _convolution(filters // 2),
            _convolution(filters // 2),
            _section("route", "layers=-1,-2"),
            _convolution(filters, size=1),
            _section("route", "layers=-6,-1"),
            _section("maxpool", "size=2 stride=2"),
        ]
    return [*sections, _convolution(512), _convolution(256, size=1)]


def _head(level: int, levels: int, class_count: int, anchors_wh: np.ndarray) -> list[str]:
    """The sections of one head, level 0 the coarsest; a finer one starts where the one before it branched."""
    filters = 512 >> level
    sections = []
    if level:
        back = -4 if level == 1 else -3  # the trunk's last convolution; later ones have none between it and the head
        last_of_block = 7 + 8 * (len(_BLOCKS) - level)  # a block has 8 sections; its last convolution is the sixth
        sections = [
            _section("route", f"layers={back}"),
            _convolution(filters // 2, size=1),
            _section("upsample", "stride=2"),
            _section("route", f"layers=-1,{last_of_block}"),
        ]
    first = ANCHORS_PER_HEAD * (levels - 1 - level)
    mask = ",".join(map(str, range(first, first + ANCHORS_PER_HEAD)))
    anchors = ", ".join(f"{width:.6g},{height:.6g}" for width, height in anchors_wh)
    outputs = (class_count + 5) * ANCHORS_PER_HEAD
    yolo = _section("yolo", _YOLO.format(classes=class_count, count=len(anchors_wh)))
    return [
        *sections,
        _convolution(filters),
        _section("convolutional", f"size=1 stride=1 pad=1 filters={outputs} activation=linear"),
        yolo.replace("\n", f"\nmask={mask}\nanchors={anchors}\n", 1),
    ]


def _convolution(filters: int, size: int = 3, stride: int = 1) -> str:
    return _section(
        "convolutional", f"batch_normalize=1 filters={filters} size={size} stride={stride} pad=1 activation=leaky"
    )


def _section(name: str, options: str) -> str:
    return f"[{name}]\n" + "".join(f"{option}\n" for option in options.split())
