"""One machine or many, one device or many: TensorFlow's strategies, and what workers have to agree on.

Who trains together is read from ``TF_CONFIG``, whose format is that of
https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable. How to start
workers: docs/scaling.md.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from retinamask.detectors import _keras
from retinamask.training.settings import TrainingError, TrainingSettings

VARIABLE = "TF_CONFIG"
DEVICES_VARIABLE = "RETINAMASK_DEVICES"
JOBS = ("chief", "worker")  # those that train; the first of all of them is the chief
EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}, '
    "with the same cluster on every machine and an index of its own, from 0, on each"
)
WAIT_SECONDS = 1800.0
_SECONDS_BETWEEN_LINES = 60.0


class Cluster(NamedTuple):
    """The addresses (``host:port``) of all workers, the chief first, and which of them this process is."""

    addresses: tuple[str, ...]
    index: int


def read_cluster() -> Cluster | None:
    """Read ``TF_CONFIG``; None where it is not set or empty.

    Raises:
        TrainingError: it says something else than which workers there are and which of them this is.
    """
    text = os.environ.get(VARIABLE, "")
    if not text.strip():
        return None
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config.get("task")
        addresses = sum((cluster[job] for job in JOBS if job in cluster), [])
        for address in addresses:
            if not re.fullmatch(r"\S+:\d{1,5}", address) or not 0 < int(address.rpartition(":")[2]) < 65536:
                raise ValueError(f"has the address {address!r}, which is not host:port")
        if len(set(addresses)) < len(addresses) or not addresses or set(cluster) - set(JOBS):
            raise ValueError(f"has the cluster {cluster}, expected different addresses, all of a chief or of workers")
        places = [(job, index) for job in JOBS for index in range(len(cluster.get(job, [])))]
        this = (task.get("type"), task.get("index")) if task else None
        if this not in places:
            raise ValueError(f"has the task {task}, expected the type and index of one of {cluster}")
        return Cluster(tuple(addresses), places.index(this))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        what = str(error) if str(error).startswith("has ") else f"cannot be read ({error!r}): {text[:200]}"
        expected = f"Expected for example {EXAMPLE}. Unset it to train on this machine alone"
        raise TrainingError(f"{VARIABLE} {what}\n{expected}") from None


def wait_for_all(cluster: Cluster, seconds: float = WAIT_SECONDS) -> None:
    """Return when every other worker has answered once at its address; print each minute which are missing.

    TensorFlow's own waiting has no end and hears neither Ctrl-C nor SIGTERM. Until it takes over the port, this
    process answers there itself.

    Raises:
        TrainingError: this worker's port is taken, or some workers did not answer within ``seconds``.
    """

    def answers(address: str) -> bool:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except OSError:  # not there yet, or its name is not known yet
            return False
        return True

    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    started = printed = time.monotonic()
    missing = [address for number, address in enumerate(cluster.addresses) if number != cluster.index]
    try:
        listening = socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise TrainingError(
            f"port {port}, which {VARIABLE} gives this worker, cannot be opened ({error}); is a worker of an earlier "
            "run still there? Stop it, or use another port on all machines"
        ) from None
    with listening:
        while missing := [address for address in missing if not answers(address)]:
            now, waited_for = time.monotonic(), f"{len(missing)} of {len(cluster.addresses)} workers"
            if now - started > seconds:
                raise TrainingError(
                    f"{waited_for} did not answer within {seconds:.0f} s: {', '.join(missing)}. Start all workers of "
                    f"{VARIABLE} at about the same time, check that their addresses are right and that no firewall "
                    "closes their ports"
                )
            if now - printed > _SECONDS_BETWEEN_LINES:
                print(f"waiting for {waited_for}: {', '.join(missing)}", flush=True)
                printed = now
            time.sleep(0.2)


def strategy():
    """Choose how this process trains: with other machines, on several devices, or as TensorFlow does by itself.

    In order: with more than one worker in ``TF_CONFIG``, `tf.distribute.MultiWorkerMirroredStrategy` on all GPUs of
    each machine, or its CPU; with devices in ``RETINAMASK_DEVICES``, such as ``GPU:0,GPU:1``, or ``CPU:0,CPU:1`` to try
    out two devices on a processor, or more than one visible GPU, `tf.distribute.MirroredStrategy`; else the default
    strategy. With several workers this must be called before TensorFlow computes anything, and returns when all
    workers have called it. The same strategy comes back when asked again.

    Raises:
        TrainingError: ``TF_CONFIG`` is wrong, a worker does not come within `WAIT_SECONDS`, TensorFlow has computed
            before, or a device does not exist.
    """
    _keras.prepare()
    import tensorflow as tf

    cluster = read_cluster()
    devices = tuple(name.strip() for name in os.environ.get(DEVICES_VARIABLE, "").split(",") if name.strip())
    if cluster and len(cluster.addresses) > 1:
        if devices:
            raise TrainingError(
                f"{DEVICES_VARIABLE} asks for {', '.join(devices)}, but {VARIABLE} uses all GPUs of each machine; "
                "choose among them with CUDA_VISIBLE_DEVICES"
            )
        return _of_workers(cluster)
    if devices or len(tf.config.get_visible_devices("GPU")) > 1:
        return _of_devices(devices)
    return tf.distribute.get_strategy()


@functools.cache
def _of_workers(cluster: Cluster):
    import tensorflow as tf

    implementations = tf.distribute.experimental.CommunicationImplementation
    has_gpu = bool(tf.config.get_visible_devices("GPU"))
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=implementations.AUTO if has_gpu else implementations.RING
    )
    wait_for_all(cluster)
    before = signal.getsignal(signal.SIGTERM)
    try:
        made = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise TrainingError(
            "with several workers, training must begin before TensorFlow computes anything in this process; restart "
            "the kernel, or call retinamask.training.distribution.strategy() first"
        ) from error
    except tf.errors.OpError as error:
        raise TrainingError(
            f"the workers of {VARIABLE} did not come together; stop what is left of an earlier run, and start all of "
            f"them again ({str(error).splitlines()[0][:200]})"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # TensorFlow would swallow it from here on
    return made


@functools.cache
def _of_devices(devices: tuple[str, ...]):
    import tensorflow as tf

    if (processors := sum(device.startswith("CPU") for device in devices)) > 1:
        with contextlib.suppress(RuntimeError):  # TensorFlow has computed before: as many as there are then
            parts = [tf.config.LogicalDeviceConfiguration()] * processors
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    known = {device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()}
    if unknown := [name for name in devices if name not in known]:
        raise TrainingError(
            f"no device {', '.join(unknown)} here; there are: {', '.join(sorted(known))} (CPU:1 and further are made "
            "if they are asked for before TensorFlow first computes)"
        )
    return tf.distribute.MirroredStrategy(list(devices) or sorted(name for name in known if "GPU" in name))


def is_default(strategy) -> bool:
    """Say whether nothing is distributed."""
    import tensorflow as tf

    return not isinstance(strategy, (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy))


def shard(strategy) -> tuple[int, int]:
    """Give the number of this worker, from 0, and how many there are."""
    cluster = read_cluster() if strategy.cluster_resolver else None
    return (cluster.index, len(cluster.addresses)) if cluster else (0, 1)


def is_chief(strategy) -> bool:
    """Say whether this worker is the one that evaluates, prints and writes."""
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
    """Raise `TrainingError` if a batch cannot be divided into equal parts."""
    shares = strategy.num_replicas_in_sync * settings.accumulate
    if left := settings.batch_size % shares:
        lower, upper = settings.batch_size - left, settings.batch_size - left + shares
        raise TrainingError(
            f"batch_size {settings.batch_size} cannot be divided among {describe(strategy)} in {settings.accumulate} "
            f"part(s) each: it is that of all devices together and must divide by {shares}; the nearest is "
            + (f"{lower} or {upper}" if lower else str(upper))
        )


def from_chief(strategy, values) -> np.ndarray:
    """Give the chief's ``values``, numbers that float64 holds exactly, to every worker; all must call this together."""
    values = np.asarray(values)
    if shard(strategy)[1] == 1:
        return values
    return _broadcast(strategy)(values.astype(np.float64)).numpy().astype(values.dtype)


@functools.cache
def _broadcast(strategy):
    """Broadcast the chief's value: all-reduce with zeros elsewhere."""
    import tensorflow as tf

    @tf.function
    def summed(values):
        def share():
            replica = tf.distribute.get_replica_context()
            is_first = tf.equal(replica.replica_id_in_sync_group, 0)
            return replica.all_reduce("SUM", tf.where(is_first, values, tf.zeros_like(values)))

        return strategy.experimental_local_results(strategy.run(share))[0]

    return summed


def check_agreement(strategy, seen: dict[str, Any]) -> None:
    """Raise `TrainingError` on each worker that does not see the same as the chief; all must call this together.

    ``seen`` has JSON values by a name that the message can use.
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
    """Turn the loss of another worker within this block into a `TrainingError` that says how to resume."""
    import tensorflow as tf

    lost = tf.errors
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
