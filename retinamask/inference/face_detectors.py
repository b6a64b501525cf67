"""Face detectors by name behind one interface: an image in, boxes of faces with scores out.

Below `two_stage`. Each is called with ``uint8`` RGB of shape ``(height, width, 3)`` and gives ``boxes_xyxy`` ``(N, 4)``
in its pixels, clipped to it, and ``scores`` ``(N,)`` of 0 to 1, the best first. ``haar`` needs no file, ``res10`` and
``yunet`` take theirs from where ``retinamask fetch`` puts them unless they are given.
"""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retinamask.dataset import boxes, images, public_models
from retinamask.inference import face_model_files, tiles
from retinamask.inference.detect import Predictor
from retinamask.inference.face_model_files import FaceModelError, by_suffix

Found = tuple[np.ndarray, np.ndarray]
Files = Sequence[str | Path]

_SURE = 0.5  # the score from which a face counts for the rule of tiling
_HAAR_WEIGHT = 3.0


class FaceDetector:
    """What all have in common; a subclass has ``look`` at one image, which may be a tile of a larger one.

    Attributes:
        name: as `face_detector` knows it.
        network_side: pixels to which the longer side of an image is shrunk; ``None`` if it is not.
        least_in_network: side in pixels of the smallest faces that the network finds in its input.
    """

    name: str
    network_side: int | None = None
    least_in_network = 0.0

    def __init__(
        self, score_threshold: float = 0.1, nms_threshold: float = 0.4, tiling: str = "never", tile: int | None = None
    ):
        """Set what all detectors take.

        Args:
            score_threshold: weaker boxes are dropped, 0 to 1.
            nms_threshold: of two boxes that overlap more than this (IoU) the weaker goes, 0 to 1.
            tiling: ``always``, ``never``, or ``auto``: images larger than a tile, if `tiles.faces_would_vanish` in the
                whole of them. Tiles are looked at beside the whole image.
            tile: side of the tiles in pixels; twice ``network_side`` if left out.

        Raises:
            ValueError: an impossible option.
        """
        for name, threshold in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
            if not 0 < threshold < 1:
                raise ValueError(f"{name} of {self.name} is {threshold}, expected more than 0 and less than 1")
        if tiling not in tiles.TILING:
            raise ValueError(f"tiling is {tiling!r}, expected one of: {', '.join(tiles.TILING)}")
        if tiling != "never" and not self.network_side:
            raise ValueError(f"{self.name} looks at every pixel; tiling has to be never, found {tiling!r}")
        if tile is not None and tile < 32:
            raise ValueError(f"tile is {tile}, expected at least 32 pixels")
        self.score_threshold, self.nms_threshold, self.tiling = score_threshold, nms_threshold, tiling
        self.tile = tile or 2 * (self.network_side or 0)

    def __call__(self, image_rgb: np.ndarray) -> Found:
        """Find faces in one image."""
        if image_rgb.dtype != np.uint8 or image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or not image_rgb.size:
            raise ValueError(
                f"an image is {image_rgb.dtype} of shape {image_rgb.shape}, expected uint8 of (height, width, 3)"
            )
        found = self._checked(image_rgb)
        if max(image_rgb.shape[:2]) > self.tile > 0 and self._wants_tiles(image_rgb, found):
            in_tiles = tiles.find_in_tiles(self._checked, image_rgb, self.tile, self.nms_threshold)
            found = tiles.merge(*map(list, zip(found, in_tiles, strict=True)), self.nms_threshold)
        return found

    def look(self, image_rgb: np.ndarray) -> Found:
        """Boxes and scores as the detector gives them; they may be weak, overlap and reach outside."""
        raise NotImplementedError

    def _checked(self, image_rgb: np.ndarray) -> Found:
        """What `look` gives, clipped, strong enough and suppressed."""
        boxes_xyxy, scores = self.look(image_rgb)
        boxes_xyxy, scores = boxes.clip(boxes_xyxy, image_rgb.shape[1::-1]), np.asarray(scores, float).reshape(-1)
        keep = (scores >= self.score_threshold) & (boxes.areas(boxes_xyxy) > 0)
        boxes_xyxy, scores = boxes_xyxy[keep], np.clip(scores[keep], 0, 1)
        kept = tiles.suppress(boxes_xyxy, scores, self.nms_threshold)
        return boxes_xyxy[kept], scores[kept]

    def _wants_tiles(self, image_rgb: np.ndarray, found: Found) -> bool:
        sure = found[0][found[1] >= _SURE]
        return self.tiling == "always" or (
            self.tiling == "auto"
            and tiles.faces_would_vanish(image_rgb.shape[1::-1], sure, self.network_side, self.least_in_network)
        )


class Haar(FaceDetector):
    """OpenCV's cascade of Haar features for frontal faces, which its wheel brings along; by P. Viola and M. Jones.

    It gives no probability. The score is 1 - exp(-w / 3) of the weight w with which the last stage accepted a window:
    0.3 at 1, 0.86 at 6, which is about what faces have, 0.97 at 11.
    """

    name = "haar"

    def __init__(self, files: Files = (), neighbours: int = 4, longest_side: int = 800, **options: Any):
        """Load the cascade.

        Args:
            files: another cascade's ``.xml``.
            neighbours: how many windows have to agree on a face.
            longest_side: larger images are shrunk to this many pixels.
            options: as `FaceDetector`'s.
        """
        super().__init__(**options)
        path = by_suffix(files, [".xml"])[".xml"] if files else _own_cascade()
        with _opencv(path):
            self.cascade = cv2.CascadeClassifier(str(path))
        if self.cascade.empty():
            raise FaceModelError(f"{path}: no cascade that OpenCV can read; expected an .xml of cv2.data.haarcascades")
        self.neighbours, self.longest_side = neighbours, longest_side

    def look(self, image_rgb: np.ndarray) -> Found:
        scale = min(1.0, self.longest_side / max(image_rgb.shape[:2]))
        grey = cv2.cvtColor(images.resize(image_rgb, scale), cv2.COLOR_RGB2GRAY)
        windows, _, weights = self.cascade.detectMultiScale3(
            grey, scaleFactor=1.1, minNeighbors=self.neighbours, outputRejectLevels=True
        )
        boxes_xywh = np.asarray(windows, float).reshape(-1, 4) / scale
        return _corners(boxes_xywh), 1 - np.exp(-np.clip(np.asarray(weights, float), 0, None) / _HAAR_WEIGHT)


class Res10(FaceDetector):
    """OpenCV's ResNet-10 SSD of 300 x 300 pixels, a Caffe model; images are stretched to its square."""

    name = "res10"
    network_side = 300
    least_in_network = 20.0

    def __init__(self, files: Files = (), tiling: str = "auto", **options: Any):
        """Load ``.prototxt`` and ``.caffemodel``.

        Args:
            files: both, in any order; where ``retinamask fetch res10`` puts them if left out.
            tiling, options: as `FaceDetector`'s.
        """
        super().__init__(tiling=tiling, **options)
        paths = by_suffix(files or public_models.kept_files("res10"), [".prototxt", ".caffemodel"])
        prototxt, caffemodel = paths[".prototxt"], paths[".caffemodel"]
        face_model_files.check_prototxt(prototxt)
        face_model_files.check_published(caffemodel, "res10")
        face_model_files.check_protobuf(caffemodel, "a Caffe model")
        with _opencv(prototxt, caffemodel):
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
            options: as `FaceDetector`'s.
        """
        super().__init__(**options)
        path = by_suffix(files or public_models.kept_files("yunet"), [".onnx"])[".onnx"]
        face_model_files.check_published(path, "yunet")
        face_model_files.check_protobuf(path, "an ONNX model")
        with _opencv(path):
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
        return _corners(faces[:, :4] / scale), faces[:, 14]


class Darknet(FaceDetector):
    """Any Darknet detector that OpenCV reads, such as YOLOv4; images are stretched to its input, as Darknet does."""

    name = "yolov4"
    least_in_network = 10.0

    def __init__(self, files: Files = (), classes: Sequence[str] = (), **options: Any):
        """Load ``.cfg`` and ``.weights``.

        Args:
            files: both, and a ``.names`` with a class a line, in any order.
            classes: names of those that count as faces; all if left out.
            options: as `FaceDetector`'s.
        """
        paths = by_suffix(files, [".cfg", ".weights"], [".names"])
        parsed = face_model_files.check_darknet(paths[".cfg"], paths[".weights"])
        self.size_wh = parsed[0].integer("width", low=32), parsed[0].integer("height", low=32)
        self.network_side = max(self.size_wh)
        super().__init__(**options)
        count = next(section for section in parsed if section.name == "yolo").integer("classes", 20, low=1)
        self.columns = [5 + label for label in _labels(paths.get(".names"), count, classes)]
        with _opencv(*paths.values()):
            self.network = cv2.dnn.readNetFromDarknet(str(paths[".cfg"]), str(paths[".weights"]))
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


class DarknetTiny(Darknet):
    """The same under the name of the smaller network."""

    name = "yolov4_tiny"


class OwnSnapshot(FaceDetector):
    """Any of this project's detectors; all of its classes are faces."""

    name = "snapshot"

    def __init__(self, files: Files = (), **options: Any):
        """Load the snapshot.

        Args:
            files: its ``.h5`` or ``.json``.
            options: as `FaceDetector`'s.
        """
        super().__init__(**options)
        if len(files) != 1:
            raise FaceModelError(f"{len(files)} files, expected one: the .h5 or .json of a snapshot")
        self.predictor = Predictor.load(files[0])

    def look(self, image_rgb: np.ndarray) -> Found:
        (found,) = self.predictor([image_rgb], self.score_threshold)
        return found.boxes_xyxy, found.scores


FACE_DETECTORS: dict[str, type[FaceDetector]] = {
    detector.name: detector for detector in (Haar, Res10, YuNet, Darknet, DarknetTiny, OwnSnapshot)
}


def face_detector(name: str, files: Files = (), **options: Any) -> FaceDetector:
    """A face detector by its name, loaded and tried.

    Args:
        name: one of `FACE_DETECTORS`.
        files: its model files, told apart by their endings.
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


def _own_cascade() -> Path:
    return Path(cv2.data.haarcascades, "haarcascade_frontalface_default.xml")


def _labels(names_path: Path | None, count: int, classes: Sequence[str]) -> list[int]:
    """Which of ``count`` classes count as faces."""
    if names_path is None:
        if classes:
            raise FaceModelError(f"which classes are {', '.join(classes)}? Give the .names file of the weights too")
        return list(range(count))
    names = [line.strip() for line in names_path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(names) != count:
        raise FaceModelError(f"{names_path}: {len(names)} names, expected {count} as the cfg has classes")
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise FaceModelError(f"{names_path} has no class {', '.join(unknown)}; it has {', '.join(names[:20])}")
    return [names.index(name) for name in classes or names]


def _corners(boxes_xywh: np.ndarray) -> np.ndarray:
    """From left, top, width and height to ``xyxy``."""
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:4]], axis=1)


@contextlib.contextmanager
def _opencv(*paths: Path) -> Iterator[None]:
    """What OpenCV cannot load becomes an error that names the files."""
    try:
        yield
    except (cv2.error, ValueError) as error:
        listed = " with ".join(map(str, paths))
        reason = " ".join(str(error).split())[:200]
        raise FaceModelError(f"{listed}: OpenCV {cv2.__version__} cannot use it ({reason}); fetch it again") from None
