"""The options that say what looks at images: a snapshot, or a classifier's snapshot behind a face detector."""

import argparse
from collections.abc import Iterable

_OPTIONS = {  # of the face detector, by the name of the option that gives them
    "face_score_threshold": "score_threshold",
    "face_nms_threshold": "nms_threshold",
    "face_classes": "classes",
    "face_tiling": "tiling",
}
_MARGINS = ("box_margin", "margin")


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
    """The options of this file that are given, by their names."""
    return {name: vars(given)[name] for name in ("face_detector", "face_model", *_OPTIONS, *_MARGINS) if name in given}


def refuse_options(names: Iterable[str], reason: str) -> None:
    """Raise `ValueError` if an option is given where it has no effect."""
    for name in names:
        raise ValueError(f"--{name.replace('_', '-')} has no effect {reason}")


def load_predictor(given):
    """What the options ask for, as a predictor that takes images and gives detections.

    Raises:
        ValueError: a classifier without a face detector, or the other way round, and whatever is wrong with files.
    """
    from retinamask.detectors import snapshots
    from retinamask.inference.detect import Predictor
    from retinamask.inference.two_stage import TwoStage

    snapshot = snapshots.read(given.snapshot)
    stated = vars(given)
    if "face_detector" in stated:
        options = {name: stated[option] for option, name in _OPTIONS.items() if option in stated}
        options |= {name: stated[name] for name in _MARGINS if name in stated}
        return TwoStage.load(snapshot, given.face_detector, stated.get("face_model", ()), **options)
    refuse_options(predictor_options(given), "without --face-detector NAME")
    if snapshot.classifies:
        raise ValueError(
            f"{snapshot.weights} is a classifier of faces and finds none; add --face-detector haar, or another one"
        )
    return Predictor.load(snapshot)
