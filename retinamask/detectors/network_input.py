"""Pixels to network input inside TensorFlow's graph; stands between the training pipeline and the network.

Images stay ``uint8`` until here, a quarter of the memory and of the copying. The numbers are those of
`retinamask.dataset.images.normalise` and `pad`, which detection goes through.
"""

from retinamask.dataset.images import PREPROCESSINGS


def network_input(images_rgb, sizes_wh, preprocessing: str):
    """Normalise a padded batch and make its padding zero.

    Args:
        images_rgb: ``uint8`` tensor of shape ``(B, H, W, 3)``, padded right and bottom with anything.
        sizes_wh: ``int32`` tensor of shape ``(B, 2)``, the part of each image that is not padding, in pixels.
        preprocessing: a name in `retinamask.dataset.images.PREPROCESSINGS`.

    Returns:
        ``float32`` of shape ``(B, H, W, 3)``, channels in the order of the preprocessing.

    Raises:
        ValueError: ``preprocessing`` is none of them.
    """
    import tensorflow

    if preprocessing not in PREPROCESSINGS:
        raise ValueError(f"preprocessing is {preprocessing!r}, expected one of: {', '.join(PREPROCESSINGS)}")
    is_bgr, divisor, mean = PREPROCESSINGS[preprocessing]
    batch, height, width = (tensorflow.shape(images_rgb)[axis] for axis in range(3))
    images = tensorflow.cast(tensorflow.reverse(images_rgb, [-1]) if is_bgr else images_rgb, tensorflow.float32)
    # A row's pixels and channels lie in one axis: sums with rows of three numbers are several times slower.
    rows = tensorflow.reshape(images, (batch, height, 3 * width))
    normalised = rows if divisor == 1 else rows / divisor
    if any(mean):
        normalised -= mean[0] if len(set(mean)) == 1 else tensorflow.tile(tensorflow.constant(mean), [width])
    within_width = tensorflow.range(3 * width)[None] < 3 * sizes_wh[:, :1]
    within_height = tensorflow.range(height)[None] < sizes_wh[:, 1:]
    normalised *= tensorflow.cast(within_width, tensorflow.float32)[:, None, :]
    normalised *= tensorflow.cast(within_height, tensorflow.float32)[:, :, None]
    return tensorflow.ensure_shape(tensorflow.reshape(normalised, (batch, height, width, 3)), images_rgb.shape)
