"""The command that trains: every setting of `retinamask.training.settings` is an option of it.

It calls the functions that the training notebook calls. Imports stand inside the functions, so that a command
starts only what it needs.
"""

import argparse
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from retinamask.commands.parsing import add_command
from retinamask.training.settings import AugmentationSettings, TrainingSettings, known_in

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
    from retinamask.dataset import annotations
    from retinamask.detectors.darknet import cfg
    from retinamask.face import train

    classes = annotations.read_classes(given.classes)
    folder = Path(given.annotations).parent
    parts = {"train": annotations.read_annotations(given.annotations, classes)}
    if given.val_annotations:
        validation = annotations.read_annotations(given.val_annotations, classes)
        parts["val"] = annotations.moved(validation, Path(given.val_annotations).parent, folder)
    chosen = {name: vars(given)[name] for name in DETECTOR_OPTIONS if name in given}
    if "cfg" in chosen:
        chosen["cfg"] = cfg.read(chosen["cfg"])
        if ignored := cfg.describe(chosen["cfg"]).ignored:
            print(f"not read in {given.cfg}: {', '.join(ignored)}; the options of this command set these")
    options = {name: vars(given)[name] for name in ("detector", "weights", "out", "resume", "tensorboard")}
    trained = train(parts, classes, folder=folder, **options, **known_in(vars(given)), **chosen)
    if trained.best:  # of several workers, the first's
        print(f"best: {trained.best}\nlast: {trained.last}")
