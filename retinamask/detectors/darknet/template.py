"""YOLOv4-tiny's cfg for a user's own classes, with two or three heads, and anchors from a user's own boxes.

Layers, options and numbers: https://github.com/AlexeyAB/darknet ``cfg/yolov4-tiny-custom.cfg`` and
``cfg/yolov4-tiny-3l.cfg``; what depends on the classes: "How to train (to detect your custom objects)" there;
anchors: "how to calculate anchors" there, and section 2 of YOLO9000, https://arxiv.org/abs/1612.08242.
"""

from collections.abc import Sequence

import numpy as np

from retinamask.detectors.darknet.cfg import SIDE_STEP

ANCHORS_PER_HEAD = 3
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
_MOST_BOXES = 5000  # drawn at random; of 100,000 that takes seconds instead of minutes, and fits no worse
_STARTS = 10  # k-means ends where it began; the best of several is kept
_MOST_STEPS = 300  # the mean is not the centre that 1 - IoU would choose, so that rarely steps go round in a circle


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
    if image_size < SIDE_STEP or image_size % SIDE_STEP:
        raise ValueError(f"image_size is {image_size}, expected a multiple of {SIDE_STEP} such as 416 or 608")
    if levels not in YOLOV4_TINY_ANCHORS:
        raise ValueError(f"levels is {levels}, expected 2 (yolov4-tiny) or 3 (yolov4-tiny-3l)")
    if batches < 1:
        raise ValueError(f"max_batches is {batches}, expected 1 or more")
    anchors = np.asarray(YOLOV4_TINY_ANCHORS[levels] if anchors_wh is None else anchors_wh, dtype=float)
    if anchors.shape != (ANCHORS_PER_HEAD * levels, 2):
        raise ValueError(f"anchors_wh has shape {anchors.shape}, expected {(ANCHORS_PER_HEAD * levels, 2)}")
    if not (np.isfinite(anchors).all() and (anchors > 0).all()):
        raise ValueError(f"anchors_wh is {anchors.tolist()}, expected numbers of pixels above 0")
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]  # as masks expect them
    first, second = batches * 8 // 10, batches * 9 // 10
    net = _section("net", _NET.format(side=image_size, batches=batches, first=first, second=second))
    heads = [section for level in range(levels) for section in _head(level, levels, class_count, anchors)]
    return "\n".join([net, *_trunk(), *heads])


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


def suggest_anchors(sizes_wh: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Find anchors that fit boxes, by k-means as Darknet's ``calc_anchors``; the same seed gives the same answer.

    Two shapes are as far apart as 1 - IoU of both laid on one corner; a cluster's centre is the mean of its sizes.

    Args:
        sizes_wh: ``(N, 2)`` widths and heights of the boxes in pixels of the network's input, above 0.
        count: how many anchors.
        seed: of the starts, which are drawn from the boxes, those that nothing fits yet more often (k-means++); and
            of the boxes that are looked at, where there are more than 5000.

    Returns:
        ``(count, 2)`` pixels, to a tenth of a pixel, by growing area.

    Raises:
        ValueError: not so many different boxes, or sizes that are none.
    """
    sizes_wh = _checked(np.round(sizes_wh, 3))  # the same share of images of two sizes may differ in the last bit
    generator = np.random.default_rng(seed)
    if len(sizes_wh) > _MOST_BOXES:
        sizes_wh = sizes_wh[generator.choice(len(sizes_wh), _MOST_BOXES, replace=False)]
    different = len(np.unique(sizes_wh, axis=0))
    if different < count:
        raise ValueError(
            f"found {different} different box size(s), expected at least {count} for as many anchors; "
            "add boxes, or keep the published anchors"
        )
    found = [_clusters(sizes_wh, count, generator) for _ in range(_STARTS)]
    best = max(found, key=lambda anchors_wh: mean_best_overlap(sizes_wh, anchors_wh))
    rounded = np.maximum(np.round(best, 1), 0.1)
    return rounded[np.argsort(rounded.prod(axis=1), kind="stable")]


def mean_best_overlap(sizes_wh: np.ndarray, anchors_wh: np.ndarray) -> float:
    """Return the IoU of a box with its best anchor, all on one corner: the mean over ``(N, 2)`` boxes, 0 to 1.

    Darknet calls it "avg IoU".
    """
    return float(_overlaps(_checked(sizes_wh), np.asarray(anchors_wh, dtype=float)).max(axis=1).mean())


def _checked(sizes_wh: np.ndarray) -> np.ndarray:
    sizes_wh = np.asarray(sizes_wh, dtype=float)
    if sizes_wh.ndim != 2 or sizes_wh.shape[1] != 2 or not len(sizes_wh):
        raise ValueError(f"sizes_wh has shape {sizes_wh.shape}, expected (N, 2) with N of 1 or more")
    if not (np.isfinite(sizes_wh).all() and (sizes_wh > 0).all()):
        raise ValueError("sizes_wh has a width or height that is not above 0; remove empty boxes")
    return sizes_wh


def _overlaps(sizes_wh: np.ndarray, anchors_wh: np.ndarray) -> np.ndarray:
    """Return the IoU of boxes and anchors on one corner, ``(N, anchors)``."""
    shared = np.minimum(sizes_wh[:, None], anchors_wh[None]).prod(axis=2)
    return shared / (sizes_wh.prod(axis=1)[:, None] + anchors_wh.prod(axis=1) - shared)


def _clusters(sizes_wh: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Run k-means from a k-means++ start; a cluster that loses its last box stays where it was."""
    chosen = [int(generator.integers(len(sizes_wh)))]
    nearest = np.zeros(len(sizes_wh))  # IoU with the best of those chosen
    while len(chosen) < count:
        nearest = np.maximum(nearest, _overlaps(sizes_wh, sizes_wh[chosen[-1:]])[:, 0])
        distances = np.where(nearest > 1 - 1e-12, 0, 1 - nearest)  # one that is chosen is not chosen again
        chosen.append(int(generator.choice(len(sizes_wh), p=distances / distances.sum())))
    centres_wh, belongs = sizes_wh[chosen].copy(), None
    for _ in range(_MOST_STEPS):
        now = _overlaps(sizes_wh, centres_wh).argmax(axis=1)
        if belongs is not None and (now == belongs).all():
            break
        belongs = now
        sums = np.stack([np.bincount(now, sizes_wh[:, axis], count) for axis in (0, 1)], axis=1)
        counts = np.bincount(now, minlength=count)[:, None]
        centres_wh = np.where(counts, sums / np.maximum(counts, 1), centres_wh)
    return centres_wh
