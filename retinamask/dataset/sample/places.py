"""Draw the places of the sample data set, and what stands and hangs in them.

A place is a function `(painter, generator)` that fills the unit square. A thing draws around the origin, about one
unit wide; some are round and bright, so that a detector has to learn more than "a circle is a face".
"""

import numpy as np

from retinamask.dataset.sample.painter import WHITE, Colour, Painter, darker, fill_gradient, lighter, mix, pick

WALLS: tuple[Colour, ...] = (
    (246, 234, 214), (204, 219, 201), (190, 212, 224), (244, 217, 206), (236, 208, 150),
    (214, 206, 228), (150, 190, 188), (226, 226, 220), (118, 142, 160), (232, 190, 170)
)  # fmt: skip
ACCENTS: tuple[Colour, ...] = (
    (214, 112, 88), (232, 174, 82), (88, 140, 136), (70, 92, 128), (160, 182, 130),
    (226, 148, 150), (132, 106, 150), (248, 240, 226), (104, 150, 190)
)  # fmt: skip
WOOD: Colour = (176, 128, 92)
LEAF: Colour = (98, 146, 104)


def draw_tree(painter: Painter, generator: np.random.Generator) -> None:
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
    pot, green = pick(generator, ACCENTS), mix(LEAF, (60, 120, 110), generator.uniform(0, 0.6))
    for angle in np.linspace(-1.2, 1.2, 7) + generator.uniform(-0.1, 0.1, 7):
        leaf = painter.at(0, 0, generator.uniform(0.8, 1.1), angle)
        leaf.blob([(0, 0.05), (-0.13, -0.5), (0, -1.05), (0.13, -0.5)], green)
        leaf.line([(0, 0), (0, -0.8)], 0.025, lighter(green, 0.25))
    painter.polygon([(-0.38, 0), (0.38, 0), (0.28, 0.62), (-0.28, 0.62)], pot)
    painter.box(-0.42, -0.05, 0.42, 0.12, darker(pot, 0.12), 0.04)


def draw_lamp(painter: Painter, generator: np.random.Generator) -> None:
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
    for row in range(3):
        shift = generator.uniform(-0.12, 0.12)
        colour = mix((206, 168, 124), pick(generator, ACCENTS), 0.2)
        top = row * 0.72
        painter.box(-0.5 + shift, top, 0.5 + shift, top + 0.7, colour, 0.03)
        painter.box(-0.08 + shift, top, 0.08 + shift, top + 0.7, lighter(colour, 0.3))
        painter.box(0.2 + shift, top + 0.42, 0.4 + shift, top + 0.58, lighter(colour, 0.6))


def draw_poster(painter: Painter, generator: np.random.Generator) -> None:
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


SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((154, 204, 228), (236, 244, 240)), ((120, 170, 214), (246, 226, 204)),
    ((246, 190, 160), (252, 232, 200)), ((176, 178, 216), (248, 214, 206))
)  # fmt: skip


def draw_background(painter: Painter, generator: np.random.Generator) -> None:
    place, clutter = pick(generator, PLACES)
    place(painter, generator)
    for _ in range(int(generator.integers(0, 4))):
        x, scale = generator.uniform(0.04, 0.96), generator.uniform(0.14, 0.26)
        thing = pick(generator, clutter)
        thing(painter.at(x, generator.uniform(*HEIGHTS[thing]), scale), generator)


def draw_room(painter: Painter, generator: np.random.Generator) -> None:
    wall, floor = pick(generator, WALLS), pick(generator, (WOOD, (206, 168, 130), (150, 120, 110)))
    fill_gradient(painter.image, lighter(wall, 0.15), wall)
    if generator.random() < 0.5:
        step = generator.uniform(0.08, 0.16)
        for x in np.arange(0, 1, step):
            painter.box(x, 0, x + step / 2, 1, (*lighter(wall, 0.5), 90))
    horizon = generator.uniform(0.74, 0.86)
    painter.box(0, horizon, 1, 1, floor)
    painter.box(0, horizon - 0.035, 1, horizon, lighter(wall, 0.6))
    painter.box(0, horizon, 1, horizon + 0.012, (*darker(floor, 0.3), 120))
    for x in (generator.uniform(0.08, 0.35), generator.uniform(0.6, 0.9)):
        draw_poster(painter.at(x, generator.uniform(0.15, 0.3), generator.uniform(0.16, 0.26)), generator)


def draw_shelves(painter: Painter, generator: np.random.Generator) -> None:
    wall, wood = pick(generator, WALLS), pick(generator, (WOOD, (226, 206, 180), (120, 88, 72)))
    fill_gradient(painter.image, darker(wall, 0.05), darker(wall, 0.18))
    rows = int(generator.integers(3, 5))
    for bottom in np.linspace(1 / rows, 1.0, rows) - 0.02:
        x = generator.uniform(-0.04, 0.04)
        while x < 1:
            x += draw_shelf_item(painter.at(x, bottom, 1 / rows), generator) / rows
        painter.box(0, bottom, 1, bottom + 0.028, wood)
        painter.box(0, bottom + 0.028, 1, bottom + 0.045, (*darker(wall, 0.7), 50))


def draw_shelf_item(painter: Painter, generator: np.random.Generator) -> float:
    """Draw a book, a vase or a ball that stands on the origin, and return its width in shelf heights."""
    colour, kind = mix(pick(generator, ACCENTS), (200, 190, 180), 0.25), generator.random()
    if kind < 0.72:
        width, height = generator.uniform(0.1, 0.2), generator.uniform(0.5, 0.78)
        painter.box(0.005, -height, width, 0, colour, 0.02)
        painter.box(0.005, -height * 0.82, width, -height * 0.74, lighter(colour, 0.45))
        return width
    if kind < 0.86:
        painter.blob([(0.12, -0.5), (0.24, -0.5), (0.34, -0.2), (0.26, 0), (0.1, 0), (0.02, -0.2)], colour)
    else:
        painter.ellipse(0.2, -0.19, 0.18, 0.18, colour)
        painter.ellipse(0.15, -0.25, 0.06, 0.06, lighter(colour, 0.4))
    return 0.45


def draw_street(painter: Painter, generator: np.random.Generator) -> None:
    fill_gradient(painter.image, *pick(generator, SKIES))
    draw_clouds(painter, generator)
    x = generator.uniform(-0.1, 0.0)
    while x < 1:
        width, top = generator.uniform(0.2, 0.34), generator.uniform(0.12, 0.42)
        draw_house(painter, generator, (x, top, x + width, 0.86))
        x += width
    painter.box(0, 0.84, 1, 1, (196, 190, 186))
    painter.box(0, 0.84, 1, 0.86, (222, 216, 208))
    for _ in range(int(generator.integers(1, 3))):
        draw_tree(painter.at(generator.uniform(0, 1), 0.86, generator.uniform(0.24, 0.36)), generator)


def draw_house(painter: Painter, generator: np.random.Generator, edges: tuple[float, float, float, float]) -> None:
    x1, y1, x2, y2 = edges
    colour = mix(pick(generator, WALLS + ACCENTS), (214, 204, 198), 0.35)
    glass = pick(generator, ((196, 220, 230), (250, 232, 178), darker(colour, 0.3)))
    painter.box(x1, y1, x2, y2, colour)
    painter.box(x1 - 0.005, y1 - 0.02, x2 + 0.005, y1 + 0.01, darker(colour, 0.22))
    columns = 2 if x2 - x1 < 0.27 else 3
    step = (x2 - x1) / columns
    for row in np.arange(y1 + 0.05, y2 - 0.1, 0.14):
        for column in range(columns):
            left = x1 + step * (column + 0.25)
            painter.box(left, row, left + step * 0.5, row + 0.085, glass, 0.008)
            painter.box(left - 0.008, row + 0.085, left + step * 0.5 + 0.008, row + 0.096, lighter(colour, 0.4))


def draw_park(painter: Painter, generator: np.random.Generator) -> None:
    fill_gradient(painter.image, *pick(generator, SKIES))
    sun_x, sun_y = generator.uniform(0.1, 0.9), generator.uniform(0.1, 0.25)
    painter.glow(sun_x, sun_y, 0.2, 0.2, (255, 244, 206), 120)
    painter.ellipse(sun_x, sun_y, 0.07, 0.07, (255, 238, 190))
    draw_clouds(painter, generator)
    green = pick(generator, ((142, 184, 132), (164, 190, 118), (118, 170, 146)))
    for depth, level in enumerate((0.52, 0.64, 0.78)):
        heights = level + generator.uniform(-0.06, 0.06, 5)
        hill = [(-0.1, 1.2), *zip(np.linspace(-0.1, 1.1, 5), heights, strict=True), (1.1, 1.2)]
        painter.blob(hill, darker(lighter(green, 0.35), 0.12 * depth))
        x = generator.uniform(0, 1)
        draw_tree(painter.at(x, level + 0.06, 0.16 + 0.07 * depth), generator)


def draw_clouds(painter: Painter, generator: np.random.Generator) -> None:
    for _ in range(int(generator.integers(1, 4))):
        x, y, size = generator.uniform(0, 1), generator.uniform(0.05, 0.3), generator.uniform(0.04, 0.08)
        for along, radius in ((-1.2, 0.6), (-0.4, 1.0), (0.6, 0.8), (1.4, 0.5)):
            painter.ellipse(x + along * size, y - radius * size * 0.4, radius * size, radius * size, (255, 253, 248))
        painter.box(x - 1.8 * size, y - 0.3 * size, x + 1.9 * size, y + 0.4 * size, (255, 253, 248), 0.3 * size)


def draw_bokeh(painter: Painter, generator: np.random.Generator) -> None:
    base = pick(generator, ((66, 78, 112), (96, 74, 104), (60, 100, 106), (150, 110, 104), (190, 206, 200)))
    fill_gradient(painter.image, base, mix(base, pick(generator, ACCENTS), 0.35))
    for _ in range(int(generator.integers(12, 26))):
        radius = generator.uniform(0.02, 0.1)
        light = lighter(pick(generator, ACCENTS), 0.35)
        x, y = generator.uniform(0, 1, 2)
        painter.ellipse(x, y, radius, radius, (*light, int(generator.integers(40, 110))))
        painter.ellipse(x, y, radius * 0.85, radius * 0.85, (*light, 40))


def draw_shapes(painter: Painter, generator: np.random.Generator) -> None:
    wall = pick(generator, WALLS)
    fill_gradient(painter.image, lighter(wall, 0.25), wall)
    for _ in range(int(generator.integers(2, 5))):
        x, y = generator.uniform(0, 1), generator.uniform(0.1, 0.8)
        size, colour = generator.uniform(0.14, 0.34), mix(pick(generator, ACCENTS), wall, 0.45)
        if generator.random() < 0.5:
            painter.ellipse(x, y, size * 0.8, size * 0.8, colour)
        else:
            for share in (1.0, 0.7, 0.4):
                shade = mix(colour, lighter(wall, 0.4), 1 - share)
                painter.ellipse(x, y, size * share, size * share, shade)
                painter.box(x - size * share, y, x + size * share, 1, shade)


def draw_window(painter: Painter, generator: np.random.Generator) -> None:
    wall, cloth = pick(generator, WALLS), pick(generator, ACCENTS)
    sky_top, sky_low = pick(generator, SKIES)
    fill_gradient(painter.image, sky_top, sky_low)
    draw_clouds(painter, generator)
    painter.blob([(-0.1, 0.9), (0.2, 0.58), (0.5, 0.66), (0.8, 0.55), (1.1, 0.9)], (158, 190, 160))
    for edges in ((0, 0, 1, 0.07), (0, 0.78, 1, 1), (0, 0, 0.08, 1), (0.92, 0, 1, 1)):
        painter.box(*edges, wall)
    for edges in ((0.48, 0.06, 0.52, 0.78), (0.06, 0.38, 0.94, 0.41), (0.04, 0.76, 0.96, 0.81)):
        painter.box(*edges, lighter(wall, 0.7))
    for side, inner in ((0.0, 0.2), (1.0, 0.8)):
        middle = (side + inner) / 2
        painter.blob([(side, -0.1), (inner, -0.1), (middle, 0.6), (inner, 1.0), (side, 1.1)], cloth)
        painter.curve([(middle, 0), ((side + middle) / 2, 0.5), (middle, 0.95)], 0.012, darker(cloth, 0.18))
    painter.box(0, 0.0, 1, 0.025, darker(WOOD, 0.2))


def draw_cafe(painter: Painter, generator: np.random.Generator) -> None:
    wall, cloth = pick(generator, WALLS), pick(generator, ACCENTS[:7])
    fill_gradient(painter.image, lighter(wall, 0.2), wall)
    for y in np.arange(0.2, 0.8, 0.08):
        painter.line([(0, y), (1, y)], 0.006, darker(wall, 0.1))
    for left in np.arange(0, 1, 0.125):
        stripe = cloth if round(left / 0.125) % 2 else (250, 244, 232)
        painter.box(left, -0.05, left + 0.125, 0.13, stripe, 0.04)
    for x in (generator.uniform(0.1, 0.4), generator.uniform(0.6, 0.9)):
        drop = generator.uniform(0.24, 0.36)
        painter.line([(x, 0.1), (x, drop)], 0.008, (80, 70, 74))
        painter.glow(x, drop + 0.06, 0.14, 0.14, (255, 236, 180), 100)
        painter.blob([(x - 0.07, drop + 0.06), (x, drop - 0.02), (x + 0.07, drop + 0.06)], darker(cloth, 0.25))
        painter.ellipse(x, drop + 0.065, 0.028, 0.028, (255, 244, 206))
    painter.box(0, 0.8, 1, 1, WOOD)
    painter.box(0, 0.78, 1, 0.82, lighter(WOOD, 0.35))


INDOORS = tuple(HEIGHTS)
STANDING = (draw_plant, draw_lamp, draw_balloons, draw_boxes)
OUTDOORS = (draw_plant, draw_balloons, draw_balloons, draw_boxes)
# Each place with the clutter that may stand or hang in it: no pictures in the sky.
PLACES = (
    (draw_room, INDOORS),
    (draw_shelves, STANDING),
    (draw_street, OUTDOORS),
    (draw_park, OUTDOORS),
    (draw_bokeh, (draw_plant, draw_balloons)),
    (draw_shapes, INDOORS),
    (draw_window, STANDING),
    (draw_cafe, INDOORS),
)
