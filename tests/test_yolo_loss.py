"""The losses of a YOLOv4 head against a slow, literal account of Darknet's rules, and what could break them."""

import numpy as np
import pytest

from retinamask.dataset import boxes
from retinamask.detectors import _keras
from retinamask.detectors.darknet.cfg import Head
from retinamask.detectors.darknet.network import BOX_WEIGHT, LOSSES, head_losses

CLASS_COUNT = 3
CANVAS_WH = (160, 96)
ANCHORS_WH = np.array([(8, 10), (14, 12), (20, 24), (30, 22), (40, 44), (70, 60)], float)
SPREAD = 1.5  # of random raw outputs: some predictions overlap a box by more than the threshold


@pytest.fixture(scope="module")
def tf():
    _keras.prepare()
    import tensorflow

    return tensorflow


def a_head(stride: int = 16, **changes) -> Head:
    mask = {16: (0, 1, 2), 32: (3, 4, 5)}[stride]
    options = {
        "anchors_wh": ANCHORS_WH[list(mask)],
        "all_anchors_wh": ANCHORS_WH,
        "mask": mask,
        "scale_x_y": 1.05,
        "ignore_threshold": 0.4,
        "iou_threshold": 1.0,
        "iou_normalizer": 0.07,
        "objectness_normalizer": 0.8,
        "class_normalizer": 0.5,
        "stride": stride,
        "class_count": CLASS_COUNT,
    }
    return Head(**{**options, **changes})


def raw_map(head: Head, seed: int, batch: int = 2) -> np.ndarray:
    width, height = CANVAS_WH
    shape = batch, height // head.stride, width // head.stride, len(head.mask) * (5 + CLASS_COUNT)
    return np.random.default_rng(seed).normal(0, SPREAD, shape).astype(np.float32)


def random_truths(count: int, seed: int, batch: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Boxes ``(batch, count, 4)`` within the canvas and labels; the last row of each image only fills up."""
    generator = np.random.default_rng(seed)
    size = np.exp(generator.uniform(np.log(6), np.log(80), (batch, count, 2)))
    corner = generator.uniform(0, 1, (batch, count, 2)) * (np.array(CANVAS_WH) - size)
    found = np.concatenate([corner, corner + size], -1).astype(np.float32)
    labels = generator.integers(0, CLASS_COUNT, (batch, count)).astype(np.int32)
    found[:, -1], labels[:, -1] = 0, -1
    return found, labels


def computing(tf, head: Head):
    """A function from raw map, boxes and labels to the losses as numbers and their gradients by the raw map."""

    def computed(raw, truths, labels):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(raw)
            lost = head_losses(raw, head, truths, labels, tf.constant(CANVAS_WH, tf.float32))
        return lost, {name: tape.gradient(value, raw, unconnected_gradients="zero") for name, value in lost.items()}

    def numbers(*arrays):
        lost, gradients = computed(*map(tf.constant, arrays))
        return {name: float(value) for name, value in lost.items()}, {k: v.numpy() for k, v in gradients.items()}

    return numbers


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def predicted(raw, head, row, column, anchor) -> np.ndarray:
    """The box of one place of one image, worked out as in Darknet: shares of the image, then pixels."""
    rows, columns = raw.shape[:2]
    x, y, w, h = raw[row, column].reshape(len(head.mask), -1)[anchor, :4].astype(float)
    s = head.scale_x_y
    centre = np.array([column + sigmoid(x) * s - 0.5 * (s - 1), row + sigmoid(y) * s - 0.5 * (s - 1)])
    centre = centre / [columns, rows] * CANVAS_WH
    size = np.exp([w, h]) * head.anchors_wh[anchor]
    return np.concatenate([centre - size / 2, centre + size / 2])


def shape_overlap(one_wh, other_wh) -> float:
    return boxes.overlaps([[0, 0, *one_wh]], [[0, 0, *other_wh]])[0, 0]


def as_darknet(raw, head, truths, labels):
    """Darknet's rule for one image, place by place and box by box.

    Returns the errors (what it should be, less what it is) of objectness ``(h, w, n)`` and classes ``(h, w, n, C)``,
    and ``(box, truth, weight)`` for each pair that counts.
    """
    rows, columns = raw.shape[:2]
    count = len(head.mask)
    chances = sigmoid(raw.reshape(rows, columns, count, -1)[..., 4:].astype(float))
    objectness, classes = np.zeros((rows, columns, count)), np.zeros((rows, columns, count, CLASS_COUNT))
    real = [(box.astype(float), label) for box, label in zip(truths, labels, strict=True) if label >= 0]
    for row, column, anchor in np.ndindex(rows, columns, count):
        objectness[row, column, anchor] = head.objectness_normalizer * (0 - chances[row, column, anchor, 0])
        best = 0.0
        named = any(chance > 0.25 for chance in chances[row, column, anchor, 1:])
        prediction = predicted(raw, head, row, column, anchor)
        for overlap in boxes.overlaps([prediction], [box for box, _ in real])[0]:
            if named and overlap > best:
                best = overlap
        if best > head.ignore_threshold:
            objectness[row, column, anchor] = 0
    pairs = []
    for box, label in real:
        size_wh = box[2:] - box[:2]
        column = min(columns - 1, int((box[0] + box[2]) / 2 / CANVAS_WH[0] * columns))
        row = min(rows - 1, int((box[1] + box[3]) / 2 / CANVAS_WH[1] * rows))
        best, best_overlap = 0, 0.0
        for anchor, anchor_wh in enumerate(head.all_anchors_wh):
            overlap = shape_overlap(size_wh, anchor_wh)
            if overlap > best_overlap:
                best, best_overlap = anchor, overlap
        wanted = [best] if best in head.mask else []
        for anchor, anchor_wh in enumerate(head.all_anchors_wh):
            further = anchor in head.mask and anchor != best and head.iou_threshold < 1
            if further and shape_overlap(size_wh, anchor_wh) > head.iou_threshold:
                wanted.append(anchor)
        for place in [(row, column, head.mask.index(anchor)) for anchor in wanted]:
            pairs.append((place, box))
            chance, error = chances[place], classes[place]
            objectness[place] = head.objectness_normalizer * (1 - chance[0])
            if error[label]:  # another box was here before: its class stays
                error[label] = 1 - chance[1 + label]
            else:
                error[:] = [(1 if number == label else 0) - chance[1 + number] for number in range(CLASS_COUNT)]
    averaged = head.iou_threshold < 1
    shares = [1 / max(1, (classes[place] > 0).sum()) if averaged else 1.0 for place, _ in pairs]
    found = [predicted(raw, head, *place) for place, _ in pairs]
    return objectness, classes, [(one, box, share) for one, (_, box), share in zip(found, pairs, shares, strict=True)]


@pytest.mark.parametrize("iou_threshold", [1.0, 0.3])
@pytest.mark.parametrize("stride", [16, 32])
def test_losses_and_errors_are_those_of_darknet(tf, stride, iou_threshold):
    from keras.utils import bounding_boxes

    head = a_head(stride, iou_threshold=iou_threshold)
    raw, (truths, labels) = raw_map(head, seed=stride), random_truths(90, seed=1)
    lost, gradients = computing(tf, head)(raw, truths, labels)
    expected_box, shared, excused = 0.0, 0, 0
    for image in range(len(raw)):
        objectness, classes, pairs = as_darknet(raw[image], head, truths[image], labels[image])
        shape = (*objectness.shape, 5 + CLASS_COUNT)
        found = {name: gradient[image].reshape(shape) for name, gradient in gradients.items()}
        np.testing.assert_allclose(-found["objectness_loss"][..., 4], objectness, atol=1e-5)
        np.testing.assert_allclose(-found["classification_loss"][..., 5:], classes * 0.5, atol=1e-5)
        assert not found["objectness_loss"][..., :4].any() and not found["objectness_loss"][..., 5:].any()
        assert not found["classification_loss"][..., :5].any() and not found["localization_loss"][..., 4:].any()
        predictions, boxes_found, shares = map(np.array, zip(*pairs, strict=True))
        overlaps = np.asarray(bounding_boxes.compute_ciou(predictions, boxes_found, "xyxy"))
        expected_box += ((1 - overlaps) * shares).sum()
        shared += ((classes > 0).sum(-1) > 1).sum()
        excused += (objectness == 0).sum()
    assert lost["localization_loss"] == pytest.approx(expected_box * 0.07 * BOX_WEIGHT, rel=1e-4)
    assert shared and excused  # else those rules were not looked at


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(tf, name):
    """Along random directions; no excused place, since to excuse is a jump, and alpha of CIoU stands still."""
    raw, (truths, labels) = raw_map(a_head(32), 5), random_truths(8, 6)
    truths[..., 2:] = truths[..., :2] + 40  # squares, and predictions too: alpha is near 0, and so is its slope
    raw.reshape(*raw.shape[:3], 3, -1)[..., 2:4] = 0.0
    computed = computing(tf, a_head(32, ignore_threshold=0.99, anchors_wh=np.full((3, 2), 50.0)))
    _, gradients = computed(raw, truths, labels)
    generator = np.random.default_rng(7)
    for _ in range(3):
        direction = generator.normal(0, 1, raw.shape).astype(np.float32)
        step = 2e-3
        ends = [computed(raw + sign * step * direction, truths, labels)[0][name] for sign in (1, -1)]
        expected = float((gradients[name] * direction).sum())
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=0.02, abs=0.02)


def test_the_gradient_of_a_centre_worked_out_by_hand(tf):
    """A box of 40 x 40 found at its place, 8 px too far right: 1 - CIoU and its slope by the raw x."""
    head = a_head(32, scale_x_y=1.0)
    raw = np.zeros((1, 3, 5, 3 * 8), np.float32)
    truth = np.array([[[8 - 20 + 32, 28, 48 - 20 + 32, 68]]], np.float32)  # centre 40, 48: cell 1, 1
    raw.reshape(1, 3, 5, 3, 8)[0, 1, 1, 1, 2:4] = np.log(40 / np.array([40, 44]))  # anchor 4 is the likest: 40 x 44
    lost, gradients = computing(tf, head)(raw, truth, np.zeros((1, 1), np.int32))
    weight = 0.07 * BOX_WEIGHT
    overlap, diagonal = 32 / 48, 48**2 + 40**2
    assert lost["localization_loss"] == pytest.approx((1 - overlap + 64 / diagonal) * weight, rel=1e-4)
    # By the shift d of the centre: ((40 - d) / (40 + d))' = -80 / 48^2; (d^2 / ((40 + d)^2 + 40^2))' below
    slope = 80 / 48**2 + (2 * 8 * diagonal - 64 * 2 * 48) / diagonal**2
    found = gradients["localization_loss"].reshape(3, 5, 3, 8)[1, 1, 1]
    assert found[0] == pytest.approx(slope * 32 / 4 * weight, rel=1e-4)  # sigmoid's slope at 0 is a quarter
    assert found[1] == pytest.approx(0, abs=1e-5)


def test_without_boxes_all_is_background(tf):
    head = a_head(16)
    raw = raw_map(head, 8)
    lost, gradients = computing(tf, head)(raw, np.zeros((2, 1, 4), np.float32), np.full((2, 1), -1, np.int32))
    logits = raw.reshape(-1, 5 + CLASS_COUNT)[:, 4].astype(float)
    assert lost["localization_loss"] == 0 and lost["classification_loss"] == 0
    assert lost["objectness_loss"] == pytest.approx(0.8 * np.log1p(np.exp(logits)).sum(), rel=1e-5)
    assert not gradients["localization_loss"].any()


def test_two_boxes_in_one_place_are_both_learnt(tf):
    head = a_head(32)
    raw = raw_map(head, 9, batch=1)
    truths = np.array([[[70, 30, 140, 90], [72, 31, 138, 89]]], np.float32)
    computed = computing(tf, head)
    both, _ = computed(raw, truths, np.array([[0, 2]], np.int32))
    alone = [computed(raw, truths[:, [box]], np.array([[label]], np.int32))[0] for box, label in ((0, 0), (1, 2))]
    assert both["localization_loss"] == pytest.approx(sum(one["localization_loss"] for one in alone), rel=1e-5)
    row, column = 60 // 32, 105 // 32
    chances = sigmoid(raw.reshape(3, 5, 3, 8)[row, column, 2, 5:].astype(float))
    expected = -np.log([chances[0], 1 - chances[1], chances[2]]).sum() * 0.5
    assert both["classification_loss"] == pytest.approx(expected, rel=1e-5)


def test_each_head_finds_its_own_and_none_is_found_twice(tf):
    truths, labels = random_truths(100, 10)
    raws = {stride: np.zeros_like(raw_map(a_head(stride), 0)) for stride in (16, 32)}
    found = {s: computing(tf, a_head(s))(raws[s], truths, labels)[0] for s in raws}
    # a head's classes lose log 2 a class and place; a crowd of 99 boxes fills many places twice, over all none is lost
    places = {s: found[s]["classification_loss"] / (0.5 * CLASS_COUNT * np.log(2)) for s in raws}
    expected = {16: set(), 32: set()}
    for image in range(2):
        for box in truths[image, :-1].astype(float):
            best = int(np.argmax([shape_overlap(box[2:] - box[:2], anchor) for anchor in ANCHORS_WH]))
            stride = 16 if best < 3 else 32
            cell = tuple(((box[:2] + box[2:]) / 2 // stride).astype(int))
            expected[stride].add((image, best, *cell))
    assert {s: round(places[s], 3) for s in places} == {s: len(expected[s]) for s in expected}


@pytest.mark.parametrize("corner", [(160, 96), (0, 0), (160, 0)])
def test_a_box_at_the_edge_of_the_canvas_stays_inside_the_grid(tf, corner):
    head = a_head(32)
    x, y = corner
    truths = np.array([[[x - 20, y - 22, x + 20, y + 22]]], np.float32)  # centre on the very corner
    raw = raw_map(head, 11, batch=1)
    _, gradients = computing(tf, head)(raw, truths, np.zeros((1, 1), np.int32))
    learning = np.argwhere(gradients["localization_loss"].reshape(3, 5, 3, 8).any(-1))
    np.testing.assert_array_equal(learning, [[2 if y else 0, 4 if x else 0, 1]])


@pytest.mark.parametrize("value", [1e4, -1e4, 80.0])
def test_extreme_outputs_give_finite_losses_and_gradients(tf, value):
    head = a_head(16)
    truths, labels = random_truths(20, 12)
    lost, gradients = computing(tf, head)(np.full_like(raw_map(head, 0), value), truths, labels)
    assert np.isfinite(list(lost.values())).all() and lost["objectness_loss"] > 1
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_a_larger_canvas_takes_the_same_graph(tf):
    """Multi-scale: anchors stay as they are in pixels, and cells become more."""
    head = a_head(32)
    traces = []

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, 24)), tf.TensorSpec((1, 1, 4)), tf.TensorSpec((2,))])
    def lost(raw, truths, canvas_wh):
        traces.append(1)
        return head_losses(raw, head, truths, tf.constant([[1]]), canvas_wh)["localization_loss"]

    small, large = tf.zeros((1, 3, 5, 24)), tf.zeros((1, 6, 10, 24))
    truths = tf.constant([[[20.0, 20, 62, 60]]])
    moved = truths + tf.constant([160.0, 96, 160, 96])  # five columns and three rows on: the same cell, further away
    found = float(lost(small, truths, tf.constant([160.0, 96]))), float(lost(large, moved, tf.constant([320.0, 192])))
    assert len(traces) == 1 and found[0] == pytest.approx(found[1], rel=1e-4) and found[0] > 0
