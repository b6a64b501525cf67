"""The look of all drawings and figures: colors, fonts, and names that are shown as they are."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import ImageFont

# The palette of Okabe and Ito, which people with the common kinds of colour blindness can distinguish
# (https://jfly.uni-koeln.de/color/). Masks are green and bare faces red wherever they come in the class list.
GREEN, VERMILLION, AMBER, BLUE, PURPLE = "#009e73", "#d55e00", "#e69f00", "#0072b2", "#cc79a7"
OTHER_COLORS = (AMBER, BLUE, PURPLE, "#56b4e9", "#f0e442", "#999999")
INK, FADED_INK, PAPER, CELL, GRID = "#1f2933", "#66727f", "#ffffff", "#eef1f4", "#e3e8ed"
# What the public sets call their classes, letters alone: with_mask, WithMask, face-no-mask, mask_weared_incorrect, ...
_MASK_NAMES = {"mask", "masked", "withmask", "facemask", "facewithmask", "maskedface", "correctmask"}
_NO_MASK_NAMES = {"nomask", "unmasked", "withoutmask", "facenomask", "facewithoutmask", "unmaskedface", "barefaced"}
_WORN_WRONGLY = ("incorrect", "wrong", "improper")  # anywhere in a name

# matplotlib brings a font that knows more letters than Pillow's own.
_FONT_FILE = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
_STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
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


def class_colors(classes: Iterable[str]) -> dict[str, str]:
    """Return a color (``#rrggbb``) for each class; with many classes they repeat.

    A mask is green, none is vermillion, one that is worn wrongly is amber, whichever of the usual names they have.
    """
    colors: dict[str, str | None] = {}
    for name in classes:
        plain = "".join(filter(str.isalpha, name.lower()))
        if any(word in plain for word in _WORN_WRONGLY):
            colors[name] = AMBER
        else:
            colors[name] = GREEN if plain in _MASK_NAMES else VERMILLION if plain in _NO_MASK_NAMES else None
    free = [color for color in OTHER_COLORS if color not in colors.values()]
    others = [name for name, color in colors.items() if color is None]
    return colors | {name: free[index % len(free)] for index, name in enumerate(others)}


@functools.lru_cache(maxsize=64)
def text_font(size: float) -> ImageFont.FreeTypeFont:
    """Return the font at a size in pixels."""
    return ImageFont.truetype(_FONT_FILE, max(9, round(size)))


def shortened(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """Return the text on one line, its middle replaced by dots where it does not fit into ``room`` pixels."""
    text = short = " ".join(text.split())
    kept = len(text)
    while kept > 2 and font.getlength(short) > room:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    return short


def begin(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a new figure of so many inches and its axes, see `Figure.subplots`."""
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, **options)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a plotting function in this style and leave the caller's as it is."""

    @functools.wraps(draw)
    def drawn_in_style(*arguments: Any, **options: Any) -> Figure:
        with matplotlib.rc_context(_STYLE):
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

    A label that starts with ``_`` would be left out of the key, and a glyph that the font lacks warns at each
    drawing: the first gets a hair space before it, the second becomes a question mark.
    """
    text = "".join(character if ord(character) in _glyphs() else "?" for character in str(name))
    return f"\u200a{text}" if text.startswith("_") else text


def short(text: str, longest: int = 22) -> str:
    """Return the text on one line, its middle replaced by dots where it has more letters."""
    text = " ".join(text.split())
    kept = longest - 3
    return text if len(text) <= longest else f"{text[: kept - kept // 2]}...{text[-(kept // 2) :]}"


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(font_manager.get_font(_FONT_FILE).get_charmap())
