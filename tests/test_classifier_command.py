"""The classifier from the command line: faces cut out, trained on, judged; and what is said of bad input."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, log_loss
from sound_data import picture

from retinamask.cli import main
from retinamask.commands.classifier import _read
from retinamask.dataset import annotations, images
from retinamask.dataset.faces import MARGIN, read_face_folders, split_faces
from retinamask.detectors.snapshots import Snapshot
from retinamask.inference.classify import Classifier
from retinamask.inference.detect import Predictor

SMALL = (
    "--image-height 32 --image-width 32 --alpha 0.35 --dense 8 --weights none --epochs 2 --steps 2 --batch-size 4 "
    "--precision float32 --freeze-epochs 0"
)


def make_folders(folder, count: int = 6, classes=("with_mask", "without_mask")):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for place in range(count):
            picture(100 * number + place, (40, 36)).save(folder / name / f"{place}.png")
    return folder


@pytest.fixture(scope="module")
def faces(tiny, tmp_path_factory):
    """The faces of the tiny scenes."""
    out = tmp_path_factory.mktemp("cut") / "faces"
    assert main(["cut-faces", str(tiny / "annotations.csv"), str(tiny / "classes.csv"), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two short epochs on class folders: the folder of images, and the stem of the run."""
    folder = tmp_path_factory.mktemp("run")
    make_folders(folder / "data", 10)
    out = folder / "snapshots" / "masks"
    assert main(["train-classifier", str(folder / "data"), "--out", str(out), *SMALL.split()]) == 0
    return folder / "data", out


def test_every_box_of_the_table_becomes_a_face(tiny, faces, capsys):
    table = annotations.objects(annotations.read_annotations(tiny / "annotations.csv"))
    large = table[(table[["x2", "y2"]].to_numpy() - table[["x1", "y1"]].to_numpy()).min(1) >= 8]
    cut = annotations.read_annotations(faces / "faces.csv")
    assert cut["class_name"].value_counts().to_dict() == large["class_name"].value_counts().to_dict()
    assert annotations.read_classes(faces / "classes.csv") == annotations.read_classes(tiny / "classes.csv")
    assert read_face_folders(faces).left_out == []


def test_cutting_says_what_it_did_and_replaces_nothing(tiny, faces, tmp_path, capsys):
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv")]
    assert main(["cut-faces", *table, "--out", str(tmp_path / "new"), "--least-side", "30"]) == 0
    said = capsys.readouterr()
    assert "left out" in said.out and "on its shorter side, expected 30" in said.err
    assert main(["cut-faces", *table, "--out", str(faces)]) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err


def test_faces_of_one_scene_stay_together(faces):
    table = read_face_folders(faces).table
    parts = split_faces(table, faces, 0.3)
    scenes = [{path.split("/")[1].split("_")[0] for path in part["image_path"]} for part in (parts.train, parts.val)]
    assert not scenes[0] & scenes[1] and len(scenes[1]) >= 2
    assert len(parts.train) + len(parts.val) == len(table)
    own = split_faces(table, faces, 0.3, group_by="/(0000[01])_").groups  # says nothing of most scenes
    numbers = pd.Series(own.numbers, [path.split("/")[1].split("_")[0] for path in own.paths])
    assert numbers.groupby(level=0).nunique().max() == 1
    chance = split_faces(table, faces, 0.3, by_chance=True)
    scenes = [{path.split("/")[1].split("_")[0] for path in part["image_path"]} for part in (chance.train, chance.val)]
    assert scenes[0] & scenes[1]


def test_the_figures_of_a_run_are_those_of_its_snapshot(run):
    folder, out = run
    classifier = Classifier.load(f"{out}_best.h5")
    assert classifier.classes == {"with_mask": 0, "without_mask": 1} and classifier.margin == MARGIN
    val = annotations.read_annotations(f"{out}_val.csv", classifier.classes)
    train = annotations.read_annotations(f"{out}_train.csv", classifier.classes)
    assert len(val) == 4 and len(train) == 16 and not set(val["image_path"]) & set(train["image_path"])
    probabilities = classifier([images.read_image(out.parent / path) for path in val["image_path"]])
    labels = val["class_name"].map(classifier.classes).to_numpy()
    figures = json.loads(out.with_name(f"{out.name}_best.json").read_text())["training"]["metrics"]
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, probabilities.argmax(1)))
    assert figures["val_loss"] == pytest.approx(log_loss(labels, probabilities), rel=1e-4)
    for name, number in classifier.classes.items():
        of_class = labels == number
        assert figures[f"accuracy/{name}"] == pytest.approx((probabilities.argmax(1) == labels)[of_class].mean())


def test_the_log_has_a_row_an_epoch_and_the_best_is_the_most_accurate(run):
    log = pd.read_csv(f"{run[1]}_log.csv")
    assert log["epoch"].tolist() == [1, 2] and {"accuracy", "val_loss", "classification_loss"} <= set(log.columns)
    best = json.loads(run[1].with_name("masks_best.json").read_text())["training"]["epoch"]
    expected = log.sort_values(["accuracy", "val_loss"], ascending=[False, True])["epoch"].iloc[0]
    assert best == expected


def test_a_run_is_not_replaced_and_one_that_is_over_stays(run, capsys):
    folder, out = run
    assert main(["train-classifier", str(folder), "--out", str(out), *SMALL.split()]) == 2
    assert "masks_log.csv exists" in capsys.readouterr().err
    assert main(["train-classifier", str(folder), "--out", str(out), *SMALL.split(), "--resume"]) == 0
    assert "has finished" in capsys.readouterr().out
    tables = [out.with_name(f"masks_{side}.csv") for side in ("train", "val")]
    before = [table.read_bytes() for table in tables]
    other = [*SMALL.split(), "--resume", "--val-share", "0.4"]
    assert main(["train-classifier", str(folder), "--out", str(out), *other]) == 2
    assert "of a run that differs" in capsys.readouterr().err
    assert [table.read_bytes() for table in tables] == before


def test_a_classifier_is_no_detector(run, tiny, capsys):
    snapshot = f"{run[1]}_best.h5"
    with pytest.raises(ValueError, match="is a classifier, which finds no boxes"):
        Predictor.load(snapshot)
    assert main(["convert", snapshot]) == 2
    assert "nothing is to be converted" in capsys.readouterr().err
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv")]
    assert main(["train", *table, "--detector", "mask_classifier"]) == 2
    assert "use retinamask train-classifier" in capsys.readouterr().err


def test_a_detector_is_no_classifier():
    with pytest.raises(ValueError, match="is a retinanet, which finds boxes; expected the snapshot of a classifier"):
        Classifier.load(Snapshot(Path("faces.h5"), {"detector": "retinanet"}))


@pytest.fixture
def passed_on(monkeypatch):
    """What the command hands to training."""
    given = {}

    def remember(examples, settings, stem, weights, evaluate, watchers, **named):
        given.update(locals())
        for watcher in watchers:
            watcher.started(None)
        return type("Trained", (), {"best": None})

    monkeypatch.setattr("retinamask.face.train_examples", remember)
    return given


def test_options_reach_the_training(tmp_path, passed_on):
    folder = make_folders(tmp_path / "data", 5, ("a", "b", "c"))
    (folder / "c" / "4.png").unlink()
    options = (
        "--image-height 64 --image-width 96 --alpha 0.5 --pooling max --dense 32,16 --dropout 0.1 --fine-tune-blocks 2 "
        "--class-weights balanced --margin 0.4 --rotate 5 --erase 0.25 --epochs 7 --early-stop 3 --weights none"
    )
    assert main(["train-classifier", str(folder), "--out", str(tmp_path / "x"), *options.split()]) == 0
    detector, settings = passed_on["examples"].detector, passed_on["settings"]
    made = detector.settings
    assert (made.image_height, made.image_width, made.alpha, made.pooling) == (64, 96, 0.5, "max")
    assert (made.dense, made.dropout, made.fine_tune_blocks, made.margin) == ((32, 16), 0.1, 2, 0.4)
    assert made.normalisation == "live" and len(made.class_weights) == 3
    assert (settings.epochs, settings.early_stop, settings.batch_size) == (7, 3, 32)
    assert (settings.augmentation.rotate, settings.augmentation.erase, settings.augmentation.shift) == (5, 0.25, 0.1)
    assert len(passed_on["examples"]) + len(passed_on["evaluate"].table) == 14


@pytest.mark.parametrize(("options", "epochs"), [(["none"], 0), ([], 5), (["none", "--freeze-epochs", "2"], 2)])
def test_pretrained_weights_are_frozen_first_and_random_ones_are_not(tmp_path, passed_on, monkeypatch, options, epochs):
    folder, stem = make_folders(tmp_path / "data"), tmp_path / "x"
    started = ["--weights", *options] if options else []
    monkeypatch.setattr("retinamask.detectors.PUBLISHED", ())  # nothing is downloaded
    assert main(["train-classifier", str(folder), "--out", str(stem), *started]) == 0
    assert passed_on["settings"].freeze_epochs == epochs


def test_faces_are_cut_out_of_a_table_for_training(tiny, tmp_path, passed_on):
    source = [str(tiny / "annotations.csv"), "--classes", str(tiny / "classes.csv"), "--weights", "none"]
    assert main(["train-classifier", *source, "--out", str(tmp_path / "x"), "--val-share", "0.3"]) == 0
    assert (tmp_path / "x_faces" / "faces.csv").is_file()
    assert passed_on["examples"].detector.settings.margin == MARGIN
    part = annotations.read_annotations(tmp_path / "x_train.csv")
    assert part["image_path"].str.startswith("x_faces/").all() and len(part) == len(passed_on["examples"])


def test_faces_are_cut_out_of_annotations_of_any_format(tiny, tmp_path, passed_on, capsys):
    command = ["train-classifier", str(tiny / "scenes"), "--from", "voc", "--weights", "none", "--val-share", "0.3"]
    assert main([*command, "--out", str(tmp_path / "x"), "--classes", str(tiny / "classes.csv")]) == 0
    said = capsys.readouterr()
    assert "faces are in" in said.out and list(passed_on["examples"].detector.classes) == ["mask", "no_mask"]


def test_what_is_no_sound_image_is_named_and_left_out_or_refused(tmp_path, passed_on, capsys):
    folder = make_folders(tmp_path / "data")
    (folder / "with_mask" / "note.txt").write_text("about these images")
    (folder / "with_mask" / "text.jpg").write_text("no image")
    whole = (folder / "without_mask" / "0.png").read_bytes()
    (folder / "without_mask" / "cut.png").write_bytes(whole[: len(whole) // 2])
    command = ["train-classifier", str(folder), "--out", str(tmp_path / "x"), "--weights", "none"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "3 left out or noted" in said.out and len(passed_on["examples"]) + len(passed_on["evaluate"].table) == 12
    assert "note.txt is no image; expected files ending in .jpg" in said.err
    assert "text.jpg" in said.err and "cut.png: damaged image" in said.err
    assert main([*command, "--strict"]) == 2
    refused = capsys.readouterr().err
    assert "is not sound" in refused and all(name in refused for name in ("note.txt", "text.jpg", "cut.png"))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((), "no image below .*; expected a folder for each class with files ending in .jpg"),
        (("with_mask",), "images of one class alone, with_mask; expected a folder for each of at least two classes"),
    ],
)
def test_folders_that_no_classifier_can_learn_from(tmp_path, classes, message):
    (tmp_path / "data").mkdir()
    make_folders(tmp_path / "data", classes=classes)
    with pytest.raises(annotations.AnnotationError, match=message):
        read_face_folders(tmp_path / "data")


def test_bad_options_are_said(tmp_path, tiny, capsys):
    folder = str(make_folders(tmp_path / "data"))
    for options, message in (
        (["--from", "a.csv", "b.csv"], "--from is a.csv, expected the name of a format such as csv; the annotations "),
        ([folder, "--from", "pascal"], "format is 'pascal', expected one of: voc"),
        ([str(tmp_path / "none")], "none does not exist; expected a folder or file of annotations"),
        ([folder, "--val-share", "1"], "val_share is 1.0, expected more than 0 and less than 1"),
        ([folder, "--dense", "many", "--weights", "none"], "dense is 'many', expected numbers"),
        ([folder, "--class-weights", "1,2,3", "--weights", "none"], "class_weights are (1.0, 2.0, 3.0), expected one"),
        ([folder, "--weights", "nothing.h5"], "weights is 'nothing.h5', expected none, imagenet"),
        ([folder, "--weights", "coco"], "no coco weights are published for mask_classifier"),
        ([folder, "--margin", "-1", "--weights", "none"], "margin is -1.0, expected 0 to 5"),
    ):
        assert main(["train-classifier", *options, "--out", str(tmp_path / "x")]) == 2, options
        assert message in capsys.readouterr().err, options


def test_the_drawn_names_of_images_are_no_trouble(tmp_path):
    """Spaces, dots and letters beyond ASCII."""
    folder = make_folders(tmp_path / "data")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / "with_mask" / "ein Bild (1).übung.png")
    assert len(read_face_folders(folder).table) == 13


def test_images_beside_a_table_are_not_its_business(tiny):
    table = annotations.read_annotations(tiny / "annotations.csv")
    first = table[table["image_path"] == table["image_path"].iloc[0]]
    part = tiny / "annotations_first.csv"
    annotations.write_annotations(first, part)
    _, kept, _, problems = _read(Namespace(source=part, format="csv", images=None), None)
    part.unlink()
    assert len(kept) == len(first) and problems == []
