"""The detectors by name, and loading a snapshot into one.

A detector is one file and one line of the table below. It offers ``prepare`` (images to network input), ``network``,
``scores`` and ``boxes`` (of its outputs), ``inference_network`` and ``record``, and for training, in the graph:
``canvas_wh`` and ``targets`` (for the input pipeline), ``network_input``, ``counts`` and ``losses`` (for the step) and
``freeze_backbone``.
"""

from dataclasses import Field
from pathlib import Path

from retinamask.detectors.detector import DETECTORS, named
from retinamask.detectors.exported import ExportedNetwork
from retinamask.detectors.mask_classifier import MaskClassifier
from retinamask.detectors.retinanet import RetinaNet
from retinamask.detectors.snapshots import Snapshot, SnapshotError
from retinamask.detectors.ssd_mobilenet_v2_fpnlite import SSDMobileNetV2FPNLite
from retinamask.detectors.starting_weights import PUBLISHED, check, normalisation_for
from retinamask.detectors.yolov4_tiny import YOLOv4Tiny
from retinamask.setting import described

DETECTORS |= {kind.name: kind for kind in (RetinaNet, SSDMobileNetV2FPNLite, YOLOv4Tiny, MaskClassifier)}


def settings_of_detector(name: str) -> dict[str, Field]:
    """Give the settings of a detector by name; a field's ``metadata`` has its ``help``, bounds and choices."""
    return described(named(name).Settings)


def create(name: str, classes: dict[str, int], **settings):
    """Build the detector ``name`` for ``classes`` with the settings of its own."""
    kind = named(name)
    return kind(classes, kind.Settings(**settings))


def create_for(name: str, classes: dict[str, int], weights: str, **settings):
    """Build a detector as `create` does, ready to start from ``weights``: with the batch normalisation that suits them.

    Published weights are downloaded here, before a single image is decoded.

    Raises:
        ValueError: a setting is not one of this detector's.
        WeightsError: no such file, or no network connection.
    """
    check_start(name, weights, **settings)
    if named(name).normalisation_by_weights:
        settings = {"normalisation": normalisation_for(weights), **settings}
    detector = create(name, classes, **settings)
    if weights in PUBLISHED:
        detector.published_weights(weights)
    return detector


def check_start(name: str, weights: str, **settings) -> None:
    """Check what a training is to start from, without TensorFlow and before anything is made.

    Args:
        name: of the detector.
        weights: ``none``, ``imagenet``, ``coco`` or a file, see `retinamask.detectors.starting_weights.start`.
        settings: of the detector.

    Raises:
        ValueError: no such detector, a setting is not one of its own or out of range, no such weights or file.
    """
    known = settings_of_detector(name)
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(f"{name} has no {', '.join(unknown)}; it has {', '.join(known)}")
    named(name).Settings(**settings)
    check(named(name), weights)


def restore(snapshot: Snapshot):
    """Give the detector of a snapshot, without its weights."""
    return named(snapshot.record["detector"]).from_record(snapshot.classes, snapshot.record["settings"])


def load(snapshot: Snapshot, kind: str, backend: str | None = None, precision: str = "auto"):
    """Build a snapshot's network from its description and read its weights.

    Args:
        snapshot: from `retinamask.detectors.snapshots.read`.
        kind: ``training`` for the network of a training snapshot; ``raw`` for the same network of any snapshot, of
            which the detector reads ``scores`` and ``boxes``; ``inference`` for what `retinamask.inference.convert`
            writes, which filters them, or a classifier's probabilities. An export has one of the last two.
        backend, precision: of an export, see `retinamask.detectors.exported.ExportedNetwork`.

    Returns:
        The detector and the network, tf-keras's or an `ExportedNetwork`.
    """
    if snapshot.kind == "export" and kind != "training":
        return restore(snapshot), ExportedNetwork(snapshot, backend, precision)
    for name, found in (("backend", backend), ("precision", precision if precision != "auto" else None)):
        if found:
            raise SnapshotError(
                f"{snapshot.weights}: {name} is {found}, but it runs in TensorFlow in float32; backend and precision "
                "are of exports (.onnx, .tflite), see retinamask export"
            )
    if kind == "training" and snapshot.kind != "training":
        raise SnapshotError(f"{snapshot.weights} is of the kind {snapshot.kind}; expected a training snapshot")
    detector = restore(snapshot)
    network = detector.network()
    if snapshot.kind == "training":
        load_weights(network, snapshot.weights)
    if snapshot.kind == "inference" or kind == "inference":
        filtered = detector.inference_network(network, **snapshot.record.get("inference", {}))
        if snapshot.kind == "inference":
            load_weights(filtered, snapshot.weights)
    return detector, filtered if kind == "inference" else network


def load_weights(network, path: Path) -> None:
    """Read the weights of the same network from an ``.h5``, layer by layer in its order; nothing else is read."""
    try:
        network.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise SnapshotError(f"{path}: its weights do not fit the network that was built for it ({error})") from None
