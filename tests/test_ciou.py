"""Overlap and complete overlap of boxes, against Keras 3's own and against values worked out by hand."""

import math

import numpy as np
import pytest

from retinamask.dataset import boxes
from retinamask.detectors import _keras
from retinamask.detectors.darknet.network import ciou, iou


@pytest.fixture(scope="module")
def tf():
    _keras.prepare()
    import tensorflow

    return tensorflow


def random_boxes(count: int, seed: int) -> np.ndarray:
    """Boxes of 1 to 100 px a side within 200 px, ``float32 (count, 4)``."""
    generator = np.random.default_rng(seed)
    corner, size = generator.uniform(0, 100, (count, 2)), generator.uniform(1, 100, (count, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def test_overlap_is_that_of_the_package_and_broadcasts(tf):
    some, others = random_boxes(30, 0), random_boxes(20, 1)
    found = iou(tf.constant(some)[:, None], tf.constant(others)[None])
    np.testing.assert_allclose(found, boxes.overlaps(some, others), atol=1e-6)
    assert float(iou(tf.zeros(4), tf.zeros(4))) == 0


def test_values_are_those_of_keras_3(tf):
    from keras.utils import bounding_boxes

    some, others = random_boxes(500, 2), random_boxes(500, 3)
    expected = np.asarray(bounding_boxes.compute_ciou(some, others, "xyxy"))
    assert expected.min() < -0.5 and expected.max() > 0.5
    np.testing.assert_allclose(ciou(tf.constant(some), tf.constant(others)), expected, atol=1e-5)


# Box 0, 0, 2, 2 and truth 1, 0, 3, 2: they share 2 of 6; centres 1 apart, the box around both is 3 x 2.
SHIFTED = ((0, 0, 2, 2), (1, 0, 3, 2), 2 / 6 - 1 / 13)
# Truth of 4 x 1 within a box of 4 x 4, both centred: a quarter shared, angles atan 4 and atan 1.
UNLIKE_V = 4 / math.pi**2 * (math.atan(4) - math.pi / 4) ** 2
UNLIKE_ALPHA = UNLIKE_V / (1 - 1 / 4 + UNLIKE_V)
UNLIKE = ((0, 0, 4, 4), (0, 1.5, 4, 2.5), 1 / 4 - UNLIKE_ALPHA * UNLIKE_V)
# Squares of side 1 that do not meet: centres 3 and 4 apart, the box around both is 4 x 5.
FAR = ((0, 0, 1, 1), (3, 4, 4, 5), -25 / 41)


@pytest.mark.parametrize(("box", "truth", "expected"), [SHIFTED, UNLIKE, FAR, ((3, 5, 9, 7), (3, 5, 9, 7), 1.0)])
def test_values_worked_out_by_hand(tf, box, truth, expected):
    found = ciou(tf.constant(box, tf.float32), tf.constant(truth, tf.float32))
    assert float(found) == pytest.approx(expected, abs=1e-6)


def gradient(tf, box, truth) -> np.ndarray:
    variable = tf.Variable(box, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = ciou(variable, tf.constant(truth, tf.float32))
    return tape.gradient(value, variable).numpy()


def test_the_gradient_of_boxes_apart_pulls_the_centre_and_opens_the_diagonal(tf):
    """-d / c with d = 25, c = 41: a step of x1 moves the centre by a half (d' = -3), and the diagonal (c' = -8)."""
    distance, diagonal = 25, 41
    x1 = -(-3 * diagonal - distance * -8) / diagonal**2
    y1 = -(-4 * diagonal - distance * -10) / diagonal**2
    x2, y2 = 3 / diagonal, 4 / diagonal  # of x2 and y2 the box around both does not depend
    np.testing.assert_allclose(gradient(tf, *FAR[:2]), [x1, y1, x2, y2], rtol=1e-5)


def test_the_gradient_of_the_aspect_keeps_alpha_constant(tf):
    """Right edge of the 4 x 4 box around the 4 x 1 truth, moved inwards and outwards."""
    # v = 4 / pi^2 (atan 4 - atan(w / h))^2, atan(w / h)' = h / (w^2 + h^2) = 4 / 32
    v_of_width = -8 / math.pi**2 * (math.atan(4) - math.pi / 4) * 4 / 32
    overlap_of_width = -1 / 4 * 4 / 16  # 4 / (4 w), outwards
    centre_of_width = 0  # the centres are one
    expected = overlap_of_width - centre_of_width - UNLIKE_ALPHA * v_of_width
    outwards = gradient(tf, (0, 0, 4 + 1e-4, 4), UNLIKE[1])
    assert outwards[2] == pytest.approx(expected, abs=1e-4)


def test_the_gradient_is_that_of_finite_differences_while_alpha_stands_still(tf):
    some, truths = random_boxes(50, 4).astype(float), random_boxes(50, 5).astype(float)

    def value(moved, alpha):
        shared = np.array([boxes.overlaps(*pair)[0, 0] for pair in zip(moved[:, None], truths[:, None], strict=True)])
        around = np.concatenate([np.minimum(moved, truths)[:, :2], np.maximum(moved, truths)[:, 2:]], 1)
        diagonal = ((around[:, 2:] - around[:, :2]) ** 2).sum(1)
        centre, other = ((each[:, :2] + each[:, 2:]) / 2 for each in (moved, truths))
        angle, right = (np.arctan((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1])) for b in (moved, truths))
        v = 4 / np.pi**2 * (right - angle) ** 2
        alpha = v / (1 - shared + v) if alpha is None else alpha
        return shared - ((centre - other) ** 2).sum(1) / diagonal - alpha * v, alpha

    _, alpha = value(some, None)
    variable = tf.Variable(some, dtype=tf.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(ciou(variable, tf.constant(truths, tf.float32)))
    found = tape.gradient(total, variable).numpy()
    for edge in range(4):
        step = np.zeros((1, 4))
        step[0, edge] = 1e-4
        expected = (value(some + step, alpha)[0] - value(some - step, alpha)[0]) / 2e-4
        np.testing.assert_allclose(found[:, edge], expected, rtol=1e-2, atol=2e-5)


@pytest.mark.parametrize("side", [0.0, 1e-4, 1e6])
def test_boxes_of_any_size_give_finite_numbers(tf, side):
    box = tf.Variable([10.0, 10.0, 10 + side, 10 + side])
    with tf.GradientTape() as tape:
        value = ciou(box, tf.constant([0.0, 0.0, 30.0, 20.0]))
    assert np.isfinite(value) and np.isfinite(tape.gradient(value, box)).all()
