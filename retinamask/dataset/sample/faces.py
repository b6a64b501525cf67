"""Draws the people of the sample data set: head, hair, features, and what they wear.

It sits above `look` (who it is) and `clothes` (what is worn), and below `sample`, which places
people in a scene.  Everything is in half head heights around the middle of the head.
"""

from __future__ import annotations

import numpy as np

from retinamask.dataset.sample.clothes import draw_body, draw_glasses, draw_mask, draw_scarf
from retinamask.dataset.sample.look import Look
from retinamask.dataset.sample.painter import INK, WHITE, Painter, darker, lighter, mix, smooth

LIP = (196, 92, 96)


def draw_person(body: Painter, head: Painter, look: Look) -> None:
    """Draw one person from back to front.

    `body` is an upright painter and `head` a tilted one; both have the middle of the head as origin and half
    a head height as unit.
    """
    draw_hair_behind(head, look)
    draw_body(body, look)
    draw_head(head, look)
    draw_features(head, look)
    if look.scarf:
        draw_scarf(body, look)
    if look.mask:
        draw_mask(head, look)
    if look.glasses:
        draw_glasses(head, look)
    draw_hair_front(head, look)
    if look.hand:
        draw_hand(head, look)


def draw_head(painter: Painter, look: Look) -> None:
    """Draw ears, skin, the shaded side and the cheeks."""
    for side, ear in zip((-1, 1), look.ears(), strict=True):
        painter.polygon(ear, darker(look.skin, 0.06))
        painter.ellipse(*ear.mean(axis=0) - (side * 0.01, 0), 0.055, 0.11, darker(look.skin, 0.2))
    outline = look.outline()
    painter.polygon(outline, darker(look.skin, 0.13))
    # The same head a little to the light, cut at its own edge, leaves a crescent of shadow on the far side.
    with painter.inside(outline) as inner:
        inner.polygon(outline + (-0.1, -0.05), look.skin)
        blush = mix(look.skin, (232, 96, 92), 0.5)
        for side in (-1, 1):
            inner.glow(side * 0.47 + look.shift_x, 0.3 + look.shift_y, 0.2, 0.15, blush, 110)


def draw_features(painter: Painter, look: Look) -> None:
    """Draw eyes, brows, nose, facial hair and mouth."""
    face = painter.at(look.shift_x, look.shift_y)
    for side in (-1, 1):
        draw_eye(face, look, side)
    if look.mask:
        return
    if look.facial_hair:
        draw_facial_hair(painter, look)
    # The nose moves further than the eyes when a head turns.
    nose = darker(look.skin, 0.3)
    tip = 0.5 * look.shift_x
    bend = 1 if look.shift_x >= 0 else -1
    face.curve([(tip + 0.02 * bend, 0.06), (tip + 0.1 * bend, 0.26), (tip - 0.05 * bend, 0.3)], 0.055, nose)
    draw_mouth(face, look)


def draw_eye(painter: Painter, look: Look, side: int) -> None:
    """Draw one eye and its brow."""
    x = side * 0.35
    brow = darker(look.hair, 0.35) if look.style not in ("bald", "hijab", "beanie") else darker(look.skin, 0.6)
    painter.curve([(x - 0.15, -0.26 - 0.025 * side), (x, -0.32), (x + 0.15, -0.26 + 0.025 * side)], 0.06, brow)
    if look.eyes == "happy":
        painter.curve([(x - 0.13, 0.04), (x, -0.07), (x + 0.13, 0.04)], 0.06, INK)
    elif look.eyes == "dot":
        painter.ellipse(x, 0, 0.085, 0.115, INK)
        painter.ellipse(x + 0.03, -0.045, 0.032, colour=WHITE)
    else:
        painter.ellipse(x, 0, 0.15, 0.115, WHITE)
        painter.ellipse(x + 0.25 * look.shift_x, 0.0, 0.092, 0.1, mix(look.accent, INK, 0.75))
        painter.ellipse(x + 0.03 + 0.25 * look.shift_x, -0.04, 0.034, colour=WHITE)
        painter.curve([(x - 0.16, -0.03), (x, -0.12), (x + 0.16, -0.03)], 0.05, INK)


def draw_mouth(painter: Painter, look: Look) -> None:
    """Draw the mouth; behind a beard always an open one, so that it stays visible."""
    y = 0.58
    mouth = {"beard": "grin", "goatee": "smile", "moustache": "smile"}.get(look.facial_hair, look.mouth)
    if mouth == "grin":
        corners = [
            (-0.27, y - 0.07),
            (0, y - 0.04),
            (0.27, y - 0.07),
            (0.16, y + 0.12),
            (0, y + 0.17),
            (-0.16, y + 0.12),
        ]
        shape = smooth(corners)
        painter.polygon(shape, (128, 44, 54))
        with painter.inside(shape) as inner:
            inner.ellipse(0, y + 0.17, 0.15, 0.1, (226, 112, 112))
            inner.box(-0.3, y - 0.12, 0.3, y + 0.015, WHITE)
    elif mouth == "lips":
        painter.blob([(-0.22, y), (-0.08, y - 0.06), (0, y - 0.04), (0.08, y - 0.06), (0.22, y), (0, y + 0.1)], LIP)
        painter.curve([(-0.19, y), (0, y + 0.025), (0.19, y)], 0.025, darker(LIP, 0.45))
    elif mouth == "small":
        painter.ellipse(0, y, 0.1, 0.085, (128, 44, 54))
        painter.ellipse(0, y + 0.04, 0.06, 0.035, (226, 112, 112))
    else:
        # On dark skin a dark line would hardly show.
        colour = mix(darker(look.skin, 0.5), LIP, 0.45 if sum(look.skin) > 400 else 0.85)
        painter.curve([(-0.24, y - 0.04), (0, y + 0.08), (0.24, y - 0.04)], 0.07, colour)


# Hair -------------------------------------------------------------------------------------------------------


def draw_facial_hair(painter: Painter, look: Look) -> None:
    """Draw a beard, a goatee or a moustache as hair, with strands, around the place of the mouth."""
    colour, x, y = look.facial_hair_colour, look.shift_x, look.shift_y
    if look.facial_hair == "beard":
        edge = [(-0.93 * look.width, 0.1), (-0.6 * look.width, 0.3), (x - 0.2, y + 0.4), (x, y + 0.37)]
        edge += [(x + 0.2, y + 0.4), (0.6 * look.width, 0.3), (0.93 * look.width, 0.1)]
        shape = np.concatenate([look.arc(4, 176, 1.04), smooth(edge, closed=False)])
    elif look.facial_hair == "goatee":
        shape = smooth([(x - 0.24, 0.8), (x, 0.76), (x + 0.24, 0.8), (x * 0.6 + 0.17, 1.0),
                        (x * 0.6, 1.07), (x * 0.6 - 0.17, 1.0)])  # fmt: skip
    else:
        shape = smooth([(x - 0.34, y + 0.49), (x - 0.14, y + 0.37), (x, y + 0.41), (x + 0.14, y + 0.37),
                        (x + 0.34, y + 0.49), (x + 0.1, y + 0.48), (x - 0.1, y + 0.48)])  # fmt: skip
    painter.polygon(shape, colour)
    if look.facial_hair == "moustache":
        return
    with painter.inside(shape) as inner:
        for row, across in enumerate(np.arange(-0.8, 0.85, 0.13)):
            for down in np.arange(0.2, 1.05, 0.22) + 0.1 * (row % 2):
                inner.line([(across, down), (across * 0.9, down + 0.11)], 0.03, lighter(colour, 0.22))


def draw_hair_behind(painter: Painter, look: Look) -> None:
    """Draw the hair (or cloth) that hangs or stands behind head and shoulders."""
    colour, wide = darker(look.hair, 0.16), look.width
    if look.style == "long":
        flow = [(-1.06 * wide, -0.5), (0, -1.1), (1.06 * wide, -0.5), (1.26 * wide, 0.6), (1.2 * wide, 1.6)]
        painter.blob([*flow, (0, 1.7), (-1.2 * wide, 1.6), (-1.26 * wide, 0.6)], colour)
    elif look.style in ("bob", "fringe"):
        flow = [
            (-1.08 * wide, -0.5),
            (0, -1.12),
            (1.08 * wide, -0.5),
            (1.26 * wide, 0.4),
            (1.05 * wide, 0.92),
        ]
        painter.blob([*flow, (0, 0.8), (-1.05 * wide, 0.92), (-1.26 * wide, 0.4)], colour)
    elif look.style == "bun":
        painter.ellipse(0, -1.16, 0.32, 0.28, look.hair)
        painter.curve([(-0.2, -1.2), (0, -1.28), (0.2, -1.16)], 0.04, lighter(look.hair, 0.15))
    elif look.style == "pigtails":
        for side in (-1, 1):
            painter.blob(
                [
                    (side * 0.8, -0.2),
                    (side * 1.16, 0.1),
                    (side * 1.2, 0.7),
                    (side * 0.98, 1.0),
                    (side * 0.9, 0.5),
                ],
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
    """Draw what lies over the forehead: the front hair, a hat or a head scarf."""
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
    """Draw a knitted hat with a turned-up rim."""
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


def draw_hand(painter: Painter, look: Look) -> None:
    """Draw a hand that holds the chin from below; the mouth stays free."""
    skin, line = look.skin, darker(look.skin, 0.28)
    side = 1 if look.shift_x < 0 else -1
    painter.line([(side * 0.62, 1.3), (side * 1.2, 2.8)], 0.46, darker(look.cloth, 0.12))
    painter.line([(side * 0.5, 1.2), (side * 0.68, 1.55)], 0.4, skin)
    painter.blob(
        [(side * 0.2, 0.98), (side * 0.66, 0.9), (side * 0.8, 1.2), (side * 0.5, 1.42), (side * 0.2, 1.3)],
        skin,
    )
    for reach, y in ((-0.2, 1.0), (-0.14, 1.13), (-0.04, 1.25)):
        painter.line([(side * 0.5, y), (side * reach, y)], 0.15, line)
        painter.line([(side * 0.5, y - 0.01), (side * reach, y - 0.01)], 0.115, skin)
    painter.line([(side * 0.62, 1.05), (side * 0.68, 0.76)], 0.15, line)
    painter.line([(side * 0.62, 1.05), (side * 0.68, 0.76)], 0.12, skin)
