"""CreateML JSON as labelImg writes it: everything that can be wrong with it, and the way back."""

import functools
import json

import pytest
from format_files import EMPTY, actions, draw, rows, save

from retinamask.dataset.annotations import AnnotationError, make_table
from retinamask.dataset.formats import classes_of, read, write_format

read_createml = functools.partial(read, "createml")

PLACE = {"x": 12.5, "y": 15.5, "width": 15, "height": 19}
BOX = (5, 6, 20, 25)
GOOD = {"label": "mask", "coordinates": PLACE}


def entry(*annotations, image="a.jpg") -> dict:
    return {"image": image, "annotations": list(annotations)}


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "a.jpg")
    return tmp_path


def read_entries(folder, *entries):
    save(folder / "c.json", list(entries))
    return read_createml([folder], folder)


def test_boxes_and_images_without_objects(folder):
    draw(folder / "deep" / "b.png")
    table, problems = read_entries(folder, entry(image="deep/b.png"), entry(GOOD, GOOD | {"label": " no mask "}))
    assert rows(table) == [("a.jpg", *BOX, "mask"), ("a.jpg", *BOX, "no mask"), ("deep/b.png", *EMPTY)]
    assert problems == []


BAD_ANNOTATIONS = {
    "no label": ({"coordinates": PLACE}, "found no 'label', expected a text"),
    "empty label": ({"label": " ", "coordinates": PLACE}, "'label' is empty, expected a name"),
    "label of another kind": ({"label": 3, "coordinates": PLACE}, "'label' is 3, expected a text"),
    "no coordinates": ({"label": "mask"}, "found no 'coordinates', expected an object"),
    "coordinates a list": ({"label": "mask", "coordinates": [1]}, "'coordinates' is a list of 1, expected an object"),
    "no width": ({"label": "mask", "coordinates": {"x": 1, "y": 2, "height": 3}}, "coordinates: x 1, y 2, width null,"),
    "text": (GOOD | {"coordinates": PLACE | {"x": "12"}}, 'coordinates: x "12", y 15.5, width 15, height 19; expected'),
    "negative": (GOOD | {"coordinates": PLACE | {"width": -15}}, "coordinates: x 12.5, y 15.5, width -15, height 19;"),
    "huge": (GOOD | {"coordinates": PLACE | {"y": 10**400}}, "coordinates: x 12.5, y 1000000"),
    "outside": (GOOD | {"coordinates": PLACE | {"x": 90}}, "box (82.5, 6, 97.5, 25) lies outside the image"),
    "control character": (GOOD | {"label": "a\tb"}, r"class 'a\tb' has a line end or control character"),
    "no object": (7, "found 7, expected an object {...} with 'label'"),
}


@pytest.mark.parametrize(("bad", "message"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
def test_a_bad_annotation_is_dropped_and_the_rest_is_kept(folder, bad, message):
    table, problems = read_entries(folder, entry(GOOD, bad, GOOD))
    assert rows(table) == [("a.jpg", *BOX, "mask")] * 2
    where = f"{folder / 'c.json'} [0] image 'a.jpg' annotations[1]"
    assert [(problem.action, problem.where) for problem in problems] == [("dropped box", where)]
    assert problems[0].message.startswith(message)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"annotations": []}, "found no 'image', expected a text"),
        ({"image": "b.jpg"}, "found no 'annotations', expected a list"),
        ({"image": "b.jpg", "annotations": {}}, "'annotations' is an object with 0 member(s), expected a list"),
        ({"image": 5, "annotations": []}, "'image' is 5, expected a text"),
        (None, "found null, expected an object"),
    ],
)
def test_a_bad_entry_is_reported_and_the_rest_is_kept(folder, bad, message):
    table, problems = read_entries(folder, bad, entry(GOOD))
    assert rows(table) == [("a.jpg", *BOX, "mask")]
    assert [(problem.action, problem.where) for problem in problems] == [("skipped file", f"{folder / 'c.json'} [0]")]
    assert problems[0].message.startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: not JSON"),
        ("{}", "found an object with 0 member(s), expected a list"),
        ("[Infinity]", "found Infinity, which JSON does not have"),
        ("[" * 200_000, "nested too deeply"),
        (json.dumps([entry(GOOD)])[:-9], "line 1: not JSON"),
    ],
)
def test_a_bad_file_is_reported_and_the_rest_is_kept(folder, content, message):
    bad = save(folder / "bad.json", content)
    table, problems = read_entries(folder, entry(GOOD))
    assert rows(table) == [("a.jpg", *BOX, "mask")]
    assert (problems[0].where, actions(problems)) == (str(bad), ["skipped file"])
    assert problems[0].message.startswith(message)


def test_an_image_twice_and_one_that_is_missing(folder):
    table, problems = read_entries(folder, entry(GOOD), entry(GOOD), entry(GOOD, image="gone.jpg"))
    assert rows(table) == [("a.jpg", *BOX, "mask")]
    assert [problem.where.rpartition("c.json ")[2] for problem in problems] == [
        "[1] image 'a.jpg'",
        "[2] image 'gone.jpg'",
    ]
    assert f"is already annotated by {folder / 'c.json'} [0] image 'a.jpg'" in problems[0].message


def test_likely_slips(folder):
    _, problems = read_entries(folder, entry(GOOD, GOOD | {"label": "Mask"}))
    assert "classes 'mask' and 'Mask' differ only in case or white space" in problems[0].message


def test_nothing_to_read(tmp_path):
    with pytest.raises(AnnotationError, match="no JSON file below .*; expected CreateML annotations"):
        read_createml([tmp_path], tmp_path)


def test_there_and_back_with_equal_names_in_two_folders(tmp_path):
    for name in ("one/a.jpg", "two/a.jpg", "two/b.jpg"):
        draw(tmp_path / "images" / name)
    table = make_table(
        [
            ("images/one/a.jpg", 5.25, 6, 20, 25.5, "mask"),
            ("images/two/a.jpg", 0, 0, 40, 30, "no_mask"),
            ("images/two/b.jpg", *EMPTY),
        ]
    )
    classes = {"no_mask": 0, "unused": 1, "mask": 2}
    write_format(table, classes, "createml", tmp_path / "new", tmp_path)
    written = json.loads((tmp_path / "new" / "annotations.json").read_text())
    assert [record["image"] for record in written] == ["one/a.jpg", "two/a.jpg", "two/b.jpg"]
    assert written[0]["annotations"] == [
        {"label": "mask", "coordinates": {"x": 12.625, "y": 15.75, "width": 14.75, "height": 19.5}}
    ]
    back, problems = read_createml([tmp_path / "new"], tmp_path, tmp_path / "images")
    assert (sorted(rows(back), key=str), problems) == (sorted(rows(table), key=str), [])
    assert classes_of("createml", [tmp_path / "new"], back) == classes
