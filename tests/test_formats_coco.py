"""COCO JSON: everything that can be wrong with it, and pycocotools' own reading of what is written."""

import functools
import json
from pathlib import Path

import pytest
from format_files import EMPTY, SIZE, actions, draw, rows, save

from retinamask.dataset.annotations import AnnotationError, make_table
from retinamask.dataset.formats import classes_of, parsing, read, write_format

read_coco = functools.partial(read, "coco")

BBOX = [5, 6, 15, 19]
BOX = (5, 6, 20, 25)


def document(**changes) -> dict:
    """One image of two boxes; ``changes`` replace whole members."""
    image = {"id": 7, "file_name": "a.jpg", "width": SIZE[0], "height": SIZE[1]}
    categories = [{"id": 9, "name": "no_mask"}, {"id": 0, "name": "mask"}, {"id": 4, "name": "unused"}]
    return {"images": [image], "annotations": [annotation(), annotation(id=2)], "categories": categories} | changes


def annotation(**changes) -> dict:
    return {"id": 1, "image_id": 7, "category_id": 9, "bbox": BBOX, "iscrowd": 0} | changes


@pytest.fixture
def folder(tmp_path) -> Path:
    draw(tmp_path / "a.jpg")
    return tmp_path


def read_document(folder: Path, content):
    save(folder / "coco.json", content)
    return read_coco([folder], folder)


def test_category_ids_start_anywhere_and_have_gaps(folder):
    table, problems = read_document(folder, document(annotations=[annotation(), annotation(id=2, category_id=0)]))
    assert (rows(table), problems) == ([("a.jpg", *BOX, "no_mask"), ("a.jpg", *BOX, "mask")], [])
    assert classes_of("coco", [folder], table) == {"mask": 0, "unused": 1, "no_mask": 2}


def test_ids_may_be_texts(folder):
    image = {"id": "7a", "file_name": "a.jpg", "width": SIZE[0], "height": SIZE[1]}
    found = annotation(image_id="7a", category_id="m")
    table, problems = read_document(
        folder, document(images=[image], annotations=[found], categories=[{"id": "m", "name": "mask"}])
    )
    assert (rows(table), problems) == ([("a.jpg", *BOX, "mask")], [])


def test_an_image_without_annotations_is_one_without_objects(folder):
    assert rows(read_document(folder, document(annotations=[]))[0]) == [("a.jpg", *EMPTY)]


BAD_ANNOTATIONS = {
    "missing image": (annotation(id=2, image_id=8), "image id 8 is not among the images"),
    "no image": ({"id": 2, "category_id": 9, "bbox": BBOX}, "found no 'image_id', expected a whole number"),
    "unknown category": (annotation(id=2, category_id=1), "category id 1 is not among the categories (0, 4, 9)"),
    "a list for a category": (annotation(id=2, category_id=[9]), "'category_id' is a list of 1, expected a whole"),
    "true for a category": (annotation(id=2, category_id=True), "'category_id' is true, expected a whole number"),
    "no bbox": ({"id": 2, "image_id": 7, "category_id": 9}, "found no 'bbox', expected a list [...]"),
    "three numbers": (annotation(id=2, bbox=[1, 2, 3]), "bbox is [1, 2, 3], expected four numbers x, y, width, height"),
    "texts": (annotation(id=2, bbox=["1", 2, 3, 4]), "bbox is ['1', 2, 3, 4], expected four numbers"),
    "negative": (annotation(id=2, bbox=[9, 9, -3, 4]), "bbox is [9, 9, -3, 4], expected four numbers x, y, width"),
    "no height": (annotation(id=2, bbox=[9, 9, 3, 0]), "bbox is [9, 9, 3, 0], expected four numbers"),
    "a huge number": (annotation(id=2, bbox=[10**400, 9, 3, 4]), "bbox is [1000000"),
    "outside": (annotation(id=2, bbox=[50, 6, 15, 19]), "box (50, 6, 65, 25) lies outside the image of 40 x 30 pixels"),
    "crowd": (annotation(id=2, iscrowd=1), "a crowd (iscrowd), not one object"),
    "no object": ([1], "found a list of 1, expected an object {...} with 'image_id'"),
    "the same again": (annotation(id=1), "the same annotation stands here twice; the first counts"),
}


@pytest.mark.parametrize(("bad", "message"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
def test_a_bad_annotation_is_dropped_and_the_rest_is_kept(folder, bad, message):
    table, problems = read_document(folder, document(annotations=[annotation(), bad, annotation(id=3)]))
    assert rows(table) == [("a.jpg", *BOX, "no_mask")] * 2
    assert actions(problems) == ["dropped box"]
    assert problems[0].where.startswith(f"{folder / 'coco.json'} annotations[1]")
    assert problems[0].message.startswith(message)


def test_a_box_a_few_pixels_outside_is_clipped(folder):
    table, problems = read_document(folder, document(annotations=[annotation(bbox=[-2.5, 6, 15, 27])]))
    assert rows(table) == [("a.jpg", 0, 6, 12.5, 30, "no_mask")]
    assert "reaches 3 px past the image of 40 x 30 pixels" in problems[0].message


def test_an_image_with_nothing_but_a_crowd_is_left_out(folder):
    draw(folder / "b.jpg")
    images = [*document()["images"], {"id": 8, "file_name": "b.jpg", "width": 40, "height": 30}]
    crowd = annotation(id=3, image_id=8, iscrowd=1)
    table, problems = read_document(folder, document(images=images, annotations=[annotation(), crowd]))
    assert list(table["image_path"]) == ["a.jpg"]
    assert actions(problems) == ["dropped box", "skipped file"]


def test_one_id_for_two_annotations_is_noted(folder):
    table, problems = read_document(folder, document(annotations=[annotation(), annotation(bbox=[1, 2, 3, 4])]))
    assert rows(table) == [("a.jpg", *BOX, "no_mask"), ("a.jpg", 1, 2, 4, 6, "no_mask")]
    assert [problem.message for problem in problems] == ["another annotation has this id too; both are used"]


def test_one_id_for_two_images(folder):
    draw(folder / "b.jpg")
    draw(folder / "c.jpg")
    image = document()["images"][0]
    images = [image, image | {"file_name": "b.jpg"}, image | {"id": 8, "file_name": "c.jpg"}, image | {"id": 8}]
    images[3]["file_name"] = "c.jpg"
    save(folder / "coco.json", document(images=images))
    table, problems = read_coco([folder], folder, with_unannotated=True)
    assert rows(table) == [("c.jpg", *EMPTY)]
    assert [problem.message for problem in problems] == [
        "id 7 stands for 'a.jpg' and for 'b.jpg'; neither is used",
        "image id 8 stands here twice; the first counts",
        *["image id 7 is not among the images"] * 2,
        "2 image(s) without COCO entry left out, because they may stand in a file that could not be read, "
        f"such as {folder / 'a.jpg'}",
    ]


BAD_FILES = {
    "empty": ("", "line 1: not JSON (Expecting value)"),
    "cut short": (json.dumps(document())[:-30], "line 1: not JSON"),
    "not json": ("\n\nhello", "line 3: not JSON (Expecting value)"),
    "binary": (b"\xff\xfe\xff", "not UTF-8 text"),
    "a list": ("[]", "found a list of 0, expected an object {...}"),
    "a text": ('"hello"', 'found "hello", expected an object {...}'),
    "nan": ('{"images": [NaN]}', "found NaN, which JSON does not have; expected numbers"),
    "infinity": ('{"images": [-Infinity]}', "found -Infinity, which JSON does not have"),
    "nested": ("[" * 200_000, "nested too deeply; expected an annotation file"),
    "nested objects": ('{"a":' * 200_000, "nested too deeply"),
    "digits": ("[" + "1" * 5000 + "]", "Exceeds the limit"),
    "no images": ({"annotations": [], "categories": []}, "found no 'images', expected a list"),
    "no annotations": ({"images": [], "categories": []}, "found no 'annotations', expected a list"),
    "no categories": ({"images": [], "annotations": []}, "found no 'categories', expected a list"),
    "images no list": (document(images={}), "'images' is an object with 0 member(s), expected a list"),
    "a nameless category": (document(categories=[{"id": 1}]), "categories[0]: found no 'name', expected a text"),
    "one id for two categories": (
        document(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
        "categories[1]: id 1 stands for 'a' and for 'b'; keep one",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_reported_and_the_rest_is_kept(folder, content, message):
    draw(folder / "other.jpg")
    bad = save(folder / "bad.json", content)
    save(folder / "coco.json", document())
    table, problems = read_coco([folder], folder, with_unannotated=True)
    assert rows(table) == [("a.jpg", *BOX, "no_mask")] * 2  # other.jpg may stand in the bad file
    assert [(problem.action, problem.where) for problem in problems] == [
        ("skipped file", str(bad)),
        ("note", str(folder)),
    ]
    assert problems[0].message.startswith(message)
    assert classes_of("coco", [folder], table) == {"mask": 0, "unused": 1, "no_mask": 2}
    with pytest.raises(AnnotationError, match=r"none of the 0 COCO image\(s\) could be used"):
        read_coco([bad], folder)


@pytest.mark.parametrize("image", [{"id": 1}, {"file_name": "b.jpg"}, {"id": 1, "file_name": " "}, 5, None])
def test_a_bad_image_record_is_reported(folder, image):
    table, problems = read_document(folder, document(images=[*document()["images"], image]))
    assert len(table) == 2
    assert [problem.where for problem in problems] == [f"{folder / 'coco.json'} images[1]"]


def test_an_image_that_is_missing(folder):
    images = [*document()["images"], {"id": 8, "file_name": "coco.jpg", "width": 40, "height": 30}]
    table, problems = read_document(folder, document(images=images))
    assert len(table) == 2
    assert problems[0].where == f"{folder / 'coco.json'} image 'coco.jpg'"
    assert problems[0].message.startswith("no image named 'coco.jpg' in")


def test_the_json_has_no_image_of_its_own_stem(folder):
    """A JSON is about many images: one that happens to be called as it is not what a missing one means."""
    draw(folder / "coco.jpg")
    table, _ = read_document(folder, document(images=[*document()["images"], {"id": 8, "file_name": "gone.jpg"}]))
    assert set(table["image_path"]) == {"a.jpg"}


def test_another_size_is_noted(folder):
    images = [document()["images"][0] | {"width": 30, "height": 40}]
    _, problems = read_document(folder, document(images=images))
    assert [problem.message for problem in problems] == [
        "width and height says 30 x 40, the upright image has 40 x 30; look at its boxes"
    ]
    _, problems = read_document(folder, document(images=[{"id": 7, "file_name": "a.jpg"}]))
    assert [problem.message for problem in problems] == ["no width and height; the image's own 40 x 30 is used"]


def test_several_files_and_folders_of_equal_names(tmp_path):
    for split in ("train", "val"):
        draw(tmp_path / "images" / split / "0.jpg")
        images = [{"id": 7, "file_name": f"{split}/0.jpg", "width": 40, "height": 30}]
        save(tmp_path / "annotations" / f"{split}.json", document(images=images, annotations=[annotation()]))
    table, problems = read_coco([tmp_path], tmp_path)
    assert rows(table) == [(f"images/{split}/0.jpg", *BOX, "no_mask") for split in ("train", "val")]
    assert problems == []


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/passwd", "..\\outside.jpg", "a\x00.jpg", "\ud800.jpg"])
def test_no_file_name_reaches_outside(tmp_path, name):
    draw(tmp_path / "outside.jpg")
    draw(tmp_path / "in" / "a.jpg")
    images = [*document()["images"], {"id": 8, "file_name": name, "width": 40, "height": 30}]
    table, problems = read_document(tmp_path / "in", document(images=images))
    assert set(table["image_path"]) == {"a.jpg"} and actions(problems) == ["skipped file"]


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "a\x00"])
def test_names_that_no_file_could_hold(folder, name):
    categories = [{"id": 9, "name": name}, {"id": 1, "name": "mask"}]
    found = [annotation(), annotation(id=2, category_id=1)]
    table, problems = read_document(folder, document(categories=categories, annotations=found))
    assert list(table["class_name"]) == ["mask"]
    assert "has a line end or control character" in problems[0].message


def test_likely_slips(folder):
    categories = [{"id": 9, "name": "noMask"}, {"id": 1, "name": "nomask "}, {"id": 2, "name": "no mask"}]
    found = [annotation(id=number, category_id=number) for number in (9, 1, 2)]
    _, problems = read_document(folder, document(categories=categories, annotations=found))
    assert [problem.message for problem in problems] == [
        "classes 'noMask' and 'nomask' and 'no mask' differ only in case or white space, probably a slip; "
        "a class map makes them one: no mask=noMask"
    ]


def test_an_oversize_file_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(parsing, "JSON_BYTES", 10)
    with pytest.raises(AnnotationError, match="bytes, expected an annotation of at most 10"):
        read_document(folder, document())


def test_nothing_to_read(tmp_path):
    with pytest.raises(AnnotationError, match="no JSON file below .*; expected COCO annotations"):
        read_coco([tmp_path], tmp_path)


def test_pycocotools_loads_what_is_written(tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    for name in ("one/a.jpg", "two/a.jpg", "empty.png"):
        draw(tmp_path / "images" / name)
    boxes = [("images/one/a.jpg", 5.25, 6, 20, 25.5, "mask"), ("images/one/a.jpg", 0, 0, 40, 30, "no_mask")]
    table = make_table([*boxes, ("images/two/a.jpg", 1, 2, 3, 4, "mask"), ("images/empty.png", *EMPTY)])
    write_format(table, {"no_mask": 0, "unused": 1, "mask": 2}, "coco", tmp_path / "coco", tmp_path)
    loaded = coco.COCO(str(tmp_path / "coco" / "annotations.json"))
    assert loaded.getCatIds() == [1, 2, 3]
    assert [category["name"] for category in loaded.loadCats([1, 2, 3])] == ["no_mask", "unused", "mask"]
    assert len(loaded.getImgIds()) == 3 and loaded.getAnnIds(catIds=[3]) == [1, 3]
    first = loaded.loadAnns([1])[0]
    assert first["bbox"] == [5.25, 6, 14.75, 19.5] and first["area"] == 14.75 * 19.5
    assert loaded.getAnnIds(imgIds=[3]) == []
    for image in loaded.loadImgs(loaded.getImgIds()):
        assert (tmp_path / "coco" / image["file_name"]).is_file() and (image["width"], image["height"]) == SIZE

    back, problems = read_coco([tmp_path / "coco"], tmp_path, image_folder=tmp_path / "images")
    assert problems == []
    assert sorted(rows(back), key=str) == sorted(rows(table), key=str)
    assert list(classes_of("coco", [tmp_path / "coco"], back)) == ["no_mask", "unused", "mask"]


def test_ids_as_pandas_writes_them(folder):
    table, problems = read_document(folder, document(annotations=[annotation(image_id=7.0, category_id=9.0)]))
    assert (rows(table), problems) == ([("a.jpg", *BOX, "no_mask")], [])


def test_images_that_a_stray_annotation_may_be_about_are_not_empty(folder):
    draw(folder / "b.jpg")
    images = [*document()["images"], {"id": 8, "file_name": "b.jpg", "width": 40, "height": 30}]
    stray = {"id": 2, "category_id": 9, "bbox": BBOX}
    table, problems = read_document(folder, document(images=images, annotations=[annotation(), stray]))
    assert rows(table) == [("a.jpg", *BOX, "no_mask")]
    assert any("1 image(s) without any are left out" in problem.message for problem in problems)
