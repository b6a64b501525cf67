"""`retinamask runs`: runs and trainings in one table, and what differs between two, of folders made up by hand."""

import copy
import json
from pathlib import Path

import pandas as pd
import pytest

from retinamask.cli import main
from retinamask.runs.ledger import COLUMNS, compare_runs, read_runs

RUN = {
    "status": "finished",
    "started": "2026-03-01T12:00:00+00:00",
    "seconds": 61.5,
    "notebooks": {
        "01_build_annotations": {"parameters": {"seed": 0, "run_dir": "x"}},
        "07_train_yolov4_tiny": {"parameters": {"epochs": 9, "more": {"mosaic": 0.5}, "run_dir": "x"}},
    },
    "packages": {"retinamask": "0.2.0"},
    "git": {"revision": "0123456789abcdef", "dirty": True},
}
TRAINING = {
    "run": "night",
    "started": "2026-03-02T00:30:00+02:00",
    "finished": False,
    "best": False,
    "epoch": 1,
    "metrics": {"epoch": 1, "loss": 1.0, "seconds": 10.0},
    "training_table_fingerprint": "feed" * 16,
    "versions": {"retinamask": "0.1.0"},
    "weights": {"source": "imagenet"},
    "parameters": {"epochs": 3, "augmentation": {"flip": True, "zoom_in": 2}},
}


def write(path: str, content: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content))


def snapshot(name: str, settings: dict, kind: str = "training", **training) -> None:
    record = {"format": 1, "kind": kind, "detector": "retinanet", "classes": {"mask": 0}, "created": "2026-03-02"}
    write(
        f"snapshots/{name}.json",
        {**record, "settings": settings, "training": TRAINING | training, "weights_sha256": ""},
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Two runs and one by hand, of which nothing is known but a notebook; and two trainings."""
    monkeypatch.chdir(tmp_path)
    write("runs/one/run.json", RUN)
    write("runs/one/metrics.json", {"AP50": 0.75, "AP": 0.5, "split": "test"})
    write("runs/one/dataset.json", {"fingerprint": "beef" * 16})
    two = copy.deepcopy(RUN) | {"status": "failed", "started": "2026-03-01T14:00:00+03:00", "git": None}
    two["notebooks"]["07_train_yolov4_tiny"]["parameters"] |= {"epochs": 12, "more": {}, "run_dir": "y"}
    write("runs/two/run.json", two)
    hand = {"05_evaluate": {"started": "2026-02-01T00:00:00+00:00", "parameters": {}}}
    write("runs/hand/run.json", {"name": "hand", "status": "by hand", "notebooks": hand})
    judged = {"AP50": 0.9, "AP": 0.6, "epoch": 2, "seconds": 20.0}
    snapshot("night_best", {"image_size": 512}, best=True, epoch=2, metrics=judged)
    snapshot("night_last", {"image_size": 512}, epoch=3, metrics={"AP50": 0.8, "seconds": 30.0}, finished=True)
    snapshot("night_best_inference", {"image_size": 512}, kind="inference")
    other = {"parameters": {"epochs": 3, "augmentation": {"flip": False, "zoom_in": 2}}, "run": "day"}
    snapshot("day_last", {"image_size": 320}, started="2026-01-01T00:00:00+00:00", **other)
    snapshot("theirs_adopted", {}, adopted_from={"name": "theirs.h5"})


def test_all_are_listed_the_newest_first(project):
    table, problems = read_runs("runs", "snapshots")
    assert problems == [] and list(table) == [*COLUMNS, "run", "parameters"]
    # By their moments, not by what their clocks say: night began at 22:30, one at 12:00 and two at 11:00 of UTC.
    assert table["name"].tolist() == ["night_best", "one", "two", "hand", "day_last"]
    assert table["kind"].tolist() == ["training", "run", "run", "run", "training"]
    moments = [pd.Timestamp(text).tz_convert("UTC").hour * 60 + pd.Timestamp(text).minute for text in table["started"]]
    assert moments == [22 * 60 + 30, 12 * 60, 11 * 60, 0, 0]
    night, one, two, hand, day = table.astype(object).where(table.notna(), None)[COLUMNS[3:]].to_numpy().tolist()
    assert night == ["finished", "retinanet", "feed" * 16, "val", 0.9, 0.6, None, 3, 30.0, "0.1.0", None]
    assert one == ["finished", "yolov4_tiny", "beef" * 16, "test", 0.75, 0.5, None, 9, 61.5, "0.2.0", "0123456+"]
    assert two == ["failed", "yolov4_tiny", *[None] * 5, 12, 61.5, "0.2.0", None]
    assert hand == ["by hand", *[None] * 10]
    assert day == ["unfinished", "retinanet", "feed" * 16, *[None] * 4, 1, 10.0, "0.1.0", None]


@pytest.mark.parametrize(
    ("names", "differing"),
    [
        (("one", "two"), {"07_train_yolov4_tiny.epochs": (9, 12), "07_train_yolov4_tiny.more.mosaic": (0.5, None)}),
        (
            ("night_best", "day_last"),
            {"training.augmentation.flip": (True, False), "network.image_size": (512, 320)},
        ),
        (("one", "one"), {}),
    ],
)
def test_two_are_compared_by_what_differs(project, names, differing):
    compared = compare_runs(read_runs("runs", "snapshots")[0], *names)
    assert list(compared.columns) == list(names) and compared.index.tolist() == [*COLUMNS[1:], *differing]
    found = compared[len(COLUMNS) - 1 :].astype(object)
    assert found.where(found.notna(), None).to_numpy().tolist() == [list(pair) for pair in differing.values()]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["one", "none"],
            "none: no run and no training of that name; the newest are: night_best, one, two, hand, day_last",
        ),
        (["one", "night_best"], "one is a run and night_best is a training, which have other parameters"),
        (["one"], "found 1 names, expected none, for the list, or two"),
        (["--out", "there.csv"], "there.csv exists"),
    ],
)
def test_mistakes_are_named(project, names, message, capsys):
    Path("there.csv").touch()
    assert main(["runs", *names]) == 2
    assert message in capsys.readouterr().err


def test_damaged_records_are_named_and_the_rest_is_listed(project, capsys):
    Path("runs/two/run.json").write_text('{"status": "fin')
    write("runs/hand/run.json", {"status": "finished"})
    Path("snapshots/day_last.json").write_text("[]")
    write("snapshots/mine.json", {"format": 1})
    assert main(["runs", "--out", "runs.csv"]) == 0
    said = capsys.readouterr()
    lines = said.err.splitlines()
    places = ["runs/hand/run.json", "runs/two/run.json", "snapshots/day_last.json", "snapshots/mine.json"]
    assert [line.split()[2] for line in lines] == places and all(line.startswith("left out: ") for line in lines)
    table = pd.read_csv("runs.csv")
    assert table["name"].tolist() == ["night_best", "one"] and table["data"].tolist() == ["feed" * 16, "beef" * 16]
    shown = [line.split() for line in said.out.splitlines()]
    assert shown[0] == [*COLUMNS[1:5], "data", "on", "AP50", "AP", *COLUMNS[10:]]
    assert shown[1][4:] == ["finished", "retinanet", "feedfeed", "val", "0.9", "0.6", "3", "30", "0.1.0", "-"]


def test_the_trainings_of_a_run_stand_below_it_and_lines_are_not_too_long(project, capsys):
    """Also one that began after later runs; what there is no room for is said, and is in the CSV."""
    name, detector = "pipeline-20260220-120000", "ssd_mobilenet_v2_fpnlite"
    run = {"started": "2026-02-20T12:00:00+00:00", "notebooks": {f"06_train_{detector}": {"parameters": {"epochs": 2}}}}
    write(f"runs/{name}/run.json", RUN | run)
    for stem, started in ((name, "2026-02-20T12:01:00+00:00"), (f"{name}-2", "2026-03-09T00:00:00+00:00")):
        snapshot(f"{stem}_best", {}, run=name, started=started, best=True)
    assert main(["runs", "--out", "runs.csv"]) == 0
    head, *lines, left_out = capsys.readouterr().out.splitlines()
    its_own = [f"  {name}-2_best", f"  {name}_best"]
    assert [line[:33].rstrip() for line in lines] == ["night_best", "one", "two", name, *its_own, "hand", "day_last"]
    assert head.split() == ["started", "status", "detector", "data", "on", "AP50", "AP", "epochs"]
    assert max(map(len, [head, *lines])) <= 120
    assert left_out == "left out for want of room: revision, version, kind, seconds; --out CSV has them"
    table = pd.read_csv("runs.csv", index_col="name")
    assert {*COLUMNS[1:], "run"} == set(table) and (table["run"] == name).sum() == 3


def test_two_are_shown_and_written(project, capsys):
    assert main(["runs", "one", "two", "--out", "two.csv"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[0] == ["one", "two"] and ["07_train_yolov4_tiny.epochs", "9", "12"] in shown
    assert pd.read_csv("two.csv", index_col=0).loc["AP50"].tolist()[0] == "0.75"


def test_nothing_is_there_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "no runs and no trainings yet\n"
