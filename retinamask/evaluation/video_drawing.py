"""A frame of a video as it is shown: the boxes on it, and below it a bar with counts, time and speed.

Above `drawing`, whose colors and boxes it uses. The bar lies below the picture, where it hides no face.
"""

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from retinamask.evaluation.drawing import INK, PAPER, class_colors, draw_boxes, shortened, text_font

LARGEST_COUNT = 999  # there is room for it, so that nothing moves when the counts change


class FrameDrawing:
    """Draws the frames of one video: always the same places and the same size.

    Args:
        classes: name to id; decides the colors and the order of the counts.
        size_wh: size of the frames in pixels.
    """

    def __init__(self, classes: dict[str, int], size_wh: tuple[int, int]):
        self._classes, self._colors = classes, class_colors(classes)
        self._width = size_wh[0]
        self._font = text_font(max(11, max(size_wh) / 50))
        self._places, lines = self._lay_out()
        self._line_height = round(1.7 * self._font.size)
        self._height = lines * self._line_height

    def __call__(self, image_rgb: np.ndarray, boxes: pd.DataFrame, seconds: float, rate: float) -> np.ndarray:
        """Return the frame with its boxes and the bar below it, ``uint8`` RGB.

        Args:
            image_rgb: the frame, ``uint8``.
            boxes: its detections.
            seconds: where in the video it is.
            rate: frames per second that are worked through at present.
        """
        drawn = draw_boxes(image_rgb, boxes, self._classes)
        canvas = Image.new("RGB", (drawn.width, drawn.height + self._height), INK)
        canvas.paste(drawn)
        draw = ImageDraw.Draw(canvas)
        counts = boxes["class_name"].value_counts()
        texts = [f"{name} {counts.get(name, 0)}" for name in self._classes] + [_clock(seconds), _speed(rate)]
        colors = [self._colors[name] for name in self._classes] + [None, None]
        for text, color, (left, line) in zip(texts, colors, self._places, strict=True):
            self._draw_entry(draw, text, color, left, drawn.height + (line + 0.5) * self._line_height)
        return np.asarray(canvas)

    def _lay_out(self) -> tuple[list[tuple[float, int]], int]:
        """Where each entry stands, as left edge and line, with room for its longest text; and their lines."""
        longest = [f"{name} {LARGEST_COUNT}" for name in self._classes] + [_clock(35999), _speed(999)]
        swatches = [1.2] * len(self._classes) + [0, 0]
        gap = self._font.size
        left, line, places = gap / 2, 0, []
        for text, swatch in zip(longest, swatches, strict=True):
            width = self._font.getlength(text) + swatch * self._font.size
            if places and left + width > self._width - gap / 2:
                left, line = gap / 2, line + 1
            places.append((left, line))
            left += width + gap
        return places, line + 1

    def _draw_entry(self, draw: ImageDraw.ImageDraw, text: str, color: str | None, left: float, middle: float) -> None:
        side = 0.8 * self._font.size
        if color is not None:
            draw.rectangle((left, middle - side / 2, left + side, middle + side / 2), fill=color)
            left += 1.2 * self._font.size
        text = shortened(text, self._font, self._width - left)
        draw.text((left, middle), text, fill=PAPER, font=self._font, anchor="lm")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds * 10), 600)
    return f"{minutes}:{rest // 10:02}.{rest % 10}"


def _speed(rate: float) -> str:
    return f"{rate:.1f} frames/s"
