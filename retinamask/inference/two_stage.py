"""The two-stage recipe: a face detector says where, a classifier says what is worn; one predictor seen from outside."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinamask.dataset import boxes
from retinamask.dataset.faces import crop, squares
from retinamask.detectors.snapshots import Snapshot
from retinamask.inference.classify import Classifier
from retinamask.inference.detect import Detections
from retinamask.inference.face_detectors import Files, Found, face_detector
from retinamask.inference.suppression import filter_detections


class TwoStage:
    """Faces found by one model and named by another, called as a `retinamask.inference.detect.Predictor` is.

    Args:
        find_faces: from `retinamask.inference.face_detectors.face_detector`, or anything that is called as such.
        classifier: a `Classifier`, an `Ensemble`, or anything that has ``classes`` and ``margin`` and gives
            probabilities ``(N, classes)`` of ``N`` images.
        margin: what the classifier sees around a face, see `retinamask.dataset.faces.crop`; its own if left out.

    Attributes:
        class_names: those of the classifier, in the order of their ids.

    Raises:
        ValueError: the margin is not 0 to 5.
    """

    def __init__(self, find_faces: Callable[[np.ndarray], Found], classifier: Classifier, margin: float | None = None):
        self.find_faces, self.classifier = find_faces, classifier
        self.margin = classifier.margin if margin is None else margin
        self.class_names = sorted(classifier.classes, key=classifier.classes.get)

    @classmethod
    def load(
        cls,
        snapshot: str | Path | Snapshot,
        name: str,
        files: Files = (),
        margin: float | None = None,
        backend: str | None = None,
        precision: str = "auto",
        **options: Any,
    ) -> "TwoStage":
        """Load a classifier from its snapshot or export, and `face_detector(name, files, **options)`."""
        classifier = Classifier.load(snapshot, backend=backend, precision=precision)  # first: it says when it is none
        return cls(face_detector(name, files, **options), classifier, margin)

    def __call__(
        self, images_rgb: Sequence[np.ndarray], score_threshold: float = 0.05, suppress: str = "any_class"
    ) -> list[Detections]:
        """Detect in ``uint8`` RGB images of any size; the best score comes first.

        The score is the face's times the class's probability, both 0 to 1. The faces of all images go through the
        classifier together, but for those that are weaker than ``score_threshold`` already. The face detector has
        suppressed overlapping faces; ``any_class`` gives a face its most probable class, ``per_class`` a box for each.
        """
        faces, cut = [], []
        for image_rgb in images_rgb:
            boxes_xyxy, scores = self.find_faces(image_rgb)
            parts = squares(boxes_xyxy, image_rgb.shape[1::-1], self.margin)
            inside = (parts[:, 2:] > parts[:, :2]).all(axis=1)
            keep = (scores >= min(score_threshold, scores.max(initial=0))) & inside  # the best one gives `best_score`
            faces.append((boxes_xyxy[keep], scores[keep]))
            cut += crop(image_rgb, boxes_xyxy[keep], self.margin)
        probabilities = np.asarray(self.classifier(cut)) if cut else np.empty((0, len(self.class_names)))
        ends = np.cumsum([len(scores) for _, scores in faces])
        detections = []
        for image_rgb, (boxes_xyxy, scores), end in zip(images_rgb, faces, ends, strict=True):
            class_scores = scores[:, None] * probabilities[end - len(scores) : end]
            inside = boxes.clip(boxes_xyxy, image_rgb.shape[1::-1])
            found = filter_detections(inside, class_scores, score_threshold, 1.0, suppress, class_scores.size)
            detections.append(Detections(*found, float(class_scores.max(initial=0))))
        return detections

    @contextlib.contextmanager
    def many(self, images_rgb: Sequence[np.ndarray]) -> Iterator[None]:
        """Let the classifier choose its precision before many images are looked at, see `Classifier.measure`."""
        if isinstance(self.classifier, Classifier):
            self.classifier.measure(images_rgb)
        yield
