"""The command that trains: every setting of training and of the detectors is an option of it."""

import argparse
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, get_args, get_origin

from retinamask import detectors
from retinamask.commands import add_command
from retinamask.setting import described
from retinamask.training.settings import KNOWN, AugmentationSettings, TrainingSettings

WARPS = ("rotate", "shift", "shear", "erase")  # for classifiers alone


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
    names = [name for name, kind in detectors.DETECTORS.items() if not kind.classifies]
    train = add_command(subparsers, "train", train_command, "Train a detector on an annotation CSV.")
    train.add_argument("annotations", help="CSV of the training images")
    train.add_argument("classes", help="classes.csv")
    train.add_argument("--val-annotations", help="CSV of images to evaluate on; the best epoch is chosen by AP50")
    train.add_argument("--detector", default="retinanet", help=", ".join(names))
    train.add_argument("--out", help="stem of the snapshots: OUT_best.h5, OUT_last.h5; snapshots/DETECTOR if left out")
    train.add_argument("--resume", action="store_true", help="resume the run of this --out")
    train.add_argument("--tensorboard", metavar="FOLDER", help="also write events for TensorBoard there")
    train.add_argument("--weights", default="none", help=f"none; {weights_help(names)}")
    add_network_settings(train, names)
    add_settings(train, left_out=WARPS)


def weights_help(names: Iterable[str]) -> str:
    """Say what these detectors can start from, beside ``none``."""
    kinds = {name: detectors.named(name) for name in names}
    return "; ".join(f"{name}: {', '.join(kind.published)}, or {kind.weight_files}" for name, kind in kinds.items())


def add_network_settings(
    command: argparse.ArgumentParser, names: Collection[str], left_out: Iterable[str] = ()
) -> None:
    """Add an option for every setting of these detectors that is none of training's, but those ``left_out``."""
    group = command.add_argument_group("the network; an option that is not given is the detector's own")
    options: dict[str, dict[str, list[str]]] = {}  # name: help: detectors
    types = {}
    for detector in names:
        for name, known in detectors.settings_of_detector(detector).items():
            many = get_origin(known.type) is tuple
            kind = get_args(known.type)[0] if many else known.type
            if name in KNOWN or name in left_out or kind not in (int, float, str):
                continue
            types[name] = str if many else kind
            default = ",".join(f"{value:.4g}" for value in known.default) if many else known.default
            few = known.metadata["choices"] if len(known.metadata["choices"]) < 4 else ()
            text = " or ".join([*few[:-1], f"{few[-1]}: "]) if few else ""
            text += known.metadata["help"] + (f" [{default}]" if default != "" else "")
            options.setdefault(name, {}).setdefault(text, []).append(detector)
    for name, texts in options.items():
        of_all = len(texts) == 1 and len(next(iter(texts.values()))) == len(names)
        text = "; ".join(text if of_all else f"{', '.join(having)}: {text}" for text, having in texts.items())
        option = {"type": types[name], "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        group.add_argument(f"--{name.replace('_', '-')}", **option)


def add_settings(command: argparse.ArgumentParser, left_out: Collection[str] = (), **defaults) -> None:
    """Add an option for every setting of training and augmentation but those ``left_out``, with other ``defaults``."""
    augmentation = command.add_argument_group("how images are varied")
    augmentation.add_argument(
        "--no-augment", dest="augment", action="store_false", default=argparse.SUPPRESS, help="not at all"
    )
    training = command.add_argument_group("how to train")
    for group, kind in ((training, TrainingSettings), (augmentation, AugmentationSettings)):
        for name, known in described(kind).items():
            if name not in left_out:
                option = {"default": defaults.get(name, known.default), "help": known.metadata["help"]}
                if known.type is bool:
                    option |= {"action": "store_true"}
                else:
                    option |= {"type": known.type, "choices": known.metadata["choices"] or None}
                group.add_argument(f"--{name.replace('_', '-')}", **option)


def settings_given(given: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Pick the settings of training, augmentation and these networks that are given."""
    known = {*KNOWN, "augment"}.union(*map(detectors.settings_of_detector, names))
    return {name: value for name, value in vars(given).items() if name in known}


def train_command(given: argparse.Namespace) -> None:
    from retinamask.dataset import annotations
    from retinamask.face import train

    if detectors.named(given.detector).classifies:
        raise ValueError(f"{given.detector} learns from faces, not from boxes; use retinamask train-classifier")
    classes = annotations.read_classes(given.classes)
    folder = Path(given.annotations).parent
    parts = {"train": annotations.read_annotations(given.annotations, classes)}
    if given.val_annotations:
        validation = annotations.read_annotations(given.val_annotations, classes)
        parts["val"] = annotations.moved(validation, Path(given.val_annotations).parent, folder)
    options = {name: vars(given)[name] for name in ("detector", "weights", "out", "resume", "tensorboard")}
    trained = train(parts, classes, folder=folder, **options, **settings_given(given, detectors.DETECTORS))
    if trained.best:  # of several workers, the first's
        print(f"best: {trained.best}\nlast: {trained.last}")
