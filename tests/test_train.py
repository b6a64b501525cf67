"""Training: what a run leaves, that a step is what keras-retinanet's losses ask for, and what stops it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import BACKBONE, SMALL
from darknet_networks import SMALL_CFG

from retinamask import cli, detectors
from retinamask.dataset import annotations, copies, images
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import _keras, snapshots, starting_weights
from retinamask.evaluation.watchers import Watcher
from retinamask.training import checkpoints, distribution, input_pipeline
from retinamask.training.input_pipeline import Examples
from retinamask.training.learner import Learner
from retinamask.training.settings import (
    NO_AUGMENTATION,
    AugmentationSettings,
    TrainingError,
    TrainingSettings,
    settings_of,
)
from retinamask.training.train import check_same_run, explained, run_identity, train

PLAIN = {"batch_size": 4, "learning_rate": 1e-3, "schedule": "constant", "warm_up": 0.0, "seed": 1}


@pytest.fixture
def table(tiny):
    return annotations.read_annotations(tiny / "annotations.csv", CLASSES)


@pytest.fixture(scope="module")
def small():
    """A detector that is quick to build and to run, and learns from random weights."""
    return detectors.create("retinanet", CLASSES, backbone="mobilenet128_0.25", image_size=128, normalisation="live")


@pytest.fixture(scope="module")
def frozen():
    """The same with frozen normalisation, so that a batch gives the same numbers as its parts."""
    return detectors.create("retinanet", CLASSES, backbone="mobilenet128_0.25", image_size=128)


@pytest.fixture(scope="module")
def quick():
    """A detector that is built in a moment, where it does not matter which."""
    return detectors.create("yolov4_tiny", CLASSES, cfg=SMALL_CFG)


@pytest.fixture
def batch_of(table, tiny):
    """A function from a detector and settings to their first batch."""

    def first(detector, settings):
        examples = Examples(table, tiny, detector)
        return next(iter(input_pipeline.dealt_out(distribution.strategy(), examples, settings, 0)))

    return first


PLAIN_SETTINGS = TrainingSettings(**PLAIN)


def learner_of(detector, **settings) -> Learner:
    return Learner(detector, TrainingSettings(**{**PLAIN, **settings}), distribution.strategy(), "float32", "none")


def test_a_run_leaves_snapshots_a_log_and_a_record(trained, tiny, table):
    assert trained.best.weights.name == "tiny_best.h5" and trained.last.weights.name == "tiny_last.h5"
    assert trained.log[["epoch", "step"]].to_numpy().tolist() == [[1, 10], [2, 20]]
    assert {"loss", "localization_loss", "classification_loss", "AP50", "AR100", "learning_rate"} <= set(trained.log)
    assert (tiny / "log.csv").read_text().count("\n") == 3
    record = json.loads(trained.last.weights.with_suffix(".json").read_text())
    assert record["classes"] == CLASSES and record["settings"]["backbone"] == BACKBONE
    training = record["training"]
    assert training["training_table_fingerprint"] == annotations.fingerprint(table, CLASSES)
    assert training["parameters"]["seed"] == 5 and training["weights"] == {"source": "none"} and training["finished"]
    assert training["versions"]["keras-retinanet"] == "1.0.0"
    pictures = [images.read_image(tiny / path) for path in annotations.image_paths(table)]
    expected = {copies.packed_hashes(picture)[0].tobytes().hex() for picture in pictures}
    assert training["image_hashes"] == "".join(sorted(expected)) and len(expected) == 12
    judged = b"".join(copies.packed_hashes(picture)[0].tobytes() for picture in pictures[:2])
    assert training["val_image_hashes"] == judged.hex()
    assert not list(trained.last.weights.parent.glob("*checkpoint*"))


def test_the_learning_rate_asked_for_is_used(trained):
    assert trained.log["learning_rate"].tolist() == pytest.approx([1e-3, 1e-3])


def test_a_step_has_the_losses_that_keras_retinanet_computes(small, batch_of):
    from keras_retinanet import losses

    learner = learner_of(small)
    batch = batch_of(small, learner.settings)
    outputs = learner.network(small.network_input(batch["images"], batch["sizes_wh"]), training=True)
    offsets, classes = small.dense_targets(batch)
    expected = float(losses.smooth_l1()(offsets, outputs[0])), float(losses.focal()(classes, outputs[1]))
    found = learner.step(batch, 0)
    assert float(found["localization_loss"]) == pytest.approx(expected[0], rel=1e-5)
    assert float(found["classification_loss"]) == pytest.approx(expected[1], rel=1e-5)
    assert float(found["total_loss"]) == pytest.approx(sum(expected), rel=1e-5)


def test_a_batch_in_parts_has_the_gradients_of_the_whole(frozen, batch_of):
    import tensorflow as tf

    losses, gradients = [], []
    for learner in (learner_of(frozen), learner_of(frozen, accumulate=4)):
        taken = [tf.Variable(tf.zeros_like(weight)) for weight in learner.network.trainable_weights]
        learner.optimizer.apply = lambda given, _, taken=taken: [one.assign(g) for one, g in zip(taken, given)]  # noqa: B905
        losses.append(float(learner.step(batch_of(frozen, PLAIN_SETTINGS), 0)["total_loss"]))
        gradients.append([one.numpy() for one in taken])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] > 1
    for gradient, in_parts in zip(*gradients, strict=True):
        scale = np.abs(gradient).max()
        assert scale > 0 and np.abs(gradient - in_parts).max() < 1e-4 * scale


def test_averages_follow_the_weights_as_worked_out_by_hand(quick, batch_of):
    learner = learner_of(quick, ema=0.9)
    expected = learner.network.get_weights()
    for step in range(3):
        learner.step(batch_of(quick, learner.settings), step)
        kept = (0.1, 2 / 11, 3 / 12)[step]  # (1 + step) / (10 + step) is below 0.9 so early
        pairs = zip(expected, learner.network.get_weights(), strict=True)
        expected = [kept * average + (1 - kept) * weight for average, weight in pairs]
    for shown, average in zip(learner.shown().get_weights(), expected, strict=True):
        np.testing.assert_allclose(shown, average, rtol=1e-4, atol=1e-6)
    assert learner.shown() is not learner.network and learner.shown() is learner.shown()


def test_a_resting_backbone_stays_as_it_is_and_wakes_up(small, batch_of):
    learner = learner_of(small)
    batch, first = batch_of(small, learner.settings), learner.network.get_layer("conv1").get_weights()[0]
    learner.freeze_backbone(True)
    before = learner.network.get_layer("P3").get_weights()[0]
    learner.step(batch, 0)
    np.testing.assert_array_equal(learner.network.get_layer("conv1").get_weights()[0], first)
    assert not np.array_equal(learner.network.get_layer("P3").get_weights()[0], before)
    learner.freeze_backbone(False)
    learner.step(batch, 1)
    assert not np.array_equal(learner.network.get_layer("conv1").get_weights()[0], first)


def test_frozen_normalisation_stays_frozen_when_the_backbone_wakes_up(frozen):
    keras = _keras.prepare()
    network = frozen.network()
    frozen.freeze_backbone(network, True)
    frozen.freeze_backbone(network, False)
    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert layers and not any(layer.trainable for layer in layers)


def run_of(small, table, tiny, stem, evaluate=None, resume=False, watchers=(), **settings):
    chosen = {**PLAIN, "epochs": 3, "steps": 2, "batch_size": 2, **settings}
    return train(Examples(table, tiny, small), TrainingSettings(**chosen), stem, evaluate=evaluate, resume=resume,
                 watchers=watchers, log_csv=f"{stem}_log.csv")  # fmt: skip


class StopAt(Watcher):
    """Ends training from outside in a given step."""

    def __init__(self, step: int):
        self.at = step

    def started(self, run):
        run.SECONDS_BETWEEN_REPORTS = 0.0

    def after_step(self, step, figures):
        if step == self.at:
            raise KeyboardInterrupt


class TerminateAt(StopAt):
    def after_step(self, step, figures):
        if step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_sigterm_ends_training_with_one_line_and_leaves_what_resumes(quick, table, tiny, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="^training stopped; resume continues from .*x_checkpoint-00000002"):
        run_of(quick, table, tiny, tmp_path / "x", watchers=[TerminateAt(3)], epochs=2)
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(run_of(quick, table, tiny, tmp_path / "x", resume=True, epochs=2).log) == 2


def test_pictures_are_remembered_through_a_stop_and_a_second_training(quick, table, tiny, tmp_path, monkeypatch):
    """Of the first six scenes in a run that is resumed, and of all in one that starts from it with the rest."""
    paths = annotations.image_paths(table)
    first, rest = (annotations.of_images(table, chosen) for chosen in (paths[:6], paths[6:]))
    with pytest.raises(KeyboardInterrupt):
        run_of(quick, first, tiny, tmp_path / "x", watchers=[StopAt(3)], epochs=2)
    with monkeypatch.context() as patched:
        patched.setattr("retinamask.training.train.hash_images", None)  # hashed once, at the start
        last = run_of(quick, first, tiny, tmp_path / "x", resume=True, epochs=2).last
    known = snapshots.image_hashes(last)
    assert known.shape == (6, 10)
    examples, settings = Examples(rest, tiny, quick), TrainingSettings(**{**PLAIN, "epochs": 1, "steps": 1})
    second = snapshots.image_hashes(train(examples, settings, tmp_path / "y", str(last.weights)).last)
    assert second.shape == (12, 10) and {each.tobytes() for each in known} < {each.tobytes() for each in second}
    forgetful = snapshots.copy(last, tmp_path / "forgetful.h5", {"image_hashes": None})
    third = train(examples, settings, tmp_path / "z", str(forgetful.weights)).last
    assert snapshots.image_hashes(third) is None, "a list of the second pictures alone would look complete"


def test_a_stop_is_one_line_on_the_command_line(monkeypatch, capsys):
    def stopped(given):
        raise KeyboardInterrupt("training stopped; resume continues from x")

    monkeypatch.setattr("retinamask.commands.training.train_command", stopped)
    assert cli.main(["train", "a.csv", "classes.csv"]) == 130
    assert capsys.readouterr().err == "retinamask: training stopped; resume continues from x\n"


@pytest.mark.slow  # as test_survival, where a process is killed
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(small, table, tiny, tmp_path, capsys):
    more = {"ema": 0.9, "freeze_epochs": 1, "optimizer": "adamw", "schedule": "cosine", "checkpoint_minutes": 0.0}
    whole = run_of(small, table, tiny, tmp_path / "whole", **more)
    with pytest.raises(KeyboardInterrupt):
        run_of(small, table, tiny, tmp_path / "torn", watchers=[StopAt(4)], **more)
    resumed = run_of(small, table, tiny, tmp_path / "torn", resume=True, **more)
    assert "resuming after step" in capsys.readouterr().out
    for end in ("best", "last"):
        one, other = (detectors.load(getattr(run, end), "training")[1].get_weights() for run in (whole, resumed))
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)), end
    first = small.network(PLAIN["seed"]).get_layer("conv1").get_weights()[0]
    assert not np.array_equal(detectors.load(whole.last, "training")[1].get_layer("conv1").get_weights()[0], first)
    timeless = [run.log.drop(columns="seconds") for run in (whole, resumed)]
    assert timeless[0].equals(timeless[1])


def test_a_run_that_is_over_is_not_trained_again(trained, tiny, table, capsys):
    detector = detectors.restore(trained.last)
    stem = trained.last.weights.with_name("tiny")
    parameters = trained.last.record["training"]["parameters"]
    settings = settings_of({**parameters, **parameters["augmentation"]})
    again = train(Examples(table, tiny, detector), settings, stem, log_csv=tiny / "log.csv", resume=True)
    assert again.last.record == trained.last.record and len(again.log) == 2
    assert "has finished, with epoch 2" in capsys.readouterr().out


def test_another_run_is_not_resumed(small, table, tiny, tmp_path):
    before = run_identity(Examples(table, tiny, small), PLAIN_SETTINGS, "none")
    checkpoints.save(tmp_path / "x", 3, {}, {"record": {"identity": before}})
    with pytest.raises(TrainingError, match="learning_rate: 0.001 then, 0.01 now"):
        run_of(small, table, tiny, tmp_path / "x", resume=True, **{**PLAIN, "learning_rate": 1e-2})


def test_a_batch_that_does_not_fit_is_said_to_be_cut(quick, table, tiny, tmp_path, monkeypatch):
    import tensorflow

    def too_large(*_):
        raise tensorflow.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr("retinamask.training.learner.Learner.step", too_large)
    with pytest.raises(TrainingError, match="a part of 2 images does not fit into memory; .*accumulate=2"):
        run_of(quick, table, tiny, tmp_path / "x")


def test_decoded_images_that_vanish_are_made_anew_by_resuming(quick, table, tiny, tmp_path):
    examples = Examples(table, tiny, quick, cache="file")
    Path(examples.pixels.where).write_bytes(b"something else")
    settings = TrainingSettings(**{**PLAIN, "epochs": 1, "steps": 1})
    with pytest.raises(TrainingError, match="decoded images was damaged or removed while it was in use; resume"):
        train(examples, settings, tmp_path / "x")
    shutil.rmtree(Path(examples.pixels.where).parent)


@pytest.mark.parametrize(
    ("parts", "advice"),
    [(2, r"a part of 3 images .*accumulate=3"), (6, "a part of 1 images .*; take a smaller image_")],
)
def test_advice_for_a_batch_that_does_not_fit_can_be_followed(tmp_path, parts, advice):
    with (
        pytest.raises(TrainingError, match=advice),
        explained(TrainingSettings(batch_size=6, accumulate=parts), tmp_path),
    ):
        raise MemoryError


def test_a_disk_that_is_full_is_said_to_be(tmp_path):
    with (
        pytest.raises(TrainingError, match="the disk is full; free space, then resume. The last good .*log.csv"),
        explained(TrainingSettings(), tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "log.csv")
    with pytest.raises(FileNotFoundError), explained(TrainingSettings(), tmp_path):
        raise FileNotFoundError("gone")


@pytest.mark.parametrize("more", [{"early_stop": 2}, {"schedule": "plateau"}])
def test_what_goes_by_the_ap50_is_refused_where_nothing_measures_it(small, table, tiny, tmp_path, more):
    with pytest.raises(TrainingError, match="go by AP50 or accuracy, and there is nothing to measure it on"):
        run_of(small, table, tiny, tmp_path / "x", **more)


def test_a_run_is_not_resumed_with_fewer_images(small, table, tiny, tmp_path):
    examples = Examples(table, tiny, small)
    identity = run_identity(examples, PLAIN_SETTINGS, "none")
    checkpoints.save(tmp_path / "x", 3, {}, {"record": {"identity": identity}})
    examples.paths.pop()
    with pytest.raises(TrainingError, match="readable images: 12 then, 11 now"):
        train(examples, PLAIN_SETTINGS, tmp_path / "x", resume=True)


def test_a_run_of_an_earlier_version_goes_on_where_later_settings_are_at_their_defaults(small, table, tiny, tmp_path):
    def identity(**multi_scale):
        settings = TrainingSettings(**PLAIN, augmentation=AugmentationSettings(**multi_scale))
        return json.loads(json.dumps(run_identity(Examples(table, tiny, small), settings, "none")))

    before = identity()
    del before["augmentation"]["multi_scale"], before["early_stop"]
    check_same_run(before, identity(), tmp_path / "x")
    with pytest.raises(TrainingError, match="'multi_scale': 1.0, .* then"):
        check_same_run(before, identity(multi_scale=1.4), tmp_path / "x")


def test_earlier_snapshots_are_not_overwritten(trained, small, table, tiny):
    with pytest.raises(TrainingError, match="tiny_best.h5 exists; choose another run name"):
        train(Examples(table, tiny, small), TrainingSettings(), trained.best.weights.with_name("tiny"))


def test_a_name_that_keras_would_not_read_again_is_refused(small, tmp_path):
    with pytest.raises(snapshots.SnapshotError, match="not in .weights.h5"):
        snapshots.save(None, tmp_path / "a.weights.h5", {})


def test_a_class_that_the_detector_lacks_is_named(small, tiny):
    other = annotations.make_table([("a.jpg", 1, 1, 9, 9, "hat")])
    with pytest.raises(annotations.AnnotationError, match="class 'hat' is not among the classes"):
        Examples(other, tiny, small)


def write_image(folder, name, size_wh=(160, 120)):
    pixels = np.random.default_rng(0).integers(0, 255, (size_wh[1], size_wh[0], 3), np.uint8)
    cv2.imwrite(str(folder / name), pixels)


def examples_of(rows, folder, detector):
    for name in {row[0] for row in rows}:
        write_image(folder, name)
    return Examples(annotations.make_table(rows), folder, detector)


BOXES = [
    ("a.jpg", 200, 100, 260, 150, "mask"),  # outside an image of 160 x 120
    ("b.jpg", 20, 10, 50, 40, "mask"),  # 12 pixels at a size of 64, the smallest anchors have 32
    ("c.jpg", 20, 10, 120, 110, "mask"),
    ("c.jpg", 150, 100, 260, 150, "mask"),
    ("d.jpg", *[None] * 5),
]


@pytest.mark.parametrize("name", ["retinanet", "ssd_mobilenet_v2_fpnlite"])
def test_what_training_will_learn_is_said(name, tmp_path, caplog):
    detector = detectors.create(name, {"mask": 0, "no_mask": 1}, image_size=64)
    examples = examples_of(BOXES, tmp_path, detector)
    assert examples.paths == ["b.jpg", "c.jpg", "d.jpg"]
    assert "left out of training: a.jpg: all of its boxes lie outside the image of 160 x 120 pixels" in caplog.text
    assert [each.shape for each in examples.boxes] == [(1, 4), (2, 4), (0, 4)]
    assert examples.summary().splitlines() == [
        "learning from 3 images, 1 of them without a box, and 3 boxes: mask 3, no_mask 0",
        "1 of 3 boxes can be learnt at 64 x 64 pixels; the rest reach no anchor (none overlaps them by half) and "
        "are never learnt: take a larger image_size",
        "1 image(s) left out, named above",
        "nothing to learn for no_mask: the training table has no boxes of it",
    ]
    kept = examples.pixels.read(1)
    np.testing.assert_array_equal(kept, detector_pixels(tmp_path / "c.jpg", detector))


def detector_pixels(path, detector):
    image_rgb = images.read_image(path)
    return images.resize(image_rgb, detector.scale(image_rgb.shape[1::-1]))


@pytest.mark.parametrize("name", ["retinanet", "ssd_mobilenet_v2_fpnlite"])
def test_boxes_that_reach_an_anchor_are_those_that_the_matcher_matches(name, table, tiny):
    detector = detectors.create(name, CLASSES, image_size=96)
    examples = Examples(table, tiny, detector)
    boxes, sizes_wh = np.concatenate(examples.boxes), np.tile([[96, 96]], (sum(map(len, examples.boxes)), 1))
    labels, each = np.zeros((len(boxes), 1), np.int32), np.int32(sizes_wh)
    matched = detector.targets(boxes[:, None], labels, each, (96, 96))["matched"].numpy()  # each box alone
    found = detector.reached(boxes, np.arange(len(boxes)), sizes_wh)
    np.testing.assert_array_equal(found, (matched >= 0).any(axis=1))
    assert 0 < np.count_nonzero(found) < len(found)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (BOXES[1:2], "nothing to learn: 0 of 1 boxes can be learnt at 64 x 64 pixels; .*take a larger image_size"),
        (BOXES[4:], "nothing to learn: none of the 1 images has a box that lies inside it"),
        (BOXES[:1], "none of the images below .* can be used:\na.jpg: all of its boxes lie outside"),
    ],
)
def test_nothing_to_learn_is_refused_before_anything_is_written(rows, message, tmp_path):
    detector = detectors.create("ssd_mobilenet_v2_fpnlite", CLASSES, image_size=64, alpha=0.35)
    with pytest.raises(ValueError, match=message):
        train(examples_of(rows, tmp_path, detector), PLAIN_SETTINGS, tmp_path / "out" / "x")
    assert not (tmp_path / "out").exists()


def test_a_classifier_is_told_its_images_of_each_class(tmp_path):
    detector = detectors.create("mask_classifier", {"mask": 0, "no_mask": 1, "other": 2})
    rows = [(f"{number}.jpg", 0, 0, 160, 120, "mask" if number else "no_mask") for number in range(3)]
    assert examples_of(rows, tmp_path, detector).summary().splitlines() == [
        "learning from 3 images: mask 2, no_mask 1, other 0",
        "nothing to learn for other: the training table has no images of it",
    ]


@pytest.mark.parametrize(
    ("name", "weights", "settings", "message"),
    [
        ("retinanet", "imagnet", {}, "weights is 'imagnet', expected none, imagenet, coco or the path"),
        ("ssd_mobilenet_v2_fpnlite", "coco", {}, "no coco weights .* take none or imagenet, or give a file"),
        ("yolov4_tiny", "imagenet", {}, "no imagenet weights .* take none or coco, or give a file"),
        ("mask_classifier", "coco", {}, "no coco weights .* take none or imagenet"),
        ("retinanett", "none", {}, "no detector named 'retinanett'; there are: retinanet, "),
        ("retinanet", "none", {"alpha": 0.5}, "retinanet has no alpha; it has backbone, "),
        ("retinanet", "none", {"image_size": 10}, "image_size is 10, expected 64 to 4096"),
    ],
)
def test_a_wrong_start_is_refused_at_once(name, weights, settings, message):
    with pytest.raises(ValueError, match=message):
        detectors.check_start(name, weights, **settings)
    with pytest.raises(ValueError, match=message):
        detectors.create_for(name, CLASSES, weights, **settings)


def test_a_start_is_checked_without_tensorflow():
    code = "import sys; from retinamask import detectors; detectors.check_start('retinanet', 'coco', image_size=64)"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'tensorflow' not in sys.modules"], check=True)


def test_published_weights_are_fetched_before_anything_else(monkeypatch):
    def unreachable(self, name):
        raise starting_weights.WeightsError(f"{name} could not be downloaded")

    monkeypatch.setattr(type(detectors.create("retinanet", CLASSES)), "published_weights", unreachable)
    with pytest.raises(starting_weights.WeightsError, match="imagenet could not be downloaded"):
        detectors.create_for("retinanet", CLASSES, "imagenet")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"steps": -1}, "steps is -1, expected at least 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, expected 1e-09 to 10"),
        ({"balance": "yes"}, "balance is 'yes', expected True or False"),
        ({"schedule": "stairs"}, "schedule is 'stairs', expected one of: cosine, step, plateau, constant"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"batch_size": 4, "accumulate": 3}, "batch_size 4 does not divide into accumulate 3"),
        ({"flip": 1.5}, "flip is 1.5, expected 0 to 1"),
        ({"epochs": 2.5}, "epochs is 2.5, expected a whole number"),
        ({"batch_size": "4"}, "batch_size is '4', expected a whole number"),
        ({"steps": True}, "steps is True, expected a whole number"),
        ({"gradient_clip": float("inf")}, "gradient_clip is inf, expected a finite number"),
        ({"contrast": None}, "contrast is None, expected a finite number"),
        ({"seed": 2**32}, "seed is 4294967296, expected 0 to 4294967295"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        settings_of(settings)


def test_settings_are_picked_from_named_values():
    settings = settings_of({"epochs": 3, "mosaic": 0.5, "other": 1})
    assert (settings.epochs, settings.augmentation.mosaic, settings.batch_size) == (3, 0.5, 4)
    assert settings_of({"augment": False}).augmentation == NO_AUGMENTATION


def test_weights_of_another_class_count_fit_in_part(trained, capsys):
    detector = detectors.create("retinanet", {"face": 0}, **SMALL)
    network = detector.network(seed=1)
    loaded = starting_weights.start(network, detector, str(trained.last.weights))
    assert loaded["in_part"] == ["classification_submodel"] and loaded["layers"] > 30
    assert "in part only: classification_submodel" in capsys.readouterr().out
    theirs = detectors.load(trained.last, "training")[1]
    for name in ("conv1", "P4", "regression_submodel"):
        for one, other in zip(network.get_layer(name).get_weights(), theirs.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_slip_in_weights_is_named_before_anything_is_built():
    with pytest.raises(
        starting_weights.WeightsError, match="weights is 'imagnet', expected none, imagenet, coco or the path"
    ):
        detectors.check_start("retinanet", "imagnet")
