"""Exports against what people run today, in one run and taking turns: one JSON line for each question.

``retinanet``: a ResNet50 RetinaNet at 640, image file to final boxes, against keras-retinanet's image utilities and
``predict_on_batch`` of its converted model, and against the bare network. ``folder``: `detect` on 500 images against
the bare network. ``yolov4_tiny``: at 416, against OpenCV DNN with the same weights. ``ssd``: at 640, against
TensorFlow's SavedModel. ``classifier``: crops a second against tf-keras. ``start``: seconds of a process to its
first box, and its peak memory. Weights are random, with few anchors that score, as in a trained network; int8 is
calibrated on drawn scenes. All in ``runs/benchmarks``, made once.

    python -m benchmarks.inference [retinanet folder yolov4_tiny ssd classifier start]
"""

import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from retinamask import detectors
from retinamask.dataset import annotations, images
from retinamask.dataset.formats import read
from retinamask.dataset.sample import CLASSES, draw_sample
from retinamask.detectors import snapshots
from retinamask.detectors.exported import ExportedNetwork
from retinamask.detectors.snapshots import Snapshot
from retinamask.exports import export
from retinamask.inference.classify import Classifier
from retinamask.inference.convert import convert, export_darknet
from retinamask.inference.detect import Predictor, detect

FOLDER = Path("runs/benchmarks")
ROUNDS = 7
SETTINGS = {
    "retinanet": {"image_size": 640},
    "ssd_mobilenet_v2_fpnlite": {"image_size": 640},
    "yolov4_tiny": {"image_size": 416},
    "mask_classifier": {},
}


def scenes(count: int) -> list[str]:
    """The paths of drawn scenes of 640 px, relative to `FOLDER`."""
    folder = FOLDER / f"scenes_{count}"
    if not folder.exists():
        draw_sample(folder, images=count, size=640, seed=5)
    return annotations.image_paths(read("voc", [folder], FOLDER)[0])


def snapshot_of(name: str) -> Snapshot:
    """A snapshot with random weights."""
    path = FOLDER / f"{name}.h5"
    if path.exists():
        return snapshots.read(path)
    detector = detectors.create(name, CLASSES, **SETTINGS[name])
    network = detector.network(seed=1)
    for weight in network.trainable_weights:
        if weight.name == "pyramid_classification/kernel:0":  # else random statistics make a face of every anchor
            weight.assign(1e-3 * weight)
    record = {"kind": "training", "detector": name, "classes": CLASSES, "settings": detector.record()}
    return snapshots.save(network, path, {**record, "preprocessing": detector.preprocessing})


def export_of(name: str, precision: str) -> Snapshot:
    """Its export; a network that has learnt nothing finds nothing that could be compared."""
    path = FOLDER / f"{name}_{precision}.onnx"
    if path.exists():
        return snapshots.read(path)
    table = read("voc", [FOLDER / Path(scenes(12)[0]).parts[0]], FOLDER)[0]
    return export(snapshot_of(name), "onnx", precision, path, table, table, FOLDER, force=True)


def take_turns(sides: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict:
    """Milliseconds of a call of each side: median, smallest, largest. The first turn warms up."""
    taken = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, call in sides.items():
            begun = time.perf_counter()
            call()
            if turn:
                taken[name].append(1000 * (time.perf_counter() - begun))
    rounded = {name: [round(f(each), 1) for f in (statistics.median, min, max)] for name, each in taken.items()}
    return {"milliseconds": rounded, "rounds": rounds}


def ratios(shown: dict, of: str) -> dict:
    median = {name: each[0] for name, each in shown["milliseconds"].items()}
    return {**shown, "times_faster": {name: round(median[of] / each, 2) for name, each in median.items() if name != of}}


def theirs() -> Callable[[Path], object]:
    """keras-retinanet's way, as its example notebook has it, at 640 instead of 800."""
    snapshot = snapshot_of("retinanet")
    detector, network = detectors.load(snapshot, "training")
    converted = detector.inference_network(network)
    from keras_retinanet.utils.image import preprocess_image, read_image_bgr, resize_image

    def look(path: Path):
        image, _ = resize_image(preprocess_image(read_image_bgr(path)), min_side=640, max_side=640)
        return converted.predict_on_batch(np.expand_dims(image, axis=0))

    return look


def ours(snapshot: Snapshot, precision: str = "float32") -> Callable[[Path], object]:
    predictor = Predictor.load(snapshot, precision=precision)
    return lambda path: predictor([images.read_image(path)], 0.05)


def bare(snapshot: Snapshot, precision: str = "float32") -> Callable[[], object]:
    """The network alone, its input lying ready."""
    network, side = ExportedNetwork(snapshot, precision=precision), snapshot.record["settings"]["image_size"]
    request, blob = network._compiled.create_infer_request(), np.zeros((1, 3, side, side), np.float32)
    return lambda: request.infer([blob], share_inputs=True)


def retinanet() -> dict:
    path = FOLDER / scenes(12)[0]
    whole, small = export_of("retinanet", "float32"), export_of("retinanet", "int8")
    sides = {"keras_retinanet": theirs(), "float32": ours(whole), "int8": ours(small)}
    with_bfloat16 = "BF16" in _capabilities()
    if with_bfloat16:
        sides["bfloat16"] = ours(whole, "bfloat16")
    calls = {name: lambda look=look: look(path) for name, look in sides.items()}
    calls |= {"float32_bare": bare(whole), "int8_bare": bare(small)}
    calls |= {"bfloat16_bare": bare(whole, "bfloat16")} if with_bfloat16 else {}
    return ratios(take_turns(calls), "keras_retinanet")


def folder() -> dict:
    small, paths = export_of("ssd_mobilenet_v2_fpnlite", "int8"), scenes(500)
    predictor, call = Predictor.load(small, precision="float32"), bare(small)

    def many() -> None:
        for _ in paths:
            call()

    shown = take_turns({"bare": many, "detect": lambda: detect(predictor, paths, FOLDER)}, 5)
    median = {name: each[0] for name, each in shown["milliseconds"].items()}
    share = {"share_of_bare": round(median["bare"] / median["detect"], 3)}
    return {**shown, "images_per_second": round(500_000 / median["detect"], 1), **share}


def yolov4_tiny() -> dict:
    import cv2

    snapshot = snapshot_of("yolov4_tiny")
    files = export_darknet(snapshot, FOLDER, force=True)
    network = cv2.dnn.readNetFromDarknet(str(files.cfg), str(files.weights))
    path, names = FOLDER / scenes(12)[0], network.getUnconnectedOutLayersNames()

    def by_opencv():
        image = cv2.imread(str(path))
        network.setInput(cv2.dnn.blobFromImage(image, 1 / 255, (416, 416), swapRB=True))
        return network.forward(names)

    whole, small = export_of("yolov4_tiny", "float32"), export_of("yolov4_tiny", "int8")
    calls = {"opencv": by_opencv, "float32": lambda: one(path), "int8": lambda: other(path)}
    one, other = ours(whole), ours(small)
    if "BF16" in _capabilities():
        half = ours(whole, "bfloat16")
        calls["bfloat16"] = lambda: half(path)
    return ratios(take_turns(calls, 21), "opencv")


def ssd() -> dict:
    import tensorflow as tf

    detector, network = detectors.load(snapshot_of("ssd_mobilenet_v2_fpnlite"), "training")
    saved, path = FOLDER / "ssd_saved_model", FOLDER / scenes(12)[0]
    if not saved.exists():
        tf.saved_model.save(detector.inference_network(network), str(saved))
    served = tf.saved_model.load(str(saved)).signatures["serving_default"]

    def by_tensorflow():
        batch, _ = detector.prepare([images.read_image(path)])
        return [output.numpy() for output in served(tf.constant(batch)).values()]

    whole, small = export_of("ssd_mobilenet_v2_fpnlite", "float32"), export_of("ssd_mobilenet_v2_fpnlite", "int8")
    one, other = ours(whole), ours(small)
    calls = {"saved_model": by_tensorflow, "float32": lambda: one(path), "int8": lambda: other(path)}
    if "BF16" in _capabilities():
        half = ours(whole, "bfloat16")
        calls["bfloat16"] = lambda: half(path)
    return ratios(take_turns(calls, 15), "saved_model")


def classifier() -> dict:
    random = np.random.default_rng(0)
    faces = [random.integers(0, 256, (90, 80, 3), np.uint8) for _ in range(64)]
    snapshot = snapshot_of("mask_classifier")
    loaded = {"tf_keras": Classifier.load(snapshot)}
    for precision in ("float32", "int8"):
        loaded[precision] = Classifier.load(export_of("mask_classifier", precision), precision="float32")
    calls = {name: lambda look=look: look(faces) for name, look in loaded.items()}
    return {"crops": len(faces), **ratios(take_turns(calls), "tf_keras")}


_FIRST_BOX = {
    "keras_retinanet": """
from retinamask.detectors import _keras
_keras.prepare()
import numpy
from keras_retinanet import models
from keras_retinanet.utils.image import preprocess_image, read_image_bgr, resize_image
model = models.load_model("{folder}/retinanet_inference.h5", backbone_name="resnet50")
image, _ = resize_image(preprocess_image(read_image_bgr("{image}")), min_side=640, max_side=640)
model.predict_on_batch(numpy.expand_dims(image, axis=0))
""",
    "float32": 'import retinamask as rm; rm.load("{folder}/retinanet_float32.onnx").detect("{image}")',
    "int8": 'import retinamask as rm; rm.load("{folder}/retinanet_int8.onnx").detect("{image}")',
}
# ru_maxrss would be that of the process which started this one, if that was larger.
_MEMORY = "\nprint(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"


def start() -> dict:
    """Seconds of a fresh process until the first box, and its largest memory in MB: medians of 5."""
    image = FOLDER / scenes(12)[0]
    export_of("retinanet", "float32"), export_of("retinanet", "int8")
    convert(snapshot_of("retinanet"))
    found: dict[str, list] = {name: [] for name in _FIRST_BOX}
    for _ in range(5):
        for name, code in _FIRST_BOX.items():
            begun = time.perf_counter()
            command = [sys.executable, "-W", "ignore", "-c", code.format(folder=FOLDER, image=image) + _MEMORY]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append((time.perf_counter() - begun, int(printed.split()[-1]) / 1000))
    medians = {name: np.median(taken, axis=0).round(2).tolist() for name, taken in found.items()}
    return {"seconds_and_peak_mb": medians}


def _capabilities() -> list[str]:
    import openvino

    return openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def main() -> None:
    warnings.simplefilter("ignore")
    questions = (retinanet, folder, yolov4_tiny, ssd, classifier, start)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for question in questions:
        if question.__name__ in (sys.argv[1:] or [each.__name__ for each in questions]):
            shown = {"benchmark": "inference", "question": question.__name__, **question()}
            print(json.dumps({**shown, "device": _device()}), flush=True)


def _device() -> str:
    import openvino

    return f"OpenVINO {openvino.__version__.split('-')[0]}, {openvino.Core().get_property('CPU', 'FULL_DEVICE_NAME')}"


if __name__ == "__main__":
    main()
