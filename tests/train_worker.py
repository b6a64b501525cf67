"""Training in a process of its own, for tests of several devices and machines: python train_worker.py GIVEN.json.

What is given: ``folder`` (with annotations.csv and classes.csv), ``runs``: settings by the stem of each run, trained
one after the other, ``resume``, and ``die``: the worker of which index gives itself which signal before which step. The
losses of each step go to ``<stem>.losses``, a line a step.
"""

import json
import os
import sys
from pathlib import Path

# Neither Adam nor clipping, which would hide a gradient of the wrong size.
PLAIN = {"optimizer": "sgd", "gradient_clip": 0, "precision": "float32", "schedule": "constant"}
SETTINGS = {"epochs": 2, "steps": 3, "batch_size": 4, "learning_rate": 1e-3, **PLAIN}


class LossFile:
    """A watcher that keeps each step's number and loss in a file."""

    def __init__(self, stem: str):
        self._path = Path(f"{stem}.losses")

    def started(self, run) -> None:
        run.SECONDS_BETWEEN_REPORTS = -1.0

    def after_step(self, step: int, figures: dict[str, float]) -> None:
        with self._path.open("a") as file:
            print(step, figures["Loss/total_loss"], file=file)

    def after_epoch(self, row, network) -> None:
        pass

    def ended(self) -> None:
        pass


def losses(stem) -> dict[int, float]:
    """The loss of each step of a run."""
    lines = Path(f"{stem}.losses").read_text().splitlines()
    return {int(step): float(loss) for step, loss in map(str.split, lines)}


def train_runs(folder: Path, runs: dict[str, dict], resume: bool = False) -> None:
    from retinamask import detectors
    from retinamask.dataset import annotations
    from retinamask.training.input_pipeline import Examples
    from retinamask.training.settings import TrainingSettings
    from retinamask.training.train import train

    classes = annotations.read_classes(folder / "classes.csv")
    table = annotations.read_annotations(folder / "annotations.csv", classes)
    detector = detectors.create("retinanet", classes, backbone="mobilenet128_0.25", image_size=64)
    detector.network = penalised(detector.network)
    for stem, chosen in runs.items():
        settings = TrainingSettings(**{**SETTINGS, **chosen})
        train(Examples(table, folder, detector), settings, stem, watchers=[LossFile(stem)], resume=resume)


def penalised(build):
    """Builds the same network with a weight penalty, which must count once however a batch is divided."""

    def network(seed=None):
        built = build(seed)
        import tensorflow

        kernel = built.get_layer("P3").kernel
        built.add_loss(lambda: tensorflow.nn.l2_loss(kernel))
        return built

    return network


def die_before(step: int, signal_number: int) -> None:
    """Let this process send itself a signal when it is about to do step number ``step``, counted from 1."""
    from retinamask.training.learner import Learner

    going_on = Learner.step

    def dying(self, batch, done: int):
        if done + 1 == step:
            os.kill(os.getpid(), signal_number)
        return going_on(self, batch, done)

    Learner.step = dying


def main(path: Path) -> None:
    given = json.loads(path.read_text())
    this = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index")
    if given.get("die") and given["die"][0] == this:
        die_before(*given["die"][1:])
    train_runs(Path(given["folder"]), given["runs"], given.get("resume", False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
