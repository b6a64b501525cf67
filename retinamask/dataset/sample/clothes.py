"""Draw what a person of the sample data set wears: hair, clothes, glasses and, above all, masks.

Clothes are drawn in the upright frame of the body, the rest in the tilted frame of the head; both start at the middle
of the head, in half head heights.
"""

import numpy as np

from retinamask.dataset.sample.painter import INK, WHITE, Colour, Painter, darker, lighter, smooth
from retinamask.dataset.sample.people import Look

BODY_BOTTOM = 14.0  # below every image edge: bodies are never cut off in the air
SHOULDERS = np.array([(0.36, 1.2), (0.72, 1.32), (1.16, 1.5), (1.4, 1.82), (1.48, 2.4), (1.5, 3.0)])


def body_outline() -> np.ndarray:
    # The straight side joins after smoothing: a far point would bend the curve before it.
    right = np.concatenate([smooth(SHOULDERS, closed=False), [(1.5, BODY_BOTTOM)]])
    return np.concatenate([right, (right * (-1, 1))[::-1]])


def draw_body(painter: Painter, look: Look) -> None:
    painter.polygon(body_outline() + (0.1, 0.08), (*INK, 34))
    painter.polygon(body_outline(), look.cloth)
    with painter.inside(body_outline()) as inner:
        if look.garment == "striped":
            for y in np.arange(1.5, 9.0, 0.36):
                stripe = [(-1.7, y + 0.1), (0, y + 0.2), (1.7, y + 0.1)]
                inner.curve(stripe, 0.15, look.accent if look.accent != look.cloth else lighter(look.cloth, 0.6))
        for side in (-1, 1):
            inner.curve([(side * 1.0, 9), (side * 0.98, 2.6), (side * 1.12, 2.1)], 0.06, darker(look.cloth, 0.18))
    draw_neck(painter, look)
    draw_neckline(painter, look)


def draw_neck(painter: Painter, look: Look) -> None:
    neck = smooth([(-0.36, 0.4), (0.36, 0.4), (0.36, 1.1), (0.5, 1.3), (0, 1.56), (-0.5, 1.3), (-0.36, 1.1)])
    painter.polygon(neck, darker(look.skin, 0.07))
    with painter.inside(neck) as inner:
        inner.ellipse(0, 0.86, 0.6, 0.42, darker(look.skin, 0.24))


def draw_neckline(painter: Painter, look: Look) -> None:
    edge = darker(look.cloth, 0.2)
    if look.garment in ("round", "striped"):
        painter.curve([(-0.54, 1.26), (-0.34, 1.5), (0, 1.6), (0.34, 1.5), (0.54, 1.26)], 0.11, edge)
    elif look.garment == "vee":
        painter.polygon([(-0.4, 1.26), (0.4, 1.26), (0, 1.98)], darker(look.skin, 0.07))
        painter.line([(-0.5, 1.24), (0, 2.0), (0.5, 1.24)], 0.1, edge)
    elif look.garment == "collar":
        for side in (-1, 1):
            painter.polygon([(side * 0.5, 1.12), (side * 0.02, 1.54), (side * 0.42, 1.86)], lighter(look.cloth, 0.55))
        for y in (1.9, 2.4, 2.9):
            painter.ellipse(0, y, 0.06, colour=edge)
    elif look.garment == "hood":
        for side in (-1, 1):
            painter.blob([(side * 0.4, 1.1), (side * 0.86, 1.2), (side * 0.7, 1.62), (side * 0.1, 1.7)], edge)
            painter.line([(side * 0.24, 1.62), (side * 0.27, 2.2)], 0.055, lighter(look.cloth, 0.7))
    else:
        painter.blob([(-0.44, 1.06), (0.44, 1.06), (0.56, 1.4), (0, 1.64), (-0.56, 1.4)], lighter(look.cloth, 0.14))
        painter.curve([(-0.46, 1.22), (0, 1.3), (0.46, 1.22)], 0.04, edge)


def draw_scarf(painter: Painter, look: Look) -> None:
    colour, dark = look.accent, darker(look.accent, 0.2)
    painter.box(0.16, 1.4, 0.58, 2.7, dark, 0.08)
    for y in (2.1, 2.36):
        painter.line([(0.2, y), (0.54, y)], 0.08, lighter(colour, 0.5))
    painter.blob(
        [(-0.68, 1.12), (0, 1.2), (0.68, 1.12), (0.76, 1.38), (0.4, 1.62), (-0.4, 1.62), (-0.76, 1.38)], colour
    )
    painter.curve([(-0.6, 1.34), (0, 1.48), (0.62, 1.32)], 0.045, dark)


def draw_glasses(painter: Painter, look: Look) -> None:
    sun = look.glasses == "sun"
    frame = (48, 42, 52) if sun else darker(look.accent, 0.55)
    lens: Colour = (52, 50, 66) if sun else (255, 255, 255, 26)
    x, y = look.shift_x, look.shift_y - 0.02
    for side in (-1, 1):
        centre = x + side * 0.35
        if look.glasses == "square":
            painter.box(centre - 0.26, y - 0.2, centre + 0.26, y + 0.19, lens, 0.08)
            corners = [(-0.26, -0.2), (0.26, -0.2), (0.26, 0.19), (-0.26, 0.19), (-0.26, -0.2)]
            painter.line(np.array(corners) + (centre, y), 0.05, frame)
        else:
            angles = np.linspace(0, 2 * np.pi, 33)
            ring = np.stack([centre + 0.26 * np.cos(angles), y + 0.23 * np.sin(angles)], axis=1)
            painter.polygon(ring, lens)
            painter.line(ring, 0.05, frame)
        if sun:
            painter.line([(centre - 0.12, y + 0.06), (centre + 0.02, y - 0.12)], 0.05, (120, 120, 140))
        painter.line([(centre + side * 0.27, y - 0.04), (side * look.width * 0.98, y - 0.06)], 0.05, frame)
    painter.curve([(x - 0.1, y - 0.02), (x, y - 0.07), (x + 0.1, y - 0.02)], 0.05, frame)


def mask_outline(look: Look) -> np.ndarray:
    """Return the edge of the mask as (N,2) points: over the nose, down the cheeks, under the chin."""
    nose_x, nose_y = 1.25 * look.shift_x, 0.08 + look.shift_y
    if look.mask == "surgical":
        jaw = look.arc(12, 168, 1.035) * (0.9, 1.0)
        ridge = [(nose_x - 0.3, nose_y + 0.06), (nose_x, nose_y), (nose_x + 0.3, nose_y + 0.06)]
    elif look.mask == "cloth":
        jaw = look.arc(6, 174, 1.035) * (0.97, 1.0)
        ridge = [(nose_x - 0.4, nose_y + 0.1), (nose_x, nose_y - 0.04), (nose_x + 0.4, nose_y + 0.1)]
    else:
        sides = np.array([(0.86 * look.width, 0.3), (0.8 * look.width, 0.62), (0.34, 1.0)])
        jaw = np.concatenate([sides, [(0.5 * nose_x, 1.1)], (sides * (-1, 1))[::-1]])
        ridge = [(nose_x - 0.16, nose_y), (nose_x, nose_y - 0.07), (nose_x + 0.16, nose_y)]
        return np.concatenate([jaw, ridge])
    top = smooth([jaw[-1], *ridge, jaw[0]], closed=False)
    return np.concatenate([jaw, top])


def draw_mask(painter: Painter, look: Look) -> None:
    outline = mask_outline(look)
    with painter.inside(look.outline()) as face:
        face.polygon(outline + (0, -0.06), (*darker(look.skin, 0.6), 60))
    draw_ear_loops(painter, look, outline)
    painter.polygon(outline, look.mask_colour)
    with painter.inside(outline) as inner:
        FILLINGS[look.mask](inner, look)
    edge = darker(look.mask_colour, 0.28) if sum(look.mask_colour) > 240 else lighter(look.mask_colour, 0.25)
    painter.line(np.concatenate([outline, outline[:1]]), 0.042, edge)


def draw_ear_loops(painter: Painter, look: Look, outline: np.ndarray) -> None:
    light = WHITE if sum(look.mask_colour) > 240 else (78, 78, 88)
    for side in (-1, 1):
        reach = outline[:, 0] * side
        upper = (side * (reach.max() - 0.03), outline[reach.argmax(), 1] + 0.06)
        lower = (side * 0.72 * look.width, 0.66)
        ear_x = side * (look.width + 0.02) - 0.35 * look.shift_x
        strap = [upper, (ear_x, -0.08), (ear_x + side * 0.05, 0.14), (ear_x, 0.28), lower]
        painter.line(strap, 0.1, (*darker(look.skin, 0.5), 70))
        painter.line(strap, 0.055, light)


def fill_surgical(painter: Painter, look: Look) -> None:
    fold, x = darker(look.mask_colour, 0.2), 1.1 * look.shift_x
    for y in (0.36, 0.56, 0.76):
        painter.curve([(-1, y - 0.03), (x, y + 0.07), (1, y - 0.03)], 0.04, fold)
        painter.curve([(-1, y - 0.08), (x, y + 0.02), (1, y - 0.08)], 0.03, lighter(look.mask_colour, 0.5))
    painter.ellipse(0, 1.12, 0.8, 0.16, (*INK, 26))


def fill_cloth(painter: Painter, look: Look) -> None:
    ink = lighter(look.mask_colour, 0.6) if sum(look.mask_colour) < 600 else (104, 150, 200)
    if look.pattern == "stripes":
        for y in np.arange(0.0, 1.2, 0.17):
            painter.curve([(-1, y - 0.04), (look.shift_x, y + 0.06), (1, y - 0.04)], 0.06, ink)
    elif look.pattern == "checks":
        for at in np.arange(-1.0, 1.2, 0.26):
            painter.line([(at, -0.2), (at, 1.2)], 0.1, (*ink, 120))
            painter.line([(-1, at), (1, at)], 0.1, (*ink, 120))
    elif look.pattern in ("dots", "leaves"):
        narrow = 1.0 if look.pattern == "dots" else 0.45
        for row, y in enumerate(np.arange(0.02, 1.1, 0.19)):
            for x in np.arange(-0.9, 1.0, 0.28) + 0.14 * (row % 2):
                painter.ellipse(x, y, 0.07, 0.07 * narrow, ink, 0.7 * (-1) ** row)
    x = look.shift_x
    painter.curve([(1.2 * x, 0.0), (1.5 * x, 0.5), (0.6 * x, 1.1)], 0.035, darker(look.mask_colour, 0.25))
    painter.ellipse(0, 1.14, 0.9, 0.22, (*INK, 26))


def fill_beak(painter: Painter, look: Look) -> None:
    x, colour = look.shift_x, look.mask_colour
    seam = [(1.25 * x, -0.1), (2.0 * x, 0.5), (0.6 * x, 1.15)]
    painter.polygon([*seam, (1.2, 1.2), (1.2, -0.2)], (*INK, 26))
    painter.line(seam, 0.05, darker(colour, 0.25) if sum(colour) > 240 else lighter(colour, 0.3))
    for side in (-1, 1):
        weld = [(side * 0.8 * look.width, 0.34), (side * 0.42 + x, 0.52), (side * 0.3, 0.98)]
        painter.line(weld, 0.03, darker(colour, 0.16) if sum(colour) > 240 else lighter(colour, 0.2))
    y = 0.1 + look.shift_y
    painter.curve([(1.25 * x - 0.22, y + 0.07), (1.25 * x, y), (1.25 * x + 0.22, y + 0.07)], 0.06, (150, 156, 166))


FILLINGS = {"surgical": fill_surgical, "cloth": fill_cloth, "beak": fill_beak}


def draw_hair_behind(painter: Painter, look: Look) -> None:
    colour, wide = darker(look.hair, 0.16), look.width
    if look.style == "long":
        flow = [(-1.06 * wide, -0.5), (0, -1.1), (1.06 * wide, -0.5), (1.26 * wide, 0.6), (1.2 * wide, 1.6)]
        painter.blob([*flow, (0, 1.7), (-1.2 * wide, 1.6), (-1.26 * wide, 0.6)], colour)
    elif look.style in ("bob", "fringe"):
        flow = [(-1.08 * wide, -0.5), (0, -1.12), (1.08 * wide, -0.5), (1.26 * wide, 0.4), (1.05 * wide, 0.92)]
        painter.blob([*flow, (0, 0.8), (-1.05 * wide, 0.92), (-1.26 * wide, 0.4)], colour)
    elif look.style == "bun":
        painter.ellipse(0, -1.16, 0.32, 0.28, look.hair)
        painter.curve([(-0.2, -1.2), (0, -1.28), (0.2, -1.16)], 0.04, lighter(look.hair, 0.15))
    elif look.style == "pigtails":
        for side in (-1, 1):
            painter.blob(
                [(side * 0.8, -0.2), (side * 1.16, 0.1), (side * 1.2, 0.7), (side * 0.98, 1.0), (side * 0.9, 0.5)],
                colour,
            )
            painter.ellipse(side * 0.92, -0.02, 0.1, colour=look.accent)
    elif look.style == "afro":
        draw_curls(painter, look, 150, 390, 1.12, 0.32, 15)
        painter.polygon(look.arc(160, 380, 1.2), look.hair)
    elif look.style == "hijab":
        drape = [(0, -1.16), (1.1 * wide, -0.6), (1.2 * wide, 0.3), (1.16 * wide, 1.0), (0.8 * wide, 1.5)]
        painter.blob([*drape, (0, 1.7), *((-x, y) for x, y in drape[:0:-1])], darker(look.accent, 0.2))


def draw_curls(painter: Painter, look: Look, start: float, stop: float, grow: float, radius: float, count: int) -> None:
    """Draw curls along the outline of the head between two angles in degrees."""
    for x, y in look.arc(start, stop, grow, count):
        painter.ellipse(x, y, radius, radius, look.hair)


def draw_hair_front(painter: Painter, look: Look) -> None:
    if look.style == "bald":
        painter.ellipse(-0.3, -0.68, 0.16, 0.08, (255, 255, 255, 60), -0.5)
    elif look.style == "beanie":
        draw_beanie(painter, look)
    elif look.style == "hijab":
        draw_hijab(painter, look)
    else:
        draw_fringe(painter, look)
        if look.style in ("curly", "afro"):
            draw_curls(painter, look, 196, 344, 0.9, 0.2, 9)


# Hairlines from the right of the picture to the left, as shares of the head's width and half head heights,
# with the angle down to which the hair reaches at the sides.
HAIRLINES: dict[str, tuple[float, tuple[tuple[float, float], ...]]] = {
    "short": (10, ((0.86, -0.3), (0.55, -0.5), (0.1, -0.52), (-0.4, -0.6), (-0.86, -0.3))),
    "swept": (4, ((0.84, -0.36), (0.62, -0.7), (0.2, -0.56), (-0.4, -0.42), (-0.88, -0.28))),
    "crop": (0, ((0.86, -0.4), (0.6, -0.66), (0.0, -0.7), (-0.6, -0.66), (-0.86, -0.4))),
    "fringe": (30, ((0.86, 0.1), (0.8, -0.36), (0.0, -0.42), (-0.8, -0.36), (-0.86, 0.1))),
    "bob": (34, ((0.88, 0.2), (0.74, -0.4), (0.3, -0.74), (-0.36, -0.5), (-0.82, -0.2), (-0.9, 0.3))),
    "long": (40, ((0.9, 0.3), (0.76, -0.3), (0.02, -0.86), (-0.76, -0.3), (-0.9, 0.3))),
    "bun": (6, ((0.88, -0.2), (0.56, -0.6), (0.0, -0.72), (-0.56, -0.6), (-0.88, -0.2))),
    "pigtails": (6, ((0.88, -0.2), (0.6, -0.5), (0.02, -0.84), (-0.6, -0.5), (-0.88, -0.2))),
    "afro": (6, ((0.86, -0.2), (0.6, -0.56), (0.0, -0.6), (-0.6, -0.56), (-0.86, -0.2))),
    "curly": (10, ((0.86, -0.2), (0.5, -0.52), (0.0, -0.5), (-0.5, -0.56), (-0.86, -0.2))),
}


def draw_fringe(painter: Painter, look: Look) -> None:
    """Draw the cap of hair down to the hairline of the style, its shadow on the skin and a shine."""
    reach, hairline = HAIRLINES[look.style]
    mirror = -1 if look.shift_x < 0 else 1
    line = np.array(hairline) * (look.width * mirror, 1)
    line = line if mirror > 0 else line[::-1]
    cap = np.concatenate([look.arc(180 - reach, 360 + reach, 1.07), smooth(line, closed=False)])
    with painter.inside(look.outline()) as skin:
        skin.polygon(cap + (0.02, 0.08), (*darker(look.skin, 0.6), 56))
    painter.polygon(cap, look.hair)
    with painter.inside(cap) as inner:
        shine = look.arc(215, 275, 0.86, 9)
        inner.line(shine, 0.07, lighter(look.hair, 0.16))


def draw_beanie(painter: Painter, look: Look) -> None:
    crown = np.concatenate([look.arc(190, 350, 1.1), [(look.width, -0.4), (-look.width, -0.4)]])
    painter.polygon(crown, look.accent)
    with painter.inside(crown) as inner:
        for x in np.arange(-0.8, 0.9, 0.2):
            inner.curve([(x * 0.5, -1.2), (x, -0.8), (x, -0.3)], 0.035, darker(look.accent, 0.14))
    painter.box(-1.04 * look.width, -0.6, 1.04 * look.width, -0.34, darker(look.accent, 0.2), 0.1)
    painter.ellipse(0, -1.14, 0.16, colour=lighter(look.accent, 0.4))


def draw_hijab(painter: Painter, look: Look) -> None:
    """Draw a head scarf around the face; it leaves nose, mouth and most of the chin free."""
    closed = np.concatenate([look.arc(100, 440, 1.06, 72), look.arc(100, 101, 1.06, 2)])
    painter.line(closed, 0.24, look.accent)
    painter.line(look.arc(100, 440, 0.95, 72), 0.03, darker(look.accent, 0.25))
    painter.curve([(-0.5, 1.1), (0.1, 1.3), (0.8, 1.2)], 0.05, darker(look.accent, 0.2))
