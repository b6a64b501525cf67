"""The figure of a video: how many of each class are seen as it goes on. In the style of `plots`."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from retinamask.drawing.style import class_colors, note, shown_text, styled

MOST_POINTS = 300  # on the time axis; of a longer video the mean of neighbouring frames is drawn
SECONDS_UP_TO = 60  # a shorter video has an axis in seconds, a longer one in minutes and seconds


@styled
def counts_over_time(counts: pd.DataFrame) -> Figure:
    """Draw how many boxes of each class there are over the time of a video.

    Args:
        counts: from `inference.video.counts_by_frame`: rows by frame and seconds, one column per class.
    """
    if counts.empty:
        return note("The video has no frame.")
    seconds = counts.index.get_level_values("seconds").to_numpy()
    groups = -(-len(counts) // MOST_POINTS)
    step = np.arange(len(counts)) // groups
    drawn, starts = counts.groupby(step).mean(), seconds[::groups]
    figure = Figure(figsize=(9.6, 1.0 + 1.1 * max(1, len(counts.columns))))
    panels = figure.subplots(max(1, len(counts.columns)), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    colors = class_colors(dict.fromkeys(counts.columns, 0))
    for axes, name in zip(panels, counts.columns, strict=False):  # lines on one another would hide each other
        axes.fill_between(starts, drawn[name], step="post", color=colors[name], alpha=0.35, linewidth=0)
        axes.step(starts, drawn[name], where="post", color=colors[name], linewidth=1.5)
        axes.set_title(shown_text(name), fontsize=9.5, pad=4)
    per_point = "" if groups == 1 else f", mean of {groups} each"
    figure.suptitle(f"Boxes in a frame ({len(counts)} frames{per_point})", x=0.01, ha="left", fontsize=11)
    _mark_time(panels[-1], seconds[-1])
    panels[-1].set_ylim(0, max(1.0, 1.1 * drawn.to_numpy().max(initial=0)))
    panels[-1].yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    return figure


def _mark_time(axes: Axes, last_second: float) -> None:
    axes.set_xlim(0, max(last_second, 1e-3))
    in_seconds = last_second <= SECONDS_UP_TO
    axes.set_xlabel("seconds" if in_seconds else "minutes:seconds")
    if not in_seconds:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value) // 60}:{int(value) % 60:02}"))
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 3, 6, 10]))
