"""Starting weights for a network: none, ImageNet, COCO, or a file.

What can be had and read depends on the detector. Where a publisher states no checksum the SHA-256 is printed and
recorded.
"""

import json
from pathlib import Path
from typing import Any

from retinamask.dataset import files
from retinamask.detectors.starting import WeightsError

PUBLISHED = ("imagenet", "coco")
_CHECKPOINT_INDEX = ".index"  # behind the name of a TensorFlow 2 checkpoint, which is no file of its own


def normalisation_for(weights: str) -> str:
    """``live`` batch normalisation for random weights and what was trained so, else ``frozen``.

    Raises:
        WeightsError: no such file; said here, before a network is built.
    """
    if weights == "none":
        return "live"
    if weights in PUBLISHED:
        return "frozen"
    description = _check_file(weights).with_suffix(".json")
    if description.is_file():
        settings = json.loads(description.read_text(encoding="utf-8")).get("settings", {})
        return settings.get("normalisation", "frozen")
    return "frozen"


def start(network, detector, weights: str) -> dict[str, Any]:
    """Load starting weights into a network.

    Args:
        network: a training network of ``detector``.
        detector: its detector.
        weights: ``none``, ``imagenet``, ``coco``, or the path of a file that the detector reads: an ``.h5`` (a
            snapshot of ours or keras-retinanet's, or weights alone), Darknet's ``.weights``, or what a TensorFlow 2
            checkpoint is called without ``.index``.

    Returns:
        What was loaded, for the training record: ``source`` and, for files, ``sha256``, and what
        `retinamask.detectors.starting.Loaded` has.

    Raises:
        WeightsError: no network connection, no such file, or nothing of the file fits.
    """
    if weights == "none":
        return {"source": "none"}
    path = detector.published_weights(weights) if weights in PUBLISHED else _check_file(weights)
    loaded = detector.load_file(network, path)
    sha256 = files.sha256(path if path.is_file() else _index_of(path))
    print(f"{loaded.layers} layers start from {path.name}, SHA-256 {sha256}", flush=True)
    if loaded.in_part:
        print(f"other shapes, so in part only: {', '.join(loaded.in_part)}", flush=True)
    if loaded.unmapped:
        print(f"not used: {', '.join(loaded.unmapped)}", flush=True)
    return {"source": weights, "sha256": sha256, **vars(loaded)}


def _check_file(weights: str) -> Path:
    path = Path(weights)
    if not path.is_file() and not _index_of(path).is_file():
        raise WeightsError(
            f"weights is {weights!r}, expected none, imagenet, coco or the path of an existing file; a TensorFlow "
            "checkpoint is named by its .index file"
        )
    return path


def _index_of(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + _CHECKPOINT_INDEX)
