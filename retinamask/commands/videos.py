"""What `retinamask detect` does with a video or a webcam; `commands.models` declares and calls it."""

import sys
from argparse import ArgumentParser
from pathlib import Path

from retinamask.commands.parsing import refuse_existing


def add_video_options(detect: ArgumentParser) -> None:
    """Declare what `detect` takes for a video alone."""
    video = detect.add_argument_group("for a video: a file, a GIF, or a webcam by its number, as the only SOURCE")
    video.add_argument("--out-video", help="write it drawn: .mp4, .webm, .mkv, .mov or .gif")
    video.add_argument("--counts", help="write boxes per class and frame to this CSV, and as a figure to a .png beside")
    video.add_argument("--frames", type=int, help="stop after so many frames; Ctrl-C also ends it and keeps all so far")


def the_video(given) -> str | None:
    """The one video among the sources, ``None`` if they are images and folders.

    Raises:
        ValueError: a video has company, or options of a video are given without one.
    """
    from retinamask.inference.video_source import is_video

    videos = [source for source in given.sources if not Path(source).is_dir() and is_video(source)]
    if videos and len(given.sources) > 1:
        raise ValueError(f"{videos[0]} is a video or webcam and has to be the only source; detect in the others apart")
    used = [name for name in ("out_video", "counts", "frames") if getattr(given, name) is not None]
    if used and not videos:
        option = used[0].replace("_", "-")
        raise ValueError(f"--{option} is for a video, found {', '.join(given.sources)}; give a video file or a number")
    return videos[0] if videos else None


def outputs(given) -> list[Path]:
    """The files that detecting in a video writes beside the table."""
    named = [given.out_video, given.counts, given.counts and Path(given.counts).with_suffix(".png")]
    return [Path(path) for path in named if path]


def check_outputs(given) -> None:
    """Raise `ValueError` if an output exists and may not be replaced, or if it is the source or another output."""
    for path in outputs(given):
        refuse_existing(path, given.force)
    everything = [Path(path).resolve() for path in (given.out, *given.sources, *outputs(given))]
    twice = [path for path in everything if everything.count(path) > 1]
    if twice:
        raise ValueError(f"{twice[0]} is named twice, as source or output; choose another name for one of them")


def detect_in_video(given, source: str, predictor) -> None:
    """Detect in a video and write what is asked for."""
    from retinamask.dataset import annotations
    from retinamask.evaluation.plots import keep
    from retinamask.evaluation.video_plots import counts_over_time
    from retinamask.inference.video import annotate_video, counts_by_frame, write_counts
    from retinamask.inference.video_source import webcam_index

    out = Path(given.out)
    name = None if webcam_index(source) is not None else annotations.relative_path(source, out.parent)
    found = annotate_video(
        predictor,
        source,
        given.out_video,
        name=name,
        score_threshold=given.score_threshold,
        batch_size=given.batch_size,
        limit=given.frames,
    )
    for remark in found.remarks:
        print(remark, file=sys.stderr)
    annotations.write_detections(found.table, out)
    if given.counts:
        counts = counts_by_frame(found.table, predictor.class_names)
        write_counts(counts, given.counts)
        keep(counts_over_time(counts), Path(given.counts).with_suffix(".png"))
    boxes = len(annotations.objects(found.table))
    print(f"{boxes} detections in {found.frames} frames: {', '.join(map(str, [out, *outputs(given)]))}")
