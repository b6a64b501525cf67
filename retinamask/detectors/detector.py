"""The base class of all detectors, with the road from images to network input."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from retinamask.dataset import images
from retinamask.detectors.starting_weights import Loaded, WeightsError, load_by_name
from retinamask.setting import described, value_of

DETECTORS: dict[str, type["Detector"]] = {}
"""The classes of all detectors by name, filled by ``detectors/__init__.py``."""


def named(name: str) -> type["Detector"]:
    """Give the class of a detector; `ValueError` for an unknown name."""
    if name not in DETECTORS:
        raise ValueError(f"no detector named {name!r}; there are: {', '.join(DETECTORS)}")
    return DETECTORS[name]


class Detector:
    """One detector: its settings and classes; networks are built on request.

    A subclass has ``network(seed)`` and ``inference_network(network, score_threshold, nms_threshold)``, to read its
    outputs, ``scores`` and ``boxes``, for training, in the graph, ``targets``, ``counts`` and ``losses``, and
    ``freeze_backbone(network, frozen)``; see `retinamask.detectors.retinanet.RetinaNet`.

    Attributes:
        name: by which `retinamask.detectors.create` finds it.
        Settings: a frozen dataclass of fields declared by `retinamask.setting.setting`; ``image_size`` is one of them.
        preprocessing: how pixels are normalised, a name in `retinamask.dataset.images.PREPROCESSINGS`.
        normalisation_by_weights: whether batch normalisation is frozen if training starts from pretrained weights.
        classifies: whether it names what an image shows as a whole, instead of finding boxes.
        any_canvas: whether the sides of the input may change from batch to batch, in steps of 32 pixels.
        published: names of published weights that `published_weights` knows.
        weight_files: the kinds of files that `load_file` reads, for help.
        unreached: what becomes of the boxes that `reached` is False for, and what to do.
    """

    name: str
    Settings: type
    preprocessing: str
    normalisation_by_weights = False
    any_canvas = False
    classifies = False
    published: tuple[str, ...] = ()
    weight_files = "an .h5 file"
    unreached = "cannot be learnt"

    def __init__(self, classes: dict[str, int], settings):
        self.classes = dict(sorted(classes.items(), key=lambda item: item[1]))
        self.settings = settings

    @classmethod
    def from_record(cls, classes: dict[str, int], record: dict[str, Any]) -> "Detector":
        """Make the detector that a snapshot's JSON describes."""
        known = described(cls.Settings)
        if unknown := sorted(set(record) - set(known)):
            raise ValueError(f"unknown {cls.name} setting {', '.join(unknown)}; known are {', '.join(known)}")
        return cls(classes, cls.Settings(**{name: value_of(known[name], value) for name, value in record.items()}))

    def record(self) -> dict[str, Any]:
        """Give the settings as plain JSON values, the inverse of `from_record`."""
        return {name: _as_list(value) for name, value in asdict(self.settings).items()}

    def prepare(self, images_rgb: list[np.ndarray]) -> tuple[np.ndarray, list[float]]:
        """Make one network input of images of any size, ``uint8`` arrays of shape ``(height, width, 3)``.

        Returns:
            ``float32`` of shape ``(N, height, width, 3)``, and resized size / original size of each image.
        """
        scales = [self.scale(image.shape[1::-1]) for image in images_rgb]
        resized = [images.resize(image, scale) for image, scale in zip(images_rgb, scales, strict=True)]
        return self.batch(resized), scales

    def scale(self, size_wh: tuple[int, int]) -> float:
        """Give resized size / original size of an image, which is fitted into a square of ``image_size``."""
        return images.fit_scale(size_wh, self.settings.image_size)

    def batch(self, resized_rgb: list[np.ndarray]) -> np.ndarray:
        """Normalise resized images and lay them into one network input, ``float32`` ``(N, height, width, 3)``."""
        canvas_wh = self.canvas_wh([image.shape[1::-1] for image in resized_rgb])
        return images.network_input(resized_rgb, self.preprocessing, canvas_wh)

    def canvas_wh(self, sizes_wh: list[tuple[int, int]]) -> tuple[int, int]:
        """Give width and height of network input that holds resized images of these sizes."""
        return self.settings.image_size, self.settings.image_size

    def reached(self, boxes_xyxy: np.ndarray, of_image: np.ndarray, sizes_wh: np.ndarray) -> np.ndarray:
        """Say which boxes can be learnt, ``bool`` ``(N,)``; the others are `unreached`.

        Boxes are ``(N, 4)`` in pixels of the resized images; ``of_image`` ``(N,)`` and ``sizes_wh`` ``(N, 2)`` are the
        number and the resized size of the image of each.
        """
        return np.ones(len(boxes_xyxy), bool)

    def network_input(self, images_rgb, sizes_wh):
        """Do in the graph what `batch` does; see `network_input`."""
        return network_input(images_rgb, sizes_wh, self.preprocessing)

    def published_weights(self, name: str) -> Path:
        """Give the file of published weights, ``imagenet`` or ``coco``, downloaded if it is not there yet.

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


def network_input(images_rgb, sizes_wh, preprocessing: str):
    """Normalise a padded batch in the graph as `retinamask.dataset.images.network_input`, and make its padding zero.

    Images stay ``uint8`` until here, a quarter of the memory and of the copying.

    Args:
        images_rgb: ``uint8`` tensor of shape ``(B, H, W, 3)``, padded right and bottom with anything.
        sizes_wh: ``int32`` tensor of shape ``(B, 2)``, the part of each image that is not padding, in pixels.
        preprocessing: a name in `retinamask.dataset.images.PREPROCESSINGS`.

    Returns:
        ``float32`` of shape ``(B, H, W, 3)``, channels in the order of the preprocessing.
    """
    import tensorflow as tf

    is_bgr, divisor, mean = images.PREPROCESSINGS[preprocessing]
    batch, height, width = (tf.shape(images_rgb)[axis] for axis in range(3))
    pixels = tf.cast(tf.reverse(images_rgb, [-1]) if is_bgr else images_rgb, tf.float32)
    # A row's pixels and channels lie in one axis: sums with rows of three numbers are several times slower.
    rows = tf.reshape(pixels, (batch, height, 3 * width))
    normalised = rows if divisor == 1 else rows / divisor
    if any(mean):
        normalised -= mean[0] if len(set(mean)) == 1 else tf.tile(tf.constant(mean), [width])
    within_width = tf.range(3 * width)[None] < 3 * sizes_wh[:, :1]
    within_height = tf.range(height)[None] < sizes_wh[:, 1:]
    normalised *= tf.cast(within_width, tf.float32)[:, None, :]
    normalised *= tf.cast(within_height, tf.float32)[:, :, None]
    return tf.ensure_shape(tf.reshape(normalised, (batch, height, width, 3)), images_rgb.shape)


def _as_list(value: Any) -> Any:
    return list(map(_as_list, value)) if isinstance(value, tuple) else value
