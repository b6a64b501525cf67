"""How all figures of this folder look: colors, fonts, and names that are shown as they are.

Below `plots` and `learning_rate_plots`, above `drawing`, whose colors it shares.
"""

import functools
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

from retinamask.evaluation.drawing import FADED_INK, INK

BLUE, PURPLE, GRID = "#0072b2", "#cc79a7", "#e3e8ed"

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "a$b$c"
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": FADED_INK,
    "axes.edgecolor": "#aab4be",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FADED_INK,
    "ytick.color": FADED_INK,
    "lines.linewidth": 2,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
    "legend.handlelength": 2.6,
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function in the style of this folder and leave the caller's as it is."""

    @functools.wraps(draw)
    def drawn_in_style(*arguments: Any, **options: Any) -> Figure:
        with matplotlib.rc_context(STYLE):
            figure = draw(*arguments, **options)
            # Ticks are made at the first drawing and would take the caller's style if that came later.
            figure.draw_without_rendering()
        return figure

    return drawn_in_style


def note(text: str) -> Figure:
    """Return a figure that only says why there is nothing to see."""
    figure = Figure(figsize=(5, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=FADED_INK)
    return figure


def shown_text(name: object) -> str:
    """Return a name in a form that matplotlib shows as it is.

    A label that starts with `_` would be left out of the key, and a glyph that the font lacks warns at each
    drawing: the first gets a hair space before it, the second becomes a question mark.
    """
    text = "".join(character if ord(character) in _glyphs() else "?" for character in str(name))
    return f"\u200a{text}" if text.startswith("_") else text


@functools.cache
def _glyphs() -> frozenset[int]:
    """Return the code points of matplotlib's own font."""
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())
