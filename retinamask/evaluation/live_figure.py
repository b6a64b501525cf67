"""A figure that is redrawn while a notebook cell trains: losses, average precision and learning rate so far.

A watcher, see `watchers`. It draws what `plots.training_curves` shows at the end, in the same style.
"""

import base64
import io
import math
import sys
import time
from typing import Any

import pandas as pd

from retinamask.evaluation import plots
from retinamask.evaluation.watchers import Watcher

MOST_POINTS = 2000  # over the steps; beyond, neighbours are averaged

_COLUMNS = {
    "Loss/total_loss": "loss",
    "Loss/localization_loss": "localization_loss",
    "Loss/objectness_loss": "objectness_loss",
    "Loss/classification_loss": "classification_loss",
    "Loss/regularization_loss": "regularization_loss",
    "learning_rate": "learning_rate",
}
_WAIT_FOR_DRAWING = 20  # times as long as the last drawing took: drawing takes a twentieth of the time at most


class LiveFigure(Watcher):
    """Shows one figure below the cell and replaces it; a notebook that is saved holds the last one alone.

    Outside a notebook it does nothing.
    """

    def __init__(self, seconds: float = 10.0):
        """Choose how often to redraw: after ``seconds`` within an epoch, and at the end of each unless it is short."""
        self.seconds = seconds
        self._forget()

    def _forget(self) -> None:
        self._points: list[dict[str, float]] = []
        self._rows: list[dict[str, float]] = []
        self._shown = self._shown_after_epoch = -math.inf
        self._handle, self._took, self._changed, self._in_notebook = None, 0.0, False, False

    def started(self, run: Any) -> None:
        self._forget()
        self._in_notebook = _in_notebook()
        self._rows = list(run.rows)  # earlier epochs, if the run is resumed

    def after_step(self, step: int, figures: dict[str, float]) -> None:
        if self._in_notebook:
            known = {name: figures[tag] for tag, name in _COLUMNS.items() if tag in figures}
            self._points = _thinned([*self._points, {"step": step, **known}])
            self._changed = True
            self._redraw_after(self.seconds, self._shown)

    def after_epoch(self, row: dict[str, float], network: Any) -> None:
        if self._in_notebook:
            self._rows.append(row)
            self._changed = True
            if self._redraw_after(0.0, self._shown_after_epoch):
                self._shown_after_epoch = self._shown

    def ended(self) -> None:
        if self._changed:
            self._redraw()

    def _redraw_after(self, seconds: float, before: float) -> bool:
        """Redraw if that much time has passed since ``before``; return whether it did."""
        due = time.monotonic() - before >= max(seconds, _WAIT_FOR_DRAWING * self._took)
        if due:
            self._redraw()
        return due

    def _redraw(self) -> None:
        from IPython.display import display

        began = time.monotonic()
        picture = _png(plots.live_curves(pd.DataFrame(self._points), pd.DataFrame(self._rows)))
        if self._handle is None:
            self._handle = display(picture, raw=True, display_id=True)
        else:
            self._handle.update(picture, raw=True)
        self._shown, self._changed = time.monotonic(), False
        self._took = self._shown - began


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, without importing IPython."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


def _thinned(points: list[dict[str, float]]) -> list[dict[str, float]]:
    """Average each two neighbouring points if they have become too many."""
    if len(points) < MOST_POINTS:
        return points
    table = pd.DataFrame(points)
    return table.groupby(table.index // 2).mean().to_dict("records")


def _png(figure) -> dict[str, str]:
    """Encode a figure as a notebook's output."""
    figure.set_layout_engine("none")  # it is laid out already, and that takes half of the time
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=100)
    return {"image/png": base64.b64encode(encoded.getvalue()).decode(), "text/plain": "training so far"}
