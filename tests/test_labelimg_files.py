"""What is done before and after labelImg's window: what is refused, proposals, and the rebuilt table. No Qt here."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinamask.cli import main
from retinamask.dataset.annotations import AnnotationError, make_table, read_annotations, read_classes
from retinamask.dataset.formats import voc, write_voc
from retinamask.dataset.formats.writing import Picture
from retinamask.detectors.snapshots import SnapshotError
from retinamask.inference.detect import Detections
from retinamask.inference.suppression import filter_detections
from retinamask.labelimg import outcome, process, proposals
from retinamask.labelimg.folder import Session, checked_classes, data_folder, prepare, state

SIZE = (40, 30)
CLASSES = {"mask": 0, "no_mask": 1}
MASK = ("mask", (5, 6, 20, 25))


def draw(path: Path, size=SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "orange").save(path)
    return path


def annotate_file(path: Path, image: Path, *found) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Picture(image, SIZE, np.array([box for _, box in found]).reshape(-1, 4), [name for name, _ in found])
    proposals.write(path, picture, list(CLASSES))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images a, b and c; a has an XML with one box."""
    for name in ("a", "b", "c"):
        draw(tmp_path / "images" / f"{name}.jpg")
    annotate_file(tmp_path / "labels" / "a.xml", tmp_path / "images" / "a.jpg", MASK)
    return tmp_path


def ready(folder: Path, port_format: str = "voc", classes: dict | None = None, labels: str = "labels") -> Session:
    return prepare(folder / "images", folder / labels, port_format, CLASSES if classes is None else classes)


# --- Looking through the folder ---


def test_what_a_session_works_on(folder):
    session = ready(folder)
    assert [image.name for image in session.sizes_wh] == ["a.jpg", "b.jpg", "c.jpg"]
    assert session.annotated() == [(folder / "labels" / "a.xml", folder / "images" / "a.jpg")]
    assert [image.name for image in session.unannotated()] == ["b.jpg", "c.jpg"]
    assert session.class_names == ["mask", "no_mask"] and session.left_out == []


def test_where_annotations_are_by_default(folder, monkeypatch):
    monkeypatch.chdir(folder / "images")
    assert data_folder(folder / "images") == data_folder(".") == data_folder("../images/") == folder
    assert data_folder(folder / "labels") == folder / "labels"
    assert prepare(folder / "images", None, "yolo", CLASSES).annotation_folder == folder / "images"
    with pytest.raises(AnnotationError, match=r"there are some elsewhere, such as .*labels/a\.xml; name the right"):
        prepare(folder, None, "voc", CLASSES)
    (folder / "images" / "linked").symlink_to(folder / "labels")
    with pytest.raises(AnnotationError, match=r"there are some elsewhere, such as .*linked/a\.xml; name the right"):
        prepare(folder / "images", None, "voc", CLASSES)
    (folder / "images" / "linked").unlink()
    (folder / "labels").rename(folder / "annotations")
    for images in (folder / "images", folder):
        assert prepare(images, None, "voc", CLASSES).annotation_folder == folder / "annotations"
    with pytest.raises(AnnotationError, match=r"a\.jpg is a file; expected the folder of the annotation files"):
        prepare(folder, folder / "images" / "a.jpg", "voc", CLASSES)


def test_files_that_are_not_shown_are_counted(folder):
    (folder / "images" / "d.heic").write_bytes(b"")
    (problem,) = ready(folder).left_out
    assert str(problem) == f"{folder / 'images'}: 1 file ending in .heic is not read (note)"


def test_classes_of_the_files_come_after_the_known_ones(folder):
    annotate_file(folder / "labels" / "b.xml", folder / "images" / "b.jpg", ("hat", (1, 2, 9, 9)))
    assert ready(folder).class_names == ["mask", "no_mask", "hat"]
    assert ready(folder, classes={}).class_names == ["mask", "hat"]


@pytest.mark.parametrize("other", ["sub/a.jpg", "a.png"])
def test_two_images_with_one_annotation_file_are_refused(folder, other):
    draw(folder / "images" / other)
    with pytest.raises(AnnotationError, match=r"1 name\(s\) stand for more than one image.*rename them"):
        ready(folder)


def test_files_of_the_other_format_are_refused(folder):
    with pytest.raises(AnnotationError, match=r"1 image\(s\) have a \.xml file in .*, such as a\.xml"):
        ready(folder, "yolo")
    (folder / "labels" / "a.txt").write_text("")
    assert len(ready(folder).sizes_wh) == 3  # the XML is the one that labelImg takes
    (folder / "labels" / "b.txt").write_text("")
    with pytest.raises(AnnotationError, match=r"such as b\.txt, and labelImg would continue in that format"):
        ready(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation>", "not well-formed XML"),
        ("", "no element found"),
        (  # labelImg passes over all boxes of a file without <filename>
            "<annotation><object><name>mask</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
            "</bndbox></object></annotation>",
            r"labelImg would show 0 of 1 box\(es\); mend the file first",
        ),
    ],
)
def test_what_labelimg_would_show_empty_and_overwrite_is_left_out(folder, content, message):
    (folder / "labels" / "b.xml").write_text(content)
    session = ready(folder)
    assert [image.name for image in session.sizes_wh] == ["a.jpg", "c.jpg"]
    (problem,) = session.left_out
    assert problem.where.endswith("b.jpg") and re.search(message, problem.message)


def test_damaged_images_are_left_out(folder):
    (folder / "images" / "b.jpg").write_bytes((folder / "images" / "a.jpg").read_bytes()[:300])
    assert [problem.where for problem in ready(folder).left_out] == [str(folder / "images" / "b.jpg")]
    for name in ("a.jpg", "c.jpg"):
        (folder / "images" / name).write_text("no picture")
    with pytest.raises(AnnotationError, match=r"none of the 3 image\(s\) can be shown"):
        ready(folder)


def test_no_images(tmp_path):
    with pytest.raises(AnnotationError, match="is not a folder"):
        prepare(tmp_path / "none", None, "voc", {})
    with pytest.raises(AnnotationError, match="no image below"):
        prepare(tmp_path, None, "voc", {})


# --- YOLO text ---


def test_yolo_lines_are_those_of_labelimg(tmp_path):
    yolo_io = pytest.importorskip("libs.yolo_io", reason="labelImg is not installed")
    found = [("no_mask", (5, 6, 20, 25)), ("mask", (0, 0, 40, 30)), ("mask", (1, 2, 2, 3))]
    annotate_file(tmp_path / "ours.txt", tmp_path / "a.jpg", *found)
    writer = yolo_io.YOLOWriter("", "a.jpg", (*SIZE[::-1], 3))
    for name, box in found:
        writer.add_bnd_box(*box, name, 0)
    writer.save(list(CLASSES), str(tmp_path / "theirs.txt"))
    assert (tmp_path / "ours.txt").read_bytes() == (tmp_path / "theirs.txt").read_bytes()
    assert checked_classes(tmp_path / "theirs.txt", SIZE, list(CLASSES)) == [name for name, _ in found]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2 is beyond the list of 2 classes"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is beyond the list"),
        ("0 1.5 0.5 0.1 0.1", "expected shares of the image from 0 to 1"),
        ("0 nan 0.5 0.1 0.1", "found 'nan', expected a number"),
        ("0 0.5 0.5 0.1", "found 4 numbers, expected 5: class, centre x and y, width, height"),
        ("mask 0.5 0.5 0.1 0.1", "found 'mask', expected a number"),
        ("2_0 0.5 0.5 0.1 0.1", "found '2_0', expected a number"),
        ("0 0.5 0.5 0 0.1", "a box under one pixel, which saving would lose"),
    ],
)
def test_bad_yolo_lines_name_file_and_line(folder, line, message):
    path = folder / "yolo" / "b.txt"
    annotate_file(folder / "yolo" / "a.txt", folder / "images" / "a.jpg", MASK)
    path.write_text(f"0 0.5 0.5 0.1 0.2\n{line}\n")
    (folder / "yolo" / "classes.txt").write_text("mask\nno_mask\n")
    session = ready(folder, "yolo", labels="yolo")
    (problem,) = session.left_out
    assert str(path) in problem.message and message in problem.message
    pairs = [(folder / "yolo" / f"{name}.txt", folder / "images" / f"{name}.jpg") for name in ("a", "b")]
    table, problems = outcome.read_all(pairs, folder / "images", folder)
    assert len(table) == 2 and [problem.action for problem in problems] == ["dropped box", "note"]
    assert problems[0].where == f"{path} line 2"


def test_blanks_that_labelimg_cannot_read_leave_the_image_out(folder):
    path = annotate_file(folder / "yolo" / "a.txt", folder / "images" / "a.jpg", MASK)
    (folder / "yolo" / "classes.txt").write_text("mask\nno_mask\n")
    path.write_text(path.read_text() + "1  0.5 0.5 0.1 0.2\n")
    (problem,) = ready(folder, "yolo", labels="yolo").left_out
    assert "line 2: labelImg reads five numbers with one space between" in problem.message


def test_labelimg_gets_all_classes_that_our_list_has(folder):
    """It reads classes.txt alone: a box of a class that is not there it would not show, and lose."""
    annotate_file(folder / "yolo" / "a.txt", folder / "images" / "a.jpg", ("no_mask", (5, 6, 20, 25)))
    ready(folder, "yolo", labels="yolo")
    assert (folder / "yolo" / "classes.txt").read_text() == "mask\nno_mask\n"


@pytest.mark.parametrize("text", ["mask\n\nno_mask\n", " mask\nno_mask\n", "\ufeffmask\nno_mask\n"])
def test_class_lines_that_labelimg_counts_otherwise_are_refused(folder, text):
    (folder / "yolo").mkdir()
    (folder / "yolo" / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(AnnotationError, match="mend the file first"):
        ready(folder, "yolo", labels="yolo")


def test_a_session_pairs_by_stem_whatever_the_xml_names(folder):
    path = annotate_file(folder / "labels" / "b.xml", folder / "images" / "c.jpg", MASK)
    assert "<filename>c.jpg" in path.read_text()
    table, problems = outcome.read_all([(path, folder / "images" / "b.jpg")], folder / "images", folder)
    assert list(table["image_path"]) == ["images/b.jpg"]
    assert all(problem.action == "note" for problem in problems)


@pytest.mark.parametrize(
    ("lines", "known", "names"),
    [
        (["mask", "no_mask", "hat"], CLASSES, ["mask", "no_mask", "hat"]),
        (["mask"], CLASSES, ["mask", "no_mask"]),
        (["b", "a"], {}, ["b", "a"]),
        (["no_mask", "mask"], CLASSES, None),
        (["mask", "hat"], CLASSES, None),
        (["mask", "mask"], CLASSES, None),
    ],
)
def test_classes_txt_must_agree_with_the_class_list(folder, lines, known, names):
    (folder / "yolo").mkdir()
    (folder / "yolo" / "classes.txt").write_text("\n".join(lines))
    if names is None:
        with pytest.raises(AnnotationError, match="bring the two into the same order|keep each class once"):
            ready(folder, "yolo", known, "yolo")
    else:
        assert ready(folder, "yolo", known, "yolo").class_names == names


# --- Proposals ---


class Seer:
    """Finds the same boxes in every image, of both classes in turn."""

    class_names = list(CLASSES)

    def __init__(self, *boxes_xyxy, scores=None):
        self.boxes_xyxy = np.array(boxes_xyxy, dtype=float).reshape(-1, 4)
        self.class_scores = np.zeros((len(self.boxes_xyxy), 2))
        for index in range(len(self.boxes_xyxy)):
            self.class_scores[index, index % 2] = scores[index] if scores else 0.9

    def __call__(self, images_rgb, score_threshold, suppress):
        found = filter_detections(self.boxes_xyxy, self.class_scores, score_threshold, suppress=suppress)
        return [Detections(*found) for _ in images_rgb]


def test_proposals_are_written_only_where_nothing_is(folder):
    before = (folder / "labels" / "a.xml").read_bytes()
    session = ready(folder)
    seer = Seer((4.6, 6.4, 20.2, 25.5), (1, 1, 9, 9), (7, 7, 7.3, 7.2), scores=[0.9, 0.4, 0.9])
    written, unreadable = proposals.propose(session, seer, "net.h5", 0.5)
    assert (written, unreadable) == (["b.xml", "c.xml"], [])
    assert (folder / "labels" / "a.xml").read_bytes() == before
    entry = voc.parse(folder / "labels" / "b.xml")
    assert [(item.name, item.box_xyxy) for item in entry.objects] == [("mask", (5, 6, 20, 26))]
    text = (folder / "labels" / "b.xml").read_text()
    assert "verified" not in text and "<difficult>0</difficult>" in text
    record = proposals.read_record(folder / "labels")
    assert set(record) == {"b.xml", "c.xml"} and record["b.xml"]["snapshot"] == "net.h5"


def test_one_object_gets_one_box(folder):
    """IoU of the first two is 15 * 18 / (15 * 20) = 0.9, of the last with the first 15 * 10 / (15 * 25) = 0.4."""
    session = ready(folder)
    faces = [(5, 5, 20, 23), (5, 5, 20, 25), (5, 15, 20, 30)]
    proposals.propose(session, Seer(*faces, scores=[0.6, 0.8, 0.7]), "net.h5")
    entry = voc.parse(folder / "labels" / "b.xml")
    assert [(item.name, item.box_xyxy) for item in entry.objects] == [("no_mask", faces[1]), ("mask", faces[2])]


def test_nothing_found_leaves_the_image_unannotated(folder):
    session = ready(folder)
    assert proposals.propose(session, Seer(), "net.h5")[0] == []
    assert [image.name for image in session.unannotated()] == ["b.jpg", "c.jpg"]


def test_what_becomes_of_proposals(folder):
    for name in "defg":
        draw(folder / "images" / f"{name}.jpg")
    session = ready(folder)
    proposals.propose(session, Seer(MASK[1]), "net.h5", leave=[folder / "images" / "g.jpg"])
    labels = folder / "labels"
    assert not (labels / "g.xml").exists()
    annotate_file(labels / "b.xml", folder / "images" / "b.jpg", ("no_mask", (1, 2, 9, 9)))
    (labels / "d.xml").unlink()
    result = proposals.settle(session, {folder / "images" / f"{name}.jpg" for name in "abcd"})
    assert result == {
        "accepted": ["c.xml"],
        "corrected": ["b.xml"],
        "removed": ["d.xml"],
        "taken_back": ["e.xml", "f.xml"],
    }
    assert not (labels / "e.xml").exists()
    record = proposals.read_record(labels)
    assert {name: entry["outcome"] for name, entry in record.items()} == {
        "b.xml": "corrected",
        "c.xml": "accepted",
        "d.xml": "removed",
    }
    annotate_file(labels / "c.xml", folder / "images" / "c.jpg")  # corrected in a later session
    later = proposals.settle(session, set())
    assert not any(later.values()) and proposals.read_record(labels)["c.xml"]["outcome"] == "corrected"


def test_taking_all_back_leaves_no_record(folder):
    session, before = ready(folder), state(ready(folder))
    proposals.propose(session, Seer(MASK[1]), "net.h5")
    proposals.settle(session, set())
    assert state(session) == before and not (folder / "labels" / "preannotated.json").exists()


def test_proposals_in_yolo_bring_the_class_list(folder):
    session = ready(folder, "yolo", labels="yolo")
    proposals.propose(session, Seer(MASK[1]), "net.h5")
    assert (folder / "yolo" / "classes.txt").read_text() == "mask\nno_mask\n"
    assert checked_classes(folder / "yolo" / "b.txt", SIZE, list(CLASSES)) == ["mask"]


def test_an_interruption_leaves_proposals_that_are_known_as_such(folder, monkeypatch):
    session = ready(folder)
    written = []

    def interrupted(path, *rest):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write_voc(path, folder / "images" / "b.jpg", SIZE, [[1, 2, 3, 4]], ["mask"])

    monkeypatch.setattr(proposals, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        proposals.propose(session, Seer(MASK[1]), "net.h5")
    assert set(proposals.read_record(folder / "labels")) == {"b.xml"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2, "proposals": {}}', '{"format": 1, "proposals": {"a": 1}}']
)
def test_a_broken_record_is_refused(folder, text):
    (folder / "labels" / "preannotated.json").write_text(text)
    with pytest.raises(AnnotationError, match=r"preannotated\.json: not a record of proposals"):
        proposals.read_record(folder / "labels")


# --- The rebuilt table ---


def rebuilt(folder: Path, session: Session, deleted=(), known=None):
    given = CLASSES if known is None else known
    return outcome.rebuild(session, given, folder / "annotations.csv", folder / "classes.csv", deleted)


def test_the_table_is_rebuilt_and_nothing_is_lost(folder):
    old = (
        "images/c.jpg,1,2,3,4,no_mask\n"  # no annotation file here: stays
        "./images/a.jpg,1,1,2,2,mask\n"  # read anew, spelt in another way
        "elsewhere/x.jpg,1,2,3,4,mask\n"  # not of this session: stays
        "images/b.jpg,5,5,9,9,mask\n"  # its file was deleted in this session: goes
    )
    (folder / "annotations.csv").write_text(old)
    result = rebuilt(folder, ready(folder), deleted=["b.xml"])
    assert (folder / "annotations.csv").read_text() == (
        "images/c.jpg,1,2,3,4,no_mask\nimages/a.jpg,5,6,20,25,mask\nelsewhere/x.jpg,1,2,3,4,mask\n"
    )
    assert result.kept == 2 and result.backup.read_text() == old
    assert read_classes(folder / "classes.csv") == CLASSES
    assert rebuilt(folder, ready(folder)).backup is None


def test_images_without_objects_are_kept_too(folder):
    annotate_file(folder / "labels" / "b.xml", folder / "images" / "b.jpg")
    (folder / "annotations.csv").write_text("elsewhere/x.jpg,,,,,\n")
    rebuilt(folder, ready(folder))
    table = read_annotations(folder / "annotations.csv")
    assert list(table["image_path"]) == ["elsewhere/x.jpg", "images/a.jpg", "images/b.jpg"]
    assert list(table["x1"].isna()) == [True, False, True]


def test_a_file_that_became_unreadable_keeps_its_old_rows(folder):
    session = ready(folder)
    rebuilt(folder, session)
    before = (folder / "annotations.csv").read_text()
    (folder / "labels" / "a.xml").write_text("<oops")
    result = rebuilt(folder, session)
    assert (folder / "annotations.csv").read_text() == before
    assert [problem.action for problem in result.problems] == ["skipped file"]


def test_nothing_annotated_writes_nothing(folder):
    (folder / "labels" / "a.xml").unlink()
    result = rebuilt(folder, ready(folder))
    assert result.table.empty and not (folder / "annotations.csv").exists()


def test_new_classes_get_the_next_ids(folder):
    annotate_file(folder / "labels" / "b.xml", folder / "images" / "b.jpg", ("hat", (1, 2, 9, 9)), MASK)
    (folder / "classes.csv").write_text("no_mask,0\nmask,1\n")
    result = rebuilt(folder, ready(folder), known={"no_mask": 0, "mask": 1})
    assert result.classes == {"no_mask": 0, "mask": 1, "hat": 2}
    assert (folder / "classes.csv").read_text() == "no_mask,0\nmask,1\nhat,2\n"


def test_ids_of_yolo_are_those_of_its_list(folder):
    annotate_file(folder / "yolo" / "a.txt", folder / "images" / "a.jpg", MASK)
    (folder / "yolo" / "classes.txt").write_text("mask\nno_mask\nunused\n")
    assert rebuilt(folder, ready(folder, "yolo", labels="yolo")).classes == {**CLASSES, "unused": 2}


def test_what_changed(folder):
    session = ready(folder)
    before = state(session)
    annotate_file(folder / "labels" / "b.xml", folder / "images" / "b.jpg", MASK)
    annotate_file(folder / "labels" / "a.xml", folder / "images" / "a.jpg")
    (folder / "labels" / "c.json").write_text("[]")
    changes = outcome.compare(session, before)
    assert (changes.new, changes.changed, changes.deleted) == (["b.xml"], ["a.xml"], [])
    assert changes.other_format == ["c.json"]
    (folder / "labels" / "a.xml").unlink()
    assert outcome.compare(session, before).deleted == ["a.xml"]


def test_an_empty_table_joins_with_nothing(tmp_path):
    assert outcome._merged(make_table([]), make_table([]), tmp_path, set())[0].empty


# --- The command, with a window that closes at once ---


@pytest.fixture
def window(monkeypatch):
    """Stands for labelImg's process: each test says what has happened in it."""
    happened = {
        "status": 0,
        "seen": set(),
        "failures": [],
        "elsewhere": [],
        "log_tail": "",
        "meanwhile": lambda session: None,
    }

    def show(session):
        happened["meanwhile"](session)
        return process.Ended(*(happened[name] for name in process.Ended._fields))

    monkeypatch.setattr(process, "show", show)
    return happened


def command(folder: Path, *options: str) -> int:
    out = ["--out", str(folder / "annotations.csv"), "--classes", str(folder / "classes.csv")]
    return main(["annotate", str(folder / "images"), "--annotations", str(folder / "labels"), *out, *options])


def test_proposals_through_the_command(folder, window, monkeypatch, capsys):
    snapshot = type("Snapshot", (), {"classes": CLASSES, "weights": Path("net.h5")})
    monkeypatch.setattr("retinamask.detectors.snapshots.read", lambda path: snapshot)
    monkeypatch.setattr("retinamask.inference.detect.Predictor.load", lambda given: Seer(MASK[1]))
    window["seen"] = {folder / "images" / "b.jpg"}
    assert command(folder, "--snapshot", "net.h5") == 0
    said = capsys.readouterr()
    assert "boxes proposed in 2 of 2 images" in said.out
    assert "0 corrected or confirmed, 1 accepted unchanged, 0 deleted, 1 never shown" in said.out
    assert "1 new, 0 changed, 0 deleted" in said.out and "left to annotate: 1 of 3" in said.out
    assert list(read_annotations(folder / "annotations.csv")["image_path"]) == ["images/a.jpg", "images/b.jpg"]
    assert read_classes(folder / "classes.csv") == CLASSES

    (folder / "classes.csv").write_text("mask,0\nbare,1\n")
    assert command(folder, "--snapshot", "net.h5") == 2
    assert "net.h5 proposes boxes of no_mask, which" in capsys.readouterr().err


def test_the_detector_of_the_project_proposes_by_names(folder, window, monkeypatch, capsys):
    """What is found, and the class list in another order than its own."""
    monkeypatch.setattr("retinamask.inference.detect.Predictor.load", lambda given: Seer(MASK[1]))
    (folder / "classes.csv").write_text("mask,0\nno_mask,1\nincorrect,2\n")
    window["seen"] = {folder / "images" / "b.jpg"}
    assert command(folder) == 0
    said = capsys.readouterr().out
    assert "mask_detector.onnx proposes boxes where no annotation is; --no-proposals turns it off" in said
    assert "boxes proposed in 2 of 2 images" in said
    record = json.loads((folder / "labels" / "preannotated.json").read_text())
    assert record["proposals"]["b.xml"]["snapshot"] == "mask_detector.onnx"
    table = read_annotations(folder / "annotations.csv")
    assert list(table["class_name"]) == ["mask", "mask"]
    assert command(folder, "--no-proposals") == 0
    assert "propose" not in capsys.readouterr().out and not (folder / "labels" / "c.xml").exists()


def test_a_new_folder_begins_with_the_classes_of_the_detector(folder, window, monkeypatch):
    monkeypatch.setattr("retinamask.inference.detect.Predictor.load", lambda given: Seer(MASK[1]))
    (folder / "labels" / "a.xml").unlink()
    window["meanwhile"] = lambda session: window["seen"].update(session.sizes_wh)
    assert command(folder) == 0
    assert read_classes(folder / "classes.csv") == {"no_mask": 0, "mask": 1}
    assert len(read_annotations(folder / "annotations.csv")) == 3


@pytest.mark.parametrize("listed", [False, True])
def test_the_detector_of_the_project_proposes_nothing_among_other_classes(folder, window, capsys, listed):
    """Those of a class list, or without one those of the annotation files."""
    annotate_file(folder / "labels" / "a.xml", folder / "images" / "a.jpg", ("bare", MASK[1]), MASK)
    if listed:
        (folder / "classes.csv").write_text("bare,0\nmask,1\n")
    assert command(folder) == 0
    said = capsys.readouterr().out
    assert "mask_detector.onnx are no_mask, mask, those here bare, mask\n" in said
    assert not (folder / "labels" / "b.xml").exists()


def test_without_a_detector_or_images_for_it_nothing_is_proposed(folder, window, monkeypatch, capsys):
    def missing(name):
        raise SnapshotError("mask_detector.onnx does not exist")

    monkeypatch.setattr("retinamask.detectors.snapshots.shipped", missing)
    assert command(folder) == 0
    assert "nothing is proposed: mask_detector.onnx does not exist\n" in capsys.readouterr().out
    for name in ("b", "c"):
        annotate_file(folder / "labels" / f"{name}.xml", folder / "images" / f"{name}.jpg", MASK)
    assert command(folder) == 0
    assert "propose" not in capsys.readouterr().out


def test_boxes_that_stand_in_the_csv_alone_are_not_proposed_anew(folder, window, monkeypatch, capsys):
    snapshot = type("Snapshot", (), {"classes": CLASSES, "weights": Path("net.h5")})
    monkeypatch.setattr("retinamask.detectors.snapshots.read", lambda path: snapshot)
    monkeypatch.setattr("retinamask.inference.detect.Predictor.load", lambda given: Seer(MASK[1]))
    (folder / "annotations.csv").write_text("images/b.jpg,1,2,3,4,mask\n")
    window["meanwhile"] = lambda session: window["seen"].update(session.sizes_wh)
    assert command(folder, "--snapshot", "net.h5") == 0
    said = capsys.readouterr()
    assert "1 image(s), such as" in said.err and "no annotation file: labelImg does not show them" in said.err
    assert not (folder / "labels" / "b.xml").exists() and (folder / "labels" / "c.xml").exists()
    assert "images/b.jpg,1,2,3,4,mask" in (folder / "annotations.csv").read_text()


def test_a_crash_is_told_and_the_table_rebuilt(folder, window, capsys):
    annotation = folder / "labels" / "b.xml"
    window.update(status=-6, log_tail="terminate called")
    window["meanwhile"] = lambda session: annotate_file(annotation, folder / "images" / "b.jpg", MASK)
    assert command(folder) == 1
    said = capsys.readouterr()
    assert "terminate called\nlabelImg ended with signal 6 (SIGABRT); it showed no image" in said.err
    assert "2 images, 2 boxes" in said.out


@pytest.mark.parametrize("port_format", ["voc", "yolo"])
def test_labelling_nothing_changes_nothing(folder, window, monkeypatch, capsys, port_format):
    """Neither the files beside the images, nor those of the working directory, which annotate took before."""
    (folder / "labels").rename(folder / "annotations")
    if port_format == "yolo":
        (folder / "annotations" / "a.xml").unlink()
        annotate_file(folder / "annotations" / "a.txt", folder / "images" / "a.jpg", MASK)
        (folder / "annotations" / "classes.txt").write_text("mask\n")  # enough for what is annotated
    (folder / "classes.csv").write_text("mask,0\nno_mask,1\n")
    (folder / "annotations.csv").write_text("images/c.jpg,1,2,3,4,mask\n")  # lacks a.jpg
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "annotations.csv").write_text("x.jpg,1,2,3,4,other\n")
    (elsewhere / "classes.csv").write_text("other,0\n")
    snapshot = type("Snapshot", (), {"classes": CLASSES, "weights": Path("net.h5")})
    monkeypatch.setattr("retinamask.detectors.snapshots.read", lambda path: snapshot)
    monkeypatch.setattr("retinamask.inference.detect.Predictor.load", lambda given: Seer())
    monkeypatch.chdir(elsewhere)

    def files():
        return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}

    before = files()
    assert main(["annotate", str(folder / "images"), "--port-format", port_format]) == 0
    assert files() == before
    assert main(["annotate", str(folder / "images"), "--port-format", port_format, "--snapshot", "net.h5"]) == 0
    assert files() == before
    said = capsys.readouterr().out
    assert f"the table to {folder / 'annotations.csv'}, new classes to {folder / 'classes.csv'}" in said
    assert f"nothing was labelled; {folder / 'annotations.csv'} and " in said


def test_the_tables_are_beside_the_images(folder, window, monkeypatch, capsys):
    """With a class list that is not the default either."""
    (folder / "images").rename(folder / "photos")
    (folder / "photos" / "classes.csv").write_text("no_mask,0\nmask,1\n")
    annotation = folder / "photos" / "a.xml"
    window["meanwhile"] = lambda session: annotate_file(annotation, folder / "photos" / "a.jpg", MASK)
    monkeypatch.chdir(folder)
    assert main(["annotate", "photos", "--no-proposals"]) == 0
    assert (folder / "photos" / "annotations.csv").read_text() == "a.jpg,5,6,20,25,mask\n"
    assert read_classes(folder / "photos" / "classes.csv") == {"no_mask": 0, "mask": 1}
    assert not (folder / "annotations.csv").exists() and not (folder / "classes.csv").exists()


def test_the_last_annotation_deleted_leaves_a_copy_of_the_table(folder, window, capsys):
    (folder / "annotations.csv").write_text("images/a.jpg,5,6,20,25,mask\n")
    window["meanwhile"] = lambda session: (folder / "labels" / "a.xml").unlink()
    assert command(folder) == 0
    (backup,) = folder.glob("annotations.csv.*.bak")
    assert backup.read_text() == "images/a.jpg,5,6,20,25,mask\n" and not (folder / "annotations.csv").exists()
    assert f"kept as {backup.name}" in capsys.readouterr().out


def test_an_image_deleted_in_labelimg_goes_from_the_table(folder, window, capsys):
    annotate_file(folder / "labels" / "b.xml", folder / "images" / "b.jpg", MASK)
    rebuilt(folder, ready(folder))
    window["meanwhile"] = lambda session: (folder / "images" / "b.jpg").unlink()
    assert command(folder) == 0
    said = capsys.readouterr()
    assert "1 image(s) were deleted in labelImg" in said.err and "left to annotate: 1 of 2 images" in said.out
    assert list(read_annotations(folder / "annotations.csv")["image_path"]) == ["images/a.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("annotations.csv", "a.jpg,1,2\n", "annotations.csv line 1"),
        ("classes.csv", "mask,1\n", "ids must be 0, 1, 2"),
        ("labels/preannotated.json", "{", "not a record of proposals"),
    ],
)
def test_mistakes_are_told_before_the_window_opens(folder, window, capsys, name, text, message):
    def opened(session):
        raise AssertionError("the window was opened")

    window["meanwhile"] = opened
    (folder / name).write_text(text)
    assert command(folder) == 2
    assert message in capsys.readouterr().err and (folder / name).read_text() == text


def test_the_score_threshold_is_checked(folder, window, capsys):
    assert command(folder, "--score-threshold", "50") == 2
    assert "expected 0 to 1" in capsys.readouterr().err


def test_the_record_can_be_read_by_people(folder):
    session = ready(folder)
    proposals.propose(session, Seer(MASK[1]), "net.h5", 0.5)
    record = json.loads((folder / "labels" / "preannotated.json").read_text())
    entry = record["proposals"]["b.xml"]
    assert record["format"] == 1 and (entry["boxes"], entry["score_threshold"]) == (1, 0.5)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entry["proposed"])
