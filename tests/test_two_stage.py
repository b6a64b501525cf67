"""Face detector and classifier as one detector: what it promises its callers, by hand, and from the command line."""

import json

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_darknet_export import TRAINING, save

from retinamask import detectors
from retinamask.cli import main
from retinamask.dataset import annotations, boxes, images
from retinamask.dataset.sample import CLASSES as SAMPLE_CLASSES
from retinamask.detectors import snapshots
from retinamask.inference.box_fit import Fitted
from retinamask.inference.detect import Predictor, detect
from retinamask.inference.face_detectors import face_detector
from retinamask.inference.two_stage import TwoStage

CLASSES = {"mask": 0, "no_mask": 1}
RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (99, 99, 99)


class Redness:
    """A classifier of two classes: how much of what is red or blue is red."""

    classes, margin = CLASSES, 0.0

    def __init__(self):
        self.seen = []

    def __call__(self, images_rgb):
        self.seen.append([image.shape for image in images_rgb])
        red, _, blue = np.transpose([image.mean(axis=(0, 1)) for image in images_rgb])
        return np.stack([red, blue], axis=1) / (red + blue)[:, None]


def finding(*rows):
    """Stands for a face detector that finds the same in every image: rows of x1, y1, x2, y2, score."""
    found = np.array(rows, float).reshape(-1, 5)
    return lambda image_rgb: (found[:, :4], found[:, 4])


def halves(height: int = 100, width: int = 200) -> np.ndarray:
    """Red at the left and blue at the right."""
    image_rgb = np.zeros((height, width, 3), np.uint8)
    image_rgb[:, : width // 2], image_rgb[:, width // 2 :] = RED, BLUE
    return image_rgb


LEFT, RIGHT, MIDDLE = (10, 10, 50, 50, 0.8), (120, 10, 160, 50, 0.9), (80, 0, 120, 40, 0.6)


def test_the_score_is_face_times_class_and_the_likeliest_class_names_the_box():
    (found,) = TwoStage(finding(LEFT, RIGHT, MIDDLE), Redness())([halves()])
    assert found.boxes_xyxy.tolist() == [[120, 10, 160, 50], [10, 10, 50, 50], [80, 0, 120, 40]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.3])
    assert found.labels.tolist()[:2] == [1, 0]


def test_every_class_of_a_face_if_asked_for():
    predictor = TwoStage(finding((70, 0, 110, 40, 0.8)), Redness())
    (found,) = predictor([halves()], suppress="per_class")
    assert found.labels.tolist() == [0, 1] and found.scores.tolist() == pytest.approx([0.6, 0.2])
    assert (found.boxes_xyxy == [70, 0, 110, 40]).all()
    assert len(predictor([halves()], 0.3, "per_class")[0].scores) == 1


def test_bgr_for_rgb_changes_the_answer():
    predictor = TwoStage(finding(LEFT), Redness())
    (right,), (wrong,) = predictor([halves()]), predictor([np.ascontiguousarray(halves()[..., ::-1])])
    assert (right.labels.tolist(), wrong.labels.tolist()) == ([0], [1])


def test_all_faces_of_all_images_are_classified_at_once():
    classifier = Redness()
    found = TwoStage(finding(LEFT, RIGHT), classifier)([halves(), halves(80, 240), halves()])
    assert [len(image.scores) for image in found] == [2, 2, 2]
    assert classifier.seen == [[(40, 40, 3)] * 6]


def test_faces_that_are_too_weak_are_not_classified():
    classifier = Redness()
    (found,) = TwoStage(finding(LEFT, (120, 10, 160, 50, 0.49)), classifier)([halves()], score_threshold=0.5)
    assert len(found.scores) == 1 and len(classifier.seen[0]) == 1


@pytest.mark.parametrize(
    "rows", [[], [(300, 10, 320, 50, 0.9)], [(10, 10, 10, 50, 0.9)], [(20, 20, 10, 10, 0.9)]]
)  # none, outside, without width, inverted
def test_no_face_and_an_empty_crop_are_no_special_case(rows):
    classifier = Redness()
    found = TwoStage(finding(*rows), classifier)([halves(), halves()])
    assert [(one.boxes_xyxy.shape, one.scores.shape, one.labels.shape) for one in found] == [((0, 4), (0,), (0,))] * 2
    assert classifier.seen == []
    assert TwoStage(finding(LEFT), classifier)([]) == []


def test_an_empty_crop_among_others_goes_alone():
    (found,) = TwoStage(finding(LEFT, (250, 0, 260, 9, 0.9), RIGHT), Redness())([halves()])
    assert found.labels.tolist() == [1, 0] and found.boxes_xyxy[0].tolist() == [120, 10, 160, 50]


def test_two_hundred_faces():
    rows = [(x * 10, y * 10, x * 10 + 8, y * 10 + 8, 0.5 + x / 100) for x in range(20) for y in range(10)]
    (found,) = TwoStage(finding(*rows), Redness())([halves()])
    assert len(found.scores) == 200 and (np.diff(found.scores) <= 0).all()
    assert (found.labels == (found.boxes_xyxy[:, 0] >= 100)).all()


def test_the_margins():
    classifier = Redness()
    TwoStage(finding((50, 40, 70, 60, 0.9)), classifier, margin=0.5)([halves()])
    assert classifier.seen == [[(40, 40, 3)]]  # 20 and half of it on both sides
    with pytest.raises(ValueError, match="margin is -1, expected 0 to 5"):
        TwoStage(finding(LEFT), classifier, margin=-1)([halves()])


def test_fitted_boxes_are_those_that_the_classifier_did_not_see():
    classifier = Redness()
    (found,) = Fitted(TwoStage(finding((10, 10, 50, 50, 0.9)), classifier), (0, 0, 2, 2))([halves()])
    assert found.boxes_xyxy.tolist() == [[0, 0, 70, 70]] and classifier.seen == [[(40, 40, 3)]]


def test_the_table_is_that_of_the_other_detectors(tmp_path):
    Image.fromarray(halves()).save(tmp_path / "a.png")
    Image.new("RGB", (60, 40), GREY).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    predictor = TwoStage(finding(RIGHT), Redness())
    table, unreadable = detect(predictor, ["a.png", "b.png", "c.png"], tmp_path)
    assert list(table.columns) == annotations.DETECTION_COLUMNS and len(unreadable) == 1
    assert table["image_path"].tolist() == ["a.png", "b.png"] and table["class_name"].tolist()[0] == "no_mask"
    assert len(annotations.objects(table)) == 1


# --- With snapshots ---


@pytest.fixture(scope="module")
def classifier_snapshot(tmp_path_factory):
    """A small classifier with random weights."""
    detector = detectors.create("mask_classifier", SAMPLE_CLASSES, image_height=32, image_width=32, alpha=0.35)
    record = {"kind": "training", "detector": detector.name, "classes": detector.classes, "training": TRAINING}
    record |= {"settings": detector.record(), "preprocessing": detector.preprocessing}
    return snapshots.save(detector.network(seed=1), tmp_path_factory.mktemp("mask") / "mask.h5", record)


@pytest.fixture(scope="module")
def yolo_snapshot(tmp_path_factory):
    return save(tmp_path_factory.mktemp("yolo"), 2, TRAINING)


@pytest.fixture
def sample_image() -> str:
    for path in sorted((ROOT / "data" / "sample" / "images").glob("*.jpg")):
        if len(face_detector("haar")(images.read_image(path))[1]):
            return str(path)
    raise LookupError("haar finds no face in the sample")


def test_detect_and_evaluate_with_haar(classifier_snapshot, sample_image, tiny, tmp_path, monkeypatch, capsys):
    out, figures = tmp_path / "found.csv", tmp_path / "figures.json"
    chosen = ["--snapshot", str(classifier_snapshot.weights), "--face-detector", "haar"]
    arguments = ["detect", sample_image, *chosen, "--out", str(out), "--score-threshold", "0.01"]
    assert main([*arguments, "--box-fit", "0,0,1.2,1.2"]) == 0
    found = annotations.objects(annotations.read_detections(out))
    assert len(found) > 0 and set(found["class_name"]) <= set(annotations.read_classes(tiny / "classes.csv"))
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv")]
    assert main(["evaluate", *table, *chosen, "--out", str(figures), "--face-score-threshold", "0.3"]) == 0
    plain = json.loads(figures.read_text())
    assert plain["AP50"] >= 0 and "AP50" in capsys.readouterr().out
    monkeypatch.setattr("retinamask.inference.box_fit._FEWEST", 1)
    training = tmp_path / "training.csv"
    learnt_from = annotations.read_annotations(table[0])
    learnt_from = annotations.moved(learnt_from, tiny, tmp_path)
    (tmp_path / "broken.png").write_text("no picture")
    learnt_from.loc[len(learnt_from)] = ["broken.png", 1, 1, 9, 9, "mask"]
    annotations.write_annotations(learnt_from, training)
    fitted = ["--fit-boxes", str(training), "--out", str(figures), "--force", "--face-score-threshold", "0.3"]
    assert main(["evaluate", *table, *chosen, *fitted]) == 2
    leak = "12 of 12 images show a picture that boxes were fitted on, such as "
    assert leak in capsys.readouterr().err
    assert main(["evaluate", *table, *chosen, *fitted, "--allow-leak"]) == 0
    found, printed = json.loads(figures.read_text()), capsys.readouterr()
    said = ",".join(f"{number:g}" for number in found["box_fit"])
    assert f"boxes fitted to those of {training}: --box-fit {said}\n" in printed.out
    assert f"LEAK: {leak}" in printed.err and found["box_fit_leaked_images"] == 12
    assert f"boxes were not fitted to: {tmp_path / 'broken.png'}: not a readable image" in printed.err
    assert main(["evaluate", *table, *chosen, *fitted, "--box-fit", "0,0,1.2,1.2"]) == 2
    assert "--box-fit has no effect with --fit-boxes, which learns it" in capsys.readouterr().err
    assert found["AR100"] > plain["AR100"]
    assert main(["evaluate", *table, "--detections", str(out), "--fit-boxes", table[0]]) == 2
    assert "--fit-boxes has no effect on --detections" in capsys.readouterr().err


def test_a_gif_is_drawn_with_what_both_stages_say(classifier_snapshot, sample_image, tmp_path, monkeypatch, capsys):
    image_rgb = images.read_image(sample_image)
    pictures = [
        Image.fromarray(image) for image in (image_rgb, np.full_like(image_rgb, 127), image_rgb[:, ::-1].copy())
    ]
    pictures[0].save(tmp_path / "clip.gif", save_all=True, append_images=pictures[1:], duration=100)
    monkeypatch.chdir(tmp_path)
    chosen = ["--snapshot", str(classifier_snapshot.weights), "--face-detector", "haar", "--score-threshold", "0.01"]
    assert main(["detect", "clip.gif", *chosen, "--out-video", "x.gif", "--counts", "counts.csv"]) == 0
    assert "in 3 frames: x.csv, x.gif, counts.csv, counts.png" in capsys.readouterr().out
    found = annotations.objects(annotations.read_detections("x.csv"))
    assert set(found["class_name"]) <= set(SAMPLE_CLASSES)
    expected, _ = face_detector("haar")(image_rgb)
    first = found[found["image_path"] == "clip.gif#0"]
    assert len(first) > 0 and "clip.gif#1" not in set(found["image_path"])
    nearest = boxes.overlaps(first[annotations.BOX_COLUMNS].to_numpy(float), expected).max(axis=0)
    assert nearest[0] > 0.7  # 256 colours move the boxes a little
    with Image.open("x.gif") as drawn:
        assert drawn.n_frames == 3 and drawn.width == image_rgb.shape[1] and drawn.height > image_rgb.shape[0]


def test_options_of_a_face_detector_say_nothing_of_finished_detections(tiny, tmp_path, capsys):
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv")]
    assert main(["evaluate", *table, "--detections", "found.csv", "--face-detector", "haar"]) == 2
    assert "--face-detector has no effect on --detections" in capsys.readouterr().err


def test_all_classes_of_a_snapshot_of_ours_are_faces(yolo_snapshot, sample_image):
    image_rgb = images.read_image(sample_image)
    faces, scores = face_detector("snapshot", [yolo_snapshot.weights], score_threshold=0.3)(image_rgb)
    (found,) = Predictor.load(yolo_snapshot)([image_rgb], 0.3, "per_class")
    overlaps = boxes.overlaps(faces, faces) - np.eye(len(scores))
    assert 0 < len(scores) < len(found.scores) and overlaps.max() <= 0.4 and set(found.labels) == {0, 1}
    assert scores[0] == found.scores[0] and (faces[0] == found.boxes_xyxy[0]).all()


def test_what_does_not_fit_together(classifier_snapshot, yolo_snapshot, sample_image, tmp_path, capsys):
    mask, boxes_snapshot = str(classifier_snapshot.weights), str(yolo_snapshot.weights)
    for given, message in (
        (
            ["--snapshot", mask],
            "finds none; it needs a face detector such as snapshot (--face-detector snapshot",
        ),
        (["--snapshot", mask, "--margin", "1"], "--margin has no effect without --face-detector"),
        (["--snapshot", boxes_snapshot, "--face-detector", "haar"], "is a yolov4_tiny, which finds boxes; expected"),
        (["--snapshot", mask, "--face-detector", "dlib"], "no face detector is called 'dlib'; there are: haar"),
        (["--snapshot", mask, "--face-detector", "haar", "--face-classes", "x"], "haar has no option classes"),
        (["--snapshot", mask, "--face-detector", "yolov4"], "no .cfg and no .weights file"),
        (["--snapshot", mask, "--face-detector", "snapshot", "--face-model", mask], "finds no"),
    ):
        assert main(["detect", sample_image, *given, "--out", str(tmp_path / "x.csv")]) == 2, given
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
