"""Commands on classifiers of faces: cut faces out of annotated images, train a classifier, judge it."""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from retinamask.commands import add_command
from retinamask.commands.detect import numbers
from retinamask.commands.training import add_network_settings, add_settings, settings_given
from retinamask.dataset.files import refuse_existing

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
FIGURES = "figures.json"


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
    _add_source(train)
    train.add_argument("--classes", help="of annotations: classes.csv, whose order counts; else the order in SOURCE")
    train.add_argument("--faces", help="of annotations: folder for the faces that are cut out; OUT_faces if left out")
    _add_cutting(train)
    train.add_argument("--val-share", type=float, default=0.2, help="share of the images for validation")
    text = "regular expression with one group: images where it captures the same of the path stay together"
    train.add_argument("--group-by", default="", metavar="PATTERN", help=text)
    text = "split single images by chance, copies or not: figures too good, for comparison only"
    train.add_argument("--split-by-chance", action="store_true", help=text)
    train.add_argument("--out", default="snapshots/mask_classifier", help="stem of the snapshots and of the two tables")
    train.add_argument("--resume", action="store_true", help="resume the run of this --out where it stopped")
    train.add_argument("--tensorboard", metavar="FOLDER", help="also write events for TensorBoard there")
    text = "imagenet, none, or an .h5: a backbone's or a snapshot; all but none are frozen for "
    text += f"{FREEZE_EPOCHS} epochs unless --freeze-epochs is given"
    train.add_argument("--weights", default="imagenet", help=text)
    add_network_settings(train, ["mask_classifier"], left_out=("class_weights", "margin"))
    text = "how much an image of each class counts, by id, such as 1,2.5; balanced: all classes the same"
    train.add_argument("--class-weights", default="", help=text)
    add_settings(train, ("mosaic", "multi_scale", "visible_share"), **DEFAULTS)

    text = "Evaluate a mask classifier on class folders or on the boxes of a table: figures, curves, and its mistakes."
    judge = add_command(subparsers, "evaluate-classifier", evaluate_classifier_command, text)
    _add_source(judge)
    judge.add_argument("--snapshot", required=True, nargs="+", help="snapshot of a classifier; several are averaged")
    judge.add_argument("--flip", action="store_true", help="also mirror each face, and average both answers")
    text = "of evaluate --fit-boxes: look at faces as the face detector finds them, where whole heads are annotated"
    judge.add_argument("--box-fit", type=numbers, default=(), metavar="R,D,W,H", help=text)
    judge.add_argument("--threshold", type=float, default=0.5, help="of the probability of --threshold-class")
    text = "class that a face is taken for from --threshold on; the most likely class if left out"
    judge.add_argument("--threshold-class", help=text)
    judge.add_argument("--class-map", help="rename or join classes: Mask=with_mask,NoMask=without_mask")
    judge.add_argument("--out", help=f"folder for {FIGURES}, predictions.csv and the pictures")
    judge.add_argument("--count", type=int, default=24, help="faces in each grid")
    judge.add_argument("--force", action="store_true", help="replace what is in the folder")


def _add_source(command: argparse.ArgumentParser) -> None:
    text = "a folder with a folder of images for each class; or annotations, such as annotations.csv"
    command.add_argument("source", metavar="SOURCE", help=text)
    text = "format of the annotations, as of the command annotations; a folder is one of class folders "
    command.add_argument("--from", dest="format", metavar="FORMAT", help=f"{text}and a file tells its own if left out")
    command.add_argument("--images", help="of annotations: folder of the images, if not where these say")
    command.add_argument("--strict", action="store_true", help="refuse files that cannot be used, instead of skipping")


def _add_cutting(command: argparse.ArgumentParser) -> None:
    margin = "around a face on each side, as a share of its box's longer side"
    command.add_argument("--margin", type=float, default=0.2, help=margin)
    command.add_argument("--least-side", type=int, default=8, help="boxes with fewer pixels are left out")


def _read(given: argparse.Namespace, known: dict[str, int] | None, class_map: str | None = None) -> tuple:
    """Return SOURCE's table, its folder, classes and problems; a folder holds class folders unless a format is given.

    Its format is named, since a text file among the images must not make a YOLO data set of class folders.
    """
    from retinamask.dataset import formats

    if given.format and Path(given.format).suffix:
        raise ValueError(
            f"--from is {given.format}, expected the name of a format such as csv; the annotations themselves come "
            f"first: {given.format} --from csv, and for train-classifier --classes classes.csv"
        )
    source = Path(given.source)
    folder = source if source.is_dir() else source.parent
    name = given.format or ("class_folders" if source.is_dir() else None)
    options = class_map, given.images, False, name
    table, classes, problems = formats.read_annotations(source, folder, known or {}, *options)
    if source.is_file():  # images beside a table, such as those of its other parts, are not its business
        problems = [problem for problem in problems if not re.search("without .* left out", problem.message)]
    return folder, table, classes, problems


def _report(messages: Iterable[object]) -> None:
    for message in messages:
        print(message, file=sys.stderr)


def cut_command(given: argparse.Namespace) -> None:
    from retinamask.dataset.annotations import count_boxes, read_annotations, read_classes

    classes = read_classes(given.classes)
    table = read_annotations(given.annotations, classes)
    cut = _cut(table, Path(given.annotations).parent, given.out, given, classes)
    print(count_boxes(cut.table, classes)["boxes"].to_string())


def _cut(table, folder: Path, out: str | Path, given: argparse.Namespace, classes: dict[str, int]):
    from retinamask.dataset.faces import cut_faces

    cut = cut_faces(table, folder, out, given.margin, given.least_side, classes)
    _report(cut.left_out)
    print(f"{len(cut.table)} faces are in {cut.folder}; {len(cut.left_out)} left out")
    return cut


def train_classifier_command(given: argparse.Namespace) -> None:
    from retinamask.dataset import annotations
    from retinamask.dataset.faces import read_face_folders, split_faces
    from retinamask.detectors.mask_classifier import balanced_weights
    from retinamask.evaluation.watchers import Watcher
    from retinamask.face import train

    out = Path(given.out)
    log_csv = out.with_name(f"{out.name}_log.csv")
    if log_csv.exists() and not given.resume:
        raise ValueError(f"{log_csv} exists; choose another --out, or resume that run with --resume")
    folder = Path(given.source)
    if given.format not in (None, "class_folders") or not folder.is_dir():
        folder = Path(given.faces or f"{given.out}_faces")
        if not (given.resume and folder.is_dir()):
            known = annotations.read_classes(given.classes) if given.classes else None
            base, table, classes, problems = _read(given, known)
            _report(problems)
            _cut(table, base, folder, given, classes)
    faces = read_face_folders(folder, given.strict)
    _report(faces.left_out)
    by_chance = given.split_by_chance
    parts = split_faces(faces.table, folder, given.val_share, given.seed, given.group_by, by_chance)
    print(
        f"{len(parts.train)} images for training and {len(parts.val)} for validation, in "
        f"{parts.groups.numbers.max() + 1} groups; {len(faces.left_out)} left out or noted"
    )
    settings = settings_given(given, ["mask_classifier"])
    settings.setdefault("freeze_epochs", 0 if given.weights == "none" else FREEZE_EPOCHS)
    if given.class_weights == "balanced":
        settings["class_weights"] = balanced_weights(parts.train["class_name"], faces.classes)

    class Tables(Watcher):  # writes when training begins: a run that is refused leaves those of another alone
        def started(self, run) -> None:
            for name, part in tables.items():
                moved = annotations.moved(part, folder, out.parent)
                annotations.write_annotations(moved, out.with_name(f"{out.name}_{name}.csv"))

    tables = {"train": parts.train, "val": parts.val}
    record = {"validation": {"split_by_chance": by_chance, "images": len(parts.val)}}
    options = {"resume": given.resume, "tensorboard": given.tensorboard, "watchers": [Tables()], "record": record}
    trained = train(tables, faces.classes, "mask_classifier", given.weights, out, folder, **options, **settings)
    if trained.best:  # of several workers, the first's
        print(f"best: {trained.best}\nlast: {trained.last}")


def evaluate_classifier_command(given: argparse.Namespace) -> None:
    from retinamask.dataset import files
    from retinamask.dataset.faces import no_images
    from retinamask.detectors import snapshots
    from retinamask.evaluation import classification
    from retinamask.evaluation.plots import keep
    from retinamask.face import evaluate_classifier

    out = Path(given.out) if given.out else None
    if out:
        refuse_existing(out / FIGURES, given.force)
    if given.count < 1:
        raise ValueError(f"--count is {given.count}, expected at least 1")
    classes = snapshots.read(given.snapshot[0]).classes
    classification.check_threshold(classes, given.threshold, given.threshold_class)  # before the work, not after it
    folder, table, _, problems = _read(given, classes, given.class_map)
    class_folders = Path(given.source).is_dir() and given.format in (None, "class_folders")
    others = no_images(folder) if class_folders else []
    messages = [*others, *map(str, problems)]
    if given.strict and messages:
        raise ValueError("\n".join([f"{given.source} is not sound:", *messages[:20]]))
    _report(messages)
    options = given.threshold, given.threshold_class, given.flip, given.box_fit
    judged = evaluate_classifier(given.snapshot, table, folder, *options)
    _report(judged.faces.left_out)
    lost = [problem for problem in problems if problem.action in ("skipped file", "dropped box")]
    figures = judged.figures | {"left_out": len(others) + len(lost) + len(judged.faces.left_out)}
    print(classification.summary(figures))
    if out:
        for name, figure in judged.pictures(given.count).items():
            keep(figure, out / f"{name}.png")
        rows = judged.faces.table(judged.predicted).to_csv(index=False, lineterminator="\n")
        files.write_text(out / "predictions.csv", rows)
        files.write_json(out / FIGURES, figures)
        print(f"written: {out}")
