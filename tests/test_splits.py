"""Splits: every image on one side, the same for the same seed, written where the run is."""

import pytest

from retinamask.dataset import annotations
from retinamask.dataset.sample import CLASSES
from retinamask.dataset.splits import SPLITS, split, splits_of_run, write_splits


def table_of(count: int):
    rows = [(f"images/{i:03d}.jpg", 1, 1, 9, 9, ("mask", "no_mask")[i % 2]) for i in range(count)]
    return annotations.make_table(rows)


@pytest.mark.parametrize(
    ("count", "sizes"), [(3, (1, 1, 1)), (4, (2, 1, 1)), (20, (14, 3, 3)), (100, (70, 15, 15)), (101, (71, 15, 15))]
)
def test_shares(count, sizes):
    tables = split(table_of(count), 0.15, 0.15, seed=0)
    assert tuple(len(annotations.image_paths(tables[name])) for name in SPLITS) == sizes
    together = [path for part in tables.values() for path in annotations.image_paths(part)]
    assert sorted(together) == sorted(annotations.image_paths(table_of(count)))


def test_the_seed_decides_and_the_order_of_the_table_does_not():
    table = table_of(40)
    backwards = table.iloc[::-1].reset_index(drop=True)
    first, second, other = split(table, 0.2, 0.2, 1), split(backwards, 0.2, 0.2, 1), split(table, 0.2, 0.2, 2)
    for name in SPLITS:
        assert set(first[name]["image_path"]) == set(second[name]["image_path"])
    assert set(first["test"]["image_path"]) != set(other["test"]["image_path"])


@pytest.mark.parametrize(
    ("count", "shares", "message"),
    [
        (2, (0.2, 0.2), "found 2 image"),
        (9, (0.0, 0.2), "val_share is 0.0"),
        (9, (0.5, 0.5), "together below 1"),
    ],
)
def test_impossible_splits_are_refused(count, shares, message):
    with pytest.raises(ValueError, match=message):
        split(table_of(count), *shares, seed=0)


def test_a_split_without_a_box_is_refused():
    empty = annotations.make_table([(f"{i}.jpg", None, None, None, None, None) for i in range(9)])
    with pytest.raises(annotations.AnnotationError, match="no box in train, val, test"):
        split(empty, 0.2, 0.2, seed=0)


def test_the_files_of_a_run_are_read_again(tmp_path):
    source = tmp_path / "data" / "annotations.csv"
    annotations.write_annotations(table_of(20), source)
    annotations.write_classes(CLASSES, tmp_path / "data" / "classes.csv")
    run_dir = tmp_path / "runs" / "one"
    first, classes = splits_of_run(run_dir, source, tmp_path / "data" / "classes.csv", seed=4)
    assert classes == CLASSES and first["train"]["image_path"][0].startswith("../../data/images/")
    again, _ = splits_of_run(run_dir)
    other = tmp_path / "data" / "other.csv"
    annotations.write_annotations(table_of(21), other)
    with pytest.raises(annotations.AnnotationError, match="holds splits of another table"):
        splits_of_run(run_dir, other)
    for name in SPLITS:
        assert again[name].equals(first[name])


def test_writing_keeps_the_fingerprint_of_the_whole(tmp_path):
    table = table_of(20)
    write_splits(table, CLASSES, tmp_path, tmp_path / "run")
    assert annotations.fingerprint(table, CLASSES) in (tmp_path / "run" / "dataset.json").read_text()
