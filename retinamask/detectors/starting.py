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

    Raises:
        WeightsError: the file is no HDF5, or no layer of it is in the network.
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
    return Loaded(len(shared), sorted(name for name in shared if sorted(own[name]) != sorted(shapes[name])))


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


def _weight_names(group) -> list[str]:
    return list(group.attrs.get("weight_names", ()))
