"""The loop of training around a learner that only counts: what is logged, kept, steered, and found again."""

import math
from types import SimpleNamespace

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

    def rest_backbone(self, resting: bool) -> None:
        self.resting.append(resting)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"weight": self.weight}

    def load_arrays(self, arrays) -> None:
        self.weight = arrays["weight"]

    def shown(self):
        return self

    def save(self, path, include_optimizer) -> None:
        path.write_bytes(self.weight.tobytes())


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


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a loop, of three epochs of two steps unless told otherwise, and gives it back."""

    def batches(strategy, examples, settings, first_step):
        return (float(number) for number in range(first_step, 1000))

    monkeypatch.setattr("retinamask.training.feeding.batches", batches)

    def start(name="x", evaluate=None, watchers=(), steps=2, batch_losses=None, **settings) -> Loop:
        learner = CountingLearner(TrainingSettings(**{**PLAIN, "epochs": 3, **settings}))
        stem = tmp_path / name
        log_csv = tmp_path / f"{name}.csv"
        loop = Loop(learner, None, steps, stem, distribution.strategy(), evaluate, list(watchers), log_csv)
        saved = checkpoints.newest(stem)
        if saved:
            loop.restore(saved)
        loop.run()
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


def test_an_evaluation_that_fails_does_not_take_the_epoch_along(run, tmp_path):
    def fails(network):
        raise OSError("no room to evaluate")

    with pytest.raises(OSError, match="no room to evaluate"):
        run(evaluate=fails)
    assert snapshots.read(tmp_path / "x_last.h5").record["training"]["metrics"]["epoch"] == 1
    assert (tmp_path / "x.csv").read_text().startswith("epoch,step,loss")


def test_training_stops_early_when_nothing_gets_better(run):
    figures = iter([0.2, 0.3, 0.3, 0.1, 0.9])
    loop = run(evaluate=lambda _: {"AP50": next(figures), "AP": 0.1}, epochs=5, steps=1, early_stop=2)
    assert [row["AP50"] for row in loop.rows] == [0.2, 0.3, 0.3, 0.1]
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


def test_checkpoints_within_an_epoch_come_by_the_clock(run, monkeypatch):
    saved = []
    monkeypatch.setattr("retinamask.training.checkpoints.save", lambda stem, step, *_: saved.append(step))
    run(epochs=1, steps=4, checkpoint_minutes=0.0)
    assert saved == [1, 2, 3]
    run("y", epochs=2, steps=2, checkpoint_minutes=10.0)
    assert saved == [1, 2, 3, 2]
