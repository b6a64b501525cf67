"""The command that trains: every setting of `retinamask.training.settings` is an option of it.

It calls the functions that the training notebook calls. Imports stand inside the functions, so that a command
starts only what it needs.
"""

import argparse
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from retinamask.commands.parsing import add_command
from retinamask.training.settings import AugmentationSettings, TrainingSettings, known_in, settings_of

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


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
    train = add_command(subparsers, "train", train_command, "Train a detector on an annotation CSV.")
    train.add_argument("annotations", help="CSV of the training images")
    train.add_argument("classes", help="classes.csv")
    train.add_argument("--val-annotations", help="CSV of images to evaluate on; the best epoch is chosen by AP50")
    train.add_argument("--detector", default="retinanet", help="retinanet, ssd_mobilenet_v2_fpnlite or yolov4_tiny")
    train.add_argument("--out", help="stem of the snapshots: OUT_best.h5, OUT_last.h5; snapshots/DETECTOR if left out")
    train.add_argument("--resume", action="store_true", help="resume the run of this --out")
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
    augmentation = command.add_argument_group("how images are varied")
    augmentation.add_argument(
        "--no-augment", dest="augment", action="store_false", default=argparse.SUPPRESS, help="not at all"
    )
    for group, kind in (
        (command.add_argument_group("how to train"), TrainingSettings),
        (augmentation, AugmentationSettings),
    ):
        for known in fields(kind):
            if known.metadata and known.name not in left_out:
                option = {"default": defaults.get(known.name, known.default), "help": known.metadata["help"]}
                if known.type is bool:
                    option |= {"action": "store_true"}
                else:
                    option |= {"type": known.type, "choices": known.metadata["choices"] or None}
                group.add_argument(f"--{known.name.replace('_', '-')}", **option)


def train_command(given: argparse.Namespace) -> None:
    from retinamask import detectors
    from retinamask.dataset import annotations
    from retinamask.detectors.darknet import cfg
    from retinamask.evaluation.in_training import epoch_evaluation
    from retinamask.evaluation.tensorboard import TensorBoardWatcher
    from retinamask.training.examples import Examples
    from retinamask.training.snapshot_keeper import refuse_existing
    from retinamask.training.train import train

    if detectors.named(given.detector).classifies:
        raise ValueError(f"{given.detector} learns from faces, not from boxes; use retinamask train-classifier")
    settings = settings_of(known_in(vars(given)))
    out = given.out or f"snapshots/{given.detector}"
    log_csv = Path(f"{out}_log.csv")
    if not given.resume:
        refuse_existing(out)
        if log_csv.exists():
            raise ValueError(f"{log_csv} exists; choose another --out, or resume that run with --resume")
    classes = annotations.read_classes(given.classes)
    table = annotations.read_annotations(given.annotations, classes)
    chosen = {name: vars(given)[name] for name in DETECTOR_OPTIONS if name in given}
    if "cfg" in chosen:
        chosen["cfg"] = cfg.read(chosen["cfg"])
    detector = detectors.create_for(given.detector, classes, given.weights, **chosen)
    if "cfg" in chosen and detector.description.ignored:
        print(f"not read in {given.cfg}: {', '.join(detector.description.ignored)}; see this command's options")
    evaluate = None
    if given.val_annotations:
        validation = annotations.read_annotations(given.val_annotations, classes)
        evaluate = epoch_evaluation(detector, validation, Path(given.val_annotations).parent)
    watchers = [TensorBoardWatcher(given.tensorboard, evaluate)] if given.tensorboard else []
    examples = Examples(table, Path(given.annotations).parent, detector, settings.cache)
    trained = train(examples, settings, out, given.weights, evaluate, watchers, log_csv=log_csv, resume=given.resume)
    if trained.best:  # of several workers, the first's
        print(f"best: {trained.best}\nlast: {trained.last}")
