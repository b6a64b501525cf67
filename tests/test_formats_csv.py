"""keras-retinanet's CSV and Open Images' CSV as sources, and class folders."""

import functools

import pytest
from format_files import EMPTY, actions, draw, rows, save

from retinamask.dataset.annotations import AnnotationError, make_table, read_annotations
from retinamask.dataset.formats import classes_of, read, write_format

read_csv = functools.partial(read, "csv")
read_open_images = functools.partial(read, "open_images")
read_class_folders = functools.partial(read, "class_folders")

# --- keras-retinanet's CSV ---


def test_csv_with_its_images(tmp_path):
    draw(tmp_path / "images" / "a.jpg")
    draw(tmp_path / "images" / "b.jpg")
    draw(tmp_path / "images" / "beside.jpg")
    draw(tmp_path / "runs" / "plot.png")  # not below the images: nobody's business
    save(tmp_path / "data" / "annotations.csv", "../images/b.jpg,5,6,20,25,mask\n../images/a.jpg,,,,,\ngone.jpg,,,,,\n")
    save(tmp_path / "data" / "classes.csv", "no_mask,0\nmask,1\n")
    table, problems = read_csv([tmp_path / "data"], tmp_path)
    assert rows(table) == [("images/b.jpg", 5, 6, 20, 25, "mask"), ("images/a.jpg", *EMPTY)]
    assert actions(problems) == ["skipped file", "note"]
    assert problems[0].message.startswith("no image named 'gone.jpg' in")
    assert problems[1].message == f"1 image(s) without CSV row left out, such as {tmp_path / 'images' / 'beside.jpg'}"
    assert classes_of("csv", [tmp_path / "data"], table) == {"no_mask": 0, "mask": 1}


def test_csv_from_another_computer_with_the_folder_of_the_images(tmp_path):
    draw(tmp_path / "images" / "a.jpg")
    save(tmp_path / "a.csv", "C:\\data\\a.jpg,5,6,42,25,mask\nC:\\data\\a.jpg,50,6,60,25,mask\n")
    table, problems = read_csv([tmp_path / "a.csv"], tmp_path, tmp_path / "images")
    assert rows(table) == [("images/a.jpg", 5, 6, 40, 25, "mask")]
    assert actions(problems) == ["clipped box", "dropped box"]


def test_a_csv_with_bad_rows_is_left_out(tmp_path):
    draw(tmp_path / "a.jpg")
    save(tmp_path / "good.csv", "a.jpg,5,6,20,25,mask\n")
    bad = save(tmp_path / "bad.csv", "a.jpg,5,6,20,25,mask\na.jpg,9,6,5,25,mask\n")
    table, problems = read_csv([tmp_path], tmp_path, classes={"mask": 0})
    assert rows(table) == [("a.jpg", 5, 6, 20, 25, "mask")]
    assert [(problem.action, problem.where) for problem in problems] == [("skipped file", str(bad))]
    assert "x2 (5) must exceed x1 (9) in a.jpg" in problems[0].message
    with pytest.raises(AnnotationError, match="line 2: x2"):
        read_csv([bad], tmp_path)
    with pytest.raises(AnnotationError, match="no CSV file below"):
        read_csv([(tmp_path / "a.jpg").parent / "empty"] if (tmp_path / "empty").mkdir() else [tmp_path / "empty"], ".")


def test_csv_there_and_back(tmp_path):
    draw(tmp_path / "images" / "a.jpg")
    table = make_table([("images/a.jpg", 4.6, 6, 20, 25.5, "mask")])
    classes = {"no_mask": 0, "mask": 1}
    write_format(table, classes, "csv", tmp_path / "new" / "csv", tmp_path)
    expected = [("../../images/a.jpg", 5, 6, 20, 26, "mask")]
    assert rows(read_annotations(tmp_path / "new" / "csv" / "annotations.csv")) == expected
    back, problems = read_csv([tmp_path / "new" / "csv"], tmp_path)
    assert (rows(back), problems) == ([("images/a.jpg", 5, 6, 20, 26, "mask")], [])
    assert classes_of("csv", [tmp_path / "new" / "csv"], back) == classes


# --- Open Images ---

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)


def box(edges: str, image: str = "0a1b", label: str = "/m/0dzct", group: int = 0) -> str:
    return f"{image},xclick,{label},1,{edges},0,0,{group},0,0\n"


GOOD_ROW = box("0.25,0.5,0.2,0.8")  # XMin,XMax,YMin,YMax of 40 x 30
GOOD_BOX = (10, 6, 20, 24)


@pytest.fixture
def open_images(tmp_path):
    draw(tmp_path / "images" / "0a1b.jpg")
    save(tmp_path / "class-descriptions-boxable.csv", "/m/0dzct,Human face\n/m/01g317,Person\n")
    return tmp_path


@pytest.mark.parametrize("source", ["", "boxes.csv"])
@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n"])
def test_open_images(open_images, source, header):
    descriptions = open_images / "class-descriptions-boxable.csv"
    descriptions.write_text(header + descriptions.read_text())
    save(open_images / "boxes.csv", HEADER + GOOD_ROW + box("0,1,0,1", label="/m/new"))
    images = open_images / "images"
    table, problems = read_open_images([open_images / source], open_images, images)
    names = [("images/0a1b.jpg", *GOOD_BOX, "Human face"), ("images/0a1b.jpg", 0, 0, 40, 30, "/m/new")]
    assert (rows(table), problems) == (names, [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (box("0.25,0.5,0.2,0.8", group=1), "a group of objects (IsGroupOf), not one object"),
        (box("0.25,1.5,0.2,0.8"), "XMin, YMin, XMax, YMax are 0.25, 0.2, 1.5, 0.8, expected numbers from 0 to 1"),
        (box("0.5,0.25,0.2,0.8"), "XMin, YMin, XMax, YMax are 0.5, 0.2, 0.25, 0.8, expected"),
        (box("nan,0.25,0.2,0.8"), "XMin, YMin, XMax, YMax are nan, 0.2"),
        (box(",0.25,0.2,0.8"), "XMin, YMin, XMax, YMax are , 0.2"),
        (box("0.25,0.5,0.2,0.8", label=""), "object without a class name"),
        (box("0.25,0.5,0.2,0.8", label="/m/01g317"), "class 'Person' is not among the classes (Human face)"),
    ],
)
def test_a_bad_row_is_dropped_and_the_rest_is_kept(open_images, row, message):
    path = save(open_images / "boxes.csv", HEADER + GOOD_ROW + row + GOOD_ROW)
    table, problems = read_open_images([open_images], open_images, classes={"Human face": 0})
    assert rows(table) == [("images/0a1b.jpg", *GOOD_BOX, "Human face")] * 2
    assert [(problem.action, problem.where) for problem in problems] == [("dropped box", f"{path} line 3")]
    assert problems[0].message.startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: found '', expected a header with ImageID,LabelName,XMin,XMax,YMin,YMax"),
        ("a,b\n1,2\n", "line 1: found 'a,b', expected a header"),
        (HEADER + "0a1b,x\n", "line 2: found 2 columns, expected the 13 of the header"),
        (HEADER.encode() + b"\xff\xff", "not UTF-8 text"),
        (HEADER + '"', "line 2: not readable as CSV"),
    ],
)
def test_a_bad_csv_is_left_out(open_images, content, message):
    bad = save(open_images / "bad.csv", content)
    save(open_images / "boxes.csv", HEADER + GOOD_ROW + box("0,1,0,1", image="gone"))
    table, problems = read_open_images([open_images], open_images)
    assert rows(table) == [("images/0a1b.jpg", *GOOD_BOX, "Human face")]
    assert [problem.where for problem in problems] == [str(bad), f"{open_images / 'boxes.csv'} image 'gone'"]
    assert problems[0].message.startswith(message)


def test_bad_descriptions_leave_the_labels(open_images):
    save(open_images / "class-descriptions-boxable.csv", "a,b,c\n")
    save(open_images / "boxes.csv", HEADER + GOOD_ROW)
    table, problems = read_open_images([open_images], open_images)
    assert list(table["class_name"]) == ["/m/0dzct"]
    assert problems[0].message == "line 1: found 3 columns, expected 2: label,name"
    with pytest.raises(AnnotationError, match="expected boxes of Open Images"):
        read_open_images([open_images / "images"], open_images)


# --- Class folders ---


def test_class_folders(tmp_path):
    for name in ("train/with_mask/a.jpg", "train/without_mask/b.jpg", "val/with_mask/c.png", "preview.jpg"):
        draw(tmp_path / name)
    save(tmp_path / "val" / "with_mask" / "broken.png", b"")
    table, problems = read_class_folders([tmp_path], tmp_path)
    assert rows(table) == [
        ("train/with_mask/a.jpg", 0, 0, 40, 30, "with_mask"),
        ("train/without_mask/b.jpg", 0, 0, 40, 30, "without_mask"),
        ("val/with_mask/c.png", 0, 0, 40, 30, "with_mask"),
    ]
    assert [(problem.action, problem.where) for problem in problems] == [
        ("note", str(tmp_path)),
        ("skipped file", str(tmp_path / "val" / "with_mask" / "broken.png")),
    ]
    assert problems[0].message == (
        "images beside folders with images, so that their own folder is no class; 1 image(s) left out"
    )
    assert classes_of("class_folders", [tmp_path], table) == {"with_mask": 0, "without_mask": 1}


def test_class_folders_themselves_as_sources(tmp_path, monkeypatch):
    for name in ("with_mask/a.jpg", "without_mask/b.jpg", "other/c.jpg"):
        draw(tmp_path / name)
    table, problems = read_class_folders([tmp_path / "without_mask", tmp_path / "with_mask"], tmp_path)
    assert (list(table["class_name"]), problems) == (["with_mask", "without_mask"], [])
    monkeypatch.chdir(tmp_path / "with_mask")
    assert list(read_class_folders(["."], ".")[0]["class_name"]) == ["with_mask"]


def test_folders_of_other_names_are_left_out(tmp_path):
    for name in ("mask/a.jpg", "Mask/b.jpg", "none/c.jpg"):
        draw(tmp_path / name)
    table, problems = read_class_folders([tmp_path], tmp_path, classes={"mask": 0, "Mask": 1})
    assert set(table["class_name"]) == {"mask", "Mask"}
    assert problems[0].message == (
        "class 'none' is not among the classes (mask, Mask); add it or rename the folder; 1 image(s) left out"
    )
    assert "classes 'mask' and 'Mask' differ only in case" in problems[1].message


def test_no_class_folders(tmp_path):
    with pytest.raises(AnnotationError, match="none does not exist; expected a folder of class folders"):
        read_class_folders([tmp_path / "none"], tmp_path)
    with pytest.raises(AnnotationError, match="no image below .*; expected a folder of class folders"):
        read_class_folders([tmp_path], tmp_path)
    with pytest.raises(AnnotationError, match="hold their images themselves"):
        read_class_folders([tmp_path], tmp_path, image_folder=tmp_path)


def test_real_class_folders(shared_data):
    folder = shared_data / "prajnasb"
    if not folder.is_dir():
        pytest.skip("prajnasb is not there")
    table, problems = read_class_folders([folder], folder)
    counts = table["class_name"].value_counts()
    files = {name: sum(path.is_file() for path in (folder / name).iterdir()) for name in counts.index}
    skipped = sum(problem.action == "skipped file" for problem in problems)
    assert counts.sum() + skipped == sum(files.values()) and skipped <= 2
