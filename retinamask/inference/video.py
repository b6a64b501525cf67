"""Detect in a video: frames in, drawn frames out, and the table of what was found when; a few frames are in memory."""

import contextlib
import time
from collections import deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table, objects
from retinamask.drawing.boxes import draw_boxes
from retinamask.drawing.style import INK, PAPER, class_colors, text_font
from retinamask.inference import video_files
from retinamask.inference.detect import table_rows
from retinamask.progress import track

VIDEO_COLUMNS = [*DETECTION_COLUMNS, "frame", "seconds"]
_ROWS_AT_ONCE = 20_000  # as Python objects, before they become columns, which take a fifth of the memory
_SPEED_BATCHES = 10  # over which the speed is measured


class VideoDetections(NamedTuple):
    """The detections in a video, and how it ended."""

    table: pd.DataFrame  # columns `VIDEO_COLUMNS`; image_path is "clip.mp4#12" for frame 12
    frames: int
    remarks: list[str]  # that it was stopped, ended early, is damaged, or has lost its sound


def annotate_video(
    predictor,
    source: str | Path | int,
    out_video: str | Path | None = None,
    *,
    name: str | None = None,
    score_threshold: float = 0.5,
    batch_size: int = 4,
    limit: int | None = None,
) -> VideoDetections:
    """Detect in every frame and write the frames with boxes, labels, counts and speed.

    Ctrl-C ends it early; what was read by then is kept. It is the only end of a webcam without ``limit``.

    Args:
        predictor: a `Predictor` or a `TwoStage`.
        source: a video file, a GIF, or a webcam's number.
        out_video: ``.mp4``, ``.webm``, ``.gif``, ...: the drawn video, with the times of the source; none if left out.
        name: of the video in the table; the file's own if left out.
        score_threshold: keep detections from this score on.
        batch_size: frames per call of the predictor; a webcam's are taken one by one, so that none waits.
        limit: stop after so many frames.

    Returns:
        The table, one row a box and one row without box for a frame without any; the frames; and remarks.

    Raises:
        VideoError: the source cannot be read, has not a single frame, or the drawn video cannot be written.

    Example:
        >>> rm.annotate_video(rm.load("snapshots/mine_best.h5").predictor, "clip.mp4", "drawn.mp4")
    """
    if not 0 <= score_threshold <= 1 or batch_size < 1 or (limit is not None and limit < 1):
        raise ValueError(
            f"score_threshold is {score_threshold}, batch_size {batch_size} and limit {limit}, "
            "expected 0 to 1, at least 1 and at least 1"
        )
    if out_video is not None:
        video_files.check_name(out_video)
    class_ids = {class_name: label for label, class_name in enumerate(predictor.class_names)}
    rows, tables, remarks, done, drawing = [], [], [], 0, None
    finished = deque([(time.perf_counter(), 0)], maxlen=_SPEED_BATCHES + 1)
    output = video_files.video_file(out_video) if out_video is not None else contextlib.nullcontext()
    with video_files.frames(source) as video, output as writer:
        name = name or (video.name if video.live else Path(source).name)
        stream, size = islice(video, limit), 1 if video.live else batch_size
        batches = iter(lambda: list(islice(stream, size)), [])
        total = min(filter(None, (video.total, limit)), default=None)
        try:
            for batch in track(batches, "detecting", "frame", total, count=len):
                found = predictor([frame.image_rgb for frame in batch], score_threshold)
                finished.append((time.perf_counter(), done + len(batch)))
                speed = (finished[-1][1] - finished[0][1]) / (finished[-1][0] - finished[0][0])
                for frame, detections in zip(batch, found, strict=True):
                    its_rows = table_rows(f"{name}#{frame.number}", detections, predictor.class_names)
                    if writer:
                        drawing = drawing or FrameDrawing(class_ids, frame.image_rgb.shape[1::-1])
                        boxes = objects(make_table(its_rows, DETECTION_COLUMNS))
                        drawn_rgb = drawing(frame.image_rgb, boxes, frame.seconds, speed)
                        writer.write(drawn_rgb, frame.seconds, frame.duration)
                    rows += [(*row, frame.number, frame.seconds) for row in its_rows]
                    done += 1
                if len(rows) >= _ROWS_AT_ONCE:
                    tables.append(make_table(rows, VIDEO_COLUMNS))
                    rows = []
        except KeyboardInterrupt:
            if not done:
                raise
            remarks.append(f"{video.name}: stopped after {done} frames")
        remarks += [video.remark] * bool(video.remark)
        if writer and video.has_sound:
            remarks.append(f"{video.name}: its sound is left out of {out_video}")
    if rows or not tables:
        tables.append(make_table(rows, VIDEO_COLUMNS))
    return VideoDetections(pd.concat(tables, ignore_index=True), done, remarks)


def counts_by_frame(table: pd.DataFrame, classes: Iterable[str]) -> pd.DataFrame:
    """Count the boxes of each class in every frame.

    Args:
        table: of `VideoDetections`.
        classes: names, the columns of the result in this order.

    Returns:
        One row per frame, indexed by ``frame`` and ``seconds``, to the millisecond; one column of whole numbers per
        class.
    """
    table = table.assign(seconds=table["seconds"].round(3))
    every = pd.MultiIndex.from_frame(table[["frame", "seconds"]].drop_duplicates())
    boxes = objects(table)
    counts = boxes.groupby(["frame", "seconds", "class_name"]).size().unstack("class_name", fill_value=0)
    return counts.reindex(index=every, columns=pd.Index(classes), fill_value=0).astype(int)


class FrameDrawing:
    """Draw frames of one video with boxes and, below, where it hides no face, a bar of numbers in fixed places."""

    def __init__(self, classes: dict[str, int], size_wh: tuple[int, int]):
        self._classes, self._colors = classes, class_colors(classes)
        self._font = text_font(max(11, max(size_wh) / 50))
        gap, self._right = self._font.size, size_wh[0] - self._font.size / 2
        left, line, self._places = gap / 2, 0, []
        for text, _, color in self._entries(dict.fromkeys(classes, 999), 35999, 999):  # the longest there may be
            width = self._font.getlength(text) + (1.2 * gap if color else 0)
            if self._places and left + width > self._right:
                left, line = gap / 2, line + 1
            self._places.append((left, line))
            left += width + gap
        self._line_height = round(1.7 * self._font.size)
        self._bar_height = (line + 1) * self._line_height

    def _entries(self, counts, seconds: float, speed: float) -> list[tuple[str, str, str | None]]:
        """Return each entry of the bar, what is shown of it where it is too long, and the color of its swatch."""
        minutes, tenths = divmod(int(seconds * 10), 600)
        clock = f"{minutes}:{tenths // 10:02}.{tenths % 10}"
        named = [(name, counts.get(name, 0), color) for name, color in self._colors.items()]
        entries = [(f"{' '.join(name.split())} {count}", str(count), color) for name, count, color in named]
        return [*entries, (clock, clock, None), (f"{speed:.1f} frames/s", f"{speed:.1f}/s", None)]

    def __call__(self, image_rgb: np.ndarray, boxes: pd.DataFrame, seconds: float, speed: float) -> np.ndarray:
        """Return the frame, ``uint8`` RGB, with the bar; ``speed`` is in frames worked through per second."""
        drawn = draw_boxes(image_rgb, boxes, self._classes)
        canvas = Image.new("RGB", (drawn.width, drawn.height + self._bar_height), INK)
        canvas.paste(drawn)
        draw, side = ImageDraw.Draw(canvas), 0.8 * self._font.size
        entries = self._entries(boxes["class_name"].value_counts(), seconds, speed)
        for (text, short, color), (left, line) in zip(entries, self._places, strict=True):
            middle = drawn.height + (line + 0.5) * self._line_height
            if color:
                draw.rectangle((left, middle - side / 2, left + side, middle + side / 2), fill=color)
                left += 1.5 * side
            text = text if left + self._font.getlength(text) <= drawn.width else short
            draw.text((left, middle), text, fill=PAPER, font=self._font, anchor="lm")
        return np.asarray(canvas)
