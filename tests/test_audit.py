"""The audit: each finding is caused by a file made here, and a sound data set has none."""

import json
import os
import shutil
import struct
import zlib
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from retinamask.cli import main
from retinamask.dataset import annotations, copies, images
from retinamask.dataset.audit import AuditSettings, audit, findings_table, read_source
from retinamask.dataset.audit.anchors import Anchors, best_overlaps, coverage, suggest
from retinamask.dataset.audit.findings import Example, found, worst_first
from retinamask.dataset.formats import write_voc
from retinamask.dataset.splits import split

CLASSES = {"mask": 0, "no_mask": 1}
SIZE = (320, 240)
COUNT = 8
SETTINGS = AuditSettings(image_size=320)


def picture(seed: int, size_wh: tuple[int, int] = SIZE) -> Image.Image:
    """Large soft spots, others for each seed: two such pictures are no copies of each other."""
    spots = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(spots, size_wh, interpolation=cv2.INTER_CUBIC))


class DataSet:
    """A sound data set of a CSV and its images, to be spoilt by a test."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.classes = dict(CLASSES)
        self.rows: list[tuple] = []
        for seed in range(COUNT):
            self.add(f"images/{seed}.png", seed)

    def add(self, path: str, seed: int, *boxes: tuple, **options) -> Path:
        full = self.folder / path
        full.parent.mkdir(exist_ok=True)
        picture(seed).save(full, **options)
        name = list(CLASSES)[seed % 2]
        self.rows += [(path, *box) for box in boxes or [(100 + seed, 80, 170 + seed, 150, name)]]
        return full

    def audit(self, settings: AuditSettings = SETTINGS, **options):
        annotations.write_annotations(annotations.make_table(self.rows), self.folder / "annotations.csv")
        annotations.write_classes(self.classes, self.folder / "classes.csv")
        return audit(read_source(self.folder / "annotations.csv", **options), settings)


@pytest.fixture
def data(tmp_path) -> DataSet:
    return DataSet(tmp_path)


def names(result) -> list[str]:
    return [finding.name for finding in result.findings]


def only(result):
    """The one finding of a data set."""
    assert len(result.findings) == 1, findings_table(result.findings).to_string()
    return result.findings[0]


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
    result = audit(read_source(tmp_path), SETTINGS)
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
        ({"max_pixels": images.MAX_PIXELS + 1}, "expected 1 to 89,478,485"),
        ({"max_pixels": 0}, "max_pixels is 0"),
        ({"image_size": 10}, "expected 64 to 4096"),
        ({"tiny_side": float("nan")}, "expected 0 or more"),
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
        (1, (640, 480), ["XML of another size"]),
        (6, (240, 320), ["turned by EXIF"]),  # labelImg's way
        (6, (320, 240), ["boxes of the unturned image", "turned by EXIF"]),  # by a tool that does not turn
        (3, (320, 240), ["turned by EXIF"]),
    ],
)
def test_the_size_in_an_xml_tells_how_the_image_was_seen(tmp_path, orientation, written, expected):
    picture(1).save(tmp_path / "a.jpg", exif=upright_exif(orientation))
    write_voc(tmp_path / "a.xml", "a.jpg", written, [[100, 80, 170, 150]], ["mask"])
    result = audit(read_source(tmp_path), SETTINGS)
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
    result = audit(read_source(tmp_path), SETTINGS)
    by_name = {finding.name: finding for finding in result.findings}
    assert names(result)[:3] == ["unusable annotation file", "unusable box", "box past the edge"]
    assert set(by_name) - set(names(result)[:3]) == {"XML without a size", "image without XML"}
    assert by_name["unusable annotation file"].files() == ["broken.xml", "broken.jpg"]
    assert by_name["unusable box"].files() == ["2.xml", "2.jpg"]
    assert "line 14: box (10, 20, 900, 90) lies outside" in by_name["unusable box"].examples[0].detail
    assert by_name["image without XML"].files() == ["broken.jpg", "lonely.jpg"]
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


# --- Copies ---


def test_exact_copies_are_found(data):
    for number in (1, 2):
        shutil.copy(data.folder / "images/0.png", data.folder / f"images/copy{number}.png")
        data.rows.append((f"images/copy{number}.png", *data.rows[0][1:]))
    result = data.audit()
    assert names(result) == ["exact file copies", "near-duplicate images"]
    assert result.findings[0].files() == ["images/0.png", "images/copy1.png", "images/copy2.png"]
    expected = {"groups": 1, "files": 3, "surplus": 2}
    assert result.record()["copies"] == {"exact": expected, "near": expected}


@pytest.mark.parametrize("mirrored", [False, True])
def test_scaled_and_mirrored_copies_are_found(data, mirrored):
    copy = picture(0).resize((160, 120))
    (copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else copy).save(data.folder / "images/small.jpg")
    box = (75, 40, 110, 75) if mirrored else (50, 40, 85, 75)  # (100, 80, 170, 150) in half the size
    data.rows.append(("images/small.jpg", *box, "mask"))
    finding = only(data.audit())
    assert finding.name == "near-duplicate images" and ("mirrored" in finding.examples[0].detail) == mirrored
    assert finding.files() == ["images/0.png", "images/small.jpg"]


@pytest.mark.parametrize(
    ("labels", "detail"),
    [
        ([(100, 80, 170, 150, "no_mask")], "1 mask against 1 no_mask"),
        ([(None,) * 5], "1 mask against nothing"),
        ([(20, 80, 90, 150, "mask")], "a mask of one lies elsewhere on the other"),
    ],
)
def test_exact_copies_that_disagree_are_an_error(data, labels, detail):
    shutil.copy(data.folder / "images/0.png", data.folder / "images/copy.png")
    data.rows += [("images/copy.png", *label) for label in labels]
    result = data.audit()
    assert result.findings[0].name == "exact copies labelled differently" and result.findings[0].severity == "error"
    assert result.findings[0].examples == (Example(("images/0.png", "images/copy.png"), detail),)


@pytest.mark.parametrize(("swapped", "count"), [(False, 0), (True, 1)])
def test_mirrored_copies_whose_faces_are_swapped_disagree(data, swapped, count):
    faces = [(20, 80, 90, 150, "mask"), (200, 60, 280, 140, "no_mask")]
    data.rows[0:1] = [("images/0.png", *face) for face in faces]
    picture(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(data.folder / "images/mirror.png")
    classes = ["no_mask", "mask"] if swapped else ["mask", "no_mask"]
    mirrored = [(320 - x2, y1, 320 - x1, y2) for x1, y1, x2, y2, _ in faces]
    data.rows += [("images/mirror.png", *box, name) for box, name in zip(mirrored, classes, strict=True)]
    assert names(data.audit()).count("near-copies labelled differently") == count


def test_the_hashes_are_those_of_the_splits(data):
    picture(3, (1600, 1200)).save(data.folder / "images/large.jpg")
    data.rows.append(("images/large.jpg", *data.rows[1][1:]))
    result = data.audit()
    paths = list(result.looks)
    hashes = copies.hash_images(paths, data.folder)
    kept = np.frombuffer(b"".join(result.looks[path].hashes for path in paths), np.uint8).reshape(-1, 2, 10)
    assert np.array_equal(kept[:, 0], hashes.upright) and np.array_equal(kept[:, 1], hashes.mirrored)
    assert [result.looks[path].sha256.hex() for path in paths] == hashes.sha256


def test_broken_files_can_be_exact_copies_and_empty_tables_have_none(data):
    for name in ("one", "two"):
        (data.folder / f"images/{name}.png").write_bytes(b"the same")
        data.rows.append((f"images/{name}.png", *(None,) * 5))
    result = data.audit()
    assert result.record()["copies"]["exact"]["files"] == 2
    assert set(names(result)) == {
        "unreadable image", "image without objects", "exact file copies", "near-duplicate images"
    }  # fmt: skip


# --- Splits ---


def split_files(data: DataSet, **members) -> list[Path]:
    """CSVs of the images that are named by number, in a folder of their own."""
    table = annotations.moved(annotations.make_table(data.rows), data.folder, data.folder / "splits")
    paths = []
    for name, numbers in members.items():
        chosen = [f"../images/{number}.png" for number in numbers]
        paths.append(data.folder / "splits" / f"{name}.csv")
        annotations.write_annotations(annotations.of_images(table, chosen), paths[-1])
    return paths


def test_splits_that_share_nothing_are_fine(data):
    assert names(data.audit(splits=split_files(data, train=range(5), val=[5], test=[6, 7]))) == []


def test_the_same_image_in_two_splits_is_an_error(data):
    finding = only(data.audit(splits=split_files(data, train=range(6), test=[5, 6, 7])))
    assert (finding.name, finding.severity, finding.count) == ("same picture in two splits", "error", 1)
    assert finding.examples[0].detail == "train: images/5.png; test: images/5.png"


def test_copies_in_two_splits_are_an_error(data):
    picture(0).resize((160, 120)).save(data.folder / "images/99.png")
    data.rows.append(("images/99.png", 50, 40, 85, 75, "mask"))
    finding = data.audit(splits=split_files(data, train=range(5), test=[5, 6, 7, 99])).findings[0]
    assert finding.name == "same picture in two splits"
    assert finding.examples[0].detail == "train: images/0.png; test: images/99.png"


def test_images_of_splits_that_the_table_lacks_or_has_alone(data):
    paths = split_files(data, train=range(5), test=[6, 7])
    data.rows = data.rows[1:]
    result = data.audit(splits=paths)
    assert [(finding.name, finding.files()) for finding in result.findings] == [
        ("split image not in the table", ["images/0.png"]),
        ("image in no split", ["images/5.png"]),
    ]
    assert len(result.looks) == COUNT


def test_splits_of_the_project_are_understood(data):
    tables = split(annotations.make_table(data.rows), 0.2, 0.2, seed=1)
    for name, table in tables.items():
        annotations.write_annotations(table, data.folder / f"annotations_{name}.csv")
    paths = [data.folder / f"annotations_{name}.csv" for name in tables]
    result = data.audit(splits=paths)
    assert names(result) == [] and list(result.source.splits) == [path.stem for path in paths]


# --- Anchors ---


@pytest.mark.parametrize("size_wh", [(512, 384), (512, 512), (200, 512), (130, 512), (60, 96)])
@pytest.mark.parametrize("changed", [{}, {"ratios": (0.5, 1.0, 1.5), "scales": (0.4, 0.7, 1.2)}])
def test_the_best_overlap_is_that_of_keras_retinanets_whole_grid(size_wh, changed):
    from retinamask.detectors import _keras

    _keras.prepare()
    from keras_retinanet.utils.anchors import AnchorParameters, anchors_for_shape
    from keras_retinanet.utils.compute_overlap import compute_overlap

    ours = Anchors(**changed)
    theirs = AnchorParameters(list(ours.sizes), list(ours.strides), np.array(ours.ratios), np.array(ours.scales))
    grid = anchors_for_shape((size_wh[1], size_wh[0], 3), anchor_params=theirs)
    centres = (grid[:, :2] + grid[:, 2:]) / 2
    grid = grid[(centres < size_wh).all(axis=1)]  # anchor_targets_bbox ignores the others
    generator = np.random.default_rng(1)
    corners = np.sort(generator.random((200, 2, 2)) * size_wh, axis=1).reshape(-1, 4)
    boxes_xyxy = corners + [0, 0, 1, 1]
    expected = compute_overlap(grid, boxes_xyxy).max(axis=0)
    assert best_overlaps(boxes_xyxy, np.tile(size_wh, (200, 1)), ours) == pytest.approx(expected, abs=1e-6)


def test_the_defaults_are_keras_retinanets_and_ours():
    from retinamask.detectors import _keras
    from retinamask.detectors.retinanet import RetinaNetSettings

    _keras.prepare()
    from keras_retinanet.utils.anchors import AnchorParameters

    for name in ("sizes", "strides", "ratios", "scales"):
        ours = getattr(Anchors(), name)
        assert ours == pytest.approx(getattr(AnchorParameters.default, name)) == getattr(RetinaNetSettings(), name)


def small_faces(data: DataSet) -> None:
    """Boxes of 14 by 14 pixels and thereabouts, which no default anchor overlaps by half."""
    data.rows = [
        (path, x1 + 40 * i, y1, x1 + 40 * i + 14 + i, y1 + 15 + i, name)
        for path, x1, y1, _, _, name in data.rows
        for i in range(3)
    ]


def test_anchors_that_miss_boxes_are_named_and_better_ones_suggested(data):
    small_faces(data)
    result = data.audit()
    assert only(result).name == "missed by the anchors" and only(result).count == 3 * COUNT
    default, suggested = result.anchors.covered[:2]
    assert default["covered"] == 0 and suggested["covered"] >= 2 * COUNT and suggested["anchors"] == "suggestion"
    assert [record["image_size"] for record in result.anchors.covered] == [320, 320, 480, 640]
    sizes = np.tile(SIZE, (3 * COUNT, 1))
    boxes_xyxy = np.array([row[1:5] for row in data.rows], dtype=float)
    share = coverage(best_overlaps(boxes_xyxy, sizes, result.anchors.suggestion))
    assert suggested["covered"] == share * 3 * COUNT


def test_keras_retinanet_reads_the_suggestion(data, tmp_path):
    from retinamask.detectors import _keras

    _keras.prepare()
    from keras_retinanet.utils.config import parse_anchor_parameters, read_config_file

    small_faces(data)
    result = data.audit()
    (tmp_path / "anchors.ini").write_text(result.record()["anchor_parameters"])
    read = parse_anchor_parameters(read_config_file(tmp_path / "anchors.ini"))
    suggestion = result.anchors.suggestion
    assert read.num_anchors() == 9
    for name in ("sizes", "strides", "ratios", "scales"):
        assert list(getattr(read, name)) == pytest.approx(getattr(suggestion, name), abs=1e-5)


def test_a_suggestion_does_not_depend_on_the_order():
    generator = np.random.default_rng(4)
    sides = np.exp(generator.uniform(np.log(6), np.log(90), (300, 1))) * np.exp(generator.normal(0, 0.2, (300, 2)))
    corners = generator.random((300, 2)) * 300
    boxes_xyxy, sizes = np.concatenate([corners, corners + sides], axis=1), np.tile([512, 512], (300, 1))
    turned = np.arange(300)[::-1]
    first = suggest(boxes_xyxy, sizes, Anchors())
    assert first == suggest(boxes_xyxy[turned], sizes[turned], Anchors())
    gains = [coverage(best_overlaps(boxes_xyxy, sizes, anchors)) for anchors in (Anchors(), first)]
    assert gains[1] > gains[0] + 0.2


# --- Findings, sources and the command ---


def test_findings_are_sorted_counted_and_their_examples_spread():
    cases = [Example(("a.jpg",), str(number)) for number in range(30)] + [Example(("b.jpg",), "b")]
    (finding,) = found("x", "note", "boxes", "do", cases)
    assert finding.counted() == "31 boxes" and len(finding.examples) == 10
    assert [example.detail for example in finding.examples[:3]] == ["0", "b", "1"]
    (other,) = found("y", "error", "boxes", "do", cases[:1])
    assert other.counted() == "1 box" and found("z", "note", "boxes", "", []) == []
    assert [item.name for item in worst_first([finding, other])] == ["y", "x"]
    assert findings_table([other]).iloc[0].tolist() == ["error", "y", 1, "boxes", "do", "a.jpg"]


def test_images_may_lie_elsewhere(data, tmp_path):
    data.audit()
    (tmp_path / "tables").mkdir()
    for name in ("annotations.csv", "classes.csv"):
        shutil.move(tmp_path / name, tmp_path / "tables" / name)
    source = read_source(tmp_path / "tables" / "annotations.csv", image_folder=tmp_path)
    assert names(audit(source, SETTINGS)) == []
    assert "missing image" in names(audit(read_source(tmp_path / "tables" / "annotations.csv"), SETTINGS))


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
        ([str(tmp_path / "empty")], "no XML file below"),
        ([str(tmp_path / "empty"), "--images", "nothing"], "nothing is not a folder"),
        ([str(tmp_path), "--max-pixels", "0"], "max_pixels is 0"),
    ):
        assert main(["audit", *arguments]) == 2
        assert message in capsys.readouterr().err


# --- Real data ---


def test_real_copies_are_all_found(shared_data):
    """Exact copies as sha256sum has them; near ones in one group are joined by pairs of 12 bits at most."""
    result = audit(read_source(shared_data / "praveen"))
    by_bytes = defaultdict(list)
    for path in sorted((shared_data / "praveen" / "images").iterdir()):
        by_bytes[path.read_bytes()].append(path.name)
    expected = sorted(group for group in by_bytes.values() if len(group) > 1)
    assert sorted(sorted(os.path.basename(path) for path in group) for group in result.copies.exact) == expected
    assert len(expected) == 44 and sum(map(len, expected)) == 93
    assert len(result.copies.near) >= 170


def test_real_coverage(shared_data):
    result = audit(read_source(shared_data / "andrewmvd"))
    default, suggested = result.anchors.covered[:2]
    assert default["boxes"] == 3327 and default["share"] == pytest.approx(0.671, abs=0.001)
    assert suggested["anchors"] == "suggestion" and suggested["share"] > 0.9
