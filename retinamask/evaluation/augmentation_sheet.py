"""A sheet of training images as they are and as each augmentation changes them, for judging by eye."""

from dataclasses import replace

import numpy as np
from PIL import Image

from retinamask.dataset.annotations import make_table
from retinamask.drawing.contact_sheet import Example, contact_sheet
from retinamask.training.augmentation import augment, mosaic, stretched
from retinamask.training.settings import NO_AUGMENTATION, AugmentationSettings


def augmentation_sheet(examples, settings: AugmentationSettings, rows: int = 3) -> Image.Image:
    """Draw a few training images, each as it is, as each augmentation alone makes it, and as all together do.

    Flip and mosaic are shown whatever their probability is. Of a classifier there is no mosaic, but how faces are
    moved (turned, shifted and slanted) and hidden.

    Args:
        examples: `retinamask.training.input_pipeline.Examples`.
        settings: the augmentation to show.
        rows: how many images, spread evenly over the examples.
    """
    without = replace(NO_AUGMENTATION, visible_share=settings.visible_share)
    alone = {
        "zoom": ("zoom_out", "zoom_in"),
        "colour": ("brightness", "contrast", "saturation"),
        "moved": ("rotate", "shift", "shear"),
    }
    columns = {"as read": NO_AUGMENTATION, "flip": replace(without, flip=1)}
    columns |= {name: replace(without, **{each: getattr(settings, each) for each in alone[name]}) for name in alone}
    if examples.detector.classifies:
        columns["hidden"] = replace(without, erase=1)
    else:
        del columns["moved"]
        columns["mosaic"] = replace(without, mosaic=1)
    columns["all as set"] = settings
    indices = np.arange(rows) * max(1, len(examples) // rows) % len(examples)
    cells = [
        _varied(examples, int(index), column, (0, row))._replace(image_path=caption)
        for row, index in enumerate(indices)
        for caption, column in columns.items()
    ]
    return contact_sheet(cells, examples.detector.classes, len(columns), 240, "What the network is shown")


def _varied(examples, index: int, settings: AugmentationSettings, seed: tuple[int, int]) -> Example:
    """Return an example as ``settings`` make it; a mosaic takes the three after it too."""
    four = [(index + step) % len(examples) for step in range(4)]
    images = [examples.pixels.read(i) for i in four]
    boxes, labels = ([parts[i] for i in four] for parts in (examples.boxes, examples.labels))
    if examples.detector.classifies:
        images[0], boxes[0] = stretched(images[0], boxes[0], examples.canvas_wh)
    if np.random.default_rng(seed).random() < settings.mosaic:
        made = mosaic(images, boxes, labels, seed, settings, examples.canvas_wh)
    else:
        made = augment(images[0], boxes[0], labels[0], seed, settings, examples.canvas_wh)
    image, _, boxes, labels = (part.numpy() for part in made)
    names = list(examples.detector.classes)
    rows = [(examples.paths[index], *box, names[label]) for box, label in zip(boxes, labels, strict=True)]
    return Example(examples.paths[index], image, make_table(rows))
