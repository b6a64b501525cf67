"""`retinamask sweep`: grids are checked before anything runs; failed runs are in the table; finished ones are kept."""

import json
import os
import signal
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from retinamask import cli
from retinamask.evaluation.coco import MEANINGS
from retinamask.runs import runner
from retinamask.runs.sweep import sweep

DECLARED = """
rate: float = 1e-3
name: str = "x"
epochs: int = 2
labels: list[str] = []
run_dir: str = "runs"
"""


def run_without_a_kernel(notebook, values, run_dir):
    """What a notebook would leave; it fails at a rate of 9."""
    if values.get("rate") == 9:
        where = {"notebook": notebook.stem, "number": 3, "title": "Train", "error": "ValueError", "message": "too fast"}
        raise runner.NotebookError("too fast", run_dir / notebook.name, where)
    figures = dict.fromkeys(MEANINGS, 0) | {"AP50": values.get("rate", 0) * 10, "per_class": {}}
    Path(run_dir, "metrics.json").write_text(json.dumps(figures))
    with Path(run_dir.parent, "log.txt").open("a") as file:
        file.write(f"{values.get('rate')} {values.get('name')} {values.get('epochs')}\n")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one notebook, in which no kernel is started."""
    (tmp_path / "retinamask").mkdir()
    (tmp_path / "notebooks").mkdir()
    cell = nbformat.v4.new_code_cell(DECLARED, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / "a.ipynb")
    monkeypatch.setattr(runner, "run_notebook", run_without_a_kernel)
    monkeypatch.setattr("retinamask.runs.sweep.write_page", lambda run_dir: Path(run_dir, "page").touch())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_grid_is_run_and_only_what_failed_is_run_again(project, monkeypatch, capsys):
    command = ["sweep", "a", "--grid", "rate=0.01,9", "--grid", "name=p/q,z", "-p", "epochs", "5"]
    assert cli.main(command) == 1
    said = capsys.readouterr()
    assert "4 runs, 2 failed: runs/sweep_a/sweep.csv" in said.out and "too fast" in said.err
    table = pd.read_csv("runs/sweep_a/sweep.csv")
    assert list(table) == ["rate", "name", *MEANINGS, "seconds", "status", "error", "run"]
    assert table["rate"].tolist() == [0.01, 0.01, 9, 9] and table["name"].tolist() == ["p/q", "z"] * 2
    assert table["AP50"].tolist()[:2] == [0.1, 0.1] and table["AP50"][2:].isna().all()
    assert table["status"].tolist() == ["finished"] * 2 + ["failed"] * 2 and (table["seconds"] >= 0).all()
    assert table["error"].tolist()[2:] == ["NotebookError: too fast"] * 2
    log = Path("runs/sweep_a/log.txt")
    assert log.read_text() == "0.01 p/q 5\n0.01 z 5\n"
    record = json.loads(Path("runs/sweep_a", table["run"][0], "run.json").read_text())
    assert record["notebooks"]["a"]["parameters"]["rate"] == 0.01  # a number, not the text
    monkeypatch.setattr(runner, "run_notebook", lambda notebook, values, run_dir: log.write_text("again"))
    assert cli.main(command) == 0 and log.read_text() == "again"
    again = pd.read_csv("runs/sweep_a/sweep.csv")
    assert again["run"].tolist() == table["run"].tolist() and again["AP50"].tolist()[:2] == [0.1, 0.1]
    assert again["status"].tolist() == ["finished"] * 4


def test_a_grid_runs_on_the_workers_of_a_cluster(project, cluster):
    table = sweep("a", {"rate": ["0.01", "9", "0.02"]}, {}, Path("out"), cluster.scheduler_address)
    assert table["status"].tolist() == ["finished", "failed", "finished"]
    assert table["AP50"].tolist()[::2] == [0.1, 0.2]
    assert sorted(Path("out/log.txt").read_text().split()[::3]) == ["0.01", "0.02"]


def deadly(run, names, own, out, notebooks_dir):
    """A run that kills its worker at a rate of 9."""
    if own["rate"] == "9":
        os.kill(os.getpid(), signal.SIGKILL)
    return run, {"seconds": 1.0, "status": "finished", "error": None, "run": run}


def test_a_run_that_kills_each_worker_is_one_failed_run(project, processes, monkeypatch):
    address, client = processes
    monkeypatch.setattr("retinamask.runs.sweep._run", deadly)
    client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 1))
    table = sweep("a", {"rate": ["0.01", "9", "0.02", "0.03", "0.04"]}, {}, Path("out"), address)
    assert table["status"].tolist() == ["finished", "failed", *["finished"] * 3]
    assert table["error"][1].startswith("rate-9_") and "2 workers died of it, one after the other" in table["error"][1]
    assert pd.read_csv("out/sweep.csv")["status"].tolist() == table["status"].tolist()


def test_what_has_finished_is_in_the_table_of_a_sweep_that_is_stopped(project, monkeypatch):
    def stopping(notebook, values, run_dir):
        if values["rate"] == 0.02:
            raise KeyboardInterrupt
        run_without_a_kernel(notebook, values, run_dir)

    monkeypatch.setattr(runner, "run_notebook", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep("a", {"rate": ["0.01", "0.02", "0.03"]}, {}, Path("out"))
    assert pd.read_csv("out/sweep.csv")["rate"].tolist() == [0.01]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--grid", "rat=1"], "no parameter named 'rat'; did you mean 'rate'?"),
        (["a", "--grid", "rate=1,fast"], "rate is float, got 'fast' (str)"),
        (["a", "--grid", "rate=1,1.0"], "--grid: 1.0 is what 1 is; give each value once"),
        (["a", "--grid", "rate"], "--grid rate: expected NAME=VALUE,VALUE, each name once"),
        (["a", "--grid", "rate=1", "--grid", "rate=2"], "--grid rate=2: expected NAME=VALUE,VALUE, each name once"),
        (["a", "--grid", "rate=1", "-p", "rate", "2"], "and not by -p too"),
        (["a", "--grid", "rate=1", "-p", "epoch", "2"], "no parameter named 'epoch'; did you mean 'epochs'?"),
        (["a", "--grid", "labels=a,b"], "--grid labels: is list[str], which no comma can divide; give it by -p"),
        (["a", "--grid", "run_dir=x"], "run_dir is each run's own folder: choose the folder of all by --out"),
        (["a", "--grid", "detector=x"], "no detector named 'x'"),
        (["b", "--grid", "rate=1"], "b.ipynb: is not a notebook that can be read"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(project, arguments, message, capsys):
    assert cli.main(["sweep", *arguments]) == 2
    assert message in capsys.readouterr().err and not Path("runs").exists()


def test_detectors_are_swept_by_their_notebooks_and_judged_by_their_best_epoch(tmp_path, monkeypatch):
    ran = []

    def train(notebook, values, run_dir):
        ran.append((notebook.stem, values["learning_rate"], values["more"]))
        log = pd.DataFrame({"epoch": [1, 2, 3], "AP50": [0.2, 0.5, 0.4], "seconds": 9.0})
        log.to_csv(run_dir / "log.csv", index=False)

    monkeypatch.setattr(runner, "run_notebook", train)
    monkeypatch.chdir(Path(__file__).parents[1])
    grid = {"learning_rate": ["2e-4"], "detector": ["retinanet", "ssd_mobilenet_v2_fpnlite"], "mosaic": ["0.5"]}
    table = sweep("02_train_retinanet", grid, {}, tmp_path)
    more = {"mosaic": 0.5}
    assert ran == [("02_train_retinanet", 2e-4, more), ("06_train_ssd_mobilenet_v2_fpnlite", 2e-4, more)]
    assert table["AP50"].tolist() == [0.5, 0.5] and table["epoch"].tolist() == [2, 2]
    assert (table["seconds"] < 9).all() and table["detector"].tolist() == grid["detector"]
    with pytest.raises(ValueError, match="05_evaluate has no detector to choose; give pipeline or a training notebook"):
        sweep("05_evaluate", grid, {}, tmp_path)
