"""The faces of a table as a classifier sees them: what `classification` judges and `classification_plots` shows.

Above `inference.classify`. A class folder is a table too, with one box over each whole image; the boxes of any other
table are cut out as the classifier knows faces, so that one annotation effort serves here as well.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import images
from retinamask.dataset.annotations import BOX_COLUMNS, AnnotationError, check_classes, objects
from retinamask.dataset.crops import crop
from retinamask.progress import track

IMAGES_AT_ONCE = 32


class Classified(NamedTuple):
    """Faces and what a classifier says of them.

    Attributes:
        faces: the boxes as an annotation table, the true class in ``class_name``; ``N`` rows, numbered from 0.
        folder: where the image paths start.
        classes: name to id; the ids are the columns of ``probabilities``.
        labels: true class ids, ``int (N,)``.
        probabilities: ``float (N, classes)``.
        margin: that the faces were cut out with, see `retinamask.dataset.crops.crop`.
        left_out: a message for each image that could not be read; its boxes are not among the faces.
    """

    faces: pd.DataFrame
    folder: Path
    classes: dict[str, int]
    labels: np.ndarray
    probabilities: np.ndarray
    margin: float
    left_out: list[str]

    def face_rgb(self, index: int) -> np.ndarray:
        """Read one face again, ``uint8`` RGB; to keep all of them would take more memory than there may be."""
        row = self.faces.iloc[[index]]
        image_rgb = images.read_image(self.folder / row["image_path"].item())
        return crop(image_rgb, row[BOX_COLUMNS].to_numpy(float), self.margin)[0]

    def table(self, predicted: np.ndarray) -> pd.DataFrame:
        """The faces with ``predicted`` (from `classification.decide`) as a name, and a column of each class."""
        names = sorted(self.classes, key=self.classes.__getitem__)
        columns = {f"probability of {name}": self.probabilities[:, self.classes[name]] for name in names}
        return self.faces.assign(predicted=[names[number] for number in predicted], **columns)


def classify_faces(classifier, table: pd.DataFrame, folder: str | Path) -> Classified:
    """Cut the boxes of a table out and ask a classifier what they show.

    Args:
        classifier: `retinamask.inference.classify.Classifier` or `Ensemble`.
        table: annotations; images without a box are passed over.
        folder: the folder that the image paths are relative to.

    Raises:
        ValueError: a class of the table is unknown to the classifier, there is no box, or no image can be read.
    """
    boxes = objects(table)
    check_classes(boxes, classifier.classes, "the table to judge the classifier on")
    by_image = list(boxes.groupby("image_path", sort=False))
    found, probabilities, left_out = [], [], []
    parts = [by_image[start : start + IMAGES_AT_ONCE] for start in range(0, len(by_image), IMAGES_AT_ONCE)]
    for part in track(parts, "classifying", "image", count=len):
        rows, faces_rgb = _cut(part, Path(folder), classifier.margin, left_out)
        found += rows
        probabilities.append(classifier(faces_rgb))
    if not found:
        why = f"none of the {len(by_image)} image(s) can be read, such as: {left_out[0]}" if left_out else "no box"
        raise AnnotationError(f"there is no face to judge the classifier on in {folder}: {why}")
    faces = pd.concat(found, ignore_index=True)
    labels = faces["class_name"].map(classifier.classes).to_numpy(int)
    probabilities = np.concatenate(probabilities)
    return Classified(faces, Path(folder), classifier.classes, labels, probabilities, classifier.margin, left_out)


def _cut(
    by_image: Sequence[tuple[str, pd.DataFrame]], folder: Path, margin: float, left_out: list[str]
) -> tuple[list[pd.DataFrame], list[np.ndarray]]:
    """The rows and faces of the images that can be read; the others are added to ``left_out``."""
    rows, faces_rgb = [], []
    for path, of_image in by_image:
        try:
            image_rgb = images.read_image(folder / path)
        except images.ImageError as error:
            left_out.append(str(error))
            continue
        rows.append(of_image)
        faces_rgb += crop(image_rgb, of_image[BOX_COLUMNS].to_numpy(float), margin)
    return rows, faces_rgb
