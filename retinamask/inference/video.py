"""Detect in a video: frames in, drawn frames out, and the table of what was found when.

Any `Predictor` does, one-stage or two-stage. Pictures are worked through a few at a time, so that the length does not
matter; what grows is the table, by about a hundred bytes a box.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from retinamask.dataset import files
from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table, objects
from retinamask.evaluation.video_drawing import FrameDrawing
from retinamask.inference import video_files, video_source
from retinamask.inference.detect import Detections, table_rows
from retinamask.inference.video_source import Frame, Frames

VIDEO_COLUMNS = [*DETECTION_COLUMNS, "frame", "seconds"]
_ROWS_AT_ONCE = 20_000  # as Python objects, before they become columns
_PACE_BATCHES = 10  # over which the speed is measured


class VideoDetections(NamedTuple):
    """What was found in a video, and how the video ended."""

    table: pd.DataFrame  # columns `VIDEO_COLUMNS`; image_path is "clip.mp4#12" for frame 12
    frames: int
    remarks: list[str]  # that it ended early, or was stopped


def annotate_video(
    predictor,
    source: str | Path | int,
    out_video: str | Path | None = None,
    *,
    name: str | None = None,
    score_threshold: float = 0.5,
    batch_size: int = 4,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> VideoDetections:
    """Detect in every frame and write the frames with boxes, labels, counts and speed.

    Ctrl-C ends it early; what was read by then is kept. It is the only end of a webcam without ``limit``.

    Args:
        predictor: has ``class_names`` and makes a list of `Detections` of a list of ``uint8`` RGB images.
        source: a video file, a GIF, or a webcam's number.
        out_video: ``.mp4``, ``.webm``, ``.gif``, ...: the drawn video, as fast as the source; none if left out.
        name: of the video in the table; the file's own if left out.
        score_threshold: keep detections from this score on.
        batch_size: frames per call of the predictor; a webcam's are taken one by one, so that none waits.
        limit: stop after so many frames.
        progress: called with how many frames are done.

    Returns:
        The table, one row a box and one row without box for a frame without any; the frames; and remarks.

    Raises:
        VideoError: the source cannot be read, has not a single frame, or the drawn video cannot be written.
    """
    _check(score_threshold, batch_size, limit)
    if out_video is not None:
        video_files.check_name(out_video)
    rows, done, remarks = _Rows(), 0, []
    with video_source.frames(source) as video, contextlib.ExitStack() as stack:
        name = name or (video.name if video.live else Path(source).name)
        writer = stack.enter_context(video_files.video_file(out_video, video.rate)) if out_video is not None else None
        look = _look(predictor, video, name, writer, score_threshold, 1 if video.live else batch_size, limit)
        try:
            for found in look:
                rows.add(found)
                done += len({row[-2] for row in found})
                if progress:
                    progress(done)
        except KeyboardInterrupt:
            if not done:
                raise
            remarks.append(f"{video.name}: stopped after {done} frames")
        remarks += [video.remark] * bool(video.remark)
    return VideoDetections(rows.table(), done, remarks)


def counts_by_frame(table: pd.DataFrame, classes: Iterable[str]) -> pd.DataFrame:
    """How many boxes of each class every frame has.

    Args:
        table: of `VideoDetections`.
        classes: names, the columns of the result in this order.

    Returns:
        One row per frame, indexed by ``frame`` and ``seconds``; one column of whole numbers per class.
    """
    every = pd.MultiIndex.from_frame(table[["frame", "seconds"]].drop_duplicates())
    boxes = objects(table)
    counts = boxes.groupby(["frame", "seconds", "class_name"]).size().unstack("class_name", fill_value=0)
    return counts.reindex(index=every, columns=pd.Index(classes), fill_value=0).astype(int)


def write_counts(counts: pd.DataFrame, path: str | Path) -> None:
    """Write `counts_by_frame` as a CSV with the header ``frame,seconds,<class>,...``; seconds to the millisecond."""
    rounded = counts.set_axis(
        pd.MultiIndex.from_arrays(
            [counts.index.get_level_values("frame"), counts.index.get_level_values("seconds").to_numpy().round(3)],
            names=counts.index.names,
        )
    )
    files.write_text(path, rounded.to_csv(lineterminator="\n"))


def _check(score_threshold: float, batch_size: int, limit: int | None) -> None:
    if not 0 <= score_threshold <= 1 or batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(
            f"score_threshold is {score_threshold}, batch_size {batch_size} and limit {limit}, "
            "expected 0 to 1, at least 1 and at least 1"
        )


def _look(
    predictor,
    video: Frames,
    name: str,
    writer: video_files.VideoFile | None,
    score_threshold: float,
    batch_size: int,
    limit: int | None,
) -> Iterator[list[tuple]]:
    """Detect in batches of frames, write them drawn, and yield their rows in the order of `VIDEO_COLUMNS`."""
    classes = {class_name: label for label, class_name in enumerate(predictor.class_names)}
    draw, pace, stream = None, _Pace(), islice(video, limit)
    while batch := list(islice(stream, batch_size)):
        found = predictor([np.ascontiguousarray(frame.image_rgb) for frame in batch], score_threshold)
        rows = [
            _rows_of(frame, detections, name, predictor.class_names)
            for frame, detections in zip(batch, found, strict=True)
        ]
        rate = pace.after(len(batch))
        for frame, its_rows in zip(batch, rows, strict=True) if writer else ():
            draw = draw or FrameDrawing(classes, frame.image_rgb.shape[1::-1])
            boxes = objects(make_table(its_rows, VIDEO_COLUMNS))
            writer.write(draw(frame.image_rgb, boxes, frame.seconds, rate), frame.until)
        yield [row for its_rows in rows for row in its_rows]


def _rows_of(frame: Frame, detections: Detections, name: str, class_names: list[str]) -> list[tuple]:
    rows = table_rows(f"{name}#{frame.number}", detections, class_names)
    return [(*row, frame.number, frame.seconds) for row in rows]


class _Rows:
    """A growing table: rows are packed into columns from time to time, which take a fifth of the memory."""

    def __init__(self):
        self._packed, self._loose = [], []

    def add(self, rows: list[tuple]) -> None:
        self._loose += rows
        if len(self._loose) >= _ROWS_AT_ONCE:
            self._pack()

    def table(self) -> pd.DataFrame:
        self._pack()
        return pd.concat(self._packed, ignore_index=True)

    def _pack(self) -> None:
        if self._loose or not self._packed:
            self._packed.append(make_table(self._loose, VIDEO_COLUMNS))
        self._loose = []


class _Pace:
    """How many frames a second are worked through, reading and drawing included, over the last few batches."""

    def __init__(self):
        self._past = deque([(time.perf_counter(), 0)], maxlen=_PACE_BATCHES + 1)

    def after(self, count: int) -> float:
        """The speed now that ``count`` more frames are done."""
        now, (start, before) = time.perf_counter(), self._past[0]
        total = self._past[-1][1] + count
        self._past.append((now, total))
        return (total - before) / max(now - start, 1e-9)
