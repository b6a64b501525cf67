"""No wrong label goes in silently: inputs that people in this field report, drawn anew, in every format."""

import json
import os
from pathlib import Path

import pytest
from format_files import EMPTY, SIZE, draw, rows, save

from retinamask.cli import main
from retinamask.dataset import formats
from retinamask.dataset.annotations import AnnotationError, make_table, read_annotations, read_classes
from retinamask.dataset.audit.source import read_source
from retinamask.dataset.formats import classes_of, guess, read, write_format
from retinamask.detectors.darknet.folder import folder_problems
from retinamask.detectors.darknet.template import yolov4_tiny_cfg
from retinamask.evaluation.audit import Audit, AuditSettings

BNDBOX = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>20</xmax><ymax>25</ymax></bndbox>"
SECOND = "<bndbox><xmin>25</xmin><ymin>6</ymin><xmax>38</xmax><ymax>25</ymax></bndbox>"
FACE = f"<object><name>mask</name>{BNDBOX}</object>"


def face(x1, y1, x2, y2) -> str:
    return (
        FACE.replace(">5<", f">{x1}<").replace(">6<", f">{y1}<").replace(">20<", f">{x2}<").replace(">25<", f">{y2}<")
    )


BOX = (5, 6, 20, 25)
LINE = "0 0.3125 0.5166666667 0.375 0.6333333333\n"  # BOX in 40 x 30 pixels


def voc(*objects: str, filename: str = "a.jpg", head: str = "") -> str:
    return f"<annotation>{head}<filename>{filename}</filename>{''.join(objects)}</annotation>"


def coco(file_name: str = "a.jpg", box=(5, 6, 15, 19), **changes) -> dict:
    return {
        "images": [{"id": 1, "file_name": file_name, "width": SIZE[0], "height": SIZE[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": list(box)}],
        "categories": [{"id": 1, "name": "mask"}],
    } | changes


def createml(image: str = "a.jpg", box=(12.5, 15.5, 15, 19)) -> list:
    place = dict(zip(("x", "y", "width", "height"), box, strict=True))
    return [{"image": image, "annotations": [{"label": "mask", "coordinates": place}]}]


@pytest.fixture
def folder(tmp_path):
    """A folder with ``good.jpg``, whose annotation the tests write beside the bad ones."""
    draw(tmp_path / "good.jpg")
    return tmp_path


# --- An image that is annotated twice ---


@pytest.mark.parametrize("second", [[], [("mask", 5, 6, 20, 26)], [("no_mask", *BOX)], [("mask", *BOX)]], ids=repr)
@pytest.mark.parametrize("name", ["voc", "yolo", "coco", "createml", "csv"])
def test_an_image_annotated_twice_in_any_format(tmp_path, name, second):
    """Different: nobody knows which is right, and an empty one would make its faces background. Equal: one is used."""
    for letter in "ab":
        draw(tmp_path / "images" / f"{letter}.png")
    options = {"images": "none"} if name == "yolo" else {}

    def written(folder: str, boxes: list[tuple]) -> None:
        a = [("images/a.png", *box[1:], box[0]) for box in boxes] or [("images/a.png", *EMPTY)]
        table = make_table([*a, ("images/b.png", *BOX, "mask")] if folder == "one" else a)
        write_format(table, {"mask": 0, "no_mask": 1}, name, tmp_path / folder, tmp_path, **options)

    written("one", [("mask", *BOX)])
    written("two", second)
    sources = [tmp_path / "one", tmp_path / "two"]
    table, problems = read(name, sources, tmp_path, tmp_path / "images", with_unannotated=True)
    same = second == [("mask", *BOX)]
    assert sorted(set(table["image_path"])) == ["images/a.png", "images/b.png"][not same :]
    about = [problem for problem in problems if problem.image_path == "images/a.png"]
    assert [problem.action for problem in about] == (["note"] if same else ["skipped file"] * 2)
    assert all(("with the same objects" if same else "too, differently") in problem.message for problem in about)
    assert not same or len(table) == 2


def test_an_image_annotated_twice_in_one_file(folder):
    """CreateML lists images freely; CSV rows of one image are together one annotation."""
    draw(folder / "a.jpg")
    save(folder / "c.json", [*createml("good.jpg"), *createml(), {"image": "a.jpg", "annotations": []}])
    table, problems = read("createml", [folder], folder, with_unannotated=True)
    assert rows(table) == [("good.jpg", *BOX, "mask")] and len(problems) == 2
    assert all("a.jpg is annotated by" in problem.message for problem in problems)


def test_a_dropped_box_says_that_its_face_becomes_background(folder):
    save(folder / "good.xml", voc(FACE, f"<object>{SECOND}</object>", filename="good.jpg"))
    _, problems = read("voc", [folder], folder)
    end = "the image keeps its other boxes, and what is in this one becomes background (dropped box)"
    assert any(str(problem).endswith(f"object without a <name>; {end}") for problem in problems)
    save(folder / "good.xml", voc(f"<object>{SECOND}</object>", filename="good.jpg"))
    _, problems = read("voc", [folder], folder)
    assert any(str(problem).endswith("without a <name> (dropped box)") for problem in problems)


# --- What is not understood is not empty ---

NOT_UNDERSTOOD = {
    "wrapped": f"<objects>{FACE}</objects>",
    "another name": f"<obj><name>mask</name>{BNDBOX}</obj>",
    "capitals": f"<Object><Name>mask</Name>{BNDBOX}</Object>",
    "attributes": '<face name="mask" xmin="5" ymin="6" xmax="20" ymax="25"/>',
    "an object in an object": f"<object><name>mask</name>{BNDBOX}{FACE}</object>",
    "a box without an object": BNDBOX,
    "a name without an object": "<name>mask</name>",
    "a box as text": "<box>5 6 20 25</box><label>mask</label>",
    "a box somewhere in an object": f"<object><name>mask</name><shape>{BNDBOX}</shape></object>",
    "a box in the size": f"<size>{BNDBOX}</size>",
    "a second file": "<filename>other.jpg</filename>",
}


@pytest.mark.parametrize("inside", NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
@pytest.mark.parametrize("with_unannotated", [False, True])
def test_xml_that_may_hold_boxes_elsewhere_is_left_out(folder, inside, with_unannotated):
    draw(folder / "a.jpg")
    bad = save(folder / "a.xml", voc(inside))
    save(folder / "good.xml", voc(FACE, filename="good.jpg"))
    table, problems = read("voc", [folder], folder, with_unannotated=with_unannotated)
    assert rows(table) == [("good.jpg", *BOX, "mask")]
    assert [(problem.action, problem.where) for problem in problems if problem.action != "note"] == [
        ("skipped file", str(bad))
    ]
    assert "line 1: " in problems[0].message
    assert any(
        finding.name == "unusable annotation file" for finding in Audit(read_source(folder), AuditSettings()).findings
    )


TWICE = {
    "two boxes": (f"<object><name>mask</name>{BNDBOX}{SECOND}</object>", "<bndbox> stands twice"),
    "two names": (f"<object><name>mask</name><name>no_mask</name>{BNDBOX}</object>", "<name> stands twice"),
    "two edges": (
        f"<object><name>mask</name>{BNDBOX.replace('</xmin>', '</xmin><xmin>9</xmin>')}</object>",
        "<xmin> st",
    ),
    "empty first": (f"<object><name>mask</name><bndbox/>{BNDBOX}</object>", "<bndbox> stands twice"),
}


@pytest.mark.parametrize(("inside", "message"), TWICE.values(), ids=TWICE)
def test_what_stands_twice_in_an_object_is_reported_and_never_mixed(folder, inside, message):
    save(folder / "good.xml", voc(FACE, inside, filename="good.jpg"))
    table, problems = read("voc", [folder], folder)
    assert rows(table) == [("good.jpg", *BOX, "mask")]
    assert problems[1].action == "dropped box" and problems[1].message.startswith(message)


@pytest.mark.parametrize(
    "inside",
    [
        "<owner><name>someone</name></owner><source><image>flickr</image></source>",  # VOC 2007
        "<weather>rain</weather><objects/>",
        FACE.replace(
            "</object>", "<attributes><attribute><name>x</name><value>1</value></attribute></attributes></object>"
        ),
        FACE.replace("</object>", f"<part><name>head</name>{SECOND}</part></object>"),
    ],
)
def test_what_the_tools_of_voc_write_besides_is_no_trouble(folder, inside):
    save(folder / "good.xml", voc(inside, filename="good.jpg"))
    table, problems = read("voc", [folder], folder)
    assert rows(table) == [("good.jpg", *(BOX if "object>" in inside else EMPTY[:4]), table["class_name"][0])]
    assert [problem.message for problem in problems] == ["no <size>; the image's own 40 x 30 is used"]


def test_an_empty_annotation_says_nothing(folder):
    save(folder / "good.xml", "<annotation/>")
    with pytest.raises(AnnotationError, match="<annotation> has nothing in it"):
        read("voc", [folder], folder)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_label_file_in_another_encoding_is_no_image_without_faces(folder, encoding):
    save(folder / "good.txt", LINE.encode(encoding))
    save(folder / "classes.txt", "mask\n")
    draw(folder / "b.jpg")
    save(folder / "b.txt", LINE)
    table, problems = read("yolo", [folder], folder, with_unannotated=True)
    assert list(table["image_path"]) == ["b.jpg"] and problems[-1].action == "skipped file"


NESTED = {"id": 1, "file_name": "a.jpg", "objects": [{"bbox": [1, 2, 3, 4]}]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coco", coco(annotations=[], images=[NESTED]), "'objects' is a list of 1, which may be boxes"),
        ("coco", '{"images": [], "images": [], "annotations": [], "categories": []}', "'images' stands twice"),
        ("createml", [NESTED | {"image": "a.jpg", "annotations": []}], "'objects' is a list of 1, which may be boxes"),
        ("createml", '[{"image": "a.jpg", "annotations": [], "annotations": []}]', "'annotations' stands twice"),
    ],
)  # fmt: skip
def test_json_of_another_shape_is_left_out(folder, name, content, message):
    draw(folder / "a.jpg")
    save(folder / "x.json", content)
    with pytest.raises(AnnotationError, match=message):
        read(name, [folder], folder, with_unannotated=True)


def test_captions_beside_the_instances_do_not_claim_the_images(folder):
    draw(folder / "a.jpg")
    save(folder / "captions.json", coco(annotations=[{"id": 1, "image_id": 1, "caption": "a face"}], categories=[]))
    save(folder / "instances.json", coco())
    table, problems = read("coco", [folder], folder, with_unannotated=True)
    assert rows(table) == [("a.jpg", *BOX, "mask"), ("good.jpg", *EMPTY)]
    assert problems[0] == (
        "note",
        str(folder / "captions.json"),
        "captions, no boxes; nothing is read from it",
        None,
        None,
    )


# --- Shares of the image where pixels are expected ---


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("voc", "a.xml", voc(face(0.1, 0.2, 0.5, 0.8))),
        ("voc", "a.xml", voc(face(0, 0, 1, 1))),
        ("coco", "a.json", coco(box=(0.1, 0.2, 0.4, 0.6))),
        ("createml", "a.json", createml(box=(0.3, 0.4, 0.2, 0.3))),
        ("csv", "a.csv", "a.jpg,0.1,0.2,0.5,0.8,mask\n"),
    ],
)  # fmt: skip
def test_shares_in_formats_of_pixels_are_told(tmp_path, name, file, content):
    draw(tmp_path / "a.jpg")
    save(tmp_path / file, content)
    with pytest.raises(AnnotationError, match="may be shares of the|no box is left") as error:
        table, problems = read(name, [tmp_path], tmp_path)
        assert table.empty
        raise AnnotationError("\n".join(map(str, problems)))
    assert "may be shares of the" in str(error.value) and "expected pixels" in str(error.value)


# --- An image is found by what is written ---


def missing_beside_another(tmp_path, name):
    """``train/1`` is annotated and gone, ``train/2`` is sound, ``val/1`` is another picture."""
    images = tmp_path / "images" if name in ("yolo", "voc") else tmp_path
    for path in ("train/2.jpg", "val/1.jpg"):
        draw(images / path)
    if name == "yolo":
        save(tmp_path / "data.yaml", "names: [mask]\n")
    for stem in ("1", "2"):
        if name == "yolo":
            save(tmp_path / "labels" / "train" / f"{stem}.txt", LINE)
        elif name == "voc":
            save(tmp_path / "annotations" / "train" / f"{stem}.xml", voc(FACE, filename=f"{stem}.jpg"))
    content = [coco(f"train/{stem}.jpg") for stem in ("1", "2")]
    if name == "coco":
        for stem, document in zip(("1", "2"), content, strict=True):
            save(tmp_path / f"{stem}.json", document)
    if name == "createml":
        save(tmp_path / "x.json", [*createml("train/1.jpg"), *createml("train/2.jpg")])
    if name == "csv":
        save(tmp_path / "x.csv", "".join(f"train/{stem}.jpg,5,6,20,25,mask\n" for stem in ("1", "2")))
    if name == "open_images":
        header = "ImageID,LabelName,XMin,XMax,YMin,YMax\n"
        save(tmp_path / "x.csv", header + "".join(f"train/{stem},mask,0.125,0.5,0.2,0.8\n" for stem in ("1", "2")))
    return images


@pytest.mark.parametrize("name", ["voc", "yolo", "coco", "createml", "csv", "open_images"])
@pytest.mark.parametrize("given", [False, True])
def test_a_picture_of_the_same_name_in_another_folder_keeps_its_own(tmp_path, name, given):
    images = missing_beside_another(tmp_path, name)
    table, problems = read(name, [tmp_path], tmp_path, images if given else None)
    assert [path.removeprefix("images/") for path in table["image_path"]] == ["train/2.jpg"]
    assert sum(problem.action == "skipped file" for problem in problems) == 1
    assert any("no image named" in problem.message for problem in problems)
    with_others, _ = read(name, [tmp_path], tmp_path, images if given else None, with_unannotated=True)
    assert not any(path.endswith("val/1.jpg") and cls for path, *_, cls in rows(with_others))


def test_a_stem_with_a_dot_is_whole(tmp_path):
    draw(tmp_path / "car.jpg")
    save(tmp_path / "car.2.xml", voc(FACE, filename="car.2"))
    save(tmp_path / "car.2.txt", LINE)
    save(tmp_path / "classes.txt", "mask\n")
    for name in ("voc", "yolo"):
        with pytest.raises(AnnotationError, match="no image named .*'car.2' with an image's ending"):
            read(name, [tmp_path], tmp_path)
    draw(tmp_path / "car.2.png")
    for name in ("voc", "yolo"):
        assert list(read(name, [tmp_path], tmp_path)[0]["image_path"]) == ["car.2.png"]


def test_two_images_of_one_stem_are_no_guess(tmp_path):
    draw(tmp_path / "a.jpg")
    draw(tmp_path / "a.png")
    save(tmp_path / "a.txt", LINE)
    save(tmp_path / "classes.txt", "mask\n")
    with pytest.raises(AnnotationError, match=r"a.jpg, a.png lie in .*, expected one image called a; keep one"):
        read("yolo", [tmp_path], tmp_path, with_unannotated=True)


def test_spellings_that_look_the_same_are_told_apart(tmp_path):
    draw(tmp_path / "caf\u00e9.jpg")
    save(tmp_path / "x.json", coco("cafe\u0301.jpg"))
    with pytest.raises(AnnotationError, match=r"'caf\\xe9.jpg' is there, but the annotation has 'cafe\\u0301.jpg'"):
        read("coco", [tmp_path], tmp_path)


def test_a_path_of_windows_in_a_csv_says_where_the_image_is_looked_for(tmp_path):
    save(tmp_path / "a.csv", "C:\\photos\\a.jpg,5,6,20,25,mask\n")
    with pytest.raises(AnnotationError) as error:
        read("csv", [tmp_path / "a.csv"], tmp_path)
    assert f"no image named 'C:/photos/a.jpg' in {tmp_path}; put it there or name the folder" in str(error.value)


def test_images_in_a_folder_called_labels_are_found(tmp_path):
    draw(tmp_path / "labels" / "a.jpg")
    save(tmp_path / "labels" / "a.txt", LINE)
    save(tmp_path / "labels" / "b.xml", voc(FACE))
    save(tmp_path / "classes.txt", "mask\n")
    save(tmp_path / "data.yaml", "train: labels\nnames: [mask]\n")
    for name, source in (("yolo", ""), ("yolo", "data.yaml"), ("voc", "")):
        assert list(read(name, [tmp_path / source], tmp_path)[0]["image_path"]) == ["labels/a.jpg"]


# --- Lists count from their own folder ---


@pytest.fixture
def two_sets(tmp_path):
    """``export2`` as an annotation tool exports it, below another set that has what its lists say, literally."""
    for folder, name in (
        (tmp_path / "darknet" / "data", "other"),
        (tmp_path / "darknet" / "export2", "mask"),
    ):
        draw(folder / "obj_train_data" / "f0.png")
        save(folder / "obj_train_data" / "f0.txt", LINE)
        save(folder / "obj.names", f"{name}\n")
        save(folder / "train.txt", "data/obj_train_data/f0.png\n")
    save(tmp_path / "darknet" / "export2" / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\n")
    return tmp_path / "darknet" / "export2"  # fmt: skip


@pytest.mark.parametrize("source", ["obj.data", "train.txt", ""])
def test_lists_never_lead_to_the_set_above(two_sets, source):
    table, problems = read("yolo", [two_sets / source], two_sets)
    assert list(table["image_path"]) == ["obj_train_data/f0.png"] and list(table["class_name"]) == ["mask"]
    assert problems == [] and classes_of("yolo", [two_sets / source], table) == {"mask": 0}


def test_darknet_check_looks_at_the_same_files(two_sets):
    cfg = save(two_sets / "t.cfg", yolov4_tiny_cfg(1))
    assert folder_problems(two_sets / "obj.data", cfg) == []
    (two_sets / "train.txt").unlink()
    assert "data/train.txt, which does not exist" in " ".join(folder_problems(two_sets / "obj.data", cfg))


def test_a_path_that_leads_to_two_sets_is_refused(tmp_path):
    for folder in ("train", "set/train"):
        draw(tmp_path / folder / "images" / "a.jpg")
        save(tmp_path / folder / "labels" / "a.txt", LINE)
    save(tmp_path / "set" / "data.yaml", "train: ../train/images\nnames: [mask]\n")
    with pytest.raises(AnnotationError, match="../train/images may be .* or, as Roboflow means it, .*; write which"):
        read("yolo", [tmp_path / "set" / "data.yaml"], tmp_path)


# --- Text is text ---


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("[yes, no]", ["yes", "no"]),
        ("[1.10, 2.0]", ["1.10", "2.0"]),
        ("{0: Yes, 1: No}", ["Yes", "No"]),
        ("[null, ~, 2026-01-01, 0x10, on]", ["null", "~", "2026-01-01", "0x10", "on"]),
        ("\n- 'no'\n- \"yes\"", ["no", "yes"]),
    ],
)
def test_class_names_are_as_written(folder, names, expected):
    save(folder / "good.txt", LINE)
    save(folder / "data.yaml", f"train: .\nnames: {names}\n")
    table, _ = read("yolo", [folder], folder)
    assert list(table["class_name"]) == expected[:1]
    assert list(classes_of("yolo", [folder / "data.yaml"], table)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [a]\nnames: [b]\n", "names stands here twice"),
        ("names: {0: a, 0: b}\n", "0 stands here twice"),
        ("names: {0_0: a}\n", "ids of names are 0_0"),
        ("names: !!python/name:os.system\n", "the tag .* is refused"),
    ],
)
def test_yaml_that_says_two_things_is_refused(folder, content, message):
    save(folder / "good.txt", LINE)
    save(folder / "data.yaml", content)
    with pytest.raises(AnnotationError, match=message):
        read("yolo", [folder], folder)


def test_a_list_between_that_disagrees_is_refused(folder):
    save(folder / "labels" / "good.txt", LINE)
    save(folder / "labels" / "classes.txt", "mask\nno_mask\n")
    save(folder / "data.yaml", "names: [no_mask, mask]\n")
    with pytest.raises(AnnotationError, match="class lists disagree, keep one"):
        read("yolo", [folder], folder)


@pytest.mark.parametrize("name", ["license_1", "README_2", "Licenses"])
def test_labels_whose_images_are_called_like_notes_keep_their_order(tmp_path, name):
    draw(tmp_path / "pics" / f"{name}.jpg")
    draw(tmp_path / "pics" / f"{name}_empty.jpg")
    save(tmp_path / "labels" / f"{name}.txt", LINE.replace("0", "1", 1))
    save(tmp_path / "labels" / f"{name}_empty.txt", "")
    save(tmp_path / "labels" / "classes.txt", "a\nb\nc\n")
    arguments = [
        "--images",
        str(tmp_path / "pics"),
        "--out",
        str(tmp_path / "a.csv"),
        "--classes",
        str(tmp_path / "c.csv"),
    ]
    assert main(["annotations", str(tmp_path / "labels"), *arguments]) == 0
    assert read_classes(tmp_path / "c.csv") == {"a": 0, "b": 1, "c": 2}
    assert [row[5] for row in rows(read_annotations(tmp_path / "a.csv"))] == ["b", None]


@pytest.mark.parametrize("name", ["train", "val", "classes", "labels", "images", "license"])
def test_any_name_of_an_image_comes_back_from_yolo(tmp_path, name):
    draw(tmp_path / "images" / f"{name}.jpg")
    write_format(make_table([(f"images/{name}.jpg", *BOX, "mask")]), {"mask": 0}, "yolo", tmp_path / "new", tmp_path)
    for source in ("", "data.yaml", "train.txt"):
        table, problems = read("yolo", [tmp_path / "new" / source], tmp_path)
        assert problems == [] and list(table["class_name"]) == ["mask"]


@pytest.mark.parametrize("number", ["2_0", "\u0662", "0x14", "2e1_0"])
def test_only_plain_numbers_are_numbers(tmp_path, number):
    draw(tmp_path / "a.jpg")
    save(tmp_path / "voc" / "a.xml", voc(FACE.replace(">20<", f">{number}<")))
    save(tmp_path / "csv" / "a.csv", f"../a.jpg,5,6,{number},25,mask\n")
    table, problems = read("voc", [tmp_path / "voc"], tmp_path, tmp_path)
    assert table.empty and "expected four numbers" in "".join(map(str, problems))
    with pytest.raises(AnnotationError, match="expected a number of pixels"):
        read("csv", [tmp_path / "csv"], tmp_path)


# --- Classes ---


def test_the_root_category_of_coco_is_no_class(folder):
    draw(folder / "a.jpg")
    categories = [
        {"id": 0, "name": "faces", "supercategory": "none"},
        {"id": 1, "name": "mask", "supercategory": "faces"},
    ]
    save(folder / "a.json", coco(categories=categories))
    table, classes, problems = formats.read_annotations(folder, folder, {})
    assert classes == {"mask": 0} and list(table["class_name"]) == ["mask"]
    assert "category 'faces' is only the supercategory of others; it is no class" in problems[0].message
    save(folder / "a.json", coco(categories=categories, annotations=[coco()["annotations"][0] | {"category_id": 0}]))
    assert formats.read_annotations(folder, folder, {})[1] == {"faces": 0, "mask": 1}  # boxes of it make it one


@pytest.mark.parametrize(
    "part", ["images", "labels", "annotations", "train", "Val", "valid", "test", "JPEGImages", "validation"]
)
def test_folders_of_data_sets_are_no_classes(tmp_path, part):
    draw(tmp_path / part / "a.jpg")
    save(tmp_path / "labels" / "b.jpg", LINE)
    with pytest.raises(AnnotationError, match="no annotations that are known"):
        guess([tmp_path])
    draw(tmp_path / "mask" / "a.jpg")
    table, problems = read("class_folders", [tmp_path], tmp_path)
    assert list(table["class_name"]) == ["mask"]
    assert f"a folder called {part} is a part of a data set, no class" in " ".join(map(str, problems))


def test_a_class_map_may_name_what_one_of_the_sources_lacks(tmp_path):
    for name in ("with_mask", "face"):
        draw(tmp_path / name / "a.jpg")
        save(tmp_path / name / "a.xml", voc(FACE.replace("mask", name, 1)))
    class_map = {"with_mask": "mask", "face": "no_mask"}
    _, classes, _ = formats.read_annotations([tmp_path / "with_mask", tmp_path / "face"], tmp_path, class_map=class_map)
    assert set(classes) == {"mask", "no_mask"}


def test_a_damaged_xml_may_be_of_any_image(folder):
    save(folder / "good.xml", voc(FACE, filename="good.jpg"))
    draw(folder / "b.jpg")
    save(folder / "x.xml", voc(FACE, filename="b.jpg")[:-20])
    table, problems = read("voc", [folder], folder, with_unannotated=True)
    assert rows(table) == [("good.jpg", *BOX, "mask")]
    assert "they may stand in a file that could not be read" in problems[-1].message


def test_detections_become_no_labels(folder):
    save(folder / "found.csv", "good.jpg,5,6,20,25,mask,0.61\nother.jpg,,,,,,\n")
    with pytest.raises(AnnotationError, match="found.csv: detections with scores, expected annotations"):
        guess([folder])
    save(folder / "mine.csv", "good.jpg,5,6,20,25,mask\n")
    table, problems = formats.read_annotations(folder, folder, {})[::2]
    assert rows(table) == [("good.jpg", *BOX, "mask")] and "detections with scores" in problems[0].message


def test_a_path_that_leads_out_is_no_image_in_here(folder):
    save(folder / "set" / "a.json", coco("../good.jpg"))
    draw(folder / "set" / "good.jpg")
    with pytest.raises(AnnotationError, match="no image named '../good.jpg'"):
        read("coco", [folder / "set"], folder)
    table, _ = read("coco", [folder / "set"], folder, image_folder=folder)
    assert rows(table) == [("good.jpg", *BOX, "mask")]


def test_one_folder_of_images_is_no_set_of_classes(tmp_path):
    draw(tmp_path / "photos" / "a.jpg")
    with pytest.raises(AnnotationError, match="two or more folders called like classes"):
        guess([tmp_path])


def test_coco_ids_that_match_no_image_leave_no_image_without_faces(folder):
    document = coco("good.jpg")
    document["images"][0]["id"] = "1"
    save(folder / "a.json", document)
    with pytest.raises(AnnotationError, match="image id 1 is not among the images"):
        read("coco", [folder], folder)


def test_an_annotation_without_objects_hides_no_other(folder):
    draw(folder / "b.jpg")
    save(folder / "a_info.json", coco("good.jpg", annotations=[]))
    save(folder / "b.json", coco("good.jpg"))
    save(folder / "c.json", coco("b.jpg"))
    table, problems = read("coco", [folder], folder)
    assert rows(table) == [("b.jpg", *BOX, "mask")]
    assert [Path(problem.where.split(" image ")[0]).name for problem in problems] == ["a_info.json", "b.json"]


def test_a_file_of_another_kind_beside_the_annotations_is_named(folder, caplog):
    save(folder / "good.xml", voc(FACE, filename="good.jpg"))
    save(folder / "more.json", [{"completed_by": 1}])
    assert guess([folder]) == "voc"
    assert "more.json is Label Studio's JSON; export as Pascal VOC or COCO" in caplog.text


# --- Nothing vanishes uncounted ---


def test_a_damaged_label_called_license_is_reported(folder):
    save(folder / "classes.txt", "mask")
    save(folder / "good.txt", LINE)
    for name in ("license_1", "readme_2"):
        draw(folder / f"{name}.jpg")
        save(folder / f"{name}.txt", "0 0.5 0.5 0.2")
    _, problems = read("yolo", [folder], folder)
    assert [problem.action for problem in problems] == ["dropped box", "skipped file"] * 2


def test_linked_folders_are_read(tmp_path):
    for name in ("mask/a.jpg", "../disk/no_mask/b.jpg"):
        draw(tmp_path / "folders" / name)
    (tmp_path / "folders" / "no_mask").symlink_to("../disk/no_mask")
    assert guess([tmp_path / "folders"]) == "class_folders"
    table, problems = read("class_folders", [tmp_path / "folders"], tmp_path)
    assert rows(table)[1] == ("folders/no_mask/b.jpg", 0, 0, *SIZE, "no_mask") and problems == []

    for name, content in (("voc/a.xml", voc(FACE)), ("disk/day2/b.xml", voc(FACE, filename="b.jpg"))):
        draw(save(tmp_path / name, content).with_suffix(".jpg"))
    (tmp_path / "voc" / "day2").symlink_to("../disk/day2")
    (tmp_path / "voc" / "again").symlink_to(".")
    table, problems = read("voc", [tmp_path / "voc"], tmp_path)
    assert list(table["image_path"]) == ["voc/a.jpg", "voc/day2/b.jpg"]
    assert sum("which is read already" in problem.message for problem in problems) == 1


def test_other_endings_are_read_or_counted(tmp_path, capsys):
    for name in ("mask/a.tif", "mask/b.gif", "no_mask/a.jpg"):
        draw(tmp_path / "faces" / name)
    save(tmp_path / "faces" / "mask" / "c.heic", b"")
    table, problems = read("class_folders", [tmp_path / "faces"], tmp_path)
    assert len(table) == 3
    assert [problem.message for problem in problems] == ["1 file ending in .heic is not read"]


@pytest.mark.parametrize("name", ["voc", "class_folders"])
def test_a_name_that_is_not_utf8_costs_one_image(tmp_path, name, capsys):
    for stem in ("a", "b"):
        draw(tmp_path / "data" / stem / f"{stem}.jpg")
        save(tmp_path / "data" / stem / f"{stem}.xml", voc(FACE, filename=f"{stem}.jpg"))
    os.link(tmp_path / "data" / "a" / "a.jpg", os.path.join(os.fsencode(tmp_path / "data" / "a"), b"caf\xe9.jpg"))
    arguments = ["--out", str(tmp_path / "a.csv"), "--classes", str(tmp_path / "c.csv"), "--with-unannotated"]
    assert main(["annotations", str(tmp_path / "data"), *arguments, "--from", name]) == 0
    assert len((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()) == 2
    assert r"caf\udce9.jpg: the name is not UTF-8; rename it" in capsys.readouterr().err
    if name == "voc":
        arguments = ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
        assert main(["audit", str(tmp_path / "data"), *arguments]) == 0
        assert "not UTF-8" in json.dumps(json.loads((tmp_path / "a.json").read_text(encoding="utf-8")))


# --- One identity for an image ---


def test_two_spellings_of_one_image_are_one(tmp_path, capsys):
    draw(tmp_path / "a.jpg", (200, 100))
    save(tmp_path / "ann.csv", "a.jpg,20,10,60,50,mask\n./a.jpg,100,10,160,80,mask\n.//x/../a.jpg,5,60,15,90,mask\n")
    save(tmp_path / "classes.csv", "mask,0\n")
    found = "./a.jpg,20,10,60,50,mask,0.9\na.jpg,100,10,160,80,mask,0.9\nb//../a.jpg,5,60,15,90,mask,0.9\n"
    save(tmp_path / "det.csv", found)
    table = read_annotations(tmp_path / "ann.csv")
    assert set(table["image_path"]) == {"a.jpg"} and len(table) == 3
    arguments = [str(tmp_path / "ann.csv"), str(tmp_path / "classes.csv"), "--detections", str(tmp_path / "det.csv")]
    assert main(["evaluate", *arguments]) == 0
    assert "1.000" in capsys.readouterr().out
    assert set(make_table([("./a.jpg", 1, 2, 3, 4, "mask"), ("a.jpg", *EMPTY)])["image_path"]) == {"a.jpg"}
    assert set(read("csv", [tmp_path / "ann.csv"], tmp_path)[0]["image_path"]) == {"a.jpg"}
