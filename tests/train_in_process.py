"""A training run in a process of its own, for tests that kill it: python train_in_process.py SETTINGS.json.

It trains on the tiny scenes, resuming what is there, and writes the step number to a file after each step, so that
the killer can see how far it got.
"""

import json
import sys
from pathlib import Path

from retinamask.evaluation.watchers import Watcher


class StepFile(Watcher):
    """Keeps the number of the last step in a file."""

    def __init__(self, path: Path):
        self._path = path

    def started(self, run) -> None:
        run.SECONDS_BETWEEN_REPORTS = 0.0
        self._path.write_text(str(run.first_step))

    def after_step(self, step: int, figures: dict[str, float]) -> None:
        self._path.write_text(str(step))


def main(path: Path) -> None:
    from retinamask import detectors
    from retinamask.dataset import annotations
    from retinamask.training.input_pipeline import Examples
    from retinamask.training.settings import settings_of
    from retinamask.training.train import train

    given = json.loads(path.read_text())
    folder, stem = Path(given["folder"]), Path(given["stem"])
    classes = annotations.read_classes(folder / "classes.csv")
    table = annotations.read_annotations(folder / "annotations.csv", classes)
    detector = detectors.create(given["detector"], classes, **given["detector_settings"])
    watchers = [StepFile(stem.with_name(f"{stem.name}.step"))]
    examples = Examples(table, folder, detector)
    train(examples, settings_of(given), stem, watchers=watchers, log_csv=f"{stem}.csv", resume=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
