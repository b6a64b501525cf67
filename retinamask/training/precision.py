"""Which numbers training computes with, and how TensorFlow is told.

Sits above `settings` and Keras; `train` chooses here. On processors a network is built in float32 and oneDNN
computes its convolutions in bfloat16; on GPUs Keras's mixed policies do (Micikevicius et al.,
https://arxiv.org/abs/1710.03740). In each case variables, losses and the decoding of boxes are float32.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from retinamask.detectors import _keras
from retinamask.training.settings import TrainingError

log = logging.getLogger(__name__)

PROCESSOR = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
ONEDNN_OPTION = "auto_mixed_precision_onednn_bfloat16"


def choose(wanted: str, seconds: Callable[[str], float] | None = None) -> str:
    """The precision to train in: ``float32``, ``bfloat16`` or ``float16``.

    ``auto`` means on GPUs bfloat16 from compute capability 8.0, float16 from 7.0, else float32; on processors that
    compute bfloat16 in hardware the faster of float32 and bfloat16, which differs from network to network; elsewhere
    float32.

    Args:
        wanted: one of `settings.PRECISIONS`.
        seconds: what a training step takes in the precision of that name, measured; called only where the answer
            hangs on it. Without it, ``auto`` is float32 on processors.

    Raises:
        TrainingError: float16 is wanted without a GPU.
    """
    capabilities = _gpu_capabilities()
    if wanted == "auto":
        return _best_on_gpus(capabilities) if capabilities else _best_on_processor(seconds)
    if wanted == "float16" and not capabilities:
        raise TrainingError(
            "precision is float16, which needs a GPU, and TensorFlow sees none; take bfloat16 or float32, or auto"
        )
    if wanted == "bfloat16" and not (min(capabilities) >= (8, 0) if capabilities else _has_bfloat16()):
        log.warning(
            "precision is bfloat16, which this machine does not compute in hardware: it is emulated and slow "
            "(3.7 times slower than float32 in a measurement on a processor); float32 or auto would be faster"
        )
    return wanted


def policy(precision: str) -> str:
    """The Keras policy under which a network that trains in ``precision`` is built."""
    return "float32" if precision == "float32" or not _gpu_capabilities() else f"mixed_{precision}"


@contextlib.contextmanager
def building(precision: str) -> Iterator[None]:
    """Within this block Keras builds networks for ``precision``; afterwards as before.

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
    """Within this block graphs compute in ``precision`` on processors; afterwards as before.

    TensorFlow looks at the option when it first runs a `tf.function`: make functions within the block that uses them.
    """
    _keras.prepare()
    import tensorflow as tf

    wanted = precision == "bfloat16" and not _gpu_capabilities()
    before = bool(tf.config.optimizer.get_experimental_options().get(ONEDNN_OPTION, False))
    tf.config.optimizer.set_experimental_options({ONEDNN_OPTION: wanted})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({ONEDNN_OPTION: before})


def _best_on_gpus(capabilities: list[tuple[int, int]]) -> str:
    weakest = min(capabilities)  # all of them compute the same network
    if weakest >= (8, 0):
        return "bfloat16"
    return "float16" if weakest >= (7, 0) else "float32"


def _best_on_processor(seconds: Callable[[str], float] | None) -> str:
    if seconds is None or not _has_bfloat16():
        return "float32"
    measured = {name: seconds(name) for name in ("float32", "bfloat16")}
    faster = min(measured, key=measured.get)
    numbers = " and ".join(f"{value:.3g} s in {name}" for name, value in measured.items())
    print(f"precision: a training step takes {numbers}; training in {faster}", flush=True)
    return faster


def _gpu_capabilities() -> list[tuple[int, int]]:
    """The CUDA compute capability of every visible GPU, (0, 0) where TensorFlow does not know it."""
    _keras.prepare()
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return [known.get("compute_capability", (0, 0)) for known in details]


def _has_bfloat16() -> bool:
    """Whether the processor names instructions for bfloat16; only Linux says so in a file."""
    try:
        return bool(BFLOAT16_FLAGS & set(PROCESSOR.read_text().split()))
    except OSError:
        return False
