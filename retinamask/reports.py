"""Reports on data, detections and classifiers: figures, tables and pictures, see ``import retinamask as rm``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from retinamask.dataset import audit as audits
from retinamask.dataset import files
from retinamask.dataset.annotations import image_paths, number_classes
from retinamask.dataset.copies import copies_remark
from retinamask.detectors.snapshots import Snapshot
from retinamask.evaluation import audit_page, classification, coco, plots
from retinamask.inference.classify import Classified, Classifier, Ensemble, classify_faces


def audit(
    source: str | Path,
    classes_csv: str | Path = "",
    image_folder: str | Path = "",
    splits: Iterable[str | Path] = (),
    **settings: Any,
) -> "AuditReport":
    """Read every image and annotation of a data set and list what is wrong, the worst first.

    Args:
        source: a folder of annotations and images, or an annotation file.
        classes_csv: the class list, if it is not ``classes.csv`` in the folder or beside the file.
        image_folder: of the images, if they are not where the annotations say.
        splits: CSVs that must not share a picture.
        settings: fields of `retinamask.dataset.audit.AuditSettings`, such as ``image_size=512``.

    Example:
        >>> rm.audit("data/mine").table()
    """
    read = audits.read_source(source, classes_csv or None, image_folder or None, splits)
    return AuditReport(**vars(audits.audit(read, audits.AuditSettings(**settings))))


class AuditReport(audits.Audit):
    """The result of an `audit`, with pictures."""

    def table(self) -> pd.DataFrame:
        """List the findings: severity, name, count and what to do."""
        return audits.findings_table(self.findings)

    def picture(self, finding: audits.Finding) -> Image.Image | None:
        """Draw a finding's examples side by side; None if there is nothing to show."""
        return audit_page.example_strip(self, finding)

    def save(self, folder: str | Path) -> None:
        """Write the page ``audit.html``, with all pictures, and ``audit.json``."""
        files.write_json(Path(folder, "audit.json"), self.record())
        audit_page.write_audit_page(self, Path(folder, "audit.html"))

    def plot_classes(self) -> Figure:
        """Draw how many boxes each class has."""
        return audit_page.class_figure(self)

    def plot_box_sizes(self) -> Figure:
        """Draw the sizes and aspect ratios of the boxes at the network's input, with the anchors."""
        return audit_page.size_figure(self)


def evaluate(
    detections: pd.DataFrame,
    annotations: pd.DataFrame,
    classes: dict[str, int] | None = None,
    folder: str | Path | None = None,
) -> "Evaluation":
    """Judge detections by the twelve COCO figures, see `retinamask.evaluation.coco.evaluate`.

    Args:
        detections: made with a low ``score_threshold`` such as 0.05 and ``suppress="per_class"``.
        annotations: of the images that were looked at, with the same paths.
        classes: name to id; those of the annotations if left out.
        folder: what the paths are relative to, for a remark on copies among the images.

    Returns:
        A figure from 0 to 1 for each of ``AP``, ``AP50``, ``AP75``, ..., and ``per_class``.

    Example:
        >>> rm.evaluate(model.detect(test, score_threshold=0.05, suppress="per_class"), test)["AP50"]
    """
    if not classes:
        classes = number_classes(annotations)
        if others := number_classes(detections).keys() - classes:
            names = ", ".join(map(repr, sorted(others)))
            raise ValueError(
                f"detections: class {names} is not among those of the annotations ({', '.join(classes)}); rename it, "
                "or give classes=... if it just has no box there"
            )
    found = Evaluation(coco.evaluate(annotations, detections, classes))
    found.judged, found.remarks = (annotations, detections, classes), coco.remarks(detections)
    if folder is not None:
        found.remarks += copies_remark(image_paths(annotations), folder)
    return found


class Evaluation(dict):
    """The figures of `evaluate` by name.

    Attributes:
        judged: annotations, detections and classes.
        remarks: what speaks against the figures.
    """

    judged: tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]
    remarks: list[str]

    def table(self) -> pd.DataFrame:
        """List the twelve figures: name, meaning and value."""
        return coco.metrics_table(self)

    def class_table(self) -> pd.DataFrame:
        """List the figures of each class."""
        return coco.class_table(self)

    def precision_recall(self, iou_threshold: float = 0.5) -> dict[str, pd.DataFrame]:
        """List ``recall``, ``precision`` and ``score`` along the curve of each class; a box counts from this IoU on."""
        return coco.precision_recall(*self.judged, iou_threshold)

    def plot(self) -> Figure:
        """Draw the precision-recall curve of each class."""
        return plots.precision_recall_curves(self.precision_recall(), self)

    def save(self, path: str | Path, **more: Any) -> None:
        """Write the figures, and what else belongs to them, as JSON."""
        files.write_json(path, {**self, **more})


def evaluate_classifier(
    snapshot: str | Path | Snapshot | Sequence[str | Path | Snapshot],
    table: pd.DataFrame,
    folder: str | Path = ".",
    threshold: float = 0.5,
    threshold_class: str | None = None,
    flip: bool = False,
) -> "ClassifierEvaluation":
    """Judge a classifier on the boxes of a table.

    Args:
        snapshot: of a classifier; the probabilities of several are averaged.
        table: annotations.
        folder: what the table's paths are relative to.
        threshold: probability of ``threshold_class`` from which on a face is given that class.
        threshold_class: without it the most likely class counts.
        flip: also look at each face in the mirror, and average.

    Raises:
        ValueError: a class of the table is unknown to the classifier, there is no box, or a wrong threshold.

    Example:
        >>> rm.evaluate_classifier("snapshots/faces_best.h5", test).figures["accuracy"]
    """
    given = [snapshot] if isinstance(snapshot, (str, Path, Snapshot)) else snapshot
    members = [Classifier.load(each, flip) for each in given]
    classifier = members[0] if len(members) == 1 else Ensemble(members)
    options = threshold, threshold_class or None
    classification.check_threshold(classifier.classes, *options)  # before the work, not after it
    return ClassifierEvaluation(classify_faces(classifier, table, folder), *options)


class ClassifierEvaluation:
    """The result of `evaluate_classifier`.

    Attributes:
        faces: the faces with their probabilities, a `Classified`.
        predicted: the class id that each face is given.
        figures: ``accuracy`` with its 95 % interval, ``loss``, ``per_class``, ...
    """

    def __init__(self, faces: Classified, threshold: float, threshold_class: str | None):
        self.faces = faces
        self.figures = classification.figures(
            faces.labels, faces.probabilities, faces.classes, threshold, threshold_class
        )
        self.predicted = classification.decide(faces.probabilities, faces.classes, threshold, threshold_class)

    def pictures(self, count: int = 24) -> dict[str, Figure]:
        """Draw ``confusion_matrix``, ``roc_curves``, ``calibration_curves``, ``predictions`` and ``mistakes``.

        Args:
            count: faces in a picture of faces at most.
        """
        return classification.all_figures(self.faces, self.predicted, self.figures, count)
