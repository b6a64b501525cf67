"""Draw a small labelled data set of people with and without masks, to run the project without photographs.

JPEG scenes, and the VOC XML that labelImg would have written for them. The same seed always gives the same files, and
scene number k does not depend on how many scenes are drawn.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from retinamask.dataset.annotations import write_classes
from retinamask.dataset.boxes import intersections
from retinamask.dataset.files import replacing
from retinamask.dataset.formats import write_voc
from retinamask.dataset.sample.clothes import (
    draw_body,
    draw_glasses,
    draw_hair_behind,
    draw_hair_front,
    draw_mask,
    draw_scarf,
)
from retinamask.dataset.sample.painter import Painter
from retinamask.dataset.sample.people import Look, choose_look, draw_features, draw_hand, draw_head
from retinamask.dataset.sample.places import draw_background
from retinamask.progress import track

Person = tuple[Painter, Painter, Look]
"""Painters of the upright body and the tilted head (origin: its middle; unit: half its height), and the look."""

CLASSES = {"mask": 0, "no_mask": 1}
MINIMUM_SIZE = 64
JPEG_QUALITY = 90
SUPERSAMPLING = 2
FACE_COUNTS = (0.05, 0.31, 0.32, 0.2, 0.12)  # chance of 0, 1, 2, 3 and 4 faces
# Range of the longer box side as a share of the image, by number of faces: a crowd has to stand back.
FACE_SIDES = {1: (0.3, 0.54), 2: (0.26, 0.42), 3: (0.24, 0.34), 4: (0.23, 0.29)}
LARGEST_TILT = 0.24  # radians
OVERHANG = 0.03  # how much of a face box may be cut off at an image edge
CLEARANCE = 0.16  # room for hair and hats around a face box, as a share of its side


def draw_sample(out_dir: str | Path, images: int = 24, size: int = 256, seed: int = 0) -> list[Path]:
    """Write `images` square scenes of `size` pixels and their VOC annotations, and return the image paths.

    The files are `out_dir/images/scene_0000.jpg` ..., `out_dir/annotations/scene_0000.xml` ... and
    `out_dir/classes.csv`.

    Raises:
        ValueError: for images < 1, size < 64, a negative seed, or an `out_dir` that holds anything but
            files that this call would draw anew, and hidden ones.

    Example:
        >>> rm.draw_sample("scenes", images=12, size=256, seed=0)
    """
    for name, value, least in (("images", images, 1), ("size", size, MINIMUM_SIZE), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"sample: {name} is {value}, expected {least} or more")
    folder = Path(out_dir)
    names = [f"scene_{index:04d}" for index in range(images)]
    paths = [(folder / "images" / f"{name}.jpg", folder / "annotations" / f"{name}.xml") for name in names]
    _check_folder(folder, {folder / "classes.csv", *(path for both in paths for path in both)})
    write_classes(CLASSES, folder / "classes.csv")
    for index, (image_path, xml_path) in enumerate(track(paths, "drawing", "scene")):
        image_rgb, boxes_xyxy, class_names = draw_scene(np.random.default_rng((seed, index)), size)
        with replacing(image_path) as temporary:
            image_rgb.save(temporary, format="JPEG", quality=JPEG_QUALITY)
        write_voc(xml_path, image_path, (size, size), boxes_xyxy, class_names)
    return [image_path for image_path, _ in paths]


def draw_scene(generator: np.random.Generator, size: int) -> tuple[Image.Image, np.ndarray, list[str]]:
    """Draw one scene.

    Returns the RGB image (size x size), the face boxes as an int64 array (N,4) of half-open pixel edges
    x1, y1, x2, y2 inside the image, and the N class names, in the same order.
    """
    canvas = Image.new("RGB", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    unit_square = Painter(canvas, scale=canvas.width)
    draw_background(unit_square, generator)
    people = _place_people(unit_square, generator)
    for body, head, look in people:
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
    boxes_xyxy = np.array([face_box(head, look) for _, head, look in people]).reshape(-1, 4) / SUPERSAMPLING
    # labelImg never writes 0.
    boxes_xyxy = np.clip(np.rint(boxes_xyxy), 1, size).astype(np.int64)
    # A slightly brighter, darker, warmer or cooler light.
    gains = generator.uniform(0.9, 1.04) * (1 + generator.uniform(-0.04, 0.04) * np.array([1, 0, -1]))
    light = np.clip(np.arange(256) * gains[:, None], 0, 255).round().astype(int)
    names = ["mask" if look.mask else "no_mask" for _, _, look in people]
    return canvas.reduce(SUPERSAMPLING).point(light.ravel().tolist()), boxes_xyxy, names


def face_box(head: Painter, look: Look) -> np.ndarray:
    """Return the tight box (4,) x1, y1, x2, y2 of the tilted face in canvas pixels, not cut at the edges."""
    pixels = head.to_pixels(look.face_points())
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def _place_people(unit_square: Painter, generator: np.random.Generator) -> list[Person]:
    """Choose people and places for them, from back to front."""
    count = int(generator.choice(len(FACE_COUNTS), p=FACE_COUNTS))
    # Turns of the two classes keep them balanced within a scene and so over any number of scenes.
    masked = (np.arange(count) + generator.integers(2)) % 2 == 0
    people: list[Person] = []
    for is_masked in masked:
        look = choose_look(generator, bool(is_masked))
        place = _find_place(unit_square, generator, look, FACE_SIDES[count], people)
        if place is not None:
            people.append((*place, look))
    # Shoulders begin below the own chin: painted from the highest chin to the lowest, no one's shoulders
    # can cover a face that was painted before.
    return sorted(people, key=lambda person: face_box(person[1], person[2])[3])


def _find_place(
    unit_square: Painter,
    generator: np.random.Generator,
    look: Look,
    sides: tuple[float, float],
    people: list[Person],
) -> tuple[Painter, Painter] | None:
    """Return painters for a body and a head where the face is free of all others, or None."""
    taken = [_with_room(face_box(head, other)) for _, head, other in people]
    for _ in range(60):
        side, angle = generator.uniform(*sides), generator.uniform(-LARGEST_TILT, LARGEST_TILT)
        local = Painter(unit_square.image, scale=1.0, angle=angle).to_pixels(look.face_points())
        span = np.ptp(local, axis=0)
        scale = side / span.max()
        half_x, half_y = span * scale * (0.5 - OVERHANG)
        x = generator.uniform(half_x, 1 - half_x)
        # People stand on the ground: no one hangs from the upper edge or sinks below the lower one.
        y = generator.uniform(half_y + 0.06, max(half_y + 0.1, 0.86 - half_y))
        head = unit_square.at(x, y, scale, angle)
        if not intersections(np.array(taken), _with_room(face_box(head, look))).any():
            return unit_square.at(x, y, scale), head
    return None


def _with_room(box_xyxy: np.ndarray) -> np.ndarray:
    margin = CLEARANCE * (box_xyxy[2:] - box_xyxy[:2])
    return np.concatenate([box_xyxy[:2] - margin, box_xyxy[2:] + margin])


def _check_folder(folder: Path, own_files: set[Path]) -> None:
    """Raise a ValueError if the folder holds anything but the files that are about to be drawn anew."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: found a file, expected a new or empty folder; choose another folder")
    own = own_files | {path.parent for path in own_files}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        # Hidden: the pixels that training keeps beside images.
        if not any(part.startswith(".") for part in relative.parts) and path not in own:
            raise ValueError(
                f"{folder}: found {relative}, expected a new folder or one that holds only the files of these "
                f"{len(own_files) // 2} scenes; choose another folder or empty this one"
            )
