"""A split beside its table: what is written, kept and moved, what would have leaked, and real data."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from retinamask.cli import main
from retinamask.dataset import annotations
from retinamask.dataset.copies import by_path
from retinamask.dataset.formats import read
from retinamask.dataset.split_files import SplitSettings, copies_found, leaked_by_chance, split_beside
from retinamask.dataset.splits import SPLITS

NAMES = [f"annotations_{name}.csv" for name in SPLITS]


def picture(path, seed: int, mirror: bool = False, **options) -> str:
    """Save a picture of smooth random colours, another for each seed."""
    points = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(points).resize((96, 72), Image.Resampling.BICUBIC)
    path.parent.mkdir(exist_ok=True)
    (ImageOps.mirror(image) if mirror else image).save(path, **options)
    return f"{path.parent.name}/{path.name}"


def write_table(folder, paths) -> None:
    rows = [(path, 1, 2, 30, 40, ("mask", "no_mask")[int(re.findall("[0-9]+", path)[0]) % 2]) for path in paths]
    annotations.write_annotations(annotations.make_table(rows), folder / "annotations.csv")


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures; the first six have a copy each: smaller files, mirrored ones, byte for byte."""
    paths = [picture(tmp_path / "images" / f"{i:02d}.png", i) for i in range(20)]
    for i in range(6):
        copy = tmp_path / "images" / f"{i:02d}b.png"
        if i < 2:
            copy.write_bytes((tmp_path / "images" / f"{i:02d}.png").read_bytes())
            paths.append(f"images/{copy.name}")
        else:
            paths.append(picture(copy.with_suffix(".jpg"), i, mirror=i < 4, quality=60))
    write_table(tmp_path, paths)
    return tmp_path


def run(folder, *options: str) -> int:
    return main(["split", str(folder / "annotations.csv"), *options])


def side_of(folder) -> dict[str, str]:
    """Each image's side as written; an image on two would raise."""
    found = {}
    for side, name in zip(SPLITS, NAMES, strict=True):
        for path in annotations.image_paths(annotations.read_annotations(folder / name)):
            assert found.setdefault(path, side) == side
    return found


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("annotations_*.csv"))}


def test_the_files_hold_the_table_and_copies_are_together(folder, capsys):
    assert run(folder, "--val", "0.2", "--test", "0.2") == 0
    sides = side_of(folder)
    assert len(sides) == 26 and set(sides.values()) == set(SPLITS)
    for i in range(6):
        assert len({sides[path] for path in sides if path.startswith(f"images/{i:02d}")}) == 1
    lines = b"".join(content(folder).values()).splitlines()
    assert sorted(lines) == sorted((folder / "annotations.csv").read_bytes().splitlines())
    said = capsys.readouterr().out
    assert "26 images show 20 different pictures: 6 groups of copies hold 12 images, and 2 files are copies" in said
    assert "a random split of single images would have copies in train of" in said


def test_the_same_split_again_in_any_order_and_another_with_another_seed(folder):
    run(folder)
    first = side_of(folder)
    bytes_written = content(folder)
    assert run(folder) == 0 and content(folder) == bytes_written
    lines = (folder / "annotations.csv").read_text().splitlines()
    (folder / "annotations.csv").write_text("\n".join(reversed(lines)))
    assert run(folder, "--force") == 0 and side_of(folder) == first
    assert run(folder, "--seed", "1") == 0 and side_of(folder) == first  # the split that is there comes first
    assert run(folder, "--seed", "1", "--force") == 0 and side_of(folder) != first


def test_old_images_stay_and_new_ones_join_their_copies(folder, capsys):
    run(folder)
    before = side_of(folder)
    paths = list(before)
    for i, mirror in ((8, False), (9, True)):
        paths.append(picture(folder / "images" / f"{i:02d}new.jpg", i, mirror, quality=70))
    paths += [picture(folder / "images" / f"{i}.png", i) for i in range(30, 40)]
    paths.remove("images/19.png")
    write_table(folder, paths)
    capsys.readouterr()
    files_before = content(folder)
    assert run(folder, "--seed", "5") == 2 and content(folder) == files_before
    assert "would lose their side; put them back, or forget them with --forget-gone" in capsys.readouterr().err
    assert run(folder, "--seed", "5", "--forget-gone") == 0
    after = side_of(folder)
    assert {path: after[path] for path in before if path in after} == {
        path: side for path, side in before.items() if path != "images/19.png"
    }
    assert after["images/08new.jpg"] == before["images/08.png"]
    assert after["images/09new.jpg"] == before["images/09.png"]
    assert len(after) == 26 + 12 - 1 and "images/19.png" not in after
    said = capsys.readouterr().out
    assert "25 images stay where they were, 0 changed side" in said
    assert "1 images are no longer in the table, such as images/19.png" in said


@pytest.mark.parametrize(("ties", "expected"), [(("train", "test"), "test"), (("val", "train"), "val")])
def test_a_group_that_joins_two_sides_moves_and_is_listed(ties, expected, folder, capsys):
    run(folder, "--val", "0.25", "--test", "0.25")
    before = side_of(folder)
    first, second = (min(path for path, side in before.items() if side == name and len(path) == 13) for name in ties)
    (folder / second).write_bytes((folder / first).read_bytes())  # now the same picture
    partners = {path for path in before if path[:9] in (first[:9], second[:9])}
    capsys.readouterr()
    assert run(folder, "--val", "0.25", "--test", "0.25") == 0
    after = side_of(folder)
    assert after[first] == after[second] == expected
    assert {path for path in before if after[path] != before[path]} <= partners
    other = first if expected == ties[1] else second
    assert f"{other}: was in train, is in {expected} now, where a copy of it was" in capsys.readouterr().err


def test_a_write_that_was_cut_short_is_mended(folder, capsys):
    """An image in two files goes to the more protected one; one in none is dealt anew."""
    run(folder)
    before = side_of(folder)
    test_image = next(path for path, side in before.items() if side == "test" and len(path) == 13)
    train = folder / "annotations_train.csv"
    train.write_text(train.read_text() + f"{test_image},1,2,30,40,mask\n")
    assert run(folder) == 0 and side_of(folder) == before
    assert f"{test_image}: was in test and train, is in test only" in capsys.readouterr().err
    (folder / "annotations_val.csv").unlink()
    assert run(folder) == 0
    after = side_of(folder)
    assert all(after[path] == side for path, side in before.items() if side != "val") and len(after) == 26


def test_folds(folder, capsys):
    assert run(folder, "--folds", "3", "--test", "0.2") == 0
    names = ["annotations_test.csv", *(f"annotations_fold{k}_{kind}.csv" for k in (1, 2, 3) for kind in SPLITS[:2])]
    assert sorted(content(folder)) == sorted(names)
    held = {name: set(annotations.read_annotations(folder / name)["image_path"]) for name in names}
    whole = set(annotations.read_annotations(folder / "annotations.csv")["image_path"])
    test = held["annotations_test.csv"]
    vals = [held[f"annotations_fold{k}_val.csv"] for k in (1, 2, 3)]
    assert set.union(test, *vals) == whole and sum(map(len, [test, *vals])) == len(whole)
    for k, val in enumerate(vals, start=1):
        assert held[f"annotations_fold{k}_train.csv"] == whole - test - val
    before = content(folder)
    assert run(folder, "--folds", "3", "--seed", "8") == 0 and content(folder) == before
    for options in ((), ("--folds", "2"), ("--force",)):
        capsys.readouterr()
        assert run(folder, *options) == 2 and content(folder) == before
        assert "files of a split with other folds" in capsys.readouterr().err


def test_folds_are_refused_where_a_plain_split_is(folder, capsys):
    run(folder)
    before = content(folder)
    assert run(folder, "--folds", "3") == 2 and content(folder) == before
    assert "annotations_train.csv" in capsys.readouterr().err


def test_group_by(folder, capsys):
    assert run(folder, "--group-by", r"/(\d)[6-9]\.png") == 0
    sides = side_of(folder)
    for first in "01":
        assert len({side for path, side in sides.items() if re.search(rf"/{first}[6-9]\.png", path)}) == 1
    assert run(folder, "--group-by", r"/(\d)[6-9]\.png") == 0
    assert "14 groups with --group-by; 18 images do not match it" in capsys.readouterr().out  # 12 alone, 2 of four


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group-by", "("], "unterminated subpattern"),
        (["--group-by", "video"], "with 0 groups, expected a regular expression with one group"),
        (["--group-by", "(a)(b)"], "with 2 groups"),
        (["--group-by", "video(.)"], "found in none of 26 paths such as 'images/00.png'"),
        (["--group-by", "(images)"], "in 1 group(s) that stay together, expected at least 3 groups"),
        (["--val", "0"], "val_share is 0.0"),
        (["--test", "nan"], "test_share nan"),
        (["--folds", "1"], "folds is 1"),
        (["--folds", "-2"], "folds is -2"),
        (["--folds", "30"], "expected at least 31 groups"),
        (["--classes", "nowhere.csv"], "nowhere.csv does not exist"),
    ],
)
def test_mistakes_write_nothing(options, message, folder, capsys):
    assert run(folder, *options) == 2
    assert message in capsys.readouterr().err and content(folder) == {}


def test_bad_images_are_reported_and_stay_in(folder, capsys):
    (folder / "images" / "07.png").write_text("no picture")
    (folder / "images" / "12.png").unlink()
    assert run(folder) == 0
    said = capsys.readouterr()
    assert "07.png: not a readable image" in said.err and "12.png does not exist" in said.err
    assert "2 images cannot be read and were not compared" in said.out and len(side_of(folder)) == 26
    for path in (folder / "images").iterdir():
        path.write_text("nothing")
    assert run(folder) == 2 and "none of 26 image(s) can be read" in capsys.readouterr().err


def test_files_of_another_table_are_not_replaced(folder, capsys):
    (folder / "annotations_test.csv").write_text("elsewhere/mine.jpg,1,1,9,9,mask\n")
    assert run(folder) == 2 and "has none of its images, but elsewhere/mine.jpg" in capsys.readouterr().err
    assert list(content(folder).values()) == [b"elsewhere/mine.jpg,1,1,9,9,mask\n"]
    (folder / "annotations_test.csv").write_text("broken\n")
    assert run(folder) == 2 and "annotations_test.csv line 1" in capsys.readouterr().err


def test_what_would_have_leaked_by_chance():
    """Two images of ten show the same: one of them is in test, the other in train, with 2/10 * 7/9 + 2/10 * 7/9."""
    pairs = np.array([[2, 6]])
    found = by_path(f"{i}.jpg" for i in range(10))._replace(near_pairs=pairs)
    leaked = leaked_by_chance(found, {"train": 0.7, "val": 0.1, "test": 0.2}, range(4000))
    assert set(leaked) == {0, 1} and np.mean(leaked) == pytest.approx(2 * 2 / 10 * 7 / 9, abs=0.03)
    assert leaked_by_chance(by_path("abc"), {"train": 0.4, "val": 0.3, "test": 0.3}, [1]) == [0]


# --- Real data ---


def bits_of(path) -> list[np.ndarray]:
    """The hash as the definition has it, by SciPy's transform: of the image and of its mirror image."""
    from scipy.fft import dctn

    with Image.open(path) as image:
        grey = ImageOps.exif_transpose(image).convert("L")
        grey.load()
    found = []
    for turned in (grey, ImageOps.mirror(grey)):
        lowest = dctn(np.asarray(turned.resize((32, 32), Image.Resampling.LANCZOS), dtype=float), norm="ortho")
        lowest = lowest[:9, :9].ravel()[1:]
        found.append(lowest > np.median(lowest))
    return found


def crossing(tables, folder) -> int:
    """How many pairs of images on different sides differ by at most 12 bits, each compared with each."""
    sides, upright, mirrored = [], [], []
    for name, part in tables.items():
        with ThreadPoolExecutor() as pool:
            for bits in pool.map(bits_of, [folder / path for path in annotations.image_paths(part)]):
                sides.append(name)
                upright.append(bits[0])
                mirrored.append(bits[1])
    sides, upright, mirrored = np.array(sides), np.array(upright), np.array(mirrored)
    found = 0
    for i in range(len(sides)):
        near = ((upright != upright[i]).sum(axis=1) <= 12) | ((mirrored != upright[i]).sum(axis=1) <= 12)
        found += int((near & (sides != sides[i])).sum())
    return found


def report(name, made) -> None:
    count, held, exact = copies_found(made.groups)
    print(
        f"{name}: {len(made.groups.paths)} files, {made.groups.numbers.max() + 1} groups, {count} of copies hold "
        f"{held} files, {exact} exact copies; by chance {np.mean(made.leaked):.1f} leak into test"
    )


def test_praveen_without_copies_across(shared_data, tmp_path):
    source = shared_data / "praveen"
    (tmp_path / "praveen").symlink_to(source)
    table, _ = read("voc", [source], tmp_path)
    table["image_path"] = "praveen/images/" + table["image_path"].str.rsplit("/", n=1).str[-1]
    made = split_beside(tmp_path / "annotations.csv", table, SplitSettings())
    report("praveen", made)
    contents = {path.read_bytes() for path in (source / "images").iterdir()}
    assert copies_found(made.groups)[2] == len(made.groups.paths) - len(contents) > 0
    written = {side: annotations.read_annotations(tmp_path / name) for side, name in zip(SPLITS, NAMES, strict=True)}
    assert sum(len(annotations.image_paths(part)) for part in written.values()) == 550
    assert crossing(written, tmp_path) == 0
    assert np.mean(made.leaked) > 20  # of about 82: the split by chance that everybody makes
    boxes = annotations.objects(table)["class_name"].value_counts()
    for side, share in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        found = annotations.objects(written[side])["class_name"].value_counts()
        assert (abs(found - share * boxes) <= 0.02 * boxes).all()


@pytest.mark.slow
def test_prajnasb_keeps_a_face_with_and_without_its_mask_together(shared_data, tmp_path):
    source = shared_data / "prajnasb"
    rows = []
    for path in sorted(source.glob("*/*.jpg")):
        with Image.open(path) as image:
            rows.append((path.relative_to(source).as_posix(), 0, 0, *image.size, path.parent.name))
    (tmp_path / "with_mask").symlink_to(source / "with_mask")
    (tmp_path / "without_mask").symlink_to(source / "without_mask")
    made = split_beside(tmp_path / "annotations.csv", annotations.make_table(rows), SplitSettings(seed=3))
    report("prajnasb", made)
    assert crossing(made.tables, source) == 0
    classes_of = {}
    for path, group in zip(made.groups.paths, made.groups.numbers.tolist(), strict=True):
        classes_of.setdefault(group, set()).add(path.split("/")[0])
    both = sum(len(classes) == 2 for classes in classes_of.values())
    print(f"prajnasb: {both} of {len(classes_of)} groups hold both classes")
    assert both > 100
    for part, share in zip((made.tables[name] for name in SPLITS), (0.7, 0.15, 0.15), strict=True):
        assert (abs(part["class_name"].value_counts() / len(rows) * 2 - share) < 0.02).all()
