"""Draws a small labelled data set of people with and without masks, to run the project without photos.

It sits on top of `backgrounds` and `faces` and writes through `formats`: JPEG scenes and the
VOC XML that labelImg would have written for them.  The same seed always gives the same files, and scene
number k does not depend on how many scenes are drawn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from retinamask.dataset.annotations import write_classes
from retinamask.dataset.files import replacing
from retinamask.dataset.formats import write_voc
from retinamask.dataset.sample.backgrounds import draw_background
from retinamask.dataset.sample.faces import draw_person
from retinamask.dataset.sample.look import Look, choose_look
from retinamask.dataset.sample.painter import Painter

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
    """
    check_arguments(images, size, seed)
    folder = Path(out_dir)
    check_folder(folder, images)
    write_classes(CLASSES, folder / "classes.csv")
    return [write_scene(folder, index, size, seed) for index in range(images)]


def draw_scene(generator: np.random.Generator, size: int) -> tuple[Image.Image, np.ndarray, list[str]]:
    """Draw one scene.

    Returns the RGB image (size x size), the face boxes as an int64 array (N,4) of half-open pixel edges
    x1, y1, x2, y2 inside the image, and the N class names, in the same order.
    """
    canvas = Image.new("RGB", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    unit_square = Painter(canvas, scale=canvas.width)
    draw_background(unit_square, generator)
    people = place_people(unit_square, generator)
    for body, head, look in people:
        draw_person(body, head, look)
    boxes = [face_box(head, look) for _, head, look in people]
    boxes_xyxy = np.array(boxes, dtype=float).reshape(-1, 4) / SUPERSAMPLING
    names = ["mask" if look.mask else "no_mask" for _, _, look in people]
    return apply_light(canvas.reduce(SUPERSAMPLING), generator), round_boxes(boxes_xyxy, size), names


# Scene ------------------------------------------------------------------------------------------------------


def place_people(unit_square: Painter, generator: np.random.Generator) -> list[tuple[Painter, Painter, Look]]:
    """Choose people and places for them, as (body painter, head painter, look), from back to front."""
    count = int(generator.choice(len(FACE_COUNTS), p=FACE_COUNTS))
    # Turns of the two classes keep them balanced within a scene and so over any number of scenes.
    masked = (np.arange(count) + generator.integers(2)) % 2 == 0
    people: list[tuple[Painter, Painter, Look]] = []
    for is_masked in masked:
        look = choose_look(generator, bool(is_masked))
        place = find_place(unit_square, generator, look, FACE_SIDES[count], people)
        if place is not None:
            people.append((*place, look))
    # Shoulders begin below the own chin: painted from the highest chin to the lowest, no one's shoulders
    # can cover a face that was painted before.
    return sorted(people, key=lambda person: face_box(person[1], person[2])[3])


def find_place(
    unit_square: Painter,
    generator: np.random.Generator,
    look: Look,
    sides: tuple[float, float],
    people: list[tuple[Painter, Painter, Look]],
) -> tuple[Painter, Painter] | None:
    """Return painters for a body and a head where the face is free of all others, or None."""
    taken = [widen(face_box(head, other)) for _, head, other in people]
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
        box = widen(face_box(head, look))
        if not any(boxes_touch(box, other) for other in taken):
            return unit_square.at(x, y, scale), head
    return None


def face_box(head: Painter, look: Look) -> np.ndarray:
    """Return the tight box (4,) x1, y1, x2, y2 of the tilted face in canvas pixels, not cut at the edges."""
    pixels = head.to_pixels(look.face_points())
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def widen(box_xyxy: np.ndarray) -> np.ndarray:
    """Return the box with room for hair and hats around it."""
    margin = CLEARANCE * (box_xyxy[2:] - box_xyxy[:2])
    return np.concatenate([box_xyxy[:2] - margin, box_xyxy[2:] + margin])


def boxes_touch(first_xyxy: np.ndarray, second_xyxy: np.ndarray) -> bool:
    """Return whether two boxes (4,) share any area."""
    return bool(np.all(first_xyxy[:2] < second_xyxy[2:]) and np.all(second_xyxy[:2] < first_xyxy[2:]))


def round_boxes(boxes_xyxy: np.ndarray, size: int) -> np.ndarray:
    """Return boxes (N,4) as whole pixels from 1 to `size`: labelImg never writes 0."""
    return np.clip(np.rint(boxes_xyxy), 1, size).astype(np.int64)


def apply_light(image_rgb: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Return the image in a slightly brighter, darker, warmer or cooler light."""
    gains = generator.uniform(0.9, 1.04) * (1 + generator.uniform(-0.04, 0.04) * np.array([1, 0, -1]))
    table = np.clip(np.arange(256)[None, :] * gains[:, None], 0, 255).round().astype(int)
    return image_rgb.point(table.ravel().tolist())


# Files ------------------------------------------------------------------------------------------------------


def write_scene(folder: Path, index: int, size: int, seed: int) -> Path:
    """Draw scene number `index` and write its image and its annotation."""
    image_rgb, boxes_xyxy, class_names = draw_scene(np.random.default_rng((seed, index)), size)
    image_path, xml_path = scene_paths(folder, index)
    with replacing(image_path) as temporary:
        image_rgb.save(temporary, format="JPEG", quality=JPEG_QUALITY)
    write_voc(xml_path, image_path, (size, size), boxes_xyxy, class_names)
    return image_path


def check_arguments(images: int, size: int, seed: int) -> None:
    """Raise a ValueError unless the numbers of `draw_sample` make sense."""
    if images < 1:
        raise ValueError(f"sample: images is {images}, expected 1 or more; ask for at least one scene")
    if size < MINIMUM_SIZE:
        raise ValueError(f"sample: size is {size} px, expected {MINIMUM_SIZE} or more; choose a larger size")
    if seed < 0:
        raise ValueError(f"sample: seed is {seed}, expected 0 or more; choose a seed that is not negative")


def check_folder(folder: Path, images: int) -> None:
    """Raise a ValueError if the folder holds anything but the scenes that are about to be drawn anew."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: found a file, expected a new or empty folder; choose another folder")
    own_files = {path for index in range(images) for path in scene_paths(folder, index)}
    own_folders = {path.parent for path in own_files}
    own_files.add(folder / "classes.csv")
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # hidden, as the pixels are that training keeps beside images
        if path not in (own_folders if path.is_dir() else own_files):
            raise ValueError(
                f"{folder}: found {path.relative_to(folder)}, expected a new folder or one that holds only "
                f"the files of these {images} scenes; choose another folder or empty this one"
            )


def scene_paths(folder: Path, index: int) -> tuple[Path, Path]:
    """Return the paths of the image and of the annotation of scene number `index`."""
    name = f"scene_{index:04d}"
    return folder / "images" / f"{name}.jpg", folder / "annotations" / f"{name}.xml"
