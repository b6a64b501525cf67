"""YOLOv4-tiny: Darknet's network, label assignment, losses and boxes; a Darknet ``.cfg`` says what it is made of.

Bochkovskiy et al., *YOLOv4*, https://arxiv.org/abs/2004.10934, and AlexeyAB's https://github.com/AlexeyAB/darknet,
which published the network and what it is trained with. The parts are in `retinamask.detectors.darknet`; this file says
how they are put together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from retinamask.detectors import _keras
from retinamask.detectors.darknet import cfg, weights
from retinamask.detectors.darknet.cfg import Network
from retinamask.detectors.darknet.decoding import decode
from retinamask.detectors.darknet.loss import LOSSES, head_losses
from retinamask.detectors.darknet.network import build
from retinamask.detectors.darknet.template import ANCHORS_PER_HEAD, YOLOV4_TINY_ANCHORS, yolov4_tiny_cfg
from retinamask.detectors.detector import Detector
from retinamask.detectors.starting import Loaded, WeightsError, downloaded_from

RELEASE = "https://github.com/AlexeyAB/darknet/releases/download/yolov4/"
MAX_DETECTIONS = 300


@dataclass(frozen=True)
class YOLOv4TinySettings:
    """All that is needed, with the classes, to build the same network again.

    An image is fitted into a square of ``image_size`` pixels, which 32 divides; 0 stands for what ``cfg`` says.
    ``levels`` is the number of heads: 2 (strides 32 and 16) or 3 (8, too: small faces). ``anchors`` are pairs of
    width and height in pixels of the input, 3 for each head; none stands for the published ones. ``cfg`` is the
    text of an own Darknet cfg, which then says heads and anchors; without one the network is the published one.
    ``momentum`` is the share of the old moving average that each step of training keeps.
    """

    image_size: int = 416
    levels: int = 2
    anchors: tuple[tuple[float, float], ...] = ()
    cfg: str = ""
    momentum: float = 0.9

    def __post_init__(self):
        if not 0 < self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}, expected a number between 0 and 1")
        if self.cfg and self.anchors:
            raise ValueError("cfg and anchors are both given; write the anchors into the cfg, or give no cfg")
        if self.levels not in YOLOV4_TINY_ANCHORS:
            raise ValueError(f"levels is {self.levels}, expected 2 (yolov4-tiny) or 3 (yolov4-tiny-3l)")
        if self.anchors and len(self.anchors) != ANCHORS_PER_HEAD * self.levels:
            raise ValueError(
                f"{len(self.anchors)} anchors are given, expected {ANCHORS_PER_HEAD} for each of {self.levels} levels"
            )


class YOLOv4Tiny(Detector):
    """One YOLOv4-tiny: its settings and classes; networks are built on request."""

    name = "yolov4_tiny"
    Settings = YOLOv4TinySettings
    any_canvas = True

    def __init__(self, classes: dict[str, int], settings: YOLOv4TinySettings):
        super().__init__(classes, settings)
        chosen = self.settings
        text = chosen.cfg or yolov4_tiny_cfg(len(classes), chosen.image_size, chosen.levels, chosen.anchors or None)
        self.description: Network = cfg.describe(text, "cfg", len(classes), chosen.image_size)

    @property
    def preprocessing(self) -> str:
        """Pixels are RGB from 0 to 1."""
        return "unit_rgb"

    def network(self, seed: int | None = None):
        """The training network: image in, one raw map a head out; the same random weights for the same ``seed``."""
        return build(self.description, self.settings.momentum, seed)

    def inference_network(self, network, score_threshold: float = 0.05, nms_threshold: float = 0.5):
        """``network`` with decoding and NMS behind it, sharing its weights.

        A score is objectness times the probability of the class. Outputs boxes ``(N, 300, 4)`` in input pixels,
        clipped to the input, scores and labels ``(N, 300)``, padded with -1.
        """
        keras = _keras.prepare()
        from keras_retinanet import layers

        names = [f"detections_{number}" for number in range(len(self.description.heads))]
        parts = [
            _decoding()(head, name=name)([network.input, raw])
            for name, head, raw in zip(names, self.description.heads, network.outputs, strict=True)
        ]
        boxes, scores = (keras.layers.Concatenate(1, name=name)(list(each)) for name, each in
                         zip(("all_boxes", "all_scores"), zip(*parts, strict=True), strict=True))  # fmt: skip
        clipped = layers.ClipBoxes(name="clipped_boxes")([network.input, boxes])
        found = layers.FilterDetections(
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=MAX_DETECTIONS,
            name="filtered_detections",
        )([clipped, scores])
        return keras.Model(network.inputs, found, name="yolov4-tiny-bbox")

    def targets(self, boxes, labels, sizes_wh, canvas_wh) -> dict:
        """In the graph: nothing; boxes are assigned where the losses are computed, and know no canvas before."""
        return {}

    def counts(self, batch: dict) -> dict:
        """In the graph: the images, by which Darknet divides all losses."""
        import tensorflow

        images = tensorflow.cast(tensorflow.shape(batch["images"])[0], tensorflow.float32)
        return dict.fromkeys(LOSSES, images)

    def losses(self, outputs, batch: dict) -> dict:
        """In the graph: what all heads lose on a batch, see `retinamask.detectors.darknet.loss`; summed."""
        import tensorflow

        canvas_wh = tensorflow.cast(tensorflow.shape(batch["images"])[2:0:-1], tensorflow.float32)
        lost = [
            head_losses(tensorflow.cast(raw, tensorflow.float32), head, batch["boxes"], batch["labels"], canvas_wh)
            for raw, head in zip(outputs, self.description.heads, strict=True)
        ]
        return {name: tensorflow.add_n([each[name] for each in lost]) for name in LOSSES}

    def rest_backbone(self, network, resting: bool) -> None:
        """Keep what lies before the heads as it is, its normalisation too, or let it learn again."""
        for layer in network.layers:
            if layer.name in self._backbone:
                layer.trainable = not resting

    def published_weights(self, name: str) -> Path:
        """AlexeyAB's weights: ``coco`` is the whole network, ``imagenet`` its first 29 layers; Darknet's files both."""
        if self.settings.levels != 2 and name == "coco" and not self.settings.cfg:
            raise WeightsError("COCO weights are published for levels 2 only; take imagenet, a file, or none")
        file = {"coco": "yolov4-tiny.weights", "imagenet": "yolov4-tiny.conv.29"}[name]
        return downloaded_from(RELEASE + file, f"{name} weights")

    def load_file(self, network, path: Path) -> Loaded:
        """Start from an ``.h5`` by the names of layers, or else from Darknet's weights, whole or partial."""
        if path.suffix in (".h5", ".hdf5"):
            return super().load_file(network, path)
        return weights.load(network, self.description, path)
