"""Imports point one way: a module may use only the modules listed before it."""

import ast
import itertools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "retinamask"
LAYERS = [
    "progress",
    "setting",
    "dataset",
    "detectors",
    "training",
    "drawing",
    "inference",
    "model",
    "evaluation",
    "labelimg",
    "exports",
    "runs",
    "face",
    "doctor",
    "commands",
    "cli",
]  # files and folders of the package
ORDER = [
    "progress",
    "setting",
    "dataset.files",
    "dataset.boxes",
    "dataset.anchors",
    "dataset.images",
    "dataset.copies",
    "dataset.annotations",
    "dataset.image_files",
    "dataset.formats.class_names",
    "dataset.formats.entries",
    "dataset.formats.parsing",
    "dataset.formats.places",
    "dataset.formats.reading",
    "dataset.formats.writing",
    "dataset.formats.voc",
    "dataset.formats.yolo",
    "dataset.formats.coco_json",
    "dataset.formats.createml",
    "dataset.formats.open_images",
    "dataset.formats.cvat",
    "dataset.formats.labelme",
    "dataset.formats.via",
    "dataset.formats.vott",
    "dataset.formats.retinanet_csv",
    "dataset.formats.class_folders",
    "dataset.formats",
    "dataset.public.catalogue",
    "dataset.public.download",
    "dataset.public.unpack",
    "dataset.public.fetch",
    "dataset.dealing",
    "dataset.audit.source",
    "dataset.audit.checks",
    "dataset.audit.copy_checks",
    "dataset.splits",
    "dataset.faces",
    "dataset.split_files",
    "dataset.sample.painter",
    "dataset.sample.people",
    "dataset.sample.clothes",
    "dataset.sample.places",
    "dataset.sample",
    "detectors._keras",
    "detectors.starting_weights",
    "detectors.darknet.cfg",
    "detectors.darknet.template",
    "detectors.darknet.folder",
    "detectors.darknet.network",
    "detectors.darknet.weights",
    "detectors.anchor_targets",
    "detectors.detector",
    "detectors.retinanet",
    "detectors.mobilenet_v2_fpnlite",
    "detectors.mask_classifier",
    "detectors.ssd_mobilenet_v2_fpnlite",
    "detectors.yolov4_tiny",
    "detectors.snapshots",
    "detectors.keras_retinanet",
    "detectors.faster_precision",
    "detectors.exported",
    "detectors",
    "training.settings",
    "training.distribution",
    "training.augmentation",
    "training.pixel_cache",
    "training.input_pipeline",
    "training.learning_rate",
    "training.precision",
    "training.learner",
    "training.checkpoints",
    "training.loop",
    "training.train",
    "drawing.style",
    "drawing.boxes",
    "drawing.contact_sheet",
    "drawing.anonymise",
    "inference.suppression",
    "inference.agreement",
    "inference.detect",
    "inference.detect_in_parts",
    "inference.detect_on_dask",
    "inference.tiles",
    "inference.slices",
    "inference.face_detectors",
    "inference.convert",
    "inference.classify",
    "inference.two_stage",
    "inference.box_fit",
    "inference.video_files",
    "inference.tracks",
    "inference.window",
    "inference.video",
    "model",
    "evaluation.coco",
    "evaluation.matches",
    "evaluation.errors",
    "evaluation.face_traits",
    "evaluation.in_training",
    "evaluation.plots",
    "evaluation.classification",
    "evaluation.leaks",
    "evaluation.evaluate",
    "evaluation.leaderboard",
    "evaluation.watchers",
    "evaluation.page",
    "evaluation.audit",
    "evaluation.augmentation_sheet",
    "labelimg.window",
    "labelimg.folder",
    "labelimg.proposals",
    "labelimg.process",
    "labelimg.outcome",
    "exports",
    "runs.parameters",
    "runs.record",
    "runs.enter",
    "runs.runner",
    "runs.sweep",
    "runs.ledger",
    "face",
    "doctor",
    "commands.data",
    "commands.annotate",
    "commands.training",
    "commands.detect",
    "commands.classifier",
    "commands.models",
    "commands.darknet",
    "commands.runs",
    "cli",
]


def imported(module: str) -> set[str]:
    """Names of retinamask modules and packages that ``module`` imports, anywhere in the file."""
    path = PACKAGE / module.replace(".", "/")
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative imports are not looked through here"
            parent = node.module.removeprefix("retinamask").lstrip(".")
            names = {f"{parent}.{alias.name}".lstrip(".") for alias in node.names}
            found |= names & set(ORDER) or {parent}  # a package counts only where something of its own is meant
    return {name.removeprefix("retinamask.") for name in found} & set(ORDER)


def test_both_ways_of_importing_are_seen():
    assert imported("commands.models") >= {"dataset.annotations", "evaluation.evaluate", "commands.detect"}
    assert imported("commands.training") >= {"dataset.annotations", "face"}
    assert imported("detectors") >= {"detectors.retinanet", "detectors.snapshots"}


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module):
    allowed = set(ORDER[: ORDER.index(module)])
    assert imported(module) - allowed == set()


def test_layers_are_folders():
    """A folder's modules stand together, so that no folder is both above and below another."""
    assert [layer for layer, _ in itertools.groupby(ORDER, lambda module: module.split(".")[0])] == LAYERS


def test_every_module_is_listed():
    files = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    modules = [".".join(file.parts) for file in files if file.name != "__init__"]
    importing = [".".join(file.parent.parts) for file in files if file.name == "__init__"]
    importing = [package for package in importing if package and imported(package)]
    assert sorted(modules + importing) == sorted(ORDER)


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
