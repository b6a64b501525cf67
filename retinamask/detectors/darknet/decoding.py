"""From a head's raw map to boxes and probabilities, inside TensorFlow's graph; behind `network`.

Bochkovskiy et al., *YOLOv4*, https://arxiv.org/abs/2004.10934, section 3.4 ("eliminate grid sensitivity" is
``scale_x_y``); widths and heights as in Redmon and Farhadi, *YOLO9000*, https://arxiv.org/abs/1612.08242, section 2.
"""

from retinamask.detectors.darknet.cfg import Head

MAX_EXPONENT = 10.0
"""An anchor grows at most e^10 = 22026 fold: wider than any image, but never infinite, which would make losses NaN."""


def decode(raw, head: Head, canvas_wh):
    """Boxes and probabilities of every place and anchor of a head.

    Args:
        raw: ``(B, h, w, anchors * (5 + classes))`` from `network.build`, of any float type.
        head: what the cfg says about it.
        canvas_wh: width and height of the network's input in pixels, numbers or scalar tensors.

    Returns:
        Boxes ``(B, h * w * anchors, 4)`` as left, top, right, bottom in pixels of the input, not clipped to it;
        objectness ``(B, h * w * anchors)``; probabilities of the classes given an object, each on its own,
        ``(B, h * w * anchors, classes)``. All ``float32``, by row, column and anchor, as OpenCV's region layer.
    """
    import tensorflow

    anchors, values = len(head.mask), 5 + head.class_count
    batch, height, width = tensorflow.unstack(tensorflow.shape(raw)[:3])
    maps = tensorflow.reshape(tensorflow.cast(raw, tensorflow.float32), (batch, height, width, anchors, values))
    cell_xy, grid_wh = _cells(height, width)
    canvas_wh = tensorflow.stack([tensorflow.cast(side, tensorflow.float32) for side in (canvas_wh[0], canvas_wh[1])])
    scale = head.scale_x_y
    within_xy = tensorflow.sigmoid(maps[..., :2]) * scale - (scale - 1) / 2
    centres = (cell_xy + within_xy) / grid_wh * canvas_wh
    exponents = tensorflow.minimum(maps[..., 2:4], MAX_EXPONENT)
    halves = tensorflow.exp(exponents) * tensorflow.constant(head.anchors_wh / 2, tensorflow.float32)
    boxes = tensorflow.concat([centres - halves, centres + halves], axis=-1)
    count = height * width * anchors
    return (
        tensorflow.reshape(boxes, (batch, count, 4)),
        tensorflow.reshape(tensorflow.sigmoid(maps[..., 4]), (batch, count)),
        tensorflow.reshape(tensorflow.sigmoid(maps[..., 5:]), (batch, count, head.class_count)),
    )


def _cells(height, width):
    """Column and row of every place, ``(h, w, 1, 2)``, and how many there are of each, ``(2,)``."""
    import tensorflow

    columns, rows = tensorflow.meshgrid(tensorflow.range(width), tensorflow.range(height))
    cell_xy = tensorflow.stack([columns, rows], axis=-1)[:, :, None]
    grid_wh = tensorflow.stack([width, height])
    return tensorflow.cast(cell_xy, tensorflow.float32), tensorflow.cast(grid_wh, tensorflow.float32)
