"""Box arithmetic: by hand, and against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from retinamask.dataset import boxes


@pytest.mark.parametrize("empty", [[], np.empty((0, 4)), np.empty(0)])
def test_no_boxes(empty):
    one = [[0, 0, 1, 1]]
    assert boxes.areas(empty).shape == (0,)
    assert boxes.overlaps(empty, one).shape == (0, 1)
    assert boxes.overlaps(one, empty).shape == (1, 0)
    assert boxes.overlaps(empty, empty).shape == (0, 0)
    assert boxes.clip(empty, (10, 10)).shape == (0, 4)
    assert boxes.reach_outside(empty, (10, 10)).shape == (0,)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 0, 0), (0, 0, 0, 0), 0),  # nothing overlaps nothing
        ((0, 0, 10, 10), (0, 0, 10, 10), 1),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0),  # a common edge
        ((0, 0, 10, 10), (20, 20, 30, 30), 0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (5, 5, 15, 15), 25 / 175),
        ((0, 0, 10, 10), (2, 2, 4, 4), 4 / 100),  # one inside the other
        ((0.5, 0.5, 1, 1), (0, 0, 1, 1), 0.25),
        ((10, 10, 0, 0), (0, 0, 10, 10), 0),  # inverted
    ],
)
def test_overlap_by_hand(one, other, expected):
    assert boxes.overlaps([one], [other]) == pytest.approx(np.array([[expected]]))
    assert boxes.overlaps([other], [one]) == pytest.approx(np.array([[expected]]))


def test_overlaps_equal_pycocotools():
    generator = np.random.default_rng(0)
    first, second = (generator.uniform(0, 100, (count, 4)) for count in (40, 60))
    for table in (first, second):
        table[:, 2:] = table[:, :2] + generator.uniform(1, 60, (len(table), 2))
    as_xywh = [np.column_stack([table[:, :2], table[:, 2:] - table[:, :2]]) for table in (first, second)]
    expected = coco_mask.iou(*as_xywh, [0] * len(second))
    found = boxes.overlaps(first, second)
    assert (found > 0).mean() > 0.1
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("box", "area"),
    [((0, 0, 0, 5), 0), ((1, 2, 4, 6), 12), ((4, 6, 1, 2), 0), ((4, 0, 1, 9), 0), ((0, 0, 0.5, 3), 1.5)],
)
def test_area(box, area):
    assert boxes.areas([box]).tolist() == [area]


@pytest.mark.parametrize(
    ("box", "clipped", "reach"),
    [
        ((0, 0, 20, 10), (0, 0, 20, 10), 0),
        ((-1, 2, 5, 6), (0, 2, 5, 6), 1),
        ((0, -3, 21, 10.5), (0, 0, 20, 10), 3),
        ((30, 2, 40, 6), (20, 2, 20, 6), 20),  # outside: nothing is left
    ],
)
def test_clip_and_reach(box, clipped, reach):
    given = np.array([box], dtype=float)
    assert boxes.clip(given, (20, 10)).tolist() == [list(clipped)]
    assert boxes.reach_outside(given, (20, 10)).tolist() == [reach]
    assert given.tolist() == [list(box)]  # the argument is left alone
