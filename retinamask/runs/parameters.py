"""The parameters of a notebook: its one `parameters` cell read as an interface, and values checked against it."""

import ast
import contextlib
import difflib
import io
import math
import os
import tokenize
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retinamask.setting import value_of

StrPath = str | os.PathLike[str]
_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list[str]": list, "list[float]": list, "dict": dict}


class Parameter(NamedTuple):
    """One line of a notebook's `parameters` cell: `name: type = default  # help`."""

    name: str
    type_name: str
    default: Any
    help: str


def known_parameters(notebook: StrPath) -> dict[str, Parameter]:
    """Read the parameters that a notebook declares, in the order of its one cell tagged `parameters`."""
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
        where = f"{notebook}: line {statement.lineno} of the parameters cell:"
        annotated = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if not annotated or statement.value is None:
            raise ValueError(f"{where} expected 'name: type = literal  # help', found {ast.unparse(statement)!r}")
        name, type_name, default = map(ast.unparse, (statement.target, statement.annotation, statement.value))
        if type_name not in _TYPES:
            raise ValueError(f"{where} {name} is {type_name}, expected one of: {', '.join(_TYPES)}")
        if name in parameters:
            raise ValueError(f"{notebook}: the parameters cell has {name!r} twice; keep one")
        try:
            value = _typed(ast.literal_eval(default), type_name)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"{where} {name} is {type_name}, its default is no such literal: {default}") from None
        parameters[name] = Parameter(name, type_name, value, comments.get(statement.end_lineno, ""))
    return parameters


def settings_in_more(notebook: StrPath) -> dict[str, Parameter]:
    """List the settings of training and of the detector that the parameter `more` of `NN_train_<detector>` takes."""
    from retinamask import detectors
    from retinamask.training.settings import KNOWN

    known, found = known_parameters(notebook), {}
    detector = Path(notebook).stem.partition("_train_")[2]
    if "more" not in known or detector not in detectors.DETECTORS:
        return {}
    for name, field in (detectors.settings_of_detector(detector) | KNOWN).items():
        if name not in known:
            type_name = getattr(field.type, "__name__", str(field.type))
            found[name] = Parameter(name, type_name, field.default, field.metadata["help"])
    return found


def training_settings(detector: str, more: Mapping[str, Any], **given: Any) -> tuple:
    """Divide choices into `TrainingSettings` and the detector's settings by name.

    Args:
        detector: its name.
        more: settings by name, such as ``{"mosaic": 0.5, "optimizer": "adamw"}``; each must be known.
        given: a notebook's parameters, of which those that are no setting have no effect; ``augment`` False leaves
            the images as they are.

    Raises:
        ValueError: an unknown name, or one that is a parameter of the notebook itself; a wrong value.
    """
    from retinamask.detectors import settings_of_detector
    from retinamask.training.settings import KNOWN, settings_of

    for name in more.keys() & given.keys():
        raise ValueError(f"more has {name!r}, which is a parameter of its own; set it there")
    of_network = {name: field for name, field in settings_of_detector(detector).items() if name not in KNOWN}
    for name in more:
        if name not in (*KNOWN, *of_network, "augment"):
            close = difflib.get_close_matches(name, [*KNOWN, *of_network], n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ";"
            raise ValueError(f"{detector} has no {name}{meant} it has {', '.join([*of_network, *KNOWN])}")
    together = {**given, **more}
    network = {name: value_of(of_network[name], together[name]) for name in of_network if name in together}
    return settings_of(together), network


def check_parameters(notebook: StrPath, values: Mapping[str, Any]) -> dict[str, Any]:
    """Check the values given for a notebook's parameters, and turn texts into the types declared.

    Texts come from a command line, and from YAML, to which `1e-5` is no number. A setting that is no parameter of its
    own but known to `more` is put there. Parameters left out keep their defaults and are not returned.
    """
    known = known_parameters(notebook)
    own = {name: value for name, value in values.items() if name in known}
    others = {name: value for name, value in values.items() if name not in known}
    in_more = settings_in_more(notebook) if others or own.get("more") else {}
    try:
        checked = {name: converted(name, value, known[name].type_name) for name, value in own.items()}
        if in_more:
            others = {**checked.get("more", {}), **others}
            checked["more"] = {n: converted(n, v, in_more[n].type_name) for n, v in others.items() if n in in_more}
        for name in others:
            if name not in in_more:
                raise ValueError(unknown(name, [*known, *in_more]))
    except ValueError as error:
        raise ValueError(f"{notebook}: {error}") from None
    return checked


def converted(name: str, value: Any, type_name: str) -> Any:
    """Return the value of a parameter in its declared type, which texts are turned into."""
    meant = value
    if isinstance(value, str) and type_name == "bool":
        meant = {"true": True, "false": False}.get(value.lower(), value)
    elif isinstance(value, str) and type_name in ("list[str]", "list[float]"):
        meant = [item.strip() for item in value.split(",")] if value.strip() else []
        if type_name == "list[float]":
            meant = [converted(name, item, "float") for item in meant]
    elif isinstance(value, str) and type_name in ("int", "float"):
        with contextlib.suppress(ValueError):  # a text stays one, and is of the wrong type
            meant = _TYPES[type_name](value)
    elif isinstance(value, str) and type_name == "dict":
        import yaml

        with contextlib.suppress(yaml.YAMLError):
            meant = yaml.safe_load(value)
    try:
        return _typed(meant, type_name)
    except (ValueError, OverflowError) as error:
        found = f"{value!r} ({type(value).__name__})" + (f"; {error}" if str(error) else "")
        raise ValueError(f"{name} is {type_name}, got {found}") from None


def _typed(value: Any, type_name: str) -> Any:
    """Return the value if it is of the type, a float made of an int if need be."""
    if type_name.startswith("tuple") and isinstance(value, list | tuple):
        return list(value)  # JSON and YAML have no tuples; the settings make one of it
    if type_name == "float" and type(value) is int:
        value = float(value)
    if type(value) is not _TYPES.get(type_name):  # the very type: to `isinstance` a bool is an int
        raise ValueError
    if type_name == "list[float]":
        value = [_typed(item, "float") for item in value]
    if type_name == "float" and not math.isfinite(value):
        raise ValueError("it must be finite")
    if type_name == "list[str]" and not all(type(item) is str and item for item in value):
        raise ValueError("its items must be texts, none of them empty")
    return value


def unknown(name: object, known: Iterable[str]) -> str:
    """Say that a name is none of the known ones, and which is meant."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    suggestion = f"; did you mean {close[0]!r}?" if close else ";"
    return f"no parameter named {name!r}{suggestion} it has: {', '.join(known) or 'none'}"


def read_parameters_file(path: StrPath) -> dict[str, Any]:
    """Read a YAML file of `name: value` lines, each name once; `check_parameters` then gives the values their types."""
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
