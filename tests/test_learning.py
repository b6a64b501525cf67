"""Learning, slowly: a network from random weights must be able to know eight images by heart."""

import pytest

from retinamask import detectors
from retinamask.dataset import annotations
from retinamask.dataset.formats import class_ids, read_voc
from retinamask.dataset.sample import draw_sample
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.training.examples import Examples
from retinamask.training.settings import NO_AUGMENTATION, TrainingSettings
from retinamask.training.train import train


def overfit(sources, folder, tmp_path, image_size: int) -> float:
    """Train on eight images that hold boxes and return the AP50 on the same."""
    table, _ = read_voc(sources, folder)
    paths = annotations.image_paths(annotations.objects(table))[:8]
    table = annotations.of_images(table, paths)
    classes = class_ids(table)
    detector = detectors.create("retinanet", classes, image_size=image_size, normalisation="live")
    settings = TrainingSettings(
        epochs=5, steps=40, batch_size=4, learning_rate=6e-4, augmentation=NO_AUGMENTATION, evaluate_every=5
    )
    evaluate = epoch_evaluation(detector, table, folder)
    trained = train(Examples(table, folder, detector), settings, tmp_path / "eight", evaluate=evaluate)
    return trained.log["AP50"].iloc[-1]


@pytest.mark.slow
def test_eight_drawn_images_are_learnt(tmp_path):
    draw_sample(tmp_path / "scenes", images=12, size=256, seed=2)
    assert overfit([tmp_path / "scenes"], tmp_path, tmp_path, image_size=160) > 0.95


@pytest.mark.slow
def test_eight_photographs_are_learnt(shared_data, tmp_path):
    assert overfit([shared_data / "praveen"], tmp_path, tmp_path, image_size=224) > 0.95
