"""A frame of a video with its boxes, and a bar of numbers below it, where it hides no face."""

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from retinamask.drawing.boxes import draw_boxes
from retinamask.drawing.style import INK, PAPER, class_colors, shortened, text_font

_LARGEST_COUNT = 999  # there is room for it, so that nothing moves when the counts change


class FrameDrawing:
    """Draw the frames of one video, with the bar's entries always in the same places.

    Args:
        classes: name to id; decides the colors and the order of the counts.
        size_wh: size of the frames in pixels.
    """

    def __init__(self, classes: dict[str, int], size_wh: tuple[int, int]):
        self._classes, self._colors, self._width = classes, class_colors(classes), size_wh[0]
        self._font = text_font(max(11, max(size_wh) / 50))
        self._swatch, gap = 1.2 * self._font.size, self._font.size
        longest = [(f"{name} {_LARGEST_COUNT}", self._swatch) for name in classes]
        longest += [(_clock(35999), 0), (_speed(999), 0)]
        left, line, self._places = gap / 2, 0, []
        for text, swatch in longest:
            width = self._font.getlength(text) + swatch
            if self._places and left + width > self._width - gap / 2:
                left, line = gap / 2, line + 1
            self._places.append((left, line))
            left += width + gap
        self._line_height = round(1.7 * self._font.size)
        self._bar_height = (line + 1) * self._line_height

    def __call__(self, image_rgb: np.ndarray, boxes: pd.DataFrame, seconds: float, speed: float) -> np.ndarray:
        """Return the frame with its boxes and the bar below it, ``uint8`` RGB.

        Args:
            image_rgb: the frame, ``uint8``.
            boxes: its detections.
            seconds: where in the video it is.
            speed: frames per second that are worked through at present.
        """
        drawn = draw_boxes(image_rgb, boxes, self._classes)
        canvas = Image.new("RGB", (drawn.width, drawn.height + self._bar_height), INK)
        canvas.paste(drawn)
        draw, side = ImageDraw.Draw(canvas), 0.8 * self._font.size
        counts = boxes["class_name"].value_counts()
        entries = [(f"{name} {counts.get(name, 0)}", self._colors[name]) for name in self._classes]
        entries += [(_clock(seconds), None), (_speed(speed), None)]
        for (text, color), (left, line) in zip(entries, self._places, strict=True):
            middle = drawn.height + (line + 0.5) * self._line_height
            if color:
                draw.rectangle((left, middle - side / 2, left + side, middle + side / 2), fill=color)
                left += self._swatch
            text = shortened(text, self._font, self._width - left)
            draw.text((left, middle), text, fill=PAPER, font=self._font, anchor="lm")
        return np.asarray(canvas)


def _clock(seconds: float) -> str:
    minutes, tenths = divmod(int(seconds * 10), 600)
    return f"{minutes}:{tenths // 10:02}.{tenths % 10}"


def _speed(speed: float) -> str:
    return f"{speed:.1f} frames/s"
