"""Learning, slowly: a network from random weights must know eight images by heart, and find faces it never saw."""

import pytest

from retinamask import detectors
from retinamask.dataset import annotations
from retinamask.dataset.formats import class_ids, read
from retinamask.dataset.sample import draw_sample
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.training.input_pipeline import Examples
from retinamask.training.settings import NO_AUGMENTATION, AugmentationSettings, TrainingSettings
from retinamask.training.train import train

# Name, settings and learning rate
RETINANET, YOLO = ("retinanet", {"normalisation": "live"}, 6e-4), ("yolov4_tiny", {}, 2e-3)
SLOWER_YOLO = ("yolov4_tiny", {}, 1e-3)  # at 2e-3 a face as large as its image gets a box beyond it, and keeps that


def overfit(kind, sources, folder, tmp_path, image_size: int) -> float:
    """Train on eight images that hold boxes and return the AP50 on the same."""
    table, _ = read("voc", sources, folder)
    paths = annotations.image_paths(annotations.objects(table))[:8]
    table = annotations.of_images(table, paths)
    return learnt(kind, table, table, folder, tmp_path, image_size, NO_AUGMENTATION)


def learnt(kind, train_table, test_table, folder, tmp_path, image_size: int, augmentation) -> float:
    """The AP50 after 200 updates."""
    name, its_own, learning_rate = kind
    detector = detectors.create(name, class_ids(train_table), image_size=image_size, **its_own)
    settings = TrainingSettings(
        epochs=5, steps=40, batch_size=4, learning_rate=learning_rate, augmentation=augmentation, evaluate_every=5
    )
    evaluate = epoch_evaluation(detector, test_table, folder)
    trained = train(Examples(train_table, folder, detector), settings, tmp_path / "learnt", evaluate=evaluate)
    return trained.log["AP50"].iloc[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RETINANET, YOLO])
def test_eight_drawn_images_are_learnt(kind, tmp_path):
    draw_sample(tmp_path / "scenes", images=12, size=256, seed=2)
    assert overfit(kind, [tmp_path / "scenes"], tmp_path, tmp_path, image_size=160) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RETINANET, SLOWER_YOLO])
def test_eight_photographs_are_learnt(kind, shared_data, tmp_path):
    assert overfit(kind, [shared_data / "praveen"], tmp_path, tmp_path, image_size=224) > 0.95


@pytest.mark.slow
def test_yolov4_tiny_finds_faces_in_scenes_that_it_never_saw(tmp_path):
    tables = []
    for part, images, seed in (("train", 96, 2), ("test", 32, 77)):
        draw_sample(tmp_path / part, images=images, size=256, seed=seed)
        tables.append(read("voc", [tmp_path / part], tmp_path)[0])
    assert learnt(YOLO, *tables, tmp_path, tmp_path, 160, AugmentationSettings()) > 0.6
