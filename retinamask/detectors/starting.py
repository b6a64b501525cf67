"""What a network starts from: errors, the account of what was loaded, and ``.h5`` files by the names of layers.

Below the detectors, each of which may read further kinds of files; `weights` chooses.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from retinamask.detectors import _keras


class WeightsError(ValueError):
    """Starting weights cannot be had or do not fit; the message says what to do."""


@dataclass(frozen=True)
class Loaded:
    """What of a file went into a network.

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
    there = _shapes(path)
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
    """The file at an address, in Keras's cache (~/.keras/models).

    Raises:
        WeightsError: it could not be downloaded.
    """
    get_file = _keras.prepare().utils.get_file
    return downloaded(lambda: get_file(url.rsplit("/", 1)[1], url, cache_subdir="models"), f"{what} from {url}")


def downloaded(download: Callable[[], str], what: str) -> Path:
    """What a downloading function of Keras's gives, or a `WeightsError` that says what to do."""
    try:
        return Path(download())
    except Exception as error:  # Keras turns every failed download into a bare Exception
        raise WeightsError(
            f"{what} could not be downloaded ({error}); connect to the network, or fetch the file by hand "
            "and give its path, or start from random numbers with weights none"
        ) from None


def _shapes(path: Path) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of the weights of each layer in an ``.h5`` that has any."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            shapes = {name: [group[name][weight].shape for weight in _weight_names(group[name])] for name in group}
    except OSError as error:
        raise WeightsError(f"{path}: not readable as HDF5 ({error}); expected a Keras .h5 file") from None
    return {name: found for name, found in shapes.items() if found}


def _weight_names(group) -> list[str]:
    return list(group.attrs.get("weight_names", ()))
