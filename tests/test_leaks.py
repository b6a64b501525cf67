"""Leaks: pictures that a model was trained on are refused in its evaluation, scaled and mirrored too."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_copies import photo

import retinamask as rm
from retinamask.dataset import copies
from retinamask.dataset.annotations import make_table
from retinamask.detectors.snapshots import Snapshot


def table_of(*names: str):
    return make_table([(name, 1, 1, 30, 30, "mask") for name in names])


@pytest.fixture
def snapshot(tmp_path) -> Snapshot:
    """Of a detector that was trained on three pictures, of which the second and the third are in other forms here."""
    hashes = np.stack([copies.packed_hashes(photo(seed))[0] for seed in range(3)])
    Image.fromarray(photo(1)).resize((300, 200)).save(tmp_path / "scaled.jpg", quality=60)
    Image.fromarray(photo(2)[:, ::-1]).save(tmp_path / "mirrored.png")
    for seed in range(3, 6):
        Image.fromarray(photo(seed)).save(tmp_path / f"other_{seed}.png")
    return Snapshot(Path("a.h5"), {"detector": "retinanet", "training": {"image_hashes": hashes.tobytes().hex()}})


@pytest.mark.parametrize("name", ["scaled.jpg", "mirrored.png"])
def test_one_copy_of_a_training_image_is_refused(snapshot, tmp_path, name):
    said = (
        f"1 of 3 images show a picture that the model was trained on, such as {name}; .*retinamask split.*--allow-leak"
    )
    with pytest.raises(ValueError, match=said):
        rm.find_leaks(snapshot, table_of("other_3.png", name, "other_4.png"), tmp_path)


def test_copies_are_counted_where_they_are_allowed(snapshot, tmp_path):
    (tmp_path / "broken.jpg").write_text("no picture")
    table = table_of("broken.jpg", "mirrored.png", "other_3.png", "scaled.jpg")
    found = rm.find_leaks(snapshot, table, tmp_path, allow_leak=True)
    said = "2 of 3 images show a picture that the model was trained on, such as mirrored.png and scaled.jpg"
    assert found == (2, [f"LEAK: {said}; the figures are too good"])


def test_other_pictures_pass(snapshot, tmp_path):
    assert rm.find_leaks(snapshot, table_of("other_3.png", "other_4.png", "other_5.png"), tmp_path) == (0, [])


def test_pictures_of_the_validation_are_remarked_upon_and_not_refused(snapshot, tmp_path):
    """The fourth and, in the table mirrored, the fifth chose epoch and thresholds; the other is new."""
    Image.fromarray(photo(4)[:, ::-1]).save(tmp_path / "mirrored_4.png")
    chosen_on = np.stack([copies.packed_hashes(photo(seed))[0] for seed in (3, 4)]).tobytes().hex()
    table = table_of("other_3.png", "mirrored_4.png", "other_5.png")
    remark = "2 of 3 images show a picture of the validation, which chose the epoch and the score thresholds; "
    for training, images in ((snapshot.record["training"], 0), ({}, None)):
        snapshot.record["training"] = training | {"val_image_hashes": chosen_on}
        found = rm.find_leaks(snapshot, table, tmp_path)
        assert found.images == images and found.remarks[-1] == f"{remark}the figures are a little too good"
        assert rm.find_leaks(snapshot, table_of("other_5.png"), tmp_path).remarks == found.remarks[:-1]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"detector": "retinanet", "training": {}}, "does not remember its training pictures"),
        ({"detector": "yolov4_tiny"}, "copies cannot be checked"),
        ({"detector": "yolov4_tiny", "training": {"image_hashes": None}}, "copies cannot be checked"),
        ({"detector": "mask_classifier", "training": {"image_hashes": ""}}, "was trained on faces"),
    ],
)
def test_a_snapshot_that_does_not_say_what_it_learnt_from_is_remarked_upon(record, said, tmp_path):
    images, (remark,) = rm.find_leaks(Snapshot(Path("a.h5"), record), table_of("gone.png"), tmp_path)
    assert images is None and said in remark


def test_pictures_of_the_face_detector_count_in_two_stages(snapshot, tmp_path):
    classifier = Snapshot(Path("b.h5"), {"detector": "mask_classifier"})
    leaky, clean = table_of("scaled.jpg", "other_3.png"), table_of("other_3.png")
    with pytest.raises(ValueError, match="1 of 2 images show a picture .* such as scaled.jpg"):
        rm.find_leaks(classifier, leaky, tmp_path, face_snapshot=snapshot)
    images, remarks = rm.find_leaks(classifier, leaky, tmp_path, allow_leak=True, face_snapshot=snapshot)
    assert images == 1 and "trained on faces" in remarks[0] and "LEAK" in remarks[1]
    images, (remark,) = rm.find_leaks(classifier, clean, tmp_path, face_snapshot=snapshot)
    assert images is None and "trained on faces" in remark
    unknown = Snapshot(Path("a.h5"), {"detector": "retinanet"})
    images, remarks = rm.find_leaks(classifier, clean, tmp_path, face_snapshot=unknown)
    assert images is None and "the face detector does not remember" in remarks[1]


@pytest.mark.parametrize("bits", [12, 13])
@pytest.mark.parametrize("mirrored", [False, True])
def test_twelve_bits_in_any_chunk_are_a_copy(bits, mirrored, monkeypatch):
    """Which image is one is counted bit by bit; its own hash of the other direction is far from all."""
    monkeypatch.setattr(copies, "_CHUNK", 4)
    random = np.random.default_rng(1)
    known, same, other = (random.integers(0, 2, (count, 80), dtype=np.uint8) for count in (7, 10, 10))
    same[6] = known[5]
    same[6, :bits] ^= 1
    packed = [np.packbits(each, axis=1) for each in ((other, same) if mirrored else (same, other))]
    hashes = copies.Hashes([str(index) for index in range(10)], *packed, [], [])
    expected = [index == 6 and bits == 12 for index in range(10)]
    assert copies.shown_in(hashes, np.packbits(known, axis=1)).tolist() == expected
