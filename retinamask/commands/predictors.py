"""The options that name the model: a snapshot, or a classifier's snapshot with a face detector."""

import argparse
from collections.abc import Iterable

_OPTIONS = {  # option: parameter of `retinamask.model.load`
    "face_detector": "face_detector",
    "face_model": "face_model",
    "face_score_threshold": "score_threshold",
    "face_nms_threshold": "nms_threshold",
    "face_classes": "classes",
    "face_tiling": "tiling",
    "box_margin": "box_margin",
    "margin": "margin",
}


def add_predictor_options(command: argparse.ArgumentParser) -> None:
    """Declare the options of a face detector; ``--snapshot`` is the command's own."""
    group = command.add_argument_group(
        "with the snapshot of a mask classifier",
        "the score is the face's times the class's probability; options left out are the face detector's own",
    )
    unless = {"default": argparse.SUPPRESS}
    group.add_argument(
        "--face-detector",
        metavar="NAME",
        help="haar, res10, yunet, yolov4, yolov4_tiny, or snapshot (a detector of ours)",
        **unless,
    )
    group.add_argument(
        "--face-model",
        nargs="+",
        metavar="PATH",
        help="its files, such as .cfg .weights .names; what retinamask fetch res10 (or yunet) fetched if left out",
        **unless,
    )
    group.add_argument("--face-score-threshold", type=float, metavar="T", help="weaker faces are dropped", **unless)
    group.add_argument("--face-nms-threshold", type=float, metavar="T", help="IoU from which one goes", **unless)
    group.add_argument("--face-classes", nargs="+", metavar="NAME", help="classes of yolov4 that are faces", **unless)
    group.add_argument("--face-tiling", metavar="HOW", help="large images in tiles: auto, always or never", **unless)
    group.add_argument(
        "--margin", type=float, metavar="M", help="around a face for the classifier; its own if left out", **unless
    )
    group.add_argument(
        "--box-margin", type=float, metavar="M", help="enlarge boxes, in shares of their sides", **unless
    )


def predictor_options(given) -> dict:
    """Return the options of this file that are given, by their names."""
    return {name: vars(given)[name] for name in _OPTIONS if name in given}


def refuse_options(names: Iterable[str], reason: str) -> None:
    """Raise `ValueError` if an option is given where it has no effect."""
    for name in names:
        raise ValueError(f"--{name.replace('_', '-')} has no effect {reason}")


def load_predictor(given):
    """Load the predictor that the options name, see `retinamask.model.load`."""
    from retinamask.model import load

    stated = predictor_options(given)
    if "face_detector" not in stated:
        refuse_options(stated, "without --face-detector NAME")
    return load(given.snapshot, **{_OPTIONS[name]: value for name, value in stated.items()}).predictor
