"""Training batches per second of one core against keras-retinanet's CSVGenerator, on the same drawn images.

Both read the same CSV and images of 640 px, augment, and compute anchor targets for batches of the same shape. The
peer has its own augmentation, as ``retinanet-train --random-transform`` sets it up. It decodes each image anew in
every epoch; ours decodes in the first and keeps the pixels, so the first epoch is measured apart, from nothing.

The two differ in form: our batches hold ``uint8`` images and, for each anchor, the number of its box; keras-retinanet's
hold ``float32`` of both. ``ours_dense`` therefore brings ours to the very same form, images normalised and targets
spread out, which in training is done after the pipeline.

Both turn by turn, five times, on one core. Speed is images per second of processor time, so that neighbours on the
machine count little; seconds of the clock are told as well. Prints one JSON line: medians, spread and ratios.
"""

import contextlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from retinamask import detectors
from retinamask.dataset import annotations
from retinamask.dataset.formats import read
from retinamask.dataset.sample import CLASSES, draw_sample
from retinamask.detectors import _keras
from retinamask.detectors.anchor_targets import AnchorMatcher
from retinamask.detectors.detector import network_input
from retinamask.training.input_pipeline import Examples, batches
from retinamask.training.settings import AugmentationSettings

SIDE, BATCH_SIZE, IMAGES, RUNS = 640, 4, 100, 5
STEPS = IMAGES // BATCH_SIZE
REST = 0.3  # seconds


class Detector:
    """RetinaNet's targets in the graph, for the two classes of the sample."""

    classifies = False

    def __init__(self, classes: dict[str, int]):
        self.classes = classes
        self._whole = detectors.create("retinanet", classes, image_size=SIDE)
        chosen = self._whole.settings
        self._matcher = AnchorMatcher(chosen.sizes, chosen.strides, chosen.ratios, chosen.scales)
        self.scale, self.preprocessing = self._whole.scale, self._whole.preprocessing

    def canvas_wh(self, sizes_wh: list) -> tuple[int, int]:
        return SIDE, SIDE

    def targets(self, boxes, labels, sizes_wh, canvas_wh) -> dict:
        return {"matched": self._matcher.match(boxes, labels, sizes_wh, canvas_wh)}

    def dense(self, batch: dict) -> tuple:
        """Return one of our batches as keras-retinanet's generator yields it."""
        pixels = network_input(batch["images"], batch["sizes_wh"], self.preprocessing)
        found = (batch[name] for name in ("matched", "boxes", "labels"))
        return pixels, self._matcher.dense(*found, len(self.classes), (SIDE, SIDE))


def ours(folder: Path, detector: Detector, dense: bool = False):
    """Decode all, and give the function that makes the next batch."""
    table = annotations.read_annotations(folder / "annotations.csv", CLASSES)
    with contextlib.redirect_stdout(None):
        examples = Examples(table, folder, detector, cache="memory")
    drawn = batches(examples, BATCH_SIZE, AugmentationSettings(), seed=0)
    iterator = iter(drawn.map(detector.dense) if dense else drawn)
    return lambda: next(iterator)


def theirs(folder: Path):
    """keras-retinanet's generator as its training command makes it; gives the function for the next batch."""
    from keras_retinanet.preprocessing.csv_generator import CSVGenerator
    from keras_retinanet.utils.image import random_visual_effect_generator
    from keras_retinanet.utils.transform import random_transform_generator

    generator = CSVGenerator(
        str(folder / "annotations.csv"),
        str(folder / "classes.csv"),
        transform_generator=random_transform_generator(  # these numbers are those of its bin/train.py
            min_rotation=-0.1,
            max_rotation=0.1,
            min_translation=(-0.1, -0.1),
            max_translation=(0.1, 0.1),
            min_shear=-0.1,
            max_shear=0.1,
            min_scaling=(0.9, 0.9),
            max_scaling=(1.1, 1.1),
            flip_x_chance=0.5,
            flip_y_chance=0.5,
        ),
        visual_effect_generator=random_visual_effect_generator(
            contrast_range=(0.9, 1.1),
            brightness_range=(-0.1, 0.1),
            hue_range=(-0.05, 0.05),
            saturation_range=(0.95, 1.05),
        ),
        batch_size=BATCH_SIZE,
        image_min_side=SIDE,
        image_max_side=SIDE,
    )
    turns = iter(range(10**9))
    return lambda: generator[next(turns) % len(generator)]


def measure(epoch) -> dict[str, float]:
    """Images per second of the processor and of the clock while ``epoch()`` makes all images' batches.

    A prefetched batch is work done earlier: before and after, the prefetched ones are all there.
    """
    settle()
    processor, clock = time.process_time(), time.perf_counter()
    epoch()
    clock = settle() - clock
    return {"processor": IMAGES / (time.process_time() - processor), "clock": IMAGES / clock}


def settle() -> float:
    """Wait until this process has had nothing to do for a while; when, by `time.perf_counter`, it began to rest."""
    used, resting = time.process_time(), time.perf_counter()
    while time.perf_counter() - resting < REST:
        time.sleep(REST / 10)
        if time.process_time() - used > REST / 100:
            used, resting = time.process_time(), time.perf_counter()
    return resting


def draw_data(folder: Path) -> None:
    draw_sample(folder / "scenes", images=IMAGES, size=SIDE, seed=3)
    table, _ = read("voc", [folder / "scenes"], folder)
    annotations.write_annotations(table, folder / "annotations.csv")
    annotations.write_classes(CLASSES, folder / "classes.csv")


def turns(folder: Path) -> dict[str, list[dict[str, float]]]:
    """The measurements of each side, taken in turn; what all share, as libraries and anchors, is loaded before."""
    detector = Detector(CLASSES)
    sides = {
        "ours": ours(folder, detector),
        "ours_dense": ours(folder, detector, dense=True),
        "keras_retinanet": theirs(folder),
    }
    for next_batch in sides.values():
        next_batch()
    taken: dict[str, list] = {name: [] for name in (*sides, "ours_first")}

    def first_epoch() -> None:
        next_batch = ours(folder, detector)
        repeat(next_batch)

    for _ in range(RUNS):
        for name, next_batch in sides.items():
            taken[name].append(measure(lambda next_batch=next_batch: repeat(next_batch)))
        taken["ours_first"].append(measure(first_epoch))
    return taken


def repeat(next_batch) -> None:
    for _ in range(STEPS):
        next_batch()


def summary(taken: dict[str, list[dict[str, float]]]) -> dict:
    medians, spread = {}, {}
    for name, figures in taken.items():
        speeds = [figure["processor"] for figure in figures]
        medians[name] = {kind: round(statistics.median(one[kind] for one in figures), 1) for kind in figures[0]}
        spread[name] = [round(min(speeds), 1), round(max(speeds), 1)]
    peer = medians.pop("keras_retinanet")
    ratios = {name: round(figure["processor"] / peer["processor"], 2) for name, figure in medians.items()}
    return {"images_per_second": {**medians, "keras_retinanet": peer}, "spread": spread, "ratio": ratios}


def main() -> None:
    if hasattr(os, "sched_setaffinity"):  # elsewhere processor time says the same, but for the threads' overhead
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _keras.prepare()
    with tempfile.TemporaryDirectory() as folder:
        draw_data(Path(folder))
        taken = turns(Path(folder))
    shown = {"benchmark": "input_pipeline", "side": SIDE, "batch_size": BATCH_SIZE, "images": IMAGES, "runs": RUNS}
    print(json.dumps({**shown, **summary(taken)}))


if __name__ == "__main__":
    main()
