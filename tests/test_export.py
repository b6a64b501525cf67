"""Exports: the same boxes on every runtime, all that inference must know inside, and refusals that say why."""

import json
import subprocess
import sys
import weakref
from pathlib import Path

import cv2
import numpy as np
import onnx
import openvino
import pandas as pd
import pytest
from conftest import BACKBONE
from darknet_networks import SMALL_CFG

import retinamask as rm
from retinamask import detectors, exports
from retinamask.dataset import annotations, images
from retinamask.dataset.annotations import objects
from retinamask.dataset.sample import CLASSES, draw_sample
from retinamask.detectors import exported, faster_precision, snapshots
from retinamask.detectors.snapshots import SnapshotError
from retinamask.exports import _fault, export
from retinamask.inference.classify import Classifier
from retinamask.inference.detect import Predictor
from retinamask.model import Model

ROOT = Path(__file__).parents[1]
# every kind of layer that Darknet has, converted in a moment, with weights enough to show that int8 is smaller
YOLO = {
    "image_size": 96,
    "cfg": SMALL_CFG.replace("filters=8\n", "filters=512\n").replace("filters=4\n", "filters=256\n"),
}


def snapshot_of(name: str, folder, **settings):
    """A snapshot whose random weights are stirred until scores differ from place to place."""
    detector = detectors.create(name, CLASSES, **settings)
    network, random = detector.network(seed=1), np.random.default_rng(2)
    for weight in network.trainable_weights:
        if "kernel" in weight.name or "bias" in weight.name:
            values = weight.numpy()
            weight.assign(values + random.normal(0, 0.05 + values.std() / 4, values.shape))
    record = {"kind": "training", "detector": name, "classes": CLASSES, "settings": detector.record()}
    record |= {"preprocessing": detector.preprocessing, "training": {"metrics": {"AP50": 0.5}}}
    return snapshots.save(network, folder / f"{name}.h5", record)


@pytest.fixture(scope="module")
def yolo(tmp_path_factory):
    """The snapshot of a small YOLOv4-tiny."""
    return snapshot_of("yolov4_tiny", tmp_path_factory.mktemp("export"), **YOLO)


@pytest.fixture(scope="module")
def table(tiny):
    return annotations.read_annotations(tiny / "annotations.csv", CLASSES)


@pytest.fixture(scope="module")
def yolo_onnx(yolo, table, tiny):
    """The path of its export."""
    return export(yolo, val=table, folder=tiny, force=True).weights


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("retinanet", {"backbone": BACKBONE, "image_size": 160, "normalisation": "live"}),
        ("yolov4_tiny", YOLO),
        # longer networks of the same layers as the small one, and as the trained one of the next test
        pytest.param("yolov4_tiny", {"image_size": 96}, marks=pytest.mark.slow),
        pytest.param("ssd_mobilenet_v2_fpnlite", {"image_size": 160, "alpha": 0.35}, marks=pytest.mark.slow),
    ],
)
def test_every_runtime_gives_the_numbers_of_the_snapshot(name, settings, table, tiny, tmp_path):
    """Raw, because the boxes of a network that has learnt nothing suppress each other by the last digit."""
    snapshot = snapshot_of(name, tmp_path, **settings)
    files = {
        suffix: export(snapshot, to, out=tmp_path / f"a{suffix}", val=table, folder=tiny, force=True).weights
        for to, suffix in exported.FORMATS.items()
    }
    detector, network = detectors.load(snapshot, "raw")
    images_rgb = [images.read_image(tiny / path) for path in annotations.image_paths(table)[:3]]
    batch = detector.prepare(images_rgb)[0]
    outputs = network.predict_on_batch(batch)
    outputs = outputs if isinstance(outputs, list) else [outputs]  # of one head
    for backend, suffix in exported.BACKENDS.items():
        found = Predictor.load(files[suffix], backend=backend, precision="float32").network.predict_on_batch(batch)
        for one, other in zip(outputs, found, strict=True):
            np.testing.assert_allclose(one, other, atol=5e-4 * np.abs(one).max(), err_msg=backend)
    # OpenCV reads the same file
    by_opencv = cv2.dnn.readNetFromONNX(str(files[".onnx"]))
    by_opencv.setInput(batch[:1].transpose(0, 3, 1, 2).copy())
    names = [output.name for output in onnx.load(files[".onnx"]).graph.output]
    for one, other in zip(outputs, by_opencv.forward(names), strict=True):
        np.testing.assert_allclose(one[:1], other.reshape(one[:1].shape), atol=5e-4 * np.abs(one).max())


def test_tables_are_equal_on_twenty_images(tmp_path):
    """Of a detector that was trained on photographs, on drawn faces."""
    draw_sample(tmp_path / "drawn", images=20, size=160, seed=6)
    table = rm.read_annotations(tmp_path / "drawn", tmp_path / "drawn")[0]
    assert len(annotations.image_paths(table)) == 20
    snapshot = snapshots.read(ROOT / "snapshots/interim/ssd_andrewmvd_320.h5")
    expected = rm.load(snapshot).detect(table, 0.1, folder=tmp_path / "drawn")
    assert len(objects(expected)) > 20
    few = annotations.of_images(table, annotations.image_paths(table)[:4])
    for to, suffix in exported.FORMATS.items():
        path = export(snapshot, to, out=tmp_path / f"a{suffix}", val=few, folder=tmp_path / "drawn").weights
        for backend in (name for name, kind in exported.BACKENDS.items() if kind == suffix):
            found = Model(snapshots.read(path), Predictor.load(path, backend=backend)).detect(
                table, 0.1, folder=tmp_path / "drawn"
            )
            pd.testing.assert_frame_equal(found, expected, rtol=0, atol=0.02)


def test_a_classifier_is_exported_too(table, tiny, tmp_path):
    settings = {"image_height": 64, "image_width": 64, "alpha": 0.35, "dense": (8,)}
    snapshot = snapshot_of("mask_classifier", tmp_path, **settings)
    faces = [np.random.default_rng(seed).integers(0, 255, (70, 60, 3), np.uint8) for seed in range(3)]
    expected = Classifier.load(snapshot)(faces)
    for to in exported.FORMATS:
        made = export(snapshot, to, train=table, folder=tiny)
        assert made.record["export"]["check"]["probability"] < 1e-3
        np.testing.assert_allclose(Classifier.load(made)(faces), expected, atol=1e-4)


@pytest.fixture
def learnt(trained):
    return trained.best


@pytest.mark.parametrize("name", ["yolo", pytest.param("learnt", marks=pytest.mark.slow)])  # NNCF takes its time
def test_int8_is_smaller_calibrated_and_compared(name, request, table, tiny, tmp_path, monkeypatch):
    read, alive, most = exports._Calibration.__iter__, [], []

    def watched(inputs):
        for batch in read(inputs):
            alive.append(weakref.ref(batch))
            most.append(sum(each() is not None for each in alive))
            yield batch

    monkeypatch.setattr(exports._Calibration, "__iter__", watched)
    snapshot = request.getfixturevalue(name)
    tables = {"train": table, "val": table, "folder": tiny, "force": True}
    whole = export(snapshot, out=tmp_path / "a.onnx", **tables)
    made = export(snapshot, precision="int8", out=tmp_path / "b.onnx", **tables)
    kinds = {node.op_type for node in onnx.load(made.weights).graph.node}
    assert "QuantizeLinear" in kinds and made.weights.stat().st_size < 0.6 * whole.weights.stat().st_size
    assert made.record["export"]["check"]["images"] == len(annotations.image_paths(table))
    assert made.record["export"]["check"]["AP"][0] == pytest.approx(whole.record["export"]["check"]["AP"][0])
    assert json.loads(json.dumps(made.record))["training"] == snapshot.record["training"]
    assert len(most) >= 10 and max(most) <= 2  # of the 10 images with faces, read again in each pass


def test_the_first_layer_and_those_with_a_filter_for_each_channel_lose_most_in_int8():
    make = onnx.helper.make_node
    nodes = [
        make("Pad", ["image"], ["a"], name="pad"),
        make("Conv", ["a", "w"], ["b"], name="first"),
        make("Conv", ["b", "w"], ["c"], name="depthwise", group=32),
        make("Conv", ["c", "w"], ["d"], name="pointwise", group=1),
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], []))
    assert exports._sensitive(model) == ["first", "depthwise"]


def test_every_face_calibrates_a_classifier_and_every_image_with_faces_a_detector(table, tiny, monkeypatch):
    settings = {"image_height": 64, "image_width": 48}
    for name, given, count, shape in (
        ("mask_classifier", settings, len(objects(table)), (1, 64, 48, 3)),
        ("yolov4_tiny", {"image_size": 96}, objects(table)["image_path"].nunique(), (1, 96, 96, 3)),
    ):
        inputs = exports._Calibration(detectors.create(name, CLASSES, **given), table, tiny)
        shapes = [batch.shape for batch in inputs]
        assert shapes == [shape] * count and len(inputs) == count
    monkeypatch.setattr(exports, "_CALIBRATION_IMAGES", 3)
    paths = annotations.image_paths(objects(table))
    few = exports._Calibration(inputs.detector, table, tiny)
    assert [path for path, _ in few.of_images] == [paths[0], paths[(len(paths) - 1) // 2], paths[-1]]


def test_a_model_of_an_export_says_what_it_is_and_keeps_its_size(yolo, table, tiny, yolo_onnx, tmp_path):
    assert "yolov4_tiny.onnx (yolov4_tiny, export model, 96 px, classes mask, no_mask)" in repr(rm.load(yolo_onnx))
    with pytest.raises(SnapshotError, match="yolov4_tiny.onnx has a fixed image_size of 96, not 128; export"):
        Predictor.load(yolo_onnx, image_size=128)
    path = export(yolo, out=tmp_path / "b.onnx", val=table, folder=tiny, image_size=128, force=True).weights
    assert Predictor.load(path).detector.settings.image_size == 128
    assert export(yolo, val=table, folder=tiny).record["created"] == snapshots.read(yolo_onnx).record["created"]
    assert Predictor.load(yolo, image_size=128).detector.settings.image_size == 128


def test_score_thresholds_are_chosen_again_on_the_validation_images(yolo, table, tiny, tmp_path, monkeypatch):
    faces = objects(table).reset_index(drop=True)
    faces["score"] = np.linspace(0.9, 0.4, len(faces))
    beside = faces.assign(x1=0, y1=0, x2=3, y2=3, score=0.3)
    monkeypatch.setattr(exports, "detect", lambda *_, **__: (pd.concat([faces, beside]), []))
    made = export(yolo, out=tmp_path / "a.onnx", val=table, folder=tiny)
    weakest = faces.groupby("class_name")["score"].min()  # of the right boxes; all others are weaker
    assert made.thresholds == pytest.approx(dict(weakest), abs=0.001)
    kept = export(yolo, out=tmp_path / "b.onnx", train=table, folder=tiny)
    assert kept.thresholds == yolo.thresholds == dict.fromkeys(CLASSES, 0.5)


def test_the_first_box_needs_no_tensorflow(yolo_onnx):
    code = (
        "import sys, numpy, retinamask as rm\n"
        f"rm.load({str(yolo_onnx)!r}).detect(numpy.zeros((90, 90, 3), 'uint8'))\n"
        "assert not {'tensorflow', 'tf_keras', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_exported_is_refused(yolo, table, tiny, tmp_path):
    snapshot = yolo
    with pytest.raises(SnapshotError, match="int8 needs training and validation annotations, to compare"):
        export(snapshot, precision="int8", train=table)
    with pytest.raises(SnapshotError, match="float32 needs annotations"):
        export(snapshot)
    with pytest.raises(SnapshotError, match="to is tflite and precision float32, expected onnx or litert and"):
        export(snapshot, "tflite", train=table)
    with pytest.raises(SnapshotError, match=r"a.pb: expected a name that ends in .onnx"):
        export(snapshot, out=tmp_path / "a.pb", train=table)
    (tmp_path / "a.onnx").write_bytes(b"mine")
    with pytest.raises(SnapshotError, match="a.onnx exists; choose another name, or replace it with force"):
        export(snapshot, out=tmp_path / "a.onnx", train=table)
    assert (tmp_path / "a.onnx").read_bytes() == b"mine"


def test_an_export_that_finds_less_is_not_written(yolo, table, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("retinamask.exports._fault", lambda *_: "AP falls")
    with pytest.raises(SnapshotError, match="a.onnx is not written: AP falls; export anyway with force"):
        export(yolo, out=tmp_path / "a.onnx", val=table, folder=tiny)
    assert not list(tmp_path.iterdir())
    assert export(yolo, out=tmp_path / "a.onnx", val=table, folder=tiny, force=True).weights.exists()


def test_how_far_an_export_may_be_off():
    check = {"AP": [0.5, 0.4971], "boxes": 9, "boxes_lost": 0, "box_pixels": 0.4}
    assert _fault(check, "float32") is None and _fault({**check, "box_pixels": 3.0}, "int8") is None
    one_face = {"faces": 300, "accuracy": [0.967, 0.9637]}
    assert _fault(one_face, "int8") is None and "by more than 0.003" in _fault(one_face, "float32")
    assert "by more than 0.005" in _fault({"faces": 300, "accuracy": [0.967, 0.9603]}, "int8")
    assert _fault({**check, "AP": [0.5, 0.496]}, "int8") == "AP falls from 0.5000 to 0.4960, by more than 0.003"
    assert _fault({**check, "boxes_lost": 2}, "float32") == "2 of 9 boxes are lost, others are 0.4 px off"
    assert "accuracy falls" in _fault({"accuracy": [1.0, 0.9]}, "float32")


def test_files_that_are_no_exports_are_refused(yolo, table, tiny, yolo_onnx, tmp_path):
    path = yolo_onnx
    model = onnx.load(path)
    with pytest.raises(SnapshotError, match="none.onnx does not exist; expected an export"):
        rm.load(tmp_path / "none.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[: 2**16])
    with pytest.raises(SnapshotError, match=r"cut.onnx: not readable as ONNX"):
        rm.load(cut)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**metadata, "retinamask": metadata["retinamask"].replace("no_mask", "mask2")})
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(
        SnapshotError, match="changed.onnx: its metadata or weights are damaged or were changed; export"
    ):
        rm.load(tmp_path / "changed.onnx")
    flipped = onnx.load(path)
    weights = bytearray(flipped.graph.initializer[-1].raw_data)
    weights[0] ^= 1
    flipped.graph.initializer[-1].raw_data = bytes(weights)
    onnx.save(flipped, tmp_path / "flipped.onnx")
    with pytest.raises(SnapshotError, match="flipped.onnx: its metadata or weights are damaged"):
        rm.load(tmp_path / "flipped.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(SnapshotError, match="foreign.onnx was not exported by retinamask: it does not say"):
        rm.load(tmp_path / "foreign.onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type = "Convolve"
    exported.save(model, tmp_path / "unknown.onnx", snapshots.read(path).record)
    for backend in ("openvino", "onnxruntime"):
        with pytest.raises(SnapshotError, match=f"unknown.onnx: {backend} cannot run it .*; take another backend"):
            Predictor.load(tmp_path / "unknown.onnx", backend=backend)
    lite = export(yolo, "litert", out=tmp_path / "a.tflite", val=table, folder=tiny)
    lite.weights.write_bytes(lite.weights.read_bytes()[:-1])
    with pytest.raises(SnapshotError, match=r"a.tflite: SHA-256 differs from the one in a.tflite.json; export"):
        rm.load(lite.weights)
    (tmp_path / "a.tflite.json").unlink()
    with pytest.raises(SnapshotError, match=r"a.tflite.json does not exist, and a.tflite needs it"):
        rm.load(lite.weights)


def test_backends_and_precisions_that_are_not_there(yolo, yolo_onnx, tmp_path, monkeypatch):
    path = yolo_onnx
    with pytest.raises(SnapshotError, match="backend is litert, expected openvino or onnxruntime for .onnx"):
        Predictor.load(path, backend="litert")
    with pytest.raises(
        SnapshotError, match="onnx: precision is bfloat16, expected auto or float32 of onnxruntime; bfl"
    ):
        Predictor.load(path, backend="onnxruntime", precision="bfloat16")
    with pytest.raises(SnapshotError, match="precision is int8, expected auto or float32 or bfloat16 of openvino"):
        Predictor.load(path, precision="int8")
    with pytest.raises(SnapshotError, match="runs in TensorFlow in float32; backend and precision are of exports"):
        Predictor.load(yolo, backend="openvino")
    monkeypatch.setattr("retinamask.detectors.exported.find_spec", lambda _: None)
    with pytest.raises(SnapshotError, match="backend onnxruntime is not installed; install it with: pip install"):
        Predictor.load(path, backend="onnxruntime")


def test_bfloat16_is_measured_once(yolo, yolo_onnx, tmp_path, monkeypatch, capsys):
    path = yolo_onnx
    monkeypatch.setattr(faster_precision, "memory", lambda: tmp_path / "cache" / "precision.json")
    batch = np.zeros((1, 96, 96, 3), np.float32)
    network = Predictor.load(path).network
    network.measure(batch)
    told = capsys.readouterr().out
    again = Predictor.load(path).network
    again.measure(batch)
    assert not capsys.readouterr().out and again.precision == network.precision
    assert not told or told.startswith(f"precision: {network.precision}; ")  # a processor without bfloat16 has nothing
    assert Predictor.load(path, precision="bfloat16").network.precision == "bfloat16"
    before, expected = again._compiled, again.predict_on_batch(batch)
    with again.many(batch):
        assert again._compiled is not before
        for one, other in zip(again.predict_on_batch(batch), expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    assert again._compiled is before


def test_calls_are_not_computed_side_by_side_where_that_gives_other_numbers(yolo_onnx, tmp_path, monkeypatch):
    other = onnx.load(yolo_onnx)
    for tensor in other.graph.initializer:
        if len(tensor.dims) == 4:  # filters
            tensor.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(other, tmp_path / "other.onnx")
    network = Predictor.load(yolo_onnx, precision="float32").network
    right, wrong = network._compiled, openvino.Core().compile_model(str(tmp_path / "other.onnx"), "CPU")
    monkeypatch.setattr(network, "_load", lambda hint: setattr(network, "_compiled", wrong))
    batch = np.random.default_rng(0).random((1, 96, 96, 3), np.float32)
    with network.many(batch):
        assert network._compiled is right


def test_the_command_exports_and_says_what_it_compared(yolo, tiny, tmp_path, capsys):
    from retinamask.cli import main

    csv, out = str(tiny / "annotations.csv"), str(tmp_path / "a.onnx")
    assert main(["export", str(yolo.weights), "--val-annotations", csv, "--out", out]) == 0
    told = capsys.readouterr().out
    assert "exported: " in told and "export model, 96 px" in told and "compared: images 12, AP " in told
    message = "a.onnx is an export; expected the snapshot it was made from, yolov4_tiny.h5"
    with pytest.raises(SnapshotError, match=message):
        export(out, val=annotations.read_annotations(csv, CLASSES))
    for options in ([], ["--classes", "classes.csv"]):
        assert main(["convert", out, *options]) == 2
        assert message in capsys.readouterr().err


def test_boxes_are_pixels_of_the_image(table, tiny, yolo_onnx):
    path = yolo_onnx
    found = rm.load(path).detect(table, 0.0, folder=tiny)
    sizes = {name: images.image_size(tiny / name) for name in annotations.image_paths(table)}
    for row in objects(found).itertuples():
        assert 0 <= row.x1 < row.x2 <= sizes[row.image_path][0] and 0 <= row.y1 < row.y2 <= sizes[row.image_path][1]
