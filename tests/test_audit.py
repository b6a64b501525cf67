"""The audit: each finding is caused by a file made here, and a sound data set has none."""

import json
import shutil
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sound_data import CLASSES, COUNT, SETTINGS, SIZE, DataSet, names, only, picture

from retinamask.cli import main
from retinamask.dataset import formats, images
from retinamask.dataset.audit.checks import Example, findings_of, findings_table
from retinamask.dataset.audit.source import read_source
from retinamask.dataset.formats import write_voc
from retinamask.evaluation.audit import Audit, AuditSettings


@pytest.fixture
def data(tmp_path) -> DataSet:
    return DataSet(tmp_path)


def upright_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def bomb(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


# --- Nothing to find ---


def test_a_sound_data_set_has_no_findings(data):
    result = data.audit()
    assert names(result) == []
    record = result.record()
    assert (record["images"], record["boxes"], record["annotated_images"]) == (COUNT, COUNT, COUNT)
    assert record["anchor_coverage"][0]["share"] == 1 and record["anchor_parameters"] is None
    assert record["classes"]["mask"] == {"boxes": COUNT // 2, "images": COUNT // 2}


def test_a_sound_folder_of_xml_has_no_findings(tmp_path):
    for seed in range(4):
        picture(seed).save(tmp_path / f"{seed}.jpg")
        write_voc(tmp_path / f"{seed}.xml", f"{seed}.jpg", SIZE, [[100, 80, 170, 150]], [list(CLASSES)[seed % 2]])
    result = Audit(read_source(tmp_path), SETTINGS)
    assert names(result) == [] and len(result.looks) == 4


# --- Image files ---


def deep_picture(seed: int) -> np.ndarray:
    return np.asarray(picture(seed)).astype(np.uint16) * 257


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4000])


@pytest.mark.parametrize(
    ("spoil", "name", "severity"),
    [
        (Path.unlink, "missing image", "error"),
        (lambda path: path.write_bytes(b"no image"), "unreadable image", "error"),
        (lambda path: (path.unlink(), path.mkdir()), "unreadable image", "error"),
        (cut_short, "damaged image", "error"),
        (lambda path: path.write_bytes(bomb(20_000, 20_000)), "too many pixels", "error"),
        (lambda path: picture(90).convert("P").save(path), "palette image", "note"),
        (lambda path: picture(90).convert("RGBA").save(path), "alpha channel", "note"),
        (lambda path: picture(90).convert("1").save(path), "black-and-white image", "warning"),
        (lambda path: picture(90).convert("CMYK").save(path, "JPEG"), "CMYK image", "warning"),
        (lambda path: cv2.imwrite(str(path), deep_picture(90)), "16-bit image", "warning"),
    ],
)  # fmt: skip
def test_an_image_file_is_named(data, spoil, name, severity):
    spoil(data.folder / "images/3.png")
    finding = only(data.audit())
    assert (finding.name, finding.severity, finding.count) == (name, severity, 1)
    assert finding.files() == ["images/3.png"]


def test_transparent_pixels_are_told_from_an_opaque_channel(data):
    image = picture(90).convert("RGBA")
    image.putpixel((5, 5), (1, 2, 3, 254))
    image.save(data.folder / "images/3.png")
    assert only(data.audit()).name == "transparent pixels"


def test_grey_of_16_bits_is_named(data):
    grey = np.asarray(picture(90).convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(data.folder / "images/3.png")
    assert only(data.audit()).name == "16-bit image"


def test_the_limit_of_pixels_is_a_setting(data):
    picture(91, (340, 240)).save(data.folder / "images/3.png")
    finding = only(data.audit(AuditSettings(image_size=320, max_pixels=SIZE[0] * SIZE[1])))
    assert (
        finding.name == "too many pixels" and "expected at most 76,800, found 340 x 240" in finding.examples[0].detail
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixels": images.MAX_PIXELS + 1}, "expected 1 to 89478485"),
        ({"max_pixels": 0}, "max_pixels is 0"),
        ({"image_size": 10}, "expected 64 to 4096"),
        ({"tiny_side": float("nan")}, "tiny_side is nan, expected a finite number"),
        ({"tiny_side": -1}, "tiny_side is -1, expected at least 0"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        AuditSettings(**options)


# --- EXIF, and the size that an XML names ---


def test_an_image_turned_by_exif_is_named(data):
    data.add("images/turned.jpg", 20, (90, 120, 170, 210, "mask"), exif=upright_exif(6))
    finding = only(data.audit())
    assert finding.name == "turned by EXIF" and finding.severity == "warning"
    assert finding.examples[0].detail == "EXIF orientation 6, stored as 320 x 240"


def test_boxes_that_fit_only_the_unturned_image_are_an_error(data):
    data.add("images/turned.jpg", 20, (230, 120, 310, 210, "mask"), exif=upright_exif(6))
    result = data.audit()
    assert names(result)[:2] == ["boxes of the unturned image", "turned by EXIF"]
    assert result.findings[0].examples[0].detail.startswith("boxes reach 70 px past the upright image")


@pytest.mark.parametrize(
    ("orientation", "written", "expected"),
    [
        (1, (320, 240), []),
        (1, (640, 480), ["annotation of another size"]),
        (6, (240, 320), ["turned by EXIF"]),  # labelImg's way
        (6, (320, 240), ["boxes of the unturned image", "turned by EXIF"]),  # by a tool that does not turn
        (3, (320, 240), ["turned by EXIF"]),
    ],
)
def test_the_size_in_an_xml_tells_how_the_image_was_seen(tmp_path, orientation, written, expected):
    picture(1).save(tmp_path / "a.jpg", exif=upright_exif(orientation))
    write_voc(tmp_path / "a.xml", "a.jpg", written, [[100, 80, 170, 150]], ["mask"])
    result = Audit(read_source(tmp_path), SETTINGS)
    assert names(result) == expected
    assert all(finding.files() == ["a.jpg"] for finding in result.findings)


# --- What is wrong with XML ---


def test_problems_of_xml_files_join_the_findings(tmp_path):
    for seed, box in enumerate([(100, 80, 170, 150), (100, 80, 322, 150), (10, 20, 900, 90)]):
        picture(seed).save(tmp_path / f"{seed}.jpg")
        write_voc(tmp_path / f"{seed}.xml", f"{seed}.jpg", SIZE, [box, (20, 20, 90, 95)], ["mask", "mask"])
    picture(5).save(tmp_path / "lonely.jpg")
    picture(6).save(tmp_path / "broken.jpg")
    (tmp_path / "broken.xml").write_text("<annotation>")
    text = (tmp_path / "0.xml").read_text()
    (tmp_path / "0.xml").write_text(text.replace("<width>320</width>", ""))
    result = Audit(read_source(tmp_path), SETTINGS)
    by_name = {finding.name: finding for finding in result.findings}
    assert names(result)[:3] == ["unusable annotation file", "unusable box", "box past the edge"]
    assert set(by_name) - set(names(result)[:3]) == {"XML without a size", "image without annotation"}
    assert by_name["unusable annotation file"].files() == ["broken.xml", "broken.jpg"]
    assert by_name["unusable box"].files() == ["2.xml", "2.jpg"]
    assert "line 14: box (10, 20, 900, 90) lies outside" in by_name["unusable box"].examples[0].detail
    assert by_name["image without annotation"].files() == ["lonely.jpg"]
    assert len(result.looks) == 5


# --- Boxes ---


@pytest.mark.parametrize(
    ("boxes", "name", "severity"),
    [
        ([(250, 80, 326, 150, "mask")], "box outside the image", "error"),
        ([(400, 80, 470, 150, "mask")], "box outside the image", "error"),
        ([(250, 80, 325, 150, "mask")], "box past the edge", "warning"),
        ([(-3, 80, 70, 150, "mask")], "box past the edge", "warning"),
        ([(100, 80, 170, 150, "mask"), (101, 80, 171, 150, "mask")], "same box twice", "warning"),
        ([(100, 80, 170, 150, "mask"), (101, 80, 171, 150, "no_mask")], "two classes for one box", "error"),
    ],
)
def test_a_box_is_named(data, boxes, name, severity):
    data.add("images/new.png", 20, *boxes)
    finding = only(data.audit())
    assert (finding.name, finding.severity, finding.count) == (name, severity, 1)
    assert finding.examples[0].files == ("images/new.png",) and finding.examples[0].box_xyxy == boxes[0][:4]


def test_boxes_that_overlap_by_nine_tenths_are_still_two(data):
    # 70 x 70 moved by 3: shared 67, together 73, IoU 67 / 73 = 0.918; moved by 4: 66 / 74 = 0.892
    data.add("images/new.png", 20, (100, 80, 170, 150, "mask"), (104, 80, 174, 150, "mask"))
    assert names(data.audit()) == []
    data.rows[-1] = ("images/new.png", 103, 80, 173, 150, "mask")
    assert "IoU 0.92" in only(data.audit()).examples[0].detail


@pytest.mark.parametrize(("side", "is_tiny"), [(15, True), (16, False)])
def test_a_box_that_the_resize_makes_tiny_is_named(data, side, is_tiny):
    data.add("images/new.png", 20, (100, 80, 100 + side, 150, "mask"))
    result = data.audit(AuditSettings(image_size=160, low_coverage=0))  # half of its size
    assert ("tiny box" in names(result)) == is_tiny
    if is_tiny:
        assert only(result).examples[0].detail == "(100, 80, 115, 150) becomes 7.5 x 35.0"


def test_images_without_objects_are_counted(data):
    data.add("images/empty.png", 20, (None,) * 5)
    assert (only(data.audit()).name, only(data.audit()).severity) == ("image without objects", "note")


# --- Classes ---


@pytest.mark.parametrize("name", ["Mask", "MASK", "m ask", "m_ask", "m-ask"])
def test_names_that_are_nearly_equal_are_named(data, name):
    data.classes[name] = 2
    for seed in (30, 31, 32):
        data.add(f"images/{seed}.png", seed, (100, 80, 170, 150, name))
    finding = only(data.audit())
    assert finding.name == "class names alike" and finding.examples[0].detail == f"'mask' (4 boxes), '{name}' (3 boxes)"


def test_other_classes(data):
    data.classes["hat"] = 2
    data.rows += [("images/0.png", 10, 10, 80, 85, "visor"), ("images/1.png", 10, 10, 80, 85, "visor")]
    result = data.audit()
    assert names(result) == ["unknown class", "class without boxes"]
    assert [finding.examples[0].detail for finding in result.findings] == ["'visor': 2 boxes", "'hat'"]
    assert result.record()["classes"]["visor"] == {"boxes": 2, "images": 2}


def test_a_rare_class_is_named(data):
    for seed in range(40, 100, 2):
        data.add(f"images/{seed}.png", seed)  # 34 mask against 4 no_mask
    assert names(data.audit()) == []
    data.rows = [row for row in data.rows if row[5] == "mask" or row[0] in ("images/1.png", "images/3.png")]
    finding = only(data.audit())
    assert finding.name == "rare class" and "2 boxes against 34 of 'mask'" in finding.examples[0].detail


# --- Findings, sources and the command ---


def test_findings_are_sorted_counted_and_their_examples_spread():
    cases = [Example(("a.jpg",), str(number)) for number in range(30)] + [Example(("b.jpg",), "b")]
    found = [("image without objects", cases[0]), *(("tiny box", case) for case in cases), ("unusable box", cases[0])]
    other, finding, last = findings_of(found, {"tiny_side": 8, "image_size": 512})
    assert finding.counted() == "31 boxes" and len(finding.examples) == 10
    assert [example.detail for example in finding.examples[:3]] == ["0", "b", "1"]
    assert "less than 8 pixels once the image is fitted into 512 pixels" in finding.message
    assert other.counted() == "1 box" and last.severity == "note"
    assert findings_table([other]).iloc[0].tolist() == ["error", "unusable box", 1, "boxes", other.message, "a.jpg"]


def test_images_may_lie_elsewhere(data, tmp_path):
    data.audit()
    (tmp_path / "tables").mkdir()
    for name in ("annotations.csv", "classes.csv"):
        shutil.move(tmp_path / name, tmp_path / "tables" / name)
    source = read_source(tmp_path / "tables" / "annotations.csv", image_folder=tmp_path)
    assert names(Audit(source, SETTINGS)) == []
    assert "missing image" in names(Audit(read_source(tmp_path / "tables" / "annotations.csv"), SETTINGS))


def test_the_command_prints_and_writes(data, capsys):
    data.add("images/new.png", 20, (400, 80, 470, 150, "mask"))
    data.audit()
    written = data.folder / "out.json"
    arguments = ["audit", str(data.folder / "annotations.csv"), "--image-size", "320", "--json", str(written)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "ERROR: box outside the image: 1 box" in said and "9 images; boxes: 5 mask, 4 no_mask" in said
    record = json.loads(written.read_text())
    assert record["findings"][0]["name"] == "box outside the image" and record["settings"]["image_size"] == 320
    assert main(arguments) == 2
    assert "out.json exists" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


def test_mistakes_are_told(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["nowhere"], "nowhere does not exist; expected an annotation CSV or a folder"),
        ([str(tmp_path / "empty")], "no annotations that are known in"),
        ([str(tmp_path / "empty"), "--images", "nothing"], "nothing is not a folder"),
        ([str(tmp_path), "--max-pixels", "0"], "max_pixels is 0"),
    ):
        assert main(["audit", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_a_folder_of_another_format_is_audited(data, tmp_path):
    assert names(data.audit()) == []
    source = read_source(data.folder / "annotations.csv")
    formats.write_format(source.table, source.classes, "coco", tmp_path / "coco", data.folder)
    other = read_source(tmp_path / "coco", image_folder=data.folder)
    assert other.classes == source.classes and names(Audit(other, SETTINGS)) == []
    assert len(Audit(other, SETTINGS).looks) == COUNT


def test_what_reading_another_format_tells_is_not_lost(data, tmp_path):
    data.audit()
    source = read_source(data.folder / "annotations.csv")
    formats.write_format(source.table, source.classes, "coco", tmp_path / "coco", data.folder)
    document = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    document["images"][0]["width"] += 100
    (tmp_path / "coco" / "annotations.json").write_text(json.dumps(document))
    picture(99).save(data.folder / "images" / "lonely.png")
    findings = Audit(read_source(tmp_path / "coco", image_folder=data.folder), SETTINGS).findings
    by_name = {finding.name: finding for finding in findings}
    assert "it says 420 x 240" in by_name["annotation of another size"].examples[0].detail
    assert by_name["image without annotation"].count == 1


def test_two_spellings_of_one_path_are_one_image(data):
    data.rows.append(("./images/0.png", 10, 10, 60, 60, "mask"))
    result = data.audit()
    assert names(result) == [] and len(result.looks) == COUNT
