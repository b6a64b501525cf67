"""Input of another side every few updates, so that a detector learns faces of all sizes (YOLOv2, section 2).

Beside `augmentation`, which varies each example; `input_pipeline` calls this on whole batches. The side follows from
seed and step alone, so that all devices and machines, and a resumed run, take the same.
"""

from retinamask.detectors import _keras

STRIDE = 32  # pixels that the deepest feature map of a YOLO takes together
UPDATES = 10  # with one side, as in Darknet

_DRAW = 2_000_003  # tells this draw from the others of the same seed


def sides(side: int, factor: float) -> list[int]:
    """The multiples of 32 from ``side / factor`` to ``side * factor``.

    Raises:
        ValueError: there is none.
    """
    smallest, largest = -int(-side / factor // STRIDE), int(side * factor // STRIDE)
    found = [STRIDE * number for number in range(smallest, largest + 1)]
    if not found:
        raise ValueError(f"image_size {side} and multi_scale {factor} leave no side that {STRIDE} divides")
    return found


def drawn_side(side: int, factor: float, seed: int, step):
    """In the graph: the side of the input at a step, a scalar ``int32``."""
    _keras.prepare()
    import tensorflow as tf

    choices = sides(side, factor)
    turn = tf.cast(step // UPDATES, tf.int32)
    index = tf.random.stateless_uniform([], tf.stack([seed, turn + _DRAW]), 0, len(choices), tf.int32)
    return tf.gather(choices, index)


def resized(batch: dict, side) -> dict:
    """In the graph: a batch of square input with its images, sizes and boxes brought to ``side`` pixels."""
    import tensorflow as tf

    old = tf.shape(batch["images"])[1]
    factor = tf.cast(side, tf.float32) / tf.cast(old, tf.float32)
    pixels = tf.cast(batch["images"], tf.float32)
    pixels = tf.raw_ops.ResizeBilinear(images=pixels, size=tf.stack([side, side]), half_pixel_centers=True)
    return {
        **batch,
        "images": tf.cast(tf.round(pixels), tf.uint8),
        "sizes_wh": tf.cast(tf.round(tf.cast(batch["sizes_wh"], tf.float32) * factor), tf.int32),
        "boxes": batch["boxes"] * factor,
    }
