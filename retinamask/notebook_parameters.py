"""The parameters of a notebook: its one `parameters` cell read as an interface, and values checked against it.

Below `notebooks`, which runs them. papermill only warns of an unknown name and takes any type.
"""

import ast
import difflib
import io
import math
import os
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

StrPath = str | os.PathLike[str]
_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list[str]": list}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's `parameters` cell: `name: type = default  # help`."""

    name: str
    type_name: str
    default: Any
    help: str


def known_parameters(notebook: StrPath) -> dict[str, Parameter]:
    """Read the parameters that a notebook declares, from its one cell tagged `parameters`.

    Args:
        notebook: the notebook's path.

    Returns:
        The parameters by name, in the order of the cell.

    Raises:
        ValueError: no notebook there; zero or several such cells; a line that is not `name: type = literal`.
    """
    source, parameters = _parameters_source(Path(notebook)), {}
    try:
        statements = ast.parse(source).body
        comments = {
            token.start[0]: token.string.lstrip("#").strip()
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT
        }
    except SyntaxError as error:
        raise ValueError(f"{notebook}: line {error.lineno} of the parameters cell is not Python: {error.msg}") from None
    for statement in statements:
        try:
            parameter = _declared(statement, comments.get(statement.end_lineno, ""))
        except ValueError as error:
            raise ValueError(f"{notebook}: line {statement.lineno} of the parameters cell: {error}") from None
        if parameter.name in parameters:
            raise ValueError(f"{notebook}: the parameters cell has {parameter.name!r} twice; keep one")
        parameters[parameter.name] = parameter
    return parameters


def check_parameters(notebook: StrPath, values: Mapping[str, Any]) -> dict[str, Any]:
    """Check the values given for a notebook's parameters, and turn texts into the types declared.

    Texts come from a command line, and from YAML, to which `1e-5` is no number.

    Args:
        notebook: the notebook's path.
        values: values by parameter name; parameters left out keep their defaults.

    Returns:
        The same names, each with a value of the declared type.

    Raises:
        ValueError: a name that the notebook does not have, or a value that its type does not allow.
    """
    known, checked = known_parameters(notebook), {}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{notebook}: {unknown(name, known)}")
        try:
            checked[name] = _typed(_from_text(value, known[name].type_name), known[name].type_name)
        except (ValueError, OverflowError) as error:
            found = f"{value!r} ({type(value).__name__})" + (f"; {error}" if str(error) else "")
            raise ValueError(f"{notebook}: {name} is {known[name].type_name}, got {found}") from None
    return checked


def read_parameters_file(path: StrPath) -> dict[str, Any]:
    """Read a YAML file of `name: value` lines; `check_parameters` then gives the values their types.

    Args:
        path: the file.

    Returns:
        The values by name, as YAML understands them.

    Raises:
        ValueError: no such file, broken YAML, a name given twice, or anything but `name: value` lines.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        tree, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: broken YAML: {problem or error}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        line = tree.start_mark.line + 1 if tree else 1
        raise ValueError(f"{path}:{line}: expected 'name: value' lines, found {type(values).__name__}")
    seen = set()
    for key, _ in tree.value:
        where = f"{path}:{key.start_mark.line + 1}: {key.value!r}"
        if key.tag != "tag:yaml.org,2002:str":
            raise ValueError(f"{where} is no parameter's name; quote it if it is meant as one")
        if key.value in seen:
            raise ValueError(f"{where} is given twice; keep one")
        seen.add(key.value)
    return values


def _parameters_source(notebook: Path) -> str:
    import nbformat

    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise ValueError(f"{notebook}: is not a notebook that can be read: {error}") from None
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0].cell_type != "code":
        raise ValueError(f"{notebook}: expected one code cell tagged 'parameters', found {len(tagged)}")
    return tagged[0].source


def _declared(statement: ast.stmt, comment: str) -> Parameter:
    annotated = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    if not annotated or statement.value is None:
        raise ValueError(f"expected 'name: type = literal  # help', found {ast.unparse(statement)!r}")
    name, type_name, default = map(ast.unparse, (statement.target, statement.annotation, statement.value))
    if type_name.removesuffix(" | None") not in _TYPES:
        raise ValueError(f"{name} is {type_name}, expected {', '.join(_TYPES)}, each with ' | None' or without")
    try:
        return Parameter(name, type_name, _typed(ast.literal_eval(default), type_name), comment)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{name} is {type_name}, its default is no such literal: {default}") from None


def _from_text(value: Any, type_name: str) -> Any:
    """The value that a text stands for; what is no such text stays as it is, for `_typed` to judge."""
    base = type_name.removesuffix(" | None")
    if not isinstance(value, str) or base == "str":
        return value
    if base != type_name and value.lower() in ("none", "null"):
        return None
    if base == "bool":
        return {"true": True, "false": False}.get(value.lower(), value)
    if base == "list[str]":
        return [item.strip() for item in value.split(",")] if value.strip() else []
    try:
        return _TYPES[base](value)
    except ValueError:
        return value


def _typed(value: Any, type_name: str) -> Any:
    """The value if it is of the type, a float made of an int if need be; ValueError otherwise."""
    base = type_name.removesuffix(" | None")
    if value is None and base != type_name:
        return None
    if base == "float" and type(value) is int:
        value = float(value)
    if type(value) is not _TYPES[base]:  # the very type: to `isinstance` a bool is an int
        raise ValueError
    if base == "float" and not math.isfinite(value):
        raise ValueError("it must be finite")
    if base == "list[str]" and not all(type(item) is str and item for item in value):
        raise ValueError("its items must be texts, none of them empty")
    return value


def unknown(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    suggestion = f"; did you mean {close[0]!r}?" if close else ";"
    return f"no parameter named {name!r}{suggestion} it has: {', '.join(known) or 'none'}"
