"""Batches of changing sides: which sides, the same however they are computed, boxes on their pixels."""

import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from retinamask.dataset import annotations, images
from retinamask.detectors import _keras
from retinamask.training import input_pipeline
from retinamask.training.input_pipeline import Examples, batches
from retinamask.training.settings import NO_AUGMENTATION

CHANGING = dataclasses.replace(NO_AUGMENTATION, multi_scale=1.5)
SIDE = 96


def detector(any_canvas: bool):
    return SimpleNamespace(
        name="fake",
        classes={"face": 0},
        any_canvas=any_canvas,
        classifies=False,
        scale=lambda size_wh: images.fit_scale(size_wh, SIDE),
        canvas_wh=lambda sizes_wh: (SIDE, SIDE),
        targets=lambda *given: {},
    )


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Two grey images of 96 x 72 pixels with one white face at 24 to 48."""
    folder = tmp_path_factory.mktemp("faces")
    image = np.full((72, 96, 3), 90, np.uint8)
    image[24:48, 24:48] = 255
    for name in ("0.png", "1.png"):
        cv2.imwrite(str(folder / name), image)
    _keras.prepare()
    table = annotations.make_table([(name, 24, 24, 48, 48, "face") for name in ("0.png", "1.png")])
    return Examples(table, folder, detector(any_canvas=True))


def sides_of(dataset, count):
    return [int(batch["images"].shape[1]) for batch in dataset.take(count)]


def test_the_sides_are_multiples_of_32_within_the_factor():
    assert input_pipeline.sides(416, 1.4) == [320, 352, 384, 416, 448, 480, 512, 544, 576]  # 416 / 1.4 = 297.1, 582.4
    assert input_pipeline.sides(96, 1.5) == [64, 96, 128]
    with pytest.raises(ValueError, match="image_size 50 and multi_scale 1.1 leave no side that 32 divides"):
        input_pipeline.sides(50, 1.1)


def test_a_side_holds_for_ten_updates_and_all_sides_come(examples):
    drawn = sides_of(batches(examples, 2, CHANGING, seed=0), 200)
    turns = [set(drawn[start : start + 10]) for start in range(0, 200, 10)]
    assert all(len(turn) == 1 for turn in turns) and set.union(*turns) == {64, 96, 128}


def test_devices_machines_and_a_resumed_run_take_the_same_sides(examples):
    whole = sides_of(batches(examples, 4, CHANGING, seed=3), 40)
    assert sides_of(batches(examples, 4, CHANGING, seed=3, first_step=17), 23) == whole[17:]
    assert sides_of(batches(examples, 4, CHANGING, seed=3, shard=(1, 2), parts=2), 80)[::2] == whole
    assert sides_of(batches(examples, 4, CHANGING, seed=4), 40) != whole


def test_boxes_and_sizes_follow_the_pixels(examples):
    seen = {}
    for batch in batches(examples, 2, CHANGING, seed=0).take(100).as_numpy_iterator():
        seen[batch["images"].shape[1]] = batch
    for side, batch in seen.items():
        white = np.argwhere(batch["images"][0, :, :, 0] > 172)  # half way between 90 and 255
        expected = 24 * side / SIDE
        np.testing.assert_allclose(
            [*white.min(0), *(white.max(0) + 1)], [expected, expected, 2 * expected, 2 * expected]
        )
        np.testing.assert_allclose(batch["boxes"][0, 0], [expected, expected, 2 * expected, 2 * expected])
        assert batch["sizes_wh"][0].tolist() == [side, side * 72 // SIDE]
        assert not batch["images"][0, batch["sizes_wh"][0, 1] + 1 :].any()


def test_a_detector_of_one_size_is_refused(examples):
    alone = SimpleNamespace(detector=detector(any_canvas=False))
    with pytest.raises(ValueError, match="multi_scale is 1.5, but fake takes one size"):
        batches(alone, 2, CHANGING, seed=0)
