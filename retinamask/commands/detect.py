"""The command that detects in images or a video, and the options of what detects, which `evaluate` shares.

Functions import what they need, so that a command starts quickly.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from retinamask.commands.parsing import add_command, refuse_existing

SUPPRESS = ("any_class", "per_class")  # as in `retinamask.inference.suppression`, which loads NumPy
_PREDICTOR = {  # option: parameter of `retinamask.model.load`, type, number of values, its name, help
    "face-detector": ("face_detector", str, None, "NAME", "haar, res10, yunet, yolov4, yolov4_tiny or snapshot (ours)"),
    "face-model": ("face_model", str, "+", "PATH", "its files; those of retinamask fetch res10 or yunet if left out"),
    "face-score-threshold": ("score_threshold", float, None, "T", "weaker faces are dropped"),
    "face-nms-threshold": ("nms_threshold", float, None, "T", "IoU from which the weaker of two faces goes"),
    "face-classes": ("classes", str, "+", "NAME", "classes of yolov4 that are faces"),
    "face-tiling": ("tiling", str, None, "HOW", "large images in tiles: auto, always or never"),
    "margin": ("margin", float, None, "M", "around a face for the classifier; its own if left out"),
    "box-margin": ("box_margin", float, None, "M", "enlarge boxes, in shares of their sides"),
}


def add_commands(subparsers) -> None:
    """Declare the command of this file."""
    detect = add_command(subparsers, "detect", detect_command, "Detect in images or a video; write a detections CSV.")
    detect.add_argument("sources", nargs="+", metavar="SOURCE", help="images, folders of images, or one video")
    detect.add_argument("--snapshot", required=True, help="training or inference snapshot")
    text = "rows path,x1,y1,x2,y2,class_name,score; detections.csv if left out, beside an --out-video its .csv"
    detect.add_argument("--out", help=text)
    detect.add_argument("--score-threshold", type=float, default=0.5, help="keep detections from this score on")
    text = "any_class: one box a face, of its best class; per_class: also one for each other class"
    detect.add_argument("--suppress", choices=SUPPRESS, default="any_class", help=text)
    detect.add_argument("--batch-size", type=int, default=4, help="images per network call")
    detect.add_argument("--save-images", metavar="DIR", help="save each image with its boxes drawn, in its folders")
    detect.add_argument("--resume", action="store_true", help="resume a run on images that was stopped")
    detect.add_argument("--force", action="store_true", help="replace existing files")
    text = "let the workers of a Dask cluster detect: its scheduler's address, or local for processes on this machine"
    detect.add_argument("--dask", metavar="ADDRESS", help=text)
    add_predictor_options(detect)
    video = detect.add_argument_group("for a video: a file, a GIF, or a webcam by its number, as the only SOURCE")
    video.add_argument("--out-video", help="write it drawn: .mp4, .webm, .mkv, .mov or .gif")
    video.add_argument("--counts", help="write boxes per class and frame to this CSV, and as a figure to a .png beside")
    video.add_argument("--frames", type=int, help="stop after so many frames; Ctrl-C also ends it and keeps all so far")


def add_predictor_options(command: argparse.ArgumentParser) -> None:
    """Declare the options of a face detector; ``--snapshot`` is the command's own."""
    text = "the score is the face's times the class's probability; options left out are the face detector's own"
    group = command.add_argument_group("with the snapshot of a mask classifier", text)
    for name, (_, kind, count, value, text) in _PREDICTOR.items():
        option = {"type": kind, "nargs": count, "metavar": value, "help": text, "default": argparse.SUPPRESS}
        group.add_argument(f"--{name}", **option)


def predictor_options(given) -> dict[str, Any]:
    """Return the options of a face detector that are given, by their names."""
    return {name: getattr(given, key) for name in _PREDICTOR if (key := name.replace("-", "_")) in given}


def refuse_options(names: Iterable[str], reason: str) -> None:
    """Raise `ValueError` if an option is given where it has no effect."""
    for name in names:
        raise ValueError(f"--{name.replace('_', '-')} has no effect {reason}")


def load_predictor(given):
    """Load the predictor that the options name, see `retinamask.model.load`."""
    from retinamask.model import load

    options = predictor_options(given)
    if "face-detector" not in options:
        refuse_options(options, "without --face-detector NAME")
    return load(given.snapshot, **{_PREDICTOR[name][0]: value for name, value in options.items()}).predictor


def detect_command(given) -> None:
    from retinamask.dataset.image_files import find_images
    from retinamask.detectors import snapshots
    from retinamask.inference.detect_in_parts import detect_in_parts, drawn_paths
    from retinamask.inference.detect_on_dask import Workers
    from retinamask.inference.video_files import is_video

    videos = [source for source in given.sources if not Path(source).is_dir() and is_video(source)]
    if videos:
        return _detect_in_video(given, videos[0])
    out = Path(given.out or "detections.csv")
    parts = out.with_name(f"{out.name}.parts")
    if given.resume and out.exists() and not any(parts.glob("part-*")):
        print(f"{out} is finished, nothing to resume")
        return None
    refuse_existing(out, given.force)
    used = [name for name in ("out_video", "counts", "frames") if getattr(given, name) is not None]
    refuse_options(used, f"on images, only on a video: a file or a webcam's number; found {', '.join(given.sources)}")
    paths, notes = find_images(given.sources, out.parent)
    for note in notes:
        print(f"left out: {note}", file=sys.stderr)
    run = {"weights_sha256": snapshots.read(given.snapshot).record["weights_sha256"], **predictor_options(given)}
    run |= {"save_images": given.save_images}
    drawn = drawn_paths(given.sources, paths, out.parent, given.save_images) if given.save_images else {}
    options = {name: getattr(given, name) for name in ("resume", "force", "score_threshold", "suppress", "batch_size")}
    if given.dask:
        options["write_parts"] = Workers.write_parts
    try:
        with contextlib.ExitStack() as stack:
            load = (lambda: _on_dask(given, stack)) if given.dask else (lambda: load_predictor(given))
            found = detect_in_parts(load, paths, out, run, drawn, **options)
    except KeyboardInterrupt:
        kept = f"{parts} keeps what is done, --resume continues from there"
        message = kept if any(parts.glob("part-*")) else "nothing was done that could be kept"
        raise KeyboardInterrupt(f"stopped; {message}") from None
    for problem in found.unreadable:
        print(f"left out: {problem}", file=sys.stderr)
    faces = [f"{name} {count}" for name, count in found.faces.items()]
    without = f"{found.without} image{'s' * (found.without != 1)} without a face"
    print(f"{len(paths)} images: {', '.join([*faces, without, f'{len(found.unreadable)} unreadable'])}: {out}")
    if not found.faces.total():
        print(f"nothing at or above {given.score_threshold:g}; the best score was {found.best_score:.2g}")
    if notes:
        print(f"{len(notes)} remark{'s' * (len(notes) != 1)} above on files that were left out")


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


def _detect_in_video(given, source: str) -> None:
    from retinamask.dataset import annotations, files
    from retinamask.evaluation.plots import counts_over_time, keep
    from retinamask.inference.video import annotate_video, counts_by_frame
    from retinamask.inference.video_files import webcam_index

    if len(given.sources) > 1:
        raise ValueError(f"{source} is a video or webcam and has to be the only source; detect in the others apart")
    for_images = [name for name in ("save_images", "resume", "dask") if getattr(given, name)]
    refuse_options([*for_images, *["suppress"] * (given.suppress != "any_class")], "on a video, only on images")
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
    options = {"name": name, "limit": given.frames}
    options |= {key: getattr(given, key) for key in ("score_threshold", "batch_size")}
    predictor = load_predictor(given)
    found = annotate_video(predictor, source, given.out_video, **options)
    for remark in found.remarks:
        print(remark, file=sys.stderr)
    annotations.write_detections(found.table, table_csv)
    if given.counts:
        counts = counts_by_frame(found.table, predictor.class_names)
        files.write_text(given.counts, counts.to_csv(lineterminator="\n"))
        keep(counts_over_time(counts), figure)
    boxes = len(annotations.objects(found.table))
    print(f"{boxes} detections in {found.frames} frames: {', '.join(map(str, outputs))}")
