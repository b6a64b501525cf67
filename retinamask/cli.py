"""The command line: a light wrapper; each command calls the functions that the notebooks call."""

import argparse
import logging
import sys
from collections.abc import Sequence

from retinamask import __version__, commands

_FORMATTER = argparse.ArgumentDefaultsHelpFormatter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 2 with one message on a user's mistake, 1 on a failed run."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    given = _parser().parse_args(arguments)
    try:
        return given.command(given) or 0
    except (ValueError, OSError) as error:
        print(f"retinamask: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("retinamask: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retinamask",
        description="Face-mask detection with Keras-RetinaNet, from labelImg XML to drawn detections.",
        epilog="Each command explains itself: retinamask COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"retinamask {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_data_commands(subparsers)
    _add_train_command(subparsers)
    _add_model_commands(subparsers)
    _add_run_commands(subparsers)
    return parser


def _add(subparsers, name: str, function, text: str) -> argparse.ArgumentParser:
    command = subparsers.add_parser(name, help=text, description=text, formatter_class=_FORMATTER)
    command.set_defaults(command=function)
    return command


def _add_data_commands(subparsers) -> None:
    sample = _add(subparsers, "sample", commands.sample_command, "Draw a sample data set with labelImg XML.")
    sample.add_argument("--out", required=True, help="new folder for images/ and annotations/")
    sample.add_argument("--images", type=int, default=48, help="how many scenes")
    sample.add_argument("--size", type=int, default=256, help="side of a scene in pixels")
    sample.add_argument("--seed", type=int, default=0, help="the same seed draws the same scenes")

    text = "Turn folders of labelImg XML into annotations.csv and classes.csv, checked."
    table = _add(subparsers, "annotations", commands.annotations_command, text)
    table.add_argument("sources", nargs="+", metavar="SRC", help="folders with XML files, or XML files")
    table.add_argument("--out", default="annotations.csv", help="the CSV to write; image paths are relative to it")
    table.add_argument("--classes", default="classes.csv", help="class list: read if it exists, else written")
    table.add_argument("--images", help="folder of the images, if they are not below SRC")
    table.add_argument("--with-unannotated", action="store_true", help="take images without XML as without faces")
    table.add_argument("--force", action="store_true", help="replace an existing CSV")


def _add_train_command(subparsers) -> None:
    train = _add(subparsers, "train", commands.train_command, "Train a RetinaNet on an annotation CSV.")
    train.add_argument("annotations", help="CSV of the training images")
    train.add_argument("classes", help="classes.csv")
    train.add_argument("--val-annotations", help="CSV of images to evaluate on; the best epoch is chosen by AP50")
    train.add_argument("--out", default="snapshots/retinanet", help="stem of the snapshots: OUT_best.h5, OUT_last.h5")
    train.add_argument("--backbone", default="resnet50", help="any that keras-retinanet has")
    train.add_argument("--weights", default="none", help="none, imagenet, coco, or an .h5 file to start from")
    train.add_argument("--image-size", type=int, default=512, help="images are fitted into a square of this side")
    train.add_argument("--epochs", type=int, default=20, help="rounds; one evaluation and snapshot each")
    train.add_argument("--steps", type=int, default=0, help="steps an epoch; 0 shows every image once")
    train.add_argument("--batch-size", type=int, default=4, help="images a step")
    train.add_argument("--learning-rate", type=float, default=1e-4, help="peak of the schedule")
    train.add_argument("--schedule", choices=["cosine", "constant"], default="cosine", help="learning rate schedule")
    train.add_argument("--freeze-backbone", action="store_true", help="train pyramid and heads only")
    train.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto", help="of the CPU")
    train.add_argument("--keep-every-epoch", action="store_true", help="a snapshot of every epoch, not two")
    train.add_argument("--seed", type=int, default=0, help="decides order, augmentation and random weights")


def _add_model_commands(subparsers) -> None:
    convert = _add(subparsers, "convert", commands.convert_command, "Convert a training snapshot for inference.")
    convert.add_argument("snapshot", help=".h5 or .json of a training snapshot")
    convert.add_argument("--out", help=".h5 to write; SNAPSHOT_inference.h5 if left out")
    convert.add_argument("--score-threshold", type=float, default=0.05, help="weaker boxes are dropped before NMS")
    convert.add_argument("--nms-threshold", type=float, default=0.5, help="IoU from which the weaker box goes")

    theirs = convert.add_argument_group("for an .h5 of keras-retinanet's own, which has no .json beside it")
    theirs.add_argument("--classes", help="classes.csv of its training")
    theirs.add_argument("--backbone", help="its backbone; ResNets are recognised")
    theirs.add_argument("--image-min-side", type=int, default=800, help="shorter side that it was trained at")
    theirs.add_argument("--image-max-side", type=int, default=1333, help="longer side at most")

    detect = _add(subparsers, "detect", commands.detect_command, "Detect in images and write a detections CSV.")
    detect.add_argument("sources", nargs="+", metavar="SOURCE", help="images, or folders of images")
    detect.add_argument("--snapshot", required=True, help="snapshot of either kind")
    detect.add_argument("--out", default="detections.csv", help="rows path,x1,y1,x2,y2,class_name,score")
    detect.add_argument("--score-threshold", type=float, default=0.5, help="keep detections from this score on")
    detect.add_argument("--batch-size", type=int, default=4, help="images per network call")
    detect.add_argument("--force", action="store_true", help="replace an existing CSV")

    evaluate = _add(subparsers, "evaluate", commands.evaluate_command, "The twelve COCO figures, and per class.")
    evaluate.add_argument("annotations", help="CSV of the held-out images")
    evaluate.add_argument("classes", help="classes.csv")
    judged = evaluate.add_mutually_exclusive_group(required=True)
    judged.add_argument("--snapshot", help="snapshot of either kind to run on the images")
    judged.add_argument("--detections", help="detections CSV to judge instead")
    evaluate.add_argument("--out", help="also write the figures to this JSON file")
    evaluate.add_argument("--force", action="store_true", help="replace an existing JSON file")


def _add_run_commands(subparsers) -> None:
    _add(subparsers, "doctor", commands.doctor_command, "Say what is installed and what is wrong with it.")
    text = "Run keras-retinanet's own train, evaluate, convert-model or debug with its own arguments."
    theirs = _add(subparsers, "keras-retinanet", commands.keras_retinanet_command, text)
    theirs.add_argument("name", metavar="train|evaluate|convert-model|debug", help="its command")
    theirs.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on; --help is keras-retinanet's own")

    text = "Run a notebook, or the pipeline 01 to 05, strictly, with a record under runs/."
    run = _add(subparsers, "run", commands.run_command, text)
    run.add_argument("notebook", help="a notebook's name or path, or: pipeline")
    run.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    run.add_argument("-f", "--parameters-file", help="YAML file of parameters; -p overrides it")
    run.add_argument("--name", help="name of the run's folder; made from the time if left out")
    run.add_argument("--force", action="store_true", help="move an earlier run of that name aside")

    demo = _add(subparsers, "demo", commands.demo_command, "Draw faces, train on them, and show what is found.")
    demo.add_argument("--images", type=int, default=700, help="how many scenes to draw")
    demo.add_argument("--steps", type=int, default=300, help="training steps")
    demo.add_argument("--data", help="where the scenes go; data/demo_IMAGES if left out")
    demo.add_argument("--name", help="name of the run's folder; made from the time if left out")
