"""Strict runs of the notebooks: parameters are checked before papermill starts a kernel, and each run gets a folder."""

import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retinamask.runs import record as records
from retinamask.runs.parameters import (
    StrPath,
    check_parameters,
    known_parameters,
    settings_in_more,
    training_settings,
    unknown,
)

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
        self.notebook_path, self.failed_cell = notebook_path, failed_cell


def pipeline(detector: str, notebooks_dir: StrPath = "notebooks") -> tuple[str, ...]:
    """Return the notebooks from annotations to the evaluation of a detector, trained by `NN_train_<detector>`."""
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

    Headings and printed output appear on stderr meanwhile. Everything is checked before the folder is made. A
    parameter goes to each notebook that has it; `run_dir`, unless given, becomes the run's folder.

    Args:
        names: the notebooks' names, without folder; `PIPELINE` for all.
        parameters: values by parameter name, for all the notebooks together.
        name: the run's; made of the notebook's name, or "pipeline", and the time if left out.
        force: whether a run of the same name is moved aside (never deleted).
        runs_dir: the folder of all runs.
        notebooks_dir: the folder of the notebooks; the folder above it is the project's root.
        continued: the name of an earlier run to continue in its folder, instead of a new one. Only notebooks that it
            does not hold are run, and one that did not finish if its parameter `resume` is given; the parameters
            of that one are those that it was begun with, unless given.

    Returns:
        The run's folder, absolute.

    Raises:
        ValueError: an unknown notebook or parameter, a wrong value, a name that is unsafe or taken.
        NotebookError: a notebook failed; the record says so too, and the rest was not started.

    Example:
        >>> rm.run("05_evaluate", {"snapshot": "snapshots/mine_best.h5"})
    """
    stems = [each.removesuffix(".ipynb") for each in ([names] if isinstance(names, str) else names)]
    there = sorted(path.stem for path in Path(notebooks_dir).glob("*.ipynb"))
    for stem in stems:
        if stem not in there:
            raise ValueError(f"{notebooks_dir}: no notebook named {stem!r}; it has: {', '.join(there) or 'none'}")
    if not stems or len(set(stems)) < len(stems):
        raise ValueError(f"notebooks to run: expected each of them once, got {', '.join(stems) or 'none'}")
    notebooks = [Path(notebooks_dir, f"{stem}.ipynb") for stem in stems]
    run_dir = records.existing_run_folder(runs_dir, continued) if continued is not None else None
    earlier = records.earlier_notebooks(run_dir).items() if run_dir else ()
    begun = {name: entry.get("parameters", {}) for name, entry in earlier if entry.get("status") != "finished"}
    changed = changed_values(notebooks, parameters, begun)
    if run_dir:
        for notebook in notebooks:  # what the run holds is not written over, unless it resumes
            executed, resumes = run_dir / notebook.name, notebook.stem in begun
            if executed.exists() and resumes and "resume" in known_parameters(notebook):
                if not changed[notebook.stem].get("resume"):
                    raise ValueError(f"{executed}: did not finish; continue it with -p resume true, or start a new run")
            elif executed.exists():
                raise ValueError(f"{executed}: was run there before; start a new run for another try")
    elif name is not None:
        run_dir = records.make_run_folder(runs_dir, name, force)
    else:
        run_dir = records.make_timed_run_folder(runs_dir, notebooks[0].stem if len(notebooks) == 1 else "pipeline")
    values = {}
    for notebook in notebooks:
        defaults = {key: parameter.default for key, parameter in known_parameters(notebook).items()}
        if "run_dir" in defaults and "run_dir" not in parameters:
            changed[notebook.stem]["run_dir"] = str(run_dir)
        values[notebook.stem] = defaults | changed[notebook.stem]
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


def run_notebook(notebook: Path, values: Mapping[str, Any], run_dir: Path) -> None:
    """Execute one notebook into a folder; its kernel works in the folder above the notebook's."""
    import papermill

    begun: list[Any] = []

    def cell_started(cell: Any, cell_index: int) -> None:  # of a text cell too
        begun.append(cell)
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            print(f"[{notebook.stem}] {_title(cell)}", file=sys.stderr, flush=True)

    # What papermill and asyncio log is of parameters that are checked here, and of a cell that Ctrl-C ended.
    levels = {logger: logger.level for logger in map(logging.getLogger, ("papermill", "asyncio"))}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    # papermill fills in `{...}` in paths: braces that are part of a folder's name are doubled.
    executed = run_dir / notebook.name
    source, output = (str(path).replace("{", "{{").replace("}", "}}") for path in (notebook.resolve(), executed))
    try:
        papermill.execute_notebook(
            source,
            output,
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
    except KeyboardInterrupt:
        levels.popitem()  # asyncio logs the ended cell later, when it is collected
        raise
    except Exception as error:
        name, message = type(error).__name__, str(error)
        if hasattr(error, "cell_index"):  # papermill's own: the cell, and the error that was raised in it
            begun, name, message = begun[: error.cell_index + 1], error.ename, error.evalue
        if name == "DeadKernelError":
            message = "the kernel died; a process killed for want of memory ends like this"
        # The cell's number in the notebook as the author sees it, and the heading before it, or else its first line.
        number = sum("injected-parameters" not in cell.metadata.get("tags", []) for cell in begun) or None
        named = next((cell for cell in begun[:-3:-1] if cell.cell_type == "markdown"), begun[-1] if begun else None)
        title = named and _title(named)
        where = f"cell {number} ({title})" if begun else "before its first cell"
        raise NotebookError(
            f"{notebook}: {where} failed: {name}: {message}\nthe broken notebook: {executed}",
            executed,
            {"notebook": notebook.stem, "number": number, "title": title, "error": name, "message": message},
        ) from error
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _title(cell: Any) -> str:
    """Return the first line of a cell, of a text cell without its hashes."""
    return cell.source.strip().partition("\n")[0].lstrip("# ")


def changed_values(
    notebooks: list[Path], parameters: Mapping[str, Any], begun: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the values that differ from a notebook's defaults: given, or those that it was begun with.

    Wrong values of a training are refused here, before the run's folder is made.
    """
    from retinamask.detectors import check_start

    more = {path: settings_in_more(path) for path in notebooks}
    together = dict.fromkeys(name for path in notebooks for name in {**known_parameters(path), **more[path]})
    for name in parameters:
        if name not in together:
            raise ValueError(f"{', '.join(map(str, notebooks))}: {unknown(name, together)}")
    changed = {}
    for path in notebooks:
        declared = known_parameters(path)
        given = {name: value for name, value in parameters.items() if name in declared or name in more[path]}
        values = check_parameters(path, {**begun.get(path.stem, {}), **given})
        changed[path.stem] = {name: value for name, value in values.items() if value != declared[name].default}
        if more[path]:
            detector, chosen = path.stem.partition("_train_")[2], {n: p.default for n, p in declared.items()} | values
            try:
                _, network = training_settings(detector, chosen.pop("more"), **chosen)
                check_start(detector, chosen["weights"], **network)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
    return changed
