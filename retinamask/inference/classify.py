"""Ask a classifier what faces wear: cut-out faces in, a probability for each class out.

Beside `detect`, which finds the faces. `retinamask.dataset.crops.crop` cuts them out as the classifier knows them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retinamask import detectors
from retinamask.detectors.snapshots import Snapshot, SnapshotError, read


class Classifier:
    """A classifier with its network, ready to look at faces.

    Attributes:
        classes: name to id, in the order of the probabilities.
        margin: to cut faces out with, see `retinamask.dataset.crops.crop`.
        flip: whether each face is also looked at in the mirror, and both answers averaged.
    """

    def __init__(self, detector, network, flip: bool = False):
        """``network`` is the inference network of ``detector``, a `MaskClassifier`."""
        self.detector, self.network, self.flip = detector, network, flip
        self.classes: dict[str, int] = detector.classes
        self.margin: float = detector.settings.margin

    @classmethod
    def load(cls, snapshot: str | Path | Snapshot, flip: bool = False) -> "Classifier":
        """From a snapshot or its path.

        Raises:
            SnapshotError: it is missing, damaged, or no classifier.
        """
        snapshot = snapshot if isinstance(snapshot, Snapshot) else read(snapshot)
        if not snapshot.classifies:
            raise SnapshotError(
                f"{snapshot.weights} is a {snapshot.record['detector']}, which finds boxes; expected the snapshot of a "
                "classifier, as retinamask train-classifier writes it"
            )
        return cls(*detectors.load(snapshot, "inference"), flip)

    def __call__(self, images_rgb: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        """Probabilities of each face.

        Args:
            images_rgb: ``uint8`` RGB arrays of any size ``(height, width, 3)``, also none at all.
            batch_size: faces per network call.

        Returns:
            ``float32`` of shape ``(N, classes)``, rows sum to 1. All classes are as likely for a face without a pixel.
        """
        probabilities = np.full((len(images_rgb), len(self.classes)), 1 / len(self.classes), np.float32)
        seen = [index for index, image in enumerate(images_rgb) if image.size]
        for start in range(0, len(seen), batch_size):
            part = seen[start : start + batch_size]
            probabilities[part] = self._of_batch([images_rgb[index] for index in part])
        return probabilities

    def _of_batch(self, images_rgb: list[np.ndarray]) -> np.ndarray:
        batch, _ = self.detector.prepare(images_rgb)
        found = self.network.predict_on_batch(batch)
        if not self.flip:
            return found
        mirrored, _ = self.detector.prepare([image[:, ::-1] for image in images_rgb])
        return (found + self.network.predict_on_batch(mirrored)) / 2


class Ensemble:
    """Several classifiers of the same classes as one: the mean of their probabilities.

    Attributes:
        classes, margin: as in `Classifier`; the order of the classes is the first member's.
    """

    def __init__(self, members: Sequence[Classifier]):
        """Put ``members`` together.

        Raises:
            ValueError: there is none, or they differ in their classes or in the margin around the faces.
        """
        if not members:
            raise ValueError("an ensemble has no member; expected at least one classifier")
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
        self.members = list(members)
        self.classes, self.margin = first.classes, first.margin

    def __call__(self, images_rgb: Sequence[np.ndarray], batch_size: int = 32) -> np.ndarray:
        """As `Classifier`."""
        total = 0.0
        for member in self.members:
            total = total + member(images_rgb, batch_size)[:, [member.classes[name] for name in self.classes]]
        return np.asarray(total / len(self.members), np.float32)
