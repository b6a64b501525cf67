"""Faces turned, shifted, slanted and partly hidden in the graph, for classifiers: boxes could not follow.

Sits above `settings`; `augmentation` calls it on what an image shows, before it is laid into the canvas. Stateless as
the rest there: the same seed gives the same face.
"""

import math

from retinamask.training.settings import AugmentationSettings

ERASED_WIDTH = (0.3, 0.9)  # of the hidden rectangle, as a share of the face
ERASED_HEIGHT = (0.1, 0.5)
LOWER_HALF = 0.5
_DRAWS = 9  # angle, shift across and down, slant, whether to hide, and the rectangle's width, height, left and top
_WARPING = 2_000_003  # what is folded into an example's seed; any number that nothing else folds in


def stretched(image, boxes, canvas_wh: tuple[int, int]):
    """A face that fills the canvas, and its boxes; as `retinamask.dataset.images.stretch` does it, in the graph.

    Args:
        image: `uint8` RGB of shape (height, width, 3).
        boxes: `float32` xyxy of shape (M, 4) in its pixels.
        canvas_wh: width and height of the result.
    """
    import tensorflow as tf

    shape = tf.cast(tf.shape(image), tf.float32)
    size_hw = canvas_wh[::-1]
    resized = tf.raw_ops.ResizeBilinear(images=image[None], size=size_hw, half_pixel_centers=True)[0]
    scales = tf.constant(canvas_wh, tf.float32) / tf.stack([shape[1], shape[0]])
    return tf.cast(tf.round(resized), tf.uint8), boxes * tf.tile(scales, (2,))


def is_asked_for(settings: AugmentationSettings) -> bool:
    """Whether `warped` would change anything."""
    return any((settings.rotate, settings.shift, settings.shear, settings.erase))


def warped(content, seed, settings: AugmentationSettings):
    """A face turned around its middle, shifted and slanted, and then hidden in part, as `settings` say.

    What comes in from outside repeats the face's edge, as the published recipe has it (Keras's ``nearest``). The
    hidden rectangle lies in the lower half, where a mask is, and is filled with a random colour for each pixel,
    which Zhong et al. found best (https://arxiv.org/abs/1708.04896) and which looks like no mask.

    Args:
        content: `uint8` RGB of shape (height, width, 3).
        seed: two `int32`, which decide everything.
        settings: how far to go; only ``rotate``, ``shift``, ``shear`` and ``erase`` are read.

    Returns:
        `uint8` of the same shape.
    """
    import tensorflow as tf

    own_seed = tf.random.experimental.stateless_fold_in(seed, _WARPING)
    draws = tf.random.stateless_uniform((_DRAWS,), own_seed, alg="philox")
    if settings.rotate or settings.shift or settings.shear:
        content = _moved(content, _transform(tf.shape(content), draws, settings))
    if settings.erase:
        content = tf.cond(draws[4] < settings.erase, lambda: _erased(content, draws, own_seed), lambda: content)
    return content


def _transform(shape, draws, settings: AugmentationSettings):
    """The eight numbers of TensorFlow's projective transform, from a pixel of the result to where it is read."""
    import tensorflow as tf

    angle = math.radians(settings.rotate) * (2 * draws[0] - 1)
    slant = settings.shear * (2 * draws[3] - 1)
    size_hw = tf.cast(shape[:2], tf.float32)
    middle_y, middle_x = tf.unstack((size_hw - 1) / 2)
    shift_x, shift_y = tf.unstack(settings.shift * (2 * draws[1:3] - 1) * size_hw[::-1])
    cosine, sine = tf.cos(angle), tf.sin(angle)
    # Turned after slanted: x' = cos x + (slant cos - sin) y, y' = sin x + (slant sin + cos) y, around the middle.
    along = cosine, slant * cosine - sine
    down = sine, slant * sine + cosine
    x = middle_x - along[0] * (middle_x + shift_x) - along[1] * (middle_y + shift_y)
    y = middle_y - down[0] * (middle_x + shift_x) - down[1] * (middle_y + shift_y)
    return tf.stack([*along, x, *down, y, 0.0, 0.0])


def _moved(content, transform):
    import tensorflow as tf

    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(content, tf.float32)[None],
        transforms=transform[None],
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
    shares = tf.stack([_between(ERASED_HEIGHT, draws[6]), _between(ERASED_WIDTH, draws[5])])
    free = tf.constant([1 - LOWER_HALF, 1.0]) - shares
    start = tf.constant([LOWER_HALF, 0.0]) + tf.reverse(draws[7:9], [0]) * free
    top, left = tf.unstack(tf.round(start * size_hw))
    bottom, right = tf.unstack(tf.round((start + shares) * size_hw))
    rows, columns = tf.range(size_hw[0])[:, None], tf.range(size_hw[1])[None]
    hidden = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    noise = tf.random.stateless_uniform(tf.shape(content), seed, 0, 256, tf.int32, alg="philox")
    return tf.where(hidden[..., None], tf.cast(noise, tf.uint8), content)


def _between(limits: tuple[float, float], draw):
    return limits[0] + (limits[1] - limits[0]) * draw
