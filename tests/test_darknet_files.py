"""The folder that Darknet trains in, and its check."""

import re

import cv2
import numpy as np
import pandas as pd
import pytest
from format_files import EMPTY, draw, rows, save

from retinamask.cli import main
from retinamask.dataset import annotations
from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats import classes_of, read
from retinamask.dataset.formats.writing import Picture
from retinamask.dataset.splits import SPLITS
from retinamask.detectors.darknet import cfg
from retinamask.detectors.darknet.folder import FolderSettings, folder_problems, network_sizes, write_folder

# --- The folder ---


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The tiny scenes as a folder for Darknet, and what is said about it."""
    out = tmp_path_factory.mktemp("darknet") / "new"
    settings = FolderSettings(image_size=96, anchors="kmeans", images="copy", seed=2)
    return out, write_folder(tiny / "annotations.csv", tiny / "classes.csv", out, settings)


def boxes_of(table, image_path: str) -> list[tuple]:
    """Boxes with their classes, from left to right."""
    found = annotations.objects(annotations.of_images(table, [image_path]))
    return sorted((row[1:] for row in rows(found)), key=lambda row: [round(edge) for edge in row[:4]])


def listed(folder, name: str) -> list[str]:
    return (folder / f"{name}.txt").read_text().split()


def test_everything_that_darknet_expects(folder):
    out, made = folder
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        "backup",
        "obj",
        "obj.data",
        "obj.names",
        "test.txt",
        "train.txt",
        "val.txt",
        "yolov4-tiny-custom.cfg",
    ]
    assert (out / "obj.data").read_text() == (
        "classes = 2\ntrain = train.txt\nvalid = val.txt\nnames = obj.names\nbackup = backup\n"
    )
    assert (out / "obj.names").read_text().split() == list(made.classes)
    network = cfg.describe(cfg.read(made.cfg), "cfg", class_count=2)
    assert network.image_size == 96 and (network.heads[0].all_anchors_wh == made.anchors_wh).all()
    assert made.overlap > made.published_overlap and made.max_batches == 6000
    assert folder_problems(out / "obj.data", made.cfg) == []


def test_no_image_is_on_two_sides(folder):
    out, made = folder
    lists = {side: listed(out, side) for side in SPLITS}
    everything = [name for names in lists.values() for name in names]
    assert len(everything) == len(set(everything)) == 12
    assert made.images == {side: len(names) for side, names in lists.items()}
    for name in everything:  # nothing but letters before the one dot: what Darknet's search for label files needs
        assert name.count(".") == 1 and (out / name).is_file() and (out / name).with_suffix(".txt").is_file()


def test_our_reader_gives_the_same_boxes_back(folder, tiny):
    out, made = folder
    for source in (out, out / "obj.data"):
        back, problems = read("yolo", [source], out)
        assert problems == [] and classes_of("yolo", [source], back) == made.classes
    back, _ = read("yolo", [out], out)
    table = annotations.read_annotations(tiny / "annotations.csv")
    assert len(annotations.image_paths(back)) == 12
    for path in annotations.image_paths(table):
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        found, expected = boxes_of(back, f"obj/{stem}.jpg"), boxes_of(table, path)
        assert [row[4] for row in found] == [row[4] for row in expected]
        np.testing.assert_allclose([row[:4] for row in found], [row[:4] for row in expected], atol=1e-5)


def test_boxes_as_darknet_sees_them(tmp_path):
    """Half of an image's width is half of the network's, whatever the image's shape."""
    pictures = [
        Picture(tmp_path / "a", (40, 30), np.array([[0, 0, 20, 10.0], [4, 3, 8, 6]]), ["x", "x"]),
        Picture(tmp_path / "b", (40, 30), np.empty((0, 4)), []),
    ]
    np.testing.assert_allclose(network_sizes(pictures, 320), [[160, 320 / 3], [32, 32]])
    assert network_sizes([], 320).shape == (0, 2)


def test_copies_stay_together_and_a_split_beside_the_table_counts(tiny, tmp_path):
    for name in ("annotations.csv", "classes.csv"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    table = annotations.moved(annotations.read_annotations(tiny / "annotations.csv"), tiny, tmp_path)
    first = annotations.of_images(table, annotations.image_paths(table)[:1])
    (tmp_path / "copy.jpg").write_bytes((tmp_path / annotations.image_paths(first)[0]).read_bytes())
    table = pd.concat([table, first.assign(image_path="copy.jpg")], ignore_index=True)
    annotations.write_annotations(table, tmp_path / "annotations.csv")
    stem = annotations.image_paths(first)[0].rsplit("/", 1)[-1]
    for seed in range(3):
        out = tmp_path / f"out{seed}"
        arguments = [tmp_path / "annotations.csv", tmp_path / "classes.csv", out]
        write_folder(*arguments, FolderSettings(image_size=96, seed=seed))
        sides = [side for side in SPLITS for name in listed(out, side) if name.endswith(("copy.jpg", f"_{stem}"))]
        assert len(sides) == 2 and len(set(sides)) == 1
    assert main(["split", str(tmp_path / "annotations.csv"), "--seed", "9"]) == 0
    write_folder(*arguments[:2], tmp_path / "beside", FolderSettings(image_size=96, seed=1))
    for side in SPLITS:
        table = annotations.read_annotations(tmp_path / f"annotations_{side}.csv")
        ends = [path.rsplit("/", 1)[-1] for path in annotations.image_paths(table)]
        names = listed(tmp_path / "beside", side)
        assert len(names) == len(ends) and all(name.endswith(tuple(ends)) for name in names)


@pytest.fixture
def odd(tmp_path):
    """Names that would lead Darknet to the wrong label file, in folders that it would look past."""
    names = [
        "one/images/a.jpg",
        "two/images/a.jpg",
        "two/images/a.png",
        "x.jpg.y.jpg",
        "classes.jpg",
        "B.JPEG",
        "c.jpg",
    ]
    colours = np.random.default_rng(0).integers(0, 256, (len(names), 6, 8, 3), dtype=np.uint8)
    table = []
    for index, (name, points) in enumerate(zip(names, colours, strict=True)):
        path = draw(tmp_path / name)
        cv2.imwrite(str(path), cv2.resize(points, (40, 30)))
        box = EMPTY if index == 2 else (index, 2, index + 9 + index % 3, 14, ("mask", "no mask")[index % 2])
        table.append((name, *box))
    annotations.write_annotations(annotations.make_table(table), tmp_path / "annotations.csv")
    for side, part in zip(SPLITS, (table[2:], table[:1], table[1:2]), strict=True):
        annotations.write_annotations(annotations.make_table(part), tmp_path / f"annotations_{side}.csv")
    annotations.write_classes({"no mask": 0, "mask": 1, "unused": 2}, tmp_path / "classes.csv")
    return tmp_path


@pytest.mark.parametrize("images", ["link", "copy"])
def test_odd_names_find_their_label_files(odd, images):
    made = write_folder(
        odd / "annotations.csv", odd / "classes.csv", odd / "out", FolderSettings(levels=3, images=images)
    )
    names = sorted(path.name for path in (odd / "out" / "obj").iterdir() if path.suffix != ".txt")
    assert names == sorted(
        ["one_images_a.jpg", "two_images_a_jpg.jpg", "two_images_a_png.png", "x_jpg_y.jpg", "classes_.jpg"]
        + ["B.jpeg", "c.jpg"]
    )
    assert {path.is_symlink() for path in (odd / "out" / "obj").glob("*.jpg")} == {images == "link"}
    back, problems = read("yolo", [odd / "out"], odd / "out")
    assert problems == [] and list(classes_of("yolo", [odd / "out"], back)) == ["no mask", "mask", "unused"]
    by_name = {row[0].rsplit("/", 1)[-1]: row for row in rows(back)}
    assert by_name["two_images_a_png.png"][1:] == EMPTY
    assert by_name["x_jpg_y.jpg"][1:5] == pytest.approx((3, 2, 12, 14), abs=1e-6)
    assert by_name["two_images_a_jpg.jpg"][1:5] == pytest.approx((1, 2, 11, 14), abs=1e-6)
    assert len(cfg.describe(cfg.read(made.cfg), class_count=3).heads) == 3


def test_what_cannot_be_written_leaves_nothing(odd, tmp_path, capsys):
    table, classes = odd / "annotations.csv", odd / "classes.csv"
    before = sorted(path.name for path in odd.iterdir())
    for changes, message in (
        ({"anchors": "mine"}, "anchors is 'mine', expected published or kmeans"),
        ({"images": "none"}, "images is 'none', expected link or copy"),
        ({"image_size": 100}, "image_size is 100, expected a multiple of 32"),
        ({"anchors": "kmeans", "levels": 3}, r"different box size\(s\), expected at least 9 for as many anchors"),
    ):
        with pytest.raises(ValueError, match=message):
            write_folder(table, classes, odd / "out", FolderSettings(**changes))
    annotations.write_classes({"mask": 0}, tmp_path / "few.csv")
    before.append("few.csv")
    with pytest.raises(AnnotationError, match="class 'no mask' is not among the classes"):
        write_folder(table, tmp_path / "few.csv", odd / "out", FolderSettings())
    cv2.imwrite(str(odd / "d.webp"), np.zeros((30, 40, 3), np.uint8))
    for path in (table, odd / "annotations_train.csv"):
        path.write_text(path.read_text() + "d.webp,1,1,20,20,mask\n")
    with pytest.raises(AnnotationError, match=r"d\.webp: Darknet finds label files only for \.jpg"):
        write_folder(table, classes, odd / "out", FolderSettings())
    assert sorted(path.name for path in odd.iterdir()) == sorted([*before, "d.webp"])


def test_an_existing_folder_is_left_alone(odd, capsys):
    mine = save(odd / "out" / "mine.txt", "mine")
    arguments = [str(odd / name) for name in ("annotations.csv", "classes.csv")]
    assert main(["darknet-files", *arguments, "--out", str(odd / "out")]) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err and mine.read_text() == "mine"


@pytest.mark.slow
def test_a_real_data_set(shared_data, tmp_path, monkeypatch):
    """What labelImg wrote for 550 photographs, there and back, with anchors that fit much better."""
    monkeypatch.chdir(tmp_path)
    assert main(["annotations", str(shared_data / "praveen")]) == 0
    made = write_folder("annotations.csv", "classes.csv", tmp_path / "out", FolderSettings(anchors="kmeans"))
    assert sum(made.images.values()) == 550 and folder_problems(tmp_path / "out" / DATA, made.cfg) == []
    assert made.published_overlap < 0.65 < 0.75 < made.overlap
    table, (back, _) = annotations.read_annotations("annotations.csv"), read("yolo", [tmp_path / "out"], tmp_path)
    for path in annotations.image_paths(table):
        found, expected = boxes_of(back, f"out/obj/{path.rsplit('/', 1)[-1]}"), boxes_of(table, path)
        np.testing.assert_allclose([row[:4] for row in found], [row[:4] for row in expected], atol=1e-4)


# --- The check ---


def test_the_commands(odd, capsys):
    arguments = [str(odd / name) for name in ("annotations.csv", "classes.csv")]
    assert main(["darknet-files", *arguments, "--out", str(odd / "out"), "--images", "copy"]) == 0
    said = capsys.readouterr().out
    assert "darknet detector train obj.data yolov4-tiny-custom.cfg yolov4-tiny.conv.29 -map" in said
    assert "/AlexeyAB/darknet/releases/download/darknet_yolo_v4_pre/yolov4-tiny.conv.29 there" in said
    assert "6000 updates" in said and "images: 5 train, 1 val, 1 test" in said
    check = ["darknet-check", str(odd / "out" / "obj.data"), str(odd / "out" / "yolov4-tiny-custom.cfg")]
    assert main(check) == 0 and "every listed image has a sound label file" in capsys.readouterr().out
    (odd / "out" / "obj.names").write_text("mask\n")
    assert main(check) == 2
    assert "obj.names: 1 name(s), expected 3 as classes = 3 in" in capsys.readouterr().err


def spoil(out, name: str, old: str, new: str) -> None:
    text = (out / name).read_text()
    assert old in text
    (out / name).write_text(text.replace(old, new, 1))


CFG, DATA = "yolov4-tiny-custom.cfg", "obj.data"
WRONG = {
    "filters": (CFG, "filters=24", "filters=255", "has filters=255, expected .* = 24; write filters=24"),
    "classes of the cfg": (CFG, "classes=3", "classes=80", "classes=80, expected classes=3"),
    "side": (CFG, "width=416", "width=420", r"width=420 .*expected"),
    "classes": (DATA, "classes = 3", "classes = 4", r"obj\.names: 3 name\(s\), expected 4 as classes = 4"),
    "no number": (DATA, "classes = 3", "classes = three", "classes is 'three', expected a whole number above 0"),
    "nothing": (DATA, "classes = 3\n", "", "no classes; expected a line such as classes = ..."),
    "no names": (DATA, "obj.names", "gone.names", r"names is gone\.names, expected a file that is there"),
    "no list": (DATA, "val.txt", "gone.txt", r"valid is gone\.txt, which does not exist"),
    "the same list": (DATA, "val.txt", "train.txt", "5 image.s. are in train and in valid"),
    "gone image": ("train.txt", "obj/", "obj/gone_", "does not exist; put it there"),
    "class of a box": ("obj/c.txt", "1 0.", "3 0.", "class 3 is beyond the list of 3 classes"),
    "pixels": ("obj/c.txt", " 0.", " 20.", "expected shares of the image from 0 to 1"),
}


@pytest.mark.parametrize(("name", "old", "new", "message"), WRONG.values(), ids=WRONG)
def test_what_the_check_finds(odd, name, old, new, message):
    write_folder(odd / "annotations.csv", odd / "classes.csv", odd / "out", FolderSettings())
    spoil(odd / "out", name, old, new)
    found = "\n".join(folder_problems(odd / "out" / DATA, odd / "out" / CFG))
    assert re.search(message, found), found


def test_a_folder_without_validation_images_is_sound(odd):
    """An empty entry is none: it does not lead to the folder, in which the training images are too."""
    write_folder(odd / "annotations.csv", odd / "classes.csv", odd / "out", FolderSettings())
    spoil(odd / "out", DATA, "valid = val.txt", "valid =")
    assert folder_problems(odd / "out" / DATA, odd / "out" / CFG) == []
