"""The loop of training around a learner that only counts: what is logged, kept, steered, and found again."""

import math
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from retinamask.detectors import snapshots
from retinamask.evaluation.watchers import Watcher
from retinamask.training import checkpoints, distribution
from retinamask.training.loop import Loop
from retinamask.training.settings import TrainingError, TrainingSettings

PLAIN = {"batch_size": 2, "learning_rate": 1e-3, "schedule": "constant", "warm_up": 0.0, "checkpoint_minutes": 0.0}


class CountingLearner:
    """Its one weight is moved by each batch and the rate, as a network's would be."""

    def __init__(self, settings: TrainingSettings):
        self.settings, self.weight, self.resting = settings, np.zeros(3), []
        self.detector = SimpleNamespace(name="retinanet", classes={"mask": 0}, record=dict, preprocessing="caffe")
        self.optimizer = SimpleNamespace(set_rate=lambda rate: setattr(self, "rate", rate))

    def step(self, batch, step: int) -> dict[str, float]:
        self.weight = self.weight * 0.9 + self.rate * batch
        return {"localization_loss": float(batch), "classification_loss": 1.0, "total_loss": batch + 1.0}

    def freeze_backbone(self, frozen: bool) -> None:
        self.resting.append(frozen)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weight": self.weight}

    def load_arrays(self, arrays) -> None:
        self.weight = arrays["weight"]

    def shown(self):
        return self

    def save(self, path, include_optimizer) -> None:
        with h5py.File(path, "w") as file:
            file["weight"] = self.weight


class Recorder(Watcher):
    """Remembers what it is told, and ends training from outside in a given step."""

    def __init__(self, stop_at: int = 0):
        self.stop_at, self.seen = stop_at, []

    def started(self, run) -> None:
        run.SECONDS_BETWEEN_REPORTS = 0.0
        self.seen.append(("started", run.first_step, run.total_steps))

    def after_step(self, step, figures) -> None:
        self.seen.append((step, figures))
        if step == self.stop_at:
            raise KeyboardInterrupt

    def after_epoch(self, row, network) -> None:
        self.seen.append(("epoch", row["epoch"]))

    def ended(self) -> None:
        self.seen.append(("ended",))


def counted(strategy, examples, settings, first_step):
    """In place of batches, their numbers."""
    return (float(number) for number in range(first_step, 1000))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a loop, of three epochs of two steps unless told otherwise, and gives it back."""

    monkeypatch.setattr("retinamask.training.input_pipeline.dealt_out", counted)

    def start(name="x", evaluate=None, watchers=(), steps=2, batch_losses=None, **settings) -> Loop:
        learner = CountingLearner(TrainingSettings(**{**PLAIN, "epochs": 3, **settings}))
        stem = tmp_path / name
        log_csv = tmp_path / f"{name}.csv"
        loop = Loop(learner, None, steps, stem, distribution.strategy(), evaluate, list(watchers), log_csv, {})
        loop.run(checkpoints.newest(stem))
        return loop

    return start


def test_losses_are_averaged_over_an_epoch_and_none_is_lost(run):
    rows = run().rows
    assert [row["loss"] for row in rows] == [1.5, 3.5, 5.5]  # batches 0 and 1, 2 and 3, 4 and 5, each and 1
    assert [row["localization_loss"] for row in rows] == [0.5, 2.5, 4.5]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 2), (2, 4), (3, 6)]


def test_watchers_see_steps_and_epochs_in_their_order(run):
    watcher = Recorder()
    run(watchers=[watcher], epochs=2)
    expected = ["started", 1, 2, "epoch", 3, 4, "epoch", "ended"]
    assert [entry[0] for entry in watcher.seen] == expected and watcher.seen[0] == ("started", 0, 4)
    figures = watcher.seen[1][1]
    assert figures["Loss/total_loss"] == 1.0 and figures["learning_rate"] == 1e-3
    assert {"Loss/classification_loss", "steps_per_sec", "images_per_sec"} <= set(figures)


@pytest.mark.parametrize("stop_at", range(1, 9))
def test_a_loop_that_was_stopped_anywhere_ends_as_if_it_had_not_been(run, stop_at):
    more = {"epochs": 4, "schedule": "plateau", "plateau_patience": 1}
    figures = {2: 0.3, 4: 0.2, 6: 0.1, 8: 0.4}

    def evaluate(learner):
        return {"AP50": figures[round(float(evaluate.loop_step))], "AP": None}

    class Steps(Recorder):
        def after_step(self, step, given):
            evaluate.loop_step = step
            super().after_step(step, given)

    whole = run("whole", evaluate, [Steps()], **more)
    with pytest.raises(KeyboardInterrupt):
        run("torn", evaluate, [Steps(stop_at)], **more)
    torn = run("torn", evaluate, [Steps()], **more)
    assert np.array_equal(whole.learner.weight, torn.learner.weight)
    timeless = [[{**row, "seconds": 0} for row in loop.rows] for loop in (whole, torn)]
    assert timeless[0] == timeless[1]
    assert whole.keeper.best.record["training"]["epoch"] == torn.keeper.best.record["training"]["epoch"] == 4


def test_nothing_is_left_of_checkpoints_when_a_run_is_over(run, tmp_path):
    run()
    assert {path.name for path in tmp_path.iterdir()} == {
        "x.csv", "x_best.h5", "x_best.json", "x_last.h5", "x_last.json"
    }  # fmt: skip


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_what_was_good(run, tmp_path, monkeypatch, loss):
    usual = CountingLearner.step

    def step(learner, batch, number):
        return {**usual(learner, batch, number), **({"total_loss": loss} if number == 2 else {})}

    monkeypatch.setattr(CountingLearner, "step", step)
    with pytest.raises(TrainingError, match=f"the loss became {loss} in step 3, epoch 2; use a smaller learning_rate"):
        run()
    assert snapshots.read(tmp_path / "x_last.h5").record["training"]["epoch"] == 1
    assert checkpoints.newest(tmp_path / "x").step == 2


@pytest.mark.parametrize("ruined", [2, 4])
def test_weights_that_are_no_numbers_are_not_saved(run, tmp_path, monkeypatch, ruined):
    usual = CountingLearner.step

    def step(learner, batch, number):
        losses = usual(learner, batch, number)  # which are still those of the weights before
        if number == ruined - 1:
            learner.weight = learner.weight * math.nan
        return losses

    monkeypatch.setattr(CountingLearner, "step", step)
    with pytest.raises(TrainingError, match=f"step {ruined} made weights that are no finite numbers; use a smaller"):
        run(checkpoint_minutes=10.0)
    assert (tmp_path / "x_last.h5").exists() == (ruined == 4)
    assert [path.name for path in checkpoints.files_of(tmp_path / "x")][-1:] == (
        ["x_checkpoint-00000002.npz"] if ruined == 4 else []
    )


class Judge:
    """Gives the figures of one evaluation after the other, and fails instead in the call of a number."""

    def __init__(self, *figures: float, fails_in: int = 0, error: BaseException | None = None):
        self.figures, self.fails_in, self.error, self.calls = list(figures), fails_in, error, 0

    def __call__(self, network) -> dict[str, float]:
        self.calls += 1
        if self.calls == self.fails_in:
            raise self.error
        return {"AP50": self.figures.pop(0)}


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("error", [OSError("no room to evaluate"), KeyboardInterrupt()])
def test_an_evaluation_that_was_cut_short_is_made_up_for(run, tmp_path, error, epoch):
    figures, more = [0.4, 0.3, 0.2], {"schedule": "plateau", "plateau_patience": 1, "checkpoint_minutes": 10.0}
    whole = run("whole", Judge(*figures), **more)
    with pytest.raises(type(error)):
        run("torn", Judge(*figures, fails_in=epoch, error=error), **more)
    last = snapshots.read(tmp_path / "torn_last.h5").record["training"]
    assert last["epoch"] == epoch and not last["finished"]
    torn = run("torn", Judge(*figures[epoch - 1 :]), **more)
    assert np.array_equal(whole.learner.weight, torn.learner.weight)
    timeless = [[{**row, "seconds": 0} for row in loop.rows] for loop in (whole, torn)]
    assert timeless[0] == timeless[1] and torn.keeper.best.record["training"]["epoch"] == 1


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_killed_right_after_its_first_snapshot_goes_on(run, tmp_path, monkeypatch, epochs):
    whole = run("whole", epochs=epochs, checkpoint_minutes=10.0)

    def killed(*_):
        raise SystemExit

    monkeypatch.setattr(snapshots, "copy", killed)  # before there is a best one
    with pytest.raises(SystemExit):
        run("torn", epochs=epochs, checkpoint_minutes=10.0)
    monkeypatch.undo()
    assert (tmp_path / "torn_last.h5").exists() and checkpoints.newest(tmp_path / "torn").step == 2
    monkeypatch.setattr("retinamask.training.input_pipeline.dealt_out", counted)
    torn = run("torn", epochs=epochs, checkpoint_minutes=10.0)
    assert np.array_equal(whole.learner.weight, torn.learner.weight)
    assert [row["loss"] for row in torn.rows] == [row["loss"] for row in whole.rows]
    assert torn.keeper.best.record["training"]["epoch"] == whole.keeper.best.record["training"]["epoch"]


def test_watchers_hear_of_the_end_of_a_run_that_was_stopped(run):
    watcher = Recorder(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        run(watchers=[watcher])
    assert watcher.seen[-1] == ("ended",)


@pytest.mark.parametrize(("judged", "other"), [("AP50", "AP"), ("accuracy", "val_loss")])
def test_training_stops_early_when_nothing_gets_better(run, judged, other):
    figures = iter([0.2, 0.3, 0.3, 0.1, 0.9])
    loop = run(evaluate=lambda _: {judged: next(figures), other: 0.1}, epochs=5, steps=1, early_stop=2)
    assert [row[judged] for row in loop.rows] == [0.2, 0.3, 0.3, 0.1]
    assert loop.keeper.best.record["training"]["epoch"] == 2 and loop.keeper.last.record["training"]["finished"]


def test_plateau_lowers_the_rate_when_nothing_gets_better(run):
    loop = run(evaluate=lambda _: {"AP50": 0.5}, epochs=4, steps=1, schedule="plateau", plateau_patience=1)
    assert [row["learning_rate"] for row in loop.rows] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_an_evaluation_comes_when_it_is_due_and_at_the_end(run):
    loop = run(evaluate=lambda _: {"AP50": 0.5}, epochs=5, evaluate_every=2)
    assert [row["epoch"] for row in loop.rows if "AP50" in row] == [2, 4, 5]


@pytest.mark.parametrize(("freeze_epochs", "resting"), [(0, [False] * 3), (2, [True, True, False]), (-1, [True] * 3)])
def test_the_backbone_rests_in_the_epochs_asked_for(run, freeze_epochs, resting):
    assert run(freeze_epochs=freeze_epochs).learner.resting == resting


def test_the_rate_is_lower_once_the_backbone_is_unfrozen(run):
    loop = run(freeze_epochs=2, fine_tune_rate=0.25)
    assert [row["learning_rate"] for row in loop.rows] == pytest.approx([1e-3, 1e-3, 2.5e-4])
    never = run("y", freeze_epochs=0, fine_tune_rate=0.25)
    assert [row["learning_rate"] for row in never.rows] == pytest.approx([1e-3] * 3)


def test_checkpoints_within_an_epoch_come_by_the_clock(run, monkeypatch):
    saved = []
    monkeypatch.setattr("retinamask.training.checkpoints.save", lambda stem, step, *_: saved.append(step))
    run(epochs=1, steps=4, checkpoint_minutes=0.0)
    assert saved == [1, 2, 3]
    run("y", epochs=2, steps=2, checkpoint_minutes=10.0)
    assert saved == [1, 2, 3, 2, 2]  # before the first snapshot and after it
