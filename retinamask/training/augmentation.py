"""Training images varied in the graph: flipped, zoomed and cut, recoloured, or four put together, boxes along.

`input_pipeline` calls it inside `tf.data`, one example at a time. Nothing here has a state: the same seed gives the
same example, in any order and on any number of threads; outside a graph a value in ten million may be rounded the
other way. Pixels are `float32` only from the one resampling to the one change of colour. Faces for classifiers are
also rotated, shifted, sheared and partly hidden, which boxes could not follow.
"""

import math
from typing import NamedTuple

from retinamask.training.settings import AugmentationSettings

MOSAIC_CENTRE = (0.3, 0.7)  # where the four images of a mosaic meet, as a share of the canvas
MOSAIC_SCALE = (0.5, 1.0)
ERASED_WIDTH = (0.3, 0.9)  # of the hidden rectangle, as a share of the face
ERASED_HEIGHT = (0.1, 0.5)
LOWER_HALF = 0.5
_WARP_DRAWS = 9  # angle, shift across and down, shear, whether to hide, and the rectangle's width, height, left and top
_WARPING = 2_000_003  # what is folded into an example's seed; any number that nothing else folds in
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
    """Vary one example as `settings` say and lay it into the canvas, for use in a graph or eagerly.

    The factor of the zoom is rounded on each side, so that a part of whole pixels becomes one of whole pixels;
    boxes follow the rounded one, and so stay on their pixels. Sampling is bilinear between pixel centres, as
    OpenCV's. With `NO_AUGMENTATION` the image is padded and nothing else.

    Args:
        image: `uint8` RGB of shape (height, width, 3), at most as large as the canvas.
        boxes, labels: `float32` xyxy of shape (M, 4) in pixels of the image, and `int32` of shape (M,).
        seed: two `int32`, which decide everything.
        settings: how far to go; `mosaic` is not read here. Boxes do not follow what `warped` does.

    Returns:
        The image, `uint8` of the canvas's shape with zeros to the right and below the content; width and height of
        the content, `int32`; boxes clipped to it and their labels, without those of which less than
        `visible_share` or less than a square pixel is left.
    """
    import tensorflow as tf

    draws = tf.random.stateless_uniform((_DRAWS,), seed, alg="philox")
    size_wh = tf.gather(tf.shape(image), (1, 0))
    resampled = (settings.zoom_out, settings.zoom_in) != (1, 1)
    if resampled:
        factor = tf.exp(_between(math.log(settings.zoom_out), math.log(settings.zoom_in), draws[1]))
        scaled = tf.cast(tf.round(factor * tf.cast(size_wh, tf.float32)), tf.int32)
        cut = _placed(size_wh, tf.clip_by_value(scaled, 1, canvas_wh), factor, draws, settings)
    else:
        cut = _Cut(tf.zeros_like(size_wh), size_wh, size_wh, draws[0] < settings.flip)
    content = _recoloured(_pixels(image, cut, resampled), draws, settings)
    if warps(settings):
        content = warped(content, seed, settings)
    boxes, labels = _moved(boxes, labels, cut, settings)
    # Padded as rows of bytes, five times faster than as pixels.
    (width, height), (out_width, out_height) = canvas_wh, tf.unstack(cut.out_wh)
    rows = tf.reshape(content, (out_height, 3 * out_width))
    padded = tf.pad(rows, [[0, height - out_height], [0, 3 * (width - out_width)]])
    return tf.reshape(padded, (height, width, 3)), cut.out_wh, boxes, labels


def mosaic(images, boxes, labels, seed, settings: AugmentationSettings, canvas_wh: tuple[int, int]):
    """Put four examples around a random point, each a part of its image (YOLOv4, https://arxiv.org/abs/2004.10934).

    Each is scaled by 0.5 to 1, or more where it would not fill its quarter otherwise, cut at a random place, flipped
    and recoloured on its own.

    Args:
        images, boxes, labels: four of each, as in `augment`: upper left, upper right, lower left and lower right.
        seed, settings, canvas_wh: as in `augment`; the zoom's limits are not read here.

    Returns:
        As `augment`; the content is the whole canvas.
    """
    import tensorflow as tf

    draws = tf.random.stateless_uniform((5, _DRAWS), seed, alg="philox")
    width, height = canvas_wh
    canvas_wh = tf.constant(canvas_wh)
    share = _between(*MOSAIC_CENTRE, draws[-1, :2])
    centre = tf.cast(tf.round(share * tf.cast(canvas_wh, tf.float32)), tf.int32)
    left_tops = [tf.stack(point) for point in ((0, 0), (centre[0], 0), (0, centre[1]), (centre[0], centre[1]))]
    contents, found = [], []
    for number, (image, left_top) in enumerate(zip(images, left_tops, strict=True)):
        quarter_wh = tf.where(left_top > 0, canvas_wh - centre, centre)
        size_wh = tf.gather(tf.shape(image), (1, 0))
        least = tf.reduce_max(tf.cast(quarter_wh, tf.float32) / tf.cast(size_wh, tf.float32))
        factor = tf.maximum(least, _between(*MOSAIC_SCALE, draws[number, 1]))
        cut = _placed(size_wh, quarter_wh, factor, draws[number], settings)
        contents.append(_recoloured(_pixels(image, cut, resampled=True), draws[number], settings))
        in_quarter, kept = _moved(boxes[number], labels[number], cut, settings)
        found.append((in_quarter + tf.tile(tf.cast(left_top, tf.float32), (2,)), kept))
    rows = [tf.concat(contents[:2], 1), tf.concat(contents[2:], 1)]
    canvas = tf.ensure_shape(tf.concat(rows, 0), (height, width, 3))
    return canvas, canvas_wh, *(tf.concat(parts, 0) for parts in zip(*found, strict=True))


def _between(low: float, high: float, draw):
    return low + (high - low) * draw


def _placed(size_wh, out_wh, factor, draws, settings: AugmentationSettings) -> _Cut:
    """Cut out what is `out_wh` pixels large when scaled by `factor`: a part at a random place, or all of it."""
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
            matrix = contrast * (saturation * tf.eye(3) + (1 - saturation) * to_grey)
            block = tf.where(tf.size(pixels) % (3 * _BLOCK) == 0, _BLOCK, 1)
            along_diagonal = tf.eye(block)[:, None, :, None] * matrix[None, :, None, :]
            wide = tf.reshape(along_diagonal, (3 * block, 3 * block))
            pixels = tf.reshape(tf.reshape(pixels, (-1, 3 * block)) @ wide, tf.shape(pixels))
        else:
            pixels *= contrast
        pixels += 128 * (1 - contrast) + brightness
    if pixels.dtype == tf.uint8:
        return pixels
    # Rounded and limited to 0 to 255 in one pass: half the time of clip and cast.
    quantized = tf.raw_ops.QuantizeV2(input=pixels, min_range=0.0, max_range=255.0, T=tf.quint8, mode="MIN_COMBINED")
    return tf.bitcast(quantized.output, tf.uint8)


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
    area, area_of_whole = (tf.reduce_prod(each[:, 2:] - each[:, :2], axis=1) for each in (inside, whole))
    kept = (area >= (settings.visible_share - _ROUNDING) * area_of_whole) & (area >= 1)
    return tf.boolean_mask(inside, kept), tf.boolean_mask(labels, kept)


def stretched(image, boxes, canvas_wh: tuple[int, int]):
    """Stretch a face, and its boxes, so that it fills the canvas; `retinamask.dataset.images.stretch` in the graph.

    The image is `uint8` RGB of shape (height, width, 3), boxes are `float32` xyxy of shape (M, 4) in its pixels.
    """
    import tensorflow as tf

    shape = tf.cast(tf.shape(image), tf.float32)
    size_hw = canvas_wh[::-1]
    resized = tf.raw_ops.ResizeBilinear(images=image[None], size=size_hw, half_pixel_centers=True)[0]
    scales = tf.constant(canvas_wh, tf.float32) / tf.stack([shape[1], shape[0]])
    return tf.cast(tf.round(resized), tf.uint8), boxes * tf.tile(scales, (2,))


def warps(settings: AugmentationSettings) -> bool:
    """Say whether `warped` would change anything."""
    return any((settings.rotate, settings.shift, settings.shear, settings.erase))


def warped(content, seed, settings: AugmentationSettings):
    """Rotate a face around its middle, shift and shear it, and then hide a part, as `settings` say.

    The face is `uint8` RGB of shape (height, width, 3), as is the result. What comes in from outside repeats its edge,
    as the published recipe has it (Keras's ``nearest``). The hidden rectangle lies in the lower half, where a mask is,
    and is filled with a random colour for each pixel, which Zhong et al. found best
    (https://arxiv.org/abs/1708.04896) and which looks like no mask.
    """
    import tensorflow as tf

    own_seed = tf.random.experimental.stateless_fold_in(seed, _WARPING)
    draws = tf.random.stateless_uniform((_WARP_DRAWS,), own_seed, alg="philox")
    if settings.rotate or settings.shift or settings.shear:
        content = _turned(content, draws, settings)
    if settings.erase:
        content = tf.cond(draws[4] < settings.erase, lambda: _erased(content, draws, own_seed), lambda: content)
    return content


def _turned(content, draws, settings: AugmentationSettings):
    """Rotate, shift and shear by TensorFlow's projective transform: eight numbers say where to read a pixel."""
    import tensorflow as tf

    angle = math.radians(settings.rotate) * (2 * draws[0] - 1)
    slant = settings.shear * (2 * draws[3] - 1)
    size_hw = tf.cast(tf.shape(content)[:2], tf.float32)
    middle_y, middle_x = tf.unstack((size_hw - 1) / 2)
    shift_x, shift_y = tf.unstack(settings.shift * (2 * draws[1:3] - 1) * size_hw[::-1])
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # Turned after slanted: x' = cos x + (slant cos - sin) y, y' = sin x + (slant sin + cos) y, around the middle.
    along = cosine, slant * cosine - sine
    down = sine, slant * sine + cosine
    x = middle_x - along[0] * (middle_x + shift_x) - along[1] * (middle_y + shift_y)
    y = middle_y - down[0] * (middle_x + shift_x) - down[1] * (middle_y + shift_y)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(content, tf.float32)[None],
        transforms=tf.stack([*along, x, *down, y, 0.0, 0.0])[None],
        output_shape=tf.shape(content)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return tf.ensure_shape(tf.cast(tf.round(tf.clip_by_value(moved[0], 0, 255)), tf.uint8), content.shape)


def _erased(content, draws, seed):
    """A rectangle of the lower half filled with noise."""
    import tensorflow as tf

    size_hw = tf.cast(tf.shape(content)[:2], tf.float32)
    shares = tf.stack([_between(*ERASED_HEIGHT, draws[6]), _between(*ERASED_WIDTH, draws[5])])
    free = tf.constant([1 - LOWER_HALF, 1.0]) - shares
    start = tf.constant([LOWER_HALF, 0.0]) + tf.reverse(draws[7:9], [0]) * free
    top, left = tf.unstack(tf.round(start * size_hw))
    bottom, right = tf.unstack(tf.round((start + shares) * size_hw))
    rows, columns = tf.range(size_hw[0])[:, None], tf.range(size_hw[1])[None]
    hidden = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    noise = tf.random.stateless_uniform(tf.shape(content), seed, 0, 256, tf.int32, alg="philox")
    return tf.where(hidden[..., None], tf.cast(noise, tf.uint8), content)
