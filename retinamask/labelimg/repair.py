"""The repair of labelImg 1.8.6 on Python 3.10 and later: where Qt wants whole numbers, floats are rounded.

In labelImg's process, below `window`. Python before 3.10 cut floats silently where PyQt5 asked for an int; since
then PyQt5 raises TypeError, and an exception in a Qt callback ends the program. labelImg hands floats over in

- ``libs/canvas.py`` ``paintEvent``: ``drawRect``, ``drawLine`` (https://github.com/HumanSignal/labelImg/issues/838),
- ``libs/shape.py`` ``paint``: ``drawText`` of the class name beside a box,
- ``labelImg/labelImg.py`` ``scroll_request``, ``zoom_request``: ``setValue`` of the scroll bars, and through
  ``add_zoom`` and ``set_zoom`` that of the zoom's spin box (issues 872, 899, 938, 1004 and 1011 there),
- ``libs/canvas.py`` ``mouseMoveEvent``: ``scrollRequest.emit``, declared with ints. No exception here: PyQt5 passes
  on a number from anywhere in memory, and dragging the picture throws it into a corner.

Qt's methods are wrapped and no function of labelImg is replaced, so that their other callers are covered too.
"""

import functools
from collections.abc import Callable

from labelImg import labelImg
from libs.canvas import Canvas
from PyQt5.QtCore import pyqtSignal
from PyQt5.QtGui import QPainter
from PyQt5.QtWidgets import QAbstractSlider, QSpinBox

CALLS = {  # QAbstractSlider is what the scroll bars are
    QPainter: ("drawLine", "drawRect", "drawText"),
    QAbstractSlider: ("setValue",),
    QSpinBox: ("setValue",),
}


class RepairedCanvas(Canvas):
    """labelImg's canvas, whose signal carries what it is given."""

    scrollRequest = pyqtSignal(float, int)


def accept_floats() -> None:
    """Wrap the methods of `CALLS` and change the canvas in this process; calling it again changes nothing."""
    labelImg.Canvas = RepairedCanvas
    for owner, names in CALLS.items():
        for name in names:
            method = getattr(owner, name)
            if not hasattr(method, "__wrapped__"):
                setattr(owner, name, _rounding(method))


def _rounding(method: Callable) -> Callable:
    """``method``, called once more with rounded floats where Qt has no overload for the arguments as they are."""

    @functools.wraps(method)
    def call(self, *arguments):
        try:
            return method(self, *arguments)
        except TypeError:
            return method(self, *(round(value) if isinstance(value, float) else value for value in arguments))

    return call
