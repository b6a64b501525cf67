"""YOLO folders of Darknet, Ultralytics, labelImg and Roboflow: layouts, class lists, everything that can be wrong."""

import functools

import pytest
import yaml
from format_files import EMPTY, SIZE, actions, draw, rows, save

from retinamask.dataset.annotations import AnnotationError, make_table
from retinamask.dataset.formats import classes_of, read, write_format

read_yolo = functools.partial(read, "yolo")

LINE = "1 0.5 0.5 0.25 0.4\n"  # of 40 x 30 pixels: centre (20, 15), 10 x 12 pixels
BOX = (15, 9, 25, 21)
NAMES = "no_mask\nmask\n"


def assert_one(table, path: str, name: str = "mask") -> None:
    ((found, *box, class_name),) = rows(table)
    assert (found, class_name) == (path, name)
    assert box == pytest.approx(BOX, abs=1e-9)


# --- Layouts ---


def test_labelimg_layout(tmp_path):
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "empty.jpg")
    draw(tmp_path / "none.jpg")
    save(tmp_path / "a.txt", LINE)
    save(tmp_path / "empty.txt", "")
    save(tmp_path / "classes.txt", NAMES)
    save(tmp_path / "README.txt", "hello")
    table, problems = read_yolo([tmp_path], tmp_path)
    assert_one(table[:1], "a.jpg")
    assert rows(table)[1:] == [("empty.jpg", *EMPTY)]
    message = f"{tmp_path}: 1 image(s) without label file left out, such as {tmp_path / 'none.jpg'} (note)"
    assert list(map(str, problems)) == [message]
    table, _ = read_yolo([tmp_path], tmp_path, with_unannotated=True)
    assert rows(table)[1:] == [("empty.jpg", *EMPTY), ("none.jpg", *EMPTY)]
    assert classes_of("yolo", [tmp_path], table) == {"no_mask": 0, "mask": 1}


@pytest.mark.parametrize("names", [["no_mask", "mask"], {0: "no_mask", 1: "mask"}, {"1": "mask", "0": "no_mask"}])
@pytest.mark.parametrize("source", ["", "data.yaml"])
def test_ultralytics_layout(tmp_path, names, source):
    for split in ("train", "val"):
        draw(tmp_path / "images" / split / "a.v1.jpg")
    draw(tmp_path / "images" / "train" / "a.jpg")
    save(tmp_path / "labels" / "train" / "a.v1.txt", LINE)
    save(tmp_path / "data.yaml", yaml.safe_dump({"path": ".", "train": "images/train", "nc": 2, "names": names}))
    table, problems = read_yolo([tmp_path / source], tmp_path)
    assert_one(table, "images/train/a.v1.jpg")
    assert actions(problems) == ["note"]
    assert list(classes_of("yolo", [tmp_path / source], table)) == ["no_mask", "mask"]


@pytest.mark.parametrize("source", ["labels", "labels/train", "labels/train/a.txt"])
def test_a_class_list_above_what_was_named_does_not_count(tmp_path, source):
    draw(tmp_path / "images" / "train" / "a.jpg")
    save(tmp_path / "labels" / "train" / "a.txt", LINE)
    save(tmp_path / "classes.txt", NAMES)
    with pytest.raises(AnnotationError, match="no class list; expected classes.txt, obj.names or data.yaml in one of"):
        read_yolo([tmp_path / source], tmp_path, tmp_path / "images")
    save(tmp_path / "labels" / "train" / "classes.txt", NAMES)
    for images in ("images", "images/train"):
        assert_one(read_yolo([tmp_path / source], tmp_path, tmp_path / images)[0], "images/train/a.jpg")


@pytest.mark.parametrize("train", ["train/images", "../train/images", ["train/images"]])
def test_roboflow_says_one_folder_up_too_much(tmp_path, train):
    """Roboflow's data.yaml has ../train/images, but lies beside train/."""
    draw(tmp_path / "set" / "train" / "images" / "a.jpg")
    save(tmp_path / "set" / "train" / "labels" / "a.txt", LINE)
    save(
        tmp_path / "set" / "data.yaml",
        yaml.safe_dump({"train": train, "val": "../valid/images", "names": ["x", "mask"]}),
    )
    table, problems = read_yolo([tmp_path / "set" / "data.yaml"], tmp_path)
    assert_one(table, "set/train/images/a.jpg")
    assert [problem.message for problem in problems] == ["'../valid/images' does not exist; put it there"]


@pytest.mark.parametrize("source", ["data/obj.data", "data/train.txt", "data"])
def test_darknet_layout(tmp_path, source):
    """Darknet counts paths from where it is started, here from above data/."""
    draw(tmp_path / "data" / "obj" / "a.jpg")
    draw(tmp_path / "data" / "obj" / "b.jpg")
    save(tmp_path / "data" / "obj" / "a.txt", LINE)
    save(tmp_path / "data" / "obj.data", "classes=2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = b/\n")
    save(tmp_path / "data" / "obj.names", NAMES)
    save(tmp_path / "data" / "train.txt", "data/obj/a.jpg\r\ndata/obj/gone.jpg\n")
    table, problems = read_yolo([tmp_path / source], tmp_path)
    assert_one(table, "data/obj/a.jpg")
    messages = [problem.message for problem in problems]
    assert messages == (
        [f"1 image(s) without label file left out, such as {tmp_path / 'data' / 'obj' / 'b.jpg'}"]
        if source == "data"
        else ["'data/obj/gone.jpg' does not exist; put it there"]
    )
    assert list(classes_of("yolo", [tmp_path / source], table)) == ["no_mask", "mask"]


def test_each_folder_may_have_its_own_class_list(tmp_path):
    for name, names in (("one", NAMES), ("two", "mask\nno_mask\n")):
        draw(tmp_path / name / f"{name}.jpg")
        save(tmp_path / name / f"{name}.txt", LINE)
        save(tmp_path / name / "_darknet.labels", names)
    table, problems = read_yolo([tmp_path], tmp_path)
    assert (list(table["class_name"]), problems) == (["mask", "no_mask"], [])


# --- What can be wrong with a line ---

BAD_LINES = {
    "centre beyond 1": ("0 1.2 0.5 0.1 0.1", "found 1.2 0.5 0.1 0.1, expected shares of the image from 0 to 1"),
    "negative": ("0 0.5 -0.1 0.1 0.1", "found 0.5 -0.1 0.1 0.1, expected shares of the image from 0 to 1"),
    "pixels": ("0 20 15 10 12", "found 20 15 10 12, expected shares of the image from 0 to 1; these may be pixels"),
    "four numbers": ("0 0.5 0.5 0.1", "found 4 numbers, expected 5: class, centre x and y, width, height"),
    "a detection": ("0 0.5 0.5 0.1 0.1 0.9", "found 6 numbers, expected 5: class, centre x and y, width, height; with"),
    "an outline": (
        "0 .1 .1 .2 .1 .2 .2 .1 .2",
        "found 9 numbers, expected 5: class, centre x and y, width, height; an",
    ),
    "beyond the list": ("2 0.5 0.5 0.1 0.1", "class 2 is beyond the list of 2 classes (no_mask, mask)"),
    "negative class": ("-1 0.5 0.5 0.1 0.1", "class -1 is beyond the list of 2 classes"),
    "half a class": ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is beyond the list of 2 classes"),
    "a name": ("mask 0.5 0.5 0.1 0.1", "found 'mask', expected a number"),
    "nan": ("0 nan 0.5 0.1 0.1", "found 'nan', expected a number"),
    "inf": ("0 0.5 0.5 0.1 1e999", "found '1e999', expected a number"),
    "no width": ("0 0.5 0.5 0 0.1", "box (20, 13.5, 20, 16.5) is empty or inverted"),
    "under a pixel": ("0 0.5 0.5 0.001 0.1", "box (19.98, 13.5, 20.02, 16.5) is under one pixel"),
    "far outside": ("0 0.05 0.5 0.6 0.1", "box (-10, 13.5, 14, 16.5) lies outside the image of 40 x 30 pixels"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_dropped_and_the_rest_is_kept(tmp_path, line, message):
    draw(tmp_path / "a.jpg")
    path = save(tmp_path / "a.txt", f"\n{line}\r\n{LINE}")
    save(tmp_path / "classes.txt", NAMES)
    table, problems = read_yolo([tmp_path], tmp_path)
    assert_one(table, "a.jpg")
    assert [(problem.action, problem.where) for problem in problems] == [("dropped box", f"{path} line 2")]
    assert problems[0].message.startswith(message)


def test_what_rounding_puts_outside_is_clipped_silently(tmp_path):
    draw(tmp_path / "a.jpg", (4000, 3000))
    save(tmp_path / "a.txt", "0 0.1250003 0.5 0.2500008 1.0000004\n0 0.125 0.5 0.2515 0.5\n")
    save(tmp_path / "classes.txt", NAMES)
    table, problems = read_yolo([tmp_path], tmp_path)
    assert table["x1"].tolist() == [0, 0] and table["y1"][0] == 0 and table["y2"][0] == 3000
    assert [problem.message for problem in problems] == [
        "box (-3, 750, 1003, 2250) reaches 3 px past the image of 4000 x 3000 pixels"
    ]


# --- What can be wrong with files and lists ---


def two(tmp_path):
    """A sound pair beside one that is to be bad."""
    for name in ("good", "bad"):
        draw(tmp_path / name / f"{name}.jpg")
        save(tmp_path / name / f"{name}.txt", LINE)
    save(tmp_path / "good" / "classes.txt", NAMES)
    return tmp_path / "bad"


BAD_LISTS = {
    "none": ({}, "no class list; expected classes.txt, obj.names or data.yaml in one of"),
    "not yaml": ({"data.yaml": "names: [a\n"}, "not readable as YAML"),
    "nested yaml": ({"data.yaml": "names: " + "[" * 5000}, "not readable as YAML"),
    "ids with a gap": ({"data.yaml": "names: {0: a, 2: b}"}, "ids of names are 0, 2, expected 0, 1, 2, ... each once"),
    "a text": ({"data.yaml": "names: mask"}, "names is 'mask', expected a list of class names"),
    "objects": ({"data.yaml": "names: [{a: b}]"}, "expected a list of class names"),
    "code": ({"data.yaml": "names: !!python/object/apply:os.system [ls]"}, "not readable as YAML"),
    "two lists": ({"classes.txt": NAMES, "obj.names": "mask\nno_mask\n"}, "class lists disagree, keep one"),
    "binary": ({"classes.txt": b"\xff\xfe\x00"}, "not UTF-8 text"),
}


@pytest.mark.parametrize(("files", "message"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_bad_class_list_is_reported_and_the_rest_is_kept(tmp_path, files, message):
    bad = two(tmp_path)
    for name, content in files.items():
        save(bad / name, content)
    table, problems = read_yolo([tmp_path], tmp_path)
    assert_one(table, "good/good.jpg")
    assert [(problem.action, problem.where) for problem in problems] == [("skipped file", str(bad / "bad.txt"))]
    assert message in problems[0].message


def test_a_bad_label_file_is_reported_and_the_rest_is_kept(tmp_path):
    bad = two(tmp_path)
    save(bad / "bad.txt", b"\x00\xff")
    save(bad / "lonely.txt", LINE)
    save(bad / "classes.txt", NAMES)
    table, problems = read_yolo([tmp_path], tmp_path, with_unannotated=True)
    assert_one(table, "good/good.jpg")
    assert [problem.where for problem in problems] == [str(bad / "bad.txt"), str(bad / "lonely.txt")]
    assert "not UTF-8 text" in problems[0].message
    assert problems[1].message.startswith("no image named 'lonely' with an image's ending in")


def test_an_empty_class_list(tmp_path):
    bad = two(tmp_path)
    save(bad / "classes.txt", "\n\n")
    _, problems = read_yolo([tmp_path], tmp_path)
    assert problems[0].message.startswith("class 1 is beyond the list of 1 classes")
    save(bad / "bad.txt", "0 0.5 0.5 0.1 0.1")
    _, problems = read_yolo([tmp_path], tmp_path)
    assert problems[0].message == "object without a class name"


def test_likely_slips_in_the_list(tmp_path):
    draw(tmp_path / "a.jpg")
    save(tmp_path / "a.txt", "".join(f"{number} 0.5 0.5 0.5 0.5\n" for number in range(4)))
    save(tmp_path / "classes.txt", "noMask\nnomask\nnomask \nmask\n")
    table, problems = read_yolo([tmp_path], tmp_path)
    assert list(table["class_name"]) == ["noMask", "nomask", "nomask", "mask"]
    assert [problem.message for problem in problems] == [
        "class 'nomask' stands in the class list 2 times; these are taken as one",
        "classes 'noMask' and 'nomask' differ only in case or white space, probably a slip; "
        "a class map makes them one: nomask=noMask",
    ]


def test_nothing_to_read(tmp_path):
    save(tmp_path / "classes.txt", NAMES)
    with pytest.raises(AnnotationError, match="no label file below .*; expected YOLO's .txt files, one an image"):
        read_yolo([tmp_path], tmp_path)
    with pytest.raises(AnnotationError, match="none does not exist; expected YOLO's .txt files, one an image"):
        read_yolo([tmp_path / "none"], tmp_path)
    save(tmp_path / "a.txt", LINE)
    with pytest.raises(AnnotationError, match=r"none of the 1 label file\(s\) could be used:\n.*no image named 'a'"):
        read_yolo([tmp_path], tmp_path)


# --- Writing ---

CLASSES = {"no_mask": 0, "mask": 1, "unused": 2}


def dataset(tmp_path):
    """Two folders with an image of the same name, and two images that differ only in the extension."""
    for name in ("one/a.jpg", "two/a.jpg", "two/a.png", "two/empty.jpg"):
        draw(tmp_path / "images" / name)
    table = [("images/one/a.jpg", *BOX, "mask"), ("images/two/a.jpg", 0, 0, *SIZE, "no_mask")]
    return make_table([*table, ("images/two/a.png", 1, 2, 3, 4, "mask"), ("images/two/empty.jpg", *EMPTY)])


@pytest.mark.parametrize("images", ["link", "copy"])
@pytest.mark.parametrize("source", ["", "obj.data", "data.yaml", "train.txt"])
def test_there_and_back(tmp_path, images, source):
    table = dataset(tmp_path)
    write_format(table, CLASSES, "yolo", tmp_path / "yolo", tmp_path, images=images)
    folder = tmp_path / "yolo"
    if images == "copy":
        (tmp_path / "images").rename(tmp_path / "moved away")
    back, problems = read("yolo", [folder / source], folder / "obj_train_data")
    assert problems == []
    assert list(classes_of("yolo", [folder / source], back)) == list(CLASSES)
    assert list(back["image_path"]) == ["one/a.jpg", "two/a_jpg.jpg", "two/a_png.png", "two/empty.jpg"]
    assert rows(back)[3][1:] == EMPTY
    for found, expected in zip(rows(back)[:3], rows(table)[:3], strict=True):
        assert found[5] == expected[5] and found[1:5] == pytest.approx(expected[1:5], abs=1e-6)


def test_without_images_the_list_leads_to_where_they_are(tmp_path):
    table = dataset(tmp_path)
    with pytest.raises(AnnotationError, match=r"a\.jpg: another image differs only in the extension"):
        write_format(table, CLASSES, "yolo", tmp_path / "yolo", tmp_path, images="none")
    assert not (tmp_path / "yolo").exists()
    table = table[table["image_path"] != "images/two/a.png"]
    (tmp_path / "images" / "two" / "a.png").unlink()
    write_format(table, CLASSES, "yolo", tmp_path / "yolo", tmp_path, images="none")
    listed = (tmp_path / "yolo" / "train.txt").read_text().split()
    assert listed == ["../images/one/a.jpg", "../images/two/a.jpg", "../images/two/empty.jpg"]
    back, problems = read_yolo([tmp_path / "yolo"], tmp_path, image_folder=tmp_path / "images")
    assert (list(back["image_path"]), problems) == (list(table["image_path"]), [])


def test_what_cannot_be_written(tmp_path):
    table = dataset(tmp_path)
    for classes, message in (
        ({"mask": 0}, "class 'no_mask' is not among the classes"),
        ({**CLASSES, "a\nb": 3}, r"found the name 'a\\nb', expected names without line ends"),
        ({**CLASSES, " a": 3}, "white space around"),
    ):
        with pytest.raises(AnnotationError, match=message):
            write_format(table, classes, "yolo", tmp_path / "yolo", tmp_path)
    with pytest.raises(AnnotationError, match="images is 'move', expected one of: link, copy, none"):
        write_format(table, CLASSES, "yolo", tmp_path / "yolo", tmp_path, images="move")
    with pytest.raises(AnnotationError, match=r"gone\.jpg does not exist"):
        write_format(make_table([("gone.jpg", *BOX, "mask")]), CLASSES, "yolo", tmp_path / "yolo", tmp_path)
    with pytest.raises(AnnotationError, match="a box reaches past the image of 40 x 30 pixels"):
        write_format(
            make_table([("images/one/a.jpg", 0, 0, 41, 30, "mask")]), CLASSES, "yolo", tmp_path / "yolo", tmp_path
        )
    assert not (tmp_path / "yolo").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_is_replaced(tmp_path, kind):
    table = dataset(tmp_path)
    mine = save(tmp_path / "yolo" if kind == "file" else tmp_path / "yolo" / "mine.txt", "mine")
    with pytest.raises(ValueError, match="exists; expected a new or empty folder"):
        write_format(table, CLASSES, "yolo", tmp_path / "yolo", tmp_path)
    assert mine.read_text() == "mine" and sorted(path.name for path in tmp_path.iterdir()) == ["images", "yolo"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    table = dataset(tmp_path)
    (tmp_path / "yolo").mkdir()
    monkeypatch.setattr("shutil.copyfile", fail)
    with pytest.raises(AnnotationError, match="No space left on device"):
        write_format(table, CLASSES, "yolo", tmp_path / "yolo", tmp_path, images="copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "yolo"]
    assert list((tmp_path / "yolo").iterdir()) == []
    monkeypatch.undo()
    write_format(table, CLASSES, "yolo", tmp_path / "yolo", tmp_path, images="copy")
    assert (tmp_path / "yolo" / "data.yaml").is_file()


def test_an_image_called_classes_keeps_its_boxes(tmp_path):
    draw(tmp_path / "images" / "classes.jpg")
    table = make_table([("images/classes.jpg", *BOX, "mask")])
    write_format(table, CLASSES, "yolo", tmp_path / "yolo", tmp_path, images="copy")
    back, problems = read("yolo", [tmp_path / "yolo"], tmp_path)
    assert problems == [] and len(back) == 1 and back["class_name"][0] == "mask"
    with pytest.raises(AnnotationError, match="its label file would be classes.txt"):
        write_format(table, CLASSES, "yolo", tmp_path / "more", tmp_path, images="none")
