"""Begin a notebook: the same strictness by hand, in JupyterLab or plain papermill, as in `retinamask run`."""

import ast
import os
from pathlib import Path
from typing import Any

from retinamask.runs.parameters import converted, unknown
from retinamask.runs.record import record_by_hand


def enter(notebook: str, given: dict[str, Any]) -> None:
    """Make the project's root the working folder, check the parameters, and make the run's folder.

    The first cell of code of every notebook ends with ``enter("02_train_retinanet", globals())``. JupyterLab starts a
    notebook in the notebook's own folder, papermill where it was called; papermill passes on unknown names and texts
    for any type, such as "false".

    Args:
        notebook: its name, under which its run is recorded.
        given: the notebook's ``globals()``; its parameters get the types that its `parameters` cell declares.

    Raises:
        ValueError: not inside the project, a parameter that the notebook does not have, or a value of a wrong type.

    Example:
        >>> rm.enter("05_evaluate", globals())
    """
    enter_project()
    declared = given["__annotations__"]
    injected = [source for source in given.get("In", []) if source.startswith("# Parameters\n")]  # by papermill
    for statement in ast.parse("\n".join(injected)).body:
        if statement.targets[0].id not in declared:
            raise ValueError(unknown(statement.targets[0].id, declared))
    for name, kind in declared.items():
        given[name] = converted(name, given[name], "list[str]" if kind == list[str] else kind.__name__)
    record_by_hand(Path(given["run_dir"]), notebook, {name: given[name] for name in declared})


def enter_project() -> None:
    """Make the project's root the working folder, from anywhere below it.

    Raises:
        ValueError: no folder at or above the working folder has `notebooks/` and `retinamask/`.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "retinamask").is_dir():
            os.chdir(folder)
            return
    raise ValueError(f"{here} is not inside the project; start the notebook below the folder that has notebooks/")
