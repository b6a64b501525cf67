"""The public functions that put several layers together, see ``import retinamask as rm``; `reports` has others.

On top of everything but the notebooks' runner and the commands.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from retinamask import detectors
from retinamask.dataset import face_folders, formats, splits
from retinamask.dataset.anchors import Anchors
from retinamask.dataset.annotations import image_paths, moved, number_classes, read_classes, relative_path
from retinamask.dataset.copies import image_groups
from retinamask.dataset.crops import cut_faces
from retinamask.dataset.face_folders import read_face_folders
from retinamask.dataset.images import image_size as size_of
from retinamask.dataset.images import read_image
from retinamask.detectors.snapshots import Snapshot
from retinamask.drawing import contact_sheet as sheets
from retinamask.drawing.boxes import draw_boxes
from retinamask.evaluation import plots
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.evaluation.watchers import TensorBoardWatcher
from retinamask.inference.agreement import Agreement, agreement
from retinamask.inference.detect import Predictor, detect
from retinamask.model import rgb_array
from retinamask.runs.parameters import training_settings
from retinamask.training.checkpoints import refuse_existing
from retinamask.training.input_pipeline import Examples
from retinamask.training.train import Trained
from retinamask.training.train import train as train_examples


def read_annotations(
    source: str | Path | Iterable[str | Path],
    folder: str | Path = ".",
    known: dict[str, int] | str | Path | None = None,
    class_map: dict[str, str] | str | None = None,
    image_folder: str | Path | None = None,
    with_unannotated: bool = False,
    format_name: str | None = None,
) -> tuple[pd.DataFrame, dict[str, int], list[formats.Problem]]:
    """Read annotations of any known format into a table, see `retinamask.dataset.formats.read_mapped`.

    Args:
        source: an annotation file, a folder of them, or several of these.
        folder: what the image paths of the table are relative to; the working folder if left out.
        known: the classes, name to id, or a class list; ``classes.csv`` in a folder ``source`` if left out and there.
        class_map: old class names to new ones, as ``"Mask=mask,NoMask=no_mask"`` or as a dict.
        image_folder: of the images, if they are not where the annotations say.
        with_unannotated: whether images without annotation are taken as images without faces.
        format_name: such as ``yolo``; told by the files if left out.

    Returns:
        Rows ``image_path, x1, y1, x2, y2, class_name``, the classes (name to id), and what was wrong with the files.

    Example:
        >>> table, classes, problems = rm.read_annotations("data/mine")
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    if not known and len(sources) == 1 and Path(sources[0], "classes.csv").is_file():
        known = Path(sources[0], "classes.csv")
    known = read_classes(known) if isinstance(known, (str, Path)) and known else known or None
    class_map = formats.parse_class_map(class_map) if isinstance(class_map, str) and class_map else class_map or None
    return formats.read_mapped(sources, folder, image_folder, known, with_unannotated, format_name, class_map)


def write_format(
    table: pd.DataFrame, classes: dict[str, int], to: str, out: str | Path, folder: str | Path = ".", **options: str
) -> None:
    """Write a table as ``voc``, ``yolo``, ``coco``, ``createml`` or ``csv`` into a new folder, whole or not at all.

    Args:
        table: annotations with image paths relative to ``folder``.
        classes: name to id.
        to: the format.
        out: a new or empty folder.
        folder: see ``table``.
        options: of the format, such as ``images="copy"`` of ``yolo``.

    Example:
        >>> rm.write_format(table, classes, "yolo", "data/mine_yolo")
    """
    formats.write(to, table, classes, out, folder, **options)


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
    train, val_faces, _ = face_folders.split_faces(found.table, source, val, seed)
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
    **settings: Any,
) -> Trained:
    """Train a detector.

    Args:
        parts: ``train``, and if epochs are to be judged ``val``, such as from `split`.
        classes: name to id.
        detector: such as ``retinanet`` or ``yolov4_tiny``; ``retinamask train --help`` lists them all.
        weights: ``none``, ``imagenet``, ``coco`` or a file.
        out: stem of the snapshots ``OUT_best.h5`` and ``OUT_last.h5`` and of ``OUT_log.csv``; ``snapshots/DETECTOR``.
        folder: what the image paths are relative to.
        resume: continue the run of this ``out`` where it stopped.
        tensorboard: folder for TensorBoard's events.
        settings: by name, of training, augmentation and the network, as ``retinamask train --help`` lists them.

    Returns:
        ``best`` and ``last``, the snapshots, and ``log``, a table with a row per epoch.

    Example:
        >>> trained = rm.train(parts, classes, image_size=512, epochs=20, weights="imagenet")
        >>> model = rm.load(trained.best)
    """
    if "train" not in parts:
        raise ValueError(f"found no part 'train' in {', '.join(map(str, parts))}; expected what rm.split(table) gives")
    if detectors.named(detector).classifies:
        raise ValueError(f"{detector} learns from faces, not from boxes; use retinamask train-classifier")
    how, network = training_settings(detector, settings)
    out = Path(out or f"snapshots/{detector}")
    log_csv = out.with_name(f"{out.name}_log.csv")
    if not resume:
        refuse_existing(out)
        if log_csv.exists():
            raise ValueError(f"{log_csv} exists; choose another name, or resume that run")
    built = detectors.create_for(detector, classes, weights, **network)
    evaluate = epoch_evaluation(built, parts["val"], folder) if "val" in parts else None
    watchers = [TensorBoardWatcher(tensorboard, evaluate)] if tensorboard else []
    examples = Examples(parts["train"], folder, built, how.cache)
    return train_examples(examples, how, out, weights, evaluate, watchers, log_csv=log_csv, resume=resume)


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
    anchors = Anchors()
    return plots.box_sizes(table, sizes, anchors.sizes, image_size, anchors.ratios)


def compare(
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
        >>> bool(rm.compare(trained.best, rm.convert(trained.best), parts["test"]))
    """
    original = Predictor.load(snapshot, converted.record["inference"]["nms_threshold"])
    predictors, options = (original, Predictor.load(converted)), {"batch_size": 1, "suppress": "per_class"}
    paths = image_paths(table)[:most]
    return agreement(*(detect(each, paths, folder, score_threshold, **options)[0] for each in predictors))
