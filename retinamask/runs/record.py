"""The folder of a run under `runs/`, and `run.json`, the record of the run.

The record is there from the run's first moment (status "running"), so that a run that was killed leaves a trace.
Package versions are read from the installed metadata, so that nothing heavy is imported.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from retinamask.dataset import files

RECORD_NAME = "run.json"
PACKAGES = "retinamask", "tensorflow", "tf-keras", "keras-retinanet", "numpy", "pandas", "pillow", "papermill"
StrPath = str | os.PathLike[str]


class RunRecord:
    """The record of one run, kept in `run.json` in the run's folder and written anew at every change.

    In the folder of an earlier run that is continued, its notebooks stay in the record.
    """

    def __init__(self, run_dir: Path, parameters: Mapping[str, Mapping[str, Any]], project: Path):
        """``parameters`` are all of every notebook, defaults included; ``project`` is asked for its git revision."""
        self._path, self._clock = run_dir / RECORD_NAME, time.monotonic()
        seeds = {name: values["seed"] for name, values in parameters.items() if "seed" in values}
        times = {"started": None, "ended": None, "seconds": None}
        waiting = {name: {"status": "waiting", **times, "parameters": own} for name, own in parameters.items()}
        self.content: dict[str, Any] = {
            "name": run_dir.name,
            "status": "running",
            **times,
            "started": _now(),
            "notebooks": earlier_notebooks(run_dir) | waiting,
            "failed_cell": None,
            "error": None,
            "seed": seeds if len(set(seeds.values())) > 1 else next(iter(seeds.values()), None),
            "dataset_fingerprint": None,
            "metrics": None,
            "packages": {package: metadata.version(package) for package in PACKAGES},
            "python": platform.python_version(),
            "platform": platform.platform(),
            "process": {"host": socket.gethostname(), "pid": os.getpid()},
            "git": _git(project),
        }
        files.write_json(self._path, self.content)

    @contextlib.contextmanager
    def notebook(self, name: str) -> Iterator[None]:
        """Record the start, the end and the outcome of one notebook, which the `with` block runs."""
        entry, clock, failure = self.content["notebooks"][name], time.monotonic(), None
        entry.update(status="running", started=_now())
        files.write_json(self._path, self.content)
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            self._close(entry, clock, failure)

    def end(self, error: BaseException | None = None) -> None:
        """Close the record, with the error that stopped the run."""
        dataset = _read_json(self._path.with_name("dataset.json"))
        self.content.update(
            failed_cell=getattr(error, "failed_cell", None),
            error=f"{type(error).__name__}: {error}".rstrip(": ") if error else None,
            dataset_fingerprint=dataset.get("fingerprint") if isinstance(dataset, dict) else None,
            metrics=_read_json(self._path.with_name("metrics.json")) or None,
        )
        self._close(self.content, self._clock, error)

    def _close(self, entry: dict[str, Any], clock: float, error: BaseException | None) -> None:
        status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed" if error else "finished"
        entry.update(status=status, ended=_now(), seconds=round(time.monotonic() - clock, 3))
        files.write_json(self._path, self.content)


def record_by_hand(run_dir: Path, notebook: str, parameters: Mapping[str, Any]) -> None:
    """Record a notebook that is run by hand, and keep a copy of what an earlier run of it left in the folder.

    Do nothing if the folder is of a `retinamask run` at work: its process keeps the record.
    With the parameter `resume` the notebook continues what is there.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    if _is_running(run_dir):
        return
    earlier = earlier_notebooks(run_dir)
    if notebook in earlier and not parameters.get("resume"):
        aside = _first_free(_aside(run_dir), lambda path: shutil.copytree(run_dir, path))
        print(f"{run_dir} holds an earlier run of this notebook; a copy of the folder is {aside}", file=sys.stderr)
    entry = {"status": "by hand", "started": _now(), "parameters": dict(parameters)}
    content = {"name": run_dir.name, "status": "by hand"} | _read_json(run_dir / RECORD_NAME)
    files.write_json(run_dir / RECORD_NAME, content | {"notebooks": {**earlier, notebook: entry}})


def make_run_folder(runs_dir: StrPath, name: str, force: bool = False) -> Path:
    """Make the new, empty folder of a run under a name that the user chose; `force` moves another of it aside."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(
            f"run name {name!r}: letters, digits, '.', '_' and '-' are allowed, at most 100 of them, "
            "the first a letter, a digit or '_'"
        )
    folder = _runs_folder(runs_dir) / name
    if force and os.path.lexists(folder):
        set_aside(folder)
    try:
        folder.mkdir()
    except FileExistsError:
        raise ValueError(
            f"{folder}: a run of that name exists; choose another name, or move it aside with --force (force=True)"
        ) from None
    return folder


def make_timed_run_folder(runs_dir: StrPath, stem: str) -> Path:
    """Make the folder of a run that was given no name: `<stem>-<date>-<time>`, numbered where that is taken."""
    return _first_free(_runs_folder(runs_dir) / f"{stem}-{_stamp()}", Path.mkdir)


def existing_run_folder(runs_dir: StrPath, name: str) -> Path:
    """Return the folder of an earlier run that is to be continued; refuse one that is still running."""
    folder = _runs_folder(runs_dir) / name
    if not (folder / RECORD_NAME).is_file():
        runs = sorted((path.parent for path in folder.parent.glob(f"*/{RECORD_NAME}")), key=os.path.getmtime)
        newest = ", ".join(run.name for run in runs[-5:]) or "none"
        raise ValueError(f"{folder}: no run of that name; the newest are: {newest}")
    if _is_running(folder):
        raise ValueError(f"{folder}: this run is still running; wait for it, or stop it")
    return folder


def earlier_notebooks(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Read the entries of an earlier run's notebooks; empty if there is no readable record."""
    return _read_json(run_dir / RECORD_NAME).get("notebooks", {})


def set_aside(path: Path) -> None:
    """Rename a file, or the folder of a run that has ended, to `<stem>.old-<time><suffix>`, and print so."""
    if _is_running(path):
        raise ValueError(f"{path}: this run is still running; stop it, or choose another name")
    # `rename` would silently replace an empty folder: the new name is claimed first, for a folder by such a one.
    aside = _first_free(_aside(path), Path.mkdir if path.is_dir() else lambda free: free.touch(exist_ok=False))
    path.replace(aside)
    print(f"{path}: the earlier {'run' if aside.is_dir() else 'try'} was moved to {aside}", file=sys.stderr, flush=True)


def _runs_folder(runs_dir: StrPath) -> Path:
    folder = Path(runs_dir).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder}: is not a folder, so no run can be kept in it") from None
    return folder


def _aside(path: Path) -> Path:
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    return path.with_name(f"{stem}.old-{_stamp()}{suffix}")


def _first_free(path: Path, claim: Callable[[Path], Any]) -> Path:
    """Return the first of `path`, `path-2`, `path-3`... that `claim` does not refuse by FileExistsError."""
    candidate, number = path, 1
    while True:
        with contextlib.suppress(FileExistsError):
            claim(candidate)
            return candidate
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")


def _is_running(folder: Path) -> bool:
    record = _read_json(folder / RECORD_NAME)
    if record.get("status") != "running" or os.name != "posix" or record["process"]["host"] != socket.gethostname():
        return False
    try:
        os.kill(record["process"]["pid"], 0)  # signal 0 only asks whether the process exists
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _read_json(path: Path) -> Any:
    """Read a run's own file; a missing or broken one, which must not fail the run, is empty. NaN becomes null."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError):
        return {}


def _git(project: Path) -> dict[str, Any] | None:
    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(project), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _stamp() -> str:
    return datetime.now().strftime("%Y%m%d-%H%M%S")
