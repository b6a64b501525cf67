"""Face-mask detection with Keras-RetinaNet: ``import retinamask as rm``.

>>> table, classes, problems = rm.read_annotations("data/mine")       # any annotation format
>>> parts = rm.split(table, val=0.15, test=0.15)                      # without copies across the parts
>>> trained = rm.train(parts, classes, detector="ssd_mobilenet_v2_fpnlite", weights="imagenet", epochs=20)
>>> model = rm.load(trained.best)
>>> detections = model.detect("photos/")                              # a path, folder, array or PIL image
>>> rm.draw("photos/a.jpg", detections)
>>> rm.evaluate(model.detect(parts["test"], 0.05, "per_class"), parts["test"], classes).table()

The names below are public; the modules that they come from are private. Each is loaded when it is first used, so that
importing the package is quick; TensorFlow starts with the first network.
"""

import importlib

__version__ = "0.2.0"

_HOME = {
    # annotations
    "read_annotations": "dataset.formats",
    "write_annotations": "dataset.annotations",
    "read_detections": "dataset.annotations",
    "write_detections": "dataset.annotations",
    "write_format": "dataset.formats",
    "count_boxes": "dataset.annotations",
    "audit": "evaluation.audit",
    "split": "face",
    "split_faces": "face",
    "draw_sample": "dataset.sample",
    # training
    "train": "face",
    "TrainingSettings": "training.settings",
    "AugmentationSettings": "training.settings",
    # models
    "load": "model",
    "Model": "model",
    "convert": "inference.convert",
    "export": "exports",
    "compare_conversion": "face",
    "export_darknet": "inference.convert",
    "annotate_video": "inference.video",
    # results
    "fit_boxes": "inference.box_fit",
    "evaluate": "evaluation.evaluate",
    "find_leaks": "evaluation.leaks",
    "evaluate_classifier": "face",
    "leaderboard": "evaluation.leaderboard",
    "draw": "face",
    "contact_sheet": "face",
    "plot_classes": "face",
    "plot_box_sizes": "face",
    # notebooks
    "run": "runs.runner",
    "enter": "runs.enter",
    "TrainingRun": "runs.enter",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str):
    """Load a public name from the module that has it."""
    if name not in _HOME:
        raise AttributeError(f"module 'retinamask' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"retinamask.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
