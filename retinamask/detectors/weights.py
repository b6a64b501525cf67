"""Starting weights for a network: none, ImageNet, COCO, or a file.

Weights are matched to layers by name, so a file of another class count or a bare backbone gives what it
has. Where a publisher states no checksum the SHA-256 is printed and recorded.
"""

import json
from pathlib import Path
from typing import Any

from retinamask.dataset import files
from retinamask.detectors import _keras

COCO_URLS = {
    "resnet50": "https://github.com/fizyr/keras-retinanet/releases/download/0.5.1/resnet50_coco_best_v2.1.0.h5",
}


class WeightsError(ValueError):
    """Starting weights cannot be had or do not fit; the message says what to do."""


def normalisation_for(weights: str) -> str:
    """``live`` batch normalisation for random weights and what was trained so, else ``frozen``.

    Raises:
        WeightsError: no such file; said here, before a network is built.
    """
    if weights == "none":
        return "live"
    if weights not in ("imagenet", "coco"):
        _check_file(weights)
    description = Path(weights).with_suffix(".json")
    if weights not in ("imagenet", "coco") and description.is_file():
        settings = json.loads(description.read_text(encoding="utf-8")).get("settings", {})
        return settings.get("normalisation", "frozen")
    return "frozen"


def start(network, detector, weights: str) -> dict[str, Any]:
    """Load starting weights into a network.

    Args:
        network: a training network of ``detector``.
        detector: its detector.
        weights: ``none``, ``imagenet``, ``coco``, or the path of an ``.h5`` file (a snapshot of ours or
            keras-retinanet's, or weights alone).

    Returns:
        What was loaded, for the training record: ``source`` and, for files, ``sha256``, ``layers`` (their
        number) and ``in_part`` (names of those that fit only in part).

    Raises:
        WeightsError: no network connection, no such file, or no layer of the file fits.
    """
    if weights == "none":
        return {"source": "none"}
    path = _path(weights, detector.settings.backbone)
    layers, in_part = _load_by_name(network, path)
    loaded = {"source": weights, "sha256": files.sha256(path), "layers": layers, "in_part": in_part}
    print(f"{layers} layers start from {path.name}, SHA-256 {loaded['sha256']}", flush=True)
    if in_part:
        print(f"other shapes, so in part only: {', '.join(in_part)}", flush=True)
    return loaded


def _path(weights: str, backbone: str) -> Path:
    """The weights file, downloaded into Keras's cache (~/.keras/models) if it is one of the named ones."""
    if weights == "imagenet":
        from keras_retinanet import models

        # keras-retinanet checks the MD5 that it knows for each file.
        return _downloaded(models.backbone(backbone).download_imagenet, f"ImageNet weights for {backbone}")
    if weights == "coco":
        if backbone not in COCO_URLS:
            raise WeightsError(f"COCO weights are published for {', '.join(COCO_URLS)}, not for {backbone}")
        url = COCO_URLS[backbone]
        get_file = _keras.prepare().utils.get_file
        return _downloaded(
            lambda: get_file(url.rsplit("/", 1)[1], url, cache_subdir="models"), f"COCO weights from {url}"
        )
    return _check_file(weights)


def _check_file(weights: str) -> Path:
    if not Path(weights).is_file():
        raise WeightsError(f"weights is {weights!r}, expected none, imagenet, coco or the path of an existing .h5 file")
    return Path(weights)


def _downloaded(download, what: str) -> Path:
    try:
        return Path(download())
    except Exception as error:  # Keras turns every failed download into a bare Exception
        raise WeightsError(
            f"{what} could not be downloaded ({error}); connect to the network, or fetch the file by hand "
            "and give its path, or start from random numbers with weights none"
        ) from None


def _load_by_name(network, path: Path) -> tuple[int, list[str]]:
    """Load the layers that the file and the network share.

    Returns:
        How many there are, and those of them that fit only in part: heads of another number of classes.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            shapes = {name: [group[name][weight].shape for weight in _weight_names(group[name])] for name in group}
    except OSError as error:
        raise WeightsError(f"{path}: not readable as HDF5 ({error}); expected a Keras .h5 file") from None
    named = {name for name in shapes if shapes[name]}
    shared = named & {layer.name for layer in network.layers}
    if not shared:
        raise WeightsError(
            f"{path}: none of its layers ({', '.join(sorted(named)[:5])} ...) is in the network "
            f"({', '.join(layer.name for layer in network.layers[1:6])} ...); is it for another backbone?"
        )
    network.load_weights(path, by_name=True, skip_mismatch=True)
    own = {name: [weight.shape for weight in network.get_layer(name).get_weights()] for name in shared}
    return len(shared), sorted(name for name in shared if sorted(own[name]) != sorted(shapes[name]))


def _weight_names(group) -> list[str]:
    return list(group.attrs.get("weight_names", ()))
