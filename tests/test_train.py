"""Training: what a run leaves, the learning rate that was asked for, and what stops it."""

import json

import numpy as np
import pytest

from retinamask import detectors
from retinamask.dataset import annotations, images
from retinamask.dataset.sample import CLASSES
from retinamask.detectors import _keras, snapshots, weights
from retinamask.training.input_pipeline import Examples, augmented, batches
from retinamask.training.train import EpochRecorder, TrainingError, TrainingSettings, computing, make_optimizer, train


@pytest.fixture
def table(tiny):
    return annotations.read_annotations(tiny / "annotations.csv", CLASSES)


@pytest.fixture(scope="module")
def small():
    """A detector that is quick to build and to run."""
    return detectors.create("retinanet", CLASSES, backbone="mobilenet128_0.25", image_size=96, normalisation="live")


def test_a_run_leaves_snapshots_a_log_and_a_record(trained, tiny, table):
    assert trained.best.weights.name == "tiny_best.h5" and trained.last.weights.name == "tiny_last.h5"
    assert list(trained.log["epoch"]) == [1, 2]
    assert {"loss", "regression_loss", "classification_loss", "AP50", "learning_rate"} <= set(trained.log)
    assert (tiny / "log.csv").read_text().count("\n") == 3
    record = json.loads(trained.last.weights.with_suffix(".json").read_text())
    assert record["classes"] == CLASSES and record["settings"]["backbone"] == "resnet50"
    training = record["training"]
    assert training["training_table_fingerprint"] == annotations.fingerprint(table, CLASSES)
    assert training["parameters"]["seed"] == 5 and training["weights"] == "none"
    assert training["versions"]["keras-retinanet"] == "1.0.0"


def test_the_learning_rate_asked_for_is_used(trained):
    assert trained.log["learning_rate"].tolist() == pytest.approx([3e-4, 3e-4])


def test_the_cosine_schedule_warms_up_and_falls():
    settings = TrainingSettings(epochs=10, learning_rate=1e-3)
    schedule = make_optimizer(_keras.prepare(), settings, steps=20).learning_rate
    rates = [float(schedule(step)) for step in range(201)]
    assert max(rates) == pytest.approx(1e-3) and rates.index(max(rates)) == 20
    assert rates[0] == pytest.approx(1e-4) and rates[-1] == pytest.approx(1e-5)
    assert rates[110] == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-3)  # half way down, by the cosine


def test_the_same_seed_gives_the_same_batches(small, table, tiny):
    examples = Examples(table, tiny, small)
    first, second = (batches(examples, 4, np.random.default_rng(9)) for _ in range(2))
    for _ in range(4):
        (one, targets), (other, others) = next(first), next(second)
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(targets["regression"], others["regression"])


def test_every_image_is_shown_once_an_epoch(small, table, tiny):
    examples = Examples(table, tiny, small)
    shown = []
    examples.load = lambda path: (shown.append(path), Examples.load(examples, path))[1]
    drawn = batches(examples, 4, np.random.default_rng(0))
    for _ in range(3):
        next(drawn)
    assert sorted(shown) == sorted(annotations.image_paths(table))


def test_the_batch_is_what_inference_prepares(small, table, tiny):
    examples = Examples(table, tiny, small)
    batch, _ = next(batches(examples, len(examples), np.random.default_rng(0), augment=False))
    paths = [examples.paths[i] for i in np.random.default_rng(0).permutation(len(examples))]
    prepared, _ = small.prepare([images.read_image(tiny / path) for path in paths])
    np.testing.assert_array_equal(batch, prepared)


def test_a_flip_takes_the_boxes_along():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    boxes = np.array([[1.0, 0, 3, 2]])
    flipped = [augmented(image, boxes, np.array([0]), np.random.default_rng(seed))[1] for seed in range(8)]
    assert {tuple(box[0]) for box in flipped} == {(1, 0, 3, 2), (3, 0, 5, 2)}
    assert boxes.tolist() == [[1, 0, 3, 2]]


def test_a_damaged_image_is_left_out_and_named(small, table, tiny, caplog):
    more = annotations.make_table([("missing.jpg", 1, 1, 9, 9, "mask")])
    both = annotations.pd.concat([table, more], ignore_index=True)
    examples = Examples(both, tiny, small)
    assert len(examples) == 12 and "missing.jpg" in examples.unusable[0]


def test_no_usable_image_is_an_error(small, tmp_path):
    lost = annotations.make_table([("missing.jpg", 1, 1, 9, 9, "mask")])
    with pytest.raises(annotations.AnnotationError, match=r"none of the images[\s\S]*missing.jpg"):
        Examples(lost, tmp_path, small)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(small, tmp_path, loss):
    run = EpochRecorder(small, None, TrainingSettings(), 10, tmp_path / "nan", None, None)
    with pytest.raises(TrainingError, match="epoch 1, step 3; use a smaller learning_rate"):
        run.after_step(2, {"loss": loss})


def test_an_evaluation_that_fails_does_not_take_the_epoch_along(small, tmp_path):
    def fails(network):
        raise MemoryError("no room to evaluate")

    network = small.network()
    network.compile(optimizer=make_optimizer(_keras.prepare(), TrainingSettings(), 1), loss=small.losses())
    run = EpochRecorder(small, network, TrainingSettings(), 1, tmp_path / "kept", fails, tmp_path / "log.csv")
    with pytest.raises(MemoryError):
        run.after_epoch(0, {"loss": 0.5})
    assert snapshots.read(tmp_path / "kept_last.h5").record["training"]["metrics"]["loss"] == 0.5
    assert (tmp_path / "log.csv").read_text().startswith("epoch,loss")


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([{"AP50": 0.0, "AP": 0.0}] * 3, 3),  # nothing found yet: the loss decides
        ([{"AP50": 1.0, "AP": 0.5}, {"AP50": 1.0, "AP": 0.7}, {"AP50": 1.0, "AP": 0.6}], 2),
        ([{}, {}, {"AP50": 0.1, "AP": 0.1}], 3),  # evaluated at the end only
        ([{"AP50": 0.4, "AP": 0.1}, {}, {"AP50": 0.3, "AP": 0.2}], 1),
        ([{}, {}, {}], 3),
    ],
)
def test_the_best_epoch_is_the_best(small, tmp_path, monkeypatch, rows, best):
    run = EpochRecorder(small, None, TrainingSettings(), 1, tmp_path / "x", None, None)
    monkeypatch.setattr(run, "_save", lambda end, row, best: row["epoch"])
    for number, row in enumerate(rows):
        run._keep({"epoch": number + 1, "loss": 3 - number, **row})
    assert (run.best, run.last) == (best, len(rows))


def test_a_box_outside_its_image_is_logged_once_and_clipped(small, tiny, caplog):
    path = "scenes/images/scene_0000.jpg"
    examples = Examples(annotations.make_table([(path, 10, 20, 100, 60, "mask")]), tiny, small)
    (one, labels), (again, _) = (examples.load(path)[1:] for _ in range(2))
    assert one.tolist() == again.tolist() == [[10, 20, 96, 60]] and labels.tolist() == [0]
    assert caplog.text.count("reaches outside the image") == 1


def test_earlier_snapshots_are_not_overwritten(trained, small, table, tiny):
    with pytest.raises(TrainingError, match="tiny_best.h5 exists; choose another run name"):
        train(small, small.network(), table, tiny, TrainingSettings(), trained.best.weights.with_name("tiny"))


def test_a_name_that_keras_would_not_read_again_is_refused(small, tmp_path):
    with pytest.raises(snapshots.SnapshotError, match="not in .weights.h5"):
        snapshots.save(None, tmp_path / "a.weights.h5", {})


def test_a_class_that_the_detector_lacks_is_named(small, tiny, tmp_path):
    other = annotations.make_table([("a.jpg", 1, 1, 9, 9, "hat")])
    with pytest.raises(annotations.AnnotationError, match="class 'hat' is not among the classes"):
        train(small, small.network(), other, tiny, TrainingSettings(), tmp_path / "hat")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"steps": -1}, "must not be negative"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"schedule": "stairs"}, "schedule is 'stairs'"),
        ({"precision": "int8"}, "precision 'int8'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**settings)


def test_precision_is_put_back_afterwards():
    import tensorflow

    with computing("bfloat16") as used:
        assert used == "bfloat16"
    with computing("float32") as used:
        assert used == "float32"
    options = tensorflow.config.optimizer.get_experimental_options()
    assert not options.get("auto_mixed_precision_onednn_bfloat16", False)


def test_weights_of_another_class_count_fit_in_part(trained, capsys):
    detector = detectors.create("retinanet", {"face": 0}, image_size=96, normalisation="live")
    network = detector.network(seed=1)
    loaded = weights.start(network, detector, str(trained.last.weights))
    assert loaded["in_part"] == ["classification_submodel"] and loaded["layers"] > 60
    assert "in part only: classification_submodel" in capsys.readouterr().out
    theirs = detectors.load(trained.last, "training")[1]
    for name in ("conv1", "P4", "regression_submodel"):
        for one, other in zip(network.get_layer(name).get_weights(), theirs.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_slip_in_weights_is_named_before_anything_is_built():
    with pytest.raises(weights.WeightsError, match="weights is 'imagnet', expected none, imagenet, coco or the path"):
        weights.normalisation_for("imagnet")


def test_snapshots_are_found_by_run_and_kind(trained, tiny):
    folder = tiny / "snapshots"
    assert snapshots.newest(folder, "training") == trained.best.weights
    assert snapshots.newest(folder, "training", run="tiny") == trained.best.weights
    with pytest.raises(snapshots.SnapshotError, match="run 02_train_retinanet first"):
        snapshots.newest(tiny, "training")
