"""Leaks: test images that show a picture that the model was trained on, on which it looks better than it is.

Those on which its epoch and its score thresholds were chosen flatter it a little, and are remarked on.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import image_paths
from retinamask.dataset.copies import hash_images, shown_in
from retinamask.detectors.snapshots import Snapshot, image_hashes


class Leaks(NamedTuple):
    """The result of `find_leaks`."""

    images: int | None  # that show a picture of the training; None if none does as far as snapshots say what it was
    remarks: list[str]  # what is to be said beside the figures


def find_leaks(
    snapshot: Snapshot,
    table: pd.DataFrame,
    folder: str | Path = ".",
    allow_leak: bool = False,
    face_snapshot: Snapshot | None = None,
) -> Leaks:
    """Refuse to judge a model on pictures that it was trained on: the same, scaled, or mirrored.

    Args:
        snapshot: of the model.
        table: annotations of the images that it is to be judged on.
        folder: what the image paths are relative to.
        allow_leak: count and report such images instead.
        face_snapshot: of the detector that finds the faces of a classifier, if it is one of ours.

    Raises:
        ValueError: an image shows a picture of the training.

    Example:
        >>> rm.find_leaks(model.snapshot, test).images
        0
    """
    remarks = []
    if snapshot.classifies:
        remarks = ["the classifier was trained on faces; whether they come from these images cannot be checked"]
        if face_snapshot is None:
            return Leaks(None, remarks)
        snapshot = face_snapshot
    known, chosen_on = image_hashes(snapshot), image_hashes(snapshot, "val_image_hashes")
    if known is None:
        model = "the face detector" if remarks else "the model"
        found = Leaks(None, [f"{model} does not remember its training pictures: copies cannot be checked"])
    else:
        found = find_pictures(known, "the model was trained", table, folder, allow_leak)
    images, remarks = found.images or (None if remarks else found.images), remarks + found.remarks
    if chosen_on is not None:
        hashes = hash_images(image_paths(table), folder)
        if shown := int(shown_in(hashes, chosen_on).sum()):
            such = f"{shown} of {len(hashes.paths)} images show a picture of the validation"
            remarks.append(f"{such}, which chose the epoch and the score thresholds; the figures are a little too good")
    return Leaks(images, remarks)


def find_pictures(
    known: np.ndarray, learnt: str, table: pd.DataFrame, folder: str | Path = ".", allow_leak: bool = False
) -> Leaks:
    """Refuse to judge on pictures that something was learnt from, as `find_leaks` does.

    Args:
        known: hashes of those pictures, ``uint8`` ``(N, 10)``, as `retinamask.dataset.copies.Hashes` has upright.
        learnt: what was done on them, such as "the model was trained".
        table, folder, allow_leak: as for `find_leaks`.
    """
    hashes = hash_images(image_paths(table), folder)
    leaked = np.flatnonzero(shown_in(hashes, known))
    if not len(leaked):
        return Leaks(0, [])
    such = " and ".join(hashes.paths[index] for index in leaked[:2])
    found = f"{len(leaked)} of {len(hashes.paths)} images show a picture that {learnt} on, such as {such}"
    if not allow_leak:
        raise ValueError(
            f"{found}; expected images held out: split the table with retinamask split, which keeps copies together, "
            "and learn from its training part; or judge all the same with --allow-leak (allow_leak=True)"
        )
    return Leaks(len(leaked), [f"LEAK: {found}; the figures are too good"])
