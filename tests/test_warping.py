"""Faces turned, shifted, slanted and partly hidden: as OpenCV does it, and for classifiers alone."""

import math
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from retinamask import detectors
from retinamask.dataset import images
from retinamask.detectors import _keras
from retinamask.training import augmentation, input_pipeline
from retinamask.training.augmentation import augment
from retinamask.training.settings import NO_AUGMENTATION, AugmentationSettings

CLASSES = {"mask": 0, "no_mask": 1}
SIZE_WH = (60, 44)
EVERYTHING = AugmentationSettings(rotate=30, shift=0.2, shear=0.2, erase=0.5)


def face(seed: int = 0, size_wh=SIZE_WH) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC)


def warped(image, seed=(0, 1), **settings) -> np.ndarray:
    _keras.prepare()
    return augmentation.warped(image_tensor(image), seed, replace(NO_AUGMENTATION, **settings)).numpy()


def image_tensor(image):
    import tensorflow

    return tensorflow.constant(image)


def draws(seed) -> np.ndarray:
    _keras.prepare()
    import tensorflow

    own = tensorflow.random.experimental.stateless_fold_in(seed, augmentation._WARPING)
    return tensorflow.random.stateless_uniform((augmentation._WARP_DRAWS,), own, alg="philox").numpy()


def by_opencv(image, matrix) -> np.ndarray:
    """The image moved by a matrix that says where each pixel goes."""
    size_wh = image.shape[1::-1]
    moved = cv2.warpAffine(
        image.astype(np.float32), np.asarray(matrix, float)[:2], size_wh, borderMode=cv2.BORDER_REPLICATE
    )
    return np.rint(moved.clip(0, 255))


def close(one, other) -> None:
    """OpenCV samples at 32nds of a pixel."""
    difference = np.abs(one.astype(float) - other)
    assert difference.max() <= 6 and difference.mean() < 0.6


@pytest.mark.parametrize("seed", [(0, 1), (3, 4), (5, 6)])
def test_a_rotation_is_opencvs(seed):
    degrees = 40 * (2 * draws(seed)[0] - 1)
    middle = (SIZE_WH[0] - 1) / 2, (SIZE_WH[1] - 1) / 2
    assert abs(degrees) > 1
    close(warped(face(), seed, rotate=40), by_opencv(face(), cv2.getRotationMatrix2D(middle, degrees, 1)))


@pytest.mark.parametrize("seed", [(0, 1), (3, 4)])
def test_a_shift_is_opencvs(seed):
    across, down = 0.3 * (2 * draws(seed)[1:3] - 1) * SIZE_WH
    close(warped(face(), seed, shift=0.3), by_opencv(face(), [[1, 0, across], [0, 1, down]]))


def test_a_slant_is_opencvs():
    slant = 0.5 * (2 * draws((0, 1))[3] - 1)
    assert abs(slant) > 0.02
    # Where a pixel is read is slanted by as much, so that it goes the other way, around the middle row.
    close(warped(face(), shear=0.5), by_opencv(face(), [[1, -slant, slant * (SIZE_WH[1] - 1) / 2], [0, 1, 0]]))


def test_all_at_once_are_one_after_the_other_in_one_sampling():
    seed, (width, height) = (7, 8), SIZE_WH
    angle, *shift, slant = draws(seed)[:4] * 2 - 1
    turn = cv2.getRotationMatrix2D((0, 0), 30 * angle, 1)
    across, down = 0.2 * np.array(shift) * SIZE_WH
    middle = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    turn, slanted = np.vstack([turn, [0, 0, 1]]), np.array([[1, -0.4 * slant, 0], [0, 1, 0], [0, 0, 1]])
    shifted = np.array([[1, 0, across], [0, 1, down], [0, 0, 1]])
    matrix = shifted @ middle @ slanted @ turn @ np.linalg.inv(middle)
    close(warped(face(), seed, rotate=30, shift=0.2, shear=0.4), by_opencv(face(), matrix))


def test_a_rectangle_of_the_lower_half_is_hidden_and_nothing_else():
    image, sizes = np.full((100, 80, 3), 77, np.uint8), []
    for number in range(30):
        hidden = (warped(image, (number, 0), erase=1) != 77).any(2)
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        assert rows[0] >= 50
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert hidden.sum() >= 0.99 * height * width  # noise may hit the 77
        sizes.append((width / 80, height / 100))
    sizes = np.array(sizes)
    assert (sizes.min(0) >= (0.28, 0.09)).all() and (sizes.max(0) <= (0.92, 0.51)).all()
    assert (np.ptp(sizes, axis=0) > (0.4, 0.2)).all()


def test_the_share_of_faces_that_are_hidden():
    image = np.full((20, 20, 3), 77, np.uint8)
    hidden = [(warped(image, (number, 5), erase=0.3) != 77).any() for number in range(300)]
    assert 0.2 < np.mean(hidden) < 0.4


def test_the_same_seed_gives_the_same_face_in_a_graph_too():
    _keras.prepare()
    import tensorflow

    def varied(image, seed):
        none = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
        return augment(image, *none, seed, EVERYTHING, (64, 64))[0]

    graph = tensorflow.function(varied)
    for seed in (np.int32([1, 2]), np.int32([3, 4])):
        one, other = varied(image_tensor(face()), seed).numpy(), graph(image_tensor(face()), seed).numpy()
        assert one.shape == (64, 64, 3) and np.abs(one.astype(int) - other).max() <= 1
    assert (varied(image_tensor(face()), np.int32([1, 3])).numpy() != one).any()


def test_nothing_is_asked_for_by_default():
    assert not augmentation.warps(AugmentationSettings()) and augmentation.warps(EVERYTHING)


@pytest.mark.parametrize(("name", "value"), [("rotate", 181), ("shift", 1.5), ("shear", -0.1), ("erase", 2)])
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}, expected 0 to"):
        AugmentationSettings(**{name: value})


def test_only_classifiers_take_warps_and_they_take_no_mosaic():
    classifier = detectors.create("mask_classifier", CLASSES)
    input_pipeline.check(classifier, EVERYTHING)
    with pytest.raises(ValueError, match="are for classifiers; set them to 0 for retinanet"):
        input_pipeline.check(detectors.create("retinanet", CLASSES), EVERYTHING)
    with pytest.raises(ValueError, match="mosaic is 0.5, but an image of mask_classifier has one class"):
        input_pipeline.check(classifier, AugmentationSettings(mosaic=0.5))


def test_a_face_keeps_its_class_however_far_a_zoom_goes():
    pixels = SimpleNamespace(reader=lambda: lambda index: image_tensor(face()))
    detector = detectors.create("mask_classifier", CLASSES, image_height=64, image_width=64)
    boxes = [np.float32([[0, 0, *SIZE_WH]])] * 2
    examples = SimpleNamespace(
        detector=detector, pixels=pixels, boxes=boxes, labels=[np.int32([1])] * 2, canvas_wh=(64, 64)
    )
    settings = AugmentationSettings(zoom_in=8, visible_share=1, rotate=90, shift=0.5)
    batch = next(iter(input_pipeline.batches(examples, 32, settings, seed=1)))
    assert batch["label"].numpy().tolist() == [1] * 32 and batch["images"].shape == (32, 64, 64, 3)


@pytest.mark.parametrize("canvas_wh", [(64, 64), (96, 44), (60, 80)])
def test_faces_are_stretched_in_the_graph_as_outside(canvas_wh):
    _keras.prepare()
    box = np.float32([[0, 11, 30, 44]])
    image, boxes = augmentation.stretched(image_tensor(face()), box, canvas_wh)
    expected = images.stretch(face(), canvas_wh)
    assert image.shape == expected.shape and np.abs(image.numpy().astype(int) - expected).max() <= 1
    width, height = canvas_wh
    np.testing.assert_allclose(boxes, [[0, height / 4, width / 2, height]], rtol=1e-6)


def test_the_angle_is_in_degrees():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 25:] = 255  # a hand that points to the right
    turned = warped(image, (0, 1), rotate=90)
    y, x = np.argwhere(turned[..., 0] > 60)[-1 if draws((0, 1))[0] < 0.5 else 0] - 20
    assert math.degrees(math.atan2(-y, x)) == pytest.approx(90 * (2 * draws((0, 1))[0] - 1), abs=6)
