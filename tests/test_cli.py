"""The command line: what it passes on, what it prints, how it ends."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from retinamask import cli
from retinamask.cli import main
from retinamask.commands import runs
from retinamask.commands.training import WARPS
from retinamask.dataset import annotations
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import snapshots
from retinamask.detectors.darknet.template import yolov4_tiny_cfg
from retinamask.training.settings import AugmentationSettings, TrainingSettings

ROOT = Path(__file__).parents[1]


def test_sample_and_annotations(tmp_path, capsys):
    assert main(["sample", "--out", str(tmp_path / "s"), "--images", "3", "--size", "64"]) == 0
    (tmp_path / "s" / "annotations" / "broken.xml").write_text("<annotation>")
    table, classes = tmp_path / "a.csv", tmp_path / "c.csv"
    arguments = ["annotations", str(tmp_path / "s"), "--out", str(table), "--classes", str(classes)]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "3 images" in said.out and "1 skipped file" in said.out and "broken.xml" in said.err
    assert set(annotations.read_classes(classes)) <= set(CLASSES)
    assert main(arguments) == 2
    assert "a.csv exists; choose another --out, or replace it with --force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


def test_the_class_list_is_the_one_beside_the_table(tmp_path, monkeypatch, capsys):
    main(["sample", "--out", str(tmp_path / "s"), "--images", "3", "--size", "64"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    annotations.write_classes({"hat": 0}, "classes.csv")
    assert main(["annotations", "../s", "--out", "../a.csv"]) == 0
    assert set(annotations.read_classes("../classes.csv")) <= set(CLASSES)
    assert main(["annotations", "../s", "--out", "x.csv", "--classes", "x.csv"]) == 2
    assert "--out and --classes are both x.csv" in capsys.readouterr().err


def test_an_existing_class_list_keeps_its_ids(tmp_path):
    main(["sample", "--out", str(tmp_path / "s"), "--images", "3", "--size", "64"])
    classes = tmp_path / "c.csv"
    annotations.write_classes({"no_mask": 0, "hat": 1, "mask": 2}, classes)
    before = classes.read_bytes()
    assert main(["annotations", str(tmp_path / "s"), "--out", str(tmp_path / "a.csv"), "--classes", str(classes)]) == 0
    assert classes.read_bytes() == before


@pytest.mark.parametrize(("stop", "said"), [(KeyboardInterrupt(), "stopped"), (KeyboardInterrupt("done"), "done")])
def test_an_interrupt_ends_with_one_line(monkeypatch, capsys, stop, said):
    def interrupted():
        raise stop

    monkeypatch.setattr(cli, "_parser", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == f"retinamask: {said}\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    code = "import sys; from retinamask.cli import main; sys.exit(main(['fetch', '--list']))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-u", "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_convert_detect_and_evaluate(trained, tiny, tmp_path, capsys):
    model, found = tmp_path / "model.h5", tmp_path / "found.csv"
    assert main(["convert", str(trained.last.weights), "--out", str(model)]) == 0
    scenes = str(tiny / "scenes")
    arguments = ["detect", scenes, "--snapshot", str(model), "--out", str(found), "--score-threshold", "0.05"]
    arguments += ["--suppress", "per_class"]
    assert main(arguments) == 0
    assert len(annotations.image_paths(annotations.read_detections(found))) == 12
    assert main(arguments) == 2
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv")]
    judged = ["evaluate", *table, "--snapshot", str(model), "--out", str(tmp_path / "one.json")]
    assert main(judged) == 2
    assert "12 of 12 images show a picture that the model was trained on" in capsys.readouterr().err
    assert main([*judged, "--allow-leak", "--box-fit", "0,0,1,1"]) == 0
    printed, by_size = capsys.readouterr(), "by the side of faces in pixels of the network's input:\n"
    assert "LEAK: 12 of 12 images show" in printed.err and "2 of 12 images show a picture of the val" in printed.err
    assert f"{model}: detections from score 0.05 on" in printed.out
    sizes = printed.out.split(by_size)[1].splitlines()
    assert sizes[0].split() == ["from", "to", "boxes", "AP50", "AP", "AR100"]
    assert sum(int(line.split()[2]) for line in sizes[1:7]) == json.loads((tmp_path / "one.json").read_text())["boxes"]
    assert main(["evaluate", *table, "--detections", str(found), "--out", str(tmp_path / "two.json")]) == 0
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert (one["leaked_images"], "leaked_images" in two) == (12, False)
    assert main(["evaluate", *table, "--detections", str(found), "--out", str(tmp_path / "two.json")]) == 2
    assert one["AP50"] == pytest.approx(two["AP50"], abs=0.02) and one["boxes"] == two["boxes"]
    printed = capsys.readouterr()
    assert "AP50" in printed.out and by_size not in printed.out and "copies of its training" in printed.err
    (tmp_path / "classes.csv").write_text("no_mask,0\nmask,1\n")  # the other way round
    turned = ["evaluate", table[0], str(tmp_path / "classes.csv"), "--snapshot", str(model), "--allow-leak"]
    assert main([*turned, "--out", str(tmp_path / "three.json")]) == 0
    assert json.loads((tmp_path / "three.json").read_text())["AP50"] == pytest.approx(one["AP50"])


def test_a_detector_has_the_thresholds_of_its_validation(trained, tiny, tmp_path, capsys):
    """No mask is as certain as this snapshot asks, every no_mask is; a threshold that is given counts for both."""
    record = trained.last.record
    metrics = {**record["training"]["metrics"], "threshold/mask": 1.0, "threshold/no_mask": 0.02}
    changed = {**record, "training": {**record["training"], "metrics": metrics}}
    own = snapshots.copy(snapshots.Snapshot(trained.last.weights, changed), tmp_path / "own.h5", {})
    counts = []
    for more in ([], ["--score-threshold", "0.02"]):
        out = str(tmp_path / f"{len(counts)}.csv")
        assert main(["detect", str(tiny / "scenes"), "--snapshot", str(own.weights), "--out", out, *more]) == 0
        counts.append(annotations.read_detections(out)["class_name"].value_counts())
    first, _, other, _ = capsys.readouterr().out.splitlines()
    assert first == f"{own.weights}, score thresholds that suited its validation images: mask 1, no_mask 0.02"
    assert other == f"{own.weights}, score threshold 0.02"
    assert set(counts[0].index) == {"no_mask"} and counts[0]["no_mask"] > counts[1]["no_mask"] and counts[1]["mask"] > 0


def test_a_file_beside_the_name_to_write_is_left_alone(trained, tmp_path, capsys):
    (tmp_path / "mine.json").write_text("mine")
    assert main(["convert", str(trained.last.weights), "--out", str(tmp_path / "mine.h5")]) == 2
    assert (tmp_path / "mine.json").read_text() == "mine" and "is another model" in capsys.readouterr().err


def test_a_table_whose_images_are_elsewhere_is_not_judged(trained, tiny, tmp_path, capsys):
    table, classes = tmp_path / "annotations.csv", str(tiny / "classes.csv")
    table.write_bytes((tiny / "annotations.csv").read_bytes())
    assert main(["evaluate", str(table), classes, "--snapshot", str(trained.last.weights)]) == 2
    assert "none of the 12 image(s)" in capsys.readouterr().err


def test_nothing_readable_is_a_mistake(trained, tmp_path, capsys):
    (tmp_path / "a.jpg").write_text("no picture")
    out = tmp_path / "found.csv"
    assert main(["detect", str(tmp_path), "--snapshot", str(trained.last.weights), "--out", str(out)]) == 2
    assert "none of the 1 image(s) can be read" in capsys.readouterr().err and not out.exists()


def test_train_passes_everything_on(tiny, tmp_path, monkeypatch):
    given = {}

    def remember(examples, settings, stem, weights, evaluate, watchers, record, log_csv, resume):
        given.update(locals())
        return type("Trained", (), {"best": "best", "last": "last"})

    monkeypatch.setattr("retinamask.face.train_examples", remember)
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv")]
    options = "--backbone mobilenet128_0.25 --image-size 96 --epochs 3 --steps 7 --batch-size 2 --learning-rate 1e-5"
    more = "--schedule constant --precision float32 --keep-last 3 --seed 4 --mosaic 0.5 --balance --resume"
    assert main(["train", *table, "--out", str(tmp_path / "x"), *options.split(), *more.split()]) == 0
    settings = given["settings"]
    assert (settings.epochs, settings.steps, settings.batch_size, settings.learning_rate) == (3, 7, 2, 1e-5)
    assert (settings.schedule, settings.precision, settings.keep_last, settings.seed) == ("constant", "float32", 3, 4)
    assert settings.augmentation.mosaic == 0.5 and settings.balance and given["resume"]
    assert (
        given["examples"].detector.settings.normalisation == "live"
        and given["examples"].detector.settings.image_size == 96
    )
    assert given["weights"] == "none" and given["evaluate"] is None and given["watchers"] == []


@pytest.mark.parametrize(
    "options, expected",
    [
        ("--detector ssd_mobilenet_v2_fpnlite --alpha 0.5 --image-size 320", {"alpha": 0.5, "image_size": 320}),
        ("--detector yolov4_tiny --levels 3", {"levels": 3, "image_size": 416}),
        ("--detector ssd_mobilenet_v2_fpnlite --weights imagenet", {"normalisation": "live", "image_size": 640}),
        ("--weights imagenet", {"backbone": "resnet50", "image_size": 512, "normalisation": "frozen"}),
        ("--weights imagenet --normalisation live", {"normalisation": "live"}),
    ],
)
def test_train_builds_the_detector_that_is_named(tiny, tmp_path, monkeypatch, options, expected):
    made = []
    monkeypatch.setattr("retinamask.detectors.PUBLISHED", ())  # nothing is downloaded
    monkeypatch.setattr("retinamask.face.Examples", lambda table, folder, detector, cache: made.append(detector))
    monkeypatch.setattr("retinamask.face.train_examples", lambda *given, **named: type("Trained", (), {"best": None}))
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv"), "--out", str(tmp_path / "x")]
    assert main(["train", *table, *options.split()]) == 0
    assert {name: getattr(made[0].settings, name) for name in expected} == expected


def test_train_says_what_it_does_not_read_in_a_cfg(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("retinamask.face.Examples", lambda *given: None)
    monkeypatch.setattr("retinamask.face.train_examples", lambda *given, **named: type("Trained", (), {"best": None}))
    own = tmp_path / "own.cfg"
    own.write_text(yolov4_tiny_cfg(2, 64))
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv"), "--out", str(tmp_path / "x")]
    assert main(["train", *table, "--detector", "yolov4_tiny", "--cfg", str(own)]) == 0
    said = capsys.readouterr().out
    assert f"not read in {own}: batch, subdivisions, " in said and ", learning_rate, " in said


@pytest.mark.parametrize(
    "options, message",
    [
        (
            "--detector yolov5",
            "no detector named 'yolov5'; there are: retinanet, ssd_mobilenet_v2_fpnlite, yolov4_tiny",
        ),
        ("--detector yolov4_tiny --alpha 0.5", "yolov4_tiny has no alpha; it has"),
        (
            "--detector ssd_mobilenet_v2_fpnlite --backbone vgg16",
            "ssd_mobilenet_v2_fpnlite has no backbone; it has image_size, alpha",
        ),
        ("--detector yolov4_tiny --cfg none.cfg", "none.cfg does not exist; expected a Darknet .cfg file"),
        ("--multi-scale 1.4 --image-size 96", "multi_scale is 1.4, but retinanet takes one size; set it to 1"),
    ],
)
def test_train_refuses_what_a_detector_has_not(tiny, tmp_path, capsys, options, message):
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv"), "--out", str(tmp_path / "x")]
    assert main(["train", *table, *options.split()]) == 2
    assert message in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_the_pipeline_takes_the_notebook_of_a_detector(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(runs, "_run_and_report", lambda names, *arguments: given.append(names) or 0)
    assert main(["run", "pipeline", "--detector", "yolov4_tiny"]) == 0
    assert given[0][:3] == ("01_build_annotations", "07_train_yolov4_tiny", "03_convert_snapshot")
    assert main(["run", "05_evaluate", "--detector", "yolov4_tiny"]) == 2
    assert "--detector chooses the training notebook of the pipeline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "refused"),
    [("train", WARPS), ("train-classifier", ("mosaic", "multi_scale", "visible_share"))],
)
def test_every_setting_of_training_is_an_option_where_it_suits(command, refused, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capsys.readouterr().out
    names = {field.name for settings in (TrainingSettings, AugmentationSettings) for field in fields(settings)}
    left_out = {name for name in names if f"--{name.replace('_', '-')} " not in shown}
    assert left_out == {"augmentation", *refused}


def test_run_merges_the_file_and_the_command_line(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(runs, "_run_and_report", lambda *arguments: given.update(all=arguments) or 0)
    (tmp_path / "p.yaml").write_text("learning_rate: 1e-5\nepochs: 3\n")
    main(["run", "pipeline", "-f", str(tmp_path / "p.yaml"), "-p", "epochs", "4", "--name", "n", "--force"])
    names, parameters, name, force, folder, continued = given["all"]
    assert folder == Path("notebooks") and continued is None
    assert len(names) == 5 and parameters == {"learning_rate": "1e-5", "epochs": "4"} and (name, force) == ("n", True)
    main(["run", "elsewhere/05_mine.ipynb"])
    assert given["all"] == ("05_mine", {}, None, False, Path("elsewhere").resolve(), None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["annotations", "nowhere"], "nowhere does not exist"),
        (["detect", "nowhere", "--snapshot", "x.h5"], "nowhere does not exist"),
        (["convert", "nothing.h5"], "nothing.h5 does not exist"),
        (["evaluate", "no.csv", "no.csv", "--detections", "d.csv"], "no.csv does not exist"),
        (["run", "06_unknown"], "is not inside the project"),
        (["run", "05_evaluate", "-p", "run_dir", "x"], "--continue RUN"),
        (["keras-retinanet", "fly"], "it has: train, evaluate"),
        (["sample", "--out", "s", "--images", "0"], "images is 0"),
        (["darknet-files", "no.csv", "no.csv", "--out", "o"], "no.csv does not exist"),
        (["darknet-check", "no.data", "no.cfg"], "no.data: cannot be read"),
        (["darknet-weights", "nothing.h5", "--out", "o"], "nothing.h5 does not exist"),
    ],
)
def test_mistakes_are_one_message_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("retinamask: ") and message in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("weights imagnet", "weights is 'imagnet', expected none, imagenet, coco or the path of an existing file"),
        ("backbone alexnet", "backbone is 'alexnet', expected one of: resnet50"),
        ("schedule cosin", "schedule is 'cosin', expected one of: cosine, step"),
        ("learning_rate -1e-4", "learning_rate is -0.0001, expected"),
        ("mosaic 7", "mosaic is 7.0, expected 0 to 1"),
        ("mosaic much", "mosaic is float, got 'much' (str)"),
        ("mosiac 0.5", "no parameter named 'mosiac'; did you mean 'mosaic'?"),
        ("seed -1", "seed is -1, expected 0 to"),
        ("run_dir x", "run_dir is the run's own folder"),
    ],
)
def test_a_wrong_value_of_a_training_is_refused_before_a_folder_is_made(parameters, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("retinamask.runs.record.make_timed_run_folder", None)
    assert main(["run", "02_train_retinanet", "-p", *parameters.split()]) == 2
    assert message in capsys.readouterr().err


def test_a_notebook_lists_its_parameters(capsys, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    assert main(["run", "02_train_retinanet", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "  learning_rate: float = 0.0006\n        peak of the schedule; 1e-4 and less for pretrained" in shown
    assert "  mosaic: float = 0.0\n        probability of an example put together from four images\n" in shown
    assert main(["run", "pipeline", "--help"]) == 0
    assert "parameters of 05_evaluate:" in capsys.readouterr().out
    assert main(["run", "05_evalute", "--help"]) == 2
    assert "05_evalute.ipynb: is not a notebook that can be read" in capsys.readouterr().err


def every_command() -> list[str]:
    (choices,) = [action.choices for action in cli._parser()._actions if action.choices]
    return list(choices)


@pytest.mark.parametrize("command", every_command())
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and "usage: retinamask" in shown
    assert "default: None" not in shown and "default: False" not in shown


def commands_of_the_pages() -> list[str]:
    """Lines of code blocks of the pages that call this program, and those in sentences, without comments."""
    found = []
    for page in [ROOT / "README.md", *sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("snapshots/**/*.md")])]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [re.sub(r"^[A-Z_]+=\S+ ", "", line.split("  #")[0].strip()) for line in text.splitlines()]
        lines += re.findall(r"`(retinamask [a-z-]+ [^`]*--[^`]*)`", text.replace("\n", " "))
        found += [line for line in lines if line.startswith("retinamask ")]
    return [line for line in dict.fromkeys(found) if "..." not in line and "--help" not in line]


@pytest.mark.parametrize("command", commands_of_the_pages())
def test_the_commands_of_the_pages_exist(command):
    assert callable(cli._parser().parse_args(shlex.split(command)[1:]).command)


def test_the_commands_of_the_pages_are_found():
    complete = commands_of_the_pages()
    assert len(complete) > 30 and any("--face-detector res10" in line for line in complete)
    assert any("detect 0 --snapshot snapshots/mine_best.h5 --out-video" in line for line in complete)


@pytest.mark.parametrize("command", every_command())
def test_the_first_line_of_a_command_begins_with_a_verb(command):
    (choices,) = [action.choices for action in cli._parser()._actions if action.choices]
    first = choices[command].description.split()[0]
    assert first in {
        "Draw", "Read", "Write", "Convert", "Fetch", "Find", "Split", "Open", "Train", "Cut", "Evaluate", "Detect",
        "Check", "Report", "Run", "Export", "Compare", "List",
    }  # fmt: skip


def test_an_unknown_option_gets_the_usage_of_its_command_and_the_nearest_option(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train-classifier", "faces", "--image-size", "64"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("usage: retinamask train-classifier ")
    assert "unrecognized arguments: --image-size 64; did you mean --" in said and " or --image-height" in said
