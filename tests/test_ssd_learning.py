"""SSD MobileNet V2 FPNLite learning, slowly: by heart, for images that it has not seen, and with sound statistics."""

import numpy as np
import pytest

from retinamask import detectors
from retinamask.dataset import annotations, images
from retinamask.dataset.formats import class_ids, read
from retinamask.dataset.sample import draw_sample
from retinamask.detectors import _keras
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.training.input_pipeline import Examples
from retinamask.training.settings import NO_AUGMENTATION, AugmentationSettings, TrainingSettings
from retinamask.training.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of 160 drawn scenes, their table, and a detector with 160 pixels for random weights."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_sample(folder / "scenes", images=160, size=256, seed=2)
    table, problems = read("voc", [folder / "scenes"], folder)
    assert problems == []
    settings = {"image_size": 160, "normalisation": "live"}
    return folder, table, detectors.create("ssd_mobilenet_v2_fpnlite", class_ids(table), **settings)


def trained_on(drawn, paths, steps: int, augmentation, stem):
    """The trained run, with random weights in the beginning."""
    folder, table, detector = drawn
    settings = TrainingSettings(
        epochs=1, steps=steps, batch_size=8, learning_rate=2e-3, augmentation=augmentation, cache="memory"
    )
    return train(Examples(annotations.of_images(table, paths), folder, detector), settings, stem)


def average_precision(drawn, paths, network) -> float:
    folder, table, detector = drawn
    return epoch_evaluation(detector, annotations.of_images(table, paths), folder)(network)["AP50"]


def test_eight_images_are_learnt_by_heart(drawn, tmp_path):
    paths = annotations.image_paths(annotations.objects(drawn[1]))[:8]
    last = trained_on(drawn, paths, 100, NO_AUGMENTATION, tmp_path / "eight").last
    assert average_precision(drawn, paths, detectors.load(last, "training")[1]) > 0.95


def test_images_that_it_has_not_seen_are_understood_and_its_statistics_are_sound(drawn, tmp_path):
    """One normalisation for all levels, or averages that lag behind, would train as well and then detect nothing."""
    paths = annotations.image_paths(drawn[1])
    seen, unseen = paths[:120], paths[120:]
    last = trained_on(drawn, seen, 240, AugmentationSettings(), tmp_path / "seen").last
    network = detectors.load(last, "training")[1]
    with_averages = average_precision(drawn, unseen, network)
    take_statistics(drawn, unseen, network)
    with_the_batch = average_precision(drawn, unseen, network)
    print(f"AP50 {with_averages:.3f} with the averages, {with_the_batch:.3f} with the batch")
    assert with_averages > 0.60
    assert abs(with_averages - with_the_batch) < 0.10


def take_statistics(drawn, paths, network) -> None:
    """Replace the moving averages of the normalisation by the statistics of these images in one batch."""
    keras = _keras.prepare()
    folder, _, detector = drawn
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    batch, _ = detector.prepare([images.read_image(folder / path) for path in paths])
    before = network.get_layer("head_norm_0_P3").moving_mean.numpy()
    network(batch, training=True)
    assert not np.allclose(before, network.get_layer("head_norm_0_P3").moving_mean.numpy())
