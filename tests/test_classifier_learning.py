"""The classifier learning, slowly: drawn faces from random numbers, and the same end after a stop in between."""

import numpy as np
import pandas as pd
import pytest

from retinamask import detectors
from retinamask.dataset.faces import cut_faces, read_face_folders, split_faces
from retinamask.dataset.formats import read
from retinamask.dataset.sample import CLASSES, draw_sample
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.evaluation.watchers import Watcher
from retinamask.training.input_pipeline import Examples
from retinamask.training.settings import AugmentationSettings, TrainingSettings
from retinamask.training.train import train

pytestmark = pytest.mark.slow

WARPED = AugmentationSettings(rotate=10, shift=0.1, shear=0.1, erase=0.2)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder of faces cut out of 400 drawn scenes, their split, and settings of a small network."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_sample(folder / "scenes", images=400, size=192, seed=2)
    table, problems = read("voc", [folder / "scenes"], folder)
    assert problems == []
    faces = cut_faces(table, folder, folder / "faces", classes=CLASSES).folder
    parts = split_faces(read_face_folders(faces).table, faces)
    settings = {"image_height": 64, "image_width": 64, "alpha": 0.35, "normalisation": "live", "momentum": 0.8}
    return faces, parts, settings


def run(drawn, stem, epochs: int, steps: int, augmentation=WARPED, dense=(32,), **options):
    faces, parts, small = drawn
    detector = detectors.create("mask_classifier", CLASSES, **small, dense=dense)
    settings = TrainingSettings(
        epochs=epochs, steps=steps, batch_size=16, learning_rate=5e-3, augmentation=augmentation, precision="float32"
    )
    evaluate = epoch_evaluation(detector, parts.val, faces)
    return train(Examples(parts.train, faces, detector), settings, stem, evaluate=evaluate, **options)


def test_drawn_faces_are_learnt_from_random_numbers(drawn, tmp_path):
    """Without hidden units, which at the rate that this takes often all end below zero and stay there."""
    trained = run(drawn, tmp_path / "seen", epochs=4, steps=80, augmentation=AugmentationSettings(), dense=())
    print(trained.log[["epoch", "loss", "accuracy", "val_loss"]])
    assert trained.log["accuracy"].max() >= 0.9
    assert trained.best.record["training"]["metrics"]["accuracy"] == trained.log["accuracy"].max()


class _Stop(Watcher):
    def after_epoch(self, row, network):
        raise KeyboardInterrupt


def test_a_run_that_was_stopped_ends_as_one_that_was_not(drawn, tmp_path):
    """Dropout and the warps too are the same then."""
    whole = run(drawn, tmp_path / "whole", epochs=2, steps=3)
    with pytest.raises(KeyboardInterrupt):
        run(drawn, tmp_path / "stopped", epochs=2, steps=3, watchers=[_Stop()])
    resumed = run(drawn, tmp_path / "stopped", epochs=2, steps=3, resume=True)
    one, other = (detectors.load(each.last, "training")[1].get_weights() for each in (whole, resumed))
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))
    columns = ["loss", "accuracy", "val_loss"]
    pd.testing.assert_frame_equal(whole.log[columns], resumed.log[columns])
