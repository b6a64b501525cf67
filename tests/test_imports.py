"""Imports point one way: a module may use only the modules listed before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "retinamask"
ORDER = [
    "dataset.files",
    "dataset.boxes",
    "dataset.images",
    "dataset.annotations",
    "dataset.formats.image_files",
    "dataset.formats.voc_xml",
    "dataset.formats.voc",
    "dataset.splits",
    "dataset.sample.painter",
    "dataset.sample.look",
    "dataset.sample.clothes",
    "dataset.sample.clutter",
    "dataset.sample.backgrounds",
    "dataset.sample.faces",
    "dataset.sample.scenes",
    "detectors._keras",
    "detectors.retinanet",
    "detectors.snapshots",
    "detectors.weights",
    "detectors.keras_files",
    "detectors.keras_commands",
    "training.input_pipeline",
    "training.train",
    "inference.detect",
    "inference.convert",
    "evaluation.coco",
    "evaluation.drawing",
    "evaluation.plots",
    "evaluation.page",
    "evaluation.in_training",
    "notebook_parameters",
    "run_record",
    "notebooks",
    "doctor",
    "commands",
    "cli",
]


def imported(module: str) -> set[str]:
    """Names of retinamask modules that ``module`` imports, anywhere in the file."""
    tree = ast.parse((PACKAGE / (module.replace(".", "/") + ".py")).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "retinamask":
            parent = node.module.removeprefix("retinamask").lstrip(".")
            names = [f"{parent}.{alias.name}".lstrip(".") for alias in node.names]
            found |= {name for name in (*names, parent) if name in ORDER}
    return found


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module):
    allowed = set(ORDER[: ORDER.index(module)])
    assert imported(module) - allowed == set()


def test_every_module_is_listed():
    files = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    assert sorted(".".join(file.parts) for file in files if file.name != "__init__") == sorted(ORDER)


def test_no_pickle_and_no_eval():
    """Nothing that runs code out of a file may enter the package."""
    forbidden = (
        "import pickle",
        "import joblib",
        "import marshal",
        "import shelve",
        "eval(",
        "exec(",
        "allow_pickle=True",
        "yaml.load(",
    )
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text().replace("literal_eval(", "")
        assert [word for word in forbidden if word in text] == [], path
