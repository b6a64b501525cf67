"""The command that judges a classifier: what it writes is what its snapshot answers."""

import functools
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix
from sound_data import picture

from retinamask import detectors
from retinamask.cli import main
from retinamask.dataset.faces import crop
from retinamask.dataset.images import read_image
from retinamask.detectors import snapshots
from retinamask.inference.classify import Classifier

CLASSES = {"with_mask": 0, "without_mask": 1}
PICTURES = ["calibration_curves", "confusion_matrix", "mistakes", "predictions", "roc_curves"]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Two small networks that have learnt nothing, which is as good for judging."""
    folder = tmp_path_factory.mktemp("snapshots")
    detector = detectors.create("mask_classifier", CLASSES, image_height=32, image_width=32, alpha=0.35, dense=(8,))
    record = {"kind": "training", "detector": detector.name, "classes": CLASSES, "settings": detector.record()}
    for seed in (1, 2):
        snapshots.save(detector.network(seed=seed), folder / f"{seed}.h5", record)
    return folder / "1.h5"


load_classifier = functools.cache(Classifier.load)


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """Building a network takes seconds: each snapshot is loaded once in this file."""

    def load(snapshot, flip=False):
        known = load_classifier(str(snapshot))
        return Classifier(known.detector, known.network, flip)

    monkeypatch.setattr(Classifier, "load", load)


@pytest.fixture
def faces(tmp_path):
    """Class folders of four pictures each."""
    folder = tmp_path / "faces"
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for place in range(4):
            picture(10 * number + place, (40, 36)).save(folder / name / f"{place}.png")
    return folder


def test_figures_predictions_and_pictures_are_written(snapshot, faces, tmp_path, capsys):
    out = tmp_path / "judged"
    arguments = ["evaluate-classifier", str(faces), "--snapshot", str(snapshot), "--out", str(out)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    figures = json.loads((out / "figures.json").read_text())
    table = pd.read_csv(out / "predictions.csv")
    paths = [f"{name}/{place}.png" for name in CLASSES for place in range(4)]
    expected = Classifier.load(snapshot)([read_image(faces / path) for path in paths])
    assert table["image_path"].tolist() == paths
    np.testing.assert_allclose(table["probability of with_mask"], expected[:, 0], atol=1e-6)
    true, predicted = np.repeat([0, 1], 4), expected.argmax(axis=1)
    assert figures["accuracy"] == accuracy_score(true, predicted)
    assert figures["confusion"] == confusion_matrix(true, predicted).tolist()
    assert f"accuracy {figures['accuracy']:.4f}" in said and "8 faces\n" in said
    assert sorted(path.stem for path in out.glob("*.png")) == PICTURES
    for path in out.glob("*.png"):
        assert np.ptp(np.asarray(Image.open(path).convert("L"))) > 100  # something is drawn
    assert main(arguments) == 2
    assert "figures.json exists" in capsys.readouterr().err


def test_a_threshold_and_an_ensemble_reach_the_figures(snapshot, faces, tmp_path, capsys):
    out = tmp_path / "judged"
    both = [str(snapshot), str(snapshot.with_name("2.h5"))]
    arguments = ["evaluate-classifier", str(faces), "--snapshot", *both, "--flip", "--out", str(out), "--count", "1"]
    assert main([*arguments, "--threshold", "0", "--threshold-class", "without_mask"]) == 0
    assert json.loads((out / "figures.json").read_text())["confusion"] == [[0, 4], [0, 4]]
    image = read_image(faces / "with_mask/0.png")
    each = [Classifier.load(path)([image, image[:, ::-1]]).mean(axis=0) for path in both]
    first = pd.read_csv(out / "predictions.csv").iloc[0]
    np.testing.assert_allclose(first["probability of with_mask"], np.mean(each, axis=0)[0], atol=1e-6)
    assert main([*arguments, "--force", "--threshold", "0.3"]) == 2
    assert "name one of: with_mask, without_mask" in capsys.readouterr().err


def test_one_bad_file_is_named_and_counted_or_refused(snapshot, faces, tmp_path, capsys):
    (faces / "with_mask" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    (faces / "with_mask" / "notes.txt").write_text("0 0.5 0.5 0.1 0.1")
    (faces / "hats").mkdir()
    picture(90).save(faces / "hats" / "0.png")
    arguments = ["evaluate-classifier", str(faces), "--snapshot", str(snapshot)]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "7 faces, 2 left out" in said.out
    assert all(word in said.err for word in ("0.png", "notes.txt", "class 'hats' is not among the classes"))
    assert main([*arguments, "--strict"]) == 2
    assert "is not sound" in capsys.readouterr().err


def test_the_boxes_of_a_table_are_judged_under_the_names_of_the_classifier(snapshot, tiny, capsys):
    arguments = ["evaluate-classifier", str(tiny / "annotations.csv"), "--snapshot", str(snapshot)]
    names = pd.read_csv(tiny / "annotations.csv", header=None)[5].dropna()
    assert main([*arguments, "--class-map", "mask=with_mask,no_mask=without_mask"]) == 0
    assert f"{len(names)} faces" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "class 'mask' is not among the classes (with_mask, without_mask)" in capsys.readouterr().err


def test_annotated_heads_are_judged_as_the_faces_in_them(snapshot, tmp_path):
    picture(3, (100, 80)).save(tmp_path / "a.png")
    (tmp_path / "heads.csv").write_text("a.png,10,10,70,70,with_mask\n")
    arguments = ["evaluate-classifier", str(tmp_path / "heads.csv"), "--snapshot", str(snapshot)]
    assert main([*arguments, "--out", str(tmp_path / "judged"), "--box-fit", "0.25,-0.5,1.5,3"]) == 0
    judged = pd.read_csv(tmp_path / "judged" / "predictions.csv").iloc[0]
    assert judged[["x1", "y1", "x2", "y2"]].tolist() == [10, 40, 50, 60]  # 40 x 20, its centre 10 left and 10 down
    (face,) = crop(read_image(tmp_path / "a.png"), np.array([[10.0, 40, 50, 60]]), 0.2)
    expected = Classifier.load(snapshot)([face])[0, 0]
    assert judged["probability of with_mask"] == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_judged_is_said(snapshot, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["evaluate-classifier", str(tmp_path / "empty"), "--snapshot", str(snapshot)]) == 2
    assert "image" in capsys.readouterr().err
    assert main(["evaluate-classifier", str(tmp_path / "none"), "--snapshot", str(snapshot)]) == 2
    assert "none" in capsys.readouterr().err
