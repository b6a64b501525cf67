"""Commands on snapshots: convert, export, evaluate and compare."""

import argparse
import sys
from math import isnan
from pathlib import Path

from retinamask.commands import add_command
from retinamask.commands.detect import (
    SHIPPED,
    SUPPRESS,
    add_face_options,
    add_predictor_options,
    load_predictor,
    predictor_options,
    read_snapshot,
    refuse_options,
)
from retinamask.dataset.files import refuse_existing

_SHOWN = {"index": False, "float_format": "{:.3f}".format, "na_rep": "-"}  # of tables


def add_commands(subparsers) -> None:
    """Declare the commands of this file."""
    convert = add_command(subparsers, "convert", convert_command, "Convert a training snapshot for inference.")
    convert.add_argument("snapshot", help=".h5 or .json of a training snapshot")
    convert.add_argument("--out", help=".h5 to write; SNAPSHOT_inference.h5 if left out")
    convert.add_argument("--score-threshold", type=float, default=0.05, help="of the filter that keras-retinanet loads")
    convert.add_argument("--nms-threshold", type=float, default=0.5, help="IoU from which the weaker box goes")
    theirs = convert.add_argument_group("for an .h5 of keras-retinanet's own, which has no .json beside it")
    theirs.add_argument("--classes", help="classes.csv of its training")
    theirs.add_argument("--backbone", help="its backbone; ResNets are recognised")
    theirs.add_argument("--image-min-side", type=int, default=800, help="shorter side that it was trained at")
    theirs.add_argument("--image-max-side", type=int, default=1333, help="longer side at most")

    text = "Export a snapshot to one file that runs without TensorFlow, and compare both on images."
    export = add_command(subparsers, "export", export_command, text)
    export.add_argument("snapshot", help="training or inference snapshot, of a detector or a classifier")
    export.add_argument("--to", choices=("onnx", "litert"), default="onnx", help="every runtime, or phones and boards")
    text = "int8: a quarter of the bytes and several times faster; boxes move a little"
    export.add_argument("--precision", choices=("float32", "int8"), default="float32", help=text)
    export.add_argument("--annotations", metavar="CSV", help="training images; int8 is calibrated on a sample of them")
    text = "held-out images: snapshot and export are compared on them, and score thresholds of a detector chosen; for "
    text += "float32 either CSV will do"
    export.add_argument("--val-annotations", metavar="CSV", help=text)
    export.add_argument("--image-size", type=int, help="side of the network's input; the snapshot's if left out")
    export.add_argument("--out", help="file to write; beside the snapshot if left out")
    export.add_argument("--force", action="store_true", help="write it even if it finds less, and replace a file")

    text = "Evaluate detections: the twelve COCO figures, also per class."
    evaluate = add_command(subparsers, "evaluate", evaluate_command, text)
    evaluate.add_argument("annotations", help="CSV of the held-out images")
    evaluate.add_argument("classes", help="classes.csv")
    judged = evaluate.add_mutually_exclusive_group()
    judged.add_argument("--snapshot", help=f"snapshot or export (.onnx, .tflite) to run on the images; {SHIPPED}")
    judged.add_argument("--detections", help="detections CSV to judge instead")
    text = "detections from this score on count; average precision needs the weak ones (0.05 if left out)"
    evaluate.add_argument("--score-threshold", type=float, default=argparse.SUPPRESS, help=text)
    text = "per_class, as COCO counts (if left out), or any_class, the boxes that detect shows"
    evaluate.add_argument("--suppress", choices=SUPPRESS, default=argparse.SUPPRESS, help=text)
    text = "training images: learn on them how boxes must move and grow to be those of this data set"
    evaluate.add_argument("--fit-boxes", metavar="CSV", help=text)
    text = "judge also on pictures that the snapshot or the fit learnt from, and say so; they are refused if left out"
    evaluate.add_argument("--allow-leak", action="store_true", help=text)
    evaluate.add_argument("--out", help="also write the figures to this JSON file")
    evaluate.add_argument("--force", action="store_true", help="replace an existing JSON file")
    add_predictor_options(evaluate)

    text = "Compare detectors on the same images: average precision, speed, memory and size; a table and a figure."
    compare = add_command(subparsers, "compare", compare_command, text)
    text = "snapshot or export, or the folder of a run, for its newest snapshot"
    compare.add_argument("models", nargs="+", metavar="RUN_OR_SNAPSHOT", help=text)
    compare.add_argument("--annotations", required=True, metavar="CSV", help="images to compare them on")
    compare.add_argument("--classes", required=True, metavar="CSV", help="classes.csv")
    text = "training images: learn on them for each how boxes must move and grow to be those of this data set"
    compare.add_argument("--fit-boxes", metavar="CSV", help=text)
    compare.add_argument("--out", default="runs/leaderboard", help="folder for leaderboard.csv, .md, .png and images")
    compare.add_argument("--passes", type=int, default=5, help="how often each is timed, in turns")
    compare.add_argument("--snapshots-dir", default="snapshots", help="where the snapshots of runs are")
    text = "compare also on pictures that one was trained on, and say so; they are refused if left out"
    compare.add_argument("--allow-leak", action="store_true", help=text)
    compare.add_argument("--force", action="store_true", help="replace an earlier leaderboard")
    add_face_options(compare, ["face-detector", "face-model"])


def convert_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.detectors import snapshots
    from retinamask.inference.convert import adopt, convert

    weights = Path(given.snapshot)
    if given.classes and weights.suffix == ".h5" and not weights.with_suffix(".json").exists():
        sides = given.image_min_side, given.image_max_side
        snapshot = adopt(weights, annotations.read_classes(given.classes), given.backbone, *sides)
        print(f"adopted: {snapshot}")
        if snapshot.kind == "inference":
            print("it was converted before; its own thresholds stay, --out and the thresholds given here do not apply")
            return
    else:
        snapshot = snapshots.read(weights)
    print(f"converted: {convert(snapshot, given.out, given.score_threshold, given.nms_threshold)}")


def export_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.detectors import snapshots
    from retinamask.exports import export

    snapshot, tables = snapshots.read(given.snapshot), []
    for csv in (given.annotations, given.val_annotations):
        table = annotations.read_annotations(csv, snapshot.classes) if csv else None
        tables.append(table if table is None else annotations.moved(table, Path(csv).parent, "."))
    options = {"out": given.out, "image_size": given.image_size, "force": given.force}
    made = export(snapshot, given.to, given.precision, train=tables[0], val=tables[1], **options)
    check = made.record["export"]["check"]
    print(f"exported: {made}, {made.weights.stat().st_size / 1e6:.1f} MB")
    print("compared: " + ", ".join(f"{name} {_shown(value)}" for name, value in check.items()))


def _shown(value) -> str:
    return " -> ".join(map(_shown, value)) if isinstance(value, list) else f"{value:.4g}"


def evaluate_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.detectors import snapshots
    from retinamask.evaluation.evaluate import evaluate
    from retinamask.evaluation.leaks import find_leaks
    from retinamask.inference.detect import detect

    if given.out:
        refuse_existing(Path(given.out), given.force)
    options = {name: vars(given)[name] for name in ("score_threshold", "suppress") if name in given}
    used = {"box_fit": given.box_fit} if "box_fit" in given else {}
    if given.detections:
        more = [name for name in ("fit_boxes", "allow_leak") if getattr(given, name)]
        refuse_options([*options, *more, *predictor_options(given)], "on --detections, which were made before")
    if given.fit_boxes:
        refuse_options(used, "with --fit-boxes, which learns it")
    classes = annotations.read_classes(given.classes)
    table = annotations.read_annotations(given.annotations, classes)
    paths, folder = annotations.image_paths(table), Path(given.annotations).parent
    remarks, detector, thresholds = [], None, None
    if given.detections:
        remarks = ["what made the detections is not known: copies of its training pictures cannot be checked"]
        detections = annotations.read_detections(given.detections)
        detections = annotations.moved(detections, Path(given.detections).parent, folder)
    else:
        snapshot = read_snapshot(given)
        if snapshot.classes.keys() != classes.keys():  # their order does not matter: tables have names
            snapshots.check_classes(snapshot, classes)
        thresholds = snapshot.thresholds
        faces = None
        if "face_detector" in given and given.face_detector == "snapshot":
            shipped = "face_model" not in given
            faces = snapshots.read(snapshots.shipped("mask_detector") if shipped else given.face_model[0])
        used["leaked_images"], remarks = find_leaks(snapshot, table, folder, given.allow_leak, faces)
        options = {"score_threshold": 0.05, "suppress": "per_class", **options}
        predictor = load_predictor(given)
        detector = getattr(predictor, "detector", None)  # a face detector and tiles have their own sizes
        if given.fit_boxes:
            predictor, fit_leaks = _fit_to_table(given, predictor, table)
            used |= {"box_fit": predictor.box_fit, "box_fit_leaked_images": fit_leaks.images}
            remarks += fit_leaks.remarks
        detections, unreadable = detect(predictor, paths, folder, **options)
        for message in unreadable:
            print(f"counted as without detections: {message}", file=sys.stderr)
        made = f"detections from score {options['score_threshold']:g} on, suppressed {options['suppress']}"
        print(f"{snapshot.weights}: {made}")
    metrics = evaluate(detections, table, classes, folder, thresholds)
    for remark in remarks + metrics.remarks:
        print(remark, file=sys.stderr)
    _print_figures(metrics, "of the snapshot" if thresholds else "of the best F1 on these very images")
    if detector:
        print("\nby the side of faces in pixels of the network's input:")
        sizes = metrics.size_table(folder, detector)
        print(sizes.to_string(**_SHOWN, formatters={"to": "{:g}".format}))
    print("", "what mending each cause alone would bring in AP50:", metrics.gains.to_string(**_SHOWN), sep="\n")
    if given.out:
        metrics.save(given.out, **used)


def _print_figures(metrics, chosen: str) -> None:
    """Print the twelve figures and those of each class; ``chosen`` says where the score thresholds come from."""
    for figure in metrics.table().itertuples():
        interval = "" if isnan(figure.low) else f"{figure.low:.3f} to {figure.high:.3f}"
        value = "-" if isnan(figure.value) else format(figure.value, ".3f")
        print(f"{figure.name:<6} {value:>5}  {interval:<15}  {figure.meaning}")
    print("", f"by class, score thresholds {chosen}:", metrics.class_table().to_string(**_SHOWN), sep="\n")


def _fit_to_table(given, predictor, judged):
    """Fit boxes to ``--fit-boxes``, which must show other pictures than the judged table; return that and the leaks."""
    from retinamask.dataset import annotations
    from retinamask.dataset.copies import hash_images
    from retinamask.evaluation.leaks import find_pictures
    from retinamask.inference.box_fit import fit_predictor

    training, folder = annotations.read_annotations(given.fit_boxes), Path(given.fit_boxes).parent
    known = hash_images(annotations.image_paths(training), folder).upright
    leaks = find_pictures(known, "boxes were fitted", judged, Path(given.annotations).parent, given.allow_leak)
    fitted, unreadable = fit_predictor(predictor, training, folder)
    for message in unreadable:
        print(f"boxes were not fitted to: {message}", file=sys.stderr)
    print(f"boxes fitted to those of {given.fit_boxes}: --box-fit {fitted.box_fit}")
    return fitted, leaks


def compare_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.evaluation.leaderboard import FILES, leaderboard
    from retinamask.runs.enter import NotebookRun

    for name in FILES:
        refuse_existing(Path(given.out, name), given.force)
    classes = annotations.read_classes(given.classes)
    table = annotations.read_annotations(given.annotations, classes)
    models = [
        NotebookRun({"run_dir": path}).snapshot("", given.snapshots_dir, "training", "inference")
        if Path(path).is_dir()
        else path
        for path in given.models
    ]
    folder, options = Path(given.annotations).parent, {"passes": given.passes, "allow_leak": given.allow_leak}
    options |= {name.replace("-", "_"): value for name, value in predictor_options(given).items()}
    if given.fit_boxes:
        fit_table = annotations.read_annotations(given.fit_boxes)
        options["fit_table"] = annotations.moved(fit_table, Path(given.fit_boxes).parent, folder)
    board = leaderboard(models, table, classes, folder, **options)
    board.save(given.out)
    print(board.markdown(), end="")
