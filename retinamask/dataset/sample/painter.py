"""Draw simple shapes in a frame of their own: the brush of the drawn sample data set.

A `Painter` maps the coordinates in
which a thing is easiest to describe (the unit square for a background, half a head height for a face) to the
pixels of a Pillow image, so that the drawing code above never deals with pixels, sizes or rotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

Colour = tuple[int, ...]
WHITE: Colour = (255, 255, 255)
INK: Colour = (52, 42, 50)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour `share` (0..1) of the way from the first to the second, channels 0..255."""
    pairs = zip(first[:3], second[:3], strict=True)
    return tuple(int(round(one + (other - one) * share)) for one, other in pairs)


def darker(colour: Colour, share: float = 0.2) -> Colour:
    """Return the colour moved towards ink, which keeps shadows warm instead of grey."""
    return mix(colour, INK, share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """Return the colour moved towards white."""
    return mix(colour, WHITE, share)


def pick(generator: np.random.Generator, choices: Sequence) -> object:
    """Return one of the choices, each equally likely."""
    return choices[int(generator.integers(len(choices)))]


def smooth(points: ArrayLike, closed: bool = True, steps: int = 8) -> np.ndarray:
    """Return a Catmull-Rom curve through (N,2) points as (M,2) points, `steps` per stretch."""
    points = np.asarray(points, dtype=float)
    if closed:
        ring = np.concatenate([points[-1:], points, points[:2]])
    else:
        ring = np.concatenate([points[:1], points, points[-1:]])
    before, start, end, after = ring[:-3, None], ring[1:-2, None], ring[2:-1, None], ring[3:, None]
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


def ellipse_points(x: float, y: float, radius_x: float, radius_y: float, tilt: float = 0.0) -> np.ndarray:
    """Return 40 points (40,2) on an ellipse, turned clockwise by `tilt` radians."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    across, down = radius_x * np.cos(t), radius_y * np.sin(t)
    turned_x = across * np.cos(tilt) - down * np.sin(tilt)
    turned_y = across * np.sin(tilt) + down * np.cos(tilt)
    return np.stack([x + turned_x, y + turned_y], axis=1)


class Painter:
    """Draws on an RGB image in a frame with its own origin (pixels), scale (pixels per unit) and angle.

    Colours are (r, g, b) or (r, g, b, alpha), 0..255; x points right and y points down.
    """

    def __init__(
        self, image: Image.Image, origin_xy: tuple[float, float] = (0.0, 0.0), scale: float = 1.0, angle: float = 0.0
    ):
        self.image, self.scale, self.angle = image, scale, angle
        self.origin_xy = np.asarray(origin_xy, dtype=float)
        self._draw = ImageDraw.Draw(image, "RGBA")

    def to_pixels(self, points: ArrayLike) -> np.ndarray:
        """Return (N,2) points of this frame in pixels of the image."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        turn = np.array([[cosine, sine], [-sine, cosine]])
        return np.asarray(points, dtype=float) @ turn * self.scale + self.origin_xy

    def at(self, x: float, y: float, scale: float = 1.0, angle: float = 0.0) -> Painter:
        """Return a painter of the same image whose frame starts at (x, y) of this one."""
        return Painter(self.image, tuple(self.to_pixels([[x, y]])[0]), self.scale * scale, self.angle + angle)

    def polygon(self, points: ArrayLike, colour: Colour) -> None:
        """Fill the polygon through (N,2) points."""
        self._draw.polygon(self.to_pixels(points).ravel().tolist(), fill=colour)

    def blob(self, points: ArrayLike, colour: Colour) -> None:
        """Fill the smooth closed shape through (N,2) points."""
        self.polygon(smooth(points), colour)

    def ellipse(
        self, x: float, y: float, radius_x: float, radius_y: float | None = None, colour: Colour = INK, tilt: float = 0
    ) -> None:
        """Fill an ellipse; a circle when `radius_y` is None."""
        self.polygon(ellipse_points(x, y, radius_x, radius_x if radius_y is None else radius_y, tilt), colour)

    def box(self, x1: float, y1: float, x2: float, y2: float, colour: Colour, radius: float = 0.0) -> None:
        """Fill a rectangle with round corners of the given radius."""
        if radius <= 0:
            self.polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], colour)
            return
        centres = ((x2 - radius, y2 - radius), (x1 + radius, y2 - radius), (x1 + radius, y1 + radius))
        rounded = []
        for quarter, (x, y) in enumerate((*centres, (x2 - radius, y1 + radius))):
            t = np.linspace(0, np.pi / 2, 6) + quarter * np.pi / 2
            rounded.append(np.stack([x + radius * np.cos(t), y + radius * np.sin(t)], axis=1))
        self.polygon(np.concatenate(rounded), colour)

    def line(self, points: ArrayLike, width: float, colour: Colour) -> None:
        """Draw an open line through (N,2) points with round ends."""
        pixels = self.to_pixels(points)
        width_px = max(1, round(width * self.scale))
        self._draw.line(pixels.ravel().tolist(), fill=colour, width=width_px, joint="curve")
        if len(colour) == 3 and width_px > 2:
            for x, y in pixels[[0, -1]].tolist():
                half = (width_px - 1) / 2
                self._draw.ellipse((x - half, y - half, x + half, y + half), fill=colour)

    def curve(self, points: ArrayLike, width: float, colour: Colour) -> None:
        """Draw a smooth open line through (N,2) points."""
        self.line(smooth(points, closed=False), width, colour)

    def glow(self, x: float, y: float, radius_x: float, radius_y: float, colour: Colour, alpha: int = 60) -> None:
        """Lay down a soft spot of light or shadow: a stack of ellipses stands in for a slow blur."""
        for share in (1.0, 0.86, 0.72, 0.58):
            self.ellipse(x, y, radius_x * share, radius_y * share, (*colour[:3], alpha // 4))

    @contextmanager
    def inside(self, points: ArrayLike) -> Iterator[Painter]:
        """Give a painter in the same frame whose strokes show only inside the polygon of (N,2) points."""
        pixels = self.to_pixels(points)
        left, top = np.maximum(np.floor(pixels.min(axis=0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 1, self.image.size)
        # A shape that lies outside the image still gets a canvas, so that callers need no special case.
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        bounds = (int(left), int(top), int(right), int(bottom))
        corner = np.array([left, top])
        piece = self.image.crop(bounds)
        yield Painter(piece, tuple(self.origin_xy - corner), self.scale, self.angle)
        stencil = Image.new("L", piece.size, 0)
        ImageDraw.Draw(stencil).polygon((pixels - corner).ravel().tolist(), fill=255)
        self.image.paste(piece, bounds[:2], stencil)


def fill_gradient(image: Image.Image, top: Colour, bottom: Colour) -> None:
    """Paint the whole image with a vertical gradient between two colours."""
    ramp = Image.linear_gradient("L").resize(image.size, Image.Resampling.BILINEAR)
    image.paste(Image.composite(Image.new("RGB", image.size, bottom), Image.new("RGB", image.size, top), ramp))
