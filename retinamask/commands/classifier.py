"""The commands that train a classifier of faces, and that cut the faces out of annotated images.

Beside `commands.training`, whose options they share. Imports stand inside the functions, so that a command starts
only what it needs.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from retinamask.commands.parsing import add_command
from retinamask.commands.training import add_settings

NETWORK_OPTIONS = {
    "image_height": (int, "of the input in pixels"),
    "image_width": (int, "of the input in pixels"),
    "alpha": (float, "width of MobileNetV2; ImageNet weights: 0.35, 0.5, 0.75, 1.0, 1.3, 1.4"),
    "pooling": (str, "average or max"),
    "dense": (str, "units of the layers between pooling and answer, such as 128 or 256,64; none for no layer"),
    "dropout": (float, "share of the inputs of those layers that an update does not see"),
    "loss": (str, "categorical or binary"),
    "fine_tune_blocks": (int, "of 18 blocks, how many from the last learn once the backbone no longer rests"),
    "normalisation": (str, "frozen or live; without it, live if the weights start from none"),
}
DEFAULTS = {
    "epochs": 10,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "freeze_epochs": argparse.SUPPRESS,  # goes by the weights
    "fine_tune_rate": 0.1,
    "rotate": 15.0,
    "shift": 0.1,
    "shear": 0.1,
}
"""Of the settings of training, where a classifier has others than a detector."""
FREEZE_EPOCHS = 5  # of pretrained weights; there is nothing to keep in random ones

_NOT_FOR_CLASSIFIERS = ("mosaic", "multi_scale", "visible_share")


def add_commands(subparsers) -> None:
    """Declare the commands of this file."""
    text = "Cut the faces out of annotated images, into a folder for each class."
    cut = add_command(subparsers, "cut-faces", cut_command, text)
    cut.add_argument("annotations", help="the annotation CSV")
    cut.add_argument("classes", help="classes.csv")
    cut.add_argument("--out", required=True, help="a new or empty folder")
    _add_cutting(cut)

    text = "Train a classifier of faces, on class folders or on faces cut out of annotated images."
    train = add_command(subparsers, "train-classifier", train_classifier_command, text)
    add_source(train)
    train.add_argument("--classes", help="of annotations: classes.csv, whose order counts; else the order in SOURCE")
    train.add_argument("--faces", help="of annotations: folder for the faces that are cut out; OUT_faces if left out")
    _add_cutting(train)
    train.add_argument("--strict", action="store_true", help="refuse files that cannot be used, instead of naming them")
    train.add_argument("--val-share", type=float, default=0.2, help="share of the images for validation")
    group_by = "regular expression with one group: images where it captures the same of the path stay together"
    train.add_argument("--group-by", default="", metavar="PATTERN", help=group_by)
    by_chance = "split single images by chance, copies or not: figures too good, for comparison only"
    train.add_argument("--split-by-chance", action="store_true", help=by_chance)
    train.add_argument("--out", default="snapshots/mask_classifier", help="stem of the snapshots and of the two tables")
    train.add_argument("--resume", action="store_true", help="go on with the run of this --out where it stopped")
    train.add_argument("--tensorboard", metavar="FOLDER", help="also write events for TensorBoard there")
    weights = f"imagenet, none, or an .h5: a backbone's or a snapshot; all but none rest for {FREEZE_EPOCHS} epochs if "
    weights += "--freeze-epochs says nothing else"
    train.add_argument("--weights", default="imagenet", help=weights)
    network = train.add_argument_group("the network; an option that is not given is the classifier's own")
    for name, (kind, text) in NETWORK_OPTIONS.items():
        network.add_argument(f"--{name.replace('_', '-')}", type=kind, default=argparse.SUPPRESS, help=text)
    weights = "how much an image of each class counts, by id, such as 1,2.5; balanced: all classes the same"
    network.add_argument("--class-weights", default="", help=weights)
    add_settings(train, _NOT_FOR_CLASSIFIERS, **DEFAULTS)


def add_source(command: argparse.ArgumentParser) -> None:
    """Declare where faces come from; `source_format` says what it means."""
    text = "a folder with a folder of images for each class; or annotations, such as annotations.csv"
    command.add_argument("source", metavar="SOURCE", help=text)
    text = "format of the annotations: voc, yolo, coco, createml, csv or open_images; a folder is one of class folders "
    command.add_argument("--from", dest="format", metavar="FORMAT", help=f"{text}and a file tells its own if left out")
    command.add_argument(
        "--images", help="of annotations: folder of the images, if they are not where the annotations say"
    )


def source_format(given: argparse.Namespace) -> str | None:
    """The format that is given, class folders for a folder, ``None`` for a file, which tells it.

    Raises:
        ValueError: ``--from`` names a file, as it once did.
    """
    if given.format and Path(given.format).suffix:
        raise ValueError(
            f"--from is {given.format}, expected the name of a format such as csv; the annotations themselves come "
            f"first: {given.format} --from csv, and for train-classifier --classes classes.csv"
        )
    # Asked for by name: a text file among the images must not make a YOLO data set of class folders.
    return given.format or ("class_folders" if Path(given.source).is_dir() else None)


def _add_cutting(command: argparse.ArgumentParser) -> None:
    margin = "around a face on each side, as a share of its box's longer side"
    command.add_argument("--margin", type=float, default=0.2, help=margin)
    command.add_argument("--least-side", type=int, default=8, help="boxes with fewer pixels are left out")


def cut_command(given: argparse.Namespace) -> None:
    from retinamask.dataset.annotations import count_boxes, read_annotations, read_classes

    classes = read_classes(given.classes)
    cut = _cut(read_annotations(given.annotations, classes), Path(given.annotations).parent, given.out, given, classes)
    print(count_boxes(cut.table, classes)["boxes"].to_string())


def _cut(table, folder: Path, out: str | Path, given: argparse.Namespace, classes: dict[str, int]):
    from retinamask.dataset.crops import cut_faces

    cut = cut_faces(table, folder, out, given.margin, given.least_side, classes)
    _report(cut.left_out)
    print(f"{len(cut.table)} faces are in {cut.folder}; {len(cut.left_out)} left out")
    return cut


def _report(left_out: Iterable[str]) -> None:
    for message in left_out:
        print(message, file=sys.stderr)


def train_classifier_command(given: argparse.Namespace) -> None:
    from retinamask.dataset.face_folders import read_face_folders, split_faces
    from retinamask.evaluation.classify_faces import epoch_accuracy
    from retinamask.evaluation.tensorboard import TensorBoardWatcher
    from retinamask.training.examples import Examples
    from retinamask.training.settings import known_in, settings_of
    from retinamask.training.train import train

    settings = settings_of({"freeze_epochs": 0 if given.weights == "none" else FREEZE_EPOCHS, **known_in(vars(given))})
    out = Path(given.out)
    log_csv = out.with_name(f"{out.name}_log.csv")
    if log_csv.exists() and not given.resume:
        raise ValueError(f"{log_csv} exists; choose another --out, or go on with that run with --resume")
    folder = _folder(given)
    faces = read_face_folders(folder, given.strict)
    _report(faces.left_out)
    parts = split_faces(
        faces.table, folder, given.val_share, settings.seed, given.group_by, by_chance=given.split_by_chance
    )
    print(_split_line(parts, faces.left_out))
    detector = _classifier(given, faces.classes, parts.train)
    evaluate = epoch_accuracy(detector, parts.val, folder)
    watchers = [_keeper_of_tables(parts, folder, out)]
    watchers += [TensorBoardWatcher(given.tensorboard, evaluate)] if given.tensorboard else []
    examples = Examples(parts.train, folder, detector, settings.cache)
    record = {"validation": {"split_by_chance": given.split_by_chance, "images": len(parts.val)}}
    run = {"record": record, "log_csv": log_csv, "resume": given.resume}
    trained = train(examples, settings, out, given.weights, evaluate, watchers, **run)
    if trained.best:  # of several workers, the first's
        print(f"best: {trained.best}\nlast: {trained.last}")


def _folder(given: argparse.Namespace) -> Path:
    """The folder of class folders: the one that is named, or faces that are cut out now or were before."""
    from retinamask.dataset import annotations, formats

    format_name, source = source_format(given), Path(given.source)
    if format_name == "class_folders":
        return source
    faces = Path(given.faces or f"{given.out}_faces")
    if not (given.resume and faces.is_dir()):
        known = annotations.read_classes(given.classes) if given.classes else None
        base = source if source.is_dir() else source.parent
        table, classes, problems = formats.read_mapped([source], base, given.images, known, format_name=format_name)
        _report(map(str, problems))
        _cut(table, base, faces, given, classes)
    return faces


def _keeper_of_tables(parts, folder: Path, out: Path):
    """A watcher that writes both tables when training begins: a run that is refused leaves those of another alone."""
    from retinamask.dataset.annotations import moved, write_annotations
    from retinamask.evaluation.watchers import Watcher

    class KeeperOfTables(Watcher):
        def started(self, run) -> None:
            for name, part in (("train", parts.train), ("val", parts.val)):
                write_annotations(moved(part, folder, out.parent), out.with_name(f"{out.name}_{name}.csv"))

    return KeeperOfTables()


def _split_line(parts, left_out: list[str]) -> str:
    groups = parts.groups.numbers.max() + 1
    return (
        f"{len(parts.train)} images to learn from and {len(parts.val)} for validation, dealt out in {groups} groups; "
        f"{len(left_out)} left out or noted"
    )


def _classifier(given: argparse.Namespace, classes: dict[str, int], table):
    """The classifier that the options ask for, its class weights from the training table if they are to balance."""
    from retinamask import detectors
    from retinamask.detectors.mask_classifier import balanced_weights

    chosen = {name: vars(given)[name] for name in NETWORK_OPTIONS if name in given}
    if "dense" in chosen:
        chosen["dense"] = () if chosen["dense"] == "none" else _numbers("dense", chosen["dense"], int)
    if given.class_weights == "balanced":
        chosen["class_weights"] = balanced_weights(table["class_name"], classes)
    elif given.class_weights:
        chosen["class_weights"] = _numbers("class-weights", given.class_weights, float)
    return detectors.create_for("mask_classifier", classes, given.weights, margin=given.margin, **chosen)


def _numbers(name: str, text: str, kind: type) -> tuple:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--{name} is {text!r}, expected numbers with commas between them, such as 128,64") from None
