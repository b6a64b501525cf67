"""In which precision to train, and how TensorFlow is told.

On processors a network is built in float32 and oneDNN computes its convolutions in bfloat16; on GPUs Keras's mixed
policies do (Micikevicius et al., https://arxiv.org/abs/1710.03740). In each case variables, losses and the decoding of
boxes are float32. ``auto`` goes by the GPU, or on processors with bfloat16 by a measurement that is remembered.
"""

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from retinamask.detectors import _keras
from retinamask.detectors.faster_precision import faster_precision, memory, remembered
from retinamask.training import distribution
from retinamask.training.input_pipeline import Examples
from retinamask.training.settings import TrainingError, TrainingSettings

log = logging.getLogger(__name__)

PROCESSOR = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
ONEDNN_OPTION = "auto_mixed_precision_onednn_bfloat16"
SHORT_PIXELS = 150_000_000  # a run that shows fewer takes minutes even with ResNet50; to measure would lengthen it


def precision_to_use(examples: Examples, settings: TrainingSettings, steps: int, strategy, timers: Callable) -> str:
    """Choose ``float32``, ``bfloat16`` or ``float16`` for a run of so many ``steps`` and say why.

    Several workers measure nothing, since they might disagree. ``timers`` is `retinamask.training.learner.step_timers`.
    """
    width, height = examples.canvas_wh
    if settings.precision != "auto" or gpu_capabilities() or not has_bfloat16():
        return choose(settings.precision)
    if distribution.shard(strategy)[1] > 1:
        return "float32"
    if steps * settings.batch_size * width * height < SHORT_PIXELS:
        print("precision: float32; the run is too short for a measurement of bfloat16 to pay", flush=True)
        return "float32"
    key = _key(examples, settings)
    if known := remembered(key):
        print(f"precision: {known['precision']}, as measured before: {known['why']}; {memory()}", flush=True)
        return known["precision"]
    print("precision auto: measuring steps in float32 and bfloat16 ...", flush=True)
    return faster_precision(key, "a step", timers(examples, settings, strategy))


def choose(wanted: str) -> str:
    """Choose by what the machine has: ``auto`` goes by the GPUs and is float32 without.

    On GPUs ``auto`` is bfloat16 from compute capability 8.0, float16 from 7.0, else float32.

    Raises:
        TrainingError: float16 is wanted without a GPU.
    """
    capabilities = gpu_capabilities()
    weakest = min(capabilities, default=(0, 0))  # all of them compute the same network
    if wanted == "auto":
        return "bfloat16" if weakest >= (8, 0) else "float16" if weakest >= (7, 0) else "float32"
    if wanted == "float16" and not capabilities:
        raise TrainingError(
            "precision is float16, which needs a GPU, and TensorFlow sees none; take bfloat16 or float32, or auto"
        )
    if wanted == "bfloat16" and not (weakest >= (8, 0) if capabilities else has_bfloat16()):
        log.warning(
            "precision is bfloat16, which this machine does not compute in hardware: it is emulated and slow "
            "(3.7 times slower than float32 in a measurement on a processor); float32 or auto would be faster"
        )
    return wanted


def _key(examples: Examples, settings: TrainingSettings) -> str:
    """All that the time of a step depends on: machine, versions, network, size, batch."""
    detector, model = examples.detector, None
    with contextlib.suppress(OSError):  # only Linux names the processor in a file
        model = re.search(r"model name\s*:\s*(.+)", PROCESSOR.read_text())
    return json.dumps(
        {
            "processor": [model[1] if model else "", os.cpu_count()],
            "versions": {name: version(name) for name in ("tensorflow", "tf-keras", "retinamask")},
            "detector": [detector.name, detector.record(), len(detector.classes)],
            "size": examples.canvas_wh,
            "batch": [settings.batch_size, settings.accumulate],
        },
        sort_keys=True,
    )


def policy(precision: str) -> str:
    """Give the Keras policy under which a network that trains in ``precision`` is built."""
    return "float32" if precision == "float32" or not gpu_capabilities() else f"mixed_{precision}"


@contextlib.contextmanager
def building(precision: str) -> Iterator[None]:
    """Let Keras build networks for ``precision`` within this block.

    Under a mixed policy a network's outputs are 16 bits wide: cast them to float32 before the losses. Its variables
    are float32, and fit into the same network built under float32, which is the one to decode boxes with.
    """
    mixed_precision = _keras.prepare().mixed_precision
    before = mixed_precision.global_policy()
    mixed_precision.set_global_policy(policy(precision))
    try:
        yield
    finally:
        mixed_precision.set_global_policy(before)


@contextlib.contextmanager
def computing(precision: str) -> Iterator[None]:
    """Let graphs compute in ``precision`` on processors within this block.

    TensorFlow looks at the option when it first runs a `tf.function`: make functions within the block that uses them.
    """
    _keras.prepare()
    import tensorflow as tf

    wanted = precision == "bfloat16" and not gpu_capabilities()
    before = bool(tf.config.optimizer.get_experimental_options().get(ONEDNN_OPTION, False))
    tf.config.optimizer.set_experimental_options({ONEDNN_OPTION: wanted})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({ONEDNN_OPTION: before})


def gpu_capabilities() -> list[tuple[int, int]]:
    """Give the CUDA compute capability of every visible GPU, (0, 0) where TensorFlow does not know it."""
    _keras.prepare()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]


def has_bfloat16() -> bool:
    """Say whether the processor names instructions for bfloat16; only Linux says so in a file."""
    try:
        return bool(BFLOAT16_FLAGS & set(PROCESSOR.read_text().split()))
    except OSError:
        return False
