"""Training images per second at 512 pixels with a ResNet50, against keras-retinanet's own generator and ``fit``.

Both train on the drawn sample in batches of 2, from the same random weights with frozen normalisation, on two
processors (or the first GPU): keras-retinanet as its ``bin/train.py`` sets it up, unvaried images; ours as `train`
repeats it, pipeline with augmentation included. In bfloat16 too where the processor computes it in hardware. The sides
take turns; what is timed begins after the first step of each turn. Prints one JSON line: medians, spreads and ratios.
"""

import json
import os
import statistics
import time
import warnings
from pathlib import Path

from retinamask import detectors
from retinamask.dataset import annotations
from retinamask.detectors import _keras
from retinamask.training import distribution, input_pipeline, precision
from retinamask.training.input_pipeline import Examples
from retinamask.training.learner import Learner
from retinamask.training.settings import TrainingSettings

ROOT = Path(__file__).parents[1]
SIDE, BATCH_SIZE, CORES = 512, 2, 2
STEPS, RUNS = 5, 5


class Ours:
    """Our pipeline and our step, with what the loop does around it."""

    def __init__(self, examples: Examples, name: str):
        self._precision, strategy = name, distribution.strategy()
        settings = TrainingSettings(batch_size=BATCH_SIZE, learning_rate=1e-5)
        with precision.computing(name):
            self._learner = Learner(examples.detector, settings, strategy, name, "none")
            self._batches = iter(input_pipeline.dealt_out(strategy, examples, settings, 0))
        self.network, self._number = self._learner.network, 0

    def seconds(self) -> float:
        with precision.computing(self._precision):
            self._step()
            started = time.perf_counter()
            for _ in range(STEPS):
                self._step()
            return time.perf_counter() - started

    def _step(self) -> None:
        self._learner.optimizer.set_rate(1e-5)
        losses = self._learner.step(next(self._batches), self._number)
        self._number += 1
        for value in losses.values():
            float(value)


class Theirs:
    """keras-retinanet as its training command puts it together."""

    def __init__(self, class_count: int):
        keras = _keras.prepare()
        from keras_retinanet import losses, models
        from keras_retinanet.preprocessing.csv_generator import CSVGenerator

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The initializer RandomNormal is unseeded")
            self.network = models.backbone("resnet50").retinanet(class_count)
        self.network.compile(
            loss={"regression": losses.smooth_l1(), "classification": losses.focal()},
            optimizer=keras.optimizers.Adam(lr=1e-5, clipnorm=0.001),
        )
        paths = (str(ROOT / "annotations.csv"), str(ROOT / "classes.csv"))
        self._generator = CSVGenerator(*paths, batch_size=BATCH_SIZE, image_min_side=SIDE, image_max_side=SIDE)
        self._ends: list[float] = []
        note = keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: self._ends.append(time.perf_counter()))
        # A longer queue would be filled within a turn, at the cost of more batches than the turn trains on.
        self._how = {"verbose": 0, "callbacks": [note], "max_queue_size": 2}

    def seconds(self) -> float:
        self._ends.clear()
        self.network.fit(self._generator, steps_per_epoch=STEPS + 1, epochs=1, **self._how)
        return self._ends[-1] - self._ends[0]


def measure(sides: dict) -> dict[str, list[float]]:
    """Images per second of every side in every turn but the first, which warms up."""
    speeds = {name: [] for name in sides}
    for run in range(RUNS + 1):
        for name, side in sides.items():
            speed = BATCH_SIZE * STEPS / side.seconds()
            if run:
                speeds[name].append(speed)
    return speeds


def start():
    """Keep to two processors, before TensorFlow counts them; give classes and table of the drawn sample."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    _keras.prepare()
    classes = annotations.read_classes(ROOT / "classes.csv")
    return classes, annotations.read_annotations(ROOT / "annotations.csv", classes)


def main() -> None:
    classes, table = start()
    import tensorflow

    detector = detectors.create("retinanet", classes, image_size=SIDE)
    examples = Examples(table, ROOT, detector, "memory")
    has_bfloat16 = bool(precision.BFLOAT16_FLAGS & set(precision.PROCESSOR.read_text().split()))
    names = ["float32", "bfloat16"] if has_bfloat16 or tensorflow.config.list_physical_devices("GPU") else ["float32"]
    sides = {"keras_retinanet": Theirs(len(classes)), **{f"ours_{name}": Ours(examples, name) for name in names}}
    for side in sides.values():
        side.network.set_weights(sides["keras_retinanet"].network.get_weights())
    speeds = measure(sides)
    medians = {name: round(statistics.median(values), 3) for name, values in speeds.items()}
    spread = {name: [round(min(values), 3), round(max(values), 3)] for name, values in speeds.items()}
    ratios = {name: round(medians[f"ours_{name}"] / medians["keras_retinanet"], 2) for name in names}
    shown = {"benchmark": "training", "backbone": "resnet50", "side": SIDE, "batch_size": BATCH_SIZE, "runs": RUNS}
    shown |= {"steps": STEPS, "device": _keras.device_line(), "bfloat16_hardware": has_bfloat16}
    print(json.dumps({**shown, "images_per_second": medians, "spread": spread, "ratio": ratios}))


if __name__ == "__main__":
    main()
