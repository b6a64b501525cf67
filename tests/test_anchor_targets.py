"""Anchor targets in the graph against ``keras_retinanet.utils.anchors.anchor_targets_bbox`` on the same boxes."""

import functools

import numpy as np
import pytest

from retinamask.detectors import _keras
from retinamask.detectors.anchor_targets import BACKGROUND, IGNORED, AnchorMatcher

CLASS_COUNT = 3
STRIDES = (8, 16, 32, 64, 128)
USUAL = {"sizes": (32, 64, 128, 256, 512), "ratios": (0.5, 1, 2), "scales": (1, 2 ** (1 / 3), 2 ** (2 / 3))}
OTHERS = {
    "small": {**USUAL, "sizes": (8, 16, 32, 64, 128)},
    "wider than the grid": {**USUAL, "sizes": (200, 300, 500, 900, 2000)},
    "one shape": {"sizes": (32, 64, 128, 256, 512), "ratios": (1,), "scales": (1,)},
    "long": {**USUAL, "ratios": (0.1, 0.3, 4.7, 12), "scales": (0.3, 1.1, 3)},
    "same size on all levels": {**USUAL, "sizes": (64, 64, 64, 64, 64)},
}


@functools.cache
def ours(canvas_wh, parameters):
    """One graph for batches of every shape: ``matched``, regression and classification."""
    _keras.prepare()
    import tensorflow as tf

    matcher = AnchorMatcher(strides=STRIDES, **dict(parameters))

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, 4), tf.float32),
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((None, 2), tf.int32),
        ]
    )
    def targets(boxes, labels, sizes_wh):
        matched = matcher.match(boxes, labels, sizes_wh, canvas_wh)
        return matched, *matcher.dense(matched, boxes, labels, CLASS_COUNT, canvas_wh)

    return targets


def theirs(boxes, labels, sizes_wh, canvas_wh, parameters):
    from keras_retinanet.utils.anchors import AnchorParameters, anchor_targets_bbox, anchors_for_shape

    numbers = {name: np.array(parameters[name], np.float32) for name in ("ratios", "scales")}
    anchor_parameters = AnchorParameters(list(parameters["sizes"]), list(STRIDES), **numbers)
    anchors = anchors_for_shape((canvas_wh[1], canvas_wh[0], 3), anchor_params=anchor_parameters)
    shown = [np.broadcast_to(np.uint8(0), (height, width, 3)) for width, height in sizes_wh]
    objects = [{"bboxes": b[c >= 0], "labels": c[c >= 0]} for b, c in zip(boxes, labels, strict=True)]
    return anchor_targets_bbox(anchors, shown, objects, CLASS_COUNT)


def check(boxes, labels, sizes_wh, canvas_wh, parameters=USUAL):
    """Compare everything that a loss reads; give the targets for more."""
    boxes, labels = np.asarray(boxes, np.float32), np.asarray(labels, np.int32)
    key = tuple((name, tuple(values)) for name, values in parameters.items())
    made = ours(canvas_wh, key)(boxes, labels, np.asarray(sizes_wh, np.int32))
    matched, regression, classification = (tensor.numpy() for tensor in made)
    expected_regression, expected_classification = theirs(boxes, labels, sizes_wh, canvas_wh, parameters)
    state = expected_regression[..., -1]
    assert np.array_equal(regression[..., -1], state)
    assert np.array_equal(classification[..., -1], expected_classification[..., -1])
    assert np.array_equal(np.sign(matched), np.where(state == 1, np.sign(np.maximum(matched, 0)), -1))
    assert np.array_equal(matched == IGNORED, state == -1) and np.array_equal(matched == BACKGROUND, state == 0)
    objects, read = state == 1, state != -1
    assert np.allclose(regression[objects], expected_regression[objects], rtol=0, atol=1e-4)
    assert np.array_equal(classification[read], expected_classification[read])
    return matched, state, regression, classification


def draw(generator, canvas_wh, images=3, most=40):
    """Boxes of all sizes, thin ones among them, some reaching outside, in images with none to many; and content."""
    counts = generator.integers(0, most + 1, images)
    labels = np.where(np.arange(most) < counts[:, None], generator.integers(0, CLASS_COUNT, (images, most)), -1)
    center = generator.uniform(-0.05, 1.05, (images, most, 2)) * canvas_wh
    side = np.exp(generator.uniform(np.log(4), np.log(1.2 * max(canvas_wh)), (images, most, 1)))
    half = side * np.exp(generator.normal(0, 0.4, (images, most, 2))) / 2
    boxes = np.concatenate([center - half, center + half], -1)
    sizes_wh = [generator.integers((1, 1), np.array(canvas_wh) + 1) for _ in range(images - 1)] + [canvas_wh]
    return boxes.astype(np.float32), labels, [tuple(int(side) for side in size_wh) for size_wh in sizes_wh]


@pytest.mark.parametrize("canvas_wh", [(640, 640), (333, 500), (1000, 130), (64, 64), (200, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_random_boxes(canvas_wh, seed):
    generator = np.random.default_rng(seed)
    for _ in range(4):
        check(*draw(generator, canvas_wh), canvas_wh)


@pytest.mark.parametrize("name", OTHERS)
def test_random_boxes_with_other_anchors(name):
    generator = np.random.default_rng(7)
    for canvas_wh in [(256, 256), (310, 170)]:
        for _ in range(6):
            check(*draw(generator, canvas_wh, most=20), canvas_wh, OTHERS[name])


@pytest.mark.parametrize("seed", range(3))
def test_whole_numbers_hit_thresholds_and_ties(seed):
    """Coordinates on the anchors' own lattice: overlaps of exactly 0.5 and 0.4, and boxes that overlap as much."""
    generator = np.random.default_rng(seed)
    for _ in range(6):
        corner = generator.integers(0, 24, (4, 30, 2)) * 8 + 4
        boxes = np.concatenate([corner, corner + generator.choice([16, 32, 64, 80, 128], (4, 30, 2))], -1)
        labels = generator.integers(-1, CLASS_COUNT, (4, 30))
        check(boxes, labels, [(256, 256), (256, 200), (100, 256), (4, 4)], (256, 256))


def anchor_at(matched, x, y, canvas=256):
    """State of the 32 x 32 anchor of P3 with its centre in a cell; it is the fourth of nine: ratio 1, scale 1."""
    return matched[0, (y * (canvas // 8) + x) * 9 + 3]


@pytest.mark.parametrize(
    ("size_wh", "expected"), [((32, 64), 0), ((32, 80), BACKGROUND), ((32, 79), IGNORED), ((16, 32), 0), ((12, 33), -1)]
)
def test_overlaps_worked_out_by_hand(size_wh, expected):
    """1024 / 2048 = 0.5 is an object, 1024 / 2560 = 0.4 background, 0.405 between; 512 / 1024; 384 / 1036 = 0.37."""
    center, half = np.array([100, 100]), np.array(size_wh) / 2
    box = np.concatenate([center - half, center + half])
    matched, *_ = check([[box]], [[1]], [(256, 256)], (256, 256))
    assert anchor_at(matched, 12, 12) == expected  # (12 + 0.5) * 8 = 100


def test_of_equal_boxes_the_first_one_counts():
    box = [84, 84, 116, 116]
    matched, _, _, classification = check([[[0, 0, 9, 9], box, box, box]], [[1, -1, 2, 0]], [(256, 256)], (256, 256))
    assert anchor_at(matched, 12, 12) == 2
    assert (classification[0, matched[0] == 2, :-1] == [0, 0, 1]).all()


def test_the_better_of_two_boxes_counts():
    matched, *_ = check([[[84, 84, 116, 120], [84, 84, 116, 117]]], [[1, 2]], [(256, 256)], (256, 256))
    assert anchor_at(matched, 12, 12) == 1


def test_an_object_whose_anchor_is_outside_of_the_content_is_ignored():
    box = [84, 84, 116, 116]
    for size_wh, expected in [((101, 256), 0), ((100, 256), IGNORED), ((256, 100), IGNORED)]:
        matched, _, regression, _ = check([[box]], [[1]], [size_wh], (256, 256))
        assert anchor_at(matched, 12, 12) == expected
        assert not regression[0, matched[0] == IGNORED, :4].any()


@pytest.mark.parametrize(
    "box", [[50, 50, 50, 90], [90, 50, 50, 90], [90, 90, 50, 50], [0, 0, 0, 0], [-1e9, -1e9, 1e9, 1e9]]
)
def test_boxes_without_area_and_absurd_ones_match_nothing(box):
    matched, *_ = check([[box, [10, 10, 60, 60]]], [[1, 1]], [(256, 256)], (256, 256))
    assert 0 not in matched and 1 in matched


def test_what_fills_a_batch_matches_nothing():
    filled = [[10, 10, 60, 60], [np.nan] * 4, [np.inf] * 4, [100, 100, 160, 160]]
    matched, *_ = check([filled], [[-1, -1, -1, 2]], [(256, 256)], (256, 256))
    assert set(np.unique(matched)) == {BACKGROUND, IGNORED, 3}


@pytest.mark.parametrize("count", [0, 3])
def test_images_without_objects(count):
    matched, *_ = check(np.zeros((2, count, 4)), np.full((2, count), -1), [(256, 256), (100, 80)], (256, 256))
    assert (matched[0] == BACKGROUND).all() and set(np.unique(matched[1])) == {BACKGROUND, IGNORED}


def test_keras_retinanets_losses_read_the_same():
    from keras_retinanet import losses

    generator = np.random.default_rng(2)
    boxes, labels, sizes_wh = draw(generator, (320, 320))
    _, state, regression, classification = check(boxes, labels, sizes_wh, (320, 320))
    expected = theirs(boxes, labels, sizes_wh, (320, 320), USUAL)
    guesses = generator.normal(0, 1, (*state.shape, 4)), generator.uniform(0.01, 0.99, (*state.shape, CLASS_COUNT))
    for loss, guess, one, other in zip(
        (losses.smooth_l1(), losses.focal()), guesses, (regression, classification), expected, strict=True
    ):
        assert float(loss(one, guess.astype(np.float32))) == pytest.approx(
            float(loss(other, guess.astype(np.float32))), rel=1e-5
        )


def test_it_runs_within_tf_data():
    _keras.prepare()
    import tensorflow as tf

    canvas_wh = (256, 256)
    batches = [draw(np.random.default_rng(seed), canvas_wh, images=2) for seed in range(4)]
    matcher = AnchorMatcher(strides=STRIDES, **USUAL)
    stacked = tuple(np.stack([np.asarray(batch[i]) for batch in batches]) for i in range(3))
    stacked = (stacked[0], stacked[1].astype(np.int32), stacked[2].astype(np.int32))
    data = tf.data.Dataset.from_tensor_slices(stacked)
    data = data.map(lambda *batch: matcher.match(*batch, canvas_wh), num_parallel_calls=4)
    assert data.element_spec.dtype == tf.int32 and data.element_spec.shape[1] == 12276
    for found, batch in zip(data, batches, strict=True):
        assert np.array_equal(found, check(*batch, canvas_wh)[0])


def test_levels_that_the_network_does_not_have():
    with pytest.raises(ValueError, match="sizes has 2 numbers, expected one for each of the levels P3 to P7"):
        AnchorMatcher((32, 64), STRIDES, (1,), (1,))
