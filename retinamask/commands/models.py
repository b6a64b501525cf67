"""Commands on snapshots: convert, detect, evaluate.

Each command calls the functions that the notebooks call. Imports stand inside the functions, so that a command
starts only what it needs.
"""

import argparse
import hashlib
import os
import sys
from collections import Counter
from pathlib import Path

from retinamask.commands import videos
from retinamask.commands.parsing import add_command, refuse_existing
from retinamask.commands.predictors import add_predictor_options, load_predictor, predictor_options, refuse_options

SUPPRESS = ("any_class", "per_class")  # as in `retinamask.inference.suppression`, which loads NumPy


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

    detect = add_command(subparsers, "detect", detect_command, "Detect in images or a video; write a detections CSV.")
    detect.add_argument("sources", nargs="+", metavar="SOURCE", help="images, folders of images, or one video")
    detect.add_argument("--snapshot", required=True, help="snapshot of either kind")
    detect.add_argument("--out", default="detections.csv", help="rows path,x1,y1,x2,y2,class_name,score")
    detect.add_argument("--score-threshold", type=float, default=0.5, help="keep detections from this score on")
    text = "any_class: one box a face, of its best class; per_class: also one for each other class"
    detect.add_argument("--suppress", choices=SUPPRESS, default="any_class", help=text)
    detect.add_argument("--batch-size", type=int, default=4, help="images per network call")
    detect.add_argument("--save-images", metavar="DIR", help="save each image with its boxes drawn, in its folders")
    detect.add_argument("--resume", action="store_true", help="go on with a run on images that was stopped")
    detect.add_argument("--force", action="store_true", help="replace existing files")
    add_predictor_options(detect)
    videos.add_video_options(detect)

    evaluate = add_command(subparsers, "evaluate", evaluate_command, "The twelve COCO figures, and per class.")
    evaluate.add_argument("annotations", help="CSV of the held-out images")
    evaluate.add_argument("classes", help="classes.csv")
    judged = evaluate.add_mutually_exclusive_group(required=True)
    judged.add_argument("--snapshot", help="snapshot of either kind to run on the images")
    judged.add_argument("--detections", help="detections CSV to judge instead")
    text = "detections from this score on count; average precision needs the weak ones (0.05 if left out)"
    evaluate.add_argument("--score-threshold", type=float, default=argparse.SUPPRESS, help=text)
    text = "per_class, as COCO counts (if left out), or any_class, the boxes that detect shows"
    evaluate.add_argument("--suppress", choices=SUPPRESS, default=argparse.SUPPRESS, help=text)
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
    from retinamask.dataset.image_files import find_images

    out = Path(given.out)
    refuse_existing(out, given.force)
    if (video := videos.the_video(given)) is not None:
        for_images = [name for name in ("save_images", "resume") if vars(given)[name]]
        refuse_options([*for_images, *["suppress"] * (given.suppress != "any_class")], "on a video, only on images")
        videos.check_outputs(given)
        return videos.detect_in_video(given, video, load_predictor(given))
    paths, notes = find_images(given.sources, out.parent)
    for note in notes:
        print(f"left out: {note}", file=sys.stderr)
    _detect_in_images(given, paths, out)
    if notes:
        print(f"{len(notes)} remarks above on files that were left out")


def _detect_in_images(given, paths: list[str], out: Path) -> None:
    from retinamask.detectors import snapshots
    from retinamask.inference.detect_in_parts import detect_in_parts, join_parts, parts_of

    # Everything that can be wrong is looked at before the network is loaded.
    drawn = _drawn_files(given, paths, out.parent) if given.save_images else {}
    run = {"weights_sha256": snapshots.read(given.snapshot).record["weights_sha256"], **predictor_options(given)}
    run |= {name: vars(given)[name] for name in ("score_threshold", "suppress", "save_images")}
    run |= {"images": len(paths), "images_sha256": hashlib.sha256("\n".join(paths).encode()).hexdigest()}
    parts = parts_of(out, run, given.resume, given.force)
    if not given.resume:
        for path in drawn.values():
            refuse_existing(path, given.force)
    out.parent.mkdir(parents=True, exist_ok=True)
    predictor = load_predictor(given)
    options = {name: vars(given)[name] for name in ("score_threshold", "batch_size", "suppress")}
    try:
        for seen in detect_in_parts(predictor, paths, out.parent, parts, run, given.resume, **options):
            if seen.problem:
                print(f"left out: {seen.problem}", file=sys.stderr)
            elif drawn:
                _save_drawn(seen, predictor.class_names, drawn[seen.path])
    except KeyboardInterrupt:
        print(f"what is done is kept in {parts}; --resume goes on with it", file=sys.stderr)
        raise
    found = join_parts(parts, out)
    faces = [f"{name} {found.faces[name]}" for name in predictor.class_names]
    without = f"{found.without} image{'s' if found.without != 1 else ''} without a face"
    print(f"{len(paths)} images: {', '.join([*faces, without, f'{len(found.unreadable)} unreadable'])}: {out}")
    if not found.faces:
        print(f"nothing at or above {given.score_threshold:g}; the best score was {found.best_score:.2g}")


def _drawn_files(given, paths: list[str], folder: Path) -> dict[str, Path]:
    """Where each image goes when it is drawn: its folders below what all sources have in common are kept."""
    sources = [Path(os.path.abspath(source)) for source in given.sources]
    folders = [source if source.is_dir() else source.parent for source in sources]
    top, common = Path(os.path.abspath(given.save_images)), os.path.commonpath(folders)
    for source in given.sources:
        if Path(source).is_dir() and Path(os.path.realpath(top)).is_relative_to(os.path.realpath(source)):
            raise ValueError(
                f"--save-images {given.save_images} lies in {source}, where drawn copies would be taken for images the "
                "next time; choose a folder outside"
            )
    drawn: dict[str, Path] = {}
    for path in paths:
        image = Path(os.path.abspath(folder / path))
        target = top / os.path.relpath(image, common)
        if target == image:
            raise ValueError(f"--save-images {given.save_images} would replace {image}; choose another folder")
        if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            target = target.with_name(f"{target.name}.jpg")
        drawn[path] = target
    twice = [path for path, count in Counter(drawn.values()).items() if count > 1]
    if twice:
        raise ValueError(f"two images would be drawn as {twice[0]}; rename one of them")
    return drawn


def _save_drawn(seen, class_names: list[str], path: Path) -> None:
    from retinamask.dataset import files
    from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table
    from retinamask.evaluation.drawing import draw_boxes
    from retinamask.inference.detect import table_rows

    table = make_table(table_rows(seen.path, seen.detections, class_names), DETECTION_COLUMNS)
    classes = {name: label for label, name in enumerate(class_names)}
    with files.replacing(path) as temporary:
        draw_boxes(seen.image_rgb, table, classes).save(temporary, quality=92)


def evaluate_command(given) -> None:
    from retinamask.dataset import annotations
    from retinamask.dataset.copies import copies_remark
    from retinamask.detectors import snapshots
    from retinamask.evaluation import coco
    from retinamask.inference.detect import detect

    if given.out:
        refuse_existing(Path(given.out), given.force)
    options = {name: vars(given)[name] for name in ("score_threshold", "suppress") if name in given}
    if given.detections:
        refuse_options([*options, *predictor_options(given)], "on --detections, which were made before")
    classes = annotations.read_classes(given.classes)
    table = annotations.read_annotations(given.annotations, classes)
    paths, folder = annotations.image_paths(table), Path(given.annotations).parent
    if given.detections:
        detections = annotations.read_detections(given.detections)
        detections = annotations.moved(detections, Path(given.detections).parent, folder)
    else:
        snapshot = snapshots.read(given.snapshot)
        snapshots.check_classes(snapshot, classes)
        options = {"score_threshold": 0.05, "suppress": "per_class", **options}
        detections, unreadable = detect(load_predictor(given), paths, folder, **options)
        for message in unreadable:
            print(f"counted as without detections: {message}", file=sys.stderr)
        print(f"detections from score {options['score_threshold']:g} on, suppressed {options['suppress']}")
    metrics = coco.evaluate(table, detections, classes)
    for remark in (*coco.remarks(detections), *copies_remark(paths, folder)):
        print(remark, file=sys.stderr)
    print(coco.metrics_table(metrics).to_string(index=False))
    for name, figures in metrics["per_class"].items():
        print(name, figures)
    if given.out:
        coco.write_metrics(metrics, given.out)
