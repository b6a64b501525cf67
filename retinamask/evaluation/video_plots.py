"""The figure of a video: how many of each class are seen as it goes on. In the style of `plots`."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from retinamask.evaluation.drawing import class_colors
from retinamask.evaluation.plot_style import note, shown_text, styled

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
    figure = Figure(figsize=(9.6, 3.2))
    axes = figure.subplots()
    colors = class_colors(dict.fromkeys(counts.columns, 0))
    for name in counts.columns:
        axes.step(starts, drawn[name], where="post", color=colors[name], label=shown_text(name), alpha=0.9)
    per_point = "" if groups == 1 else f", mean of {groups} frames each"
    axes.set(title=f"Boxes of each class in {len(counts)} frames{per_point}", ylabel="boxes in the frame")
    in_seconds = seconds[-1] <= SECONDS_UP_TO
    axes.set_xlabel("seconds" if in_seconds else "minutes:seconds")
    if not in_seconds:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{int(value) // 60}:{int(value) % 60:02}"))
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 3, 6, 10]))
    axes.set_xlim(0, max(seconds[-1], 1e-3))
    axes.set_ylim(0, max(1.0, 1.1 * drawn.to_numpy().max(initial=0)))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if len(counts.columns):
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
