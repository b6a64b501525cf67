"""How TensorFlow is told which numbers to compute with.

Above Keras; `precision_choice` chooses. On processors a network is built in float32 and oneDNN
computes its convolutions in bfloat16; on GPUs Keras's mixed policies do (Micikevicius et al.,
https://arxiv.org/abs/1710.03740). In each case variables, losses and the decoding of boxes are float32.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from retinamask.detectors import _keras

PROCESSOR = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
ONEDNN_OPTION = "auto_mixed_precision_onednn_bfloat16"


def policy(precision: str) -> str:
    """The Keras policy under which a network that trains in ``precision`` is built."""
    return "float32" if precision == "float32" or not gpu_capabilities() else f"mixed_{precision}"


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

    wanted = precision == "bfloat16" and not gpu_capabilities()
    before = bool(tf.config.optimizer.get_experimental_options().get(ONEDNN_OPTION, False))
    tf.config.optimizer.set_experimental_options({ONEDNN_OPTION: wanted})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({ONEDNN_OPTION: before})


def gpu_capabilities() -> list[tuple[int, int]]:
    """The CUDA compute capability of every visible GPU, (0, 0) where TensorFlow does not know it."""
    _keras.prepare()
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return [known.get("compute_capability", (0, 0)) for known in details]


def has_bfloat16() -> bool:
    """Whether the processor names instructions for bfloat16; only Linux says so in a file."""
    try:
        return bool(BFLOAT16_FLAGS & set(PROCESSOR.read_text().split()))
    except OSError:
        return False


def processor_name() -> str:
    """The model of the processor as Linux names it; empty elsewhere."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", PROCESSOR.read_text())
    except OSError:
        found = None
    return found[1] if found else ""
