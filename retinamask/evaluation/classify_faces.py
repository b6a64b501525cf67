"""Classify the faces of an annotation table: after a training for `classification`, and in it after each epoch.

A class folder is a table too, with one box over each whole image; the boxes of any other table are cut out as the
classifier knows faces, so that one annotation effort serves here as well.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import images
from retinamask.dataset.annotations import (
    BOX_COLUMNS,
    DETECTION_COLUMNS,
    AnnotationError,
    check_classes,
    image_paths,
    make_table,
    objects,
)
from retinamask.dataset.crops import crop
from retinamask.evaluation.in_training import EpochEvaluation
from retinamask.progress import track

IMAGES_AT_ONCE = 32

_LEAST = 1e-7  # probability that the loss counts with, which would be infinite at 0; as Keras has it


class Classified(NamedTuple):
    """Faces and their probabilities by a classifier.

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
        """Return the faces with ``predicted`` (from `classification.decide`) as a name, and a column of each class."""
        names = sorted(self.classes, key=self.classes.__getitem__)
        columns = {f"probability of {name}": self.probabilities[:, self.classes[name]] for name in names}
        return self.faces.assign(predicted=[names[number] for number in predicted], **columns)


def classify_faces(classifier, table: pd.DataFrame, folder: str | Path) -> Classified:
    """Cut the boxes of a table out and classify them.

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
    parts = [by_image[start : start + IMAGES_AT_ONCE] for start in range(0, len(by_image), IMAGES_AT_ONCE)]
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


def epoch_accuracy(classifier, table: pd.DataFrame, folder: str | Path, batch_size: int = 32) -> "EpochAccuracy":
    """Return a function from a training network to its figures on ``table``.

    Args:
        classifier: a detector that ``classifies``, from `retinamask.detectors.create`.
        table: validation images, the class of each that of its first box.
        folder: the folder that the image paths are relative to.
        batch_size: images per network call.

    Raises:
        AnnotationError: there is no image with a class, or none of the files.
    """
    table = objects(table).drop_duplicates("image_path")
    if table.empty:
        raise AnnotationError("the validation table holds no box; nothing can be evaluated on it")
    paths = image_paths(table)
    if not any(Path(folder, path).is_file() for path in paths):
        raise AnnotationError(f"none of the {len(paths)} validation images is below {folder}, such as {paths[0]}")
    return EpochAccuracy(classifier, table, folder, batch_size)


class EpochAccuracy(EpochEvaluation):
    """Judge a training network when called; otherwise as `EpochEvaluation`.

    Attributes:
        detections: after a call, each image's most likely class as one box that covers the image, the probability as
            its score.
    """

    left_out_as = "left out of the validation"

    def __call__(self, network: Any) -> dict[str, float | None]:
        """Return ``accuracy``, ``val_loss`` (mean cross-entropy) and ``accuracy/<class>``, the recall of each class.

        A class without an image has ``None``. Images that cannot be read are left out.

        Raises:
            AnnotationError: not a single image can be read.
        """
        if network is not self._network:
            self._predictor = self.detector.inference_network(network)
            self._network = network
        paths, probabilities = self._classify()
        labels = self.table.set_index("image_path")["class_name"].map(self.detector.classes)[paths].to_numpy(int)
        right = probabilities.argmax(1) == labels
        of_true = probabilities[np.arange(len(labels)), labels]
        per_class = {
            f"accuracy/{name}": float(right[labels == number].mean()) if (labels == number).any() else None
            for name, number in self.detector.classes.items()
        }
        loss = -np.log(np.clip(of_true.astype(float), _LEAST, 1)).mean()
        return {"accuracy": float(right.mean()), "val_loss": float(loss), **per_class}

    def _classify(self) -> tuple[list[str], np.ndarray]:
        """Return the images that can be read, and their probabilities ``(N, classes)``."""
        paths, found, rows = [], [], []
        names = list(self.detector.classes)
        for pictures, batch in self._batches():
            probabilities = self._predictor.predict_on_batch(batch)
            for picture, each in zip(pictures, probabilities, strict=True):
                rows.append((picture.path, 0, 0, *picture.size_wh, names[each.argmax()], float(each.max())))
            paths += [picture.path for picture in pictures]
            found.append(probabilities)
        if not rows:
            first = next(iter(self.unreadable.values()))
            raise AnnotationError(f"none of the {len(self.unreadable)} validation images can be read, such as: {first}")
        self.detections = make_table(rows, DETECTION_COLUMNS)
        return paths, np.concatenate(found)
