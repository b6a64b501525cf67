"""Detection and conversion, against keras-retinanet's own loading and conversion of the same files."""

import numpy as np
import pytest
from conftest import BACKBONE
from PIL import Image

from retinamask import detectors
from retinamask.dataset import annotations, images
from retinamask.dataset.image_files import find_images
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import snapshots
from retinamask.inference.agreement import agreement
from retinamask.inference.convert import convert
from retinamask.inference.detect import Predictor, detect


@pytest.fixture(scope="module")
def converted(trained):
    return convert(trained.last)


@pytest.fixture(scope="module")
def ten_images(tiny):
    return [images.read_image(path) for path in sorted((tiny / "scenes" / "images").glob("*.jpg"))[:10]]


def test_converted_and_training_model_agree_on_ten_images(trained, converted, tiny):
    paths = sorted(str(path) for path in (tiny / "scenes" / "images").glob("*.jpg"))[:10]
    tables = [detect(Predictor.load(each), paths, tiny, suppress="per_class")[0] for each in (trained.last, converted)]
    result = agreement(*tables)
    assert result and result.images == 10 and result.boxes > 0, result


def test_agreement_by_hand():
    boxes = [("a", 0, 0, 10, 10, "mask", 0.9), ("a", 50, 0, 60, 10, "mask", 0.8), ("b", *[None] * 6)]
    first = annotations.make_table(boxes, annotations.DETECTION_COLUMNS)
    assert agreement(first, first) == (2, 2, 0, 0, 0, 0) and agreement(first, first)
    moved = [("a", 50, 0.25, 60, 10, "mask", 0.7), ("a", 0, 0, 10, 10, "no_mask", 0.9), ("b", 0, 0, 9, 9, "mask", 0.6)]
    found = agreement(first, annotations.make_table(moved, annotations.DETECTION_COLUMNS))
    assert found[:5] == (2, 2, 1, 1, 0.25) and found.score_difference == pytest.approx(0.1) and not found
    assert not agreement(first[:1], first[:2]) and agreement(first[:1], first[:2]).boxes_lost == 0


def test_keras_retinanet_reads_our_snapshots_and_says_the_same(trained, converted, ten_images):
    from keras_retinanet import models

    theirs = models.convert_model(models.load_model(str(trained.last.weights), backbone_name=BACKBONE))
    theirs_converted = models.load_model(str(converted.weights), backbone_name=BACKBONE)
    detector, ours = detectors.load(converted, "inference")
    batch, _ = detector.prepare(ten_images)
    expected = ours.predict_on_batch(batch)
    for network in (theirs, theirs_converted):
        boxes, scores, labels = network.predict_on_batch(batch)
        np.testing.assert_allclose(boxes, expected[0], atol=1e-3)
        np.testing.assert_allclose(scores, expected[1], atol=1e-5)
        np.testing.assert_array_equal(labels, expected[2])


def test_one_image_alone_gives_what_it_gives_in_a_batch(converted, ten_images):
    predictor = Predictor.load(converted)
    together = predictor(ten_images[:3])
    for image, found in zip(ten_images, together, strict=False):
        alone = predictor([image])[0]
        np.testing.assert_allclose(alone.boxes_xyxy, found.boxes_xyxy, atol=1e-2)
        np.testing.assert_allclose(alone.scores, found.scores, atol=1e-4)


def test_the_table_has_pixels_of_the_file_and_a_damaged_image_is_counted(converted, tiny, tmp_path):
    with Image.open(tiny / "scenes" / "images" / "scene_0000.jpg") as scene:
        scene.resize((300, 200)).save(tmp_path / "größer.png")
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    paths, _ = find_images([tmp_path], tmp_path)
    table, unreadable = detect(Predictor.load(converted), paths, tmp_path, score_threshold=0.05)
    assert paths == ["broken.jpg", "größer.png"]
    assert len(unreadable) == 1 and "broken.jpg" in unreadable[0]
    found = annotations.objects(table)
    assert set(table["image_path"]) == {"größer.png"} and set(found["class_name"]) <= set(CLASSES)
    assert found[["x2", "y2"]].max().max() > 96 and (found["x2"] <= 300).all() and (found["y2"] <= 200).all()
    assert found["score"].is_monotonic_decreasing


def test_nothing_found_is_a_row_without_box(converted, tiny):
    table, _ = detect(Predictor.load(converted), ["scenes/images/scene_0001.jpg"], tiny, score_threshold=1.0)
    assert len(table) == 1 and annotations.objects(table).empty


@pytest.mark.parametrize("sources", [["nowhere"], ["."]])
def test_no_image_to_look_at_is_an_error(sources, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(annotations.AnnotationError, match="does not exist|no image below"):
        find_images(sources, tmp_path)


def test_a_conversion_never_replaces_a_file(trained, converted):
    assert convert(trained.last) == converted
    with pytest.raises(snapshots.SnapshotError, match="exists and is another model; choose another name"):
        convert(trained.last, nms_threshold=0.3)
    with pytest.raises(snapshots.SnapshotError, match="is of the kind inference; expected a training snapshot"):
        convert(converted)


def test_weights_that_are_not_those_of_the_json_are_refused(trained, tmp_path):
    for suffix in (".h5", ".json"):
        (tmp_path / f"copy{suffix}").write_bytes(trained.last.weights.with_suffix(suffix).read_bytes())
    assert snapshots.read(tmp_path / "copy.json").classes == CLASSES
    with (tmp_path / "copy.h5").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(snapshots.SnapshotError, match="SHA-256 differs"):
        snapshots.read(tmp_path / "copy.h5")


def test_the_file_that_was_given_is_named(tmp_path):
    for name in ("u.pt", "mine.v2"):
        with pytest.raises(
            snapshots.SnapshotError, match=f"{name}: expected a snapshot, .h5 with its .json, or an exp"
        ):
            snapshots.read(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "not readable as JSON"), ("[]", "not a snapshot description"), ('{"format": 1}', "kind, detector")],
)
def test_a_damaged_description_is_refused(text, message, tmp_path):
    (tmp_path / "a.h5").write_bytes(b"")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(snapshots.SnapshotError, match=message):
        snapshots.read(tmp_path / "a.h5")


def test_other_classes_show_both_sides(trained):
    with pytest.raises(annotations.AnnotationError, match="0 mask, 1 no_mask, the annotations have 0 no_mask, 1 mask"):
        snapshots.check_classes(trained.last, {"no_mask": 0, "mask": 1})
