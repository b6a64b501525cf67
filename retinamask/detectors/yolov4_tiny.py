"""YOLOv4-tiny: Darknet's network, label assignment, losses and boxes; a Darknet ``.cfg`` describes its layers.

Bochkovskiy et al., *YOLOv4*, https://arxiv.org/abs/2004.10934, and AlexeyAB's https://github.com/AlexeyAB/darknet,
which published the network and what it is trained with. The parts are in `retinamask.detectors.darknet`; this file puts
them together.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from retinamask.detectors import _keras
from retinamask.detectors.darknet import anchors, cfg, weights
from retinamask.detectors.darknet.assignment import match
from retinamask.detectors.darknet.decoding import decode
from retinamask.detectors.darknet.loss import LOSSES, head_losses
from retinamask.detectors.darknet.network import build
from retinamask.detectors.darknet.template import yolov4_tiny_cfg
from retinamask.detectors.detector import Detector
from retinamask.detectors.starting_weights import Loaded, WeightsError, downloaded_from

RELEASE = "https://github.com/AlexeyAB/darknet/releases/download/darknet_yolo_v4_pre/"
WHOLE, FIRST_LAYERS = "yolov4-tiny.weights", "yolov4-tiny.conv.29"
PUBLISHED_SIZE = 416
MAX_DETECTIONS = 300


@dataclass(frozen=True)
class YOLOv4TinySettings:
    """All that is needed, with the classes, to build the same network again.

    Attributes:
        image_size: side in pixels of the square that an image is fitted into, a multiple of 32; 0: the cfg's, or 416.
        levels: number of heads: 2 (strides 32 and 16) or 3 (8 too, for small faces).
        anchors: pairs of width and height in pixels of the input, 3 for each head; none for the published ones.
        cfg: text of an own Darknet cfg, which then says heads and anchors; empty for the published network.
        momentum: share of the old moving average that each step of training keeps.
    """

    image_size: int = 0
    levels: int = 2
    anchors: tuple[tuple[float, float], ...] = ()
    cfg: str = ""
    momentum: float = 0.9

    def __post_init__(self):
        if not 0 < self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}, expected a number between 0 and 1")
        for name in ("anchors", "levels"):
            if self.cfg and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"cfg and {name} are both given, and the cfg has its own {name}; take one of them out")
        if not self.image_size:
            size = cfg.describe(self.cfg).image_size if self.cfg else PUBLISHED_SIZE
            object.__setattr__(self, "image_size", size)


class YOLOv4Tiny(Detector):
    """One YOLOv4-tiny: its settings and classes; networks are built on request."""

    name = "yolov4_tiny"
    Settings = YOLOv4TinySettings
    any_canvas = True
    published = ("coco",)
    unreached = "share cell and anchor with another box, and only one can be found there: take a larger image_size"

    def __init__(self, classes: dict[str, int], settings: YOLOv4TinySettings):
        super().__init__(classes, settings)
        given = self.settings
        text = given.cfg or yolov4_tiny_cfg(len(classes), given.image_size, given.levels, given.anchors or None)
        self.description = cfg.describe(text, "cfg", len(classes), given.image_size)

    @property
    def anchors_wh(self) -> np.ndarray:
        """Return the anchors of all heads, ``(A, 2)`` pixels of the input."""
        return self.description.heads[0].all_anchors_wh

    def with_anchors(self, boxes: Iterable[np.ndarray], seed: int = 0) -> "YOLOv4Tiny":
        """Return the same detector with anchors that fit boxes, by k-means.

        Args:
            boxes: an array ``(M, 4)`` for each image, xyxy in pixels of the input.
            seed: of k-means.

        Raises:
            ValueError: too few different boxes, or the settings have a ``cfg``, which has the anchors.
        """
        sizes_wh = np.concatenate([each[:, 2:] - each[:, :2] for each in boxes])
        found = anchors.suggest(sizes_wh, len(self.anchors_wh), seed)
        return YOLOv4Tiny(self.classes, replace(self.settings, anchors=tuple(map(tuple, found.tolist()))))

    @property
    def preprocessing(self) -> str:
        """Pixels are RGB from 0 to 1."""
        return "unit_rgb"

    def network(self, seed: int | None = None):
        """Build the training network: image in, one raw map a head out; the same weights for the same ``seed``."""
        return build(self.description, self.settings.momentum, seed)

    def inference_network(self, network, score_threshold: float = 0.05, nms_threshold: float = 0.5):
        """Add decoding and NMS to ``network``, sharing its weights.

        A score is objectness times the probability of the class. Outputs boxes ``(N, 300, 4)`` in input pixels,
        clipped to the input, scores and labels ``(N, 300)``, padded with -1.
        """
        keras = _keras.prepare()
        from keras_retinanet import layers

        parts = [
            _decoding_layer()(asdict(head), name=f"decoding_{number}")([network.input, raw])
            for number, (head, raw) in enumerate(zip(self.description.heads, network.outputs, strict=True))
        ]
        if len(parts) > 1:
            boxes, scores = (
                keras.layers.Concatenate(1, name=name)(list(of_heads))
                for name, of_heads in zip(("boxes", "scores"), zip(*parts, strict=True), strict=True)
            )
        else:
            boxes, scores = parts[0]
        clipped = layers.ClipBoxes(name="clipped_boxes")([network.input, boxes])
        found = layers.FilterDetections(
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=MAX_DETECTIONS,
            name="filtered_detections",
        )([clipped, scores])
        return keras.Model(network.inputs, found, name="yolov4-tiny-bbox")

    def targets(self, boxes, labels, sizes_wh, canvas_wh) -> dict:
        """Return nothing: boxes are assigned where the losses are computed, and know no canvas before."""
        return {}

    def reached(self, boxes_xyxy: np.ndarray, of_image: np.ndarray, sizes_wh: np.ndarray) -> np.ndarray:
        """See `Detector.reached`: every box has an anchor, but of several in one place only one can be found."""
        _keras.prepare()
        side = self.settings.image_size
        found = np.zeros(len(boxes_xyxy), bool)
        for head in self.description.heads:
            cells = side // head.stride
            labels = np.zeros((1, len(boxes_xyxy)), np.int32)
            matches = match(boxes_xyxy[None], labels, head, np.int32([cells, cells]), np.float32([side, side]))
            hit = matches.hit[0].numpy()
            places = matches.places[0].numpy() + (of_image * cells * cells * len(head.mask))[:, None]
            first = np.unique(places[hit], return_index=True)[1]
            found[np.nonzero(hit)[0][first]] = True
        return found

    def counts(self, batch: dict) -> dict:
        """Return the number of images in the graph, by which Darknet divides all losses."""
        import tensorflow

        images = tensorflow.cast(tensorflow.shape(batch["images"])[0], tensorflow.float32)
        return dict.fromkeys(LOSSES, images)

    def losses(self, outputs, batch: dict) -> dict:
        """Return the losses of all heads on a batch in the graph, summed; see `retinamask.detectors.darknet.loss`."""
        import tensorflow

        canvas_wh = tensorflow.cast(tensorflow.shape(batch["images"])[2:0:-1], tensorflow.float32)
        raws = outputs if isinstance(outputs, (list, tuple)) else [outputs]  # Keras gives the map of one head bare
        lost = [
            head_losses(tensorflow.cast(raw, tensorflow.float32), head, batch["boxes"], batch["labels"], canvas_wh)
            for raw, head in zip(raws, self.description.heads, strict=True)
        ]
        return {name: tensorflow.add_n([each[name] for each in lost]) for name in LOSSES}

    def rest_backbone(self, network, resting: bool) -> None:
        """Freeze what lies before the heads, its normalisation too, or let it learn again."""
        for layer in network.layers:
            if layer.name in self._backbone:
                layer.trainable = not resting

    def published_weights(self, name: str) -> Path:
        """AlexeyAB's weights, trained on COCO: with two heads the whole network's, else of its first 29 layers.

        Heads of other than 80 classes start anew. For COCO's own 80 take AlexeyAB's ``yolov4-tiny.cfg`` as ``cfg``:
        there the finer head has anchors 1, 2 and 3, not 0, 1 and 2 as in ``yolov4-tiny-custom.cfg``.
        """
        if name != "coco":
            raise WeightsError(f"no {name} weights are published for {self.name}; take coco, a file, or none")
        file = WHOLE if len(self.description.heads) == 2 else FIRST_LAYERS
        return downloaded_from(RELEASE + file, f"COCO weights for {self.name}")

    def load_file(self, network, path: Path) -> Loaded:
        """Start from an ``.h5`` by the names of layers, or else from Darknet's weights, whole or partial."""
        if path.suffix in (".h5", ".hdf5"):
            return super().load_file(network, path)
        return weights.load(network, self.description, path)

    @cached_property
    def _backbone(self) -> set[str]:
        """Return the layers with weights that every head depends on, without those before a ``[yolo]``."""
        last = self.description.last_convolutions
        shared = set.intersection(*(self._below(layer.index) for layer in last)) - {layer.index for layer in last}
        return {f"{kind}_{index:02d}" for kind in ("conv", "norm") for index in shared}

    def _below(self, index: int) -> set[int]:
        """Return a layer of the cfg and all that it is computed from."""
        found, waiting = set(), [index]
        while waiting:
            index = waiting.pop()
            if index >= 0 and index not in found:
                found.add(index)
                waiting += self.description.layers[index].sources
        return found


@cache
def _decoding_layer() -> type:
    """Return a layer from image and raw map to boxes and scores; made late because it needs Keras."""
    keras = _keras.prepare()
    import tensorflow

    class Decoding(keras.layers.Layer):
        """Boxes ``(B, P, 4)`` in pixels, not clipped, and scores ``(B, P, C)`` of a head given as a dict."""

        def __init__(self, head: dict, **keywords):
            super().__init__(**keywords)
            arrays = {name: np.array(head[name], float) for name in ("anchors_wh", "all_anchors_wh")}
            self.head = cfg.Head(**{**head, **arrays})

        def call(self, inputs):
            image, raw = inputs
            boxes, objectness, probabilities = decode(raw, self.head, tensorflow.shape(image)[2:0:-1])
            return boxes, objectness[..., None] * probabilities

        def get_config(self):
            values = asdict(self.head).items()
            head = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values}
            return {**super().get_config(), "head": head}

    return Decoding
