"""Augmentation: pixels as OpenCV's and Pillow's, boxes on their pixels, the same for a seed on any road."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from retinamask.detectors import _keras
from retinamask.evaluation.augmentation_sheet import augmentation_sheet
from retinamask.training.augmentation import _Cut, _moved, augment, mosaic
from retinamask.training.settings import NO_AUGMENTATION, AugmentationSettings

CANVAS_WH = (96, 80)
NO_BOXES = np.zeros((0, 4), np.float32)
ZOOM = replace(NO_AUGMENTATION, flip=0.5, zoom_out=0.5, zoom_in=2, visible_share=0.4)
EVERYTHING = AugmentationSettings(zoom_out=0.5, zoom_in=2, mosaic=1)


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int, height: int) -> np.ndarray:
    return cv2.resize(noise(5, 4), (width, height), interpolation=cv2.INTER_CUBIC)


def some_boxes(count: int, size_wh: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes with a point in their coordinates, also tiny ones, and labels that tell them apart."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 1, (count, 2, 2)) ** generator.choice([1, 4], (count, 1, 1)) * size_wh
    return np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32), np.arange(count, dtype=np.int32)


def varied(image, settings, seed, boxes=NO_BOXES):
    labels = np.arange(len(boxes), dtype=np.int32)
    return [part.numpy() for part in augment(image, boxes, labels, seed, settings, CANVAS_WH)]


@functools.cache
def mosaic_graph(settings):
    _keras.prepare()
    import tensorflow as tf

    return tf.function(functools.partial(mosaic, settings=settings, canvas_wh=CANVAS_WH))


def mosaic_of(images, boxes, labels, settings, seed):
    return [part.numpy() for part in mosaic_graph(settings)(images, boxes, labels, np.array(seed, np.int32))]


def draws_of(seed, shape=(7,)) -> np.ndarray:
    _keras.prepare()
    import tensorflow as tf

    return tf.random.stateless_uniform(shape, seed, alg="philox").numpy()


def expected_cut(size_wh, draws, settings, canvas_wh) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Left top and size of what is shown, its size in the canvas, and whether it is flipped: the documented rule."""
    size_wh, canvas_wh = np.array(size_wh), np.array(canvas_wh)
    low, high = np.log([settings.zoom_out, settings.zoom_in])
    factor = np.exp(low + (high - low) * draws[1])
    scaled = np.round(size_wh * factor).astype(int)
    out_wh = np.clip(scaled, 1, canvas_wh)
    part_wh = [size if out >= all_of_it else round(out / factor)
               for size, out, all_of_it in zip(size_wh, out_wh, scaled, strict=True)]  # fmt: skip
    left_top = np.floor(draws[2:4] * (size_wh - part_wh + 1)).astype(int)
    return left_top, np.array(part_wh), out_wh, bool(draws[0] < settings.flip)


def expected_boxes(boxes, cut, visible_share) -> tuple[list, list]:
    """One box after the other, edge by edge."""
    (left, top), part_wh, (width, height), flip = cut
    kept, numbers = [], []
    for number, (x1, y1, x2, y2) in enumerate(boxes.astype(float)):
        x1, x2 = ((x - left) * width / part_wh[0] for x in (x1, x2))
        y1, y2 = ((y - top) * height / part_wh[1] for y in (y1, y2))
        if flip:
            x1, x2 = width - x2, width - x1
        seen = [min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)]
        area = (seen[2] - seen[0]) * (seen[3] - seen[1])
        if area >= 1 and area >= visible_share * (x2 - x1) * (y2 - y1) * 0.9999:
            kept.append(seen)
            numbers.append(number)
    return kept, numbers


# --- Pixels ---


@pytest.mark.parametrize("size_wh", [(96, 80), (96, 33), (7, 80), (1, 1)])
def test_without_augmentation_an_image_is_padded_and_nothing_else(size_wh):
    image = noise(*size_wh)
    box = np.array([[0, 0, *size_wh]], np.float32)
    canvas, content_wh, boxes, labels = varied(image, NO_AUGMENTATION, (1, 2), box)
    expected = np.zeros((80, 96, 3), np.uint8)
    expected[: size_wh[1], : size_wh[0]] = image
    np.testing.assert_array_equal(canvas, expected)
    assert tuple(content_wh) == size_wh and labels.tolist() == [0]
    np.testing.assert_array_equal(boxes, box)


def test_a_flip_mirrors_pixels_and_boxes():
    image = noise(50, 40)
    canvas, _, boxes, _ = varied(
        image, replace(NO_AUGMENTATION, flip=1), (0, 0), np.array([[3, 5, 20, 30]], np.float32)
    )
    np.testing.assert_array_equal(canvas[:40, :50], image[:, ::-1])
    assert boxes.tolist() == [[30, 5, 47, 30]] and not canvas[:, 50:].any()


@pytest.mark.parametrize("make", [noise, smooth])
@pytest.mark.parametrize("size_wh", [(96, 80), (96, 60), (31, 80), (3, 2)])
def test_a_zoom_samples_as_opencv_does(make, size_wh):
    image = make(*size_wh)
    for number in range(20):
        canvas, content_wh, _, _ = varied(image, ZOOM, (7, number))
        (left, top), part_wh, out_wh, flip = expected_cut(size_wh, draws_of((7, number)), ZOOM, CANVAS_WH)
        part = image[top : top + part_wh[1], left : left + part_wh[0]]
        part = np.ascontiguousarray(part[:, ::-1] if flip else part)
        expected = cv2.resize(part, [int(side) for side in out_wh], interpolation=cv2.INTER_LINEAR)
        assert tuple(content_wh) == tuple(out_wh)
        content = canvas[: out_wh[1], : out_wh[0]].astype(int)
        assert np.abs(content - expected).max() <= 1, number
        assert not canvas[out_wh[1] :].any() and not canvas[:, out_wh[0] :].any()


def test_saturation_is_that_of_pillow():
    image = noise(96, 80)
    settings = replace(NO_AUGMENTATION, saturation=0.8)
    for number in range(10):
        canvas, *_ = varied(image, settings, (3, number))
        factor = 0.2 + 1.6 * float(draws_of((3, number))[6])
        expected = np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(factor)).astype(int)
        assert np.abs(canvas - expected).max() <= 1.5  # Pillow rounds the grey before it mixes


@pytest.mark.parametrize("settings", [{"contrast": 0.5}, {"brightness": 100}, {"brightness": 100, "contrast": 0.5}])
def test_brightness_is_added_and_contrast_spreads_around_mid_grey(settings):
    image = noise(95, 79)
    settings = replace(NO_AUGMENTATION, **settings)
    for number in range(10):
        canvas, *_ = varied(image, settings, (4, number))
        draws = draws_of((4, number)).astype(float) * 2 - 1
        exact = (image - 128.0) * (1 + settings.contrast * draws[5]) + 128 + settings.brightness * draws[4]
        assert np.abs(canvas[:79, :95] - np.clip(exact, 0, 255)).max() <= 0.502
        assert not canvas[79:].any()  # the padding stays black


def test_all_colours_at_once_are_limited_once():
    """Saturation, then contrast and brightness, with no rounding and no limit between them."""
    image, settings = noise(96, 80), replace(NO_AUGMENTATION, brightness=60, contrast=0.5, saturation=1)
    for number in range(10):
        canvas, *_ = varied(image, settings, (5, number))
        draws = draws_of((5, number)).astype(float) * 2 - 1
        grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
        exact = (grey + (image - grey) * (1 + draws[6]) - 128) * (1 + 0.5 * draws[5]) + 128 + 60 * draws[4]
        assert np.abs(canvas - np.clip(exact, 0, 255)).max() <= 0.502


def test_draws_reach_over_the_whole_range():
    image = np.full((40, 40, 3), 100, np.uint8)
    settings = replace(NO_AUGMENTATION, zoom_out=0.5, zoom_in=2, brightness=50)
    made = [varied(image, settings, (9, number)) for number in range(100)]
    widths, greys = [content_wh[0] for _, content_wh, *_ in made], [canvas[0, 0, 0] for canvas, *_ in made]
    assert min(widths) < 21 and max(widths) > 78 and 37 < np.median(widths) < 43  # even in the logarithm
    assert min(greys) < 53 and max(greys) > 147


# --- Boxes ---


def moved_to_right_half(boxes: list, visible_share: float) -> tuple[np.ndarray, list[int]]:
    """Boxes of an image of 40 px where the cut shows x from 20 to 40 and y from 0 to 20, twice as large."""
    _keras.prepare()
    import tensorflow as tf

    cut = _Cut(*(tf.constant(pair) for pair in ([20, 0], [20, 20], [40, 40])), tf.constant(False))
    settings = replace(NO_AUGMENTATION, visible_share=visible_share)
    found, labels = _moved(tf.constant(boxes, tf.float32), tf.range(len(boxes)), cut, settings)
    return found.numpy(), labels.numpy().tolist()


@pytest.mark.parametrize(
    ("visible_share", "kept"),
    [
        (0.0, [0, 2, 3, 4]),
        (0.3, [0, 2, 3, 4]),  # label 2 shows 3 of its 10 pixels' width, label 3 shows 4
        (0.35, [0, 3, 4]),
        (0.4, [0, 3, 4]),
        (0.5, [0, 4]),
        (1.0, [0]),  # label 4 shows 9 of 10
    ],
)
def test_a_box_of_which_too_little_is_left_is_dropped_with_its_label(visible_share, kept):
    boxes = [
        [20, 0, 40, 20],  # fills the cut exactly
        [5, 5, 20, 15],  # just outside
        [13, 5, 23, 15],
        [14, 5, 24, 15],
        [19, 5, 29, 15],
        [30, 10, 30.4, 10.5],  # 0.8 square pixels after the zoom
    ]
    found, labels = moved_to_right_half(boxes, visible_share)
    assert labels == kept
    expected = {0: [0, 0, 40, 40], 2: [0, 10, 6, 30], 3: [0, 10, 8, 30], 4: [0, 10, 18, 30]}
    np.testing.assert_allclose(found, [expected[label] for label in kept], atol=1e-4)


@pytest.mark.parametrize("size_wh", [(96, 80), (96, 41), (30, 80), (13, 9)])
def test_boxes_are_those_of_the_slow_rule(size_wh):
    boxes, _ = some_boxes(40, size_wh)
    dropped = 0
    for number in range(40):
        *_, found, labels = varied(noise(*size_wh), ZOOM, (8, number), boxes)
        expected, numbers = expected_boxes(boxes, expected_cut(size_wh, draws_of((8, number)), ZOOM, CANVAS_WH), 0.4)
        assert labels.tolist() == numbers
        np.testing.assert_allclose(found, np.array(expected).reshape(-1, 4), atol=2e-4)
        dropped += len(boxes) - len(numbers)
    assert dropped > 100


def bright_middle_and_size(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and size of a white rectangle on black, finer than a pixel: from where its light lies."""
    light = image[..., 0].astype(float) / 255
    over_x, over_y = light.sum(0), light.sum(1)
    middle = [(line * (np.arange(len(line)) + 0.5)).sum() / line.sum() for line in (over_x, over_y)]
    return np.array(middle), np.array([line.sum() / line.max() for line in (over_x, over_y)])


def test_a_drawn_rectangle_stays_under_its_box():
    whole = 0
    for number in range(60):
        image = np.zeros((80, 96, 3), np.uint8)
        image[25:57, 30:70] = 255
        canvas, content_wh, boxes, _ = varied(image, ZOOM, (6, number), np.array([[30, 25, 70, 57]], np.float32))
        if not len(boxes) or (boxes[0, :2] < 2).any() or (boxes[0, 2:] > content_wh - 2).any():
            continue  # cut: its light says nothing about its edges
        middle, size = bright_middle_and_size(canvas)
        np.testing.assert_allclose(
            (boxes[0, :2] + boxes[0, 2:]) / 2, middle, atol=0.25
        )  # shrunk edges are sampled, not averaged
        np.testing.assert_allclose(boxes[0, 2:] - boxes[0, :2], size, atol=0.5)
        whole += 1
    assert whole > 20


# --- Mosaic ---


def four_of(make, boxes):
    sizes_wh = [(96, 80), (96, 50), (40, 80), (20, 20)]
    return [make(*size_wh) for size_wh in sizes_wh], boxes, [np.arange(len(each), dtype=np.int32) for each in boxes]


def test_a_mosaic_is_four_images_around_a_point_and_nothing_else():
    images, boxes, labels = four_of(noise, [NO_BOXES] * 4)
    images = [np.full_like(image, 50 * number + 50) for number, image in enumerate(images)]
    centres = []
    for number in range(60):
        canvas, size_wh, *_ = mosaic_of(images, boxes, labels, NO_AUGMENTATION, (1, number))
        canvas = canvas[..., 0]
        x, y = (canvas[0] == 50).sum(), (canvas[:, 0] == 50).sum()
        expected = np.block(
            [
                [np.full((y, x), 50), np.full((y, 96 - x), 100)],
                [np.full((80 - y, x), 150), np.full((80 - y, 96 - x), 200)],
            ]
        )
        np.testing.assert_array_equal(canvas, expected)
        assert tuple(size_wh) == CANVAS_WH
        centres.append((x / 96, y / 80))
    assert 0.29 < np.min(centres) < 0.32 and 0.68 < np.max(centres) < 0.71


def test_in_a_mosaic_each_image_keeps_its_boxes_on_its_pixels():
    """In each image one white rectangle, whose box is dropped when hidden: white is where boxes are, and only there."""
    settings = replace(NO_AUGMENTATION, flip=0.5)
    box = np.array([[0.3, 0.25, 0.6, 0.75]], np.float32)
    images, boxes, labels = four_of(lambda w, h: np.zeros((h, w, 3), np.uint8), [box] * 4)
    scaled = []
    for image in images:
        x1, y1, x2, y2 = np.round(box[0] * np.tile(image.shape[1::-1], 2)).astype(int)
        image[y1:y2, x1:x2] = 255
        scaled.append(np.array([[x1, y1, x2, y2]], np.float32))
    seen = 0
    for number in range(40):
        canvas, _, found, kept = mosaic_of(images, scaled, labels, settings, (2, number))
        canvas = canvas[..., 0]
        under = np.zeros(canvas.shape, bool)
        for x1, y1, x2, y2 in np.round(found).astype(int):
            # Bilinear sampling spreads an edge over as many pixels as the image was enlarged.
            assert (canvas[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3] == 255).all()
            under[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3] = True
        assert not canvas[~under].any()
        assert len(found) == len(kept) <= 4
        seen += len(found)
    assert seen > 80


def test_a_mosaic_scales_by_a_half_to_one_unless_it_would_leave_a_gap():
    boxes = [np.array([[47, 39, 49, 41]], np.float32)] * 4  # its width in the mosaic is twice the scale
    images = [noise(96, 80)] * 4
    labels = [np.array([number], np.int32) for number in range(4)]
    settings, scales = replace(NO_AUGMENTATION, visible_share=1), []
    for number in range(60):
        *_, found, _ = mosaic_of(images, boxes, labels, settings, (3, number))
        scales += [(box[2] - box[0]) / 2 for box in found]
    assert len(scales) > 20 and 0.49 < min(scales) < 0.6 and 0.9 < max(scales) < 1.01


# --- One seed, one result ---


def everything(image, boxes, labels, seed):
    one = augment(image, boxes, labels, seed, EVERYTHING, CANVAS_WH)
    return *one, *mosaic([image] * 4, [boxes] * 4, [labels] * 4, seed, EVERYTHING, CANVAS_WH)


def test_a_seed_gives_the_same_eagerly_in_a_graph_and_on_many_threads():
    _keras.prepare()
    import tensorflow as tf

    sizes = [(96, 80), (50, 61), (96, 20)]
    made = [(noise(*size, seed=index), *some_boxes(8, size)) for index, size in enumerate(sizes)]
    in_graph = tf.function(
        everything,
        input_signature=[
            tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((2,), tf.int32),
        ],
    )  # fmt: skip
    numbered = [(*example, np.array([5, number], np.int32)) for example in made for number in range(5)]
    source = tf.data.Dataset.from_generator(lambda: iter(numbered), output_signature=in_graph.input_signature)
    eager = [everything(*example) for example in numbered]
    graph = [in_graph(*example) for example in numbered]
    for of_graph, of_threads, alone in zip(graph, source.map(everything, 8), eager, strict=True):
        for expected, found, near in zip(of_graph, of_threads, alone, strict=True):
            np.testing.assert_array_equal(expected, found)
            np.testing.assert_allclose(np.array(near, float), expected, atol=1 if near.dtype == tf.uint8 else 1e-4)
    assert len({part[0].numpy().tobytes() for part in eager}) == len(eager)


def test_a_graph_knows_the_shape_of_what_it_makes():
    _keras.prepare()
    import tensorflow as tf

    specs = (tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32))
    traced = tf.function(everything).get_concrete_function(*specs, tf.TensorSpec((2,), tf.int32))
    shapes = [tuple(output.shape) for output in traced.outputs]
    assert shapes == [(80, 96, 3), (2,), (None, 4), (None,)] * 2


# --- The sheet ---


def drawn_examples(count: int) -> SimpleNamespace:
    """What the sheet reads of `Examples`: grey images of one box each."""

    class Drawn(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.paths)

    return Drawn(
        paths=[f"{number}.jpg" for number in range(count)],
        pixels=SimpleNamespace(read=lambda number: np.full((80, 96, 3), 20 * number, np.uint8)),
        boxes=[np.array([[20, 20, 60, 60]], np.float32)] * count,
        labels=[np.array([1], np.int32)] * count,
        canvas_wh=CANVAS_WH,
        detector=SimpleNamespace(classes={"mask": 0, "no_mask": 1}, classifies=False),
    )


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_sheet_has_a_row_for_each_image_and_a_column_for_each_augmentation(count):
    sheet = np.asarray(augmentation_sheet(drawn_examples(count), AugmentationSettings(), rows=2))
    # Cells of 240 px with 15 px between them, below a heading of 60 px; captions of 26 px.
    assert sheet.shape == (60 + 2 * (240 + 26 + 15), 15 + 6 * (240 + 15), 3)


def test_the_first_column_shows_the_image_as_it_is():
    sheet = np.asarray(augmentation_sheet(drawn_examples(4), AugmentationSettings(), rows=2))
    assert sheet[60 + 281 + 20 + 190, 15 + 12].tolist() == [40, 40, 40]  # the third image, in the second row
