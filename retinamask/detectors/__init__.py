"""The detectors by name, and loading a snapshot into one.

A detector is built from its name, its classes and its settings; it offers ``prepare`` (images to network
input), ``network``, ``inference_network``, ``losses``, ``targets`` and ``record``. What differs between
detectors stays in their own files.
"""

from retinamask.detectors.retinanet import RetinaNet, RetinaNetSettings
from retinamask.detectors.snapshots import Snapshot, SnapshotError

DETECTORS = {"retinanet": (RetinaNet, RetinaNetSettings)}


def create(name: str, classes: dict[str, int], **settings):
    """Build the detector ``name`` for ``classes`` with the settings of its own."""
    detector, its_settings = _known(name)
    return detector(classes, its_settings(**settings))


def restore(snapshot: Snapshot):
    """The detector of a snapshot, without its weights."""
    detector, _ = _known(snapshot.record["detector"])
    return detector.from_record(snapshot.classes, snapshot.record["settings"])


def load(snapshot: Snapshot, kind: str):
    """Build a snapshot's network from its description and read its weights.

    Args:
        snapshot: from `retinamask.detectors.snapshots.read`.
        kind: ``training`` for the raw network, ``inference`` for boxes; a training snapshot can give both.

    Returns:
        The detector and the tf-keras network.
    """
    if kind == "training" and snapshot.kind != "training":
        raise SnapshotError(f"{snapshot.weights} is a converted model; expected a training snapshot")
    detector = restore(snapshot)
    network = detector.network()
    if snapshot.kind == "training":
        load_weights(network, snapshot)
    if kind == "inference":
        network = detector.inference_network(network, **snapshot.record.get("inference", {}))
    if snapshot.kind == "inference":
        load_weights(network, snapshot)
    return detector, network


def load_weights(network, snapshot: Snapshot) -> None:
    """Read the weights of the same network, layer by layer in its order."""
    try:
        network.load_weights(snapshot.weights)
    except (ValueError, OSError, KeyError) as error:
        raise SnapshotError(f"{snapshot.weights}: weights do not fit the network in its .json ({error})") from None


def _known(name: str):
    if name not in DETECTORS:
        raise ValueError(f"no detector named {name!r}; there are: {', '.join(DETECTORS)}")
    return DETECTORS[name]
