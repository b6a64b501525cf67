"""What the audit says about copies and splits."""

import os
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sound_data import COUNT, DataSet, names, only, picture

from retinamask.dataset import annotations, copies
from retinamask.dataset.audit.checks import Example
from retinamask.dataset.audit.source import read_source
from retinamask.dataset.splits import split
from retinamask.evaluation.audit import Audit, AuditSettings


@pytest.fixture
def data(tmp_path) -> DataSet:
    return DataSet(tmp_path)


# --- Copies ---


def test_exact_copies_are_found(data):
    for number in (1, 2):
        shutil.copy(data.folder / "images/0.png", data.folder / f"images/copy{number}.png")
        data.rows.append((f"images/copy{number}.png", *data.rows[0][1:]))
    result = data.audit()
    assert names(result) == ["exact file copies", "near-duplicate images"]
    assert result.findings[0].files() == ["images/0.png", "images/copy1.png", "images/copy2.png"]
    expected = {"groups": 1, "files": 3, "surplus": 2}
    assert result.record()["copies"] == {"exact": expected, "near": expected}


@pytest.mark.parametrize("mirrored", [False, True])
def test_scaled_and_mirrored_copies_are_found(data, mirrored):
    copy = picture(0).resize((160, 120))
    (copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else copy).save(data.folder / "images/small.jpg")
    box = (75, 40, 110, 75) if mirrored else (50, 40, 85, 75)  # (100, 80, 170, 150) in half the size
    data.rows.append(("images/small.jpg", *box, "mask"))
    finding = only(data.audit())
    assert finding.name == "near-duplicate images" and ("mirrored" in finding.examples[0].detail) == mirrored
    assert finding.files() == ["images/0.png", "images/small.jpg"]


@pytest.mark.parametrize(
    ("labels", "detail"),
    [
        ([(100, 80, 170, 150, "no_mask")], "1 mask against 1 no_mask"),
        ([(None,) * 5], "1 mask against nothing"),
        ([(20, 80, 90, 150, "mask")], "a mask of one lies elsewhere on the other"),
    ],
)
def test_exact_copies_that_disagree_are_an_error(data, labels, detail):
    shutil.copy(data.folder / "images/0.png", data.folder / "images/copy.png")
    data.rows += [("images/copy.png", *label) for label in labels]
    result = data.audit()
    assert result.findings[0].name == "exact copies labelled differently" and result.findings[0].severity == "error"
    assert result.findings[0].examples == (Example(("images/0.png", "images/copy.png"), detail),)


@pytest.mark.parametrize(("swapped", "count"), [(False, 0), (True, 1)])
def test_mirrored_copies_whose_faces_are_swapped_disagree(data, swapped, count):
    faces = [(20, 80, 90, 150, "mask"), (200, 60, 280, 140, "no_mask")]
    data.rows[0:1] = [("images/0.png", *face) for face in faces]
    picture(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(data.folder / "images/mirror.png")
    classes = ["no_mask", "mask"] if swapped else ["mask", "no_mask"]
    mirrored = [(320 - x2, y1, 320 - x1, y2) for x1, y1, x2, y2, _ in faces]
    data.rows += [("images/mirror.png", *box, name) for box, name in zip(mirrored, classes, strict=True)]
    assert names(data.audit()).count("near-copies labelled differently") == count


def test_the_hashes_are_those_of_the_splits(data):
    picture(3, (1600, 1200)).save(data.folder / "images/large.jpg")
    data.rows.append(("images/large.jpg", *data.rows[1][1:]))
    result = data.audit()
    paths = list(result.looks)
    hashes = copies.hash_images(paths, data.folder)
    kept = np.frombuffer(b"".join(result.looks[path].hashes for path in paths), np.uint8).reshape(-1, 2, 10)
    assert np.array_equal(kept[:, 0], hashes.upright) and np.array_equal(kept[:, 1], hashes.mirrored)
    assert [result.looks[path].sha256.hex() for path in paths] == hashes.sha256


def test_broken_files_can_be_exact_copies_and_empty_tables_have_none(data):
    for name in ("one", "two"):
        (data.folder / f"images/{name}.png").write_bytes(b"the same")
        data.rows.append((f"images/{name}.png", *(None,) * 5))
    result = data.audit()
    assert result.record()["copies"]["exact"]["files"] == 2
    assert set(names(result)) == {
        "unreadable image", "image without objects", "exact file copies", "near-duplicate images"
    }  # fmt: skip


# --- Splits ---


def split_files(data: DataSet, **members) -> list[Path]:
    """CSVs of the images that are named by number, in a folder of their own."""
    table = annotations.moved(annotations.make_table(data.rows), data.folder, data.folder / "splits")
    paths = []
    for name, numbers in members.items():
        chosen = [f"../images/{number}.png" for number in numbers]
        paths.append(data.folder / "splits" / f"{name}.csv")
        annotations.write_annotations(annotations.of_images(table, chosen), paths[-1])
    return paths


def test_splits_that_share_nothing_are_fine(data):
    assert names(data.audit(splits=split_files(data, train=range(5), val=[5], test=[6, 7]))) == []


def test_the_same_image_in_two_splits_is_an_error(data):
    finding = only(data.audit(splits=split_files(data, train=range(6), test=[5, 6, 7])))
    assert (finding.name, finding.severity, finding.count) == ("same picture in two splits", "error", 1)
    assert finding.examples[0].detail == "train: images/5.png; test: images/5.png"


def test_copies_in_two_splits_are_an_error(data):
    picture(0).resize((160, 120)).save(data.folder / "images/99.png")
    data.rows.append(("images/99.png", 50, 40, 85, 75, "mask"))
    finding = data.audit(splits=split_files(data, train=range(5), test=[5, 6, 7, 99])).findings[0]
    assert finding.name == "same picture in two splits"
    assert finding.examples[0].detail == "train: images/0.png; test: images/99.png"


def test_images_of_splits_that_the_table_lacks_or_has_alone(data):
    paths = split_files(data, train=range(5), test=[6, 7])
    data.rows = data.rows[1:]
    result = data.audit(splits=paths)
    assert [(finding.name, finding.files()) for finding in result.findings] == [
        ("split image not in the table", ["images/0.png"]),
        ("image in no split", ["images/5.png"]),
    ]
    assert len(result.looks) == COUNT


def test_splits_of_the_project_are_understood(data):
    tables = split(annotations.make_table(data.rows), 0.2, 0.2, seed=1)
    for name, table in tables.items():
        annotations.write_annotations(table, data.folder / f"annotations_{name}.csv")
    paths = [data.folder / f"annotations_{name}.csv" for name in tables]
    result = data.audit(splits=paths)
    assert names(result) == [] and list(result.source.splits) == [path.stem for path in paths]


# --- Real data ---


def test_real_copies_are_all_found(shared_data):
    """Exact copies as sha256sum has them; near ones in one group are joined by pairs of 12 bits at most."""
    result = Audit(read_source(shared_data / "praveen"), AuditSettings())
    by_bytes = defaultdict(list)
    for path in sorted((shared_data / "praveen" / "images").iterdir()):
        by_bytes[path.read_bytes()].append(path.name)
    expected = sorted(group for group in by_bytes.values() if len(group) > 1)
    assert sorted(sorted(os.path.basename(path) for path in group) for group in result.copies.exact) == expected
    assert len(expected) == 44 and sum(map(len, expected)) == 93
    assert len(result.copies.near) >= 170
