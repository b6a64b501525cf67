"""Face detectors by name with one interface: an image in, boxes of faces with scores out.

Each is called with ``uint8`` RGB of shape ``(height, width, 3)`` and gives ``boxes_xyxy`` ``(N, 4)`` in its pixels,
clipped to it, and ``scores`` ``(N,)`` of 0 to 1, most confident first. ``haar`` needs no file, ``res10`` and ``yunet``
take theirs from where ``retinamask fetch`` puts them unless they are given.
"""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retinamask.dataset import boxes, images
from retinamask.dataset import files as disk
from retinamask.dataset.public.catalogue import FACE_MODELS
from retinamask.dataset.public.fetch import kept_files
from retinamask.detectors.darknet import cfg, weights
from retinamask.detectors.snapshots import shipped
from retinamask.inference import tiles
from retinamask.inference.detect import Predictor
from retinamask.inference.suppression import non_maximum

Files = Sequence[str | Path]
Found = tuple[np.ndarray, np.ndarray]
"""Boxes ``(N, 4)`` in pixels of the image and scores ``(N,)`` of 0 to 1, most confident first."""

_SURE = 0.5  # the score from which a face counts for the rule of tiling, and of YuNet's second look


class FaceModelError(ValueError):
    """A model file that cannot be used."""


class FaceDetector:
    """Find faces in images; a subclass has ``look``, which may get a tile of a larger image.

    Args:
        score_threshold: weaker boxes are dropped, 0 to 1.
        nms_threshold: of two boxes that overlap more than this (IoU) the weaker goes, 0 to 1.
        tiling: ``always``, ``never``, or ``auto``, which asks `tiles.faces_would_vanish`. Images larger than a tile
            are then searched in tiles too, besides the whole.

    Attributes:
        name: as `face_detector` knows it.
        network_side: pixels to which the longer side of a larger image is shrunk; ``None`` if it is not.
        least_in_network: side in pixels of the smallest faces that the network finds in its input.
    """

    name: str
    network_side: int | None = None
    least_in_network = 0.0

    def __init__(self, score_threshold: float = 0.1, nms_threshold: float = 0.4, tiling: str = "never"):
        for name, threshold in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
            if not 0 < threshold < 1:
                raise ValueError(f"{name} of {self.name} is {threshold}, expected more than 0 and less than 1")
        if tiling not in tiles.TILING:
            raise ValueError(f"tiling is {tiling!r}, expected one of: {', '.join(tiles.TILING)}")
        if tiling != "never" and not self.network_side:
            raise ValueError(f"{self.name} searches every pixel; tiling has to be never, found {tiling!r}")
        self.score_threshold, self.nms_threshold, self.tiling = score_threshold, nms_threshold, tiling

    def __call__(self, image_rgb: np.ndarray) -> Found:
        if image_rgb.dtype != np.uint8 or image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or not image_rgb.size:
            raise ValueError(
                f"an image is {image_rgb.dtype} of shape {image_rgb.shape}, expected uint8 of (height, width, 3)"
            )
        found, size_wh = self._checked(image_rgb), image_rgb.shape[1::-1]
        if self.tiling == "never" or max(size_wh) <= self.network_side:
            return found
        look = self.network_side, self.least_in_network
        if self.tiling == "auto" and not tiles.faces_would_vanish(size_wh, found[0][found[1] >= _SURE], *look):
            return found
        side = tiles.tile_side(size_wh, self.network_side)
        in_tiles = tiles.find_in_tiles(lambda tiles_rgb: map(self._checked, tiles_rgb), image_rgb, side)
        return tiles.merge([found, *in_tiles], self.nms_threshold)

    def look(self, image_rgb: np.ndarray) -> Found:
        """Return boxes and scores as the detector gives them; they may be weak, overlap and reach outside."""
        raise NotImplementedError

    def _checked(self, image_rgb: np.ndarray) -> Found:
        """Return what `look` gives, clipped, strong enough and suppressed."""
        boxes_xyxy, scores = self.look(image_rgb)
        boxes_xyxy, scores = boxes.clip(boxes_xyxy, image_rgb.shape[1::-1]), np.asarray(scores, float).reshape(-1)
        keep = (scores >= self.score_threshold) & (boxes.areas(boxes_xyxy) > 0)
        boxes_xyxy, scores = boxes_xyxy[keep], np.clip(scores[keep], 0, 1)
        kept = non_maximum(boxes_xyxy, scores, self.nms_threshold)
        return boxes_xyxy[kept], scores[kept]


class Haar(FaceDetector):
    """OpenCV's cascade of Haar features for frontal faces, which its wheel brings along; by P. Viola and M. Jones.

    It gives no probability. The score is 1 - exp(-w / 3) of the weight w with which the last stage accepted a window:
    0.3 at 1, 0.86 at 6, which is about what faces have, 0.97 at 11. ``files`` may name another cascade's ``.xml``.
    """

    name = "haar"

    def __init__(self, files: Files = (), **options: Any):
        super().__init__(**options)
        path = Path(cv2.data.haarcascades, "haarcascade_frontalface_default.xml")
        if files:
            path = _by_suffix(files, [".xml"])[".xml"]
        with _loading(path):
            self.cascade = cv2.CascadeClassifier(str(path))
        if self.cascade.empty():
            raise FaceModelError(f"{path}: no cascade that OpenCV can read; expected an .xml of cv2.data.haarcascades")

    def look(self, image_rgb: np.ndarray) -> Found:
        scale = min(1.0, 800 / max(image_rgb.shape[:2]))
        grey = cv2.cvtColor(images.resize(image_rgb, scale), cv2.COLOR_RGB2GRAY)
        options = {"scaleFactor": 1.1, "minNeighbors": 4, "outputRejectLevels": True}  # 4 windows agree on a face
        windows, _, weights = self.cascade.detectMultiScale3(grey, **options)
        boxes_xywh = np.asarray(windows, float).reshape(-1, 4) / scale
        return _corners(boxes_xywh), 1 - np.exp(-np.clip(np.asarray(weights, float), 0, None) / 3)


class Res10(FaceDetector):
    """OpenCV's ResNet-10 SSD, ``.prototxt`` and ``.caffemodel``; images are stretched to its 300 x 300 pixels."""

    name = "res10"
    network_side = 300
    least_in_network = 20.0

    def __init__(self, files: Files = (), tiling: str = "auto", **options: Any):
        super().__init__(tiling=tiling, **options)
        paths = _by_suffix(files, [".prototxt", ".caffemodel"], published="res10")
        prototxt, caffemodel = paths[".prototxt"], paths[".caffemodel"]
        with _loading(prototxt, caffemodel):
            self.network = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
            self.look(np.zeros((300, 300, 3), np.uint8))

    def look(self, image_rgb: np.ndarray) -> Found:
        height, width = image_rgb.shape[:2]
        bgr = np.ascontiguousarray(image_rgb[..., ::-1])  # as it was trained: BGR less these means
        self.network.setInput(cv2.dnn.blobFromImage(bgr, 1.0, (300, 300), (104.0, 177.0, 123.0)))
        rows = self.network.forward().reshape(-1, 7)  # image, class, score and corners as shares of the image
        return rows[:, 3:] * [width, height, width, height], rows[:, 2]


class YuNet(FaceDetector):
    """OpenCV's ``FaceDetectorYN``, an ``.onnx``; it finds faces of 10 to 300 pixels, so images are brought to a size.

    Their longer side becomes 640 pixels. If no face is sure there, or one is small, small faces are looked for at
    1280 pixels too; large ones are found worse at that size.
    """

    name = "yunet"
    network_side = 1280
    least_in_network = 10.0
    small = 0.12  # side of a face as a share of the image's longer side

    def __init__(self, files: Files = (), **options: Any):
        super().__init__(**options)
        path = _by_suffix(files, [".onnx"], published="yunet")[".onnx"]
        with _loading(path):
            thresholds = self.score_threshold, self.nms_threshold
            self.network = cv2.FaceDetectorYN.create(str(path), "", (64, 64), *thresholds, 5000)
            self.look(np.zeros((64, 64, 3), np.uint8))

    def look(self, image_rgb: np.ndarray) -> Found:
        boxes_xyxy, scores = self._look(image_rgb, self.network_side // 2)
        small = (self.small * max(image_rgb.shape[:2])) ** 2
        sure = scores >= _SURE
        if sure.any() and boxes.areas(boxes_xyxy[sure]).min() >= small:
            return boxes_xyxy, scores
        more_xyxy, more_scores = self._look(image_rgb, self.network_side)
        kept = boxes.areas(more_xyxy) < small
        return np.concatenate([boxes_xyxy, more_xyxy[kept]]), np.concatenate([scores, more_scores[kept]])

    def _look(self, image_rgb: np.ndarray, side: int) -> Found:
        scale = side / max(image_rgb.shape[:2])
        bgr = np.ascontiguousarray(images.resize(image_rgb, scale)[..., ::-1])
        self.network.setInputSize(bgr.shape[1::-1])
        _, faces = self.network.detect(bgr)
        faces = np.empty((0, 15)) if faces is None else faces  # x, y, width, height, five landmarks, score
        return _corners(faces[:, :4] / scale), faces[:, 14]


class Darknet(FaceDetector):
    """Any Darknet detector that OpenCV reads, such as YOLOv4; images are stretched to its input, as Darknet does.

    OpenCV makes scores below 0.2 zero.

    Args:
        files: ``.cfg`` and ``.weights``, and if need be ``.names`` with a class a line, in any order.
        classes: names of those that count as faces; all if left out.
        options: those of `FaceDetector`.
    """

    name = "yolov4"
    least_in_network = 10.0

    def __init__(self, files: Files = (), classes: Sequence[str] = (), **options: Any):
        paths = _by_suffix(files, [".cfg", ".weights"], ".names")
        cfg_path, weights_path = paths[".cfg"], paths[".weights"]
        parsed = cfg.parse(cfg.read(cfg_path), str(cfg_path))
        heads = [section for section in parsed if section.name == "yolo"]
        if not heads or parsed[0].name not in ("net", "network"):
            raise FaceModelError(f"{cfg_path}: expected [net] first and a [yolo] section, as the cfg of a detector has")
        self.size_wh = parsed[0].integer("width", low=32), parsed[0].integer("height", low=32)
        self.network_side = max(self.size_wh)
        super().__init__(**options)
        count = heads[0].integer("classes", 20, low=1)
        self.columns = [5 + label for label in _face_labels(paths.get(".names"), count, classes)]
        with _loading(*paths.values()):
            self.network = cv2.dnn.readNetFromDarknet(str(cfg_path), str(weights_path))
            # OpenCV takes weights that are cut short as they are.
            layers = [self.network.getLayer(name) for name in self.network.getLayerNames()]
            learnt = [layer for layer in layers if layer.type in ("Convolution", "BatchNorm")]
            asked = sum(blob.size for layer in learnt for blob in layer.blobs)
            found = len(weights.read(weights_path).numbers)
            if found != asked:
                raise FaceModelError(
                    f"{weights_path} holds {found:,} numbers, {cfg_path} asks for {asked:,}; it is cut short or "
                    "belongs to another cfg"
                )
            self.outputs = self.network.getUnconnectedOutLayersNames()
            self.look(np.zeros((*self.size_wh[::-1], 3), np.uint8))

    def look(self, image_rgb: np.ndarray) -> Found:
        height, width = image_rgb.shape[:2]
        self.network.setInput(cv2.dnn.blobFromImage(image_rgb, 1 / 255, self.size_wh))  # Darknet takes RGB
        rows = np.concatenate(self.network.forward(self.outputs))  # centre, size, objectness and scores of classes
        boxes_xywh = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]], axis=1)
        scores = rows[:, self.columns].max(axis=1)
        strong = scores >= self.score_threshold  # thousands are not, and suppression compares each with each
        return _corners(boxes_xywh[strong] * [width, height, width, height]), scores[strong]


class OwnSnapshot(FaceDetector):
    """Any of this project's detectors, the one that comes with it if none is named; all of its classes are faces."""

    name = "snapshot"

    def __init__(self, files: Files = (), **options: Any):
        super().__init__(**options)
        if len(files) > 1:
            raise FaceModelError(f"{len(files)} files, expected one: the .h5 or .json of a snapshot, or an export")
        self.predictor = Predictor.load(files[0] if files else shipped("mask_detector"))

    def look(self, image_rgb: np.ndarray) -> Found:
        (found,) = self.predictor([image_rgb], self.score_threshold)
        return found.boxes_xyxy, found.scores


FACE_DETECTORS: dict[str, type[FaceDetector]] = {
    **{detector.name: detector for detector in (Haar, Res10, YuNet)},
    **{"yolov4": Darknet, "yolov4_tiny": Darknet, "snapshot": OwnSnapshot},
}


def face_detector(name: str, files: Files = (), **options: Any) -> FaceDetector:
    """Load a face detector by its name and try it.

    Args:
        name: one of `FACE_DETECTORS`.
        files: its model files, distinguished by their endings.
        options: those of `FaceDetector` and of the detector's own class.

    Raises:
        ValueError: no such name or option, or a file is missing, damaged or of another kind.
    """
    if name not in FACE_DETECTORS:
        raise ValueError(f"no face detector is called {name!r}; there are: {', '.join(FACE_DETECTORS)}")
    kind = FACE_DETECTORS[name]
    known = {*inspect.signature(FaceDetector).parameters, *inspect.signature(kind).parameters} - {"files", "options"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return kind(files, **options)


def _face_labels(names_path: Path | None, count: int, classes: Sequence[str]) -> list[int]:
    """Return which of ``count`` classes count as faces."""
    if names_path is None:
        if classes:
            raise FaceModelError(f"which classes are {', '.join(classes)}? Give the .names file of the weights too")
        return list(range(count))
    try:
        names = [line.strip() for line in names_path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise FaceModelError(f"{names_path} is no UTF-8 text; expected a class a line, save it as UTF-8") from None
    if len(names) != count:
        raise FaceModelError(f"{names_path}: {len(names)} names, expected {count} as the cfg has classes")
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise FaceModelError(f"{names_path} has no class {', '.join(unknown)}; it has {', '.join(names[:20])}")
    return [names.index(name) for name in classes or names]


def _corners(boxes_xywh: np.ndarray) -> np.ndarray:
    """Convert left, top, width and height to ``xyxy``."""
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:4]], axis=1)


@contextlib.contextmanager
def _loading(*paths: Path) -> Iterator[None]:
    """Turn OpenCV's error on files that it cannot load into one that names them."""
    try:
        yield
    except FaceModelError:
        raise
    except (cv2.error, SystemError, ValueError) as error:  # SystemError: how its cascades fail
        found = f"OpenCV {cv2.__version__} cannot use it ({' '.join(str(error).split())[:200]})"
        what = "it is cut short, damaged or of another kind, fetch it again"
        raise FaceModelError(f"{' with '.join(map(str, paths))}: {found}; {what}") from None


def _by_suffix(given: Files, expected: Sequence[str], optional: str = "", published: str = "") -> dict[str, Path]:
    """Sort model files by their endings, of which those expected must be there, once each.

    Damaged copies of published weights are refused: as long as they, or called like them, but with other bytes.
    """
    given = given or (kept_files(published) if published else ())
    wanted = f"expected {' and '.join(expected)}{optional and f', and {optional} if you like'}"
    found: dict[str, Path] = {}
    for path in map(Path, given):
        if path.suffix not in (*expected, optional) or path.suffix in found:
            raise FaceModelError(f"{path}: no use for this file, {wanted}, one of each")
        if not path.is_file():
            raise FaceModelError(f"{path} does not exist; {wanted}")
        found[path.suffix] = path
    missing = [suffix for suffix in expected if suffix not in found]
    if missing:
        listed = ", ".join(map(str, given)) or "nothing"
        raise FaceModelError(f"no {' and no '.join(missing)} file among {listed}; {wanted}")
    for file in FACE_MODELS[published].files if published else ():
        path = found[expected[-1]]  # the weights
        size = path.stat().st_size
        if (path.name == file.name or size == file.size_bytes) and disk.sha256(path) != file.sha256:
            raise FaceModelError(
                f"{path} has {size:,} bytes and is not the published {file.name} of {file.size_bytes:,} bytes; it is "
                "cut short or damaged, fetch it again"
            )
    return found
