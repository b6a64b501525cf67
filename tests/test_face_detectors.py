"""Face detectors by name: against OpenCV used directly, on faces of public data where it lies, and with bad files."""

import functools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from darknet_networks import SMALL_CFG
from yunet_file import blue_yunet

from retinamask.dataset import annotations, boxes, images
from retinamask.dataset.annotations import BOX_COLUMNS
from retinamask.dataset.formats import read
from retinamask.detectors.darknet.weights import DarknetWeights
from retinamask.inference.face_detectors import FACE_DETECTORS, face_detector

SIZES = (248, 32, 189)  # numbers of the convolutions of SMALL_CFG, counted by hand there


@pytest.fixture(scope="module")
def res10_files() -> list[Path]:
    folder = Path(os.environ.get("RETINAMASK_DATA", Path(__file__).parents[2] / "shared"), "weights")
    paths = [folder / "res10_300x300_ssd_deploy.prototxt", folder / "res10_300x300_ssd_iter_140000.caffemodel"]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"no res10 in {folder}; name the folder above it in RETINAMASK_DATA")
    return paths


@pytest.fixture(scope="module")
def darknet_files(tmp_path_factory) -> list[Path]:
    """A network with one head and drawn weights, and its names."""
    folder, random = tmp_path_factory.mktemp("darknet"), np.random.default_rng(0)
    first, second, head = (random.uniform(0.2, 1, size) for size in SIZES)
    first[32:] = random.normal(0, 0.4, 216)  # behind 8 each of betas, gammas, means and variances
    head = random.normal(0, 1, 189)
    (folder / "small.cfg").write_text(SMALL_CFG)
    (folder / "small.names").write_text("face\nperson\n")
    numbers = np.concatenate([first, second, head])
    (folder / "small.weights").write_bytes(DarknetWeights((0, 2, 5), 0, numbers).to_bytes())
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (90, 130, 3), np.uint8)


@functools.cache
def read_boxes(folder: Path):
    return annotations.objects(read("voc", [folder], folder)[0])


def annotated(folder: Path, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every ``step``-th image and the boxes of its faces."""
    found = read_boxes(folder)
    return [
        (images.read_image(folder / path), found.loc[found["image_path"] == path, BOX_COLUMNS].to_numpy(float))
        for path in annotations.image_paths(found)[::step]
    ]


def hits(detector, faces) -> tuple[int, int]:
    """How many faces are found, and how many there are; its annotators drew whole heads, so an IoU of 0.3 counts."""
    found = [boxes.overlaps(true, detector(image_rgb)[0]).max(1, initial=0) > 0.3 for image_rgb, true in faces]
    return int(np.concatenate(found).sum()), sum(map(len, found))


def both(image_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return image_rgb, np.ascontiguousarray(image_rgb[..., ::-1])


# --- Haar ---


def test_haar_finds_drawn_faces_with_nothing_downloaded():
    faces, detector = annotated(Path(__file__).parents[1] / "data" / "sample", 2), face_detector("haar")
    count, all_of_them = hits(detector, faces)
    assert 4 <= count <= all_of_them
    for image_rgb, _ in faces:
        _, scores = detector(image_rgb)
        assert (np.diff(scores) <= 0).all() and ((scores > 0.1) & (scores < 1)).all()


def test_haar_on_photographs(shared_data):
    count, all_of_them = hits(face_detector("haar"), annotated(shared_data / "praveen", 90))
    assert count >= 0.5 * all_of_them > 4


def test_other_files_for_haar_are_refused(tmp_path):
    for name, text in (("empty.xml", ""), ("other.xml", "<a><b>1</b></a>"), ("html.xml", "<!DOCTYPE html><p>")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name}: (no cascade that OpenCV can read|OpenCV .* cannot use it)"):
            face_detector("haar", [tmp_path / name])


# --- res10 ---


def test_res10_is_as_the_published_recipe_computes_it(res10_files, noise):
    (boxes_xyxy, scores), (height, width) = face_detector("res10", res10_files)(noise), noise.shape[:2]
    network = cv2.dnn.readNet(*map(str, res10_files))
    frame_bgr = cv2.cvtColor(noise, cv2.COLOR_RGB2BGR)
    network.setInput(cv2.dnn.blobFromImage(frame_bgr, 1.0, (300, 300), (104.0, 177.0, 123.0)))
    rows = network.forward()[0, 0]
    rows = rows[rows[:, 2] >= 0.1]
    assert len(rows) >= len(scores) > 0
    np.testing.assert_allclose(scores[0], rows[0, 2], atol=1e-6)
    expected = np.clip(rows[0, 3:7] * [width, height, width, height], 0, [width, height] * 2)
    np.testing.assert_allclose(boxes_xyxy[0], expected, atol=1e-3)


def test_res10_finds_faces_and_the_order_of_colours_matters(res10_files, shared_data):
    faces = annotated(shared_data / "praveen", 50)
    detector = face_detector("res10", res10_files, score_threshold=0.5, tiling="never")
    count, all_of_them = hits(detector, faces)
    assert count >= 0.8 * all_of_them > 8
    sure, swapped = np.transpose([[detector(image)[1].max(initial=0) for image in both(rgb)] for rgb, _ in faces])
    assert (sure != swapped).sum() >= 8 and sure.mean() > swapped.mean()  # a picture may be grey


def test_small_faces_in_a_large_image_are_found_in_tiles(res10_files, shared_data):
    faces = annotated(shared_data / "praveen", 110)
    wall = np.zeros((1200, 1600, 3), np.uint8)
    places = [(100, 100), (700, 300), (1300, 900), (150, 850), (900, 1000)]
    true = []
    for (left, top), (image_rgb, true_xyxy) in zip(places, faces, strict=True):
        scale = 40 / (true_xyxy[0, 3] - true_xyxy[0, 1])
        small = images.resize(image_rgb, scale)[: 1200 - top, : 1600 - left]
        wall[top : top + small.shape[0], left : left + small.shape[1]] = small
        true.append(true_xyxy[0] * scale + [left, top, left, top])
    counts = {
        tiling: hits(face_detector("res10", res10_files, tiling=tiling), [(wall, np.array(true))])[0]
        for tiling in ("never", "auto", "always")
    }
    assert counts["auto"] == counts["always"] >= counts["never"] + 2, counts


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9999])
def test_a_caffe_file_cut_short_is_refused(res10_files, tmp_path, share):
    for name in ("res10_300x300_ssd_iter_140000.caffemodel", "renamed.caffemodel"):
        cut = tmp_path / name
        cut.write_bytes(res10_files[1].read_bytes()[: int(share * 10_666_211)])
        with pytest.raises(ValueError, match="is cut short"):
            face_detector("res10", [res10_files[0], cut])


def test_what_is_no_caffe_file_is_refused(tmp_path):
    """Without the published files: protocol buffers of short fields, whole and cut within the last."""
    prototxt, caffemodel = tmp_path / "a.prototxt", tmp_path / "a.caffemodel"
    prototxt.write_text('layer { type: "DetectionOutput" }')
    for content in (
        b"\x0a\x04face" * 500,
        (b"\x0a\x04face" * 500)[:-2],
        b"\x0a\x04face",
    ):
        caffemodel.write_bytes(content)
        with pytest.raises(ValueError, match="a.prototxt with .*a.caffemodel: OpenCV .* cannot use it .* is cut short"):
            face_detector("res10", [prototxt, caffemodel])


def first_layers(content: bytearray, count: int) -> int:
    """Where so many of the fields at the top of a Caffe model end, the first of which is its name."""
    place = 0
    for _ in range(count):
        while content[place] & 128:
            place += 1
        length, shift, place = 0, 0, place + 1
        while True:
            length |= (content[place] & 127) << shift
            shift, place = shift + 7, place + 1
            if content[place - 1] < 128:
                break
        place += length
    return place


def test_other_files_for_res10_are_refused(res10_files, tmp_path):
    prototxt, caffemodel = res10_files
    damaged = bytearray(caffemodel.read_bytes())
    damaged[5_000_000] ^= 1
    (tmp_path / "a.caffemodel").write_bytes(damaged)
    (tmp_path / "first.caffemodel").write_bytes(bytes(damaged[: first_layers(damaged, 10)]))
    (tmp_path / "html.caffemodel").write_text("<!DOCTYPE html>" * 100)
    (tmp_path / "half.prototxt").write_text(prototxt.read_text()[:20_000])
    (tmp_path / "other.prototxt").write_text('layer { type: "Convolution" }')
    broken = prototxt.read_text().replace("num_output: 256", "num_output: 255", 1)
    (tmp_path / "broken.prototxt").write_text(broken)
    for given, message in (
        ([prototxt, tmp_path / "a.caffemodel"], "is not the published .* cut short or damaged, fetch it again"),
        ([prototxt, tmp_path / "html.caffemodel"], "html.caffemodel: OpenCV .* cannot use it"),
        ([prototxt, tmp_path / "first.caffemodel"], "first.caffemodel: OpenCV .* cannot use it"),
        ([tmp_path / "half.prototxt", caffemodel], "half.prototxt with .*OpenCV .* cannot use it"),
        ([tmp_path / "other.prototxt", caffemodel], "other.prototxt with .*OpenCV .* cannot use it"),
        ([tmp_path / "broken.prototxt", caffemodel], "broken.prototxt with .*OpenCV .* cannot use it"),
        ([prototxt], "no .caffemodel file among"),
        ([prototxt, tmp_path / "none.caffemodel"], "none.caffemodel does not exist; expected .prototxt and"),
        ([*res10_files, tmp_path / "x.h5"], "x.h5: no use for this file"),
    ):
        with pytest.raises(ValueError, match=message):
            face_detector("res10", given)


# --- YuNet ---


def test_yunet_boxes_are_in_pixels_of_the_image(tmp_path):
    """A cell at 640 pixels is four at 1280, where it is looked for if it is small, here 32 pixels and not 87."""
    for name, growth in (("small", 0), ("large", 1)):
        (tmp_path / f"{name}.onnx").write_bytes(blue_yunet(growth))
    image_rgb = np.zeros((384, 640, 3), np.uint8)
    image_rgb[128:160, 320:352, 2] = 255  # one whole cell
    detector = face_detector("yunet", [tmp_path / "small.onnx"])
    quarters = [[x - 8, y - 8, x + 8, y + 8] for y in (128, 144) for x in (320, 336)]
    for width in (320, 640, 1280):
        scale = width / 640
        boxes_xyxy, scores = detector(cv2.resize(image_rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST))
        expected = np.array(sorted([[304, 112, 336, 144], *quarters])) * scale
        np.testing.assert_allclose(sorted(boxes_xyxy.tolist()), expected, atol=0.01)
        np.testing.assert_allclose(scores, np.ones(5), atol=0.05)
    assert len(detector(np.ascontiguousarray(image_rgb[..., ::-1]))[1]) == 0  # red
    boxes_xyxy, _ = face_detector("yunet", [tmp_path / "large.onnx"])(image_rgb)
    half = 16 * np.e
    np.testing.assert_allclose(boxes_xyxy, [[320 - half, 128 - half, 320 + half, 128 + half]], atol=0.1)


def test_yunet_files(tmp_path):
    content = blue_yunet()
    (tmp_path / "cut.onnx").write_bytes(content[:-20_000])
    with pytest.raises(ValueError, match="cut.onnx: OpenCV .* cannot use it .* is cut short"):
        face_detector("yunet", [tmp_path / "cut.onnx"])
    (tmp_path / "other.onnx").write_bytes(content.replace(b"kps_32", b"abc_32"))
    with pytest.raises(ValueError, match="other.onnx: OpenCV .* cannot use it"):
        face_detector("yunet", [tmp_path / "other.onnx"])


# --- Darknet ---


def test_darknet_is_as_opencv_s_own_detection_model(darknet_files, noise):
    cfg, names, weights = darknet_files
    detector = face_detector("yolov4_tiny", [weights, names, cfg], score_threshold=0.5, nms_threshold=0.999)
    image_rgb = cv2.resize(noise, (1300, 900))  # so large because their boxes are in whole pixels
    model = cv2.dnn.DetectionModel(str(weights), str(cfg))
    model.setInputParams(1 / 255, (64, 64))
    model.setNmsAcrossClasses(True)
    _, scores, boxes_xywh = model.detect(image_rgb, 0.5, 0.999)
    theirs = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1).astype(float)
    inside = boxes.reach_outside(theirs, (1295, 895)) + boxes.reach_outside(theirs - 5, (1290, 890)) == 0
    found_boxes, found_scores = detector(image_rgb)
    assert inside.sum() > 20
    for box, score in zip(theirs[inside], scores[inside], strict=True):
        same = np.abs(found_scores - score) < 1e-5
        assert np.abs(found_boxes[same] - box).max(axis=1).min() < 3
    assert not np.array_equal(detector(image_rgb[..., ::-1].copy())[1], found_scores)


def test_only_the_named_classes_are_faces(darknet_files, noise):
    options = {"score_threshold": 0.6, "nms_threshold": 0.9}
    counts = {
        names: len(face_detector("yolov4", darknet_files, classes=names, **options)(noise)[1])
        for names in ((), ("face",), ("person",), ("person", "face"))
    }
    assert 0 < counts["face",] < counts[()] == counts["person", "face"] and counts["person",] > 0, counts


def test_darknet_files_that_do_not_belong_together(darknet_files, tmp_path):
    cfg, names, weights = darknet_files
    (tmp_path / "cut.weights").write_bytes(weights.read_bytes()[:-40])
    (tmp_path / "three.names").write_text("a\nb\nc\n")
    (tmp_path / "latin.names").write_bytes("garçon\nface\n".encode("latin-1"))
    (tmp_path / "no.cfg").write_text("[net]\nwidth=32\nheight=32\n")
    for given, classes, message in (
        ([cfg, tmp_path / "cut.weights"], (), "holds 459 numbers, .*small.cfg asks for 469; it is cut short"),
        ([tmp_path / "no.cfg", weights], (), "no.cfg: expected .net. first and a .yolo. section"),
        ([cfg, weights, tmp_path / "three.names"], (), "three.names: 3 names, expected 2"),
        ([cfg, weights, tmp_path / "latin.names"], (), "latin.names is no UTF-8 text"),
        ([cfg, weights, names], ["mask"], "has no class mask; it has face, person"),
        ([cfg, weights], ["face"], "Give the .names file"),
        ([], (), "no .cfg and no .weights file among nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            face_detector("yolov4", given, classes=classes)


# --- All ---


def test_impossible_options(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, options, message in (
        ("mtcnn", {}, "no face detector is called 'mtcnn'; there are: haar, res10, yunet, yolov4, yolov4_tiny"),
        ("haar", {"confidence": 1}, "haar has no option confidence; known are .*score_threshold"),
        ("haar", {"tiling": "auto"}, "haar searches every pixel"),
        ("haar", {"score_threshold": 1.5}, "score_threshold of haar is 1.5"),
        ("res10", {"tiling": "maybe"}, "tiling is 'maybe', expected one of: auto, always, never"),
        ("res10", {}, "lacks deploy.prototxt, res10_.*; run: retinamask fetch res10, or give"),
        ("yunet", {}, "lacks face_detection_yunet_2023mar.onnx; run: retinamask fetch yunet"),
        ("snapshot", {"files": ["a.h5", "b.h5"]}, "2 files, expected one"),
    ):
        with pytest.raises(ValueError, match=message):
            face_detector(name, **options)
    assert list(FACE_DETECTORS) == ["haar", "res10", "yunet", "yolov4", "yolov4_tiny", "snapshot"]


@pytest.mark.parametrize("image", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match=r"expected uint8 of \(height, width, 3\)"):
        face_detector("haar")(image)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (40, 2, 3)])
def test_an_image_too_small_for_a_face_has_none(shape):
    boxes_xyxy, scores = face_detector("haar")(np.full(shape, 128, np.uint8))
    assert boxes_xyxy.shape == (0, 4) and scores.shape == (0,)
