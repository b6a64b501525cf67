"""Strict runs of the notebooks: parameters are checked first, and each run gets a folder of its own.

papermill does the running; what it leaves open is closed here: an unknown parameter, a value of the wrong type or a
broken parameters file stops the run before a kernel starts, and a notebook that fails says which cell failed, why,
and where the broken notebook lies.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retinamask.runs import record as records
from retinamask.runs.parameters import StrPath, check_parameters, known_parameters, settings_in_more, unknown

PIPELINE = (
    "01_build_annotations",
    "02_train_retinanet",
    "03_convert_snapshot",
    "04_visualise_detections",
    "05_evaluate",
)


class NotebookError(RuntimeError):
    """A notebook that did not finish.

    Attributes:
        notebook_path: the broken notebook, as far as it was executed.
        failed_cell: `notebook`, `number`, `title`, `error` and `message` of the cell that failed.
    """

    def __init__(self, message: str, notebook_path: Path, failed_cell: dict[str, Any]) -> None:
        super().__init__(message)
        self.notebook_path = notebook_path
        self.failed_cell = failed_cell


def pipeline(detector: str, notebooks_dir: StrPath = "notebooks") -> tuple[str, ...]:
    """Return the notebooks from annotations to the evaluation of a detector, trained by `NN_train_<detector>`.

    Raises:
        ValueError: there is no detector of that name.
    """
    from retinamask import detectors

    found = {path.stem.partition("_train_")[2]: path.stem for path in Path(notebooks_dir).glob("*_train_*.ipynb")}
    known = [name for name, kind in detectors.DETECTORS.items() if name in found and not kind.classifies]
    if detector not in known:
        raise ValueError(f"no detector named {detector!r}; there are: {', '.join(known)}")
    return tuple(found[detector] if "_train_" in name else name for name in PIPELINE)


def run(
    names: str | Iterable[str],
    parameters: Mapping[str, Any],
    name: str | None = None,
    force: bool = False,
    runs_dir: StrPath = "runs",
    notebooks_dir: StrPath = "notebooks",
    continued: str | None = None,
) -> Path:
    """Run one notebook, or several one after another, in a new folder `<runs_dir>/<name>/` with a record.

    Headings, and what the cells print, are shown on stderr meanwhile.
    Everything is checked before the folder is made. A parameter goes to each notebook that has it; the
    parameter `run_dir`, unless given, becomes the run's folder.

    Args:
        names: the notebooks' names, without folder; `PIPELINE` for all.
        parameters: values by parameter name, for all the notebooks together.
        name: the run's name; made of the notebook's name, or "pipeline", and the time where it is left out.
        force: whether a run of the same name is moved aside (never deleted).
        runs_dir: the folder of all runs.
        notebooks_dir: the folder of the notebooks; the folder above it is the project's root.
        continued: the name of an earlier run to continue in its folder, instead of a new one. A notebook
            that it holds already is not run again, except one that did not finish and has the parameter
            `resume`: with it the notebook resumes, and what was executed of it is moved aside. Parameters
            that are not given are those that the run was begun with, where the notebook did not finish.

    Returns:
        The run's folder, absolute.

    Raises:
        ValueError: an unknown notebook or parameter, a wrong value, a name that is unsafe or taken.
        NotebookError: a notebook failed; the record says so too, and the rest was not started.

    Example:
        >>> rm.run("05_evaluate", {"snapshot": "snapshots/mine_best.h5"})
    """
    notebooks = _find_notebooks([names] if isinstance(names, str) else list(names), Path(notebooks_dir))
    stem = notebooks[0].stem if len(notebooks) == 1 else "pipeline"
    run_dir = records.existing_run_folder(runs_dir, continued) if continued is not None else None
    earlier = records.earlier_notebooks(run_dir).items() if run_dir else ()
    begun = {name: entry.get("parameters", {}) for name, entry in earlier if entry.get("status") != "finished"}
    changed = _changed_values(notebooks, parameters, begun)
    if run_dir:
        _refuse_executed(notebooks, run_dir, begun, changed)
    elif name is not None:
        run_dir = records.make_run_folder(runs_dir, name, force)
    else:
        run_dir = records.make_timed_run_folder(runs_dir, stem)
    for notebook in notebooks:
        if "run_dir" in known_parameters(notebook) and "run_dir" not in parameters:
            changed[notebook.stem]["run_dir"] = str(run_dir)
    defaults = {path.stem: {key: p.default for key, p in known_parameters(path).items()} for path in notebooks}
    values = {name: own | changed[name] for name, own in defaults.items()}
    record = records.RunRecord(run_dir, values, Path(notebooks_dir).resolve().parent)
    try:
        for notebook in notebooks:
            if (run_dir / notebook.name).exists():
                records.set_aside(run_dir / notebook.name)
            with record.notebook(notebook.stem):
                run_notebook(notebook, changed[notebook.stem], run_dir)
    except BaseException as error:
        record.end(error)
        raise
    record.end()
    return run_dir


def run_notebook(notebook: StrPath, parameters: Mapping[str, Any], run_dir: StrPath) -> Path:
    """Execute one notebook into a folder; its kernel works in the folder above the notebook's.

    Args:
        notebook: the notebook's path.
        parameters: values by parameter name, checked again here.
        run_dir: the folder that gets the executed notebook.

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
    begun: list[Any] = []

    def cell_started(cell: Any, cell_index: int) -> None:  # of a text cell too
        begun.append(cell)
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            print(f"[{notebook.stem}] {_title(cell)}", file=sys.stderr, flush=True)

    try:
        with _quiet_papermill():
            papermill.execute_notebook(
                _literal_path(notebook.resolve()),
                _literal_path(output),
                values,
                # This environment's kernel, whichever the notebook names: the record's versions are of this one.
                kernel_name="python3",
                language="python",
                cwd=str(notebook.resolve().parent.parent),
                progress_bar=False,
                stdout_file=sys.stderr,
                stderr_file=sys.stderr,
                coalesce_streams=True,
                # ipykernel warns that its local sockets are not encrypted, and shows a traceback when Ctrl-C ends it.
                extra_arguments=["--IPKernelApp.log_level=50"],
                on_cell_start=cell_started,
            )
    except Exception as error:
        raise _notebook_error(notebook, output, begun, error) from error
    return output


@contextlib.contextmanager
def _quiet_papermill():
    """Leave out what papermill and asyncio log of parameters that are checked here, and of a cell that Ctrl-C ended."""
    loggers = [logging.getLogger(name) for name in ("papermill", "asyncio")]
    levels = {logger: logger.level for logger in loggers}
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except KeyboardInterrupt:
        levels.popitem()  # asyncio logs the ended cell later, when it is collected
        raise
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _notebook_error(notebook: Path, output: Path, cells: list[Any], error: Exception) -> NotebookError:
    if hasattr(error, "cell_index"):  # papermill's own: the cell, and the error that was raised in it
        cells, name, message = cells[: error.cell_index + 1], error.ename, error.evalue
    else:
        name, message = type(error).__name__, str(error)
    if name == "DeadKernelError":
        message = "the kernel died; a process killed for want of memory ends like this"
    # Its number in the notebook as the author sees it, and the heading before it, or else its first line.
    number = sum("injected-parameters" not in cell.metadata.get("tags", []) for cell in cells) or None
    title = _title(next((cell for cell in cells[:-3:-1] if cell.cell_type == "markdown"), cells[-1])) if cells else None
    where = f"cell {number} ({title})" if cells else "before its first cell"
    return NotebookError(
        f"{notebook}: {where} failed: {name}: {message}\nthe broken notebook: {output}",
        output,
        {"notebook": notebook.stem, "number": number, "title": title, "error": name, "message": message},
    )


def _title(cell: Any) -> str:
    """The first line of a cell, of a text cell without its hashes."""
    return cell.source.strip().partition("\n")[0].lstrip("# ")


def _literal_path(path: Path) -> str:
    """papermill fills in `{...}` in paths: braces that are part of a folder's name are doubled."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _refuse_executed(
    notebooks: list[Path], run_dir: Path, begun: Mapping[str, Any], changed: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse a notebook that the run holds, which would write over its results, unless it resumes."""
    for notebook in notebooks:
        executed = run_dir / notebook.name
        if not executed.exists() or (notebook.stem in begun and changed[notebook.stem].get("resume")):
            continue
        if notebook.stem in begun and "resume" in known_parameters(notebook):
            raise ValueError(f"{executed}: did not finish; continue it with -p resume true, or start a new run")
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


def _changed_values(
    notebooks: list[Path], parameters: Mapping[str, Any], begun: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The values that differ from a notebook's defaults, by notebook: given, or those that it was begun with."""
    known = {path: {**known_parameters(path), **settings_in_more(path)} for path in notebooks}
    together = dict.fromkeys(name for own in known.values() for name in own)
    for name in parameters:
        if name not in together:
            raise ValueError(f"{', '.join(map(str, notebooks))}: {unknown(name, together)}")
    changed = {}
    for path, own in known.items():
        given = {name: value for name, value in parameters.items() if name in own}
        values = check_parameters(path, {**begun.get(path.stem, {}), **given})
        declared = known_parameters(path)
        changed[path.stem] = {name: value for name, value in values.items() if value != declared[name].default}
        if settings_in_more(path):
            _check_training(path, {name: p.default for name, p in declared.items()} | values)
    return changed


def _check_training(notebook: Path, values: Mapping[str, Any]) -> None:
    """Refuse wrong values of a training notebook before the run's folder is made."""
    from retinamask.detectors import check_start
    from retinamask.runs.training_settings import training_settings

    detector = notebook.stem.partition("_train_")[2]
    choices = {name: value for name, value in values.items() if name not in ("more", "cfg", "dense")}  # read by cells
    try:
        _, network = training_settings(detector, values["more"], **choices)
        check_start(detector, values["weights"], **network)
    except ValueError as error:
        raise ValueError(f"{notebook}: {error}") from None
