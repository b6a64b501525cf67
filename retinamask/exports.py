"""Export a snapshot to one file that runs without TensorFlow, and check at once that it still finds the same."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from retinamask import detectors
from retinamask.dataset import images
from retinamask.dataset.annotations import BOX_COLUMNS, image_paths, objects
from retinamask.dataset.faces import crop
from retinamask.detectors import exported, snapshots
from retinamask.detectors.exported import FORMATS
from retinamask.detectors.snapshots import Snapshot, SnapshotError
from retinamask.evaluation import coco, matches
from retinamask.inference.agreement import agreement
from retinamask.inference.classify import Classifier, classify_faces
from retinamask.inference.detect import Predictor, detect

PRECISIONS = ("float32", "int8")
BOX_PIXELS = 0.5  # that a box of a float32 export may differ
POINTS = 0.003  # that AP, or a classifier's accuracy, may fall
OPSET = 17

_CALIBRATION_IMAGES = 200
_SURE = 0.1  # score of the boxes that are compared one by one


def export(
    snapshot: str | Path | Snapshot,
    to: str = "onnx",
    precision: str = "float32",
    out: str | Path | None = None,
    train: pd.DataFrame | None = None,
    val: pd.DataFrame | None = None,
    folder: str | Path = ".",
    image_size: int | None = None,
    force: bool = False,
) -> Snapshot:
    """Export a detector or classifier to ONNX, for every runtime, or LiteRT, for phones and small machines.

    Args:
        snapshot: a training or inference snapshot, or its path.
        to: ``onnx`` or ``litert``.
        precision: ``float32``, or ``int8``: weights and what flows between layers in 8 bits.
        out: the file; beside the snapshot ``<stem>.onnx`` or ``<stem>_int8.onnx``, or ``.tflite``, if left out.
        train: annotations of which a sample calibrates int8: their images show which numbers flow.
        val: annotations on which the export is compared with the snapshot, and the score thresholds of a detector are
            chosen; for float32 ``train`` will do, and the thresholds stay.
        folder: what the image paths are relative to.
        image_size: side of the square that images are fitted into; the snapshot's if left out.
        force: keep an export that fails the comparison, and replace a file.

    Returns:
        The export as a snapshot of the kind ``export``; its record has the comparison under ``export``. If the same
        export is there already and passed, that one.

    Raises:
        SnapshotError: the file exists, tables are missing, or the export differs: AP or accuracy lower by more than
            0.003 (int8: of few faces, by more than one of them), or in float32 a box lost or 0.5 pixels off.

    Example:
        >>> rm.load(rm.export(trained.best, precision="int8", train=parts["train"], val=parts["val"]))
    """
    snapshot = snapshot if isinstance(snapshot, Snapshot) else snapshots.read(snapshot)
    if to not in FORMATS or precision not in PRECISIONS:
        raise SnapshotError(
            f"to is {to} and precision {precision}, expected {' or '.join(FORMATS)} and float32 or int8"
        )
    snapshots.refuse_export(snapshot)
    if precision == "int8" and to == "onnx" and find_spec("nncf") is None:
        raise SnapshotError("int8 in ONNX needs nncf, which is not installed; install it with: pip install nncf")
    compared = train if val is None else val
    if compared is None or (precision == "int8" and (train is None or val is None)):
        needed = "training and validation annotations" if precision == "int8" else "annotations"
        raise SnapshotError(f"{precision} needs {needed}, to compare the export with the snapshot on their images")
    suffix = ("_int8" if precision == "int8" else "") + FORMATS[to]
    out = Path(out) if out else snapshot.weights.with_name(f"{snapshot.weights.stem}{suffix}")
    if out.suffix != FORMATS[to]:
        raise SnapshotError(f"{out}: expected a name that ends in {FORMATS[to]}")
    snapshot = snapshot if image_size is None else snapshot.at(image_size)
    source = {"name": snapshot.weights.name, "weights_sha256": snapshot.record["weights_sha256"]}
    about = {"to": to, "precision": precision, "converted_from": source}
    if out.exists() and not force:
        if (made := _passed(out, snapshot, about)) is not None:
            return made
        raise SnapshotError(f"{out} exists; choose another name, or replace it with force")
    detector, network = detectors.load(snapshot, "inference" if snapshot.classifies else "raw")
    inputs = _Calibration(detector, train, folder) if precision == "int8" else None
    if side := _fixed_side(detector, to):
        about["image_size"] = side
    record = {name: value for name, value in snapshot.record.items() if name != "weights_sha256"}
    expected = _judged(snapshot, compared, folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=".export-") as place, _quiet():
        for model in (_onnx_models if to == "onnx" else _litert_models)(network, side, inputs):
            record |= {"kind": "export", "export": about}
            trial = exported.save(model, Path(place, out.name), record)
            found = _judged(trial, compared, folder)
            about["check"] = check = _compared(expected, found)
            fault = _fault(check, precision)
            if not fault:
                break
    if fault and not force:
        raise SnapshotError(f"{out} is not written: {fault}; export anyway with force")
    if val is not None and not snapshot.classifies:  # scores are others in int8 and at another image_size
        about["thresholds"] = matches.best_thresholds(matches.match(val, found[0], snapshot.classes, [0.5]))
    return exported.save(model, out, record)


def _passed(out: Path, snapshot: Snapshot, about: dict[str, Any]) -> Snapshot | None:
    """Give the export in a file if it is the one that is asked for and passed its comparison."""
    with contextlib.suppress(SnapshotError):
        found = snapshots.read(out)
        same_size = found.record["settings"] == json.loads(json.dumps(snapshot.record["settings"]))
        export = found.record["export"]
        if same_size and about.items() <= export.items() and not _fault(export["check"], about["precision"]):
            return found
    return None


def _fixed_side(detector, to: str) -> int | None:
    """Give the side that the input has. OpenCV computes other numbers, silently, where the size is left open."""
    if detector.classifies:
        return None  # its two sides are settings
    if not getattr(detector.settings, "max_side", 0):
        return detector.settings.image_size
    if to == "litert":
        raise SnapshotError("its images are resized with a max_side, and LiteRT takes one size; export to onnx")
    return None


class _Calibration:
    """The network inputs that calibrate int8, evenly from all of a table: read again each time, so memory holds one."""

    def __init__(self, detector, train: pd.DataFrame, folder: str | Path):
        paths = image_paths(objects(train))
        places = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _CALIBRATION_IMAGES)).astype(int))
        chosen = objects(train)[objects(train)["image_path"].isin([paths[place] for place in places])]
        self.detector, self.folder, self.of_images = detector, folder, list(chosen.groupby("image_path", sort=False))

    def __len__(self) -> int:
        return sum(len(rows) if self.detector.classifies else 1 for _, rows in self.of_images)

    def __iter__(self) -> Iterator[np.ndarray]:
        for path, rows in self.of_images:
            with contextlib.suppress(images.ImageError):  # reported when the table is compared
                image_rgb = images.read_image(Path(self.folder, path))
                if self.detector.classifies:
                    faces = crop(image_rgb, rows[BOX_COLUMNS].to_numpy(float), self.detector.settings.margin)
                    yield from (self.detector.prepare([face])[0] for face in faces if face.size)
                else:
                    yield self.detector.prepare([image_rgb])[0]


def _input_shape(network, side: int | None) -> tuple[int | None, ...]:
    return (side, side, 3) if side else tuple(network.inputs[0].shape[1:])


def _onnx_models(network, side: int | None, inputs: _Calibration | None) -> Iterator[Any]:
    """Yield the network in ONNX; in int8 first all of it, then with more and more layers left in float32."""
    import tensorflow as tf
    import tf2onnx

    shape = (None, *_input_shape(network, side))
    signature = (tf.TensorSpec(shape, tf.float32, name="image"),)
    model, _ = tf2onnx.convert.from_keras(network, input_signature=signature, opset=OPSET, inputs_as_nchw=["image"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    if inputs is None:
        yield model
        return
    import nncf

    dataset = nncf.Dataset(inputs, lambda batch: {"image": np.ascontiguousarray(batch.transpose(0, 3, 1, 2))})
    # ONNX Runtime has no operators for what flows between layers with a scale for each channel.
    whole = nncf.AdvancedQuantizationParameters(
        activations_quantization_params=nncf.quantization.advanced_parameters.QuantizationParameters(per_channel=False)
    )
    predicting = _predicting(model)
    for kept in ([], predicting, predicting + _sensitive(model)):
        options = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(inputs)}
        options["ignored_scope"] = nncf.IgnoredScope(names=kept)
        yield nncf.quantize(model, dataset, advanced_parameters=whole, **options)


def _predicting(model) -> list[str]:
    """Name the convolutions of an ONNX graph that come last before its outputs."""
    maker = {name: node for node in model.graph.node for name in node.output}
    waiting, found = [output.name for output in model.graph.output], set()
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.op_type in ("Conv", "MatMul", "Gemm"):
            found.add(node.name)
        elif node is not None:
            waiting += node.input
    return sorted(found)


def _sensitive(model) -> list[str]:
    """Name the convolutions of an ONNX graph that lose most in int8: the first, and those with a filter per channel."""
    every = [node for node in model.graph.node if node.op_type == "Conv"]
    groups = [sum(attribute.i for attribute in node.attribute if attribute.name == "group") for node in every]
    return [node.name for place, node in enumerate(every) if place == 0 or groups[place] > 1]


def _litert_models(network, side: int | None, inputs: _Calibration | None) -> Iterator[bytes]:
    """Yield the network in LiteRT, for one image at a time."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, *_input_shape(network, side)), tf.float32, name="image")])
    def answer(image):
        outputs = network(image, training=False)
        return {f"output_{number}": output for number, output in enumerate(tf.nest.flatten(outputs))}

    owner = tf.Module()  # of the weights: given the network, TensorFlow would trace each of its layers again
    owner.weights = network.weights
    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()], owner)
    if inputs is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([batch] for batch in inputs)
    yield converter.convert()


def _judged(snapshot: Snapshot, table: pd.DataFrame, folder: str | Path) -> tuple[pd.DataFrame | np.ndarray, float]:
    """Give the detections of a snapshot and their AP; of a classifier its probabilities and their accuracy."""
    options = {"precision": "float32"} if snapshot.kind == "export" else {}
    if snapshot.classifies:
        found = classify_faces(Classifier.load(snapshot, **options), table, folder)
        return found.probabilities, float((found.probabilities.argmax(1) == found.labels).mean())
    predictor = Predictor.load(snapshot, **options)
    detections, _ = detect(predictor, image_paths(table), folder, 0.05, suppress="per_class")
    return detections, coco.evaluate(table, detections, snapshot.classes)["AP"]


def _compared(before: tuple, after: tuple) -> dict[str, Any]:
    """Compare two results of `_judged`: the figure, and box by box those that score `_SURE` in the first."""
    (one, figure), (other, new_figure) = before, after
    if isinstance(one, np.ndarray):
        return {"faces": len(one), "accuracy": [figure, new_figure], "probability": float(np.abs(one - other).max())}
    near = agreement(one[one["score"] >= _SURE], other)
    distance = {"boxes": near.boxes, "boxes_lost": near.boxes_lost}
    distance |= {"box_pixels": near.box_difference, "score": near.score_difference}
    return {"images": one["image_path"].nunique(), "AP": [figure, new_figure], **distance}


def _fault(check: dict[str, Any], precision: str) -> str | None:
    """Say what is wrong with an export, ``None`` if nothing is."""
    name = "AP" if "AP" in check else "accuracy"
    before, after = check[name]
    one_face = 1.5 / check.get("faces", np.inf) if precision == "int8" else 0  # of few faces one may change
    allowed = max(POINTS, one_face)
    if after < before - allowed:
        return f"{name} falls from {before:.4f} to {after:.4f}, by more than {allowed:.2g}"
    if precision == "float32" and (check.get("boxes_lost") or check.get("box_pixels", 0) > BOX_PIXELS):
        return f"{check['boxes_lost']} of {check['boxes']} boxes are lost, others are {check['box_pixels']:.2g} px off"
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the converters log and warn of."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "tf2onnx", "nncf", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
