"""The parameters of a notebook: its one `parameters` cell read as an interface, and values checked against it.

papermill only warns of an unknown name and takes any type.
"""

import ast
import difflib
import inspect
import io
import math
import os
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

StrPath = str | os.PathLike[str]
_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list[str]": list, "dict": dict}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's `parameters` cell: `name: type = default  # help`."""

    name: str
    type_name: str
    default: Any
    help: str


def known_parameters(notebook: StrPath) -> dict[str, Parameter]:
    """Read the parameters that a notebook declares, in the order of its one cell tagged `parameters`.

    Raises:
        ValueError: no notebook there; zero or several such cells; a line that is not `name: type = literal`.
    """
    import nbformat

    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise ValueError(f"{notebook}: is not a notebook that can be read: {error}") from None
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0].cell_type != "code":
        raise ValueError(f"{notebook}: expected one code cell tagged 'parameters', found {len(tagged)}")
    source, parameters = tagged[0].source, {}
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{notebook}: line {error.lineno} of the parameters cell is not Python: {error.msg}") from None
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    for statement in statements:
        try:
            parameter = _declared(statement, comments.get(statement.end_lineno, ""))
        except ValueError as error:
            raise ValueError(f"{notebook}: line {statement.lineno} of the parameters cell: {error}") from None
        if parameter.name in parameters:
            raise ValueError(f"{notebook}: the parameters cell has {parameter.name!r} twice; keep one")
        parameters[parameter.name] = parameter
    return parameters


def _declared(statement: ast.stmt, comment: str) -> Parameter:
    annotated = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    if not annotated or statement.value is None:
        raise ValueError(f"expected 'name: type = literal  # help', found {ast.unparse(statement)!r}")
    name, type_name, default = map(ast.unparse, (statement.target, statement.annotation, statement.value))
    if type_name not in _TYPES:
        raise ValueError(f"{name} is {type_name}, expected one of: {', '.join(_TYPES)}")
    try:
        return Parameter(name, type_name, _typed(ast.literal_eval(default), type_name), comment)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{name} is {type_name}, its default is no such literal: {default}") from None


def settings_in_more(notebook: StrPath) -> dict[str, Parameter]:
    """List the settings that the parameter `more` of a training notebook takes, beside the parameters of its own.

    They are the fields of the settings of training, of augmentation and of the detector that `NN_train_<detector>`
    is named for, explained by the field's own help or by the docstring. A notebook without `more` has none.
    """
    from retinamask import detectors
    from retinamask.training.settings import AugmentationSettings, TrainingSettings

    known = known_parameters(notebook)
    detector = Path(notebook).stem.partition("_train_")[2]
    if "more" not in known or detector not in detectors.DETECTORS:
        return {}
    found = {}
    for settings in (detectors.named(detector).Settings, TrainingSettings, AugmentationSettings):
        # An entry of the docstring's "Attributes:" is "    name, other: text", continued with deeper indentation.
        entries = re.findall(r"^ {4}(\w[\w, ]*): (.+(?:\n {8}.+)*)", inspect.getdoc(settings), re.MULTILINE)
        help_of = {
            name: " ".join(text.replace("``", "").split()).rstrip(".")
            for names, text in entries
            for name in names.split(", ")
        }
        for field in fields(settings):
            if field.name not in known and field.default is not MISSING:
                type_name = getattr(field.type, "__name__", str(field.type))
                text = field.metadata.get("help") or help_of.get(field.name, "")
                found[field.name] = Parameter(field.name, type_name, field.default, text)
    return found


def check_parameters(notebook: StrPath, values: Mapping[str, Any]) -> dict[str, Any]:
    """Check the values given for a notebook's parameters, and turn texts into the types declared.

    Texts come from a command line, and from YAML, to which `1e-5` is no number. A setting that is no parameter of its
    own but known to `more` is put there.

    Args:
        notebook: the notebook's path.
        values: values by parameter name; parameters left out keep their defaults.

    Returns:
        Values of the declared types by parameter name.

    Raises:
        ValueError: a name that the notebook does not have, or a value that its type does not allow.
    """
    known = known_parameters(notebook)
    own = {name: value for name, value in values.items() if name in known}
    others = {name: value for name, value in values.items() if name not in known}
    in_more = settings_in_more(notebook) if others or own.get("more") else {}
    try:
        checked = {name: converted(name, value, known[name].type_name) for name, value in own.items()}
        if others:
            checked["more"] = {**checked.get("more", {}), **others}
        if in_more:
            more = checked["more"]
            checked["more"] = {n: converted(n, v, in_more[n].type_name) for n, v in more.items() if n in in_more}
            others = {name: value for name, value in more.items() if name not in in_more}
    except ValueError as error:
        raise ValueError(f"{notebook}: {error}") from None
    for name in others:
        raise ValueError(f"{notebook}: {unknown(name, [*known, *in_more])}")
    return checked


def converted(name: str, value: Any, type_name: str) -> Any:
    """The value of a parameter in its declared type, which texts are turned into.

    Raises:
        ValueError: the type does not allow it.
    """
    try:
        return _typed(_from_text(value, type_name), type_name)
    except (ValueError, OverflowError) as error:
        found = f"{value!r} ({type(value).__name__})" + (f"; {error}" if str(error) else "")
        raise ValueError(f"{name} is {type_name}, got {found}") from None


def _from_text(value: Any, type_name: str) -> Any:
    """The value that a text stands for; what is no such text stays as it is, for `_typed` to judge."""
    if not isinstance(value, str) or type_name == "str":
        return value
    if type_name == "bool":
        return {"true": True, "false": False}.get(value.lower(), value)
    if type_name == "list[str]":
        return [item.strip() for item in value.split(",")] if value.strip() else []
    try:
        return _TYPES[type_name](value)
    except (ValueError, KeyError):
        return value


def _typed(value: Any, type_name: str) -> Any:
    """The value if it is of the type, a float made of an int if need be; ValueError otherwise."""
    if type_name.startswith("tuple") and isinstance(value, list | tuple):
        return list(value)  # JSON and YAML have no tuples; the settings make one of it
    if type_name == "float" and type(value) is int:
        value = float(value)
    if type(value) is not _TYPES.get(type_name):  # the very type: to `isinstance` a bool is an int
        raise ValueError
    if type_name == "float" and not math.isfinite(value):
        raise ValueError("it must be finite")
    if type_name == "list[str]" and not all(type(item) is str and item for item in value):
        raise ValueError("its items must be texts, none of them empty")
    return value


def unknown(name: object, known: Iterable[str]) -> str:
    """The message for a name that is none of the known ones."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    suggestion = f"; did you mean {close[0]!r}?" if close else ";"
    return f"no parameter named {name!r}{suggestion} it has: {', '.join(known) or 'none'}"


def read_parameters_file(path: StrPath) -> dict[str, Any]:
    """Read a YAML file of `name: value` lines; `check_parameters` then gives the values their types.

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
