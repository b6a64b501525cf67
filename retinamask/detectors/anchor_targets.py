"""Which anchor is to find which object, inside TensorFlow's graph and for a whole batch at once.

The rules and the numbers are those of ``keras_retinanet.utils.anchors.anchor_targets_bbox``, which compares every
anchor with every box: 76,725 anchors at 640 pixels. Here a box meets only the anchors that it can match. An anchor
whose shape is too unlike the box is out wherever it lies; of the other shapes only those count whose centre is near
the centre of the box, which is a few rows of the grid and in each row a few cells.
"""

from typing import Any, NamedTuple

import numpy as np

from retinamask.detectors import _keras

BACKGROUND, IGNORED = -1, -2
POSITIVE_OVERLAP, NEGATIVE_OVERLAP = 0.5, 0.4
OFFSET_DEVIATION = 0.2  # keras-retinanet's scale of the box offsets, `bbox_transform`

_PYRAMID_LEVELS = (3, 4, 5, 6, 7)
_MARGIN = 1e-6  # of a cell: windows are a little wider than exact numbers would ask, the overlap itself decides
_PLACES = 40  # bits that hold an anchor's place in a batch, below those of its owner's number
_NO_BOX = np.iinfo(np.int32).max


class _Grid(NamedTuple):
    """The anchors of one canvas: all of them, and the shapes that they come in, one for each level and anchor."""

    anchors: np.ndarray  # float64 (N, 4), keras-retinanet's own
    shapes_wh: np.ndarray  # float64 (S, 2), in pixels
    strides: np.ndarray  # float64 (S,), in pixels
    cells_wh: np.ndarray  # float64 (S, 2): how many cells the level has
    firsts: np.ndarray  # int64 (S,): the place among the anchors of the shape's first one
    each: int  # anchors at a place
    last_wh: np.ndarray  # int32 (N, 2): the largest content at which an anchor's centre is still outside


class _Boxes(NamedTuple):
    """All boxes of a batch in one row, ``float64`` as in the original; K is images times boxes."""

    corners: Any  # (K, 4): x1, y1, x2, y2
    usable: Any  # bool (K,)
    numbers: Any  # int32 (K,): number of the box in its image
    offsets: Any  # int64 (K,): the place of its image's first anchor among those of the batch
    places: Any  # int64: anchors of the whole batch


class AnchorMatcher:
    """Matches boxes with the anchors of pyramid levels P3 to P7.

    Args:
        sizes, strides: of the levels, in pixels; five of each.
        ratios, scales: of the anchors at each place, as `keras_retinanet.utils.anchors.AnchorParameters` has them.

    Raises:
        ValueError: sizes or strides are not five.
    """

    def __init__(self, sizes, strides, ratios, scales):
        for name, values in (("sizes", sizes), ("strides", strides)):
            if len(values) != len(_PYRAMID_LEVELS):
                raise ValueError(f"{name} has {len(values)} numbers, expected one for each of the levels P3 to P7")
        self.sizes, self.strides = list(sizes), list(strides)
        self.ratios, self.scales = np.array(ratios, np.float32), np.array(scales, np.float32)
        self._grids: dict[tuple[int, int], _Grid] = {}

    def match(self, boxes, labels, sizes_wh, canvas_wh: tuple[int, int]):
        """Give the box that each anchor is to find.

        An anchor belongs to the box that it overlaps most, the first of several equal ones. From an intersection
        over union of 0.5 on it is to find it; above 0.4 it is ignored, and so is every anchor whose centre lies
        outside of the image's content.

        Args:
            boxes: ``float32`` tensor ``(B, M, 4)`` in pixels of the canvas; boxes without area match nothing.
            labels: ``int32`` tensor ``(B, M)``; -1 marks padding.
            sizes_wh: ``int32`` tensor ``(B, 2)``, the part of each image that is not padding.
            canvas_wh: size of the network input.

        Returns:
            ``int32`` tensor ``(B, N)``: number of the box, `BACKGROUND` or `IGNORED`.
        """
        import tensorflow as tf

        grid = self._grid(canvas_wh)
        images, count = (tf.shape(boxes, tf.int64)[axis] for axis in (0, 1))
        corners = tf.reshape(tf.cast(boxes, tf.float64), (-1, 4))
        solid = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        flat = _Boxes(
            corners,
            usable=solid & (tf.reshape(labels, [-1]) >= 0),
            numbers=tf.cast(tf.tile(tf.range(count), [images]), tf.int32),
            offsets=tf.repeat(tf.range(images), count) * len(grid.anchors),
            places=images * len(grid.anchors),
        )
        owners, places = _anchors_in_reach(flat, grid)
        overlap = _overlaps(flat, grid, owners, places)
        highest = tf.math.unsorted_segment_max(overlap, places, flat.places)
        outcome = tf.where(overlap >= POSITIVE_OVERLAP, tf.gather(flat.numbers, owners), IGNORED)
        counts = (overlap > NEGATIVE_OVERLAP) & (overlap == tf.gather(highest, places))
        # The least number is the first of equal boxes; a place without any box gets the largest int32, `_NO_BOX`.
        best = tf.math.unsorted_segment_min(tf.where(counts, outcome, _NO_BOX), places, flat.places)
        best = tf.reshape(best, (tf.shape(boxes)[0], len(grid.anchors)))
        within = (sizes_wh[:, :1] > grid.last_wh[:, 0]) & (sizes_wh[:, 1:] > grid.last_wh[:, 1])
        return tf.where(within, tf.where(best == _NO_BOX, BACKGROUND, best), IGNORED)

    def dense(self, matched, boxes, labels, class_count: int, canvas_wh: tuple[int, int]):
        """Give the targets in the form that keras-retinanet's losses read.

        Args:
            matched: from `match`.
            boxes, labels, canvas_wh: as for `match`.
            class_count: number of classes.

        Returns:
            ``float32`` regression ``(B, N, 5)`` and classification ``(B, N, class_count + 1)``. The last column of
            both is the anchor's state: 1 object, 0 background, -1 ignored. Where it is 1, the first four of the
            regression are what is missing from anchor to box, as shares of the anchor's sides over 0.2 (as
            ``bbox_transform``), and the others of the classification are 1 for the class of the box and 0 for the
            others; elsewhere all of these are 0.
        """
        import tensorflow as tf

        matched_box = tf.maximum(matched, -1) + 1  # after a row for none
        with_none = tf.pad(boxes, [[0, 0], [1, 0], [0, 0]])
        anchors = self._grid(canvas_wh).anchors
        # The anchor's centre is taken off first: it has few digits, so that float32 loses none of the box.
        centres = np.float32((anchors[:, :2] + anchors[:, 2:]) / 2)[:, [0, 1, 0, 1]]
        sides = (anchors[:, 2:] - anchors[:, :2])[:, [0, 1, 0, 1]]
        offsets = (tf.gather(with_none, matched_box, batch_dims=1) - centres) - np.float32(anchors - centres)
        offsets /= np.float32(sides * OFFSET_DEVIATION)
        positive = matched >= 0
        offsets = tf.where(positive[..., None], offsets, 0.0)
        with_none = tf.pad(labels, [[0, 0], [1, 0]], constant_values=-1)  # -1 becomes a row of zeros
        classes = tf.one_hot(tf.gather(with_none, matched_box, batch_dims=1), class_count)
        state = tf.where(positive, 1.0, tf.where(matched == IGNORED, -1.0, 0.0))[..., None]
        return tf.concat([offsets, state], -1), tf.concat([classes, state], -1)

    def _grid(self, canvas_wh: tuple[int, int]) -> _Grid:
        canvas_wh = (int(canvas_wh[0]), int(canvas_wh[1]))
        if canvas_wh in self._grids:
            return self._grids[canvas_wh]
        _keras.prepare()
        from keras_retinanet.utils import anchors as theirs

        parameters = theirs.AnchorParameters(self.sizes, self.strides, self.ratios, self.scales)
        anchors = theirs.anchors_for_shape(canvas_wh[::-1], list(_PYRAMID_LEVELS), parameters)
        shapes = [theirs.generate_anchors(size, self.ratios, self.scales) for size in self.sizes]
        each = len(self.ratios) * len(self.scales)
        cells_hw = np.array(theirs.guess_shapes(canvas_wh[::-1], _PYRAMID_LEVELS))
        starts = np.cumsum([0, *cells_hw.prod(1) * each])[:-1]
        self._grids[canvas_wh] = _Grid(
            anchors,
            shapes_wh=np.concatenate([shape[:, 2:] - shape[:, :2] for shape in shapes]),
            strides=np.repeat(np.float64(self.strides), each),
            cells_wh=np.repeat(np.float64(cells_hw[:, ::-1]), each, axis=0),
            firsts=np.concatenate([start + np.arange(each) for start in starts]).astype(np.int64),
            each=each,
            last_wh=np.floor((anchors[:, :2] + anchors[:, 2:]) / 2).astype(np.int32),
        )
        return self._grids[canvas_wh]


def _anchors_in_reach(boxes: _Boxes, grid: _Grid):
    """Pairs of a box and an anchor that may overlap more than `NEGATIVE_OVERLAP`, hardly any others.

    First come the shapes that overlap the box enough if they share a centre, then the rows of the level's grid that
    the box reaches with a shape, then, as the height of the intersection is known in each, the cells.

    Returns:
        ``int64`` ``(C,)`` twice: numbers of boxes, and places of anchors among those of the batch.
    """
    import tensorflow as tf

    # With an intersection I of boxes of areas A and B, I / (A + B - I) > t where I > t / (1 + t) (A + B).
    x1, y1, x2, y2 = tf.unstack(boxes.corners[:, :, None], axis=1)
    width, height = x2 - x1, y2 - y1
    shape_width, shape_height = grid.shapes_wh.T
    share = NEGATIVE_OVERLAP / (1 + NEGATIVE_OVERLAP) * (1 - _MARGIN)
    needed = share * (width * height + shape_width * shape_height)
    at_most = tf.minimum(width, shape_width) * tf.minimum(height, shape_height)
    pairs = tf.where(boxes.usable[:, None] & (at_most > needed))
    needed = tf.gather_nd(needed, pairs)

    box, shape = tf.unstack(pairs, axis=1)
    low, high = tf.split(tf.gather(boxes.corners, box), 2, axis=1)
    shape_wh, stride = tf.gather(grid.shapes_wh, shape), tf.gather(grid.strides, shape)
    cells_w, cells_h = tf.unstack(tf.gather(grid.cells_wh, shape), axis=1)
    center_x, center_y = tf.unstack((low + high) / 2, axis=1)
    fit_w, fit_h = tf.unstack(tf.minimum(high - low, shape_wh), axis=1)
    # Shifted by d, two intervals share half the sum of their lengths less d, at most the shorter one.
    half_w, half_h = tf.unstack((high - low + shape_wh) / 2, axis=1)
    row_range = _cells_near(center_y, half_h - needed / fit_w, stride, cells_h)
    pair, row = _expanded(tf.range(tf.size(box, tf.int64)), *row_range)

    columns = [center_x, center_y, fit_w, fit_h, half_w, half_h, needed, stride, cells_w]
    of_rows = tf.gather(tf.stack(columns, 1), pair)
    center_x, center_y, fit_w, fit_h, half_w, half_h, needed, stride, cells_w = tf.unstack(of_rows, axis=1)
    distance = tf.abs((tf.cast(row, tf.float64) + 0.5) * stride - center_y)
    shared_h = tf.minimum(fit_h, tf.maximum(half_h - distance, needed / fit_w))
    first, past = _cells_near(center_x, half_w - needed / shared_h, stride, cells_w)
    start = tf.gather(tf.gather(boxes.offsets, box) + tf.gather(grid.firsts, shape), pair)
    start += row * tf.cast(cells_w, tf.int64) * grid.each
    return _expanded(tf.gather(box, pair), start + first * grid.each, start + past * grid.each, grid.each)


def _cells_near(center, reach, stride, count):
    """The first cell whose middle is within ``reach`` of ``center``, and the one after the last; ``int64``."""
    import tensorflow as tf

    first = tf.math.ceil((center - reach) / stride - 0.5 - _MARGIN)
    past = tf.floor((center + reach) / stride + 0.5 + _MARGIN)
    return [tf.cast(tf.clip_by_value(cell, 0, count), tf.int64) for cell in (first, past)]


def _expanded(owner, first, past, step: int = 1):
    """Expand the ranges ``[first, past)``, repeating each owner.

    Owner and number go through TensorFlow's ragged range as one: to repeat owners by counts would cost more.
    """
    import tensorflow as tf

    places = tf.constant(_PLACES, tf.int64)
    high = tf.bitwise.left_shift(owner, places)
    both = tf.ragged.range(high + first, high + tf.maximum(first, past), step).flat_values
    return tf.bitwise.right_shift(both, places), tf.bitwise.bitwise_and(both, 2**_PLACES - 1)


def _overlaps(boxes: _Boxes, grid: _Grid, owners, places):
    """Intersection over union of pairs, to the last bit that of ``keras_retinanet.utils.compute_overlap``."""
    import tensorflow as tf

    box, anchor = tf.gather(boxes.corners, owners), tf.gather(grid.anchors, places - tf.gather(boxes.offsets, owners))
    shared = tf.maximum(tf.minimum(box[:, 2:], anchor[:, 2:]) - tf.maximum(box[:, :2], anchor[:, :2]), 0)
    intersection = shared[:, 0] * shared[:, 1]
    of_anchor, of_box = ((each[:, 2] - each[:, 0]) * (each[:, 3] - each[:, 1]) for each in (anchor, box))
    return intersection / (of_anchor + of_box - intersection)
