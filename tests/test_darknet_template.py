"""The cfg of YOLOv4-tiny against OpenCV and the published one, and anchors by k-means."""

import cv2
import numpy as np
import pytest

from retinamask.detectors.darknet import cfg, template
from retinamask.detectors.darknet.template import YOLOV4_TINY_ANCHORS, batches_for, yolov4_tiny_cfg

# --- The cfg ---

# Sizes of the published .weights: yolov4-tiny.weights (80 classes) has 24,251,276 bytes, 20 of them header
COCO_NUMBERS = 6_062_814


def opencv(text: str, side: int) -> list[tuple[int, ...]]:
    """Shapes of what OpenCV's reader of Darknet files makes of a cfg: a row for each box."""
    numbers = sum(layer.parameters for layer in cfg.describe(text).layers if hasattr(layer, "parameters"))
    header = np.array([0, 2, 5, 0, 0], dtype="<i4").tobytes()
    weights = header + np.random.default_rng(0).uniform(0.01, 0.1, numbers).astype("<f4").tobytes()
    network = cv2.dnn.readNetFromDarknet(np.frombuffer(text.encode(), np.uint8), np.frombuffer(weights, np.uint8))
    network.setInput(np.zeros((1, 3, side, side), np.float32))
    return [output.shape for output in network.forward(network.getUnconnectedOutLayersNames())]


@pytest.mark.parametrize(("levels", "classes", "side"), [(2, 2, 416), (3, 7, 320), (2, 1, 608)])
def test_opencv_builds_the_network_of_the_cfg(levels, classes, side):
    """Three anchors in each cell of maps 32, 16 and 8 times smaller than the image; a box has 5 numbers and classes."""
    shapes = opencv(yolov4_tiny_cfg(classes, side, levels), side)
    assert shapes == [(3 * (side // stride) ** 2, 5 + classes) for stride in (32, 16, 8)[:levels]]


def test_it_is_the_published_network():
    network = cfg.describe(yolov4_tiny_cfg(80), "cfg", 80)
    assert sum(layer.parameters for layer in network.layers if hasattr(layer, "parameters")) == COCO_NUMBERS
    assert [(head.stride, head.mask) for head in network.heads] == [(32, (3, 4, 5)), (16, (0, 1, 2))]
    head = network.heads[0]
    assert (head.scale_x_y, head.ignore_threshold, head.iou_normalizer, head.class_normalizer) == (1.05, 0.7, 0.07, 1)
    assert head.all_anchors_wh.tolist() == [[10, 14], [23, 27], [37, 58], [81, 82], [135, 169], [344, 319]]
    three = cfg.describe(yolov4_tiny_cfg(80, 608, 3), "cfg", 80)
    assert [(head.stride, head.mask) for head in three.heads] == [(32, (6, 7, 8)), (16, (3, 4, 5)), (8, (0, 1, 2))]
    assert three.heads[2].anchors_wh.tolist() == [[12, 16], [19, 36], [40, 28]]
    # routes of the published files, section by section: they count from 0, without [net]
    routes = {layer.index: layer.sources for layer in three.layers}
    assert routes[24] == (18, 23) and routes[34] == (33, 23) and routes[31] == (27,)
    assert routes[38] == (35,) and routes[41] == (40, 15) and len(three.layers) == 45


def test_what_depends_on_the_classes():
    text = yolov4_tiny_cfg(4, levels=3)
    assert text.count("filters=27\n") == 3 and text.count("classes=4\n") == 3
    assert "max_batches=8000\n" in text and "steps=6400,7200\n" in text
    assert "max_batches=6000\n" in yolov4_tiny_cfg(2) and "steps=4800,5400\n" in yolov4_tiny_cfg(2)
    assert (batches_for(2, 5000), batches_for(2, 7001), batches_for(5)) == (6000, 7001, 10000)


def test_anchors_are_sorted_into_the_heads():
    own = [(200, 100), (5.25, 9), (30, 30), (60, 50), (8, 8), (90, 120)]
    network = cfg.describe(yolov4_tiny_cfg(1, anchors_wh=own))
    assert network.heads[1].anchors_wh.tolist() == [[5.25, 9], [8, 8], [30, 30]]
    assert network.heads[0].anchors_wh.tolist() == [[60, 50], [90, 120], [200, 100]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_count": 0}, "class_count is 0, expected 1 or more"),
        ({"image_size": 400}, "image_size is 400, expected a multiple of 32 such as 416"),
        ({"levels": 4}, "levels is 4, expected 2 .yolov4-tiny. or 3"),
        ({"max_batches": 0}, "max_batches is 0, expected 1 or more"),
        ({"anchors_wh": [(1, 2)]}, r"anchors_wh has shape \(1, 2\), expected \(6, 2\)"),
        ({"anchors_wh": [(1, 2)] * 5 + [(0, 3)]}, "expected numbers of pixels above 0"),
        ({"anchors_wh": [(1, 2)] * 5 + [(float("nan"), 3)]}, "expected numbers of pixels above 0"),
    ],
)
def test_impossible_cfgs(options, message):
    with pytest.raises(ValueError, match=message):
        yolov4_tiny_cfg(**{"class_count": 2, **options})


# --- Anchors ---


def test_anchors_are_the_means_of_clear_clusters():
    sizes = [(10, 20), (12, 20), (100, 40), (100, 60), (100, 50), (300, 300)]
    found = template.suggest_anchors(np.array(sizes), 3)
    assert found.tolist() == [[11, 20], [100, 50], [300, 300]]
    # by hand: 200/220, 220/240, twice; 4000/5000, 5000/6000, 1; 1
    overlaps = [200 / 220, 220 / 240, 4000 / 5000, 5000 / 6000, 1, 1]
    assert template.mean_best_overlap(np.array(sizes), found) == pytest.approx(np.mean(overlaps))


def test_overlap_worked_out_by_hand():
    """(10, 20) and (20, 10) share 100 of 300; with (10, 10) a box of (10, 20) shares 100 of 200."""
    assert template.mean_best_overlap([(10, 20)], [(20, 10)]) == pytest.approx(1 / 3)
    assert template.mean_best_overlap([(10, 20), (10, 10)], [(20, 10), (10, 10)]) == pytest.approx(0.75)


def test_anchors_beat_the_published_ones_and_depend_on_the_seed_only():
    generator = np.random.default_rng(1)
    sizes = np.exp(generator.normal(3, 0.6, (400, 1))) * [1, 1.3] * generator.uniform(0.8, 1.2, (400, 2))
    found = template.suggest_anchors(sizes, 6, seed=3)
    assert (np.diff(found.prod(axis=1)) >= 0).all() and found.shape == (6, 2)
    assert (found == template.suggest_anchors(sizes, 6, seed=3)).all()
    published = template.mean_best_overlap(sizes, YOLOV4_TINY_ANCHORS[2])
    assert template.mean_best_overlap(sizes, found) > max(0.75, published + 0.1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([(1, 2), (1 + 1e-15, 2)] * 9, r"found 1 different box size\(s\), expected at least 3"),
        ([], r"expected \(N, 2\) with N of 1 or more"),
        ([(1, 2), (0, 1), (3, 3)], "a width or height that is not above 0"),
    ],
)
def test_impossible_anchors(sizes, message):
    with pytest.raises(ValueError, match=message):
        template.suggest_anchors(np.array(sizes), 3)
