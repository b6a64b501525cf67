"""Time of a training step beyond the network's own forward and backward passes: input, targets, update, bookkeeping.

For each light detector, at its published size and in batches of 4 of the drawn sample: our step as `train` repeats it,
input pipeline with augmentation included, against the gradient of the same losses for one batch that lies ready. Both
take turns on two processors (or the first GPU). Prints one JSON line for each detector: medians, spreads and the ratio,
of which 1.15 is the most that is wanted.
"""

import json
import statistics
import time

from benchmarks.training import ROOT, start
from retinamask import detectors
from retinamask.detectors import _keras
from retinamask.training import distribution, input_pipeline, precision
from retinamask.training.input_pipeline import Examples
from retinamask.training.learner import Learner
from retinamask.training.settings import TrainingSettings

DETECTORS = ("ssd_mobilenet_v2_fpnlite", "yolov4_tiny")
BATCH_SIZE = 4
STEPS, RUNS = 5, 5


class Sides:
    """One network, trained by our step and differentiated by itself."""

    def __init__(self, detector, table):
        strategy = distribution.strategy()
        settings = TrainingSettings(batch_size=BATCH_SIZE, learning_rate=1e-5)
        examples = Examples(table, ROOT, detector, "memory")
        self._learner = Learner(detector, settings, strategy, "float32", "none")
        self._batches = iter(input_pipeline.dealt_out(strategy, examples, settings, 0))
        self._ready, self._number = next(self._batches), 0
        self._images = detector.network_input(self._ready["images"], self._ready["sizes_wh"])
        self._passes = self._passes_alone(detector)

    def _passes_alone(self, detector):
        import tensorflow

        network = self._learner.network

        @tensorflow.function
        def passes(images, batch):
            with tensorflow.GradientTape() as tape:
                losses = detector.losses(network(images, training=True), batch)
                total = tensorflow.add_n([*losses.values(), *network.losses])
            return total, tape.gradient(total, network.trainable_variables)

        return passes

    def step(self) -> None:
        self._learner.optimizer.set_rate(1e-5)
        losses = self._learner.step(next(self._batches), self._number)
        self._number += 1
        for value in losses.values():
            float(value)

    def alone(self) -> None:
        total, gradients = self._passes(self._images, self._ready)
        float(total)
        gradients[0].numpy()


def measure(sides: Sides) -> dict[str, list[float]]:
    """Seconds of a step in every turn but the first, which warms up."""
    seconds = {"step": [], "alone": []}
    for run in range(RUNS + 1):
        for name, values in seconds.items():
            side = getattr(sides, name)
            side()
            started = time.perf_counter()
            for _ in range(STEPS):
                side()
            if run:
                values.append((time.perf_counter() - started) / STEPS)
    return seconds


def main() -> None:
    classes, table = start()
    for name in DETECTORS:
        detector = detectors.create_for(name, classes, "none")
        with precision.computing("float32"):
            seconds = measure(Sides(detector, table))
        medians = {side: round(statistics.median(values), 3) for side, values in seconds.items()}
        spread = {side: [round(min(values), 3), round(max(values), 3)] for side, values in seconds.items()}
        shown = {"benchmark": "training_step", "detector": name, "side": detector.settings.image_size}
        shown |= {"batch_size": BATCH_SIZE, "runs": RUNS, "steps": STEPS, "device": _keras.device_line()}
        ratio = round(medians["step"] / medians["alone"], 3)
        print(json.dumps({**shown, "seconds": medians, "spread": spread, "ratio": ratio}), flush=True)


if __name__ == "__main__":
    main()
