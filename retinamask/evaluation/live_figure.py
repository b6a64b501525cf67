"""A figure that is redrawn while a notebook cell trains: losses, average precision and learning rate so far.

A watcher, see `watchers`. It draws what `plots.training_curves` shows at the end, in the same style.
"""

import base64
import io
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
    "Loss/classification_loss": "classification_loss",
    "Loss/regularization_loss": "regularization_loss",
    "learning_rate": "learning_rate",
}
_SECONDS_AFTER_EPOCH = 1.0  # a drawing takes a fifth of this, and epochs may be shorter


class LiveFigure(Watcher):
    """Shows one figure below the cell and replaces it; a notebook that is saved holds the last one alone.

    Outside a notebook it does nothing.
    """

    def __init__(self, seconds: float = 10.0):
        """Choose how often to redraw: after ``seconds`` within an epoch, and at the end of each."""
        self.seconds = seconds
        self._forget()

    def _forget(self) -> None:
        self._points: list[dict[str, float]] = []
        self._rows: list[dict[str, float]] = []
        self._handle, self._shown, self._changed, self._in_notebook = None, 0.0, False, False

    def started(self, run: Any) -> None:
        self._forget()
        self._in_notebook = _in_notebook()

    def after_step(self, step: int, figures: dict[str, float]) -> None:
        if self._in_notebook:
            known = {name: figures[tag] for tag, name in _COLUMNS.items() if tag in figures}
            self._points = _thinned([*self._points, {"step": step, **known}])
            self._changed = True
            self._redraw(self.seconds)

    def after_epoch(self, row: dict[str, float], network: Any) -> None:
        if self._in_notebook:
            self._rows.append(row)
            self._changed = True
            self._redraw(_SECONDS_AFTER_EPOCH)

    def ended(self) -> None:
        self._redraw(0.0)

    def _redraw(self, wait_seconds: float) -> None:
        """Draw what has changed, unless the last drawing is younger than this."""
        if not self._changed or (self._handle and time.monotonic() - self._shown < wait_seconds):
            return
        from IPython.display import display

        picture = _png(plots.live_curves(pd.DataFrame(self._points), pd.DataFrame(self._rows)))
        if self._handle is None:
            self._handle = display(picture, raw=True, display_id=True)
        else:
            self._handle.update(picture, raw=True)
        self._shown, self._changed = time.monotonic(), False


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. IPython is not imported for the question."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


def _thinned(points: list[dict[str, float]]) -> list[dict[str, float]]:
    """The points with each two neighbours averaged, if they have become too many."""
    if len(points) < MOST_POINTS:
        return points
    table = pd.DataFrame(points)
    return table.groupby(table.index // 2).mean().to_dict("records")


def _png(figure) -> dict[str, str]:
    """A figure as a notebook's output."""
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=100)
    return {"image/png": base64.b64encode(encoded.getvalue()).decode(), "text/plain": "training so far"}
