"""What makes faces hard to find: how large, bright and sharp the annotated ones are, and which were found."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.stats import binomtest

from retinamask.dataset import boxes
from retinamask.dataset.annotations import BOX_COLUMNS, objects
from retinamask.dataset.images import ImageError, read_image
from retinamask.evaluation.coco import SIDES
from retinamask.evaluation.errors import RIGHT
from retinamask.progress import track

_SIDE = 64  # pixels that faces are resized to, so that their sharpness can be compared
_GROUPS = 5  # of equally many faces


def face_traits(annotations: pd.DataFrame, causes: pd.DataFrame, folder: str | Path, detector) -> pd.DataFrame:
    """Measure each annotated face.

    Args:
        annotations: what is there.
        causes: of the detections, from `retinamask.evaluation.errors.find_causes`.
        folder: what the paths are relative to.
        detector: gives the ``scale`` of an image at the network's input.

    Returns:
        The rows of the faces with ``found``, whether a right box is on it; ``size``, the square root of its area in
        pixels of the network's input; ``brightness``, its mean grey from 0 to 255; and ``sharpness``, the variance
        of the Laplacian at 64 x 64 pixels (Pech-Pacheco et al., ICPR 2000), small where it is blurred. NaN in
        images that cannot be read.
    """
    faces = objects(annotations)
    faces = faces.assign(found=faces.index.isin(causes.loc[causes["cause"] == RIGHT, "annotation"]))
    faces[["size", "brightness", "sharpness"]] = np.nan
    for path, rows in track(faces.groupby("image_path", sort=False), "measuring faces", "image"):
        try:
            grey = cv2.cvtColor(read_image(Path(folder, path)), cv2.COLOR_RGB2GRAY)
        except ImageError:  # was reported when detecting
            continue
        inside = boxes.clip(rows[BOX_COLUMNS], grey.shape[::-1])
        faces.loc[rows.index, "size"] = np.sqrt(boxes.areas(inside)) * detector.scale(grey.shape[::-1])
        for index, (left, top, right, bottom) in zip(rows.index, boxes.whole_pixels(inside).astype(int), strict=True):
            face = grey[top:bottom, left:right]
            if face.size:  # some is inside the image
                resized = cv2.resize(face, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
                sharpness = cv2.Laplacian(resized, cv2.CV_64F).var()
                faces.loc[index, ["brightness", "sharpness"]] = face.mean(), sharpness
    return faces


def found_by_trait(faces: pd.DataFrame) -> pd.DataFrame:
    """Count which faces of `face_traits` were found, by class, by size, and by fifths of brightness and sharpness.

    Returns:
        Rows ``trait``, ``group``, ``faces``, ``found`` and ``share``, with ``low`` and ``high``, the ends of its 95 %
        interval (Wilson, 1927).
    """
    groups = {"class": faces["class_name"], "size": pd.cut(faces["size"], [*SIDES, np.inf], right=False)}
    for trait in ("brightness", "sharpness"):
        edges = np.unique(faces[trait].quantile(np.linspace(0, 1, _GROUPS, endpoint=False)))
        groups[trait] = pd.cut(faces[trait], np.append(edges, np.inf), right=False)
    rows = []
    for trait, group in groups.items():
        for of_group, found in faces["found"].groupby(group, observed=True):
            low, high = binomtest(int(found.sum()), len(found)).proportion_ci(0.95, "wilson")
            rows.append((trait, _shown(of_group), len(found), int(found.sum()), found.mean(), low, high))
    return pd.DataFrame(rows, columns=["trait", "group", "faces", "found", "share", "low", "high"])


def _shown(group: str | pd.Interval) -> str:
    if isinstance(group, str):
        return group
    return f"from {group.left:.0f}" if np.isinf(group.right) else f"{group.left:.0f} to {group.right:.0f}"
