"""Choose between float32 and bfloat16 by their time, once on each machine; needs no TensorFlow."""

import contextlib
import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from retinamask.dataset import files

MARGIN = 0.15  # of the time that bfloat16 must save; timings on a busy machine differ by a few percent
ROUNDS = 5  # timed calls of each, turn by turn; the median counts


def faster_precision(key: str, what: str, timed: Mapping[str, Callable[[], float]]) -> str:
    """Measure calls in float32 and bfloat16 in turn, remember which is the faster, say so, and return it.

    Args:
        key: all that the time of a call depends on, such as machine, versions and network; `remembered` takes it.
        what: what a call is, for the message.
        timed: ``float32`` and ``bfloat16``, which make a call and give its seconds; the first of each does not count.
    """
    for call in timed.values():
        call()
    rounds = [{name: call() for name, call in timed.items()} for _ in range(ROUNDS)]
    seconds = {name: statistics.median(taken[name] for taken in rounds) for name in timed}
    saved = 1 - seconds["bfloat16"] / seconds["float32"]
    chosen = "bfloat16" if saved >= MARGIN else "float32"
    why = f"{what} takes {seconds['float32']:.3g} s in float32 and {seconds['bfloat16']:.3g} s in bfloat16, " + (
        f"{saved:.0%} less" if chosen == "bfloat16" else f"which does not save {MARGIN:.0%}"
    )
    try:
        files.write_json(memory(), {**_decisions(), key: {"precision": chosen, "why": why}})
        kept = f"remembered in {memory()}"
    except OSError as error:
        kept = f"cannot be remembered ({error}), so the next run measures again"
    print(f"precision: {chosen}; {why}; {kept}", flush=True)
    return chosen


def remembered(key: str) -> dict[str, str] | None:
    """Give the ``precision`` that was measured for a key, and ``why``; ``None`` if there is no measurement."""
    return _decisions().get(key)


def memory() -> Path:
    """Give the file of remembered decisions, in the user's cache folder."""
    import pooch  # takes time that a first detection need not wait for

    return Path(pooch.os_cache("retinamask"), "precision.json")


def _decisions() -> dict[str, dict[str, str]]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(memory().read_text(encoding="utf-8"))
    return {}
