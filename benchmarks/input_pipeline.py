"""Training batches per second against keras-retinanet's CSVGenerator, on the same drawn images.

Both read the sample's CSV, resize to the same side, normalise and compute anchor targets, without augmentation; the
two take turns. Ours keeps the resized images in memory, so its first round counts as the warm-up it is.
Prints one JSON line: medians of images per second over the runs, and their ratio.
"""

import json
import statistics
import time
from pathlib import Path

import numpy as np

from retinamask import detectors
from retinamask.dataset import annotations
from retinamask.detectors import _keras
from retinamask.training.input_pipeline import Examples, batches

ROOT = Path(__file__).parents[1]
SIDE, BATCH_SIZE, RUNS = 512, 4, 5


def images_per_second(next_batch, image_count: int) -> float:
    """Time one round over all images."""
    started = time.perf_counter()
    for _ in range(image_count // BATCH_SIZE):
        next_batch()
    return image_count / (time.perf_counter() - started)


def ours(table, classes):
    """A function that gives our next batch."""
    detector = detectors.create("retinanet", classes, image_size=SIDE)
    examples = Examples(table, ROOT, detector)
    drawn = batches(examples, BATCH_SIZE, np.random.default_rng(0), augment=False)
    return lambda: next(drawn)


def theirs():
    """A function that gives keras-retinanet's next batch."""
    from keras_retinanet.preprocessing.csv_generator import CSVGenerator

    paths = (str(ROOT / "annotations.csv"), str(ROOT / "classes.csv"))
    generator = CSVGenerator(*paths, batch_size=BATCH_SIZE, image_min_side=SIDE, image_max_side=SIDE)
    turns = iter(range(10**9))
    return lambda: generator[next(turns) % len(generator)]


def main() -> None:
    _keras.prepare()
    classes = annotations.read_classes(ROOT / "classes.csv")
    table = annotations.read_annotations(ROOT / "annotations.csv", classes)
    count = len(annotations.image_paths(table))
    sides = {"ours": ours(table, classes), "keras_retinanet": theirs()}
    speeds = {name: [] for name in sides}
    for run in range(RUNS + 1):
        for name, next_batch in sides.items():
            speed = images_per_second(next_batch, count)
            if run:  # the first round warms up
                speeds[name].append(speed)
    medians = {name: round(statistics.median(values), 1) for name, values in speeds.items()}
    ratio = round(medians["ours"] / medians["keras_retinanet"], 2)
    spread = {name: [round(min(values), 1), round(max(values), 1)] for name, values in speeds.items()}
    shown = {"benchmark": "input_pipeline", "side": SIDE, "runs": RUNS, "images_per_second": medians}
    print(json.dumps({**shown, "spread": spread, "ratio": ratio}))


if __name__ == "__main__":
    main()
