"""Detect on the workers of a Dask cluster (https://distributed.dask.org): the parts of `detect_in_parts`, each a task.

A task ends with its part whole on the shared disk, so that one that Dask gives to another worker, or two workers,
changes nothing.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retinamask import __version__
from retinamask.dataset import files
from retinamask.inference.detect_in_parts import write_here

SECONDS = 5  # for a scheduler to answer, and for its first worker to be there
LOOK_SECONDS = 30  # between two looks whether there are workers at all
CORES = 2  # of each process on this machine; beyond that a network gains little from another one

_loaded: dict[str, Any] = {}  # in a worker: the one predictor, by what it was loaded from
_one_part = threading.Lock()  # in a worker: a network has threads of its own


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to the scheduler at an address, or start processes on this machine for ``local``; give the client.

    Raises:
        ValueError: dask is not installed, nothing answers there within `SECONDS`, or the cluster has no worker.
    """
    if find_spec("distributed") is None:
        raise ValueError('--dask needs dask; install it with: pip install "retinamask[cluster]"')
    import distributed
    from dask.system import CPU_COUNT

    where = address
    logging.getLogger("distributed").setLevel(logging.ERROR)  # errors are reported by this file
    with contextlib.ExitStack() as stack:
        if address == "local":
            options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.ERROR}
            processes = max(1, CPU_COUNT // CORES)
            where = stack.enter_context(distributed.LocalCluster(n_workers=processes, preload=[__name__], **options))
        try:
            if address != "local":
                asyncio.run(_answer(address))
            client = stack.enter_context(distributed.Client(where, timeout=SECONDS))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"--dask {address}: no scheduler of Dask answers within {SECONDS} s ({str(error) or 'time-out'}); "
                "expected its address, such as tcp://10.0.0.1:8786, or local"
            ) from None
        try:
            client.wait_for_workers(1, timeout=SECONDS)
        except TimeoutError:
            raise ValueError(f"--dask {address}: the cluster has no worker; start some with: dask worker") from None
        yield client


async def _answer(address: str) -> None:
    """Shake hands with a scheduler; `Client` waits without end for something else that takes connections."""
    import distributed

    how = distributed.Security().get_connection_args("client")
    comm = await asyncio.wait_for(distributed.comm.connect(address, timeout=SECONDS, **how), SECONDS)
    await comm.close()


def dask_setup(worker: Any) -> None:
    """Give a process of ``local`` cores of its own, since a network takes all that it sees; Dask calls this."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[CORES * worker.name :][:CORES] or cores)


def check_workers(client: Any, shared: Iterable[Path]) -> Callable[[], str | None]:
    """Check that all workers have this version of the package and see the same files under the same paths.

    Returns:
        The check, for a worker that joins later: what is wrong with the process that calls it.

    Raises:
        ValueError: a worker does not; the message says which, what it has and what to do.
    """
    expected, version = {str(path): files.sha256(path) for path in shared}, __version__

    def problem() -> str | None:  # pickled by value, so that a worker without the package can say so
        import hashlib

        try:
            import retinamask
        except ImportError as error:
            return f"cannot import retinamask ({error}); install retinamask {version} there"
        if retinamask.__version__ != version:
            return f"has retinamask {retinamask.__version__}, this is {version}; install the same on both"
        for path, sha256 in expected.items():
            try:
                with open(path, "rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                return f"cannot read {path} ({error.strerror}); put it where all workers see it under this path"
            if found != sha256:
                return f"has another file as {path}; put it where all workers see it under this path"
        return None

    for worker, found in client.run(problem).items():
        if found:
            raise ValueError(f"worker {worker} {found}")
    return problem


def finished(
    client: Any, tasks: Iterator[tuple[Any, ...]], killed: Callable[[str, str], Any] | None = None
) -> Iterator[Any]:
    """Call functions on the workers and yield what they return, in the order in which they finish.

    Args:
        client: from `connected`.
        tasks: a name, a function and its arguments; one for each free thread at a time, since Dask holds all tasks that
            a worker has when it dies responsible.
        killed: gives what is yielded for a task whose workers died again and again, of its name and a message.

    Raises:
        ValueError: there was such a task and no ``killed``, or the scheduler is gone; and what a function raises.
    """
    import distributed

    running: dict[Any, str] = {}
    while True:
        room = max(1, sum(client.nthreads().values())) - len(running)
        for name, function, *arguments in itertools.islice(tasks, max(0, room)):
            running[client.submit(function, *arguments, pure=False)] = name
        if not running:
            return
        try:
            done = distributed.wait(list(running), LOOK_SECONDS, "FIRST_COMPLETED").done
        except TimeoutError:
            if not client.nthreads():
                how = f"start one with: dask worker {client.scheduler.address}"
                print(f"no worker is left, what is done is kept; {how}", file=sys.stderr, flush=True)
            continue
        for future in done:
            name = running.pop(future)
            try:
                result = future.result()
            except distributed.KilledWorker as error:
                died = f"{error.allowed_failures + 1} workers died of it, one after the other"
                message = f"{name}: {died}; their own output says why, want of memory perhaps"
                if not killed:
                    raise ValueError(message) from None
                result = killed(name, message)
            except CancelledError:
                raise ValueError("the scheduler of Dask is gone; what is done is kept, start again") from None
            yield result


@dataclass
class Workers:
    """The workers of a Dask cluster in the place of a predictor, for `detect_in_parts`.

    Attributes:
        client: from `connected`.
        load: gives the predictor, in a worker; it names files by absolute paths.
        key: tells one predictor from another: a worker keeps the last that it has loaded.
        snapshot: the file that ``load`` reads.
        class_names: of the predictor.
    """

    client: Any
    load: Callable[[], Any]
    key: str
    snapshot: Path
    class_names: Sequence[str]

    def write_parts(
        self, missing: Mapping[Path, Sequence[str]], folder: Path, drawn: Mapping[str, Path], options: Mapping[str, Any]
    ) -> Iterator[int]:
        """Let the workers write the parts, as `write_here` does; yield how many images each has.

        Raises:
            ValueError: see `check_workers` and `finished`.
        """
        if not missing:
            return
        folder, first = folder.absolute(), next(iter(missing))
        shared = [self.snapshot.absolute(), first.absolute().with_name("run.json"), folder / missing[first][0]]
        problem = check_workers(self.client, [path for path in shared if path.is_file()])
        tasks = (
            (f"images {paths[0]} to {paths[-1]}", _write_part, problem, self.load, self.key, part.absolute(), paths)
            + (folder, {path: drawn[path] for path in paths if drawn}, options)
            for part, paths in missing.items()
        )
        yield from finished(self.client, tasks)


def _write_part(problem, load, key: str, part: Path, paths: Sequence[str], *how: Any) -> int:
    """Write a part in a worker; the one that had it before may have died after it was written."""
    with _one_part:
        if key not in _loaded:
            if found := problem():
                raise ValueError(f"a worker that has just joined {found}")
            _loaded.clear()
            _loaded[key] = load()
        if not part.exists():
            for _ in write_here(_loaded[key], {part: paths}, *how):
                pass
    return len(paths)
