"""keras-retinanet's own files and commands: its ``.h5`` are checked before anything in them is believed.

tf-keras runs the code of a Lambda layer stored in an ``.h5``, with ``safe_mode`` too. So a file's ``model_config`` is
read as plain JSON and every class it names must be on a list; links out of the file are refused. The commands run as
installed, under today's TensorFlow, and read only files that pass the check.
"""

import importlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from retinamask.detectors import _keras
from retinamask.detectors.snapshots import SnapshotError

_LAYERS = """
    Activation Add Anchors AveragePooling2D BatchNormalization ClipBoxes Concatenate Conv2D DepthwiseConv2D Dropout
    FilterDetections Functional GlobalAveragePooling2D InputLayer MaxPooling2D Model Multiply Permute ReLU
    RegressBoxes Reshape SeparableConv2D UpsampleLike ZeroPadding2D
"""
_INITIALIZERS = """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Ones PriorProbability RandomNormal RandomUniform
    TruncatedNormal VarianceScaling Zeros
"""
ALLOWED = frozenset((_LAYERS + _INITIALIZERS).split())
_USUAL_FILTER = {"nms": True, "class_specific_filter": True, "max_detections": 300}  # of convert-model without options

COMMANDS = {
    "train": "keras_retinanet.bin.train",
    "evaluate": "keras_retinanet.bin.evaluate",
    "convert-model": "keras_retinanet.bin.convert_model",
    "debug": "keras_retinanet.bin.debug",
}


class KerasFile(NamedTuple):
    """The network that a checked file describes."""

    kind: str  # training or inference
    class_count: int
    backbone: str | None  # of the ResNets, recognised by their layers' names
    settings: dict[str, Any]  # anchors, where a converted model states them
    thresholds: dict[str, float]  # of a converted model


def check(path: str | Path) -> dict[str, Any]:
    """Read the ``model_config`` of a whole-model file and refuse what is no RetinaNet.

    Raises:
        SnapshotError: not HDF5, no whole model, a class that is not on the list, or a link out of the file.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            _refuse_links(file, path)
            text = file.attrs.get("model_config")
    except OSError as error:
        raise SnapshotError(f"{path}: not readable as HDF5 ({error}); expected a Keras .h5 file") from None
    try:
        config = json.loads(text)
    except (TypeError, ValueError):
        raise SnapshotError(f"{path}: holds no whole model; expected an .h5 that keras-retinanet wrote") from None
    if foreign := sorted(set(_class_names(config)) - ALLOWED):
        raise SnapshotError(
            f"{path}: its network names {', '.join(foreign)}, which no RetinaNet has and which may run code of the "
            "file's author; it is not loaded"
        )
    return config


def describe(path: str | Path) -> KerasFile:
    """Check a file and say what network it holds; raises as `check` does."""
    layers = {layer["config"]["name"]: layer for layer in check(path)["config"]["layers"]}
    try:
        head = {layer["config"]["name"]: layer for layer in layers["classification_submodel"]["config"]["layers"]}
        class_count = int(head["pyramid_classification_reshape"]["config"]["target_shape"][-1])
    except KeyError as error:
        raise SnapshotError(f"{path}: has no layer {error}; expected a RetinaNet of keras-retinanet") from None
    anchors = [layer["config"] for layer in layers.values() if layer["class_name"] == "Anchors"]
    settings = {}
    if anchors:
        settings = {f"{name}s": tuple(level[name] for level in anchors) for name in ("size", "stride")}
        settings |= {name: tuple(anchors[0][name]) for name in ("ratios", "scales")}
    filters = [layer["config"] for layer in layers.values() if layer["class_name"] == "FilterDetections"]
    thresholds = {name: filters[0][name] for name in ("score_threshold", "nms_threshold")} if filters else {}
    other = [
        f"{name}={filters[0][name]}"
        for name, usual in _USUAL_FILTER.items()
        if filters and filters[0].get(name) != usual
    ]
    if other:
        raise SnapshotError(
            f"{path}: was converted with {', '.join(other)}, which is not taken over; give the training snapshot"
        )
    backbone = "resnet50" if "res4f_branch2a" in layers else None
    if backbone is None:  # stage 4 of the larger ones has 23 and 36 blocks
        blocks = {int(found[1]) for name in layers if (found := re.match(r"res4b(\d+)_branch2a$", name))}
        backbone = {22: "resnet101", 35: "resnet152"}.get(max(blocks, default=0))
    return KerasFile("inference" if filters else "training", class_count, backbone, settings, thresholds)


def _class_names(config: Any) -> Iterator[str]:
    """Every class that a configuration names, at any depth."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield str(config["class_name"])
        for value in config.values():
            yield from _class_names(value)
    elif isinstance(config, list):
        for value in config:
            yield from _class_names(value)


def _refuse_links(group, path: str | Path) -> None:
    """HDF5 can point into other files, by links and by external storage; a snapshot never does."""
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise SnapshotError(f"{path}: {group.name}/{name} is a link; a snapshot has none, it is not loaded")
        item = group[name]
        if isinstance(item, h5py.Group):
            _refuse_links(item, path)
        elif item.external or item.is_virtual:
            raise SnapshotError(f"{path}: {item.name} lies in another file; a snapshot is whole, it is not loaded")


def run(command: str, arguments: list[str]) -> None:
    """Run one of keras-retinanet's commands with the arguments that it knows.

    Raises:
        ValueError: no such command, or a model that `check` refuses.
    """
    if command not in COMMANDS:
        raise ValueError(f"keras-retinanet has no command {command!r}; it has: {', '.join(COMMANDS)}")
    _keras.prepare()
    from keras_retinanet import models

    load_model = models.load_model

    def checked(filepath, *arguments, **options):
        check(filepath)
        return load_model(filepath, *arguments, **options)

    models.load_model = checked
    try:
        with warnings.catch_warnings():
            # What a package of 2020 calls is deprecated today, which its user can do nothing about.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", message="The initializer RandomNormal is unseeded")
            importlib.import_module(COMMANDS[command]).main(arguments)
    finally:
        models.load_model = load_model
