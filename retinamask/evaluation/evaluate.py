"""Judge detections: the twelve COCO figures, and what they do not say, see ``import retinamask as rm``."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from retinamask.dataset import files, images
from retinamask.dataset.annotations import BOX_COLUMNS, image_paths, number_classes, objects
from retinamask.dataset.copies import copies_remark
from retinamask.drawing.contact_sheet import contact_sheet, cut_outs, side_by_side
from retinamask.evaluation import classification, coco, errors, face_traits, matches, plots
from retinamask.inference.detect import any_class


def evaluate(
    detections: pd.DataFrame,
    annotations: pd.DataFrame,
    classes: dict[str, int] | None = None,
    folder: str | Path | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> "Evaluation":
    """Judge detections by the twelve COCO figures, see `retinamask.evaluation.coco.evaluate`.

    A table does not say what its model was trained on: `rm.find_leaks` looks for those pictures among the images.

    Args:
        detections: made with a low ``score_threshold`` such as 0.05 and ``suppress="per_class"``.
        annotations: of the images that were looked at, with the same paths.
        classes: name to id; those of the annotations if left out.
        folder: what the paths are relative to, for a remark on copies among the images.
        thresholds: class to score threshold, chosen on other images, such as ``model.snapshot.thresholds``; those of
            the best F1 on these very images if left out.

    Returns:
        A figure from 0 to 1 for each of ``AP``, ``AP50``, ``AP75``, ..., and ``per_class``.

    Example:
        >>> found = rm.evaluate(model.detect(test, score_threshold=0.05, suppress="per_class"), test)
        >>> found["AP50"], found.intervals["AP50"], found.thresholds
    """
    if not classes:
        classes = number_classes(annotations)
        if others := number_classes(detections).keys() - classes:
            names = ", ".join(map(repr, sorted(others)))
            raise ValueError(
                f"detections: class {names} is not among those of the annotations ({', '.join(classes)}); rename it, "
                "or give classes=... if it just has no box there"
            )
    # rows are told by their labels, and joined tables have some twice
    annotations, detections = annotations.reset_index(drop=True), detections.reset_index(drop=True)
    found = Evaluation(coco.evaluate(annotations, detections, classes))
    found.judged, found.remarks = (annotations, detections, classes), coco.remarks(detections)
    if thresholds:
        found.thresholds = dict(thresholds)
    if folder is not None:
        found.remarks += copies_remark(image_paths(annotations), folder)
    return found


class Evaluation(dict):
    """The figures of `evaluate` by name; what follows from them is computed when it is asked for.

    Attributes:
        judged: annotations, detections and classes.
        remarks: what speaks against the figures.
        intervals: ``AP``, ``AP50`` and ``AP50/CLASS`` to the ends of their 95 % intervals, by drawing images again.
        thresholds: class to the score threshold from which on its boxes are `shown`.
        best_thresholds: class to the score threshold where its F1 is highest at IoU 0.5 on these images.
        causes: each detection and each missed face with its cause, see `retinamask.evaluation.errors`.
        gains: what mending each cause would bring.
        shown: the detections from `thresholds` on, one box per face, as a user sees them.
        mistakes: those of ``shown`` that are wrong, and each missed face, with the cause.
    """

    judged: tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]
    remarks: list[str]

    @cached_property
    def matches(self) -> matches.Matches:
        return matches.match(*self.judged)

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        return matches.intervals(self.matches)

    @cached_property
    def thresholds(self) -> dict[str, float]:
        return self.best_thresholds

    @cached_property
    def best_thresholds(self) -> dict[str, float]:
        return matches.best_thresholds(self.matches)

    @cached_property
    def causes(self) -> pd.DataFrame:
        return errors.find_causes(*self.judged)

    @cached_property
    def gains(self) -> pd.DataFrame:
        return errors.gains(*self.judged, self.causes)

    @cached_property
    def shown(self) -> pd.DataFrame:
        detections = objects(self.judged[1])
        least = detections["class_name"].map(self.thresholds).fillna(0.5)  # of a class that nothing is annotated of
        return any_class(detections[detections["score"] >= least])

    @cached_property
    def _causes_shown(self) -> pd.DataFrame:
        annotations, _, classes = self.judged
        return errors.find_causes(annotations, self.shown, classes)

    @property
    def mistakes(self) -> pd.DataFrame:
        return self._causes_shown[self._causes_shown["cause"] != errors.RIGHT]

    def table(self) -> pd.DataFrame:
        """List the twelve figures: ``name``, ``meaning``, ``value`` (NaN for None), and ``low`` and ``high``.

        Those are the ends of the 95 % interval, NaN for figures that have none.
        """
        rows = []
        for name, meaning in coco.MEANINGS.items():
            rows.append((name, meaning, self[name], *self.intervals.get(name, (np.nan, np.nan))))
        return pd.DataFrame(rows, columns=["name", "meaning", "value", "low", "high"]).astype({"value": float})

    def class_table(self) -> pd.DataFrame:
        """List each class: its figures (NaN for None), ``boxes``, and its ``threshold`` with what that gives."""
        rows, by_threshold = [], matches.by_threshold(self.matches)
        for name, figures in self["per_class"].items():
            row = {"class": name, **figures}
            if name in self.thresholds and name in by_threshold:
                curve = by_threshold[name]
                from_there = curve[curve["score_threshold"] >= self.thresholds[name]]
                at = from_there.iloc[-1] if len(from_there) else {"precision": np.nan, "recall": 0.0, "F1": 0.0}
                row |= {"threshold": self.thresholds[name]} | {key: at[key] for key in ("precision", "recall", "F1")}
            rows.append(row)
        columns = ["class", "AP", "AP50", "AP75", "AR100", "boxes", "threshold", "precision", "recall", "F1"]
        return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("AP", "AP50", "AP75", "AR100"), float))

    def size_table(self, folder: str | Path, detector) -> pd.DataFrame:
        """List the figures by how large faces are for the network, see `retinamask.evaluation.coco.by_size`.

        Args:
            folder: what the image paths are relative to; faces in images that cannot be read there are left out.
            detector: gives the ``scale`` of an image at the network's input, such as ``model.predictor.detector``.
        """
        scales = {}
        for path in image_paths(self.judged[0]):
            try:
                scales[path] = detector.scale(images.image_size(Path(folder, path)))
            except images.ImageError:  # was reported when detecting
                continue
        return coco.by_size(*self.judged, scales)

    def precision_recall(self, iou_threshold: float = 0.5) -> dict[str, pd.DataFrame]:
        """List ``recall``, ``precision`` and ``score`` along the curve of each class; a box counts from this IoU on."""
        return coco.precision_recall(*self.judged, iou_threshold)

    def confusion(self) -> pd.DataFrame:
        """Count at IoU 0.5 how often each true class (rows) was found as which (columns), from `thresholds` on.

        Each face has one box, of its best class. The last row counts boxes on background, the last column missed faces.
        """
        from supervision.metrics.detection import ConfusionMatrix

        annotations, _, classes = self.judged
        by_image = [dict(list(table.groupby("image_path"))) for table in (objects(annotations), self.shown)]
        arrays = []
        for tables, more in zip(by_image, ([], ["score"]), strict=True):
            empty = np.empty((0, 5 + len(more)), np.float32)
            arrays.append([_rows(tables.get(path), classes, more, empty) for path in image_paths(annotations)])
        names = sorted(classes, key=classes.get)
        just_below = matches.IOU_THRESHOLDS[0] - 1e-7  # it leaves out an IoU that is the threshold, which COCO counts
        counts = ConfusionMatrix.from_tensors(arrays[1], arrays[0], names, 0.0, just_below).matrix
        counts = counts.astype(float)
        counts[-1, -1] = np.nan  # background that is found as such is not counted
        return pd.DataFrame(counts, [*names, "background"], [*names, "missed"])

    def pictures(self) -> dict[str, Figure]:
        """Draw ``precision_recall``, ``thresholds``, ``confusion_matrix``, ``calibration`` and ``errors``."""
        found, curves = self.matches, {}
        for name, label in found.classes.items():
            own = found.labels == label
            if own.any():
                curves[name] = classification.binned(found.correct[0, own], found.scores[own])
        bins = pd.concat(curves.values()) if curves else pd.DataFrame(columns=["probability", "share", "images"])
        gap = (bins["probability"] - bins["share"]).abs().mul(bins["images"]).sum() / max(1, len(found.scores))
        calibration = {"calibration_error": gap, "images": max(1, len(found.scores))}
        labels = "score", "share that is right at IoU 0.5", "boxes"
        return {
            "precision_recall": plots.precision_recall_curves(self.precision_recall(), self),
            "thresholds": plots.threshold_curves(matches.by_threshold(found), self.best_thresholds),
            "confusion_matrix": plots.confusion_matrix(self.confusion(), "from their score thresholds on"),
            "calibration": classification.calibration_curves(curves, calibration, labels),
            "errors": plots.error_gains(self.gains),
        }

    def found_by_trait(self, folder: str | Path, detector) -> tuple[pd.DataFrame, Figure]:
        """Count by class, size, brightness and sharpness which faces have a right box among ``shown``, and draw it.

        Arguments and columns are those of `retinamask.evaluation.face_traits`.
        """
        faces = face_traits.face_traits(self.judged[0], self._causes_shown, folder, detector)
        table = face_traits.found_by_trait(faces)
        return table, plots.shares_found(table)

    def worst_images(self, folder: str | Path, most: int = 6) -> Image.Image:
        """Draw the images with the most mistakes: what is annotated on the left, what is shown on the right."""
        annotations, detections, classes = self.judged
        read = self.mistakes["image_path"].isin(detections["image_path"])
        counts = self.mistakes[read].groupby("image_path").size().sort_values(ascending=False, kind="stable")
        tables = {"annotated": annotations, "found": self.shown}
        examples = side_by_side(list(counts.index[:most]), folder, tables, annotations)
        title = f"The most mistakes: {len(self.mistakes)} in {self.mistakes['image_path'].nunique()} images"
        return contact_sheet(examples, classes, 4, 400, title)

    def doubtful_annotations(self, folder: str | Path, most: int = 24) -> Image.Image:
        """Draw the most confident of ``mistakes`` that contradict the annotations: on no face, or of another class."""
        contradict = self.mistakes[self.mistakes["cause"].isin(("background", "wrong class"))]
        contradict = contradict.sort_values("score", ascending=False, kind="stable")[:most]
        annotations, _, classes = self.judged
        title = "The most confident boxes that the annotations contradict"
        return contact_sheet(cut_outs(contradict, folder, annotations), classes, 6, 256, title)

    def save(self, path: str | Path, **more: Any) -> None:
        """Write the figures with their intervals and thresholds, and what else belongs to them, as JSON."""
        files.write_json(path, {**self, "intervals": self.intervals, "thresholds": self.thresholds, **more})


def _rows(table: pd.DataFrame | None, classes: dict[str, int], more: list[str], empty: np.ndarray) -> np.ndarray:
    """Give boxes, class ids and ``more`` columns of an image's table as ``float32``."""
    if table is None:
        return empty
    columns = table[[*BOX_COLUMNS, *more]].astype(np.float32)
    columns.insert(4, "label", table["class_name"].map(classes))
    return columns.to_numpy(np.float32)
