"""The processes that train together: who they are, from ``TF_CONFIG``, and waiting until all of them are there.

A leaf of `training`; `distribution` builds on it. Nothing here needs TensorFlow. The format of ``TF_CONFIG`` is
https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable.
"""

import json
import os
import socket
import time
from dataclasses import dataclass

from retinamask.training.settings import TrainingError

VARIABLE = "TF_CONFIG"
JOBS = ("chief", "worker")  # those that train; the first of all of them is the chief
EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}, '
    "with the same cluster on every machine and an index of its own, from 0, on each"
)
WAIT_SECONDS = 1800.0
_SECONDS_BETWEEN_LINES = 60.0


@dataclass(frozen=True)
class Cluster:
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
    except json.JSONDecodeError as error:
        raise _wrong(f"is not JSON ({error}): {text[:200]}") from None
    jobs = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(jobs, dict) or not jobs:
        raise _wrong(f"has no cluster: {text[:200]}")
    if strange := sorted(set(jobs) - set(JOBS)):
        raise _wrong(f"has {', '.join(strange)} in its cluster, which training does not use")
    if not all(isinstance(listed, list) for listed in jobs.values()):
        raise _wrong(f"has a cluster that is not lists of addresses: {jobs}")
    addresses = [address for job in JOBS for address in jobs.get(job, [])]
    for address in addresses:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise _wrong(f"has the address {address!r}, which is not host:port")
        if addresses.count(address) > 1:
            raise _wrong(f"has the address {address} twice")
    if not addresses:
        raise _wrong(f"has a cluster without workers: {jobs}")
    task = config.get("task")
    job, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    if job not in jobs or not isinstance(index, int) or not 0 <= index < len(jobs[job]):
        counts = " or ".join(f"{name} with index 0 to {len(jobs[name]) - 1}" for name in JOBS if jobs.get(name))
        raise _wrong(f"has the task {task}, expected {counts}")
    return Cluster(tuple(addresses), index + (len(jobs.get("chief", [])) if job == "worker" else 0))


def _wrong(what: str) -> TrainingError:
    return TrainingError(f"{VARIABLE} {what}\nExpected for example {EXAMPLE}. Unset it to train on this machine alone")


def wait_for_all(cluster: Cluster, seconds: float = WAIT_SECONDS) -> None:
    """Return when every other worker has answered once at its address; say each minute who is awaited.

    TensorFlow's own waiting has no end and hears neither Ctrl-C nor SIGTERM. Until it takes over the port, this
    process answers there itself.

    Raises:
        TrainingError: this worker's port is taken, or some workers did not answer within ``seconds``.
    """
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
        while missing := [address for address in missing if not _answers(address)]:
            now = time.monotonic()
            waited_for = f"{len(missing)} of {len(cluster.addresses)} workers"
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


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:  # not there yet, or its name is not known yet
        return False
    return True
