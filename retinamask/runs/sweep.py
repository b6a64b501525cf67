"""Run a notebook over a grid of parameters: a run each, in a folder of its own, and one table of all."""

import contextlib
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from retinamask.dataset import files
from retinamask.evaluation.page import write_page
from retinamask.inference.detect_on_dask import check_workers, connected, finished
from retinamask.progress import track
from retinamask.runs import record as records
from retinamask.runs import runner
from retinamask.runs.parameters import known_parameters, settings_in_more


def sweep(
    notebook: str,
    grid: Mapping[str, Sequence[str]],
    parameters: Mapping[str, Any],
    out: Path,
    dask: str | None = None,
    notebooks_dir: Path = Path("notebooks"),
) -> pd.DataFrame:
    """Run a notebook once for each combination of values; what is finished in ``out`` is not run again.

    Args:
        notebook: its name, or ``pipeline``.
        grid: texts by the names of parameters, of settings that ``more`` takes, or ``detector``, which chooses the
            pipeline or the training notebook of each.
        parameters: values that all runs have.
        out: the folder of the runs; ``sweep.csv`` in it is the table, written after each run.
        dask: runs one after the other if left out, or on the workers of this scheduler, see `connected`.
        notebooks_dir: the folder of the notebooks; workers must see it under the same path.

    Returns:
        A row for each run: the grid's columns, the figures of its record or else of the best epoch of its log,
        ``seconds``, ``status``, ``error`` and ``run``.

    Raises:
        ValueError: a name or value is wrong; nothing has been run then. And see `connected`, `check_workers` and
            `finished`; the table of what has finished is kept.
    """
    if "run_dir" in {**grid, **parameters}:
        raise ValueError("run_dir is each run's own folder: choose the folder of all by --out")
    runs: dict[str, tuple[tuple[str, ...], dict[str, Any], tuple[str, ...]]] = {}
    for values in itertools.product(*grid.values()):
        own = {**parameters, **dict(zip(grid, values, strict=True))}
        names: tuple[str, ...] = (notebook,)
        if notebook == "pipeline" or "detector" in grid:
            names = runner.pipeline(own.pop("detector", "retinanet"), notebooks_dir)
        if notebook != "pipeline" and "detector" in grid:
            if "_train_" not in notebook:
                raise ValueError(f"{notebook} has no detector to choose; give pipeline or a training notebook")
            names = tuple(name for name in names if "_train_" in name)
        known = {}
        for path in (notebooks_dir / f"{name}.ipynb" for name in names):
            known |= settings_in_more(path) | known_parameters(path)
        for name in grid:
            if name in known and known[name].type_name in ("dict", "list[str]", "list[float]"):
                raise ValueError(f"--grid {name}: is {known[name].type_name}, which no comma can divide; give it by -p")
        checked = runner.changed_values([notebooks_dir / f"{name}.ipynb" for name in names], own, {})
        identity = hashlib.sha256(json.dumps([names, checked], sort_keys=True).encode()).hexdigest()[:8]
        label = re.sub(r"[^\w.-]+", "_", "_".join(map("-".join, zip(grid, values, strict=True))))
        if same := next((run for run in runs if run.endswith(identity)), None):
            raise ValueError(f"--grid: {', '.join(values)} is what {', '.join(runs[same][2])} is; give each value once")
        runs[f"{label[:80]}_{identity}".lstrip(".-")] = names, own, values
    out, notebooks_dir = out.resolve(), notebooks_dir.resolve()
    tasks = ((run, _run, run, names, own, out, notebooks_dir) for run, (names, own, _) in runs.items())
    with contextlib.ExitStack() as stack:
        done = (_run(*arguments) for _, _, *arguments in tasks)
        if dask:
            client = stack.enter_context(connected(dask))
            every = {name for names, _, _ in runs.values() for name in names}
            check_workers(client, [notebooks_dir / f"{name}.ipynb" for name in sorted(every)])
            done = finished(client, tasks, _failed)
        rows = {}
        for run, row in track(done, "running", "run", len(runs)):
            chosen = dict(zip(grid, runs[run][2], strict=True))
            rows[run] = {**chosen, **row, **chosen}
            table = pd.DataFrame([rows[each] for each in runs if each in rows])
            last = ["seconds", "status", "error", "run"]
            table = table[[name for name in table if name not in last] + last]
            files.write_text(out / "sweep.csv", table.to_csv(index=False, lineterminator="\n"))
    return table


def _run(run: str, names: Sequence[str], own: Mapping[str, Any], out: Path, notebooks_dir: Path) -> tuple[str, dict]:
    """Run the notebooks unless they are finished; return the run's name and its row of the table."""
    if _record(out / run).get("status") != "finished":
        print(f"[{run}]", file=sys.stderr, flush=True)
        try:
            write_page(runner.run(names, own, run, force=True, runs_dir=out, notebooks_dir=notebooks_dir))
        except (runner.NotebookError, ValueError, OSError) as error:
            print(f"{run}: {error}", file=sys.stderr, flush=True)
            if not _record(out / run):
                return _failed(run, str(error))
    record = _record(out / run)
    figures = record["metrics"] or {}
    if not figures and (out / run / "log.csv").is_file():
        log = pd.read_csv(out / run / "log.csv")
        judged = next((name for name in ("AP50", "accuracy") if name in log and log[name].notna().any()), None)
        figures = log.loc[log[judged].idxmax()].to_dict() if judged else log.iloc[-1].to_dict()
    figures = {name: figure for name, figure in figures.items() if isinstance(figure, int | float)}
    return run, {**figures, **{name: record[name] for name in ("seconds", "status", "error")}, "run": run}


def _failed(run: str, error: str) -> tuple[str, dict[str, Any]]:
    """Give the row of a run that has left no record."""
    return run, {"seconds": None, "status": "failed", "error": error, "run": run}


def _record(run_dir: Path) -> dict[str, Any]:
    path = run_dir / records.RECORD_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
