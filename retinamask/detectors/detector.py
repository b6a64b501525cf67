"""What all detectors have in common: settings and classes, and the road from images to network input.

Below the detectors. Each adds its network, its targets, its losses and its decoding.
"""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from retinamask.dataset import images
from retinamask.detectors import _keras
from retinamask.detectors.network_input import network_input
from retinamask.detectors.starting_weights import Loaded, WeightsError, load_by_name


class Detector:
    """One detector: its settings and classes; networks are built on request.

    A subclass has ``network(seed)`` and ``inference_network(network, score_threshold, nms_threshold)``, and for
    training, in the graph, ``targets``, ``counts`` and ``losses``; see `retinamask.detectors.retinanet.RetinaNet`.

    Attributes:
        name: by which `retinamask.detectors.create` finds it.
        Settings: a frozen dataclass, of which ``image_size`` is one field: the side of the input in pixels.
        normalisation_by_weights: whether batch normalisation is frozen where training starts from pretrained weights.
        classifies: whether it says what an image shows as a whole; a detector says where something is.
        any_canvas: whether the sides of the input may change from batch to batch, in steps of 32 pixels.
        published: names of published weights that `published_weights` can be asked for.
        unreached: what becomes of the boxes that `reached` is False for, and what to do.
    """

    name: str
    Settings: type
    normalisation_by_weights = False
    any_canvas = False
    classifies = False
    published: tuple[str, ...] = ()
    unreached = "cannot be learnt"

    def __init__(self, classes: dict[str, int], settings):
        self.classes = dict(sorted(classes.items(), key=lambda item: item[1]))
        self.settings = settings

    @classmethod
    def from_record(cls, classes: dict[str, int], record: dict[str, Any]) -> "Detector":
        """The detector that a snapshot's JSON describes."""
        known = [field.name for field in fields(cls.Settings)]
        unknown = sorted(set(record) - set(known))
        if unknown:
            raise ValueError(f"unknown {cls.name} setting {', '.join(unknown)}; known are {', '.join(known)}")
        return cls(classes, cls.Settings(**{name: _frozen(value) for name, value in record.items()}))

    def record(self) -> dict[str, Any]:
        """The settings as plain JSON values, the inverse of `from_record`."""
        return {name: _plain(value) for name, value in asdict(self.settings).items()}

    @property
    def preprocessing(self) -> str:
        """How pixels are normalised: a name in `retinamask.dataset.images.PREPROCESSINGS`."""
        raise NotImplementedError

    def prepare(self, images_rgb: list[np.ndarray]) -> tuple[np.ndarray, list[float]]:
        """Images of any size to one network input, and the scale of each.

        Args:
            images_rgb: ``uint8`` arrays of shape ``(height, width, 3)``.

        Returns:
            ``float32`` of shape ``(N, height, width, 3)``, and resized size / original size.
        """
        scales = [self.scale(image.shape[1::-1]) for image in images_rgb]
        resized = [images.resize(image, scale) for image, scale in zip(images_rgb, scales, strict=True)]
        return self.batch(resized), scales

    def scale(self, size_wh: tuple[int, int]) -> float:
        """Resized size / original size of an image, which is fitted into a square of ``image_size``."""
        return images.fit_scale(size_wh, self.settings.image_size)

    def batch(self, resized_rgb: list[np.ndarray]) -> np.ndarray:
        """Resized images normalised and laid into one network input, ``float32`` ``(N, height, width, 3)``."""
        side = self.settings.image_size
        return images.pad([images.normalise(image, self.preprocessing) for image in resized_rgb], (side, side))

    def canvas_wh(self, sizes_wh: list[tuple[int, int]]) -> tuple[int, int]:
        """Width and height of network input that holds resized images of these sizes."""
        return self.settings.image_size, self.settings.image_size

    def reached(self, boxes_xyxy: np.ndarray, of_image: np.ndarray, sizes_wh: np.ndarray) -> np.ndarray:
        """Tell which boxes training can teach, ``bool`` ``(N,)``; before augmentation, which may change it.

        Args:
            boxes_xyxy: ``(N, 4)`` in pixels of the resized images.
            of_image: ``(N,)``, the number of the image of each box.
            sizes_wh: ``(N, 2)``, the size of that image, resized.
        """
        return np.ones(len(boxes_xyxy), bool)

    def network_input(self, images, sizes_wh):
        """In the graph: ``uint8`` RGB ``(N, height, width, 3)``, zero padded, as `batch` gives it."""
        return network_input(images, sizes_wh, self.preprocessing)

    def published_weights(self, name: str) -> Path:
        """The file of published weights, ``imagenet`` or ``coco``, downloaded if it is not there yet.

        Raises:
            WeightsError: there are none, or no network connection.
        """
        raise WeightsError(f"no {name} weights are published for {self.name}; give a file, or start with none")

    def load_file(self, network, path: Path) -> Loaded:
        """Start ``network`` from a file, as far as both fit.

        Raises:
            WeightsError: nothing fits, or the file is damaged.
        """
        return load_by_name(network, path)


def decoded(inference_network):
    """Cut the filter off an inference network, which then gives boxes ``(N, A, 4)`` and class scores ``(N, A, C)``.

    Boxes are in input pixels and clipped to the input. What filters them is `retinamask.inference.suppression`.
    """
    boxes, class_scores, *_ = inference_network.get_layer("filtered_detections").input
    return _keras.prepare().Model(inference_network.inputs, [boxes, class_scores], name="decoded")


def _frozen(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return list(map(_plain, value)) if isinstance(value, tuple) else value
