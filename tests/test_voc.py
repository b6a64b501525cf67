"""labelImg's XML: everything that can be wrong with it, labelImg's own reader and writer, and real data."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinamask.dataset.annotations import (
    AnnotationError,
    image_paths,
    make_table,
    objects,
    read_annotations,
    write_annotations,
)
from retinamask.dataset.formats import Problem, class_ids, read, summary, voc, write_voc
from retinamask.dataset.formats.reading import CLIP_LIMIT

EMPTY = (None,) * 5
SIZE = (40, 30)
FACE = ("mask", 5, 6, 20, 25)


def xml(*faces, filename: object = "a.jpg", size: tuple | None = SIZE, path: str = "a.jpg") -> str:
    """A VOC file; a face is ``(name, xmin, ymin, xmax, ymax)``, where ``None`` leaves an element out."""

    def element(tag, content):
        return "" if content is None else f"<{tag}>{content}</{tag}>\n"

    lines = [element("filename", filename), element("path", path)]
    if size:
        lines.append(element("size", element("width", size[0]) + element("height", size[1])))
    for name, *edges in faces:
        box = "".join(map(element, ("xmin", "ymin", "xmax", "ymax"), edges))
        lines.append(element("object", "\n" + element("name", name) + element("bndbox", box)))
    return element("annotation", "\n" + "".join(lines))


def save(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def draw(path: Path, size: tuple[int, int] = SIZE, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "orange").save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with one sound pair, ``good.jpg`` and ``good.xml``, beside which the rest is judged."""
    draw(tmp_path / "good.jpg")
    save(tmp_path / "good.xml", xml(FACE, filename="good.jpg"))
    return tmp_path


GOOD = ("good.jpg", 5, 6, 20, 25, "mask")


def rows(table) -> list[tuple]:
    return [tuple(row) for row in table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)]


# --- Sources that hold nothing ---


def test_no_xml_at_all(tmp_path):
    with pytest.raises(AnnotationError, match="no XML file below .*; expected Pascal VOC files as labelImg saves them"):
        read("voc", [tmp_path], tmp_path)
    draw(tmp_path / "a.jpg")
    save(tmp_path / "._a.xml", b"\x00\x05\x16\x07")  # what macOS puts into archives
    (tmp_path / "folder.xml").mkdir()
    with pytest.raises(AnnotationError, match="no XML file below"):
        read("voc", [tmp_path], tmp_path, with_unannotated=True)


def test_no_such_folder(folder):
    with pytest.raises(AnnotationError, match=r"none does not exist; expected Pascal VOC files as labelImg saves them"):
        read("voc", [folder, folder / "none"], folder)
    with pytest.raises(AnnotationError, match=r"none is not a folder; expected the folder of the images"):
        read("voc", [folder], folder, image_folder=folder / "none")


def test_no_xml_that_can_be_used(tmp_path):
    save(tmp_path / "a.xml", "")
    save(tmp_path / "b.xml", xml(FACE, filename="none.jpg"))
    draw(tmp_path / "without.jpg")
    with pytest.raises(AnnotationError, match=r"none of the 2 XML file\(s\) could be used:\n.*a\.xml.*\n.*b\.xml"):
        read("voc", [tmp_path], tmp_path, with_unannotated=True)


# --- Files that cannot be used: each is reported and the rest is kept ---

BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + xml(FACE, filename="&b;")
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + xml(FACE, filename="&x;")
OUTSIDE_DTD = '<!DOCTYPE annotation SYSTEM "http://example.invalid/voc.dtd">' + xml(FACE)
BAD_FILES = {
    "empty": ("", "line 1: not well-formed XML (no element found)"),
    "truncated": (xml(FACE)[:-30], "line 13: not well-formed XML"),
    "not xml": ("a.jpg,1,2,3,4,mask\n", "line 1: not well-formed XML (syntax error)"),
    "binary": (bytes(range(256)), "line 1: not well-formed XML"),
    "another kind": ("\n<html><body/></html>", "line 2: found <html>, expected Pascal VOC's <annotation>"),
    "coco in xml": ("<annotations></annotations>", "line 1: found <annotations>, expected Pascal VOC's <annotation>"),
    "entity bomb": (BOMB, "XML entities and outside files are refused"),
    "external entity": (EXTERNAL, "XML entities and outside files are refused"),
    "outside dtd": (OUTSIDE_DTD, "XML entities and outside files are refused"),
    "not utf-8": (xml(("Gr\xf6\xdfe", 1, 2, 3, 4)).encode("latin-1"), "line 8: not well-formed XML"),
    "unknown encoding": ('<?xml version="1.0" encoding="klingon"?>' + xml(FACE), "unknown encoding"),
    "missing image": (
        xml(FACE, filename="none.jpg"),
        "no image named 'none.jpg' or 'bad' with an image's ending in",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_reported_and_the_rest_is_kept(folder, content, message):
    bad = save(folder / "bad.xml", content)
    table, problems = read("voc", [folder], folder)
    assert rows(table) == [GOOD]
    assert [(problem.action, problem.where) for problem in problems] == [("skipped file", str(bad))]
    assert problems[0].message.startswith(message)
    assert str(problems[0]) == f"{bad}: {problems[0].message} (skipped file)"
    assert summary(problems) == "1 skipped file"


def test_one_bad_file_among_many(tmp_path):
    for number in range(50):
        draw(tmp_path / "images" / f"{number:02d}.jpg")
        content = "<oops" if number == 23 else xml(FACE, filename=f"{number:02d}.jpg")
        save(tmp_path / "xml" / f"{number:02d}.xml", content)
    table, problems = read("voc", [tmp_path], tmp_path)
    assert image_paths(table) == [f"images/{number:02d}.jpg" for number in range(50) if number != 23]
    assert summary(problems) == "1 skipped file"


def test_an_oversize_file_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(voc, "MAX_BYTES", 1000)
    save(folder / "bad.xml", xml(FACE) + " " * 1000)
    _, problems = read("voc", [folder], folder)
    assert "bytes, expected an annotation of at most 1,000" in problems[0].message


def test_deep_nesting_takes_no_time(folder):
    save(folder / "bad.xml", "<annotation>" + "<a>x" * 100_000 + "x</a>" * 100_000 + "</annotation>")
    table, problems = read("voc", [folder], folder)
    assert (rows(table), summary(problems)) == ([GOOD], "1 skipped file")


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_a_link_to_nowhere(folder):
    (folder / "gone.xml").symlink_to(folder / "nowhere")
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    table, problems = read("voc", [folder], folder, with_unannotated=True)
    assert rows(table) == [GOOD]
    assert [(problem.action, problem.message) for problem in problems] == [
        ("note", f"{folder / name}: a link that leads nowhere") for name in ("gone.jpg", "gone.xml")
    ]


@pytest.mark.parametrize("content", [b"", b"hello", "cut"])
def test_a_bad_image_is_reported(folder, content):
    if content == "cut":
        content = draw(folder / "bad.jpg").read_bytes()[:-40]
    save(folder / "bad.jpg", content)
    bad = save(folder / "bad.xml", xml(FACE, filename="bad.jpg"))
    for with_unannotated in (False, True):
        table, problems = read("voc", [folder], folder, with_unannotated=with_unannotated)
        assert rows(table) == [GOOD]
        assert [(problem.action, problem.where) for problem in problems] == [("skipped file", str(bad))]
        assert str(folder / "bad.jpg") in problems[0].message


# --- Objects that cannot be used ---

WIDTH, HEIGHT = SIZE
BAD_OBJECTS = [
    (("mask", 5, 6, 5, 25), "box (5, 6, 5, 25) is empty or inverted; expected xmin < xmax and ymin < ymax"),
    (("mask", 20, 25, 5, 6), "box (20, 25, 5, 6) is empty or inverted"),
    (("mask", 5, 25, 20, 6), "box (5, 25, 20, 6) is empty or inverted"),
    (("mask", 50, 5, 60, 10), "box (50, 5, 60, 10) lies outside the image of 40 x 30 pixels"),
    (("mask", WIDTH, 5, WIDTH + 3, 10), "box (40, 5, 43, 10) lies outside the image"),
    (("mask", 5, 5, WIDTH + CLIP_LIMIT + 1, 10), "box (5, 5, 46, 10) lies outside the image"),
    (("mask", "nan", 6, 20, 25), "box of 'mask' is (nan, 6, 20, 25), expected four numbers xmin, ymin, xmax, ymax"),
    (("mask", 5, "inf", 20, 25), "box of 'mask' is (5, nan, 20, 25), expected four numbers"),
    (("mask", 5, 6, None, 25), "box of 'mask' is (5, 6, nan, 25), expected four numbers"),
    (("mask", 5, 6, 20, ""), "box of 'mask' is (5, 6, 20, nan), expected four numbers"),
    (("mask", 5, 6, 20, "25px"), "box of 'mask' is (5, 6, 20, nan), expected four numbers"),
    ((None, 5, 6, 20, 25), "object without a <name>"),
    ((" ", 5, 6, 20, 25), "object without a <name>"),
    (("masc", 5, 6, 20, 25), "class 'masc' is not among the classes (mask, no_mask); add it or fix the label"),
]


@pytest.mark.parametrize(("face", "message"), BAD_OBJECTS)
def test_a_bad_object_is_dropped_and_the_rest_is_kept(tmp_path, face, message):
    draw(tmp_path / "a.jpg")
    path = save(tmp_path / "a.xml", xml(FACE, face, FACE))
    line = [number for number, text in enumerate(path.read_text().splitlines(), 1) if "<object>" in text][1]
    table, problems = read("voc", [tmp_path], tmp_path, classes={"mask": 0, "no_mask": 1})
    assert rows(table) == [("a.jpg", 5, 6, 20, 25, "mask")] * 2
    assert [(problem.action, problem.where) for problem in problems] == [("dropped box", f"{path} line {line}")]
    assert problems[0].message.startswith(message)


@pytest.mark.parametrize(
    ("face", "kept", "pixels"),
    [
        (("mask", 5, 6, WIDTH + 1, 25), (5, 6, WIDTH, 25), "1"),
        (("mask", -2, 6, WIDTH + CLIP_LIMIT, 25), (0, 6, WIDTH, 25), "5"),
        (("mask", 5, -0.5, 20, HEIGHT), (5, 0, 20, HEIGHT), "0.5"),
    ],
)
def test_a_box_a_few_pixels_outside_is_clipped_and_counted(tmp_path, face, kept, pixels):
    draw(tmp_path / "a.jpg")
    save(tmp_path / "a.xml", xml(face))
    table, problems = read("voc", [tmp_path], tmp_path)
    assert rows(table) == [("a.jpg", *kept, "mask")]
    assert summary(problems) == "1 clipped box"
    assert f"reaches {pixels} px past the image of 40 x 30 pixels" in problems[0].message


def test_decimal_coordinates_are_kept(tmp_path):
    draw(tmp_path / "a.jpg")
    save(tmp_path / "a.xml", xml(("mask", 5.25, " 6.5\n", "2e1", "25.0")))
    table, problems = read("voc", [tmp_path], tmp_path)
    assert (rows(table), problems) == ([("a.jpg", 5.25, 6.5, 20, 25, "mask")], [])


def test_an_image_whose_objects_all_go_is_left_out(tmp_path):
    """It shows something, so it must not be learnt as an image without objects."""
    draw(tmp_path / "a.jpg")
    save(tmp_path / "a.xml", xml(("cat", 1, 2, 3, 4)))
    table, problems = read("voc", [tmp_path], tmp_path, classes={"mask": 0})
    assert (rows(table), summary(problems)) == ([], "1 dropped box, 1 skipped file")


def test_a_box_under_one_pixel_is_dropped_and_named(tmp_path):
    draw(tmp_path / "a.jpg")
    save(tmp_path / "a.xml", xml(("mask", 1, 2, 3, 4), ("mask", 5.1, 5, 5.4, 9)))
    table, problems = read("voc", [tmp_path], tmp_path)
    assert len(table) == 1 and "(5.1, 5, 5.4, 9) is under one pixel" in problems[0].message


def test_hidden_copies_of_jupyter_are_not_read(tmp_path):
    draw(tmp_path / "a.jpg")
    save(tmp_path / "a.xml", xml(("mask", 1, 2, 3, 4)))
    (tmp_path / ".ipynb_checkpoints").mkdir()
    save(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.xml", xml(("mask", 1, 2, 3, 4)))
    table, problems = read("voc", [tmp_path], tmp_path)
    assert len(table) == 1 and problems == []


def test_labels_of_body_parts_are_not_those_of_the_person(tmp_path):
    draw(tmp_path / "a.jpg")
    part = "<part><name>hand</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></part>"
    save(tmp_path / "a.xml", xml(FACE).replace("<object>", f"<object>{part}"))
    assert rows(read("voc", [tmp_path], tmp_path)[0]) == [("a.jpg", 5, 6, 20, 25, "mask")]


# --- Sizes, encodings, EXIF ---


@pytest.mark.parametrize(
    ("size", "note"),
    [
        (None, "no <size>; the image's own 40 x 30 is used"),
        ((0, 0), "no <size>; the image's own 40 x 30 is used"),
        (("wide", 30), "no <size>"),
        ((30, 40), "<size> says 30 x 40, the upright image has 40 x 30; look at its boxes"),
    ],
)
def test_the_images_own_size_counts(tmp_path, size, note):
    draw(tmp_path / "a.jpg")
    path = save(tmp_path / "a.xml", xml(FACE, size=size))
    table, problems = read("voc", [tmp_path], tmp_path)
    assert rows(table) == [("a.jpg", 5, 6, 20, 25, "mask")]
    assert [(problem.action, problem.where) for problem in problems] == [("note", str(path))]
    assert problems[0].message.startswith(note)


@pytest.mark.parametrize(
    ("encoding", "declaration"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-8", '<?xml version="1.0" encoding="UTF-8"?>'),
        ("utf-16", ""),
        ("utf-16", '<?xml version="1.0" encoding="UTF-16"?>'),
        ("latin-1", '<?xml version="1.0" encoding="ISO-8859-1"?>'),
    ],
)
def test_encodings(tmp_path, encoding, declaration):
    draw(tmp_path / "Größe.jpg")
    content = declaration + xml(("Öl & Maß".replace("&", "&amp;"), 1, 2, 3, 4), filename="Größe.jpg")
    save(tmp_path / "other.xml", content.encode(encoding))
    table, problems = read("voc", [tmp_path], tmp_path)
    assert (rows(table), problems) == ([("Größe.jpg", 1, 2, 3, 4, "Öl & Maß")], [])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_a_turned_image_are_those_of_the_upright_one(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    draw(tmp_path / "a.jpg", SIZE[::-1] if orientation >= 5 else SIZE, exif=exif)
    save(tmp_path / "a.xml", xml(("mask", 5, 6, 39, 25)))
    table, problems = read("voc", [tmp_path], tmp_path)
    assert rows(table) == [("a.jpg", 5, 6, 39, 25, "mask")]
    turned = ["the image is turned by EXIF; keras-retinanet's own reader does not turn it"]
    assert [problem.message for problem in problems] == (turned if orientation > 1 else [])


# --- Which image belongs to which XML ---


@pytest.mark.parametrize(
    ("xml_name", "filename", "image_name"),
    [
        ("a.xml", "a.jpg", "a.jpg"),
        ("A.XML", "a.jpg", "a.jpg"),
        ("other.xml", "a.jpg", "a.jpg"),
        ("other.xml", "a", "a.png"),  # without an extension
        ("other.xml", "photo.v1", "photo.v1.png"),
        ("a.xml", "a.tiff", "a.webp"),  # with another extension
        ("a.xml", "a.jpg", "a.JPG"),
        ("a.xml", "", "a.jpeg"),
        ("a.xml", None, "a.bmp"),
        ("a.xml", "renamed since.jpg", "a.jpg"),
        ("a.xml", r"C:\Users\someone\Pictures\a.jpg", "a.jpg"),
        ("a.xml", "/home/someone/a.jpg", "a.jpg"),
        ("Ein Bild, schön 人.xml", "Ein Bild, schön 人.jpg", "Ein Bild, schön 人.jpg"),
        ("a.xml", "Tom &amp; Ann &lt;3.jpg", "Tom & Ann <3.jpg"),
    ],
)
def test_the_image_is_found(tmp_path, xml_name, filename, image_name):
    folder = tmp_path / "my data é"
    draw(folder / "images" / image_name)
    draw(folder / "images" / "unrelated.jpg")
    save(folder / "labels" / xml_name, xml(FACE, filename=filename))
    table, problems = read("voc", [folder], folder)
    assert rows(table) == [(f"images/{image_name}", 5, 6, 20, 25, "mask")]
    assert summary(problems) == "1 note"  # of the image without XML


@pytest.mark.parametrize(
    "path", [r"C:\Users\me\secret.jpg", "/etc/passwd", "../outside.jpg", "http://example.invalid/a.jpg"]
)
def test_the_path_of_another_computer_is_not_trusted(tmp_path, path):
    draw(tmp_path / "outside.jpg")
    draw(tmp_path / "data" / "a.jpg")
    save(tmp_path / "data" / "a.xml", xml(FACE, path=path))
    assert image_paths(read("voc", [tmp_path / "data"], tmp_path)[0]) == ["data/a.jpg"]


@pytest.mark.parametrize(
    "filename", ["../outside.jpg", r"..\outside.jpg", "{root}/outside.jpg", "..", "images/../../outside.jpg"]
)
def test_no_file_name_reaches_outside_the_image_folder(folder, filename):
    draw(folder.parent / "outside.jpg")
    save(folder / "bad.xml", xml(FACE, filename=filename.format(root=folder.parent)))
    table, problems = read("voc", [folder], folder)
    assert rows(table) == [GOOD]
    assert summary(problems) == "1 skipped file"


def test_of_equal_names_each_has_that_of_its_own_folder(tmp_path):
    for name in ("one", "two"):
        draw(tmp_path / name / "images" / "0.jpg")
        save(tmp_path / name / "labels" / "0.xml", xml(FACE, filename="0.jpg"))
    table, problems = read("voc", [tmp_path], tmp_path)
    assert (image_paths(table), problems) == (["one/images/0.jpg", "two/images/0.jpg"], [])


@pytest.mark.parametrize("with_unannotated", [False, True])
def test_an_image_in_folders_of_other_names_is_missing(folder, with_unannotated):
    for name in ("one", "two"):
        draw(folder / name / "0.jpg")
    save(folder / "labels" / "x.xml", xml(FACE, filename="0.jpg"))
    table, problems = read("voc", [folder], folder, with_unannotated=with_unannotated)
    assert rows(table) == [GOOD]  # nor are they images without objects: the XML may be about one of them
    assert problems[0].action == "skipped file" and problems[0].message.startswith("no image named '0.jpg' or 'x'")


@pytest.mark.parametrize("with_unannotated", [False, True])
def test_two_xml_for_one_image(folder, with_unannotated):
    draw(folder / "b.jpg")
    save(folder / "b.xml", xml(FACE, filename="b.jpg"))
    second = save(folder / "good2.xml", xml(("no_mask", 1, 1, 9, 9), filename="good.jpg"))
    table, problems = read("voc", [folder], folder, with_unannotated=with_unannotated)
    assert [row[0] for row in rows(table)] == ["b.jpg"]
    assert problems == [
        Problem(
            "skipped file",
            str(one),
            f"{folder / 'good.jpg'} is annotated by {other} too, differently; the image is left out, "
            "keep one XML for an image",
            "good.jpg",
        )
        for one, other in ((folder / "good.xml", second), (second, folder / "good.xml"))
    ]


def test_the_image_folder_may_be_elsewhere(tmp_path):
    draw(tmp_path / "images" / "deep" / "a.jpg")
    save(tmp_path / "labels" / "a.xml", xml(FACE))
    (tmp_path / "runs").mkdir()
    for folder in ("images/deep", "images"):
        if folder == "images":  # one folder of XML for folders of images, as labelImg saves it
            save(tmp_path / "labels" / "a.xml", xml(FACE).replace("<filename>", "<folder>deep</folder><filename>"))
        table, problems = read("voc", [tmp_path / "labels"], tmp_path / "runs", image_folder=tmp_path / folder)
        assert (image_paths(table), problems) == (["../images/deep/a.jpg"], [])


def test_paths_are_relative_to_the_folder_of_the_csv(tmp_path, monkeypatch):
    draw(tmp_path / "data" / "a.jpg")
    save(tmp_path / "data" / "a.xml", xml(FACE))
    monkeypatch.chdir(tmp_path)
    for csv_folder, expected in ((".", "data/a.jpg"), ("data", "a.jpg"), ("runs/1", "../../data/a.jpg")):
        for source in (Path("data"), tmp_path / "data"):
            assert image_paths(read("voc", [source], csv_folder)[0]) == [expected]


def test_single_files_and_folders_can_be_mixed(tmp_path):
    for name in ("a", "b", "c"):
        draw(tmp_path / name / f"{name}.jpg")
        save(tmp_path / name / f"{name}.xml", xml(FACE, filename=f"{name}.jpg"))
    sources = [tmp_path / "c", tmp_path / "a" / "a.xml", tmp_path / "c" / "c.xml"]
    table, problems = read("voc", sources, tmp_path)
    assert (image_paths(table), problems) == (["a/a.jpg", "c/c.jpg"], [])


# --- Images without XML ---


def test_images_without_xml(folder):
    draw(folder / "backgrounds" / "street.png")
    save(folder / "backgrounds" / "broken.png", b"")
    (folder / ".hidden.jpg").touch()
    table, problems = read("voc", [folder], folder)
    assert rows(table) == [GOOD]
    assert [str(problem) for problem in problems] == [
        f"{folder}: 1 file whose name begins with a dot is not read (note)",
        f"{folder}: 2 image(s) without XML left out, such as {folder / 'backgrounds' / 'broken.png'} (note)",
    ]
    table, problems = read("voc", [folder], folder, with_unannotated=True)
    assert rows(table) == [GOOD, ("backgrounds/street.png", *EMPTY)]
    assert [problem.action for problem in problems] == ["note", "note", "skipped file"]
    assert problems[2].where == str(folder / "backgrounds" / "broken.png")


def test_an_image_whose_xml_is_bad_is_no_image_without_objects(folder):
    draw(folder / "images" / "face.jpg")
    save(folder / "labels" / "face.xml", "<oops")
    table, problems = read("voc", [folder], folder, with_unannotated=True)
    assert (rows(table), summary(problems)) == ([GOOD], "1 skipped file")


def test_an_image_whose_xml_was_not_asked_for_is_no_image_without_objects(folder):
    draw(folder / "face.jpg")
    save(folder / "face.xml", xml(FACE, filename="face.jpg"))
    table, problems = read("voc", [folder / "good.xml"], folder, with_unannotated=True)
    assert (rows(table), problems) == ([GOOD], [])


# --- Writing, and labelImg's own reader and writer ---

FACES = [
    ([], []),
    ([[5, 6, 20, 25]], ["mask"]),
    ([[0, 0, 40, 30], [1, 5, 6, 7], [5, 1, 6, 7], [2, 2, 40, 7], [2, 2, 7, 30]], ["a", "b", "c", "d", "e"]),
    ([[5.9, 6.2, 20.7, 25.5]], ["Öl & <Maß> 'x' \"y\" 人"]),
]


@pytest.mark.parametrize(("boxes", "names"), FACES, ids=len)
@pytest.mark.parametrize("image_path", ["images/a.jpg", "a.jpg", "Größe & <3/a b 人.png"])
def test_written_as_labelimg_writes_and_read_back(tmp_path, monkeypatch, boxes, names, image_path):
    pascal_voc_io = pytest.importorskip("libs.pascal_voc_io", reason="labelImg is not installed")
    monkeypatch.chdir(tmp_path)
    image = Path(image_path)
    write_voc("ours.xml", image, SIZE, np.array(boxes), names)

    writer = pascal_voc_io.PascalVocWriter(image.parent.name, image.name, (*SIZE[::-1], 3), local_img_path=image.name)
    whole = [[int(edge) for edge in box] for box in boxes]
    for box, name in zip(whole, names, strict=True):
        writer.add_bnd_box(*box, name, 0)
    writer.save("theirs.xml")
    assert Path("ours.xml").read_bytes() == Path("theirs.xml").read_bytes()

    draw(image)
    table, problems = read("voc", ["ours.xml"], ".", image_folder=image.parent)
    expected = [(image_path, *box, name) for box, name in zip(whole, names, strict=True)]
    assert (rows(table), problems) == (expected or [(image_path, *EMPTY)], [])

    shapes = pascal_voc_io.PascalVocReader("ours.xml").get_shapes()
    assert [(name, *points[0], *points[2]) for name, points, *_ in shapes] == [
        (name, *box) for box, name in zip(whole, names, strict=True)
    ]


def test_writing_replaces_whole_files_only(tmp_path):
    path = save(tmp_path / "a.xml", "old")
    with pytest.raises(ValueError, match="zip"):
        write_voc(path, "a.jpg", SIZE, [[1, 2, 3, 4]], [])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_classes_are_numbered_as_they_appear():
    assert class_ids(make_table([("a.jpg", *EMPTY)])) == {}
    table = make_table([("a.jpg", *EMPTY), *(("a.jpg", 1, 2, 3, 4, name) for name in ("worn", "mask", "worn", "none"))])
    assert class_ids(table) == {"worn": 0, "mask": 1, "none": 2}


def test_summary():
    assert summary([]) == "no problems"
    problems = [Problem(action, "a.xml", "") for action in ("note", "clipped box", "note")]
    assert summary(problems) == "2 note, 1 clipped box"


# --- Real data ---

REAL_DATA = Path(os.environ.get("RETINAMASK_DATA") or Path(__file__).parents[2] / "shared" / "data")


@pytest.mark.parametrize(
    ("name", "images", "boxes", "found"),
    [("praveen", 550, 628, "no problems"), ("andrewmvd", 683, 3327, "10 clipped box")],
)
def test_real_data(tmp_path, name, images, boxes, found):
    source = REAL_DATA / name
    if not source.is_dir():
        pytest.skip(f"{source} is not there; set RETINAMASK_DATA to the folder that holds {name}/")
    table, problems = read("voc", [source], tmp_path)
    assert (len(image_paths(table)), len(objects(table)), summary(problems)) == (images, boxes, found)
    assert write_annotations(table, tmp_path / "annotations.csv") == 0
    assert rows(read_annotations(tmp_path / "annotations.csv", class_ids(table))) == rows(table)


def test_renamed_images_whose_xml_names_another_are_told(tmp_path):
    for name, inside in (("1", "2"), ("2", "1")):
        draw(tmp_path / f"{name}.jpg")
        save(tmp_path / f"{name}.xml", xml(FACE, filename=f"{inside}.jpg"))
    _, problems = read("voc", [tmp_path], tmp_path)
    assert [problem.action for problem in problems] == ["note", "note"]
    assert "it names 2.jpg, but labelImg shows it with" in problems[0].message


def test_an_image_of_another_folders_annotations_is_not_taken(tmp_path):
    for split, stems in (("train", ["2"]), ("val", ["1", "3"])):
        for folder in ("images", "annotations"):
            (tmp_path / split / folder).mkdir(parents=True)
        for stem in stems:
            draw(tmp_path / split / "images" / f"{stem}.jpg")
            save(tmp_path / split / "annotations" / f"{stem}.xml", xml(FACE, filename=f"{stem}.jpg"))
    save(tmp_path / "train" / "annotations" / "1.xml", xml(FACE, filename="1.jpg"))
    table, problems = read("voc", [tmp_path], tmp_path)
    assert sorted(table["image_path"]) == ["train/images/2.jpg", "val/images/1.jpg", "val/images/3.jpg"]
    assert [problem.action for problem in problems] == ["skipped file"]
    assert "no image named '1.jpg'" in problems[0].message
