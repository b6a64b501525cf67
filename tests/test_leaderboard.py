"""Several detectors on one table: the figures of `rm.evaluate`, times that take turns, and what is written."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image, ImageOps

import retinamask as rm
from retinamask.cli import main
from retinamask.dataset import annotations
from retinamask.detectors import snapshots
from retinamask.evaluation import leaderboard as module
from retinamask.evaluation.leaderboard import Leaderboard
from retinamask.evaluation.leaks import Leaks


@pytest.fixture(scope="module")
def table(tiny):
    return annotations.read_annotations(tiny / "annotations.csv")


def test_a_leaderboard_has_the_figures_of_an_evaluation(trained, table, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_peak_memory", lambda weights, paths, faces: 100.0)
    board = rm.leaderboard([trained.best, trained.last.weights], table, trained.best.classes, tiny, 1, 1, True)
    rows = board.table.set_index("model")
    names = ["tiny_best.h5", "tiny_last.h5"]
    assert sorted(rows.index) == sorted(names) and rows["AP"].is_monotonic_decreasing
    found = rm.load(trained.last).detect(table, 0.05, "per_class", folder=tiny)
    metrics, last = rm.evaluate(found, table, trained.best.classes), rows.loc["tiny_last.h5"]
    for name in ("AP", "AP50"):
        assert last[[name, f"{name}_low", f"{name}_high"]].tolist() == [metrics[name], *metrics.intervals[name]]
    assert last["AP50/mask"] == metrics["per_class"]["mask"]["AP50"]
    assert last["file_mb"] == trained.last.weights.stat().st_size / 1e6
    assert last["minutes_to_snapshot"] == pytest.approx(trained.log["seconds"].iloc[-1] / 60)
    assert (rows["leaked_images"] == 12).all()
    assert [text.split(": LEAK: ")[0] for text in board.remarks if "LEAK" in text] == names
    assert (rows["detector"] == "retinanet").all() and (rows["image_size"] == 96).all()
    assert (rows["images_a_second"] * rows["milliseconds"]).tolist() == pytest.approx([1000] * 2)
    board.save(tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "leaderboard.csv"), board.table)
    with Image.open(tmp_path / "leaderboard_images.png") as sheet:
        assert sheet.size == (400 // 16 + 3 * (400 + 400 // 16), 400 // 4 + 6 * (400 + 400 // 9 + 400 // 16))


def test_times_are_medians_of_passes_that_take_turns(tmp_path, monkeypatch):
    """Two images; a call takes as long as the list says, in milliseconds, the first pass of each does not count."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    takes = {"slow": iter([900, 900, 30, 50, 10, 10, 70, 90]), "quick": iter([900, 900, 1, 1, 2, 4, 9, 9])}
    clock, calls = SimpleNamespace(now=0.0), []

    def predictor(name):
        def look(images_rgb):
            calls.append(name)
            clock.now += next(takes[name]) / 1000

        return look

    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    found = module._milliseconds({name: predictor(name) for name in takes}, [tmp_path / "a.png"] * 2, 3)
    assert found == pytest.approx({"slow": 40, "quick": 3})
    assert calls == ["slow", "slow", "quick", "quick"] * 4


def test_the_table_as_markdown():
    row = {"model": "a.h5", "detector": "retinanet", "image_size": 512, "AP": 0.5, "AP_low": 0.4, "AP_high": 0.6}
    row |= {"AP50": 0.8, "AP50_low": 0.7, "AP50_high": 0.9, "AP50/mask": 0.75, "AP50/none": None}
    row |= {"images_a_second": 40.0, "milliseconds": 25.0, "peak_memory_mb": np.nan, "file_mb": 11.06}
    rows = [row | {"minutes_to_snapshot": 2.04, "leaked_images": images} for images in (0, None, 3)]
    board = Leaderboard(pd.DataFrame(rows[:1]), [], {"mask": 0, "none": 1}, [])
    assert board.markdown().splitlines() == [
        "| model | px | AP (95 %) | AP50 (95 %) | AP50 mask | AP50 none | images/s | ms | memory MB | file MB "
        "| min of last training |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| a.h5 | 512 | 0.500 (0.400 to 0.600) | 0.800 (0.700 to 0.900) | 0.750 | - | 40.0 | 25.0 | - | 11.1 | 2.0 |",
    ]
    (axes,) = board.picture().axes
    assert [text.get_text() for text in axes.get_legend().texts] == ["1  a.h5"]
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("1", (40, 0.5))]
    board = Leaderboard(pd.DataFrame(rows), [], {"mask": 0, "none": 1}, ["a.h5: LEAK: 3 of 9", "two"])
    names = ["a.h5", "a.h5", "a.h5 (LEAK)"]
    _, _, *lines, blank, one, two = board.markdown().splitlines()
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in names]
    assert (blank, one, two) == ("", "- a.h5: LEAK: 3 of 9", "- two")
    (axes,) = board.picture().axes
    legend = [text.get_text() for text in axes.get_legend().texts]
    assert legend == [f"{rank}  {name}" for rank, name in enumerate(names, 1)]
    assert Leaderboard(pd.DataFrame(rows[1:2]), [], {"mask": 0, "none": 1}, []).markdown().count("LEAK") == 0


def test_remarks_name_what_was_not_read_and_what_is_there_twice(trained, table, tiny, tmp_path, monkeypatch):
    """Of the twelve images, the first is there mirrored too, and another file is none."""
    monkeypatch.setattr(module, "_peak_memory", lambda weights, paths, faces: 100.0)
    monkeypatch.setattr(module, "find_leaks", lambda *_: Leaks(None, ["copies cannot be checked"]))
    board_table = annotations.moved(table, tiny, tmp_path)
    first = annotations.image_paths(board_table)[0]
    with Image.open(tmp_path / first) as image:
        ImageOps.mirror(image).save(tmp_path / "mirrored.png")
    (tmp_path / "broken.png").write_text("no picture")
    for name in ("mirrored.png", "broken.png"):
        board_table.loc[len(board_table)] = [name, 1, 1, 9, 9, "mask"]
    of_model, unread, copies = rm.leaderboard([trained.last], board_table, trained.last.classes, tmp_path, 1, 1).remarks
    assert of_model == "tiny_last.h5: copies cannot be checked"
    assert unread.startswith(f"counted as without detections: {tmp_path / 'broken.png'}: not a readable image")
    assert f"2 of 13 images are copies of each other, in 1 group, such as {first} and mirrored.png: each" in copies


def test_a_remark_on_detections_has_the_name_of_their_model(trained, table, tiny, monkeypatch):
    """Detections that were cut at a threshold, as of a model that gives no weak ones."""
    monkeypatch.setattr(module, "_peak_memory", lambda weights, paths, faces: 100.0)
    monkeypatch.setattr(module, "find_leaks", lambda *_: Leaks(0, []))

    def cut(predictor, paths, *_, **__):
        return annotations.make_table(
            [(path, 1, 1, 9, 9, "mask", 0.9) for path in paths], annotations.DETECTION_COLUMNS
        ), []

    monkeypatch.setattr(module, "detect", cut)
    remarks = rm.leaderboard([trained.last], table, trained.last.classes, tiny, 1, 1).remarks
    assert remarks[0].startswith("tiny_last.h5: WARNING: no detection scores below 0.90")


def test_the_command_compares_snapshots_of_files_and_runs(trained, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "_peak_memory", lambda weights, paths, faces: 100.0)
    (tmp_path / "lonely").mkdir()
    command = ["compare", str(trained.best.weights), "--annotations", str(tiny / "annotations.csv"), "--passes", "1"]
    command += ["--classes", str(tiny / "classes.csv"), "--out", str(tmp_path / "board")]
    assert main(command) == 2 and "show a picture that the model was trained on" in capsys.readouterr().err
    command += ["--allow-leak"]
    assert main(command) == 0
    assert capsys.readouterr().out == (tmp_path / "board" / "leaderboard.md").read_text()
    for name in ("leaderboard.csv", "leaderboard.md", "leaderboard.png", "leaderboard_images.png"):
        assert main(command) == 2
        assert f"{name} exists; choose another --out" in capsys.readouterr().err
        (tmp_path / "board" / name).unlink()
    folder = ["--snapshots-dir", str(tiny / "snapshots"), "--force"]
    assert main(["compare", str(tmp_path / "lonely"), *command[1:], *folder]) == 2
    assert "the run 'lonely' has no training or inference snapshot" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(trained, table, tiny, tmp_path):
    with pytest.raises(ValueError, match="0 models, 5 passes and 4 timed images, expected at least 1"):
        rm.leaderboard([], table, trained.best.classes, tiny)
    again = trained.last.weights.parent / "." / ".." / trained.last.weights.parent.name / trained.last.weights.name
    with pytest.raises(ValueError, match=r"tiny_last\.h5 is given more than once, expected each model once"):
        rm.leaderboard([trained.last, trained.best, again], table, trained.best.classes, tiny)
    with pytest.raises(ValueError, match=r"was trained for the classes 0 mask.*use the classes\.csv"):
        rm.leaderboard([trained.best], table, {"no_mask": 0, "mask": 1}, tiny)
    with pytest.raises(ValueError, match="has no effect, since none of the models is a mask classifier"):
        rm.leaderboard([trained.best], table, trained.best.classes, tiny, face_detector="haar")
    broken = tmp_path / "broken.onnx"
    broken.write_text("no network")
    with pytest.raises(ValueError, match=re.escape(f"{broken}: a process of its own cannot run it (")):
        module._peak_memory(broken, [])


def test_boxes_are_fitted_and_classifiers_get_their_faces(tmp_path, monkeypatch, capsys):
    """On halves of drawn scenes, with the models of the project, which `rm.load` takes too."""
    table, classes, _ = rm.read_annotations(ROOT / "data/sample", known={"no_mask": 0, "mask": 1}, folder=tmp_path)
    paths = annotations.image_paths(table)[:24]
    first, second = (table[table["image_path"].isin(paths[start::2])] for start in (0, 1))
    models = [snapshots.shipped(name) for name in ("mask_detector", "mask_classifier")]
    board = rm.leaderboard(models, second, classes, tmp_path, 1, 1, fit_table=first, face_detector="snapshot")
    rows, two_stages = board.table.set_index("model"), "mask_classifier.onnx + snapshot"
    assert rows.loc[two_stages, "image_size"] == 128
    assert rows["peak_memory_mb"].between(100, 700).all()  # without TensorFlow; a process of its own for each
    for name, options in (("mask_detector.onnx", {}), (two_stages, {"face_detector": "snapshot"})):
        fit = rm.fit_boxes(rm.load(**options).detect(first, 0.5, folder=tmp_path), first)
        numbers = ",".join(f"{number:g}" for number in fit)
        assert f"{name}: boxes fitted to those of training images, --box-fit {numbers}" in board.remarks
        found = rm.load(**options, box_fit=fit).detect(second, 0.05, "per_class", folder=tmp_path)
        assert (
            rows.loc[name, "AP"] == pytest.approx(rm.evaluate(found, second, classes)["AP"]) and rows["AP"].min() > 0.1
        )
    with pytest.raises(ValueError, match="12 of 12 images show a picture that boxes were fitted on"):
        rm.leaderboard(models[:1], second, classes, tmp_path, 1, 1, fit_table=second)
    monkeypatch.setattr(module, "_peak_memory", lambda weights, paths, faces: 100.0)
    for part, name in ((first, "train"), (second, "test")):
        annotations.write_annotations(part, tmp_path / f"{name}.csv")
    (tmp_path / "classes.csv").write_text("no_mask,0\nmask,1\n")
    command = ["compare", str(models[1]), "--annotations", str(tmp_path / "test.csv"), "--classes"]
    command += [str(tmp_path / "classes.csv"), "--passes", "1", "--out", str(tmp_path / "board")]
    assert main(command) == 2 and "a face detector" in capsys.readouterr().err
    assert main([*command, "--face-detector", "snapshot", "--fit-boxes", str(tmp_path / "train.csv")]) == 0
    assert f"| {two_stages} | 128 |" in capsys.readouterr().out
