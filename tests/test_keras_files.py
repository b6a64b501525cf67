"""Whole-model files: hostile ones are refused before anything runs, honest ones of keras-retinanet are adopted."""

import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from retinamask.dataset import images
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import _keras, keras_retinanet, snapshots
from retinamask.inference.convert import adopt, convert
from retinamask.inference.detect import Predictor


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A snapshot as keras-retinanet's training writes it, and what its own command makes of it."""
    _keras.prepare()
    from keras_retinanet import losses, models

    folder = tmp_path_factory.mktemp("theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keras-retinanet's, and on Python 3.13 TensorFlow's
        _keras.prepare().utils.set_random_seed(1)
        network = models.backbone("resnet50").retinanet(len(CLASSES))
        # Away from the prior of 0.01, so that there are scores to compare.
        last = network.get_layer("classification_submodel").get_layer("pyramid_classification")
        last.bias.assign(np.random.default_rng(0).normal(-1, 1, last.bias.shape))
        network.compile("adam", {"regression": losses.smooth_l1(), "classification": losses.focal()})
        network.save(folder / "resnet50_csv_01.h5")
        keras_retinanet.run("convert-model", [str(folder / "resnet50_csv_01.h5"), str(folder / "converted.h5")])
    return folder


def test_their_files_are_described(theirs):
    training = keras_retinanet.describe(theirs / "resnet50_csv_01.h5")
    assert (training.kind, training.class_count, training.backbone, training.settings) == (
        "training",
        2,
        "resnet50",
        {},
    )
    converted = keras_retinanet.describe(theirs / "converted.h5")
    assert converted.kind == "inference" and converted.thresholds == {"score_threshold": 0.05, "nms_threshold": 0.5}
    assert converted.settings["sizes"] == (32, 64, 128, 256, 512)


def test_their_snapshot_detects_the_same_in_ours(theirs, tiny):
    from keras_retinanet import models
    from keras_retinanet.utils.image import preprocess_image, read_image_bgr, resize_image

    adopted = adopt(theirs / "resnet50_csv_01.h5", CLASSES, min_side=128, max_side=200)
    ours = Predictor.load(convert(adopted))
    also = Predictor.load(adopt(theirs / "converted.h5", CLASSES, min_side=128, max_side=200))
    path = tiny / "scenes" / "images" / "scene_0000.jpg"
    image, scale = resize_image(read_image_bgr(str(path)), min_side=128, max_side=200)
    loaded = models.load_model(str(theirs / "converted.h5"))
    boxes, scores, labels = loaded.predict_on_batch(preprocess_image(image)[None])
    inside = np.clip(boxes[0] / scale, 0, 96)
    real = (labels[0] >= 0) & (inside[:, 2:] > inside[:, :2]).all(axis=1)  # ours leaves empty boxes out
    assert real.any()
    for predictor in (ours, also):
        found = predictor([images.read_image(path)], suppress="per_class")[0]
        np.testing.assert_allclose(found.scores, scores[0][real], atol=1e-4)
        np.testing.assert_array_equal(found.labels, labels[0][real])
        np.testing.assert_allclose(found.boxes_xyxy, inside[real], atol=0.01)


def test_another_number_of_classes_is_refused(theirs):
    with pytest.raises(snapshots.SnapshotError, match="trained for 2 classes, found 1"):
        adopt(theirs / "resnet50_csv_01.h5", {"mask": 0})


def test_options_of_their_conversion_that_would_be_lost_are_refused(theirs, tmp_path):
    with pytest.warns(UserWarning, match="HDF5"):
        keras_retinanet.run("convert-model", [str(theirs / "resnet50_csv_01.h5"), str(tmp_path / "c.h5"), "--no-nms"])
    with pytest.raises(snapshots.SnapshotError, match="was converted with nms=False"):
        adopt(tmp_path / "c.h5", CLASSES)


def test_a_file_of_theirs_without_classes_says_what_to_do(theirs):
    with pytest.raises(snapshots.SnapshotError, match="retinamask convert .*resnet50_csv_01.h5 --classes classes.csv"):
        snapshots.read(theirs / "resnet50_csv_01.h5")


@pytest.mark.slow
# keras-retinanet leaves the images that it measures open
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_lambda_layer_is_refused_and_never_runs(tiny, tmp_path):
    keras = _keras.prepare()
    marker = str(tmp_path / "ran")
    layer = keras.layers.Lambda(lambda x: (open(marker, "w").close(), x)[1])  # noqa: SIM115
    model = keras.Sequential([keras.layers.Input((2,)), layer])
    with pytest.warns(UserWarning, match="HDF5"):
        model.save(tmp_path / "hostile.h5")
    Path(marker).unlink(missing_ok=True)
    with pytest.raises(snapshots.SnapshotError, match="names Lambda"):
        keras_retinanet.check(tmp_path / "hostile.h5")
    table, hostile = [str(tiny / "annotations.csv"), str(tiny / "classes.csv")], str(tmp_path / "hostile.h5")
    for command, arguments in (
        ("evaluate", ["csv", *table, hostile]),
        ("convert-model", [hostile, str(tmp_path / "out.h5")]),
    ):
        with pytest.raises(snapshots.SnapshotError, match="names Lambda"):
            keras_retinanet.run(command, arguments)
    assert not Path(marker).exists()


def write_config(path, config, change=None):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        if change:
            change(file)
    return path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"class_name": "Functional", "config": {"layers": [{"class_name": "TFOpLambda"}]}}, "names TFOpLambda"),
        ({"class_name": "Functional", "config": {"activation": {"class_name": "eval"}}}, "names eval"),
        ({"class_name": "Functional", "config": {"layers": []}}, "has no layer 'classification_submodel'"),
    ],
)
def test_configurations_that_are_no_retinanet(config, message, tmp_path):
    with pytest.raises(snapshots.SnapshotError, match=message):
        keras_retinanet.describe(write_config(tmp_path / "a.h5", config))


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.__setitem__("away", h5py.ExternalLink("/etc/passwd", "/x")),
        lambda file: file.__setitem__("soft", h5py.SoftLink("/elsewhere")),
        lambda file: file.create_dataset("out", (4,), "u1", external=[("/etc/hostname", 0, 4)]),
    ],
)
def test_links_out_of_the_file_are_refused(change, tmp_path):
    path = write_config(tmp_path / "linked.h5", {"class_name": "Functional", "config": {"layers": []}}, change)
    with pytest.raises(snapshots.SnapshotError, match="it is not loaded"):
        keras_retinanet.check(path)


@pytest.mark.parametrize(("content", "message"), [(b"text", "not readable as HDF5"), (None, "holds no whole model")])
def test_files_that_are_no_models(content, message, tmp_path):
    path = tmp_path / "a.h5"
    if content:
        path.write_bytes(content)
    else:
        h5py.File(path, "w").close()
    with pytest.raises(snapshots.SnapshotError, match=message):
        keras_retinanet.check(path)


def test_an_unknown_command_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="it has: train, evaluate, convert-model, debug"):
        keras_retinanet.run("fly", [])


# keras-retinanet leaves the images that it measures open
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_their_training_runs_on_our_csv_with_the_learning_rate_asked_for(tiny, tmp_path, monkeypatch, capsys):
    rates = []
    adam = _keras.prepare().optimizers.Adam
    init = adam.__init__

    def remembering(self, *arguments, **keywords):
        init(self, *arguments, **keywords)
        rates.append(float(self.learning_rate))

    remembering.accepts_lr = True
    monkeypatch.setattr(adam, "__init__", remembering)
    table = [str(tiny / "annotations.csv"), str(tiny / "classes.csv")]
    sides = ["--image-min-side", "96", "--image-max-side", "96", "--backbone", "mobilenet128_0.25"]
    with pytest.warns(UserWarning):
        keras_retinanet.run(
            "train",
            ["--no-weights", "--lr", "1e-5", "--epochs", "1", "--steps", "2", *sides]
            + ["--snapshot-path", str(tmp_path), "csv", *table, "--val-annotations", table[0]],
        )
    assert rates == [pytest.approx(1e-5)]
    snapshot = tmp_path / "mobilenet128_0.25_csv_01.h5"
    adopted = adopt(snapshot, CLASSES, backbone="mobilenet128_0.25", min_side=96, max_side=96)
    assert Predictor.load(adopted)([np.zeros((96, 96, 3), np.uint8)])[0].boxes_xyxy.shape[1] == 4
    with pytest.raises(snapshots.SnapshotError, match="its backbone is no ResNet and cannot be told; name it"):
        adopt(snapshot, CLASSES)
    with pytest.warns(UserWarning):
        keras_retinanet.run("convert-model", [str(snapshot), str(tmp_path / "c.h5"), "--backbone", "mobilenet128_0.25"])
    keras_retinanet.run("evaluate", [*sides, "csv", *table, str(tmp_path / "c.h5")])
    assert "mAP" in capsys.readouterr().out
