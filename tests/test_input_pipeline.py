"""Batches: the same for a seed however they are computed, each image once a pass, taken up at any step."""

import dataclasses

import cv2
import numpy as np
import pytest

from retinamask.dataset import annotations, images
from retinamask.detectors import _keras
from retinamask.training.input_pipeline import Examples, batches, entries
from retinamask.training.settings import NO_AUGMENTATION, AugmentationSettings

VARIED = AugmentationSettings()
MOSAICS = AugmentationSettings(mosaic=0.5)
COUNT = 10


class FakeDetector:
    """What the pipeline asks a detector for, at 32 pixels."""

    classes, classifies = {"mask": 0, "no_mask": 1}, False

    def scale(self, size_wh):
        return images.fit_scale(size_wh, 32)

    def canvas_wh(self, sizes_wh):
        assert all(max(size_wh) == 32 for size_wh in sizes_wh)
        return 32, 32

    def targets(self, boxes, labels, sizes_wh, canvas_wh):
        import tensorflow as tf

        return {"matched": tf.reduce_sum(tf.cast(labels >= 0, tf.int32), 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images in grey levels 0, 20, 40, ..., image ``n`` with ``n % 3`` boxes."""
    folder = tmp_path_factory.mktemp("grey")
    for number in range(COUNT):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((48, 64, 3), 20 * number, np.uint8))
    return folder


def rows(number):
    boxes = [(8, 8, 40, 40, "mask"), (0, 16, 64, 32, "no_mask")][: number % 3]
    return [(f"{number}.png", *box) for box in boxes] or [(f"{number}.png", *[None] * 5)]


@pytest.fixture(scope="module")
def examples(folder):
    _keras.prepare()
    table = annotations.make_table([row for number in range(COUNT) for row in rows(number)])
    return Examples(table, folder, FakeDetector())


def drawn(dataset, count):
    return list(dataset.take(count).as_numpy_iterator())


def numbers(batch):
    """Which images an unaugmented batch shows, by their grey."""
    return [int(grey) // 20 for grey in batch["images"][:, 0, 0, 0]]


def assert_equal(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_batch_is_what_the_detector_reads(examples):
    (batch,) = drawn(batches(examples, COUNT, NO_AUGMENTATION, seed=0), 1)
    shapes = {name: (value.shape, value.dtype.name) for name, value in batch.items()}
    assert shapes == {
        "images": ((10, 32, 32, 3), "uint8"),
        "sizes_wh": ((10, 2), "int32"),
        "boxes": ((10, 2, 4), "float32"),
        "labels": ((10, 2), "int32"),
        "matched": ((10,), "int32"),
    }
    for place, number in enumerate(numbers(batch)):
        shown = np.zeros((32, 32, 3), np.uint8)
        shown[:24] = 20 * number
        np.testing.assert_array_equal(batch["images"][place], shown)
        boxes, labels = [[4, 4, 20, 20], [0, 8, 32, 16]], [0, 1]
        held = number % 3
        assert batch["boxes"][place].tolist() == boxes[:held] + [[0, 0, 0, 0]] * (2 - held)
        assert batch["labels"][place].tolist() == labels[:held] + [-1] * (2 - held)
        assert batch["sizes_wh"][place].tolist() == [32, 24] and batch["matched"][place] == held


def test_images_without_boxes_leave_room_for_one(folder):
    table = annotations.make_table([("0.png", *[None] * 5), ("3.png", *[None] * 5)])
    (batch,) = drawn(batches(Examples(table, folder, FakeDetector()), 2, VARIED, seed=0), 1)
    assert batch["boxes"].tolist() == [[[0, 0, 0, 0]]] * 2 and batch["labels"].tolist() == [[-1]] * 2


def test_every_image_is_shown_once_a_pass_and_passes_differ(examples):
    shown = [number for batch in drawn(batches(examples, 4, NO_AUGMENTATION, seed=3), 10) for number in numbers(batch)]
    passes = [shown[start : start + COUNT] for start in range(0, 40, COUNT)]
    assert all(sorted(one) == list(range(COUNT)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def test_one_image_is_enough(folder):
    one = Examples(annotations.make_table(rows(4)), folder, FakeDetector())
    assert [numbers(batch) for batch in drawn(batches(one, 3, NO_AUGMENTATION, seed=0), 2)] == [[4] * 3] * 2


def test_the_same_seed_gives_the_same_batches_on_any_number_of_threads(examples):
    import tensorflow as tf

    def with_threads(count):
        options = tf.data.Options()
        options.threading.private_threadpool_size = count
        return drawn(batches(examples, 4, MOSAICS, seed=7).with_options(options), 12)

    assert_equal(with_threads(1), with_threads(8))


def test_two_iterations_are_equal_and_another_seed_is_not(examples):
    dataset = batches(examples, 4, VARIED, seed=7)
    once = drawn(dataset, 6)
    assert_equal(once, drawn(dataset, 6))
    other = drawn(batches(examples, 4, VARIED, seed=8), 6)
    assert all((one["images"] != another["images"]).any() for one, another in zip(once, other, strict=True))


def test_the_same_image_is_varied_anew_in_each_pass(folder):
    one = Examples(annotations.make_table(rows(4)), folder, FakeDetector())
    (batch,) = drawn(batches(one, 6, AugmentationSettings(), seed=0), 1)
    assert len({image.tobytes() for image in batch["images"]}) == 6


@pytest.mark.parametrize("first_step", [1, 9])
def test_a_run_is_taken_up_where_it_was(examples, first_step):
    skipped = drawn(batches(examples, 4, VARIED, 5), first_step + 3)[first_step:]
    assert_equal(drawn(batches(examples, 4, VARIED, 5, first_step=first_step), 3), skipped)


def test_a_run_is_taken_up_far_along(examples):
    """Past the numbers that an ``int32`` holds, without having to go there."""
    far = 2**33
    ahead = drawn(batches(examples, 4, NO_AUGMENTATION, 5, first_step=far), 2)
    assert_equal(drawn(batches(examples, 4, NO_AUGMENTATION, 5, first_step=far + 1), 1), ahead[1:])


@pytest.mark.parametrize("parts", [1, 2])
def test_shards_and_parts_together_are_the_whole_batch(examples, parts):
    whole = drawn(batches(examples, 8, VARIED, 2, first_step=1), 3)
    shards = [drawn(batches(examples, 8, VARIED, 2, 1, shard=(i, 2), parts=parts), 3 * parts) for i in (0, 1)]
    for step, batch in enumerate(whole):
        pieces = [shards[i][step * parts + part] for i in (0, 1) for part in range(parts)]
        assert [len(piece["images"]) for piece in pieces] == [4 // parts] * (2 * parts)
        for name in ("images", "sizes_wh", "matched"):
            np.testing.assert_array_equal(np.concatenate([piece[name] for piece in pieces]), batch[name])
        labels = [labels[labels >= 0].tolist() for piece in pieces for labels in piece["labels"]]
        assert labels == [labels[labels >= 0].tolist() for labels in batch["labels"]]


def test_a_batch_that_does_not_divide_is_refused(examples):
    with pytest.raises(ValueError, match=r"batch_size 6 does not divide into 2 shard\(s\) of 2 part.*multiple of 4"):
        batches(examples, 6, VARIED, 0, shard=(0, 2), parts=2)


def test_mosaics_are_drawn_as_often_as_asked(examples):
    settings = dataclasses.replace(NO_AUGMENTATION, mosaic=0.5)
    shown = np.concatenate([batch["images"] for batch in drawn(batches(examples, 10, settings, 1), 20)])
    # alone, an image is of one grey and leaves the lower quarter of the canvas empty
    mosaics = np.mean([image[24:].any() or len(np.unique(image[:24])) > 1 for image in shown])
    assert 0.35 < mosaics < 0.65  # 200 draws: four standard deviations


def test_rare_classes_are_repeated_as_the_paper_says():
    # Class 0 is in 8 of 9 images and so the measure, class 1 in 2: sqrt((8/9) / (2/9)) = 2.
    # Class 2 is in 1 image: sqrt(8) = 2.83, so twice, and a third time in 83 of 100 cases.
    labels = [np.array(held) for held in ([0, 0], [0], [0], [0], [0], [0], [0, 1], [0, 1], [2, 2], [])]
    counts = np.array([np.bincount(entries(labels, True, seed), minlength=10) for seed in range(400)])
    expected = np.array([1, 1, 1, 1, 1, 1, 2, 2])
    assert (counts[:, :8] == expected).all() and (counts[:, 9] == 1).all()
    assert set(counts[:, 8]) == {2, 3} and counts[:, 8].mean() == pytest.approx(8**0.5, abs=0.08)
    assert entries(labels, False, 0).tolist() == list(range(10))
    np.testing.assert_array_equal(entries(labels, True, 3), entries(labels, True, 3))


def test_images_without_any_box_are_all_equal():
    assert entries([np.zeros(0, np.int32)] * 3, True, 0).tolist() == [0, 1, 2]


def test_a_balanced_pass_shows_images_of_rare_classes_more_often(folder):
    table = annotations.make_table(
        [(f"{number}.png", 8, 8, 40, 40, "no_mask" if number == 9 else "mask") for number in range(COUNT)]
    )
    rare = Examples(table, folder, FakeDetector())
    shown = numbers(drawn(batches(rare, 12, NO_AUGMENTATION, 0, balance=True), 1)[0])
    # "mask" is in 9 images, "no_mask" in one: sqrt(9) = 3 times
    assert sorted(shown) == [*range(9), 9, 9, 9]


def test_a_damaged_image_is_left_out_and_named(folder):
    table = annotations.make_table([*rows(1), ("missing.png", 1, 1, 9, 9, "mask"), *rows(2)])
    examples = Examples(table, folder, FakeDetector())
    assert examples.paths == ["1.png", "2.png"] and len(examples) == 2 and "missing.png" in examples.unusable[0]
    assert [len(labels) for labels in examples.labels] == [1, 2]


def test_no_usable_image_is_an_error(folder):
    lost = annotations.make_table([("missing.png", 1, 1, 9, 9, "mask")])
    with pytest.raises(annotations.AnnotationError, match=r"none of the images[\s\S]*missing.png"):
        Examples(lost, folder, FakeDetector())


def test_a_box_outside_its_image_is_logged_and_clipped(folder, caplog):
    written = [("5.png", 10, 20, 70, 60, "mask"), ("5.png", 64, 1, 90, 9, "mask")]
    examples = Examples(annotations.make_table(written), folder, FakeDetector())
    assert examples.boxes[0].tolist() == [[5, 10, 32, 24]] and examples.labels[0].tolist() == [0]
    assert "box [10.0, 20.0, 70.0, 60.0] is cut at the edge of the image of (64, 48)" in caplog.text
    assert "box [64.0, 1.0, 90.0, 9.0] is left out: it lies outside the image of (64, 48)" in caplog.text


def test_pixels_from_a_file_give_the_same_batches(examples, folder):
    from_file = Examples(
        annotations.make_table([row for number in range(COUNT) for row in rows(number)]),
        folder, FakeDetector(), cache="file",
    )  # fmt: skip
    assert from_file.pixels.where.endswith(".pixels")
    assert_equal(drawn(batches(examples, 4, VARIED, 1), 5), drawn(batches(from_file, 4, VARIED, 1), 5))


@pytest.mark.parametrize(("cache", "settings"), [("memory", VARIED), ("file", MOSAICS)])
def test_no_thread_of_tensorflow_runs_python(folder, cache, settings):
    """At the end of a process such a thread waits for Python in vain, and the process for the thread."""
    import tensorflow as tf

    examples = Examples(annotations.make_table(rows(4)), folder, FakeDetector(), cache)
    dataset = batches(examples, 2, settings, seed=0)
    graph = tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor, external_state_policy=1)
    assert b"RandomIndexShuffle" in graph.numpy() and b"PyFunc" not in graph.numpy()
