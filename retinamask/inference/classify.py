"""Classify faces: cut-out faces in, a probability for each class out, one by one or for all boxes of a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask import detectors
from retinamask.dataset import images
from retinamask.dataset.annotations import BOX_COLUMNS, AnnotationError, check_classes, objects
from retinamask.dataset.faces import crop
from retinamask.detectors.snapshots import Snapshot, SnapshotError, read
from retinamask.progress import track

_IMAGES_AT_ONCE = 32


class Classifier:
    """A `MaskClassifier` with its inference network.

    Attributes:
        classes: name to id, in the order of the probabilities.
        margin: to cut faces out with, see `retinamask.dataset.faces.crop`.
        flip: whether each face is also mirrored, and both answers averaged.
    """

    def __init__(self, detector, network, flip: bool = False):
        self.detector, self.network, self.flip = detector, network, flip
        self.classes: dict[str, int] = detector.classes
        self.margin: float = detector.settings.margin

    @classmethod
    def load(
        cls, snapshot: str | Path | Snapshot, flip: bool = False, backend: str | None = None, precision: str = "auto"
    ) -> "Classifier":
        """Load a snapshot, or an export on a ``backend``.

        Raises:
            SnapshotError: it is missing, damaged, or no classifier.
        """
        snapshot = snapshot if isinstance(snapshot, Snapshot) else read(snapshot)
        if not snapshot.classifies:
            raise SnapshotError(
                f"{snapshot.weights} is a {snapshot.record['detector']}, which finds boxes; expected the snapshot of a "
                "classifier, as retinamask train-classifier writes it"
            )
        return cls(*detectors.load(snapshot, "inference", backend, precision), flip)

    def __call__(self, images_rgb: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        """Return the probabilities of faces, ``uint8`` RGB ``(height, width, 3)`` of any size.

        ``float32`` of shape ``(N, classes)``, rows sum to 1. All classes are as likely for a face without a pixel.
        """
        probabilities = np.full((len(images_rgb), len(self.classes)), 1 / len(self.classes), np.float32)
        seen = [index for index, image in enumerate(images_rgb) if image.size]
        for start in range(0, len(seen), batch_size):
            part = seen[start : start + batch_size]
            views = [[images_rgb[index] for index in part]]
            if self.flip:
                views.append([image_rgb[:, ::-1] for image_rgb in views[0]])
            found = [self.network.predict_on_batch(self.detector.prepare(view)[0]) for view in views]
            found = [each[0] if isinstance(each, list) else each for each in found]  # of an export all outputs
            probabilities[part] = sum(found) / len(found)
        return probabilities

    def measure(self, images_rgb: Sequence[np.ndarray]) -> None:
        """Choose the precision of an export's network before many faces are seen, by the time that some images take."""
        if hasattr(self.network, "measure"):
            self.network.measure(self.detector.prepare(images_rgb)[0])


class Ensemble:
    """Several classifiers of the same classes as one `Classifier`: the mean of their probabilities."""

    def __init__(self, members: Sequence[Classifier]):
        """Put at least one member together; those with other classes or margins than the first raise `ValueError`."""
        first = members[0]
        for member in members[1:]:
            if set(member.classes) != set(first.classes):
                known, other = ", ".join(first.classes), ", ".join(member.classes)
                raise ValueError(f"the members of an ensemble know {known} and {other}; expected the same classes")
            if member.margin != first.margin:
                raise ValueError(
                    f"the members of an ensemble want faces with margins of {first.margin} and {member.margin}; "
                    "expected one margin, since each face is cut out once"
                )
        self.members, self.classes, self.margin = list(members), first.classes, first.margin

    def __call__(self, images_rgb: Sequence[np.ndarray]) -> np.ndarray:
        each = [member(images_rgb)[:, [member.classes[name] for name in self.classes]] for member in self.members]
        return np.mean(each, axis=0)


class Classified(NamedTuple):
    """Faces and their probabilities by a classifier.

    Attributes:
        faces: the boxes as an annotation table, the true class in ``class_name``; ``N`` rows, numbered from 0.
        folder: where the image paths start.
        classes: name to id; the ids are the columns of ``probabilities``.
        labels: true class ids, ``int (N,)``.
        probabilities: ``float (N, classes)``.
        margin: that the faces were cut out with, see `retinamask.dataset.faces.crop`.
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
        """Return the faces with ``predicted`` class ids ``(N,)`` as names, and a column of each class."""
        names = sorted(self.classes, key=self.classes.get)
        columns = {f"probability of {name}": self.probabilities[:, number] for number, name in enumerate(names)}
        return self.faces.assign(predicted=[names[number] for number in predicted], **columns)


def classify_faces(classifier, table: pd.DataFrame, folder: str | Path) -> Classified:
    """Cut the boxes of a table out and classify them.

    Class folders are a table too, with one box over each whole image.

    Args:
        classifier: a `Classifier` or `Ensemble`.
        table: annotations; images without a box are passed over.
        folder: the folder that the image paths are relative to.

    Raises:
        ValueError: a class of the table is unknown to the classifier, there is no box, or no image can be read.
    """
    boxes = objects(table)
    check_classes(boxes, classifier.classes, "the table to judge the classifier on")
    by_image = list(boxes.groupby("image_path", sort=False))
    parts = [by_image[start : start + _IMAGES_AT_ONCE] for start in range(0, len(by_image), _IMAGES_AT_ONCE)]
    found, probabilities, left_out = [], [], []
    for part in track(parts, "classifying", "image", len(by_image), count=len):
        faces_rgb = []
        for path, of_image in part:
            try:
                image_rgb = images.read_image(Path(folder, path))
            except images.ImageError as error:
                left_out.append(str(error))
                continue
            found.append(of_image)
            faces_rgb += crop(image_rgb, of_image[BOX_COLUMNS].to_numpy(float), classifier.margin)
        probabilities.append(classifier(faces_rgb))
    if not found:
        why = f"none of the {len(by_image)} image(s) can be read, such as: {left_out[0]}" if left_out else "no box"
        raise AnnotationError(f"there is no face to judge the classifier on in {folder}: {why}")
    faces = pd.concat(found, ignore_index=True)
    labels = faces["class_name"].map(classifier.classes).to_numpy(int)
    probabilities = np.concatenate(probabilities)
    return Classified(faces, Path(folder), classifier.classes, labels, probabilities, classifier.margin, left_out)
