"""Face detectors by name with one interface: an image in, boxes of faces with scores out.

Each is called with ``uint8`` RGB of shape ``(height, width, 3)`` and gives ``boxes_xyxy`` ``(N, 4)`` in its pixels,
clipped to it, and ``scores`` ``(N,)`` of 0 to 1, most confident first. ``haar`` needs no file, ``res10`` and ``yunet``
take theirs from where ``retinamask fetch`` puts them unless they are given.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retinamask.dataset import images
from retinamask.dataset.public import models
from retinamask.detectors import snapshots
from retinamask.detectors.darknet import cfg, sections, weights
from retinamask.inference.detect import Predictor
from retinamask.inference.face_finding import FaceDetector, Found, corners, loading
from retinamask.inference.face_model_files import FaceModelError, by_suffix, check_published

Files = Sequence[str | Path]

_HAAR_WEIGHT = 3.0
_HAAR_NEIGHBOURS = 4  # how many windows have to agree on a face
_HAAR_SIDE = 800  # larger images are shrunk to this many pixels


class Haar(FaceDetector):
    """OpenCV's cascade of Haar features for frontal faces, which its wheel brings along; by P. Viola and M. Jones.

    It gives no probability. The score is 1 - exp(-w / 3) of the weight w with which the last stage accepted a window:
    0.3 at 1, 0.86 at 6, which is about what faces have, 0.97 at 11.
    """

    name = "haar"

    def __init__(self, files: Files = (), **options: Any):
        """Load the cascade.

        Args:
            files: another cascade's ``.xml``.
            options: as `retinamask.inference.face_finding.FaceDetector`'s.
        """
        super().__init__(**options)
        path = Path(cv2.data.haarcascades, "haarcascade_frontalface_default.xml")
        if files:
            path = by_suffix(files, [".xml"])[".xml"]
        with loading(path):
            self.cascade = cv2.CascadeClassifier(str(path))
        if self.cascade.empty():
            raise FaceModelError(f"{path}: no cascade that OpenCV can read; expected an .xml of cv2.data.haarcascades")

    def look(self, image_rgb: np.ndarray) -> Found:
        scale = min(1.0, _HAAR_SIDE / max(image_rgb.shape[:2]))
        grey = cv2.cvtColor(images.resize(image_rgb, scale), cv2.COLOR_RGB2GRAY)
        windows, _, weights = self.cascade.detectMultiScale3(
            grey, scaleFactor=1.1, minNeighbors=_HAAR_NEIGHBOURS, outputRejectLevels=True
        )
        boxes_xywh = np.asarray(windows, float).reshape(-1, 4) / scale
        return corners(boxes_xywh), 1 - np.exp(-np.clip(np.asarray(weights, float), 0, None) / _HAAR_WEIGHT)


class Res10(FaceDetector):
    """OpenCV's ResNet-10 SSD of 300 x 300 pixels, a Caffe model; images are stretched to its square."""

    name = "res10"
    network_side = 300
    least_in_network = 20.0

    def __init__(self, files: Files = (), tiling: str = "auto", **options: Any):
        """Load ``.prototxt`` and ``.caffemodel``.

        Args:
            files: both, in any order; where ``retinamask fetch res10`` puts them if left out.
            tiling, options: as `retinamask.inference.face_finding.FaceDetector`'s.
        """
        super().__init__(tiling=tiling, **options)
        paths = by_suffix(files or models.kept_files("res10"), [".prototxt", ".caffemodel"])
        prototxt, caffemodel = paths[".prototxt"], paths[".caffemodel"]
        check_published(caffemodel, "res10")
        with loading(prototxt, caffemodel):
            self.network = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
            self.look(np.zeros((300, 300, 3), np.uint8))

    def look(self, image_rgb: np.ndarray) -> Found:
        height, width = image_rgb.shape[:2]
        bgr = np.ascontiguousarray(image_rgb[..., ::-1])  # as it was trained: BGR less these means
        self.network.setInput(cv2.dnn.blobFromImage(bgr, 1.0, (300, 300), (104.0, 177.0, 123.0)))
        rows = self.network.forward().reshape(-1, 7)  # image, class, score and corners as shares of the image
        return rows[:, 3:] * [width, height, width, height], rows[:, 2]


class YuNet(FaceDetector):
    """OpenCV's ``FaceDetectorYN``; it finds faces of 10 to 300 pixels, so larger images are shrunk."""

    name = "yunet"
    network_side = 640
    least_in_network = 10.0

    def __init__(self, files: Files = (), **options: Any):
        """Load the ``.onnx``.

        Args:
            files: it alone; where ``retinamask fetch yunet`` puts it if left out.
            options: as `retinamask.inference.face_finding.FaceDetector`'s.
        """
        super().__init__(**options)
        path = by_suffix(files or models.kept_files("yunet"), [".onnx"])[".onnx"]
        check_published(path, "yunet")
        with loading(path):
            self.network = cv2.FaceDetectorYN.create(
                str(path), "", (64, 64), self.score_threshold, self.nms_threshold, 5000
            )
            self.look(np.zeros((64, 64, 3), np.uint8))

    def look(self, image_rgb: np.ndarray) -> Found:
        scale = min(1.0, self.network_side / max(image_rgb.shape[:2]))
        bgr = np.ascontiguousarray(images.resize(image_rgb, scale)[..., ::-1])
        self.network.setInputSize(bgr.shape[1::-1])
        _, faces = self.network.detect(bgr)
        faces = np.empty((0, 15)) if faces is None else faces  # x, y, width, height, five landmarks, score
        return corners(faces[:, :4] / scale), faces[:, 14]


class Darknet(FaceDetector):
    """Any Darknet detector that OpenCV reads, such as YOLOv4; images are stretched to its input, as Darknet does.

    OpenCV makes scores below 0.2 zero.
    """

    name = "yolov4"
    least_in_network = 10.0

    def __init__(self, files: Files = (), classes: Sequence[str] = (), **options: Any):
        """Load ``.cfg`` and ``.weights``.

        Args:
            files: both, and a ``.names`` with a class a line, in any order.
            classes: names of those that count as faces; all if left out.
            options: as `retinamask.inference.face_finding.FaceDetector`'s.
        """
        paths = by_suffix(files, [".cfg", ".weights"], [".names"])
        cfg_path, weights_path = paths[".cfg"], paths[".weights"]
        parsed = sections.parse(cfg.read(cfg_path), str(cfg_path))
        heads = [section for section in parsed if section.name == "yolo"]
        if not heads or parsed[0].name not in ("net", "network"):
            raise FaceModelError(f"{cfg_path}: expected [net] first and a [yolo] section, as the cfg of a detector has")
        self.size_wh = parsed[0].integer("width", low=32), parsed[0].integer("height", low=32)
        self.network_side = max(self.size_wh)
        super().__init__(**options)
        count = heads[0].integer("classes", 20, low=1)
        self.columns = [5 + label for label in _labels(paths.get(".names"), count, classes)]
        with loading(*paths.values()):
            self.network = cv2.dnn.readNetFromDarknet(str(cfg_path), str(weights_path))
            _check_count(self.network, cfg_path, weights_path)
            self.outputs = self.network.getUnconnectedOutLayersNames()
            self.look(np.zeros((*self.size_wh[::-1], 3), np.uint8))

    def look(self, image_rgb: np.ndarray) -> Found:
        height, width = image_rgb.shape[:2]
        self.network.setInput(cv2.dnn.blobFromImage(image_rgb, 1 / 255, self.size_wh))  # Darknet takes RGB
        rows = np.concatenate(self.network.forward(self.outputs))  # centre, size, objectness and scores of classes
        boxes_xywh = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]], axis=1)
        scores = rows[:, self.columns].max(axis=1)
        strong = scores >= self.score_threshold  # thousands are not, and suppression compares each with each
        return corners(boxes_xywh[strong] * [width, height, width, height]), scores[strong]


class DarknetTiny(Darknet):
    """`Darknet` under the name of the smaller network."""

    name = "yolov4_tiny"


class OwnSnapshot(FaceDetector):
    """Any of this project's detectors; all of its classes are faces."""

    name = "snapshot"

    def __init__(self, files: Files = (), **options: Any):
        """Load the snapshot.

        Args:
            files: its ``.h5`` or ``.json``.
            options: as `retinamask.inference.face_finding.FaceDetector`'s.
        """
        super().__init__(**options)
        if len(files) != 1:
            raise FaceModelError(f"{len(files)} files, expected one: the .h5 or .json of a snapshot")
        snapshot = snapshots.read(files[0])
        if snapshot.classifies:
            raise FaceModelError(f"{snapshot.weights} is a classifier and finds no boxes; expected that of a detector")
        self.predictor = Predictor.load(snapshot)

    def look(self, image_rgb: np.ndarray) -> Found:
        (found,) = self.predictor([image_rgb], self.score_threshold)
        return found.boxes_xyxy, found.scores


FACE_DETECTORS: dict[str, type[FaceDetector]] = {
    detector.name: detector for detector in (Haar, Res10, YuNet, Darknet, DarknetTiny, OwnSnapshot)
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


def _check_count(network: cv2.dnn.Net, cfg_path: Path, weights_path: Path) -> None:
    """Refuse weights that are not as many as the cfg asks for: OpenCV takes a file that is cut short as it is."""
    layers = [network.getLayer(name) for name in network.getLayerNames()]
    learnt = [layer for layer in layers if layer.type in ("Convolution", "BatchNorm")]
    expected = sum(blob.size for layer in learnt for blob in layer.blobs)
    found = len(weights.read(weights_path).numbers)
    if found != expected:
        raise FaceModelError(
            f"{weights_path} holds {found:,} numbers, {cfg_path} asks for {expected:,}; it is cut short or belongs to "
            "another cfg"
        )


def _labels(names_path: Path | None, count: int, classes: Sequence[str]) -> list[int]:
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
