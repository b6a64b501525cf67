"""A notebook run cell by cell in this process: what it shows and prints, without the seconds of a kernel."""

import ast
from pathlib import Path
from types import SimpleNamespace

import IPython.display
import nbformat
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).parents[1]


def run_cells(name: str, monkeypatch, **parameters) -> SimpleNamespace:
    """Execute a notebook with parameters as papermill injects them.

    Returns:
        `variables` as they are after the last cell, `shown` (what the cells show) and `pictures` (of it, the images).
    """
    shown: list = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    monkeypatch.chdir(ROOT)
    variables: dict = {"__name__": "__main__", "In": []}
    for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells:
        if cell.cell_type != "code":
            continue
        sources = [cell.source]
        if "parameters" in cell.metadata.get("tags", []) and parameters:
            sources.append("# Parameters\n" + "\n".join(f"{key} = {value!r}" for key, value in parameters.items()))
        for source in sources:
            variables["In"].append(source)
            *statements, last = ast.parse(source).body
            if not isinstance(last, ast.Expr):
                statements, last = [*statements, last], None
            exec(compile(ast.Module(statements, []), name, "exec"), variables)
            value = eval(compile(ast.Expression(last.value), name, "eval"), variables) if last else None
            if value is not None:
                shown.append(value)
    pictures = [value for value in shown if isinstance(value, Figure | Image.Image)]
    return SimpleNamespace(variables=variables, shown=shown, pictures=pictures)
