"""Training images varied in the graph: flipped, zoomed and cut, recoloured, or four put together, boxes along.

Sits above `settings` and `warping`; `input_pipeline` calls it inside `tf.data`, one example at a time. Nothing here
has a state: the same seed gives the same example, in any order and on any number of threads; outside a graph a value
in ten million may be rounded the other way. Pixels are `float32` only from the one resampling to the one change of
colour.
"""

import math
from typing import NamedTuple

from retinamask.detectors import _keras
from retinamask.training import warping
from retinamask.training.settings import AugmentationSettings

MOSAIC_CENTRE = (0.3, 0.7)  # where the four images of a mosaic meet, as a share of the canvas
MOSAIC_SCALE = (0.5, 1.0)
_DRAWS = 7  # random numbers for each image: flip, zoom, left, top, brightness, contrast, saturation
_GREY_OF_RGB = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
_BLOCK = 4  # pixels that go through the colour matrix side by side: a third faster than one by one
_ROUNDING = 1e-4


class _Cut(NamedTuple):
    """A part of an image, in whole pixels, and the size that it is brought to; tensors."""

    left_top: object  # (2,) int32
    size_wh: object  # (2,) int32
    out_wh: object  # (2,) int32
    flip: object  # () bool: left to right


def augment(image, boxes, labels, seed, settings: AugmentationSettings, canvas_wh: tuple[int, int]):
    """One example varied as `settings` say and laid into the canvas, for use in a graph or eagerly.

    The factor of the zoom is rounded on each side, so that a part of whole pixels becomes one of whole pixels;
    boxes follow the rounded one, and so stay on their pixels. Sampling is bilinear between pixel centres, as
    OpenCV's. With `NO_AUGMENTATION` the image is padded and nothing else.

    Args:
        image: `uint8` RGB of shape (height, width, 3), at most as large as the canvas.
        boxes: `float32` xyxy of shape (M, 4) in pixels of the image.
        labels: `int32` of shape (M,).
        seed: two `int32`, which decide everything.
        settings: how far to go; `mosaic` is not read here. Boxes do not follow what `warping` does.
        canvas_wh: width and height of the result.

    Returns:
        The image, `uint8` of the canvas's shape with zeros to the right and below the content; width and height of
        the content, `int32`; boxes clipped to it and their labels, without those of which less than
        `visible_share` or less than a square pixel is left.
    """
    _keras.prepare()
    import tensorflow as tf

    draws = tf.random.stateless_uniform((_DRAWS,), seed, alg="philox")
    size_wh = _size_wh(image)
    cut = _zoomed(size_wh, draws, settings, canvas_wh)
    resampled = (settings.zoom_out, settings.zoom_in) != (1, 1)
    content = _recoloured(_pixels(image, cut, resampled), draws, settings)
    if warping.is_asked_for(settings):
        content = warping.warped(content, seed, settings)
    boxes, labels = _moved(boxes, labels, cut, settings)
    return _padded(content, cut.out_wh, canvas_wh), cut.out_wh, boxes, labels


def mosaic(images, boxes, labels, seed, settings: AugmentationSettings, canvas_wh: tuple[int, int]):
    """Four examples around a random point, each a part of its image (YOLOv4, https://arxiv.org/abs/2004.10934).

    Each is scaled by 0.5 to 1, or more where it would not fill its quarter otherwise, cut at a random place, flipped
    and recoloured on its own.

    Args:
        images, boxes, labels: four of each, as in `augment`: upper left, upper right, lower left and lower right.
        seed, settings, canvas_wh: as in `augment`; the zoom's limits are not read here.

    Returns:
        As `augment`; the content is the whole canvas.
    """
    _keras.prepare()
    import tensorflow as tf

    draws = tf.random.stateless_uniform((5, _DRAWS), seed, alg="philox")
    width, height = canvas_wh
    canvas_wh = tf.constant(canvas_wh)
    share = MOSAIC_CENTRE[0] + (MOSAIC_CENTRE[1] - MOSAIC_CENTRE[0]) * draws[-1, :2]
    centre = tf.cast(tf.round(share * tf.cast(canvas_wh, tf.float32)), tf.int32)
    left_tops = [tf.stack(point) for point in ((0, 0), (centre[0], 0), (0, centre[1]), (centre[0], centre[1]))]
    contents, found = [], []
    for number, (image, left_top) in enumerate(zip(images, left_tops, strict=True)):
        quarter_wh = tf.where(left_top > 0, canvas_wh - centre, centre)
        cut = _filling(_size_wh(image), draws[number], settings, quarter_wh)
        contents.append(_recoloured(_pixels(image, cut, resampled=True), draws[number], settings))
        in_quarter, kept = _moved(boxes[number], labels[number], cut, settings)
        found.append((in_quarter + tf.tile(tf.cast(left_top, tf.float32), (2,)), kept))
    rows = [tf.concat(contents[:2], 1), tf.concat(contents[2:], 1)]
    canvas = tf.ensure_shape(tf.concat(rows, 0), (height, width, 3))
    return canvas, canvas_wh, *(tf.concat(parts, 0) for parts in zip(*found, strict=True))


def _size_wh(image):
    import tensorflow as tf

    return tf.gather(tf.shape(image), (1, 0))


def _between(low: float, high: float, draw):
    return low + (high - low) * draw


def _zoomed(size_wh, draws, settings: AugmentationSettings, canvas_wh: tuple[int, int]) -> _Cut:
    """The part of an image that a random zoom shows, and its size."""
    import tensorflow as tf

    if (settings.zoom_out, settings.zoom_in) == (1, 1):
        return _Cut(tf.zeros_like(size_wh), size_wh, size_wh, draws[0] < settings.flip)
    factor = tf.exp(_between(math.log(settings.zoom_out), math.log(settings.zoom_in), draws[1]))
    scaled = tf.cast(tf.round(factor * tf.cast(size_wh, tf.float32)), tf.int32)
    out_wh = tf.clip_by_value(scaled, 1, canvas_wh)
    return _placed(size_wh, out_wh, factor, draws, settings)


def _filling(size_wh, draws, settings: AugmentationSettings, out_wh) -> _Cut:
    """A random part of an image that fills `out_wh`."""
    import tensorflow as tf

    least = tf.reduce_max(tf.cast(out_wh, tf.float32) / tf.cast(size_wh, tf.float32))
    return _placed(size_wh, out_wh, tf.maximum(least, _between(*MOSAIC_SCALE, draws[1])), draws, settings)


def _placed(size_wh, out_wh, factor, draws, settings: AugmentationSettings) -> _Cut:
    """What of an image is `out_wh` pixels large when scaled by `factor`: a part at a random place, or all of it."""
    import tensorflow as tf

    is_cut = tf.cast(out_wh, tf.float32) < tf.round(factor * tf.cast(size_wh, tf.float32))
    part_wh = tf.cast(tf.round(tf.cast(out_wh, tf.float32) / factor), tf.int32)
    part_wh = tf.where(is_cut, tf.clip_by_value(part_wh, 1, size_wh), size_wh)
    room = size_wh - part_wh
    left_top = tf.cast(draws[2:4] * tf.cast(room + 1, tf.float32), tf.int32)
    return _Cut(tf.minimum(left_top, room), part_wh, out_wh, draws[0] < settings.flip)


def _pixels(image, cut: _Cut, resampled: bool):
    """The pixels of a cut: `float32` where they had to be resampled, else `uint8`."""
    import tensorflow as tf

    left, top = tf.unstack(cut.left_top)
    width, height = tf.unstack(cut.size_wh)
    part = image[top : top + height, left : left + width] if resampled else image
    part = tf.cond(cut.flip, lambda: tf.reverse(part, [1]), lambda: part)
    if not resampled:
        return part
    part = tf.cast(part, tf.float32)[None]  # resampled in half the time of `uint8`
    return tf.raw_ops.ResizeBilinear(images=part, size=tf.reverse(cut.out_wh, [0]), half_pixel_centers=True)[0]


def _recoloured(pixels, draws, settings: AugmentationSettings):
    """Saturation, contrast around mid-grey and brightness changed in one matrix and one offset, as `uint8`."""
    import tensorflow as tf

    if settings.brightness or settings.contrast or settings.saturation:
        brightness = _between(-settings.brightness, settings.brightness, draws[4])
        contrast = _between(1 - settings.contrast, 1 + settings.contrast, draws[5])
        pixels = tf.cast(pixels, tf.float32)
        if settings.saturation:
            saturation = _between(1 - settings.saturation, 1 + settings.saturation, draws[6])
            to_grey = tf.tile(tf.constant(_GREY_OF_RGB)[:, None], (1, 3))
            pixels = _mixed(pixels, contrast * (saturation * tf.eye(3) + (1 - saturation) * to_grey))
        else:
            pixels *= contrast
        pixels += 128 * (1 - contrast) + brightness
    if pixels.dtype == tf.uint8:
        return pixels
    return _rounded(pixels)


def _mixed(pixels, matrix):
    """Each pixel's channels times a matrix (3, 3), in blocks of pixels where their number allows it."""
    import tensorflow as tf

    block = tf.where(tf.size(pixels) % (3 * _BLOCK) == 0, _BLOCK, 1)
    along_diagonal = tf.eye(block)[:, None, :, None] * matrix[None, :, None, :]
    wide = tf.reshape(along_diagonal, (3 * block, 3 * block))
    return tf.reshape(tf.reshape(pixels, (-1, 3 * block)) @ wide, tf.shape(pixels))


def _rounded(pixels):
    """`float32` as `uint8`, rounded and limited to 0 to 255, in one pass: half the time of clip and cast."""
    import tensorflow as tf

    quantized = tf.raw_ops.QuantizeV2(input=pixels, min_range=0.0, max_range=255.0, T=tf.quint8, mode="MIN_COMBINED")
    return tf.bitcast(quantized.output, tf.uint8)


def _padded(content, size_wh, canvas_wh: tuple[int, int]):
    """The content in the canvas's upper left corner; padded as rows of bytes, five times faster than as pixels."""
    import tensorflow as tf

    width, height = canvas_wh
    rows = tf.reshape(content, (size_wh[1], 3 * size_wh[0]))
    padded = tf.pad(rows, [[0, height - size_wh[1]], [0, 3 * (width - size_wh[0])]])
    return tf.reshape(padded, (height, width, 3))


def _moved(boxes, labels, cut: _Cut, settings: AugmentationSettings):
    """Boxes in the pixels of a cut, clipped to it, and labels; without what is hardly seen."""
    import tensorflow as tf

    out_wh = tf.cast(cut.out_wh, tf.float32)
    scales = out_wh / tf.cast(cut.size_wh, tf.float32)
    moved = (boxes - tf.tile(tf.cast(cut.left_top, tf.float32), (2,))) * tf.tile(scales, (2,))
    x1, y1, x2, y2 = tf.unstack(moved, axis=1)
    x1, x2 = tf.where(cut.flip, out_wh[0] - x2, x1), tf.where(cut.flip, out_wh[0] - x1, x2)
    whole = tf.stack([x1, y1, x2, y2], 1)
    inside = tf.clip_by_value(whole, 0, tf.tile(out_wh, (2,)))
    # A box that ends at the image's edge may lose a trace to rounding; it is whole all the same.
    seen = _areas(inside) >= (settings.visible_share - _ROUNDING) * _areas(whole)
    kept = seen & (_areas(inside) >= 1)
    return tf.boolean_mask(inside, kept), tf.boolean_mask(labels, kept)


def _areas(boxes):
    import tensorflow as tf

    return tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)
