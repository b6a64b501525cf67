"""Average precision after the same training in float32 and in bfloat16, over several seeds.

A ResNet50 RetinaNet learns from random weights on drawn scenes and is judged on other drawn scenes. The two precisions
take turns, a run for each seed. Prints one JSON line: the figures of each run, their means and spreads. bfloat16 is
emulated, and slow, on processors that do not compute it in hardware.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from retinamask import detectors
from retinamask.dataset.formats import read
from retinamask.dataset.sample import CLASSES, draw_sample
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.training.input_pipeline import Examples
from retinamask.training.settings import TrainingSettings
from retinamask.training.train import train

HELD_OUT_SEED = 1000  # no scene of this seed is among those trained on


def figures(folder: Path, given: argparse.Namespace, precision: str, seed: int) -> dict[str, float]:
    """AP and AP50 on the held-out scenes after one training, and the seconds that it took."""
    detector = detectors.create("retinanet", CLASSES, image_size=given.image_size, normalisation="live")
    held_out, seen = folder / "held_out", folder / "seen"
    evaluate = epoch_evaluation(detector, read("voc", [held_out], held_out)[0], held_out)
    examples = Examples(read("voc", [seen], seen)[0], seen, detector)
    settings = TrainingSettings(
        epochs=given.epochs, evaluate_every=given.epochs, learning_rate=6e-4, precision=precision, seed=seed
    )
    row = train(examples, settings, folder / f"{precision}-{seed}", evaluate=evaluate).log.iloc[-1]
    return {name: round(float(row[name]), 4) for name in ("AP", "AP50", "loss", "seconds")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_sample(folder / "seen", images=given.images, size=256, seed=0)
        draw_sample(folder / "held_out", images=60, size=256, seed=HELD_OUT_SEED)
        runs = {
            name: [figures(folder, given, name, seed) for seed in range(given.seeds)]
            for name in ("float32", "bfloat16")
        }
    summary = {
        f"{figure}_{name}": [
            round(measure([run[figure] for run in of_name]), 4) for measure in (statistics.mean, spread)
        ]
        for name, of_name in runs.items()
        for figure in ("AP", "AP50")
    }
    print(json.dumps({"benchmark": "precision", **vars(given), **summary, "runs": runs}))


def spread(values: list[float]) -> float:
    """Sample standard deviation; 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
