"""The ledger: all runs and trainings in one table, and what differs between two of them."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from retinamask.detectors.snapshots import check_record
from retinamask.runs.record import RECORD_NAME

FIGURES = "AP50", "AP", "accuracy"
COLUMNS = ["name", "kind", "started", "status", "detector", "data", "judged_on", *FIGURES, "epochs", "seconds"]
COLUMNS += ["version", "revision"]


def read_runs(runs_dir: str | Path, snapshots_dir: str | Path) -> tuple[pd.DataFrame, list[str]]:
    """List the runs of notebooks by their `run.json`, and the trainings by the JSON of their snapshots.

    Args:
        runs_dir: has a folder for each run.
        snapshots_dir: has the snapshots; of a training the best is listed.

    Returns:
        A table, the newest first and the trainings of a run below it, and a message for each record that cannot be
        read. Columns are `COLUMNS`, empty where nothing is known, ``run``, to which the row belongs, and
        ``parameters``, a dict: ``name`` is the folder of a run or the stem of a snapshot,
        ``data`` the fingerprint of a run's whole table or of a training's images, ``judged_on`` the part that the
        figures are of, ``epochs`` and ``seconds`` are those of the whole training or run,
        ``revision`` that of git, with a ``+`` if files were changed.
    """
    found: dict[tuple, list[dict[str, Any]]] = {}
    problems = []
    records = [(path, _run) for path in Path(runs_dir).glob(f"*/{RECORD_NAME}")]
    records += [(path, _training) for path in Path(snapshots_dir).glob("[!.]*.json")]
    for path, row_of in sorted(records):
        try:
            if row := row_of(path, _read(path)):
                found.setdefault((row["kind"], row["run"], row["started"]), []).append(row)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            problems.append(f"left out: {path} is damaged or another program's ({type(error).__name__}: {error})")
    rows = []
    for snapshots in found.values():
        best, last = (max(snapshots, key=lambda row: row[name] or 0) for name in ("best", "epochs"))
        rows.append(best | {name: last[name] for name in ("status", "epochs", "seconds")})
    begun = {row["run"]: row["started"] for row in rows if row["kind"] == "run"}

    def place(row: dict[str, Any]) -> tuple:
        started, its_run = row["started"], begun.get(row["run"], row["started"])
        return datetime.fromisoformat(its_run), row["run"], row["kind"] == "run", datetime.fromisoformat(started)

    rows.sort(key=place, reverse=True)
    return pd.DataFrame(rows, columns=[*COLUMNS, "run", "parameters"]), problems


def compare_runs(table: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Put two runs, or two trainings, of a table from `read_runs` side by side.

    Returns:
        A column for each: the `COLUMNS`, then the parameters that differ, such as ``training.epochs`` of a training
        and ``NOTEBOOK.epochs`` of a run.

    Raises:
        ValueError: there is no such name, or it is a run and a training.
    """
    sides = []
    for name in (one, other):
        rows = table[table["name"] == name]
        if rows.empty:
            there = ", ".join(table["name"][:10]) or "none"
            raise ValueError(f"{name}: no run and no training of that name; the newest are: {there}")
        sides.append(rows.iloc[0])
    if sides[0]["kind"] != sides[1]["kind"]:
        kinds = " and ".join(f"{side['name']} is a {side['kind']}" for side in sides)
        raise ValueError(f"{kinds}, which have other parameters; give two of a kind")
    both = pd.concat([pd.Series(_flat(side["parameters"]), dtype=object) for side in sides], axis=1)
    differing = both[both[0].ne(both[1])]
    table = pd.concat([pd.concat([side[COLUMNS[1:]] for side in sides], axis=1, keys=[0, 1]), differing])
    return table.set_axis([one, other], axis=1)


def _run(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Give the row of a run; its figures and its fingerprint are in files beside the record also if run by hand."""
    beside = (path.with_name(name) for name in ("metrics.json", "dataset.json"))
    metrics, dataset = (_read(file) if file.is_file() else {} for file in beside)
    notebooks, git = record["notebooks"], record.get("git")
    parameters = {
        name: {key: value for key, value in entry["parameters"].items() if key != "run_dir"}
        for name, entry in notebooks.items()
    }
    trained = [name for name in notebooks if "_train_" in name]
    started = record.get("started") or max(entry["started"] for entry in notebooks.values())
    return {
        "name": path.parent.name,
        "run": path.parent.name,
        "kind": "run",
        "started": _local(started),
        "status": record["status"],
        "detector": ", ".join(name.partition("_train_")[2] for name in trained) or None,
        "data": dataset.get("fingerprint"),
        "judged_on": metrics.get("split"),
        **{name: metrics.get(name) for name in FIGURES},
        "best": True,
        "epochs": sum(parameters[name].get("epochs", 0) for name in trained) or None,
        "seconds": record.get("seconds"),
        "version": record.get("packages", {}).get("retinamask"),
        "revision": git and git["revision"][:7] + "+" * git["dirty"],
        "parameters": parameters,
    }


def _training(path: Path, record: dict[str, Any]) -> dict[str, Any] | None:
    """Give the row of a snapshot; None if it is converted, exported, or of another program's training."""
    check_record(record, path)
    training = record["training"]
    if record["kind"] != "training" or "adopted_from" in training:
        return None
    metrics = training["metrics"]
    figures = {name: metrics.get(name) for name in FIGURES}
    return {
        "name": path.stem,
        "run": training["run"],
        "kind": "training",
        "started": _local(training["started"]),
        "status": "finished" if training["finished"] else "unfinished",
        "detector": record["detector"],
        "data": training["training_table_fingerprint"],
        "judged_on": "val" if any(value is not None for value in figures.values()) else None,
        **figures,
        "best": training["best"],
        "epochs": training["epoch"],
        "seconds": metrics.get("seconds"),
        "version": training["versions"]["retinamask"],
        "parameters": {
            "weights": training["weights"]["source"],
            "training": training["parameters"],
            "network": record["settings"],
        },
    }


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _local(time: str) -> str:
    return datetime.fromisoformat(time).astimezone().isoformat(timespec="seconds")


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Take dicts within dicts apart: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    found = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found
