"""Splits: every image on one side, the same for the same seed, written where the run is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinamask.dataset import annotations, copies
from retinamask.dataset.copies import ImageGroups, by_path
from retinamask.dataset.dealing import whole_counts
from retinamask.dataset.sample import CLASSES, draw_sample
from retinamask.dataset.splits import SPLITS, deal_images, plain_shares, split, splits_of_run, write_splits

modest = settings(deadline=None, derandomize=True, max_examples=80)


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


def test_the_split_beside_a_table_is_taken(tmp_path):
    source = tmp_path / "annotations.csv"
    table = table_of(20)
    annotations.write_annotations(table, source)
    annotations.write_classes(CLASSES, tmp_path / "classes.csv")
    parts = split(table, 0.3, 0.2, seed=9)
    for name, part in parts.items():
        annotations.write_annotations(part, tmp_path / f"annotations_{name}.csv")
    tables, _ = splits_of_run(tmp_path / "run", source)
    for name in SPLITS:
        assert {path.removeprefix("../") for path in tables[name]["image_path"]} == set(parts[name]["image_path"])
    again, _ = splits_of_run(tmp_path / "run", source)
    assert all(again[name].equals(tables[name]) for name in SPLITS)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [("test", 2, "lacks 2 of its images, such as images/0"), ("val", None, "is in another split too")],
)
def test_a_split_beside_that_does_not_fit_is_refused(name, count, message, tmp_path):
    table = table_of(20)
    annotations.write_annotations(table, tmp_path / "annotations.csv")
    annotations.write_classes(CLASSES, tmp_path / "classes.csv")
    parts = split(table, 0.2, 0.2, seed=9)
    parts[name] = parts[name].iloc[count:] if count else parts["train"]
    for side, part in parts.items():
        annotations.write_annotations(part, tmp_path / f"annotations_{side}.csv")
    with pytest.raises(annotations.AnnotationError, match=message):
        splits_of_run(tmp_path / "run", tmp_path / "annotations.csv")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("left", ["annotations_test.csv", "annotations_val.csv"])
def test_a_part_of_a_split_beside_is_refused(left, tmp_path):
    """Also what a split with folds leaves: continuing would train on its test images."""
    annotations.write_annotations(table_of(20), tmp_path / "annotations.csv")
    annotations.write_classes(CLASSES, tmp_path / "classes.csv")
    annotations.write_annotations(table_of(20).iloc[:4], tmp_path / left)
    with pytest.raises(annotations.AnnotationError, match=f"{left} is a part of a split, or of one with folds"):
        splits_of_run(tmp_path / "run", tmp_path / "annotations.csv")


def test_a_run_keeps_the_sides_of_a_split_made_before(tmp_path, capsys):
    draw_sample(tmp_path / "data", images=14, size=64, seed=1)
    images = sorted((tmp_path / "data" / "images").iterdir())
    table = annotations.make_table((f"data/images/{image.name}", 1, 1, 9, 9, "mask") for image in images)
    earlier = split(table.iloc[:12], 0.3, 0.3, seed=5)
    source = tmp_path / "data" / "annotations.csv"
    for name, part in earlier.items():
        inside = annotations.moved(part, tmp_path, tmp_path / "data")
        annotations.write_annotations(inside, source.with_name(f"annotations_{name}.csv"))
    made = write_splits(table, CLASSES, tmp_path, tmp_path / "run", 0.3, 0.3, seed=0, split_of=source)
    for name in SPLITS:
        assert set(earlier[name]["image_path"]) <= {path.removeprefix("../") for path in made[name]["image_path"]}
    assert "12 images keep the side that they have" in capsys.readouterr().out


def test_a_run_has_no_copies_across_and_the_same_split_in_any_folder(tmp_path):
    """Names of files and of folders do not matter, what the files hold does."""
    names = draw_sample(tmp_path / "a", images=12, size=64, seed=1)
    images = sorted((tmp_path / "a" / "images").iterdir())
    assert len(names) == len(images)
    (tmp_path / "b").mkdir()
    content = {}
    for i, image in enumerate(images):
        for copy in range(1 + i % 3):
            path = tmp_path / "b" / f"{copy}-{(7 * i) % 12:02d}{image.suffix}"
            path.write_bytes(image.read_bytes())
            content[f"b/{path.name}"] = image.name
    table = annotations.make_table((path, 1, 1, 9, 9, "mask") for path in content)
    first = write_splits(table, CLASSES, tmp_path, tmp_path / "run", 0.25, 0.25)
    shown = {name: {content[path.removeprefix("../")] for path in part["image_path"]} for name, part in first.items()}
    assert sum(map(len, shown.values())) == len(set().union(*shown.values())) == 12
    moved = annotations.moved(table, tmp_path, tmp_path / "b")
    second = write_splits(moved, CLASSES, tmp_path / "b", tmp_path / "x" / "y", 0.25, 0.25)
    for name in SPLITS:
        assert [path[-8:] for path in first[name]["image_path"]] == [path[-8:] for path in second[name]["image_path"]]


# --- Groups ---


def grouped(numbers: list[int]) -> ImageGroups:
    """One image a number, named by its place; keys are the names."""
    paths = [f"{i:03d}.jpg" for i in range(len(numbers))]
    return by_path(paths)._replace(numbers=copies.groups(len(numbers), same(numbers)))


def same(numbers: list[int]) -> list[tuple[int, int]]:
    return [(i, j) for i, first in enumerate(numbers) for j, other in enumerate(numbers) if i < j and first == other]


@st.composite
def tables(draw):
    """Up to forty images in groups, each with up to three boxes of three classes, and a box in most groups."""
    numbers = draw(st.lists(st.integers(0, 15), min_size=3, max_size=40))
    faces = draw(st.lists(st.lists(st.sampled_from("abc"), max_size=3), min_size=len(numbers), max_size=len(numbers)))
    rows = []
    for i, names in enumerate(faces):
        rows += [(f"{i:03d}.jpg", 1, 1, 9, 9, name) for name in names] or [(f"{i:03d}.jpg", *[None] * 5)]
    return annotations.make_table(rows), grouped(numbers)


@modest
@given(tables(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_each_image_is_on_one_side_and_groups_are_whole_in_any_order(drawn, seed, random):
    table, groups = drawn
    with_boxes = set(groups.numbers[[int(path[:3]) for path in annotations.objects(table)["image_path"]]])
    try:
        found = split(table, 0.2, 0.2, seed, groups)
    except annotations.AnnotationError:
        assert len(with_boxes) < 3  # else each side can have a box
        return
    side_of = [{name for name in SPLITS if path in set(found[name]["image_path"])} for path in groups.paths]
    assert all(len(sides) == 1 for sides in side_of)
    assert all(side_of[i] == side_of[j] for i, j in same(groups.numbers.tolist()))
    assert sum(map(len, found.values())) == len(table)
    shuffled = table.sample(frac=1, random_state=random.randrange(2**32)).reset_index(drop=True)
    again = split(shuffled, 0.2, 0.2, seed, groups)
    assert all(set(again[name]["image_path"]) == set(found[name]["image_path"]) for name in SPLITS)


@modest
@given(tables(), st.integers(0, 5), st.data())
def test_old_images_keep_their_side_and_the_most_protected_wins(drawn, seed, data):
    table, groups = drawn
    old = {path: {data.draw(st.sampled_from(SPLITS))} for path in groups.paths if data.draw(st.booleans())}
    if groups.numbers.max() < 2:
        return
    sides = deal_images(table, groups, plain_shares(0.2, 0.2), seed, old)
    for number in range(groups.numbers.max() + 1):
        members = [path for path, of in zip(groups.paths, groups.numbers, strict=True) if of == number]
        held = set().union(*(old.get(path, set()) for path in members))
        expected = "test" if "test" in held else "val" if "val" in held else "train" if held else None
        assert {sides[path] for path in members} == {expected or sides[members[0]]}


def test_classes_and_images_are_near_their_shares():
    random = np.random.default_rng(2)
    numbers, rows = [], []
    for group, size in enumerate(random.choice([1, 1, 2, 3, 9], 300)):
        for _ in range(size):
            path = f"{len(numbers):03d}.jpg" if len(numbers) < 1000 else f"{len(numbers)}.jpg"
            names = random.choice(["common", "usual", "rare"], random.integers(0, 4), p=[0.7, 0.25, 0.05])
            rows += [(path, 1, 1, 9, 9, name) for name in names] or [(path, *[None] * 5)]
            numbers.append(group)
    table = annotations.make_table(rows)
    groups = by_path(table["image_path"])._replace(numbers=np.array(numbers))
    parts = split(table, 0.15, 0.15, 0, groups)
    whole = annotations.objects(table)["class_name"].value_counts()
    for name, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        images = len(annotations.image_paths(parts[name]))
        assert abs(images - share * len(numbers)) <= 3
        boxes = annotations.objects(parts[name])["class_name"].value_counts().reindex(whole.index, fill_value=0)
        assert (abs(boxes - share * whole) <= 0.02 * whole + 2).all()


def test_a_rare_class_reaches_every_side():
    rows = [(f"{i:03d}.jpg", 1, 1, 9, 9, "rare" if i in (3, 50, 77, 90, 91, 93) else "usual") for i in range(100)]
    for seed in range(10):
        parts = split(annotations.make_table(rows), 0.15, 0.15, seed)
        assert all("rare" in set(part["class_name"]) for part in parts.values()), seed


def test_one_more_image_moves_few_others():
    before = split(table_of(200), 0.15, 0.15, seed=0)
    after = split(table_of(203), 0.15, 0.15, seed=0)
    stayed = sum(len(set(before[name]["image_path"]) & set(after[name]["image_path"])) for name in SPLITS)
    assert stayed >= 190  # by positions dealt anew it would be about 108: 0.7^2 + 2 * 0.15^2 of 200


def test_a_group_larger_than_a_share_is_for_training():
    numbers = [0] * 60 + list(range(1, 41))
    rows = [(f"{i:03d}.jpg", 1, 1, 9, 9, "mask") for i in range(100)]
    for seed in range(10):
        parts = split(annotations.make_table(rows), 0.15, 0.15, seed, grouped(numbers))
        assert [len(parts[name]) for name in SPLITS] == [70, 15, 15]


def test_too_few_groups_say_so():
    table = annotations.make_table([(f"{i:03d}.jpg", 1, 1, 9, 9, "mask") for i in range(6)])
    with pytest.raises(annotations.AnnotationError, match=r"found 6 image\(s\) in 2 group\(s\) that stay together"):
        split(table, 0.2, 0.2, 0, grouped([0, 0, 0, 1, 1, 1]))


@pytest.mark.parametrize(
    ("count", "shares", "expected"),
    [  # floors and largest remainders by hand; none empty
        (101, (0.7, 0.15, 0.15), (71, 15, 15)),
        (10, (0.7, 0.2, 0.1), (7, 2, 1)),
        (4, (0.7, 0.15, 0.15), (2, 1, 1)),
        (11, (0.25, 0.25, 0.25, 0.25), (3, 3, 3, 2)),
        (2, (0.7, 0.15, 0.15), (1, 1, 0)),
        (0, (0.5, 0.5), (0, 0)),
    ],
)
def test_whole_counts(count, shares, expected):
    assert whole_counts(count, np.array(shares)).tolist() == list(expected)
