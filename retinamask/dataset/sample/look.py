"""Decides who stands in a sample scene: the looks of one drawn person.

It sits above `painter` and below `clothes` and `faces`, which only draw what a `Look`
says.  All chance of a person lives here; the drawing is a pure function of the look.

Lengths are in half head heights: the head spans y = -1 (crown) to 1 (chin) in its own frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retinamask.dataset.sample.painter import Colour, ellipse_points, pick

SKINS: tuple[Colour, ...] = (
    (255, 224, 202), (250, 211, 182), (240, 194, 158), (226, 174, 134),
    (200, 144, 104), (170, 114, 80), (136, 88, 62), (104, 66, 50),
)  # fmt: skip
DARK_HAIRS: tuple[Colour, ...] = ((44, 38, 44), (66, 46, 42), (96, 64, 48), (84, 60, 76))
HAIRS: tuple[Colour, ...] = (*DARK_HAIRS, (134, 80, 52), (178, 96, 60), (222, 178, 108), (176, 172, 176))
CLOTHES: tuple[Colour, ...] = (
    (84, 122, 158), (206, 110, 90), (230, 178, 88), (108, 150, 130), (242, 232, 216),
    (62, 74, 104), (196, 134, 150), (134, 112, 158), (96, 96, 104), (150, 182, 196),
)  # fmt: skip
STYLES = (
    "short", "short", "swept", "swept", "crop", "fringe", "bob", "long", "long", "bun", "afro", "curly",
    "bald", "beanie", "hijab", "pigtails",
)  # fmt: skip
GARMENTS = ("round", "round", "vee", "collar", "hood", "striped", "high")
# No mask comes in a colour that could be taken for skin.
MASK_COLOURS: dict[str, tuple[Colour, ...]] = {
    "surgical": (
        (146, 204, 232),
        (146, 204, 232),
        (250, 250, 250),
        (150, 220, 200),
        (250, 158, 190),
        (58, 58, 68),
    ),
    "cloth": ((66, 96, 150), (50, 50, 60), (92, 160, 130), (236, 110, 156), (246, 246, 248), (118, 92, 168)),
    "beak": ((250, 250, 250), (250, 250, 250), (50, 50, 58), (176, 208, 232), (128, 190, 160)),
}
PATTERNS = ("plain", "dots", "stripes", "checks", "leaves")
FACIAL_HAIR = ("beard", "goatee", "moustache")


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
        glasses=choose_glasses(generator),
        facial_hair=facial_hair,
        facial_hair_colour=hair if hair in DARK_HAIRS else pick(generator, DARK_HAIRS[:3]),
        scarf=generator.random() < 0.2,
        hand=not masked and generator.random() < 0.12,
        mask=mask,
        mask_colour=pick(generator, MASK_COLOURS[mask or "surgical"]),
        pattern=pick(generator, PATTERNS),
    )


def choose_glasses(generator: np.random.Generator) -> str | None:
    """Return the kind of glasses, most often none."""
    draw = generator.random()
    return "sun" if draw < 0.1 else "round" if draw < 0.23 else "square" if draw < 0.33 else None
