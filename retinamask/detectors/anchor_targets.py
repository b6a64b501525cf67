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
_PLACES = 40  # bits that hold an anchor's place in a batch, below those of a window's number
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
        """The box that each anchor is to find.

        An anchor belongs to the box that it overlaps most, the first of several equal ones. From an intersection
        over union of 0.5 on it is to find it; above 0.4 it is ignored, and so is every anchor whose centre lies
        outside of the image's content.

        Args:
            boxes: ``float32`` tensor ``(B, M, 4)`` in pixels of the canvas; boxes without area match nothing.
            labels: ``int32`` tensor ``(B, M)``; -1 marks rows that are only there to fill the batch.
            sizes_wh: ``int32`` tensor ``(B, 2)``, the part of each image that is not padding.
            canvas_wh: size of the network input.

        Returns:
            ``int32`` tensor ``(B, N)``: number of the box, `BACKGROUND` or `IGNORED`.
        """
        import tensorflow

        grid = self._grid(canvas_wh)
        flat = _flat_boxes(boxes, labels, len(grid.anchors))
        owners, places = _anchors_in_reach(flat, grid)
        best = _best_boxes(owners, places, flat, grid.anchors)
        best = tensorflow.reshape(best, (tensorflow.shape(boxes)[0], len(grid.anchors)))
        within = (sizes_wh[:, :1] > grid.last_wh[:, 0]) & (sizes_wh[:, 1:] > grid.last_wh[:, 1])
        matched = tensorflow.where(best == _NO_BOX, BACKGROUND, best)
        return tensorflow.where(within, matched, IGNORED)

    def dense(self, matched, boxes, labels, class_count: int, canvas_wh: tuple[int, int]):
        """Targets in the form that keras-retinanet's losses read.

        Args:
            matched: from `match`.
            boxes, labels, canvas_wh: as for `match`.
            class_count: number of classes.

        Returns:
            ``float32`` regression ``(B, N, 5)`` and classification ``(B, N, class_count + 1)``. The last column of
            both is the anchor's state: 1 object, 0 background, -1 ignored. Where it is 1, the first four of the
            regression are what is missing from anchor to box, as shares of the anchor's sides over 0.2, and
            the others of the classification are 1 for the class of the box and 0 for the others; elsewhere all
            of these are 0.
        """
        import tensorflow

        matched_box = tensorflow.maximum(matched, -1) + 1  # after a row for none
        with_none = tensorflow.pad(boxes, [[0, 0], [1, 0], [0, 0]])
        offsets = self._offsets(tensorflow.gather(with_none, matched_box, batch_dims=1), canvas_wh)
        positive = matched >= 0
        offsets = tensorflow.where(positive[..., None], offsets, 0.0)
        with_none = tensorflow.pad(labels, [[0, 0], [1, 0]], constant_values=-1)  # -1 becomes a row of zeros
        classes = tensorflow.one_hot(tensorflow.gather(with_none, matched_box, batch_dims=1), class_count)
        state = tensorflow.where(positive, 1.0, tensorflow.where(matched == IGNORED, -1.0, 0.0))[..., None]
        return tensorflow.concat([offsets, state], -1), tensorflow.concat([classes, state], -1)

    def _offsets(self, boxes, canvas_wh: tuple[int, int]):
        """`keras_retinanet.utils.anchors.bbox_transform`, ``float32`` ``(B, N, 4)``.

        The anchor's centre is taken off first: it has few digits, so that ``float32`` loses none of the box.
        """
        anchors = self._grid(canvas_wh).anchors
        centres = np.float32((anchors[:, :2] + anchors[:, 2:]) / 2)[:, [0, 1, 0, 1]]
        sides = (anchors[:, 2:] - anchors[:, :2])[:, [0, 1, 0, 1]]
        return ((boxes - centres) - np.float32(anchors - centres)) / np.float32(sides * OFFSET_DEVIATION)

    def _grid(self, canvas_wh: tuple[int, int]) -> _Grid:
        canvas_wh = (int(canvas_wh[0]), int(canvas_wh[1]))
        if canvas_wh not in self._grids:
            self._grids[canvas_wh] = self._make_grid(canvas_wh)
        return self._grids[canvas_wh]

    def _make_grid(self, canvas_wh: tuple[int, int]) -> _Grid:
        _keras.prepare()
        from keras_retinanet.utils import anchors as theirs

        parameters = theirs.AnchorParameters(self.sizes, self.strides, self.ratios, self.scales)
        height_width = (canvas_wh[1], canvas_wh[0])
        anchors = theirs.anchors_for_shape(height_width, list(_PYRAMID_LEVELS), parameters)
        shapes = [theirs.generate_anchors(size, self.ratios, self.scales) for size in self.sizes]
        shapes_wh = np.concatenate([shape[:, 2:] - shape[:, :2] for shape in shapes])
        each = len(self.ratios) * len(self.scales)
        cells_hw = np.array(theirs.guess_shapes(height_width, _PYRAMID_LEVELS))
        starts = np.cumsum([0, *cells_hw.prod(1) * each])[:-1]
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        return _Grid(
            anchors,
            shapes_wh,
            strides=np.repeat(np.float64(self.strides), each),
            cells_wh=np.repeat(np.float64(cells_hw[:, ::-1]), each, axis=0),
            firsts=np.concatenate([start + np.arange(each) for start in starts]).astype(np.int64),
            each=each,
            last_wh=np.floor(centres).astype(np.int32),
        )


class _Boxes(NamedTuple):
    """All boxes of a batch in one row, ``float64`` as in the original; K is images times boxes."""

    corners: Any  # (K, 4): x1, y1, x2, y2
    usable: Any  # bool (K,)
    numbers: Any  # int32 (K,): number of the box in its image
    offsets: Any  # int64 (K,): the place of its image's first anchor among those of the batch
    places: Any  # int64: anchors of the whole batch


def _flat_boxes(boxes, labels, anchor_count: int) -> _Boxes:
    import tensorflow

    images, count = (tensorflow.shape(boxes, tensorflow.int64)[axis] for axis in (0, 1))
    corners = tensorflow.reshape(tensorflow.cast(boxes, tensorflow.float64), (-1, 4))
    solid = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    image = tensorflow.repeat(tensorflow.range(images), count)
    return _Boxes(
        corners,
        usable=solid & (tensorflow.reshape(labels, [-1]) >= 0),
        numbers=tensorflow.cast(tensorflow.tile(tensorflow.range(count), [images]), tensorflow.int32),
        offsets=image * anchor_count,
        places=images * anchor_count,
    )


def _shapes_that_fit(boxes: _Boxes, grid: _Grid):
    """Boxes and shapes that overlap enough where they share a centre, and the intersection that they need.

    With an intersection I of boxes of areas A and B, I / (A + B - I) > t where I > t / (1 + t) (A + B).

    Returns:
        ``int64`` ``(P, 2)``: number of the box and of the shape; ``float64`` ``(P,)``: square pixels.
    """
    import tensorflow

    x1, y1, x2, y2 = tensorflow.unstack(boxes.corners[:, :, None], axis=1)
    width, height = x2 - x1, y2 - y1
    shape_width, shape_height = grid.shapes_wh.T
    share = NEGATIVE_OVERLAP / (1 + NEGATIVE_OVERLAP) * (1 - _MARGIN)
    needed = share * (width * height + shape_width * shape_height)
    at_most = tensorflow.minimum(width, shape_width) * tensorflow.minimum(height, shape_height)
    pairs = tensorflow.where(boxes.usable[:, None] & (at_most > needed))
    return pairs, tensorflow.gather_nd(needed, pairs)


def _anchors_in_reach(boxes: _Boxes, grid: _Grid):
    """Pairs of a box and an anchor that may overlap more than `NEGATIVE_OVERLAP`, hardly any others.

    First come the rows of a level's grid that a box reaches with a shape, then, as the height of the intersection
    is known in each, the cells.

    Returns:
        ``int64`` ``(C,)`` twice: numbers of boxes, and places of anchors among those of the batch.
    """
    import tensorflow

    pairs, needed = _shapes_that_fit(boxes, grid)
    box, shape = tensorflow.unstack(pairs, axis=1)
    low, high = tensorflow.split(tensorflow.gather(boxes.corners, box), 2, axis=1)
    shape_wh, stride = tensorflow.gather(grid.shapes_wh, shape), tensorflow.gather(grid.strides, shape)
    cells_w, cells_h = tensorflow.unstack(tensorflow.gather(grid.cells_wh, shape), axis=1)
    center_x, center_y = tensorflow.unstack((low + high) / 2, axis=1)
    fit_w, fit_h = tensorflow.unstack(tensorflow.minimum(high - low, shape_wh), axis=1)
    # Shifted by d, two intervals share half the sum of their lengths less d, at most the shorter one.
    half_w, half_h = tensorflow.unstack((high - low + shape_wh) / 2, axis=1)
    row_range = _cells_near(center_y, half_h - needed / fit_w, stride, cells_h)
    pair, row = _counted(tensorflow.range(tensorflow.size(box, tensorflow.int64)), *row_range)

    columns = [center_x, center_y, fit_w, fit_h, half_w, half_h, needed, stride, cells_w]
    of_rows = tensorflow.gather(tensorflow.stack(columns, 1), pair)
    center_x, center_y, fit_w, fit_h, half_w, half_h, needed, stride, cells_w = tensorflow.unstack(of_rows, axis=1)
    distance = tensorflow.abs((tensorflow.cast(row, tensorflow.float64) + 0.5) * stride - center_y)
    shared_h = tensorflow.minimum(fit_h, tensorflow.maximum(half_h - distance, needed / fit_w))
    first, past = _cells_near(center_x, half_w - needed / shared_h, stride, cells_w)
    start = tensorflow.gather(tensorflow.gather(boxes.offsets, box) + tensorflow.gather(grid.firsts, shape), pair)
    start += row * tensorflow.cast(cells_w, tensorflow.int64) * grid.each
    return _counted(tensorflow.gather(box, pair), start + first * grid.each, start + past * grid.each, grid.each)


def _cells_near(center, reach, stride, count):
    """The first cell whose middle is within ``reach`` of ``center``, and the one after the last; ``int64``."""
    import tensorflow

    first = tensorflow.math.ceil((center - reach) / stride - 0.5 - _MARGIN)
    past = tensorflow.floor((center + reach) / stride + 0.5 + _MARGIN)
    return [tensorflow.cast(tensorflow.clip_by_value(x, 0, count), tensorflow.int64) for x in (first, past)]


def _counted(owner, first, past, step: int = 1):
    """Expand the ranges ``[first, past)``, repeating each owner.

    Owner and number go through TensorFlow's ragged range as one: to repeat owners by counts would cost more.
    """
    import tensorflow

    places = tensorflow.constant(_PLACES, tensorflow.int64)
    high = tensorflow.bitwise.left_shift(owner, places)
    both = tensorflow.ragged.range(high + first, high + tensorflow.maximum(first, past), step).flat_values
    return tensorflow.bitwise.right_shift(both, places), tensorflow.bitwise.bitwise_and(both, 2**_PLACES - 1)


def _best_boxes(owners, places, boxes: _Boxes, anchors: np.ndarray):
    """Number of the box that each anchor of the batch is to find, `IGNORED`, or `_NO_BOX`: ``int32``, flat."""
    import tensorflow

    overlap = _overlap(owners, places, boxes, anchors)
    highest = tensorflow.math.unsorted_segment_max(overlap, places, boxes.places)
    outcome = tensorflow.gather(boxes.numbers, owners)
    outcome = tensorflow.where(overlap >= POSITIVE_OVERLAP, outcome, IGNORED)
    counts = (overlap > NEGATIVE_OVERLAP) & (overlap == tensorflow.gather(highest, places))
    # The least number is the first of equal boxes; a place without any box gets the largest int32, `_NO_BOX`.
    return tensorflow.math.unsorted_segment_min(tensorflow.where(counts, outcome, _NO_BOX), places, boxes.places)


def _overlap(owners, places, boxes: _Boxes, anchors: np.ndarray):
    """Intersection over union of pairs, to the last bit that of ``keras_retinanet.utils.compute_overlap``."""
    import tensorflow

    place = places - tensorflow.gather(boxes.offsets, owners)
    box, anchor = tensorflow.gather(boxes.corners, owners), tensorflow.gather(anchors, place)
    shared = tensorflow.minimum(box[:, 2:], anchor[:, 2:]) - tensorflow.maximum(box[:, :2], anchor[:, :2])
    shared = tensorflow.maximum(shared, 0)
    intersection = shared[:, 0] * shared[:, 1]
    return intersection / (_area(anchor) + _area(box) - intersection)


def _area(corners):
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
