"""Commands on snapshots: convert, detect, evaluate.

Each command calls the functions that the notebooks call. Imports stand inside the functions, so that a command
starts only what it needs.
"""

import sys
from pathlib import Path

from retinamask.commands import videos
from retinamask.commands.parsing import add_command, refuse_existing
from retinamask.commands.predictors import add_predictor_options, load_predictor, refuse_predictor_options


def add_commands(subparsers) -> None:
    """Declare the commands of this file."""
    convert = add_command(subparsers, "convert", convert_command, "Convert a training snapshot for inference.")
    convert.add_argument("snapshot", help=".h5 or .json of a training snapshot")
    convert.add_argument("--out", help=".h5 to write; SNAPSHOT_inference.h5 if left out")
    convert.add_argument("--score-threshold", type=float, default=0.05, help="weaker boxes are dropped before NMS")
    convert.add_argument("--nms-threshold", type=float, default=0.5, help="IoU from which the weaker box goes")

    theirs = convert.add_argument_group("for an .h5 of keras-retinanet's own, which has no .json beside it")
    theirs.add_argument("--classes", help="classes.csv of its training")
    theirs.add_argument("--backbone", help="its backbone; ResNets are recognised")
    theirs.add_argument("--image-min-side", type=int, default=800, help="shorter side that it was trained at")
    theirs.add_argument("--image-max-side", type=int, default=1333, help="longer side at most")

    detect = add_command(subparsers, "detect", detect_command, "Detect in images or a video; write a detections CSV.")
    detect.add_argument("sources", nargs="+", metavar="SOURCE", help="images, folders of images, or one video")
    detect.add_argument("--snapshot", required=True, help="snapshot of either kind")
    detect.add_argument("--out", default="detections.csv", help="rows path,x1,y1,x2,y2,class_name,score")
    detect.add_argument("--score-threshold", type=float, default=0.5, help="keep detections from this score on")
    detect.add_argument("--batch-size", type=int, default=4, help="images per network call")
    detect.add_argument("--force", action="store_true", help="replace existing files")
    add_predictor_options(detect)
    videos.add_video_options(detect)

    evaluate = add_command(subparsers, "evaluate", evaluate_command, "The twelve COCO figures, and per class.")
    evaluate.add_argument("annotations", help="CSV of the held-out images")
    evaluate.add_argument("classes", help="classes.csv")
    judged = evaluate.add_mutually_exclusive_group(required=True)
    judged.add_argument("--snapshot", help="snapshot of either kind to run on the images")
    judged.add_argument("--detections", help="detections CSV to judge instead")
    evaluate.add_argument("--out", help="also write the figures to this JSON file")
    evaluate.add_argument("--force", action="store_true", help="replace an existing JSON file")
    add_predictor_options(evaluate)


def convert_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.detectors import snapshots
    from retinamask.inference.convert import adopt, convert

    weights = Path(given.snapshot).with_suffix(".h5")
    if given.classes and not weights.with_suffix(".json").exists():
        sides = (given.image_min_side, given.image_max_side)
        snapshot = adopt(weights, annotations.read_classes(given.classes), given.backbone, *sides)
        print(f"adopted: {snapshot}")
        if snapshot.kind == "inference":
            print("it was converted before; its own thresholds stay, --out and the thresholds given here do not apply")
            return
    else:
        snapshot = snapshots.read(weights)
    print(f"converted: {convert(snapshot, given.out, given.score_threshold, given.nms_threshold)}")


def detect_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.dataset.image_files import find_images
    from retinamask.inference.detect import detect

    out = Path(given.out)
    refuse_existing(out, given.force)
    if (video := videos.the_video(given)) is not None:
        videos.check_outputs(given)
        return videos.detect_in_video(given, video, load_predictor(given))
    paths, notes = find_images(given.sources, out.parent)
    for note in notes:
        print(f"left out: {note}", file=sys.stderr)
    predictor = load_predictor(given)
    table, unreadable = detect(predictor, paths, out.parent, given.score_threshold, given.batch_size)
    for message in unreadable:
        print(f"left out: {message}", file=sys.stderr)
    annotations.write_detections(table, out)
    found = len(annotations.objects(table))
    print(f"{found} detections in {len(paths) - len(unreadable)} images, {len(unreadable)} unreadable: {out}")


def evaluate_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.detectors import snapshots
    from retinamask.evaluation import coco
    from retinamask.inference.detect import detect

    if given.out:
        refuse_existing(Path(given.out), given.force)
    if given.detections:
        refuse_predictor_options(given, "of --detections, which were made before")
    classes = annotations.read_classes(given.classes)
    table = annotations.read_annotations(given.annotations, classes)
    if given.detections:
        detections = annotations.read_detections(given.detections)
        detections = annotations.moved(detections, Path(given.detections).parent, Path(given.annotations).parent)
    else:
        snapshot = snapshots.read(given.snapshot)
        snapshots.check_classes(snapshot, classes)
        paths, folder = annotations.image_paths(table), Path(given.annotations).parent
        detections, unreadable = detect(load_predictor(given), paths, folder)
        for message in unreadable:
            print(f"counted as without detections: {message}", file=sys.stderr)
    metrics = coco.evaluate(table, detections, classes)
    print(*coco.remarks(detections), sep="\n", file=sys.stderr)
    print(coco.metrics_table(metrics).to_string(index=False))
    for name, figures in metrics["per_class"].items():
        print(name, figures)
    if given.out:
        coco.write_metrics(metrics, given.out)
