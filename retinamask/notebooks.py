"""Strict runs of the notebooks: parameters are checked first, and each run gets a folder of its own.

It sits above everything but the command line. papermill does the running; what it leaves open is closed
here: an unknown parameter, a value of the wrong type or a broken parameters file stops the run before a
kernel starts, and a notebook that fails says which cell failed, why, and where the broken notebook lies.
"""

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retinamask.notebook_parameters import StrPath, check_parameters, known_parameters, unknown
from retinamask.notebook_progress import Watch, place
from retinamask.run_record import (
    RunRecord,
    earlier_notebooks,
    existing_run_folder,
    make_run_folder,
    make_timed_run_folder,
    set_aside,
)

TRAINING = {
    "retinanet": "02_train_retinanet",
    "ssd_mobilenet_v2_fpnlite": "06_train_ssd_mobilenet_v2_fpnlite",
    "yolov4_tiny": "07_train_yolov4_tiny",
}
"""The notebook that trains each detector."""

PIPELINE = (
    "01_build_annotations",
    TRAINING["retinanet"],
    "03_convert_snapshot",
    "04_visualise_detections",
    "05_evaluate",
)


class NotebookError(RuntimeError):
    """A notebook that did not run to its end.

    Attributes:
        notebook_path: the broken notebook, as far as it was executed.
        failed_cell: `notebook`, `number`, `title`, `error` and `message` of the cell that failed.
    """

    def __init__(self, message: str, notebook_path: Path, failed_cell: dict[str, Any]) -> None:
        super().__init__(message)
        self.notebook_path = notebook_path
        self.failed_cell = failed_cell


def pipeline(detector: str) -> tuple[str, ...]:
    """The notebooks from annotations to the evaluation of a detector.

    Raises:
        ValueError: there is no detector of that name.
    """
    if detector not in TRAINING:
        raise ValueError(f"no detector named {detector!r}; there are: {', '.join(TRAINING)}")
    return tuple(TRAINING[detector] if name == TRAINING["retinanet"] else name for name in PIPELINE)


def enter_project() -> Path:
    """Make the project's root the working folder, wherever the notebook was started; return it.

    JupyterLab starts a notebook in the notebook's own folder, papermill where it was called.

    Raises:
        ValueError: no folder at or above the working folder has `notebooks/` and `retinamask/`.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "retinamask").is_dir():
            os.chdir(folder)
            return folder
    raise ValueError(f"{here} is not inside the project; start the notebook below the folder that has notebooks/")


def run(
    names: str | Iterable[str],
    parameters: Mapping[str, Any],
    name: str | None = None,
    force: bool = False,
    runs_dir: StrPath = "runs",
    notebooks_dir: StrPath = "notebooks",
    progress: bool = True,
    continued: str | None = None,
) -> Path:
    """Run one notebook, or several one after another, in a new folder `<runs_dir>/<name>/` with a record.

    Everything is checked before the folder is made. A parameter goes to each notebook that has it; the
    parameter `run_dir`, unless given, becomes the run's folder.

    Args:
        names: the notebooks' names, without folder; `PIPELINE` for all.
        parameters: values by parameter name, for all the notebooks together.
        name: the run's name; made of the notebook's name, or "pipeline", and the time where it is left out.
        force: whether a run of the same name is moved aside (never deleted).
        runs_dir: the folder of all runs.
        notebooks_dir: the folder of the notebooks; the folder above it is the project's root.
        progress: whether what the cells print is shown on the terminal as they run.
        continued: the name of an earlier run to go on with in its folder, instead of a new one. A notebook
            that it holds already is not run again, except one that did not come to its end and has the parameter
            `resume`: with it the notebook goes on, and what was executed of it is moved aside. Parameters
            that are not given are those that the run was begun with, where the notebook did not finish.

    Returns:
        The run's folder, absolute.

    Raises:
        ValueError: an unknown notebook or parameter, a wrong value, a name that is unsafe or taken.
        NotebookError: a notebook failed; the record says so too, and the rest was not started.
    """
    import papermill  # noqa: F401  a missing papermill must show before a folder is made

    notebooks = _find_notebooks([names] if isinstance(names, str) else list(names), Path(notebooks_dir))
    stem = notebooks[0].stem if len(notebooks) == 1 else "pipeline"
    run_dir = existing_run_folder(runs_dir, continued) if continued is not None else None
    begun = _begun(run_dir) if run_dir else {}
    values = _values_by_notebook(notebooks, parameters, begun)
    if run_dir:
        _refuse_executed(notebooks, run_dir, begun, values)
    else:
        run_dir = make_run_folder(runs_dir, name, force) if name is not None else make_timed_run_folder(runs_dir, stem)
    for own in values.values():
        if "run_dir" in own and "run_dir" not in parameters:
            own["run_dir"] = str(run_dir)
    record = RunRecord(run_dir, values, Path(notebooks_dir).resolve().parent)
    try:
        for notebook in notebooks:
            if (run_dir / notebook.name).exists():
                set_aside(run_dir / notebook.name)
            with record.notebook(notebook.stem):
                run_notebook(notebook, values[notebook.stem], run_dir, progress=progress)
    except BaseException as error:
        record.end(error)
        raise
    record.end()
    return run_dir


def run_notebook(
    notebook: StrPath,
    parameters: Mapping[str, Any],
    run_dir: StrPath,
    *,
    cwd: StrPath | None = None,
    progress: bool = True,
) -> Path:
    """Execute one notebook into a folder.

    Args:
        notebook: the notebook's path.
        parameters: values by parameter name, checked again here.
        run_dir: the folder that gets the executed notebook.
        cwd: the kernel's working directory; the project's root, above the notebook's folder, if left out.
        progress: whether what the cells print is shown on the terminal (stderr) as they run.

    Returns:
        The path of the executed notebook.

    Raises:
        ValueError: a wrong parameter, or a notebook of that name in `run_dir`.
        NotebookError: a cell failed, the kernel died or did not start.
    """
    import papermill

    notebook = Path(notebook)
    values = check_parameters(notebook, parameters)
    output = Path(run_dir).resolve() / notebook.name
    if output.exists():
        raise ValueError(f"{output}: exists; give another folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    watch = Watch(notebook.stem, sys.stderr if progress else None)
    log = logging.getLogger("papermill")
    log.addFilter(_is_no_false_alarm)
    try:
        papermill.execute_notebook(
            _literal_path(notebook.resolve()),
            _literal_path(output),
            values,
            # This environment's kernel, whichever the notebook names: the record's versions are of this one.
            kernel_name="python3",
            language="python",
            cwd=str(notebook.resolve().parent.parent if cwd is None else Path(cwd)),
            progress_bar=False,
            stdout_file=watch.stdout,
            stderr_file=watch.stderr,
            coalesce_streams=True,
            # ipykernel warns at each start that its sockets, which are local here, are not encrypted.
            extra_arguments=["--IPKernelApp.log_level=40"],
            on_cell_start=watch.cell_started,
        )
    except Exception as error:
        raise _notebook_error(notebook, output, watch.cells, error) from error
    finally:
        log.removeFilter(_is_no_false_alarm)
        watch.end_lines()
    return output


def _notebook_error(notebook: Path, output: Path, cells: list[Any], error: Exception) -> NotebookError:
    if hasattr(error, "cell_index"):  # papermill's own: the cell, and the error that was raised in it
        cells, name, message = cells[: error.cell_index + 1], error.ename, error.evalue
    else:
        name, message = type(error).__name__, str(error)
    if name == "DeadKernelError":
        message = "the kernel died; a process killed for want of memory ends like this"
    number, title = place(cells) if cells else (None, None)
    where = f"cell {number} ({title})" if cells else "before its first cell"
    return NotebookError(
        f"{notebook}: {where} failed: {name}: {message}\nthe broken notebook: {output}",
        output,
        {"notebook": notebook.stem, "number": number, "title": title, "error": name, "message": message},
    )


def _is_no_false_alarm(message: logging.LogRecord) -> bool:
    """papermill does not see a `str | None` parameter and warns; the names have been checked here."""
    return not str(message.msg).startswith("Passed unknown parameter")


def _literal_path(path: Path) -> str:
    """papermill fills in `{...}` in paths: braces that are part of a folder's name are doubled."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _begun(run_dir: Path) -> dict[str, Mapping[str, Any]]:
    """The parameters of the notebooks of an earlier run that did not finish, by notebook."""
    entries = earlier_notebooks(run_dir).items()
    return {name: entry.get("parameters", {}) for name, entry in entries if entry.get("status") != "finished"}


def _refuse_executed(
    notebooks: list[Path], run_dir: Path, begun: Mapping[str, Any], values: Mapping[str, Mapping[str, Any]]
) -> None:
    """What a run has left stays: a notebook that it holds would write over its results, unless it resumes."""
    for notebook in notebooks:
        executed, own = run_dir / notebook.name, values[notebook.stem]
        if not executed.exists() or (notebook.stem in begun and own.get("resume")):
            continue
        if notebook.stem in begun and "resume" in own:
            raise ValueError(
                f"{executed}: did not come to its end; go on with it with -p resume true, or start a new run"
            )
        raise ValueError(f"{executed}: was run there before; start a new run for another try")


def _find_notebooks(names: list[str], folder: Path) -> list[Path]:
    stems = [name.removesuffix(".ipynb") for name in names]
    found = sorted(path.stem for path in folder.glob("*.ipynb"))
    for stem in stems:
        if stem not in found:
            raise ValueError(f"{folder}: no notebook named {stem!r}; it has: {', '.join(found) or 'none'}")
    if not stems or len(set(stems)) < len(stems):
        raise ValueError(f"notebooks to run: expected each of them once, got {', '.join(stems) or 'none'}")
    return [folder / f"{stem}.ipynb" for stem in stems]


def _values_by_notebook(
    notebooks: list[Path], parameters: Mapping[str, Any], begun: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Every parameter of every notebook, those it was begun with and defaults included, all of them checked."""
    known = {notebook: known_parameters(notebook) for notebook in notebooks}
    together = dict.fromkeys(name for own in known.values() for name in own)
    for name in parameters:
        if name not in together:
            raise ValueError(f"{', '.join(map(str, notebooks))}: {unknown(name, together)}")
    given = {notebook: {**begun.get(notebook.stem, {}), **parameters} for notebook in notebooks}
    return {
        notebook.stem: {name: parameter.default for name, parameter in own.items()}
        | check_parameters(notebook, {name: value for name, value in given[notebook].items() if name in own})
        for notebook, own in known.items()
    }
