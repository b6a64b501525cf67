"""The models that come with the project: what a fresh clone finds with them, and that recipes have their settings."""

import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from conftest import ROOT

import retinamask as rm
from retinamask.cli import main
from retinamask.dataset.annotations import image_paths, objects
from retinamask.detectors import snapshots
from retinamask.exports import _fault
from retinamask.runs.parameters import check_parameters, read_parameters_file, training_settings

NOTEBOOKS = {"mask_detector": "06_train_ssd_mobilenet_v2_fpnlite", "mask_classifier": "08_train_mask_classifier"}
ALONE = (  # neither TensorFlow nor a network
    "import socket, sys; sys.modules['tensorflow'] = None; socket.socket.connect = None; "
    "from retinamask.cli import main; sys.exit(main())"
)


def test_a_clone_finds_masks_in_drawn_scenes_without_tensorflow_or_a_network(tmp_path):
    scenes = [str(ROOT / f"data/sample/images/scene_{number:04}.jpg") for number in range(10)]
    command = [sys.executable, "-c", ALONE, "detect", *scenes, "--out", "found.csv", "--save-images", "drawn"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith("10 images: "), done.stderr
    detections = rm.read_detections(tmp_path / "found.csv")
    assert len(image_paths(detections)) == len(list((tmp_path / "drawn").rglob("*.jpg"))) == 10
    shown = objects(detections).groupby("class_name")["score"].min()
    least = rm.load().snapshot.thresholds  # of its validation
    assert set(shown.index) == set(least) and all(shown[name] >= least[name] > 0.4 for name in least)


@pytest.mark.parametrize("stages", [[], ["--face-detector", "snapshot"]])
def test_photographs_that_the_detector_learnt_from_are_refused(stages, shared_data, tmp_path, capsys):
    photograph = shared_data / "andrewmvd" / "images" / "maksssksksss0.jpg"
    (tmp_path / "a.csv").write_text(f"{photograph},79,105,109,142,no_mask\n")
    (tmp_path / "classes.csv").write_text("no_mask,0\nmask,1\n")
    command = ["evaluate", str(tmp_path / "a.csv"), str(tmp_path / "classes.csv"), *stages]
    assert main(command) == 2
    assert "1 of 1 images show a picture that the model was trained on" in capsys.readouterr().err
    assert main([*command, "--allow-leak"]) == 0
    name = "mask_classifier" if stages else "mask_detector"
    assert f"{snapshots.shipped(name)}: detections from score 0.05 on" in capsys.readouterr().out


def test_weights_that_a_training_starts_from_remember_its_pictures():
    """The photographs are the same in both trainings and in the export, and its start is named as it is called."""
    first, second = (snapshots.read(ROOT / f"snapshots/interim/ssd_andrewmvd_{side}") for side in (320, 640))
    shipped = snapshots.read(snapshots.shipped("mask_detector"))
    known = [snapshots.image_hashes(each) for each in (first, second, shipped)]
    assert known[0].shape == (471, 10) and (known[0] == known[1]).all() and (known[0] == known[2]).all()
    assert shipped.record["settings"] == second.record["settings"] | {"image_size": 1024}
    source = second.record["training"]["weights"]
    assert source["source"] == first.weights.name and source["sha256"] == first.record["weights_sha256"]


def test_photographs_of_a_set_that_it_never_saw(shared_data, tmp_path):
    """There people drew whole heads, so the boxes of ten photographs are fitted by ten others."""
    files = sorted((shared_data / "praveen" / "annotations").glob("*.xml"))
    options = {"folder": tmp_path, "known": {"no_mask": 0, "mask": 1}, "class_map": {"noMask": "no_mask"}}
    options["image_folder"] = shared_data / "praveen" / "images"
    (ten, classes, _), (others, _, _) = (rm.read_annotations(files[first::55], **options) for first in (0, 7))
    model = rm.load()
    fit = rm.fit_boxes(model.detect(others, folder=tmp_path), others)
    detections = rm.load(box_fit=fit).detect(ten, 0.05, "per_class", folder=tmp_path)
    assert rm.evaluate(detections, ten, classes)["AP50"] > 0.8


@pytest.mark.parametrize(("name", "megabytes"), [("mask_detector", 12), ("mask_classifier", 6)])
def test_a_shipped_file_is_small_and_as_good_as_what_it_was_made_from(name, megabytes):
    snapshot = snapshots.read(snapshots.shipped(name))
    assert snapshot.weights.stat().st_size < megabytes * 1e6 and list(snapshot.classes) == ["no_mask", "mask"]
    made = snapshot.record["export"]
    before, _ = made["check"]["AP" if name == "mask_detector" else "accuracy"]
    assert before > 0.5 and _fault(made["check"], made["precision"]) is None


@pytest.mark.parametrize("face_detector", ["haar", "snapshot"])
def test_two_stages_as_cloned(face_detector):
    model = rm.load(face_detector=face_detector)
    scene = ROOT / "data/sample/images/scene_0000.jpg"
    assert model.snapshot.classifies and len(model.detect(scene, score_threshold=0.01)) >= 1
    (detections,) = model.predictor([np.full((120, 120, 3), 127, np.uint8)], 0.5)
    assert len(detections.scores) == 0


def test_what_is_not_there_is_said_with_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(snapshots, "__file__", str(tmp_path / "retinamask" / "detectors" / "snapshots.py"))
    scene = str(ROOT / "data/sample/images/scene_0000.jpg")
    for options, name in (([], "mask_detector"), (["--face-detector", "haar"], "mask_classifier")):
        assert main(["detect", scene, *options, "--out", str(tmp_path / "found.csv")]) == 2
        said = capsys.readouterr().err
        assert f"no snapshot is named, and {tmp_path}" in said and f"{name}.onnx" in said and "from a clone" in said
    with pytest.raises(snapshots.SnapshotError, match="mask_detector.onnx"):
        rm.load()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_recipe_has_the_settings_of_the_shipped_model(name):
    """Those of its record, but for what changes no weight; the classifier's validation part was another."""
    given = read_parameters_file(ROOT / "recipes" / f"{name}.yaml")
    checked = check_parameters(ROOT / "notebooks" / f"{NOTEBOOKS[name]}.ipynb", given)
    made_from = {"mask_detector": ROOT / "snapshots/interim/ssd_andrewmvd_640.h5"}  # exported at another image_size
    record = snapshots.read(made_from.get(name, snapshots.shipped(name))).record
    assert set(checked) == set(given), "plain papermill knows no others"
    more = checked.pop("more")
    settings, network = training_settings(record["detector"], more, **checked)
    trained = {field: record["training"]["parameters"][field] for field in asdict(settings)}
    for field in ("checkpoint_minutes", "precision", "cache"):
        trained[field] = getattr(settings, field)
    assert asdict(settings) == trained
    assert {field: record["settings"][field] for field in network} == {
        field: list(value) if isinstance(value, tuple) else value for field, value in network.items()
    }


def test_score_thresholds_are_of_the_size_they_were_chosen_at():
    snapshot = snapshots.read(ROOT / "snapshots/interim/ssd_andrewmvd_640.h5")
    assert snapshot.thresholds["no_mask"] == 0.23 and snapshot.at(640) is snapshot
    assert snapshot.at(1024).thresholds == {"no_mask": 0.5, "mask": 0.5} and snapshot.thresholds["no_mask"] == 0.23
    with pytest.raises(snapshots.SnapshotError, match="has a fixed image_size of 1024, not 640; export"):
        rm.load(image_size=640)


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "recipes").glob("*.yaml")))
def test_a_recipe_suits_the_notebook_that_it_names(recipe):
    text = (ROOT / "recipes" / recipe).read_text()
    notebook = re.search(rf"retinamask run (0[2678]_\w+) .*-f recipes/{recipe}", text)[1]
    given = read_parameters_file(ROOT / "recipes" / recipe)
    checked = check_parameters(ROOT / "notebooks" / f"{notebook}.ipynb", given)
    assert set(checked) == set(given), "plain papermill knows no others"
    detector = {"02": "retinanet", "08": "mask_classifier"}.get(notebook[:2], notebook.split("_train_")[1])
    training_settings(detector, checked.pop("more"), **checked)
