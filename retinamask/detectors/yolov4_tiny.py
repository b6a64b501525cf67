"""YOLOv4-tiny: Darknet's network, label assignment, losses and boxes; a Darknet ``.cfg`` describes its layers.

Bochkovskiy et al., *YOLOv4*, https://arxiv.org/abs/2004.10934, and AlexeyAB's https://github.com/AlexeyAB/darknet,
which published the network. The parts are in `retinamask.detectors.darknet`; this file puts them together.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from retinamask.detectors import _keras
from retinamask.detectors.darknet import cfg, weights
from retinamask.detectors.darknet.network import LOSSES, MAX_EXPONENT, build, decode, head_losses, match
from retinamask.detectors.darknet.template import suggest_anchors, yolov4_tiny_cfg
from retinamask.detectors.detector import Detector
from retinamask.detectors.retinanet import MOMENTUM
from retinamask.detectors.starting_weights import Loaded, downloaded_from
from retinamask.setting import check_settings, setting

RELEASE = "https://github.com/AlexeyAB/darknet/releases/download/darknet_yolo_v4_pre/"
WHOLE, FIRST_LAYERS = "yolov4-tiny.weights", "yolov4-tiny.conv.29"
PUBLISHED_SIZE = 416
MAX_DETECTIONS = 300


def read_cfg(path: str | Path) -> str:
    """Read the text of a Darknet cfg and print which of its options are not read: the training has its own.

    Raises:
        CfgError: no such file, or a cfg that cannot be used.
    """
    text = cfg.read(path)
    if ignored := cfg.describe(text, str(path)).ignored:
        print(f"not read in {path}: {', '.join(ignored)}; the settings of training take their place")
    return text


@dataclass(frozen=True)
class YOLOv4TinySettings:
    """All that is needed, with the classes, to build the same network again.

    ``anchors`` are pairs of width and height in pixels of the input, 3 for each head; none for the published ones.
    """

    image_size: int = setting(
        0, "images are fitted into a square of this side, a multiple of 32 pixels; 0: the cfg's, or 416", 0, 4096
    )
    levels: int = setting(2, "heads: 2 (strides 32 and 16), or 3 (8 too) to see small faces", 2, 3)
    anchors: tuple[tuple[float, float], ...] = setting((), "width and height of the anchors in pixels of the input")
    cfg: str = setting("", "a Darknet cfg of one's own, which then says heads and anchors", read=read_cfg)
    momentum: float = setting(0.9, **MOMENTUM)

    def __post_init__(self):
        check_settings(self)
        for name in ("anchors", "levels"):
            if self.cfg and getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"cfg and {name} are both given, and the cfg has its own {name}; take one of them out")
        if not self.image_size:
            size = cfg.describe(self.cfg).image_size if self.cfg else PUBLISHED_SIZE
            object.__setattr__(self, "image_size", size)


class YOLOv4Tiny(Detector):
    """Darknet's YOLOv4-tiny, or another network of its layers that a cfg describes."""

    name = "yolov4_tiny"
    Settings = YOLOv4TinySettings
    preprocessing = "unit_rgb"
    any_canvas = True
    published = ("coco",)
    weight_files = "an .h5 file, or Darknet's .weights or .conv.29"
    unreached = "share cell and anchor with another box, and only one can be found there: take a larger image_size"

    def __init__(self, classes: dict[str, int], settings: YOLOv4TinySettings):
        super().__init__(classes, settings)
        text = settings.cfg or yolov4_tiny_cfg(
            len(classes), settings.image_size, settings.levels, settings.anchors or None
        )
        self.description = cfg.describe(text, "cfg", len(classes), settings.image_size)

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
        found = suggest_anchors(sizes_wh, len(self.anchors_wh), seed)
        return YOLOv4Tiny(self.classes, replace(self.settings, anchors=tuple(map(tuple, found.tolist()))))

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
        boxes, scores = parts[0]
        if len(parts) > 1:
            boxes = keras.layers.Concatenate(1, name="boxes")([boxes for boxes, _ in parts])
            scores = keras.layers.Concatenate(1, name="scores")([scores for _, scores in parts])
        clipped = layers.ClipBoxes(name="clipped_boxes")([network.input, boxes])
        found = layers.FilterDetections(
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_detections=MAX_DETECTIONS,
            name="filtered_detections",
        )([clipped, scores])
        return keras.Model(network.inputs, found, name="yolov4-tiny-bbox")

    def scores(self, outputs: list[np.ndarray]) -> np.ndarray:
        """Give objectness times the probability of each class, ``(N, A, C)``, by head, row, column and anchor."""
        maps = [
            raw.reshape(len(raw), -1, 5 + head.class_count)
            for raw, head in zip(outputs, self.description.heads, strict=True)
        ]
        logits = np.concatenate(maps, axis=1)[..., 4:]
        shares = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))  # beyond it float32 overflows and nothing changes
        return shares[..., :1] * shares[..., 1:]

    def boxes(
        self, outputs: list[np.ndarray], image: int, places: np.ndarray, canvas_wh: tuple[int, int]
    ) -> np.ndarray:
        """See `RetinaNet.boxes`; as `retinamask.detectors.darknet.network.decode` does in the graph."""
        found, first = [], 0
        for raw, head in zip(outputs, self.description.heads, strict=True):
            rows, columns = raw.shape[1:3]
            raw = raw[image].reshape(-1, 5 + head.class_count)
            own = places[(places >= first) & (places < first + len(raw))] - first
            first += len(raw)
            cells, anchor = np.divmod(own, len(head.mask))
            within_xy = 1 / (1 + np.exp(-np.clip(raw[own, :2], -80, 80))) * head.scale_x_y - (head.scale_x_y - 1) / 2
            cells_xy = np.stack([cells % columns, cells // columns], axis=1)
            centres = (cells_xy + within_xy) / (columns, rows) * canvas_wh
            halves_wh = np.exp(np.minimum(raw[own, 2:4], MAX_EXPONENT)) * head.anchors_wh[anchor] / 2
            found.append(np.concatenate([centres - halves_wh, centres + halves_wh], axis=1))
        clipped = np.clip(np.concatenate(found), 0, np.tile(canvas_wh, 2) - 1)  # places ascend, and so do heads
        return clipped.astype(np.float32)

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
        """Count the images in the graph, by which Darknet divides all losses."""
        import tensorflow as tf

        images = tf.cast(tf.shape(batch["images"])[0], tf.float32)
        return dict.fromkeys(LOSSES, images)

    def losses(self, outputs, batch: dict) -> dict:
        """Sum the losses of all heads in the graph; see `retinamask.detectors.darknet.network`."""
        import tensorflow as tf

        canvas_wh = tf.cast(tf.shape(batch["images"])[2:0:-1], tf.float32)
        raws = outputs if isinstance(outputs, (list, tuple)) else [outputs]  # Keras gives the map of one head bare
        lost = [
            head_losses(tf.cast(raw, tf.float32), head, batch["boxes"], batch["labels"], canvas_wh)
            for raw, head in zip(raws, self.description.heads, strict=True)
        ]
        return {name: tf.add_n([each[name] for each in lost]) for name in LOSSES}

    def freeze_backbone(self, network, frozen: bool) -> None:
        """Freeze the layers before the heads, their normalisation too, or unfreeze them."""
        for layer in network.layers:
            if layer.name in self._backbone:
                layer.trainable = not frozen

    def published_weights(self, name: str) -> Path:
        """Give AlexeyAB's weights, trained on COCO: with two heads the whole network's, else of its first 29 layers.

        Heads of other than 80 classes start anew. For COCO's own 80 take AlexeyAB's ``yolov4-tiny.cfg`` as ``cfg``:
        there the finer head has anchors 1, 2 and 3, not 0, 1 and 2 as in ``yolov4-tiny-custom.cfg``.
        """
        if name != "coco":
            return super().published_weights(name)
        file = WHOLE if len(self.description.heads) == 2 else FIRST_LAYERS
        return downloaded_from(RELEASE + file, f"COCO weights for {self.name}")

    def load_file(self, network, path: Path) -> Loaded:
        """Start from an ``.h5`` by the names of layers, or else from Darknet's weights, whole or partial."""
        if path.suffix in (".h5", ".hdf5"):
            return super().load_file(network, path)
        return weights.load(network, self.description, path)

    @cached_property
    def _backbone(self) -> set[str]:
        """The layers with weights that every head depends on, without those before a ``[yolo]``."""
        layers, last = self.description.layers, self.description.last_convolutions
        sources_of: dict[int, set[int]] = {-1: set()}
        for layer in layers:  # each comes after those that it reads
            sources_of[layer.index] = set.union(*(sources_of[source] | {source} for source in layer.sources))
        shared = set.intersection(*(sources_of[layer.index] for layer in last)) - {layer.index for layer in last}
        return {f"{kind}_{index:02d}" for kind in ("conv", "norm") for index in shared}


@cache
def _decoding_layer() -> type:
    """The class of a layer from image and raw map to boxes and scores."""
    keras = _keras.prepare()
    import tensorflow as tf

    class Decoding(keras.layers.Layer):
        """Boxes ``(B, P, 4)`` in pixels, not clipped, and scores ``(B, P, C)`` of a head given as a dict."""

        def __init__(self, head: dict, **keywords):
            super().__init__(**keywords)
            arrays = {name: np.array(head[name], float) for name in ("anchors_wh", "all_anchors_wh")}
            self.head = cfg.Head(**{**head, **arrays})

        def call(self, inputs):
            image, raw = inputs
            boxes, objectness, probabilities = decode(raw, self.head, tf.shape(image)[2:0:-1])
            return boxes, objectness[..., None] * probabilities

        def get_config(self):
            values = asdict(self.head).items()
            head = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values}
            return {**super().get_config(), "head": head}

    return Decoding
