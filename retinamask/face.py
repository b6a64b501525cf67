"""The public functions that put several layers together, see ``import retinamask as rm``.

On top of everything but the notebooks' runner and the commands.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from retinamask import detectors
from retinamask.dataset import faces, splits
from retinamask.dataset.annotations import BOX_COLUMNS, image_paths, moved, number_classes, objects, relative_path
from retinamask.dataset.copies import image_groups
from retinamask.dataset.faces import cut_faces, read_face_folders
from retinamask.dataset.images import image_size as size_of
from retinamask.dataset.images import read_image
from retinamask.detectors.snapshots import Snapshot
from retinamask.drawing import contact_sheet as sheets
from retinamask.drawing.boxes import draw_boxes
from retinamask.evaluation import classification, plots
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.evaluation.watchers import TensorBoardWatcher, Watcher
from retinamask.inference.agreement import Agreement, agreement
from retinamask.inference.box_fit import BoxFit
from retinamask.inference.classify import Classified, Classifier, Ensemble, classify_faces
from retinamask.inference.detect import Predictor, detect
from retinamask.model import rgb_array
from retinamask.runs.parameters import training_settings
from retinamask.training.checkpoints import refuse_existing
from retinamask.training.input_pipeline import Examples
from retinamask.training.train import Trained
from retinamask.training.train import train as train_examples


def split(
    table: pd.DataFrame, val: float = 0.15, test: float = 0.15, seed: int = 0, folder: str | Path = "."
) -> dict[str, pd.DataFrame]:
    """Split a table into ``train``, ``val`` and ``test`` without copies of a picture across them.

    Args:
        table: annotations.
        val, test: shares of the images.
        seed: decides which image goes where.
        folder: what the image paths of the table are relative to.

    Example:
        >>> parts = rm.split(table, val=0.1, test=0.2)
        >>> len(parts["train"])
    """
    groups = image_groups(image_paths(table), folder)
    return splits.split(table, val, test, seed, groups)


def split_faces(
    source: str | Path | tuple[Mapping[str, pd.DataFrame], dict[str, int]],
    folder: str | Path,
    val: float = 0.2,
    seed: int = 0,
    margin: float = 0.2,
    resume: bool = False,
) -> tuple[dict[str, pd.DataFrame], dict[str, int]]:
    """Split class folders, or cut the faces out of the training and validation images of a split.

    Args:
        source: a folder with a folder of faces for each class, of which near copies stay in one part; or tables
            ``train``, ``val`` and ``test`` with their classes.
        folder: what image paths are relative to; gets ``faces_train`` and ``faces_val`` with the faces cut out.
        val: share of the class folders for validation.
        seed: decides which face of class folders goes where.
        margin: around a face that is cut out, as a share of its box's longer side.
        resume: take faces that have been cut out before.

    Returns:
        Tables ``train`` and ``val`` of faces, with a split also its ``test``, and the classes.

    Example:
        >>> parts, classes = rm.split_faces("faces/", "runs/faces")
    """
    parts = {}
    if isinstance(source, tuple):
        images, classes = source
        parts["test"] = images["test"]
        for name in ("train", "val"):
            cut_out = Path(folder, f"faces_{name}")
            if not (resume and cut_out.is_dir()):
                left_out = cut_faces(images[name], folder, cut_out, margin, classes=classes, replace=True).left_out
                print(*left_out, sep="\n", end="\n" * bool(left_out))
            parts[name] = moved(read_face_folders(cut_out).table, cut_out, folder)
        return parts, classes
    found = read_face_folders(source)
    print(*found.left_out, sep="\n", end="\n" * bool(found.left_out))
    train, val_faces, _ = faces.split_faces(found.table, source, val, seed)
    return {"train": moved(train, source, folder), "val": moved(val_faces, source, folder)}, found.classes


def train(
    parts: Mapping[str, pd.DataFrame],
    classes: dict[str, int],
    detector: str = "retinanet",
    weights: str = "none",
    out: str | Path | None = None,
    folder: str | Path = ".",
    resume: bool = False,
    tensorboard: str | Path | None = None,
    watchers: Iterable[Watcher] = (),
    record: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Trained:
    """Train a detector, or on tables of faces, such as from `split_faces`, a classifier.

    Args:
        parts: ``train``, and if epochs are to be judged ``val``, such as from `split`.
        classes: name to id.
        detector: such as ``retinanet`` or ``yolov4_tiny``; ``retinamask train --help`` lists them all.
        weights: ``none``, ``imagenet``, ``coco`` or a file.
        out: stem of the snapshots ``OUT_best.h5`` and ``OUT_last.h5`` and of ``OUT_log.csv``; ``snapshots/DETECTOR``.
        folder: what the image paths are relative to.
        resume: continue the run of this ``out`` where it stopped.
        tensorboard: folder for TensorBoard's events.
        watchers: others that are told how it goes.
        record: what the snapshots' descriptions are to hold besides.
        settings: by name, of training, augmentation and the network, as ``retinamask train --help`` lists them.

    Returns:
        ``best`` and ``last``, the snapshots, and ``log``, a table with a row per epoch.

    Example:
        >>> trained = rm.train(parts, classes, image_size=512, epochs=20, weights="imagenet")
        >>> model = rm.load(trained.best)
    """
    if "train" not in parts:
        raise ValueError(f"found no part 'train' in {', '.join(map(str, parts))}; expected what rm.split(table) gives")
    how, network = training_settings(detector, settings)
    out = Path(out or f"snapshots/{detector}")
    log_csv = out.with_name(f"{out.name}_log.csv")
    if not resume:
        refuse_existing(out)
        if log_csv.exists():
            raise ValueError(f"{log_csv} exists; choose another name, or resume that run")
    built = detectors.create_for(detector, classes, weights, **network)
    evaluate = epoch_evaluation(built, parts["val"], folder) if "val" in parts else None
    told = [*watchers, *([TensorBoardWatcher(tensorboard, evaluate)] if tensorboard else [])]
    examples = Examples(parts["train"], folder, built, how.cache)
    run = {"record": record, "log_csv": log_csv, "resume": resume}
    return train_examples(examples, how, out, weights, evaluate, told, **run)


def draw(
    image: str | Path | np.ndarray | Image.Image,
    table: pd.DataFrame,
    ground_truth: pd.DataFrame | None = None,
    folder: str | Path = ".",
) -> Image.Image:
    """Draw the boxes of an image: solid with class and score, the ground truth dashed.

    Args:
        image: a file of which the table has rows, or an array or PIL image, on which all rows of the table are drawn.
        table: annotations or detections.
        ground_truth: annotations, dashed below them.
        folder: what the table's paths are relative to.

    Raises:
        ValueError: the table has no rows of the image.

    Example:
        >>> rm.draw("photos/a.jpg", detections).save("a_drawn.png")
    """
    pixels = read_image(Path(image)) if isinstance(image, (str, Path)) else rgb_array(image)
    tables = [table, ground_truth]
    if isinstance(image, (str, Path)):
        path = relative_path(image, folder)
        if path not in set(table["image_path"]):
            raise ValueError(f"{path} is not in the table; it has {', '.join(image_paths(table)[:5])} ...")
        tables = [None if rows is None else rows[rows["image_path"] == path] for rows in tables]
    return draw_boxes(pixels, tables[0], number_classes(table), tables[1])


def contact_sheet(
    table: pd.DataFrame,
    ground_truth: pd.DataFrame | None = None,
    images: int = 24,
    columns: int = 6,
    folder: str | Path = ".",
    title: str = "",
    score_threshold: float = 0,
) -> Image.Image:
    """Draw the first images of a table with their boxes on one sheet.

    Args:
        table: annotations or detections.
        ground_truth: annotations, dashed below them.
        images: how many at most.
        columns: images in a row.
        folder: what the table's paths are relative to.
        title: heading of the sheet.
        score_threshold: detections from this score on are drawn.

    Example:
        >>> rm.contact_sheet(model.detect("photos/")).save("sheet.png")
    """
    strong = table[table["score"] >= score_threshold] if "score" in table else table
    examples = sheets.examples(image_paths(table)[:images], folder, strong, ground_truth)
    classes = number_classes(table, *([] if ground_truth is None else [ground_truth]))
    return sheets.contact_sheet(examples, classes, columns=columns, cell_size=256, title=title)


def plot_classes(parts: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw how many boxes each class has in each part of a split.

    Example:
        >>> rm.plot_classes(parts)
    """
    labelled = pd.concat([part.assign(split=name) for name, part in parts.items()])
    return plots.class_counts(labelled, number_classes(labelled), split_column="split")


def plot_box_sizes(table: pd.DataFrame, image_size: int, folder: str | Path = ".") -> Figure:
    """Draw the sizes and aspect ratios of the boxes at the network's input, with a RetinaNet's anchors.

    Args:
        table: annotations.
        image_size: side in pixels of the square that images are fitted into.
        folder: what the table's paths are relative to.

    Example:
        >>> rm.plot_box_sizes(table, 512)
    """
    sizes = {path: size_of(Path(folder, path)) for path in image_paths(table)}
    return plots.box_sizes(table, sizes, image_size)


def compare_conversion(
    snapshot: Snapshot,
    converted: Snapshot,
    table: pd.DataFrame,
    folder: str | Path = ".",
    score_threshold: float = 0.05,
    most: int = 10,
) -> Agreement:
    """Compare a training snapshot with the model converted from it, box by box.

    Args:
        snapshot, converted: of `convert`.
        table: of which the first ``most`` images are looked at.
        folder: what the table's paths are relative to.
        score_threshold: boxes from this score on are compared.

    Returns:
        The largest differences of boxes and scores; true if they mean nothing.

    Example:
        >>> bool(rm.compare_conversion(trained.best, rm.convert(trained.best), parts["test"]))
    """
    original = Predictor.load(snapshot, converted.record["inference"]["nms_threshold"])
    predictors, options = (original, Predictor.load(converted)), {"batch_size": 1, "suppress": "per_class"}
    paths = image_paths(table)[:most]
    return agreement(*(detect(each, paths, folder, score_threshold, **options)[0] for each in predictors))


def evaluate_classifier(
    snapshot: str | Path | Snapshot | Sequence[str | Path | Snapshot],
    table: pd.DataFrame,
    folder: str | Path = ".",
    threshold: float = 0.5,
    threshold_class: str | None = None,
    flip: bool = False,
    box_fit: Sequence[float] = (),
) -> "ClassifierEvaluation":
    """Judge a classifier on the boxes of a table.

    Args:
        snapshot: of a classifier; the probabilities of several are averaged.
        table: annotations.
        folder: what the table's paths are relative to.
        threshold: probability of ``threshold_class`` from which on a face is given that class.
        threshold_class: without it the most likely class counts.
        flip: also look at each face in the mirror, and average.
        box_fit: how a face detector's boxes become those of the table, from `fit_boxes`: the classifier sees the faces
            as that detector would cut them, where whole heads are annotated.

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
    if box_fit:
        table = objects(table)
        faces_xyxy = BoxFit.of(box_fit).inverse(table[BOX_COLUMNS].to_numpy(float))
        table = table.assign(**dict(zip(BOX_COLUMNS, faces_xyxy.T, strict=True)))
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
        judged = faces.probabilities, faces.classes, threshold, threshold_class
        self.figures = classification.figures(faces.labels, *judged)
        self.predicted = classification.decide(*judged)

    def pictures(self, count: int = 24) -> dict[str, Figure]:
        """Draw ``confusion_matrix``, ``roc_curves``, ``calibration_curves``, ``predictions`` and ``mistakes``.

        Args:
            count: faces in a picture of faces at most.
        """
        judged = self.faces.labels, self.faces.probabilities, self.faces.classes
        names, accuracy = self.figures["classes"], f"accuracy {self.figures['accuracy']:.3f}"
        counts = pd.DataFrame(self.figures["confusion"], names, names)
        return {
            "confusion_matrix": plots.confusion_matrix(counts, accuracy),
            "roc_curves": classification.roc_curves(classification.roc(*judged), self.figures),
            "calibration_curves": classification.calibration_curves(classification.calibration(*judged), self.figures),
            "predictions": classification.prediction_plot(self.faces, self.predicted, count),
            "mistakes": classification.most_confident_mistakes(self.faces, self.predicted, count),
        }
