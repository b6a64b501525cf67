"""Validation while training: the figures of a plain detection, files read once, and nothing else touched."""

import random

import numpy as np
import pytest
from PIL import Image

import retinamask as rm
from retinamask import detectors
from retinamask.dataset import annotations, images
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import _keras
from retinamask.detectors.retinanet import RetinaNet
from retinamask.evaluation import coco, in_training
from retinamask.inference.detect import Predictor, detect


@pytest.fixture(scope="module")
def small():
    """A detector that is quick to build, and its network; it sees something everywhere."""
    detector = detectors.create("retinanet", CLASSES, backbone="mobilenet128_0.25", image_size=96, normalisation="live")
    network = detector.network(seed=2)
    set_bias(network, 0.0)
    return detector, network


@pytest.fixture
def table(tiny):
    return annotations.read_annotations(tiny / "annotations.csv", CLASSES)


@pytest.fixture
def read(monkeypatch):
    """The names of the files that validation reads, in a list that grows."""
    names, read_image = [], images.read_image
    monkeypatch.setattr(images, "read_image", lambda path: (names.append(path.name), read_image(path))[1])
    return names


def set_bias(network, bias: float) -> None:
    """Make every anchor score ``sigmoid(bias)`` or so."""
    layer = network.get_layer("classification_submodel").get_layer("pyramid_classification")
    layer.bias.assign(np.full(layer.bias.shape, bias, np.float32))


def test_the_figures_are_those_of_detecting_in_the_files(small, table, tiny):
    detector, network = small
    evaluate = in_training.epoch_evaluation(detector, table, tiny)
    figures = evaluate(network)
    predictor = Predictor(detector, evaluate._predictor.network)
    found, _ = detect(predictor, annotations.image_paths(table), tiny, batch_size=4, suppress="per_class")
    expected = coco.evaluate(table, found, CLASSES)
    assert len(annotations.objects(found)) > 100 and expected["AP50"] > 0
    names = [f"{figure}/{name}" for figure in ("AP50", "threshold") for name in CLASSES]
    assert list(figures) == [*coco.MEANINGS, *names]
    assert {name: figures[name] for name in coco.MEANINGS} == {name: expected[name] for name in coco.MEANINGS}
    assert [figures[f"AP50/{name}"] for name in CLASSES] == [expected["per_class"][name]["AP50"] for name in CLASSES]
    best = rm.evaluate(evaluate.detections, table, CLASSES).thresholds
    assert {name: figures[f"threshold/{name}"] for name in CLASSES} == {name: best.get(name) for name in CLASSES}
    annotations.pd.testing.assert_frame_equal(evaluate.detections, found)


def test_files_are_read_once_and_weights_each_time(small, table, tiny, read):
    detector, network = small
    evaluate = in_training.epoch_evaluation(detector, table, tiny)
    evaluate(network)
    assert sorted(read) == sorted(path.rsplit("/")[-1] for path in annotations.image_paths(table))
    before, predictor = evaluate.detections, evaluate._predictor
    set_bias(network, 3.0)
    try:
        evaluate(network)
    finally:
        set_bias(network, 0.0)
    assert len(read) == 12 and evaluate._predictor is predictor
    assert evaluate.detections["score"].mean() > before["score"].mean() + 0.2


def test_what_has_no_room_in_memory_is_read_again(small, table, tiny, read, monkeypatch):
    detector, network = small
    monkeypatch.setattr(in_training, "KEPT_BYTES", 7 * 96 * 96 * 3 + 1)
    evaluate = in_training.epoch_evaluation(detector, table, tiny)
    first = evaluate(network)
    assert len(read) == 12
    assert evaluate(network) == first and len(read) == 12 + 5


class Silent:
    """A decoded network that never finds anything."""

    def predict_on_batch(self, batch):
        return np.zeros((len(batch), 300, 4)), np.zeros((len(batch), 300, len(CLASSES)))


def test_another_network_is_judged_by_its_own_weights(small, table, tiny):
    detector, network = small
    evaluate = in_training.epoch_evaluation(detector, table, tiny)
    assert evaluate(network)["AP50"] > 0
    assert evaluate(Silent())["AP50"] == 0 and annotations.objects(evaluate.detections).empty
    assert len(evaluate.detections) == 12


def test_training_goes_on_as_if_nothing_had_been_evaluated(small, table, tiny):
    keras = _keras.prepare()
    import tensorflow

    detector, network = small
    weights = network.get_weights()

    def drawn(between) -> list[float]:
        keras.utils.set_random_seed(7)
        between()
        by_keras = keras.initializers.GlorotUniform()((1, 1))
        return [float(tensorflow.random.uniform([])), by_keras.numpy().item(), np.random.rand(), random.random()]

    def evaluated():
        evaluate = in_training.epoch_evaluation(RetinaNet(CLASSES, detector.settings), table, tiny)
        assert evaluate(network)["AP50"] > 0  # with an inference network of its own

    assert drawn(evaluated) == drawn(lambda: None)
    for one, other in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_image_that_cannot_be_read_counts_as_without_detections(small, table, tiny, tmp_path, caplog):
    detector, network = small
    scenes = annotations.image_paths(annotations.objects(table))[:2]
    for name, path in zip(("a.png", "b.png"), scenes, strict=True):
        Image.open(tiny / path).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:500])
    short = annotations.of_images(table, scenes).replace({scenes[0]: "a.png", scenes[1]: "b.png"})
    evaluate = in_training.epoch_evaluation(detector, short, tmp_path)
    first = evaluate(network)
    assert evaluate(network) == first and list(evaluate.unreadable) == ["b.png"]
    alone = in_training.epoch_evaluation(detector, annotations.of_images(short, ["a.png"]), tmp_path)
    assert first["AR100"] < alone(network)["AR100"]
    assert caplog.text.count("b.png: damaged image") == 1  # said once, not in each epoch
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(annotations.AnnotationError, match=r"none of the 2 validation images can be read.*[ab].png"):
        in_training.epoch_evaluation(detector, short, tmp_path)(network)


def test_what_cannot_be_evaluated_is_said_at_once(small, table, tmp_path):
    with pytest.raises(annotations.AnnotationError, match="holds no box"):
        in_training.epoch_evaluation(small[0], annotations.make_table([("a.jpg", *[None] * 5)]), tmp_path)
    with pytest.raises(annotations.AnnotationError, match="none of the 12 validation images is below"):
        in_training.epoch_evaluation(small[0], table, tmp_path)
