"""The command that trains: every setting of `retinamask.training.settings` is an option of it.

It calls the functions that the training notebook calls. Imports stand inside the functions, so that a command
starts only what it needs.
"""

import argparse
from collections.abc import Collection
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from retinamask.commands.parsing import add_command
from retinamask.training.settings import (
    CACHES,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    AugmentationSettings,
    TrainingSettings,
    settings_of,
)

_CHOICES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS, "cache": CACHES}

WARPS = ("rotate", "shift", "shear", "erase")  # for classifiers alone

WEIGHTS_HELP = (
    "none, imagenet, coco, or a file: .h5; for ssd_mobilenet_v2_fpnlite also a checkpoint of TensorFlow's detection "
    "zoo, for yolov4_tiny Darknet's .weights or .conv.29"
)
DETECTOR_OPTIONS = {
    "image_size": (int, "images are fitted into a square of this side"),
    "backbone": (str, "retinanet: any that keras-retinanet has"),
    "normalisation": (str, "live or frozen batch normalisation of the backbone; retinanet chooses by its weights"),
    "alpha": (float, "ssd_mobilenet_v2_fpnlite: width of its MobileNetV2, such as 0.5"),
    "levels": (int, "yolov4_tiny: 2, or 3 for the variant that also sees small faces"),
    "cfg": (Path, "yolov4_tiny: a Darknet cfg of one's own"),
}

HELP = {
    "epochs": "rounds; one evaluation and snapshot each",
    "steps": "updates an epoch; 0 shows every image once",
    "batch_size": "images behind one update, over all devices and parts",
    "accumulate": "parts in which a batch is computed, to save memory; the update is the same",
    "optimizer": "how gradients become updates",
    "learning_rate": "peak of the schedule",
    "schedule": "of the learning rate; step falls tenfold at 2/3 and 8/9, plateau when AP50 or accuracy stops rising, "
    "darknet at 80 and 90 percent after a burn-in",
    "warm_up": "share of all steps over which the rate rises to its peak",
    "momentum": "of sgd alone",
    "weight_decay": "of adamw alone",
    "gradient_clip": "largest norm of the whole gradient; 0 for none",
    "ema": "share of the averaged weights that a step keeps, such as 0.998; 0 for no averaging",
    "freeze_epochs": "epochs in which the backbone rests; -1 for all",
    "fine_tune_rate": "share of the rate that is left after freeze_epochs",
    "balance": "show images of rare classes more often",
    "early_stop": "evaluations without a better AP50, or accuracy, that end training; 0 for never",
    "plateau_patience": "evaluations without a better AP50, or accuracy, after which plateau lowers the rate",
    "evaluate_every": "epochs between two evaluations",
    "keep_best": "epochs of the best AP50, or accuracy, whose snapshots stay; beyond 1 under their numbers too",
    "keep_last": "last epochs whose snapshots stay",
    "checkpoint_minutes": "minutes between checkpoints within an epoch",
    "precision": "auto goes by the GPU, measures on processors with bfloat16, else takes float32; float16 is for GPUs",
    "xla": "compile the step with XLA",
    "cache": "where decoded images are kept; file: beside the images; auto: in memory up to 2 GB",
    "seed": "decides order, augmentation and random weights",
    "flip": "probability of a flip left to right",
    "zoom_out": "smallest factor of the random zoom",
    "zoom_in": "largest factor of the random zoom",
    "visible_share": "a box cut to less than this share is dropped",
    "brightness": "grey levels up or down at most",
    "contrast": "share up or down at most",
    "saturation": "share up or down at most",
    "rotate": "degrees either way at most",
    "shift": "share of width and height at most",
    "shear": "slant at most, as a tangent",
    "erase": "probability of a noisy rectangle in the lower half of the face",
    "mosaic": "probability of an example made of four images",
    "multi_scale": "yolov4_tiny: the side of the input changes by this factor at most",
}


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
    train = add_command(subparsers, "train", train_command, "Train a detector on an annotation CSV.")
    train.add_argument("annotations", help="CSV of the training images")
    train.add_argument("classes", help="classes.csv")
    train.add_argument("--val-annotations", help="CSV of images to evaluate on; the best epoch is chosen by AP50")
    train.add_argument("--detector", default="retinanet", help="retinanet, ssd_mobilenet_v2_fpnlite or yolov4_tiny")
    train.add_argument("--out", help="stem of the snapshots: OUT_best.h5, OUT_last.h5; snapshots/DETECTOR if left out")
    train.add_argument("--resume", action="store_true", help="go on with the run of this --out where it stopped")
    train.add_argument("--tensorboard", metavar="FOLDER", help="also write events for TensorBoard there")
    train.add_argument("--weights", default="none", help=WEIGHTS_HELP)
    network = train.add_argument_group("the network; an option that is not given is the detector's own")
    for name, (kind, text) in DETECTOR_OPTIONS.items():
        option = f"--{name.replace('_', '-')}"
        network.add_argument(option, type=kind, default=argparse.SUPPRESS, help=text)
    add_settings(train, left_out=WARPS)


def add_settings(command: argparse.ArgumentParser, left_out: Collection[str] = (), **defaults) -> None:
    """An option for every setting of `retinamask.training.settings` but those ``left_out``.

    Args:
        command: gets the options.
        left_out: names of fields.
        defaults: of fields, where a command has others than the settings themselves.
    """
    _add_settings(command.add_argument_group("how to train"), TrainingSettings, left_out, defaults)
    augmentation = command.add_argument_group("how images are varied")
    augmentation.add_argument(
        "--no-augment", dest="augment", action="store_false", default=argparse.SUPPRESS, help="not at all"
    )
    _add_settings(augmentation, AugmentationSettings, left_out, defaults)


def _add_settings(
    group: argparse._ArgumentGroup, settings: type, left_out: Collection[str], defaults: dict[str, Any]
) -> None:
    """An option for each field that has a plain default."""
    for field in fields(settings):
        if field.default is MISSING or field.name in left_out:
            continue
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            group.add_argument(option, action="store_true", help=HELP[field.name])
        else:
            choices, kind = _CHOICES.get(field.name), type(field.default)
            default = defaults.get(field.name, field.default)
            group.add_argument(option, type=kind, default=default, choices=choices, help=HELP[field.name])


def train_command(given: argparse.Namespace) -> None:
    from retinamask import detectors
    from retinamask.dataset import annotations
    from retinamask.detectors.darknet import cfg
    from retinamask.evaluation.in_training import epoch_evaluation
    from retinamask.evaluation.tensorboard import TensorBoardWatcher
    from retinamask.training.examples import Examples
    from retinamask.training.train import train

    if detectors.named(given.detector).classifies:
        raise ValueError(f"{given.detector} learns from faces, not from boxes; use retinamask train-classifier")
    settings = settings_of(vars(given))
    classes = annotations.read_classes(given.classes)
    table = annotations.read_annotations(given.annotations, classes)
    chosen = {name: vars(given)[name] for name in DETECTOR_OPTIONS if name in given}
    if "cfg" in chosen:
        chosen["cfg"] = cfg.read(chosen["cfg"])
    detector = detectors.create_for(given.detector, classes, given.weights, **chosen)
    if "cfg" in chosen and detector.description.ignored:
        print(f"not read in {given.cfg}: {', '.join(detector.description.ignored)}; the options of this command say it")
    evaluate = None
    if given.val_annotations:
        validation = annotations.read_annotations(given.val_annotations, classes)
        evaluate = epoch_evaluation(detector, validation, Path(given.val_annotations).parent)
    out = given.out or f"snapshots/{given.detector}"
    log_csv = Path(f"{out}_log.csv")
    if log_csv.exists() and not given.resume:
        raise ValueError(f"{log_csv} exists; choose another --out, or go on with that run with --resume")
    watchers = [TensorBoardWatcher(given.tensorboard, evaluate)] if given.tensorboard else []
    examples = Examples(table, Path(given.annotations).parent, detector, settings.cache)
    trained = train(examples, settings, out, given.weights, evaluate, watchers, log_csv=log_csv, resume=given.resume)
    if trained.best:  # of several workers, the first's
        print(f"best: {trained.best}\nlast: {trained.last}")
