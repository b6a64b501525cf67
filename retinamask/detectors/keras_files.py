"""keras-retinanet's own ``.h5`` files: looked through before anything in them is believed.

tf-keras runs the code of a Lambda layer stored in an ``.h5``, with ``safe_mode`` too. So a file's
``model_config`` is read as plain JSON and every class it names must be on a list; links out of the file are
refused. `describe` says what network the file holds, so that ours can be built and take its weights.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
    foreign = sorted(set(_class_names(config)) - ALLOWED)
    if foreign:
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
    filters = [layer["config"] for layer in layers.values() if layer["class_name"] == "FilterDetections"]
    _refuse_other_filters(filters, path)
    thresholds = {name: filters[0][name] for name in ("score_threshold", "nms_threshold")} if filters else {}
    kind = "inference" if filters else "training"
    return KerasFile(kind, class_count, _backbone(layers), _anchor_settings(anchors), thresholds)


def _refuse_other_filters(filters: list[dict], path: str | Path) -> None:
    """A converted model must end as keras-retinanet's ``convert-model`` makes it end without options."""
    usual = {"nms": True, "class_specific_filter": True, "max_detections": 300}
    other = [f"{name}={filters[0][name]}" for name in usual if filters and filters[0].get(name) != usual[name]]
    if other:
        raise SnapshotError(
            f"{path}: was converted with {', '.join(other)}, which is not taken over; give the training snapshot"
        )


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


def _backbone(layers: dict[str, dict]) -> str | None:
    """The ResNet that has these layers: stage 4 has 6, 23 or 36 blocks."""
    if "res4f_branch2a" in layers:
        return "resnet50"
    blocks = {int(found[1]) for name in layers if (found := re.match(r"res4b(\d+)_branch2a$", name))}
    return {22: "resnet101", 35: "resnet152"}.get(max(blocks, default=0))


def _anchor_settings(anchors: list[dict]) -> dict[str, Any]:
    if not anchors:
        return {}
    return {
        "sizes": tuple(level["size"] for level in anchors),
        "strides": tuple(level["stride"] for level in anchors),
        "ratios": tuple(anchors[0]["ratios"]),
        "scales": tuple(anchors[0]["scales"]),
    }
