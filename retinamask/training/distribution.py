"""One machine or many, one device or many: TensorFlow's strategies, and what workers have to agree on.

Sits above `cluster`; `steps` computes with a strategy, `train` makes one. How to start workers: docs/scaling.md.
"""

import contextlib
import functools
import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from retinamask.detectors import _keras
from retinamask.training.cluster import VARIABLE, Cluster, read_cluster, wait_for_all
from retinamask.training.settings import TrainingError, TrainingSettings

DEVICES_VARIABLE = "RETINAMASK_DEVICES"


def strategy(devices: Sequence[str] | None = None):
    """How this process trains: with other machines, on several devices, or as TensorFlow does by itself.

    In order: with more than one worker in ``TF_CONFIG``, `tf.distribute.MultiWorkerMirroredStrategy` on all GPUs of
    each machine, or its CPU; with ``devices``, or more than one visible GPU, `tf.distribute.MirroredStrategy`; else
    the default strategy. The same strategy comes back when asked again.

    With several workers this must be called before TensorFlow computes anything, even before a network is built, and
    returns when all workers have called it.

    Args:
        devices: such as ``["GPU:0", "GPU:1"]``, or ``["CPU:0", "CPU:1"]`` to try out two devices on a processor;
            without it, the names in the variable ``RETINAMASK_DEVICES``, separated by commas.

    Raises:
        TrainingError: ``TF_CONFIG`` is wrong, a worker does not come within `cluster.WAIT_SECONDS`, TensorFlow has
            computed before, or a device does not exist.
    """
    _keras.prepare()
    import tensorflow

    cluster = read_cluster()
    named = os.environ.get(DEVICES_VARIABLE, "").split(",")
    devices = tuple(devices or [name.strip() for name in named if name.strip()])
    if cluster and len(cluster.addresses) > 1:
        if devices:
            raise TrainingError(
                f"devices {', '.join(devices)} are asked for together with {VARIABLE}, which uses all GPUs of each "
                "machine; choose among them with CUDA_VISIBLE_DEVICES"
            )
        return _of_workers(cluster)
    if devices or len(tensorflow.config.get_visible_devices("GPU")) > 1:
        return _of_devices(devices)
    return tensorflow.distribute.get_strategy()


def is_default(strategy) -> bool:
    """Whether nothing is distributed."""
    import tensorflow

    spread = (tensorflow.distribute.MirroredStrategy, tensorflow.distribute.MultiWorkerMirroredStrategy)
    return not isinstance(strategy, spread)


def shard(strategy) -> tuple[int, int]:
    """The number of this worker, from 0, and how many there are."""
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict() if resolver else {}
    if sum(map(len, cluster.values())) < 2:
        return 0, 1
    earlier = len(cluster.get("chief", [])) if resolver.task_type == "worker" else 0
    return earlier + resolver.task_id, sum(map(len, cluster.values()))


def is_chief(strategy) -> bool:
    """Whether this worker is the one that evaluates, prints and writes."""
    return shard(strategy)[0] == 0


def describe(strategy) -> str:
    """Describe the devices that train: ``1 device``, ``4 GPUs``, ``2 workers x 1 CPU``."""
    if is_default(strategy):
        return "1 device"
    workers = shard(strategy)[1]
    here = strategy.num_replicas_in_sync // workers
    kind = "GPU" if "GPU" in strategy.extended.worker_devices[0].upper() else "CPU"
    devices = f"{here} {kind}{'s' if here > 1 else ''}"
    return f"{workers} workers x {devices}" if workers > 1 else devices


def check_batch(strategy, settings: TrainingSettings) -> None:
    """Raise `TrainingError` if a batch cannot be dealt out in equal parts."""
    shares = strategy.num_replicas_in_sync * settings.accumulate
    left = settings.batch_size % shares
    if left:
        lower, upper = settings.batch_size - left, settings.batch_size - left + shares
        nearest = f"{lower} or {upper}" if lower else str(upper)
        raise TrainingError(
            f"batch_size {settings.batch_size} cannot be dealt out to {describe(strategy)} in {settings.accumulate} "
            f"part(s) each: it is that of all devices together and must divide by {shares}; the nearest is {nearest}"
        )


def from_chief(strategy, values) -> np.ndarray:
    """The chief's ``values`` on every worker; all workers must call this together.

    Args:
        values: numbers that float64 holds exactly, of the same shape on every worker.

    Returns:
        An array of the type of ``values``.
    """
    values = np.asarray(values)
    if shard(strategy)[1] == 1:
        return values
    return _chiefs(strategy)(values.astype(np.float64)).numpy().astype(values.dtype)


def check_agreement(strategy, seen: dict[str, Any]) -> None:
    """Raise `TrainingError` on each worker that does not see the same as the chief; all call this together.

    Args:
        seen: what was read, by a name that the message can use, the same names on every worker; JSON values.
    """
    texts = [json.dumps(value, sort_keys=True, default=str) for value in seen.values()]
    mine = np.array([int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) for text in texts], np.int64)
    differing = [name for name, same in zip(seen, mine == from_chief(strategy, mine), strict=True) if not same]
    if differing:
        number, workers = shard(strategy)
        raise TrainingError(
            f"worker {number} of {workers} does not see the same as worker 0: {', '.join(differing)}. All workers need "
            "the same settings, the same tables and images, and one shared folder for the snapshots"
        )


@contextlib.contextmanager
def stopping_together(strategy) -> Iterator[None]:
    """Within this block, the loss of another worker is a `TrainingError` that says how to resume.

    A worker that was killed is noticed at once, one that is frozen or cut off after some seconds, by TensorFlow's
    heartbeats.
    """
    import tensorflow

    lost = tensorflow.errors
    try:
        yield
    except (lost.UnavailableError, lost.AbortedError, lost.CancelledError, lost.DeadlineExceededError) as error:
        workers = shard(strategy)[1]
        if workers == 1:
            raise
        said = next((line for line in str(error).splitlines() if "abort" in line), str(error).splitlines()[0])
        raise TrainingError(
            f"a worker was lost: one of the {workers} that train together was killed, cannot be reached, or stopped "
            "with an error of its own, which its output shows. Start again with resume, on all workers or on those "
            f"that are left ({VARIABLE} must name just those; a single one needs none): training resumes from the last "
            f"checkpoint ({said[:200]})"
        ) from error


@functools.cache
def _of_workers(cluster: Cluster):
    import tensorflow

    implementations = tensorflow.distribute.experimental.CommunicationImplementation
    has_gpu = bool(tensorflow.config.get_visible_devices("GPU"))
    options = tensorflow.distribute.experimental.CommunicationOptions(
        implementation=implementations.AUTO if has_gpu else implementations.RING
    )
    wait_for_all(cluster)
    before = signal.getsignal(signal.SIGTERM)
    try:
        made = tensorflow.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise TrainingError(
            "with several workers, training must begin before TensorFlow computes anything in this process; restart "
            "the kernel, or call retinamask.training.distribution.strategy() first"
        ) from error
    except tensorflow.errors.OpError as error:
        raise TrainingError(
            f"the workers of {VARIABLE} did not come together; stop what is left of an earlier run, and start all of "
            f"them again ({str(error).splitlines()[0][:200]})"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # TensorFlow would swallow it from here on
    return made


@functools.cache
def _of_devices(devices: tuple[str, ...]):
    import tensorflow

    processors = sum(device.upper().rpartition("/")[2].startswith("CPU") for device in devices)
    with contextlib.suppress(RuntimeError):  # TensorFlow has computed before: as many as there are then
        if processors > 1:
            physical = tensorflow.config.list_physical_devices("CPU")[0]
            parts = [tensorflow.config.LogicalDeviceConfiguration()] * processors
            tensorflow.config.set_logical_device_configuration(physical, parts)
    known = {device.name.removeprefix("/device:") for device in tensorflow.config.list_logical_devices()}
    unknown = [name for name in devices if name.upper().removeprefix("/").removeprefix("DEVICE:") not in known]
    if unknown:
        raise TrainingError(
            f"no device {', '.join(unknown)} here; there are: {', '.join(sorted(known))} (CPU:1 and further are made "
            "if they are asked for before TensorFlow first computes)"
        )
    return tensorflow.distribute.MirroredStrategy(list(devices) or sorted(name for name in known if "GPU" in name))


@functools.cache
def _chiefs(strategy):
    """Broadcast the chief's value: all-reduce with zeros elsewhere."""
    import tensorflow

    @tensorflow.function
    def summed(values):
        def share():
            replica = tensorflow.distribute.get_replica_context()
            is_first = tensorflow.equal(replica.replica_id_in_sync_group, 0)
            return replica.all_reduce("SUM", tensorflow.where(is_first, values, tensorflow.zeros_like(values)))

        return strategy.experimental_local_results(strategy.run(share))[0]

    return summed
