"""Draws the things that stand and hang in a sample scene: plants, lamps, balloons, posters, clocks.

It sits above `painter` and below `backgrounds`.  Every thing is a function
`(painter, generator)` that draws around the origin, about one unit wide.  Some are round and bright on
purpose, so that a detector has to learn more than "a circle is a face".
"""

from __future__ import annotations

import numpy as np

from retinamask.dataset.sample.painter import WHITE, Colour, Painter, darker, lighter, mix, pick

WALLS: tuple[Colour, ...] = (
    (246, 234, 214), (204, 219, 201), (190, 212, 224), (244, 217, 206), (236, 208, 150),
    (214, 206, 228), (150, 190, 188), (226, 226, 220), (118, 142, 160), (232, 190, 170),
)  # fmt: skip
ACCENTS: tuple[Colour, ...] = (
    (214, 112, 88), (232, 174, 82), (88, 140, 136), (70, 92, 128), (160, 182, 130),
    (226, 148, 150), (132, 106, 150), (248, 240, 226), (104, 150, 190),
)  # fmt: skip
WOOD: Colour = (176, 128, 92)
LEAF: Colour = (98, 146, 104)


def draw_tree(painter: Painter, generator: np.random.Generator) -> None:
    """Draw a tree that stands on the origin, about one unit and a half high."""
    green = mix(LEAF, pick(generator, ((170, 190, 110), (70, 130, 120), (226, 166, 96))), generator.uniform(0, 0.6))
    painter.box(-0.07, -0.7, 0.07, 0, (138, 104, 84), 0.03)
    if generator.random() < 0.3:
        painter.polygon([(0, -1.8), (0.5, -0.4), (-0.5, -0.4)], green)
        painter.polygon([(0, -1.8), (0.5, -0.4), (0.05, -0.4)], darker(green, 0.12))
        return
    for x, y, radius in ((-0.28, -0.8, 0.36), (0.28, -0.82, 0.36), (0, -1.15, 0.45)):
        painter.ellipse(x, y, radius, radius, green)
    painter.ellipse(-0.12, -1.22, 0.24, 0.22, lighter(green, 0.16))


def draw_plant(painter: Painter, generator: np.random.Generator) -> None:
    """Draw a pot plant with long leaves; the origin is the rim of the pot."""
    pot, green = pick(generator, ACCENTS), mix(LEAF, (60, 120, 110), generator.uniform(0, 0.6))
    for angle in np.linspace(-1.2, 1.2, 7) + generator.uniform(-0.1, 0.1, 7):
        leaf = painter.at(0, 0, generator.uniform(0.8, 1.1), angle)
        leaf.blob([(0, 0.05), (-0.13, -0.5), (0, -1.05), (0.13, -0.5)], green)
        leaf.line([(0, 0), (0, -0.8)], 0.025, lighter(green, 0.25))
    painter.polygon([(-0.38, 0), (0.38, 0), (0.28, 0.62), (-0.28, 0.62)], pot)
    painter.box(-0.42, -0.05, 0.42, 0.12, darker(pot, 0.12), 0.04)


def draw_lamp(painter: Painter, generator: np.random.Generator) -> None:
    """Draw a standing lamp; the origin is the middle of its shade."""
    shade = lighter(pick(generator, ACCENTS), 0.35)
    painter.line([(0, 0), (0, 6)], 0.06, (92, 78, 80))
    painter.glow(0, 0.1, 1.0, 1.0, (255, 238, 190), 90)
    painter.polygon([(-0.28, -0.4), (0.28, -0.4), (0.5, 0.35), (-0.5, 0.35)], shade)


def draw_balloons(painter: Painter, generator: np.random.Generator) -> None:
    """Draw three balloons on strings; round and bright like a head, but nobody's face."""
    for x, y in ((-0.36, 0.1), (0.38, 0.02), (0.0, -0.35)):
        colour = pick(generator, ACCENTS)
        painter.curve([(x, y + 0.4), (x * 0.6, y + 1.2), (0, 2.4)], 0.02, (140, 124, 124))
        painter.ellipse(x, y, 0.34, 0.42, colour)
        painter.polygon([(x, y + 0.38), (x - 0.06, y + 0.48), (x + 0.06, y + 0.48)], darker(colour, 0.15))
        painter.ellipse(x - 0.12, y - 0.16, 0.07, 0.11, (255, 255, 255, 120), 0.4)


def draw_boxes(painter: Painter, generator: np.random.Generator) -> None:
    """Draw a stack of cardboard boxes that goes down from the origin."""
    for row in range(3):
        shift = generator.uniform(-0.12, 0.12)
        colour = mix((206, 168, 124), pick(generator, ACCENTS), 0.2)
        top = row * 0.72
        painter.box(-0.5 + shift, top, 0.5 + shift, top + 0.7, colour, 0.03)
        painter.box(-0.08 + shift, top, 0.08 + shift, top + 0.7, lighter(colour, 0.3))
        painter.box(0.2 + shift, top + 0.42, 0.4 + shift, top + 0.58, lighter(colour, 0.6))


def draw_poster(painter: Painter, generator: np.random.Generator) -> None:
    """Draw a framed picture around the origin: discs, hills or bars."""
    paper, ink = lighter(pick(generator, WALLS), 0.5), pick(generator, ACCENTS)
    painter.box(-0.4, -0.52, 0.46, 0.62, (60, 50, 60, 40))
    painter.box(-0.44, -0.58, 0.44, 0.58, pick(generator, (WOOD, WHITE, (70, 64, 72))))
    painter.box(-0.38, -0.52, 0.38, 0.52, paper)
    frame = [(-0.38, -0.52), (0.38, -0.52), (0.38, 0.52), (-0.38, 0.52)]
    with painter.inside(frame) as inner:
        kind = int(generator.integers(3))
        if kind == 0:
            inner.ellipse(0, -0.1, 0.24, 0.24, ink)
            inner.box(-0.2, 0.26, 0.2, 0.32, darker(paper, 0.3))
        elif kind == 1:
            inner.ellipse(0.1, -0.2, 0.12, 0.12, (238, 190, 110))
            inner.blob([(-0.6, 0.7), (-0.2, 0.0), (0.2, 0.2), (0.6, 0.0), (0.7, 0.7)], ink)
        else:
            for step, x in enumerate((-0.24, -0.06, 0.12)):
                inner.box(x, 0.34 - 0.22 * (step + 1), x + 0.13, 0.4, mix(ink, paper, 0.25 * step))


def draw_clock(painter: Painter, generator: np.random.Generator) -> None:
    """Draw a wall clock: a round face of the wrong kind."""
    rim = pick(generator, ACCENTS)
    painter.ellipse(0.04, 0.06, 0.44, 0.44, (60, 50, 60, 40))
    painter.ellipse(0, 0, 0.44, 0.44, rim)
    painter.ellipse(0, 0, 0.35, 0.35, (252, 248, 240))
    for angle, length in zip(generator.uniform(0, 6.28, 2), (0.2, 0.28), strict=True):
        painter.line([(0, 0), (length * np.sin(angle), -length * np.cos(angle))], 0.045, (70, 64, 72))


# The band of heights (shares of the image) in which each piece of clutter looks at home.
HEIGHTS = {
    draw_plant: (0.62, 0.85),
    draw_lamp: (0.3, 0.5),
    draw_balloons: (0.12, 0.4),
    draw_boxes: (0.6, 0.8),
    draw_poster: (0.15, 0.35),
    draw_clock: (0.1, 0.35),
}
