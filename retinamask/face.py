"""The public functions that put several layers together, see ``import retinamask as rm``.

On top of everything but the notebooks' runner and the commands.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from retinamask import detectors
from retinamask.dataset import formats, splits
from retinamask.dataset.annotations import image_paths, objects, relative_path
from retinamask.dataset.audit import Audit, AuditSettings, read_source
from retinamask.dataset.audit import audit as audit_source
from retinamask.dataset.copies import image_groups
from retinamask.dataset.images import read_image
from retinamask.drawing import boxes
from retinamask.drawing import contact_sheet as sheets
from retinamask.evaluation import coco
from retinamask.evaluation.in_training import epoch_evaluation
from retinamask.evaluation.watchers import TensorBoardWatcher
from retinamask.model import rgb_array
from retinamask.runs.training_settings import training_settings
from retinamask.training.examples import Examples
from retinamask.training.snapshot_keeper import refuse_existing
from retinamask.training.train import Trained
from retinamask.training.train import train as train_examples


def read_annotations(
    source: str | Path | Iterable[str | Path], folder: str | Path = ".", **options: Any
) -> tuple[pd.DataFrame, dict[str, int], list[formats.Problem]]:
    """Read annotations of any known format into a table, see `retinamask.dataset.formats.read_mapped`.

    Args:
        source: an annotation file, a folder of them, or several of these.
        folder: what the image paths of the table are relative to; the working folder if left out.
        options: ``image_folder``, ``known`` (classes, name to id), ``with_unannotated``, ``format_name`` and
            ``class_map``.

    Returns:
        Rows ``image_path, x1, y1, x2, y2, class_name``, the classes (name to id), and what was wrong with the files.

    Example:
        >>> table, classes, problems = rm.read_annotations("data/mine")
    """
    sources = [source] if isinstance(source, (str, Path)) else list(source)
    return formats.read_mapped(sources, folder, **options)


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


def audit(source: str | Path, **settings: Any) -> Audit:
    """Read every image and annotation of a data set and list what is wrong, the worst first.

    Args:
        source: a folder of annotations and images, or an annotation file.
        settings: fields of `retinamask.dataset.audit.AuditSettings`, such as ``image_size=512``.

    Example:
        >>> for finding in rm.audit("data/mine").findings:
        ...     print(finding)
    """
    return audit_source(read_source(source), AuditSettings(**settings))


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
        detector: ``retinanet``, ``ssd_mobilenet_v2_fpnlite`` or ``yolov4_tiny``.
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
        >>> model = rm.load(trained.best.weights)
    """
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
    return boxes.draw_boxes(pixels, tables[0], _class_ids(table), tables[1])


def contact_sheet(
    table: pd.DataFrame,
    ground_truth: pd.DataFrame | None = None,
    images: int = 24,
    columns: int = 6,
    folder: str | Path = ".",
) -> Image.Image:
    """Draw the first images of a table with their boxes on one sheet.

    Args:
        table: annotations or detections.
        ground_truth: annotations, dashed below them.
        images: how many at most.
        columns: images in a row.
        folder: what the table's paths are relative to.

    Example:
        >>> rm.contact_sheet(model.detect("photos/")).save("sheet.png")
    """
    examples = sheets.examples(image_paths(table)[:images], folder, table, ground_truth)
    return sheets.contact_sheet(examples, _class_ids(table), columns=columns, cell_size=256)


def evaluate(detections: pd.DataFrame, annotations: pd.DataFrame) -> dict[str, Any]:
    """Judge detections by the twelve COCO figures, see `retinamask.evaluation.coco.evaluate`.

    Args:
        detections: made with a low ``score_threshold`` such as 0.05 and ``suppress="per_class"``.
        annotations: of the images that were looked at, with the same paths.

    Returns:
        A figure from 0 to 1 for each of ``AP``, ``AP50``, ``AP75``, ..., and ``per_class``.

    Example:
        >>> found = model.detect(list(test["image_path"].unique()), score_threshold=0.05, suppress="per_class")
        >>> rm.evaluate(found, test)["AP50"]
    """
    return coco.evaluate(annotations, detections, _class_ids(annotations, detections))


def _class_ids(*tables: pd.DataFrame) -> dict[str, int]:
    names = dict.fromkeys(name for table in tables for name in objects(table)["class_name"])
    return {name: number for number, name in enumerate(sorted(names))}
