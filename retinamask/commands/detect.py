"""The command that detects in images or a video, and the options of what detects, which `evaluate` shares."""

import argparse
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterable
from functools import partial
from glob import has_magic
from pathlib import Path
from typing import Any

from retinamask.commands import add_command
from retinamask.dataset.files import refuse_existing

SHIPPED = "if left out the detector that comes with the project, with --face-detector its mask classifier"
SUPPRESS = ("any_class", "per_class")  # as in `retinamask.inference.suppression`, which loads NumPy
_ANONYMISE = ("blur", "pixelate")  # as in `retinamask.drawing.anonymise`, which loads OpenCV
_TILES = {"nargs": "?", "type": int, "const": True, "metavar": "PX"}
_FIT = "move and scale boxes: right, down, width, height in shares of their sides, from evaluate --fit-boxes"


def numbers(text: str) -> tuple[float, ...]:
    """Read numbers with commas between them."""
    return tuple(float(part) for part in text.split(","))


_NETWORK = {  # option: parameter of `retinamask.model.load`, and of argparse
    "image-size": ("image_size", {"type": int, "metavar": "PX", "help": "side that a detector resizes images to"}),
    "slices": ("slices", _TILES | {"help": "also search large images in tiles (of PX pixels): small faces"}),
    "backend": ("backend", {"choices": ("openvino", "onnxruntime", "litert"), "help": "what runs an export"}),
    "precision": ("precision", {"choices": ("auto", "float32", "bfloat16"), "help": "of an export; auto: the faster"}),
    "box-fit": ("box_fit", {"type": numbers, "metavar": "R,D,W,H", "help": _FIT}),
}
_PREDICTOR = {  # option: parameter of `retinamask.model.load`, type, number of values, its name, help
    "face-detector": ("face_detector", str, None, "NAME", "haar, res10, yunet, yolov4, yolov4_tiny or snapshot (ours)"),
    "face-model": (
        *("face_model", str, "+", "PATH"),
        "its files; if left out those of retinamask fetch res10 or yunet, for snapshot the detector of the project",
    ),
    "face-score-threshold": ("score_threshold", float, None, "T", "weaker faces are dropped"),
    "face-nms-threshold": ("nms_threshold", float, None, "T", "IoU from which the weaker of two faces goes"),
    "face-classes": ("classes", str, "+", "NAME", "classes of yolov4 that are faces"),
    "face-tiling": ("tiling", str, None, "HOW", "large images in tiles: auto, always or never"),
    "margin": ("margin", float, None, "M", "around a face for the classifier; its own if left out"),
}


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
    text = "Detect in images or a video; write a table of detections. Exit status 1: done, but some could not be read."
    detect = add_command(subparsers, "detect", detect_command, text)
    text = "images, folders, 'globs', lists of images (.txt, .lst: a path a line; - on standard input), or one video"
    detect.add_argument("sources", nargs="+", metavar="SOURCE", help=text)
    detect.add_argument("--snapshot", help=f"snapshot, or export: .onnx or .tflite; {SHIPPED}")
    text = (
        ".csv, .parquet or .json, or a new folder with --to; detections.csv if left out, beside an --out-video its .csv"
    )
    detect.add_argument("--out", help=text)
    text = "write that annotation format into the folder --out, without scores"
    detect.add_argument("--to", choices=("voc", "yolo", "coco"), help=text)
    text = "keep detections from this score on; left out, from what suited each class in validation (in a video the "
    text += "lowest of these), or from 0.5"
    detect.add_argument("--score-threshold", type=float, help=text)
    text = "any_class: one box a face, of its best class; per_class: also one for each other class"
    detect.add_argument("--suppress", choices=SUPPRESS, default="any_class", help=text)
    detect.add_argument("--batch-size", type=int, default=4, help="images per network call")
    detect.add_argument("--save-images", metavar="DIR", help="save each image with its boxes drawn, in its folders")
    text = (
        "hide the faces found, in --save-images, which then have no boxes, and in a drawn video; what scores below the "
        "threshold stays visible"
    )
    detect.add_argument("--anonymise", choices=_ANONYMISE, help=text)
    detect.add_argument("--resume", action="store_true", help="resume a run on images that was stopped")
    detect.add_argument("--force", action="store_true", help="replace existing files")
    text = "let the workers of a Dask cluster detect: its scheduler's address, or local for processes on this machine"
    detect.add_argument("--dask", metavar="ADDRESS", help=text)
    add_predictor_options(detect)
    video = detect.add_argument_group("for a video: a file, a GIF, or a webcam by its number, as the only SOURCE")
    video.add_argument("--out-video", help="write it drawn: .mp4, .webm, .mkv, .mov or .gif")
    video.add_argument("--counts", help="write boxes per class and frame to this CSV, and as a figure to a .png beside")
    text = "count everybody once, with a number in the table (column track) and in the drawn video"
    video.add_argument("--track", action=argparse.BooleanOptionalAction, help=f"{text}; on if left out")
    video.add_argument("--show", action="store_true", default=None, help="show it drawn in a window; q or Esc ends")
    video.add_argument("--frames", type=int, help="stop after so many frames; Ctrl-C also ends it and keeps all so far")


def add_predictor_options(command: argparse.ArgumentParser) -> None:
    """Declare the options of a network and of a face detector; ``--snapshot`` is the command's own."""
    group = command.add_argument_group("the network")
    for name, (_, option) in _NETWORK.items():
        group.add_argument(f"--{name}", **option, default=argparse.SUPPRESS)
    add_face_options(command, _PREDICTOR)


def add_face_options(command: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """Declare those options of a face detector that are named."""
    text = "the score is the face's times the class's probability; options left out are the face detector's own"
    group = command.add_argument_group("with a mask classifier", text)
    for name in names:
        _, kind, count, value, text = _PREDICTOR[name]
        option = {"type": kind, "nargs": count, "metavar": value, "help": text, "default": argparse.SUPPRESS}
        group.add_argument(f"--{name}", **option)


def predictor_options(given) -> dict[str, Any]:
    """Return the options of a network and a face detector that are given, by their names."""
    every = (*_NETWORK, *_PREDICTOR)
    return {name: getattr(given, key) for name in every if (key := name.replace("-", "_")) in given}


def refuse_options(names: Iterable[str], reason: str) -> None:
    """Raise `ValueError` if an option is given where it has no effect."""
    for name in names:
        raise ValueError(f"--{name.replace('_', '-')} has no effect {reason}")


def load_predictor(given):
    """Load the predictor that the options name, see `retinamask.model.load`."""
    from retinamask.inference.box_fit import Fitted
    from retinamask.model import load

    options = predictor_options(given)
    if "face-detector" not in options:
        refuse_options(set(options) & set(_PREDICTOR), "without --face-detector NAME")
    named = {(_NETWORK | _PREDICTOR)[name][0]: value for name, value in options.items()}
    predictor = load(given.snapshot, **named).predictor
    return Fitted(predictor, thresholds=given.thresholds) if "thresholds" in given else predictor


def read_snapshot(given):
    """Read the snapshot that is named, or take the one that comes with the project."""
    from retinamask.detectors import snapshots

    shipped = "mask_classifier" if "face_detector" in given else "mask_detector"
    given.snapshot = given.snapshot or snapshots.shipped(shipped)
    snapshot = snapshots.read(given.snapshot)
    return snapshot.at(given.image_size) if "image_size" in given and not snapshot.classifies else snapshot


def _snapshot_of(given):
    """Read the snapshot, and take its thresholds if none is given."""
    snapshot = read_snapshot(given)
    if given.score_threshold is None:
        most = 0.5 if given.anonymise else 1.0  # rather hide too much
        thresholds = {name: min(most, least) for name, least in snapshot.thresholds.items()}
        given.score_threshold = min(thresholds.values())
        if given.score_threshold < max(thresholds.values()):
            given.thresholds = thresholds
    return snapshot


def _print_what_detected(given) -> None:
    """Print the model's file and from which score on its boxes were kept."""
    if "thresholds" in given:
        each = ", ".join(f"{name} {least:g}" for name, least in given.thresholds.items())
        print(f"{given.snapshot}, score thresholds that suited its validation images: {each}")
    else:
        print(f"{given.snapshot}, score threshold {given.score_threshold:g}")


def detect_command(given) -> int:
    from retinamask.dataset.image_files import expand, images_in
    from retinamask.inference.detect_in_parts import detect_in_parts, drawn_paths, finished_run
    from retinamask.inference.video_files import is_video

    videos = [
        source
        for source in given.sources
        if is_video(source) and not (Path(source).is_dir() or (has_magic(source) and not Path(source).exists()))
    ]
    if videos:
        return _detect_in_video(given, videos[0])
    out = Path(given.out or "detections.csv")
    parts = out.with_name(f"{out.name}.parts")
    if not (given.resume and out.exists() and finished_run(out).exists()):
        _check_out(given, out)
    used = [name for name in ("out_video", "counts", "frames", "track", "show") if getattr(given, name) is not None]
    used = ["no_track" if name == "track" and not given.track else name for name in used]
    refuse_options(used, f"on images, only on a video: a file or a webcam's number; found {', '.join(given.sources)}")
    refuse_options(["anonymise"] if given.anonymise and not given.save_images else [], "without --save-images DIR")
    places, notes = expand(given.sources)
    paths, more = images_in(places, out.parent)
    notes += more
    for note in notes:
        print(f"left out: {note}", file=sys.stderr)
    run = {"weights_sha256": _snapshot_of(given).record["weights_sha256"], **predictor_options(given)}
    run |= {"save_images": given.save_images, "anonymise": given.anonymise}
    run |= {"thresholds": given.thresholds} if "thresholds" in given else {}
    drawn = drawn_paths(places, paths, out.parent, given.save_images) if given.save_images else {}
    options = {name: getattr(given, name) for name in ("resume", "force", "score_threshold", "suppress", "batch_size")}
    options |= {"to": given.to, "hide": given.anonymise}
    try:
        with contextlib.ExitStack() as stack:
            load = (lambda: _on_dask(given, stack)) if given.dask else (lambda: load_predictor(given))
            found = detect_in_parts(load, paths, out, run, drawn, **options)
    except (KeyboardInterrupt, OSError) as error:
        kept = f"{parts} keeps what is done, --resume continues from there"
        message = kept if any(parts.glob("part-*")) else "nothing was done that could be kept"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"stopped; {message}") from None
        raise OSError(f"{out} is not finished ({error}); {message}") from None
    if not found:
        print(f"{out} is finished already, by a run on the same images with the same snapshot and options")
        return 0
    for problem in found.unreadable:
        print(f"left out: {problem}", file=sys.stderr)
    _print_what_detected(given)
    faces = [f"{name} {count}" for name, count in found.faces.items()]
    without = f"{found.without} image{'s' * (found.without != 1)} without a face"
    print(f"{len(paths)} images: {', '.join([*faces, without, f'{len(found.unreadable)} unreadable'])}: {out}")
    if found.thin:
        print(f"{found.thin} of less than a pixel, which {given.to} cannot hold, are not in it")
    if not found.faces.total():
        print(f"nothing at or above {given.score_threshold:g}; the best score was {found.best_score:.2g}")
    if notes:
        print(f"{len(notes)} remark{'s' * (len(notes) != 1)} above on files that were left out")
    return 1 if found.unreadable else 0


def _check_out(given, out: Path) -> None:
    """Refuse what cannot be written to ``out``, before anything is loaded."""
    from retinamask.dataset.annotations import check_ending

    if not given.to:
        if out.is_dir():
            raise ValueError(f"{out} is a folder; add --to voc, yolo or coco, or name a file")
        check_ending(out)
        return refuse_existing(out, given.force)
    if out.suffix.lower() in (".csv", ".parquet", ".json"):
        raise ValueError(f"--to {given.to} writes a folder; choose another --out than {out}")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out} exists; --to {given.to} writes into a new or empty folder, choose another --out")


def _on_dask(given, stack: contextlib.ExitStack) -> Any:
    """Connect to the workers that are to load the predictor; the connection ends with ``stack``."""
    from retinamask.detectors import snapshots
    from retinamask.inference.detect_on_dask import Workers, connected

    local = {"command", "parser", "sources"}  # cannot be sent, or need not
    sent = argparse.Namespace(**{name: value for name, value in vars(given).items() if name not in local})
    sent.snapshot = os.path.abspath(given.snapshot)
    if "face_model" in sent:
        sent.face_model = [os.path.abspath(path) for path in sent.face_model]
    snapshot = snapshots.read(given.snapshot)
    key = f"{snapshot.record['weights_sha256']} {sent}"
    client = stack.enter_context(connected(given.dask))
    return Workers(client, partial(load_predictor, sent), key, snapshot.weights, list(snapshot.classes))


def _detect_in_video(given, source: str) -> int:
    from retinamask.dataset import annotations, files
    from retinamask.evaluation.plots import counts_over_time, keep
    from retinamask.inference.video import annotate_video, counts_by_frame, when_visible
    from retinamask.inference.video_files import webcam_index
    from retinamask.inference.window import Window

    if len(given.sources) > 1:
        raise ValueError(f"{source} is a video or webcam and has to be the only source; detect in the others apart")
    for_images = [name for name in ("save_images", "resume", "to", "dask") if getattr(given, name)]
    refuse_options([*for_images, *["suppress"] * (given.suppress != "any_class")], "on a video, only on images")
    if given.anonymise and not (given.out_video or given.show):
        refuse_options(["anonymise"], "on a video without --out-video or --show")
    annotations.check_ending(given.out or "detections.csv")
    figure = Path(given.counts).with_suffix(".png") if given.counts else None
    table_csv = given.out or (Path(given.out_video).with_suffix(".csv") if given.out_video else "detections.csv")
    named = (("--out", table_csv), ("--out-video", given.out_video), ("--counts", given.counts), ("--counts", figure))
    outputs = {Path(path): option for option, path in named if path}
    everything = [Path(path).resolve() for path in (source, *(path for _, path in named if path))]
    for path in everything:
        if everything.count(path) > 1:
            raise ValueError(f"{path} is named twice, as source or output; choose another name for one of them")
    for path, option in outputs.items():
        refuse_existing(path, given.force, option)
        path.parent.mkdir(parents=True, exist_ok=True)
    name = None if webcam_index(source) is not None else annotations.relative_path(source, Path(table_csv).parent)
    if given.show:
        Window.check()
    _snapshot_of(given)
    given.__dict__.pop("thresholds", None)  # a track has one threshold, the lowest of them
    options = {"name": name, "limit": given.frames, "show": bool(given.show), "tracking": given.track is not False}
    options |= {key: getattr(given, key) for key in ("score_threshold", "batch_size", "anonymise")}
    predictor = load_predictor(given)
    found = annotate_video(predictor, source, given.out_video, **options)
    for remark in found.remarks:
        print(remark, file=sys.stderr)
    annotations.write_detections(found.table, table_csv, annotations.TRACKED_COLUMNS)
    if given.counts:
        counts = counts_by_frame(found.table, predictor.class_names)
        files.write_text(given.counts, counts.to_csv(lineterminator="\n"))
        keep(counts_over_time(counts, when_visible(found.table, found.people)), figure)
    _print_what_detected(given)
    boxes = len(annotations.objects(found.table))
    print(f"{boxes} detections in {found.frames} frames: {', '.join(map(str, outputs))}")
    if options["tracking"]:
        people = Counter(found.people.values())
        every = [f"{class_name} {people[class_name]}" for class_name in predictor.class_names]
        print(f"{len(found.people)} {'person' if len(found.people) == 1 else 'people'}: {', '.join(every)}")
    return 0 if found.whole else 1
