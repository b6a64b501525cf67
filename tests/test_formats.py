"""What the formats have in common: class maps, guessing, there and back over all of them, and the commands."""

import re
from pathlib import Path

import pytest
from format_files import EMPTY, SIZE, draw, rows, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinamask.cli import main
from retinamask.dataset.annotations import (
    AnnotationError,
    image_paths,
    make_table,
    objects,
    read_annotations,
    read_classes,
)
from retinamask.dataset.formats import (
    FORMATS,
    apply_class_map,
    class_ids,
    classes_of,
    guess,
    parse_class_map,
    read,
    write_format,
)
from retinamask.dataset.formats.class_names import likely_slips

WRITTEN = [name for name, known in FORMATS.items() if known.write]
HALF = {"voc": 0.5, "csv": 0.5, "yolo": 1e-4, "coco": 1e-9, "createml": 1e-9}  # pixels that rounding may cost
TABLE = make_table(
    [
        ("b.jpg", 1, 2, 3, 4, "incorrect"),
        ("a.jpg", 1, 2, 3, 4, "with_mask"),
        ("a.jpg", 1, 2, 3, 4, "without_mask"),
        ("c.jpg", *EMPTY),
    ]
)

# --- Classes ---


def test_classes_are_numbered_by_the_list_and_then_as_they_appear():
    assert class_ids(TABLE) == {"incorrect": 0, "with_mask": 1, "without_mask": 2}
    assert class_ids(TABLE, ["hat", "with_mask"]) == {"hat": 0, "with_mask": 1, "incorrect": 2, "without_mask": 3}


@pytest.mark.parametrize("name", WRITTEN)
def test_ids_do_not_depend_on_the_order_of_the_sources(tmp_path, name):
    for letter in "abc":
        draw(tmp_path / f"{letter}.jpg")
    for letter in "bca":
        table = make_table([(f"{letter}.jpg", 1, 2, 30, 20, f"class {letter}")])
        write_format(table, {f"class {letter}": 0}, name, tmp_path / f"new {letter}", tmp_path)
    sources = [tmp_path / f"new {letter}" for letter in "abc"]
    orders = []
    for given_order in (sources, sources[::-1], [sources[1], sources[0], sources[2]]):
        images = None if name == "yolo" else tmp_path
        orders.append(class_ids(read(name, given_order, tmp_path, images)[0]))
    assert orders == [{"class a": 0, "class b": 1, "class c": 2}] * 3


def test_class_maps():
    class_map = parse_class_map("with_mask = mask, without_mask=no_mask,incorrect=no_mask")
    assert class_map == {"with_mask": "mask", "without_mask": "no_mask", "incorrect": "no_mask"}
    table, _ = apply_class_map(TABLE, class_ids(TABLE), class_map)
    assert [row[5] for row in rows(table)] == ["no_mask", "mask", "no_mask", None]
    assert list(TABLE["class_name"][:1]) == ["incorrect"]
    classes = {"without_mask": 1, "with_mask": 0, "incorrect": 2}
    assert apply_class_map(TABLE, classes, class_map)[1] == {"mask": 0, "no_mask": 1}
    classes = {"incorrect": 0, "with_mask": 1, "hat": 2}
    assert apply_class_map(TABLE, classes, {"hat": "incorrect"})[1] == {"incorrect": 0, "with_mask": 1}


def test_a_class_map_may_swap_two_names():
    swapped, _ = apply_class_map(TABLE, class_ids(TABLE), {"with_mask": "without_mask", "without_mask": "with_mask"})
    assert [row[5] for row in rows(swapped)] == ["incorrect", "without_mask", "with_mask", None]


def test_unknown_names_in_a_class_map_are_refused():
    message = "found no class 'mask', 'x'; the classes are 'incorrect', 'with_mask', 'without_mask'"
    with pytest.raises(AnnotationError, match=message):
        apply_class_map(TABLE, class_ids(TABLE), {"mask": "a", "x": "b", "with_mask": "c"})


@pytest.mark.parametrize("text", ["", "a", "a=", "=b", "a=b,", "a=b=c", "a=b;c=d", "a=b,a=c"])
def test_a_bad_class_map_is_refused(text):
    with pytest.raises(AnnotationError, match=r"class map: .*(expected old=new|twice)"):
        parse_class_map(text)


def test_likely_slips():
    assert likely_slips(["mask", "no_mask", "no-mask"]) == []
    assert likely_slips(["noMask", "mask"], ["nomask"]) == [
        "classes 'nomask' and 'noMask' differ only in case or white space, probably a slip; "
        "a class map makes them one: noMask=nomask"
    ]


@pytest.mark.parametrize("name", WRITTEN)
def test_every_reader_reports_likely_slips(tmp_path, name):
    draw(tmp_path / "a.jpg")
    table = make_table([("a.jpg", 1, 2, 30, 20, "noMask"), ("a.jpg", 1, 2, 30, 20, "no mask")])
    write_format(table, {"noMask": 0, "no mask": 1}, name, tmp_path / "new", tmp_path)
    _, problems = read(name, [tmp_path / "new"], tmp_path, None if name == "yolo" else tmp_path)
    assert sum("probably a slip" in problem.message for problem in problems) == 1


# --- There and back, all formats ---

edge_pairs = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"]), min_size=1, max_size=12).map(
    str.strip
)


@st.composite
def tables(draw_from):
    """Up to four images of odd sizes with up to five boxes each, of at least two pixels, and two to four classes."""
    classes = draw_from(st.lists(names.filter(bool), min_size=2, max_size=4, unique=True))
    sizes = draw_from(st.lists(st.tuples(st.integers(8, 60), st.integers(8, 60)), min_size=1, max_size=4))
    found = []
    for number, (width, height) in enumerate(sizes):
        boxes = draw_from(st.lists(st.tuples(edge_pairs, edge_pairs, st.sampled_from(classes)), max_size=5))
        path = f"images/{number} ü.png"
        for (left, right), (top, bottom), name in boxes:
            box = (left * (width - 2), top * (height - 2), right * (width - 2) + 2, bottom * (height - 2) + 2)
            found.append((path, *box, name))
        found += [] if boxes else [(path, *EMPTY)]
    return sizes, make_table(found), {name: number for number, name in enumerate(classes)}


@pytest.mark.parametrize("name", WRITTEN)
@settings(deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=tables())
def test_there_and_back(tmp_path_factory, name, drawn):
    sizes, table, classes = drawn
    folder = tmp_path_factory.mktemp("drawn")
    for number, size in enumerate(sizes):
        draw(folder / "images" / f"{number} ü.png", size)
    write_format(table, classes, name, folder / "new", folder)
    assert guess([folder / "new"]) == name
    csv_folder, images = (folder / "new" / "obj_train_data", None) if name == "yolo" else (folder, folder / "images")
    back, problems = read(name, [folder / "new"], csv_folder, images)
    assert [problem for problem in problems if "slip" not in problem.message] == []
    assert classes_of(name, [folder / "new"], back) == classes
    assert len(back) == len(table)
    for (path, *box, found), (old_path, *old_box, old) in zip(rows(back), rows(table), strict=True):
        assert (Path(path).name, found) == (Path(old_path).name, old)
        assert box == pytest.approx(old_box, abs=HALF[name]) if old else box == [None] * 4


def test_public_data_goes_through_all_formats(shared_data, tmp_path):
    """All of andrewmvd: VOC to YOLO to COCO to CreateML to VOC; its boxes are whole pixels, so none may move."""
    folder = shared_data / "andrewmvd"
    if not folder.is_dir():
        pytest.skip("andrewmvd is not there")
    first, _ = read("voc", [folder], tmp_path)
    classes = classes_of("voc", [folder], first)
    table = first
    for name in ("yolo", "coco", "createml", "voc", "csv"):
        source = tmp_path / name
        write_format(table, classes, name, source, tmp_path)
        table, problems = read(name, [source], tmp_path, None if name == "yolo" else folder)
        assert [problem for problem in problems if "without" not in problem.message] == []
        assert classes_of(name, [source], table) == classes
    assert len(image_paths(table)) == len(image_paths(first)) and len(objects(table)) == len(objects(first))
    old = [(Path(path).name, *box) for path, *box in rows(first)]
    assert sorted(map(str, old)) == sorted(str((Path(path).name, *box)) for path, *box in rows(table))


# --- Guessing ---


def test_guess_says_what_was_looked_for(tmp_path):
    with pytest.raises(AnnotationError, match="none does not exist; expected a folder or file of annotations"):
        guess([tmp_path / "none"])
    save(tmp_path / "notes.txt", "hello")
    save(tmp_path / "other.json", {"a": 1})
    save(tmp_path / "other.yaml", "a: 1")
    with pytest.raises(AnnotationError, match=r"no annotations that are known in .*\n- voc: Pascal VOC files") as error:
        guess([tmp_path])
    assert all(f"\n- {name}: " in str(error.value) for name in FORMATS)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path,x1,y1,x2,y2,class\na.jpg,1,2,3,4,mask\n", "line 1: x1 is 'x1', expected a number of pixels"),
        ("a.csv", "a.jpg;1;2;3;4;mask\n", "line 1: found 1 column(s), expected 6: .*use commas, not semicolons"),
        ("a.csv", "a.jpg,1,2,3,4,mask\nb.jpg,5,6,5,9,mask\n", "line 2: x2 (5) must exceed x1 (5) in b.jpg"),
        ("a.csv", "a.jpg,2_0,2,30,4,mask\n", "line 1: x1 is '2_0', expected a number"),
        ("a.csv", "a.jpg,0.1,0.2,0.3,0.4,mask\n", "line 1: 0.1, 0.2, 0.3, 0.4 may be shares of the size of a.jpg"),
        ("a.json", '{"x": [1, 2', "line 1: not JSON"),
        ("a.json", "hello", "line 1: not JSON"),
        ("data.yaml", "names: [a\n", "not readable as YAML"),
        ("data.yaml", "names: [a]\nnames: [b]\n", "names stands here twice"),
        ("obj.data", "names = a.names\nnames = b.names\n", "names stands there twice; keep one"),
    ],
)
@pytest.mark.parametrize("given", ["file", "folder"])
def test_what_is_wrong_with_a_file_is_said_and_not_that_its_format_is_unknown(tmp_path, name, content, message, given):
    draw(tmp_path / "a.jpg")
    path = save(tmp_path / name, content)
    with pytest.raises(AnnotationError) as error:
        guess([path if given == "file" else tmp_path])
    first, rest = str(error.value).split("\n", 1)
    assert str(path) in first and re.search(re.escape(message).replace(r"\.\*", ".*"), first)
    assert "no other annotations in" in rest


def test_guess(tmp_path):
    draw(tmp_path / "images" / "a.jpg")
    table = make_table([("images/a.jpg", 1, 2, 30, 20, "mask")])
    for name in WRITTEN:
        write_format(table, {"mask": 0}, name, tmp_path / "new" / name, tmp_path)
        assert guess([tmp_path / "new" / name]) == name
    assert guess([tmp_path / "new" / "voc", tmp_path / "new" / "csv"]) == "voc"
    assert guess([tmp_path / "new" / "yolo" / "data.yaml"]) == guess([tmp_path / "new" / "yolo" / "obj.data"]) == "yolo"
    assert guess([tmp_path / "new" / "yolo" / "obj_train_data" / "a.txt"]) == "yolo"
    save(tmp_path / "open" / "boxes.csv", "ImageID,LabelName,XMin,XMax,YMin,YMax\n")
    assert guess([tmp_path / "open"]) == "open_images"
    with pytest.raises(
        AnnotationError, match=r"several formats in .*: coco \(1 file\(s\)\), voc \(1 file\(s\)\); name"
    ):
        guess([tmp_path / "new" / "voc", tmp_path / "new" / "coco"])
    with pytest.raises(AnnotationError, match="no annotations that are known"):
        guess([tmp_path / "images" / "a.jpg"])
    draw(tmp_path / "faces" / "with_mask" / "a.jpg")
    draw(tmp_path / "faces" / "without_mask" / "a.jpg")
    assert guess([tmp_path / "faces"]) == "class_folders"
    with pytest.raises(AnnotationError, match="format is 'tfrecord', expected one of: voc, yolo, coco"):
        read("tfrecord", [tmp_path], tmp_path)
    with pytest.raises(AnnotationError, match="open_images is only read; formats that can be written: voc, yolo, coco"):
        write_format(table, {"mask": 0}, "open_images", tmp_path / "x", tmp_path)


# --- The commands ---


@pytest.fixture
def voc(tmp_path) -> Path:
    """A folder of three images with VOC XML, in the classes of andrewmvd."""
    for name in "abc":
        draw(tmp_path / "data" / f"{name}.jpg")
    (tmp_path / "data" / "labels").mkdir()
    write_format(TABLE, class_ids(TABLE), "voc", tmp_path / "data" / "labels", tmp_path / "data")
    (tmp_path / "data" / "labels" / "classes.csv").unlink()
    return tmp_path / "data"


MAP = "with_mask=mask,without_mask=no_mask,incorrect=no_mask"


def test_annotations_with_a_class_map(voc, tmp_path, capsys):
    arguments = ["annotations", str(voc), "--out", str(tmp_path / "a.csv"), "--classes", str(tmp_path / "c.csv")]
    assert main([*arguments, "--class-map", MAP]) == 0
    assert read_classes(tmp_path / "c.csv") == {"mask": 0, "no_mask": 1}
    assert [row[5] for row in rows(read_annotations(tmp_path / "a.csv"))] == ["mask", "no_mask", "no_mask", None]
    assert "3 images (1 of them without a box), 3 boxes" in capsys.readouterr().out

    save(tmp_path / "c.csv", "no_mask,0\nmask,1\n")
    assert main([*arguments, "--class-map", "with_mask=mask,without_mask=no_mask", "--force"]) == 0
    said = capsys.readouterr()
    assert (
        "class 'incorrect' is not among the classes" in said.err
        and "2 images (1 of them without a box), 2 boxes" in said.out
    )
    assert read_classes(tmp_path / "c.csv") == {"no_mask": 0, "mask": 1}

    for class_map, message in (
        ("with_mask=hat", "class map: hat is not among the classes (no_mask, mask)"),
        ("face=mask", "class map: found no class 'face'; the classes are"),
        ("face", "expected old=new"),
    ):
        before = (tmp_path / "a.csv").read_bytes()
        assert main([*arguments, "--class-map", class_map, "--force"]) == 2
        assert message in capsys.readouterr().err and (tmp_path / "a.csv").read_bytes() == before


def test_convert_annotations(voc, tmp_path, capsys):
    assert main(["convert-annotations", str(voc), str(tmp_path / "yolo"), "--to", "yolo", "--class-map", MAP]) == 0
    assert "3 images (1 of them without a box), 3 boxes as yolo" in capsys.readouterr().out
    assert (tmp_path / "yolo" / "obj.names").read_text() == "mask\nno_mask\n"
    assert (tmp_path / "yolo" / "obj_train_data" / "a.jpg").is_symlink()
    label = (tmp_path / "yolo" / "obj_train_data" / "b.txt").read_text()
    assert label == "1 0.0500000000 0.1000000000 0.0500000000 0.0666666667\n"

    save(tmp_path / "c.csv", "no_mask,0\nmask,1\n")
    options = ["--from", "yolo", "--to", "coco", "--classes", str(tmp_path / "c.csv")]
    assert main(["convert-annotations", str(tmp_path / "yolo"), str(tmp_path / "coco"), *options]) == 0
    images = ["--images-dir", str(voc)]
    assert main(["convert-annotations", str(tmp_path / "coco"), str(tmp_path / "csv"), "--to", "csv", *images]) == 0
    assert read_classes(tmp_path / "csv" / "classes.csv") == {"no_mask": 0, "mask": 1}
    assert rows(read_annotations(tmp_path / "csv" / "annotations.csv")) == [
        ("../data/a.jpg", 1, 2, 3, 4, "mask"),
        ("../data/a.jpg", 1, 2, 3, 4, "no_mask"),
        ("../data/b.jpg", 1, 2, 3, 4, "no_mask"),
        ("../data/c.jpg", *EMPTY),
    ]
    capsys.readouterr()
    for arguments, message in (
        ([str(voc), str(tmp_path / "coco"), "--to", "coco"], "exists; expected a new or empty folder"),
        ([str(voc), str(tmp_path / "x"), "--to", "tfrecord"], "format is 'tfrecord', expected one of"),
        ([str(voc), str(tmp_path / "x"), "--to", "open_images"], "open_images is only read"),
        ([str(voc), str(tmp_path / "x"), "--to", "yolo", "--yolo-images", "move"], "expected one of: link, copy, none"),
        ([str(voc), str(tmp_path / "x"), "--to", "voc", "--from", "coco"], "no JSON file below"),
        ([str(tmp_path / "no"), str(tmp_path / "x"), "--to", "voc"], "no does not exist"),
        ([str(tmp_path / "coco"), str(tmp_path / "x"), "--to", "voc"], "put it there or name the folder of the images"),
    ):
        assert main(["convert-annotations", *arguments]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_class_folders_become_a_table(tmp_path):
    for name in ("with_mask/1.jpg", "without_mask/2.jpg"):
        draw(tmp_path / "faces" / name)
    arguments = ["--out", str(tmp_path / "a.csv"), "--classes", str(tmp_path / "c.csv")]
    assert main(["annotations", str(tmp_path / "faces"), *arguments]) == 0
    assert rows(read_annotations(tmp_path / "a.csv")) == [
        ("faces/with_mask/1.jpg", 0, 0, *SIZE, "with_mask"),
        ("faces/without_mask/2.jpg", 0, 0, *SIZE, "without_mask"),
    ]
