"""A frame of a video with its boxes, and a bar of numbers below it, where it hides no face."""

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from retinamask.drawing.boxes import draw_boxes
from retinamask.drawing.style import INK, PAPER, class_colors, text_font


class FrameDrawing:
    """Draw the frames of one video, with the bar's entries always in the same places.

    Args:
        classes: name to id; decides the colors and the order of the counts.
        size_wh: size of the frames in pixels.
    """

    def __init__(self, classes: dict[str, int], size_wh: tuple[int, int]):
        self._classes, self._colors = classes, class_colors(classes)
        self._font = text_font(max(11, max(size_wh) / 50))
        gap, self._right = self._font.size, size_wh[0] - self._font.size / 2
        left, line, self._places = gap / 2, 0, []
        for text, _, color in self._entries(dict.fromkeys(classes, 999), 35999, 999):  # the longest there may be
            width = self._font.getlength(text) + (1.2 * gap if color else 0)
            if self._places and left + width > self._right:
                left, line = gap / 2, line + 1
            self._places.append((left, line))
            left += width + gap
        self._line_height = round(1.7 * self._font.size)
        self._bar_height = (line + 1) * self._line_height

    def _entries(self, counts, seconds: float, speed: float) -> list[tuple[str, str, str | None]]:
        """Return each entry of the bar, what is shown of it where it is too long, and the color of its swatch."""
        minutes, tenths = divmod(int(seconds * 10), 600)
        clock = f"{minutes}:{tenths // 10:02}.{tenths % 10}"
        named = [(name, counts.get(name, 0), color) for name, color in self._colors.items()]
        entries = [(f"{' '.join(name.split())} {count}", str(count), color) for name, count, color in named]
        return [*entries, (clock, clock, None), (f"{speed:.1f} frames/s", f"{speed:.1f}/s", None)]

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
        entries = self._entries(boxes["class_name"].value_counts(), seconds, speed)
        for (text, short, color), (left, line) in zip(entries, self._places, strict=True):
            middle = drawn.height + (line + 0.5) * self._line_height
            if color:
                draw.rectangle((left, middle - side / 2, left + side, middle + side / 2), fill=color)
                left += 1.5 * side
            text = text if left + self._font.getlength(text) <= drawn.width else short
            draw.text((left, middle), text, fill=PAPER, font=self._font, anchor="lm")
        return np.asarray(canvas)
