"""How many boxes anchors reach, against keras-retinanet's own grid, and the anchors that are suggested."""

import numpy as np
import pytest
from sound_data import COUNT, SIZE, DataSet, only

from retinamask.dataset.anchors import Anchors, best_overlaps, coverage, suggest
from retinamask.dataset.audit.source import read_source
from retinamask.evaluation.audit import Audit, AuditSettings


@pytest.fixture
def data(tmp_path) -> DataSet:
    return DataSet(tmp_path)


@pytest.mark.parametrize("size_wh", [(512, 384), (512, 512), (200, 512), (130, 512), (60, 96)])
@pytest.mark.parametrize("changed", [{}, {"ratios": (0.5, 1.0, 1.5), "scales": (0.4, 0.7, 1.2)}])
def test_the_best_overlap_is_that_of_keras_retinanets_whole_grid(size_wh, changed):
    from retinamask.detectors import _keras

    _keras.prepare()
    from keras_retinanet.utils.anchors import AnchorParameters, anchors_for_shape
    from keras_retinanet.utils.compute_overlap import compute_overlap

    ours = Anchors(**changed)
    theirs = AnchorParameters(list(ours.sizes), list(ours.strides), np.array(ours.ratios), np.array(ours.scales))
    grid = anchors_for_shape((size_wh[1], size_wh[0], 3), anchor_params=theirs)
    centres = (grid[:, :2] + grid[:, 2:]) / 2
    grid = grid[(centres < size_wh).all(axis=1)]  # anchor_targets_bbox ignores the others
    generator = np.random.default_rng(1)
    corners = np.sort(generator.random((200, 2, 2)) * size_wh, axis=1).reshape(-1, 4)
    boxes_xyxy = corners + [0, 0, 1, 1]
    expected = compute_overlap(grid, boxes_xyxy).max(axis=0)
    assert best_overlaps(boxes_xyxy, np.tile(size_wh, (200, 1)), ours) == pytest.approx(expected, abs=1e-6)


def test_the_defaults_are_keras_retinanets_and_ours():
    from retinamask.detectors import _keras
    from retinamask.detectors.retinanet import RetinaNetSettings

    _keras.prepare()
    from keras_retinanet.utils.anchors import AnchorParameters

    for name in ("sizes", "strides", "ratios", "scales"):
        ours = getattr(Anchors(), name)
        assert ours == pytest.approx(getattr(AnchorParameters.default, name)) == getattr(RetinaNetSettings(), name)


def small_faces(data: DataSet) -> None:
    """Boxes of 14 by 14 pixels and thereabouts, which no default anchor overlaps by half."""
    data.rows = [
        (path, x1 + 40 * i, y1, x1 + 40 * i + 14 + i, y1 + 15 + i, name)
        for path, x1, y1, _, _, name in data.rows
        for i in range(3)
    ]


def test_anchors_that_miss_boxes_are_named_and_better_ones_suggested(data):
    small_faces(data)
    result = data.audit()
    assert only(result).name == "missed by the anchors" and only(result).count == 3 * COUNT
    default, suggested = result.anchors.covered[:2]
    assert default["covered"] == 0 and suggested["covered"] >= 2 * COUNT and suggested["anchors"] == "suggestion"
    assert [record["image_size"] for record in result.anchors.covered] == [320, 320, 480, 640]
    sizes = np.tile(SIZE, (3 * COUNT, 1))
    boxes_xyxy = np.array([row[1:5] for row in data.rows], dtype=float)
    share = coverage(best_overlaps(boxes_xyxy, sizes, result.anchors.suggestion))
    assert suggested["covered"] == share * 3 * COUNT


def test_keras_retinanet_reads_the_suggestion(data, tmp_path):
    from retinamask.detectors import _keras

    _keras.prepare()
    from keras_retinanet.utils.config import parse_anchor_parameters, read_config_file

    small_faces(data)
    result = data.audit()
    (tmp_path / "anchors.ini").write_text(result.record()["anchor_parameters"])
    read = parse_anchor_parameters(read_config_file(tmp_path / "anchors.ini"))
    suggestion = result.anchors.suggestion
    assert read.num_anchors() == 9
    for name in ("sizes", "strides", "ratios", "scales"):
        assert list(getattr(read, name)) == pytest.approx(getattr(suggestion, name), abs=1e-5)


def test_a_suggestion_does_not_depend_on_the_order():
    generator = np.random.default_rng(4)
    sides = np.exp(generator.uniform(np.log(6), np.log(90), (300, 1))) * np.exp(generator.normal(0, 0.2, (300, 2)))
    corners = generator.random((300, 2)) * 300
    boxes_xyxy, sizes = np.concatenate([corners, corners + sides], axis=1), np.tile([512, 512], (300, 1))
    turned = np.arange(300)[::-1]
    first = suggest(boxes_xyxy, sizes, Anchors())
    assert first == suggest(boxes_xyxy[turned], sizes[turned], Anchors())
    gains = [coverage(best_overlaps(boxes_xyxy, sizes, anchors)) for anchors in (Anchors(), first)]
    assert gains[1] > gains[0] + 0.2


def test_real_coverage(shared_data):
    result = Audit(read_source(shared_data / "andrewmvd"), AuditSettings())
    default, suggested = result.anchors.covered[:2]
    assert default["boxes"] == 3327 and default["share"] == pytest.approx(0.671, abs=0.001)
    assert suggested["anchors"] == "suggestion" and suggested["share"] > 0.9
