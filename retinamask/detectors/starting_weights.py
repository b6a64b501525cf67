"""Starting weights for a network: none, ImageNet, COCO, or a file."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinamask.dataset import files
from retinamask.detectors import _keras

PUBLISHED = ("imagenet", "coco")


class WeightsError(ValueError):
    """Starting weights cannot be had or do not fit; the message says what to do."""


@dataclass(frozen=True)
class Loaded:
    """The account of what a file gave to a network.

    Attributes:
        layers: how many of the network's layers start from the file.
        in_part: names of those of them that fit only in part: heads of another number of classes.
        unmapped: what the file holds and the network has no place for.
    """

    layers: int
    in_part: list[str] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)


def load_by_name(network, path: Path) -> Loaded:
    """Load the layers that a Keras ``.h5`` and the network share.

    Returns:
        ``in_part`` names the layers that have another shape in the file, ``unmapped`` those that the network has not.

    Raises:
        WeightsError: the file is no HDF5, no layer of it is in the network, or most have another shape.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            names = {name: list(group[name].attrs.get("weight_names", ())) for name in group}
            there = {name: [group[name][weight].shape for weight in found] for name, found in names.items() if found}
    except OSError as error:
        raise WeightsError(f"{path}: not readable as HDF5 ({error}); expected a Keras .h5 file") from None
    own = {layer.name: [tuple(weight.shape) for weight in layer.weights] for layer in network.layers if layer.weights}
    shared = set(there) & set(own)
    if not shared:
        raise WeightsError(
            f"{path}: none of its layers ({', '.join(sorted(there)[:5])} ...) is in the network "
            f"({', '.join(list(own)[:5])} ...); is it for another backbone?"
        )
    others = sorted(name for name in shared if sorted(own[name]) != sorted(there[name]))
    if 2 * len(others) > len(shared):  # far more than the heads of other classes
        name = others[0]
        raise WeightsError(
            f"{path}: {len(others)} of the {len(shared)} layers that the network shares with it have another shape, "
            f"such as {name}: {there[name]}, expected {own[name]}; is it for another backbone, or another width of it?"
        )
    network.load_weights(path, by_name=True, skip_mismatch=True)
    return Loaded(len(shared), others, sorted(set(there) - shared))


def downloaded_from(url: str, what: str) -> Path:
    """Download a file into Keras's cache, ~/.keras/models; `WeightsError` if that fails."""
    get_file = _keras.prepare().utils.get_file
    return downloaded(lambda: get_file(url.rsplit("/", 1)[1], url, cache_subdir="models"), f"{what} from {url}")


def downloaded(download: Callable[[], str], what: str) -> Path:
    """Call a downloading function of Keras's; raise a `WeightsError` that says what to do if it fails."""
    try:
        return Path(download())
    except Exception as error:  # Keras turns every failed download into a bare Exception
        raise WeightsError(
            f"{what} could not be downloaded ({error}); connect to the network, or fetch the file by hand "
            "and give its path, or start from random numbers with weights none"
        ) from None


def check(detector: type, weights: str) -> None:
    """Raise `WeightsError` if a detector's class cannot start from ``weights``; nothing is downloaded or built."""
    if weights in ("none", *detector.published):
        return
    if weights in PUBLISHED:
        expected = " or ".join(("none", *detector.published))
        raise WeightsError(f"no {weights} weights are published for {detector.name}; take {expected}, or give a file")
    _weights_file(weights)


def normalisation_for(weights: str) -> str:
    """Choose ``live`` batch normalisation for random weights and what was trained so, else ``frozen``."""
    if weights == "none":
        return "live"
    description = Path(weights).with_suffix(".json")
    if weights in PUBLISHED or not description.is_file():
        return "frozen"
    return json.loads(description.read_text(encoding="utf-8")).get("settings", {}).get("normalisation", "frozen")


def start(network, detector, weights: str) -> dict[str, Any]:
    """Load starting weights into a network.

    Args:
        network: a training network of ``detector``.
        detector: its detector.
        weights: ``none``, ``imagenet``, ``coco``, or the path of a file that the detector reads: an ``.h5`` (a
            snapshot of ours or keras-retinanet's, or weights alone), Darknet's ``.weights``, or the name of a
            TensorFlow 2 checkpoint without ``.index``.

    Returns:
        For the training record: ``source`` and, for files, ``sha256``, and what `Loaded` has.

    Raises:
        WeightsError: no network connection, no such file, or nothing of the file fits.
    """
    if weights == "none":
        return {"source": "none"}
    path = detector.published_weights(weights) if weights in PUBLISHED else _weights_file(weights)
    loaded = detector.load_file(network, path)
    sha256 = files.sha256(path if path.is_file() else _index_of(path))
    print(f"{loaded.layers} layers start from {path.name}, SHA-256 {sha256}", flush=True)
    if loaded.in_part:
        print(f"other shapes, so in part only: {', '.join(loaded.in_part)}", flush=True)
    if loaded.unmapped:
        print(f"not used: {', '.join(loaded.unmapped)}", flush=True)
    return {"source": weights, "sha256": sha256, **vars(loaded)}


def _weights_file(weights: str) -> Path:
    path = Path(weights)
    if not path.is_file() and not _index_of(path).is_file():
        raise WeightsError(
            f"weights is {weights!r}, expected none, imagenet, coco or the path of an existing file; a TensorFlow "
            "checkpoint is named by its .index file"
        )
    return path


def _index_of(checkpoint: Path) -> Path:
    """The file by whose presence a TensorFlow 2 checkpoint is known; its name alone is no file."""
    return checkpoint.with_name(f"{checkpoint.name}.index")
