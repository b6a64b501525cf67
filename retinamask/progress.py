"""Progress of long work: a bar on a terminal, a line now and then in a log or a notebook.

Below everything else, so that no function has to pass a callback on.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

LINE_SECONDS = 30.0  # between two lines in a log; shorter work prints nothing


def track(
    items: Iterable[Item],
    what: str,
    unit: str,
    total: int | None = None,
    done: int = 0,
    count: Callable[[Item], int] = lambda item: 1,
) -> Iterator[Item]:
    """Yield the items and show on stderr how many are done, the rate and the remaining time.

    Args:
        items: what is worked on, such as images or batches of them.
        what: what is done, such as ``"detecting"``.
        unit: what is counted, in the singular, such as ``"image"``.
        total: how many units there are; ``len(items)`` if left out and known.
        done: units that an earlier try has done.
        count: how many units an item stands for, such as ``len`` for batches.
    """
    if total is None and hasattr(items, "__len__"):
        total = done + sum(map(count, items))
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=what, unit=unit, total=total, initial=done, leave=False, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(count(item))
        return
    start = last = time.monotonic()
    here = done
    for item in items:
        yield item
        here += count(item)
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            rate = (here - done) / (now - start)
            line = f"{what}: {here} {unit}s, {rate:.3g} a second"
            if total is not None:
                left = (total - here) / rate if rate else float("inf")
                minutes = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
                line = f"{what}: {here} of {total} {unit}s, {rate:.3g} a second, {minutes} left"
            print(line, file=sys.stderr, flush=True)
