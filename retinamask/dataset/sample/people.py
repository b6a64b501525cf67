"""Draw the people of the sample data set: who somebody is, and how a head looks.

All chance of a person is in `choose_look`; the drawing is a pure function of the look. Lengths are in half head
heights around the middle of the head, which spans y = -1 (crown) to 1 (chin).
"""

from dataclasses import dataclass

import numpy as np

from retinamask.dataset.sample.painter import (
    INK,
    WHITE,
    Colour,
    Painter,
    darker,
    ellipse_points,
    lighter,
    mix,
    pick,
    smooth,
)

SKINS: tuple[Colour, ...] = (
    (255, 224, 202), (250, 211, 182), (240, 194, 158), (226, 174, 134),
    (200, 144, 104), (170, 114, 80), (136, 88, 62), (104, 66, 50)
)  # fmt: skip
DARK_HAIRS: tuple[Colour, ...] = ((44, 38, 44), (66, 46, 42), (96, 64, 48), (84, 60, 76))
HAIRS: tuple[Colour, ...] = (*DARK_HAIRS, (134, 80, 52), (178, 96, 60), (222, 178, 108), (176, 172, 176))
CLOTHES: tuple[Colour, ...] = (
    (84, 122, 158), (206, 110, 90), (230, 178, 88), (108, 150, 130), (242, 232, 216),
    (62, 74, 104), (196, 134, 150), (134, 112, 158), (96, 96, 104), (150, 182, 196)
)  # fmt: skip
STYLES = (
    "short", "short", "swept", "swept", "crop", "fringe", "bob", "long", "long", "bun", "afro", "curly",
    "bald", "beanie", "hijab", "pigtails",
)  # fmt: skip
GARMENTS = ("round", "round", "vee", "collar", "hood", "striped", "high")
# No mask comes in a colour that could be taken for skin.
MASK_COLOURS: dict[str, tuple[Colour, ...]] = {
    "surgical": ((146, 204, 232), (146, 204, 232), (250, 250, 250), (150, 220, 200), (250, 158, 190), (58, 58, 68)),
    "cloth": ((66, 96, 150), (50, 50, 60), (92, 160, 130), (236, 110, 156), (246, 246, 248), (118, 92, 168)),
    "beak": ((250, 250, 250), (250, 250, 250), (50, 50, 58), (176, 208, 232), (128, 190, 160)),
}
PATTERNS = ("plain", "dots", "stripes", "checks", "leaves")
FACIAL_HAIR = ("beard", "goatee", "moustache")
LIP = (196, 92, 96)


@dataclass(frozen=True)
class Look:
    """Everything that one person's picture depends on; colours are (r, g, b), lengths half head heights."""

    skin: Colour
    style: str
    hair: Colour
    garment: str
    cloth: Colour
    accent: Colour
    width: float
    jaw: float
    shift_x: float
    shift_y: float
    eyes: str
    mouth: str
    glasses: str | None
    facial_hair: str | None
    facial_hair_colour: Colour
    scarf: bool
    hand: bool
    mask: str | None
    mask_colour: Colour
    pattern: str

    def arc(self, start: float, stop: float, grow: float = 1.0, points: int = 40) -> np.ndarray:
        """Return (points,2) on the head's outline from one angle to another, in degrees.

        0 is the person's cheek on the right of the picture, 90 the chin, 180 the other cheek, 270 the crown;
        `grow` widens the outline around its centre.
        """
        t = np.radians(np.linspace(start, stop, points))
        cosine, sine = np.cos(t), np.sin(t)
        # A softened power makes the skull a little squarer than an ellipse, the jaw term narrows the chin.
        across = self.width * np.sign(cosine) * np.abs(cosine) ** 0.86
        across = across * (1 - self.jaw * np.maximum(sine, 0) ** 1.5)
        return np.stack([across, sine], axis=1) * grow

    def outline(self, grow: float = 1.0) -> np.ndarray:
        """Return the head's outline as (72,2) points."""
        return self.arc(0, 355, grow, 72)

    def ears(self) -> list[np.ndarray]:
        """Return the outlines of both ears, (40,2) each; turning the head hides one of them a little."""
        return [
            ellipse_points(side * (self.width - 0.01) - 0.35 * self.shift_x, 0.1, 0.12, 0.2, -side * 0.12)
            for side in (-1, 1)
        ]

    def face_points(self) -> np.ndarray:
        """Return (N,2) points whose bounds are the face to mark: crown to chin, ear to ear."""
        return np.concatenate([self.outline(), *self.ears()])


def choose_look(generator: np.random.Generator, masked: bool) -> Look:
    """Return the look of a random person, with or without a mask."""
    hair = pick(generator, HAIRS)
    mask = pick(generator, ("surgical", "surgical", "cloth", "cloth", "beak")) if masked else None
    skin, style = pick(generator, SKINS), pick(generator, STYLES)
    # Plain ink dots would hardly show on dark skin; eyes with a white do.
    eyes = ("dot", "dot", "open", "open", "happy") if sum(skin) > 400 else ("open", "open", "open", "happy")
    facial_hair = pick(generator, FACIAL_HAIR) if generator.random() < 0.38 else None
    if style in ("bob", "long", "bun", "hijab", "pigtails", "fringe"):
        facial_hair = None
    return Look(
        skin=skin,
        style=style,
        hair=hair,
        garment=pick(generator, GARMENTS),
        cloth=pick(generator, CLOTHES),
        accent=pick(generator, CLOTHES),
        width=generator.uniform(0.76, 0.86),
        jaw=generator.uniform(0.08, 0.26),
        shift_x=generator.uniform(-0.13, 0.13),
        shift_y=generator.uniform(-0.04, 0.05),
        eyes=pick(generator, eyes),
        mouth=pick(generator, ("smile", "smile", "grin", "grin", "lips", "small")),
        glasses=("sun", "round", "square", None)[np.searchsorted((0.1, 0.23, 0.33), generator.random(), "right")],
        facial_hair=facial_hair,
        facial_hair_colour=hair if hair in DARK_HAIRS else pick(generator, DARK_HAIRS[:3]),
        scarf=generator.random() < 0.2,
        hand=not masked and generator.random() < 0.12,
        mask=mask,
        mask_colour=pick(generator, MASK_COLOURS[mask or "surgical"]),
        pattern=pick(generator, PATTERNS),
    )


def draw_head(painter: Painter, look: Look) -> None:
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
    """Draw the mouth; with a beard always an open one, so that it stays visible."""
    y = 0.58
    mouth = {"beard": "grin", "goatee": "smile", "moustache": "smile"}.get(look.facial_hair, look.mouth)
    if mouth == "grin":
        upper = [(-0.27, y - 0.07), (0, y - 0.04), (0.27, y - 0.07)]
        shape = smooth([*upper, (0.16, y + 0.12), (0, y + 0.17), (-0.16, y + 0.12)])
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


def draw_hand(painter: Painter, look: Look) -> None:
    """Draw a hand that holds the chin from below; the mouth stays free."""
    skin, line = look.skin, darker(look.skin, 0.28)
    side = 1 if look.shift_x < 0 else -1
    painter.line([(side * 0.62, 1.3), (side * 1.2, 2.8)], 0.46, darker(look.cloth, 0.12))
    painter.line([(side * 0.5, 1.2), (side * 0.68, 1.55)], 0.4, skin)
    painter.blob(
        [(side * 0.2, 0.98), (side * 0.66, 0.9), (side * 0.8, 1.2), (side * 0.5, 1.42), (side * 0.2, 1.3)], skin
    )
    for reach, y in ((-0.2, 1.0), (-0.14, 1.13), (-0.04, 1.25)):
        painter.line([(side * 0.5, y), (side * reach, y)], 0.15, line)
        painter.line([(side * 0.5, y - 0.01), (side * reach, y - 0.01)], 0.115, skin)
    painter.line([(side * 0.62, 1.05), (side * 0.68, 0.76)], 0.15, line)
    painter.line([(side * 0.62, 1.05), (side * 0.68, 0.76)], 0.12, skin)


def draw_facial_hair(painter: Painter, look: Look) -> None:
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
