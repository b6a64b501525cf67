"""Which precision to train in: by the GPU, or on processors with bfloat16 by a measurement that is remembered.

Above `learner`, with which it measures; `precision` says how each is computed.
"""

import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pooch

from retinamask.dataset import files
from retinamask.detectors import _keras
from retinamask.training import distribution, input_pipeline, precision
from retinamask.training.examples import Examples
from retinamask.training.learner import Learner
from retinamask.training.settings import TrainingError, TrainingSettings

log = logging.getLogger(__name__)

MARGIN = 0.15  # of the time of a step that bfloat16 must save; timings on a busy machine differ by a few percent
ROUNDS = 5  # timed steps of each, turn by turn; the median counts
SHORT_PIXELS = (
    150_000_000  # a run that shows fewer takes minutes even with ResNet50, which a measurement would lengthen
)
_PROCESSORS = ("float32", "bfloat16")


def precision_to_use(examples: Examples, settings: TrainingSettings, steps: int, strategy) -> str:
    """Choose ``float32``, ``bfloat16`` or ``float16`` and say why.

    Args:
        examples, settings: of the run.
        steps: updates in the whole run.
        strategy: several workers measure nothing, since they might come to different answers.
    """
    width, height = examples.canvas_wh
    if settings.precision != "auto" or precision.gpu_capabilities() or not precision.has_bfloat16():
        return choose(settings.precision)
    if distribution.shard(strategy)[1] > 1:
        return "float32"
    if steps * settings.batch_size * width * height < SHORT_PIXELS:
        print("precision: float32; the run is too short for a measurement of bfloat16 to pay", flush=True)
        return "float32"
    key = _key(examples, settings)
    return remembered(key) or remember(key, measured_seconds(_steppers(examples, settings, strategy)))


def choose(wanted: str) -> str:
    """Choose by what the machine has: ``auto`` goes by the GPUs and is float32 without.

    On GPUs ``auto`` is bfloat16 from compute capability 8.0, float16 from 7.0, else float32.

    Raises:
        TrainingError: float16 is wanted without a GPU.
    """
    capabilities = precision.gpu_capabilities()
    weakest = min(capabilities, default=(0, 0))  # all of them compute the same network
    if wanted == "auto":
        return "bfloat16" if weakest >= (8, 0) else "float16" if weakest >= (7, 0) else "float32"
    if wanted == "float16" and not capabilities:
        raise TrainingError(
            "precision is float16, which needs a GPU, and TensorFlow sees none; take bfloat16 or float32, or auto"
        )
    if wanted == "bfloat16" and not (weakest >= (8, 0) if capabilities else precision.has_bfloat16()):
        log.warning(
            "precision is bfloat16, which this machine does not compute in hardware: it is emulated and slow "
            "(3.7 times slower than float32 in a measurement on a processor); float32 or auto would be faster"
        )
    return wanted


def measured_seconds(steppers: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Time steps of each precision turn by turn, after a first one each; the median seconds by name."""
    print("precision auto: measuring steps in float32 and bfloat16 ...", flush=True)
    taken: dict[str, list[float]] = {name: [] for name in steppers}
    for step in steppers.values():
        step()
    for _ in range(ROUNDS):
        for name, step in steppers.items():
            taken[name].append(step())
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def remember(key: str, seconds: dict[str, float]) -> str:
    """Decide by measured seconds of a step, say so, and keep the decision for the next run of this kind."""
    saved = 1 - seconds["bfloat16"] / seconds["float32"]
    chosen = "bfloat16" if saved >= MARGIN else "float32"
    why = f"a step takes {seconds['float32']:.3g} s in float32 and {seconds['bfloat16']:.3g} s in bfloat16, " + (
        f"{saved:.0%} less" if chosen == "bfloat16" else f"which does not save {MARGIN:.0%}"
    )
    try:
        files.write_json(memory(), {**_decisions(), key: {"precision": chosen, "why": why}})
        kept = f"; remembered in {memory()}"
    except OSError as error:
        kept = f"; cannot be remembered ({error}), so the next run measures again"
    print(f"precision: {chosen}; {why}{kept}", flush=True)
    return chosen


def remembered(key: str) -> str | None:
    """Give the decision of an earlier run of this kind on this machine, and say so; None if there is none."""
    decision = _decisions().get(key, {})
    if decision.get("precision") not in _PROCESSORS:
        return None
    print(f"precision: {decision['precision']}, as measured before: {decision['why']}; {memory()}", flush=True)
    return decision["precision"]


def memory() -> Path:
    """The file of remembered decisions, in the user's cache folder."""
    return Path(pooch.os_cache("retinamask"), "precision.json")


def _decisions() -> dict[str, dict]:
    try:
        return json.loads(memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # measured again then
        return {}


def _key(examples: Examples, settings: TrainingSettings) -> str:
    """All that the time of a step hangs on: machine, versions, network, size, batch."""
    detector = examples.detector
    return json.dumps(
        {
            "processor": [precision.processor_name(), os.cpu_count()],
            "versions": {name: version(name) for name in ("tensorflow", "tf-keras", "retinamask")},
            "detector": [detector.name, detector.record(), len(detector.classes)],
            "size": examples.canvas_wh,
            "batch": [settings.batch_size, settings.accumulate],
        },
        sort_keys=True,
    )


def _steppers(examples: Examples, settings: TrainingSettings, strategy) -> dict[str, Callable[[], float]]:
    """A function for each precision that computes one batch's gradients and gives the seconds; nothing is updated."""
    _keras.prepare()
    batch = next(iter(input_pipeline.dealt_out(strategy, examples, settings, 0)))
    learners = {}
    for name in _PROCESSORS:
        with precision.computing(name):
            learners[name] = Learner(examples.detector, settings, strategy, name)

    def seconds(name: str) -> float:
        with precision.computing(name):
            started = time.perf_counter()
            learners[name].step.gradients(batch)[0].numpy()
            return time.perf_counter() - started

    return {name: lambda name=name: seconds(name) for name in _PROCESSORS}
