"""Validation of a classifier while it trains: accuracy and loss on a table of faces, for `retinamask.training.train`.

Beside `in_training`, whose reading of images it shares.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from retinamask.dataset.annotations import DETECTION_COLUMNS, AnnotationError, image_paths, make_table, objects
from retinamask.evaluation.in_training import EpochEvaluation

_LEAST = 1e-7  # probability that the loss counts with, which would be infinite at 0; as Keras has it


def epoch_accuracy(classifier, table: pd.DataFrame, folder: str | Path, batch_size: int = 32) -> "EpochAccuracy":
    """A function from a training network to its figures on ``table``.

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
    """Call it with a training network; otherwise as `EpochEvaluation`.

    Attributes:
        detections: after a call, each image's likeliest class as one box that covers the image, the probability as
            its score.
    """

    left_out_as = "left out of the validation"

    def __call__(self, network: Any) -> dict[str, float | None]:
        """``accuracy``, ``val_loss`` (mean cross-entropy) and ``accuracy/<class>``, the share of its images found.

        A class without an image has ``None``. Images that cannot be read are left out.

        Raises:
            AnnotationError: not a single image can be read.
        """
        if network is not self._network:
            self._predictor = self.detector.inference_network(network)
            self._network = network
        paths, probabilities = self._classified()
        labels = self.table.set_index("image_path")["class_name"].map(self.detector.classes)[paths].to_numpy(int)
        right = probabilities.argmax(1) == labels
        of_true = probabilities[np.arange(len(labels)), labels]
        per_class = {
            f"accuracy/{name}": float(right[labels == number].mean()) if (labels == number).any() else None
            for name, number in self.detector.classes.items()
        }
        loss = -np.log(np.clip(of_true.astype(float), _LEAST, 1)).mean()
        return {"accuracy": float(right.mean()), "val_loss": float(loss), **per_class}

    def _classified(self) -> tuple[list[str], np.ndarray]:
        """The images that can be read, and their probabilities ``(N, classes)``."""
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
