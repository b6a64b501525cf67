"""Detect in a video: frames in, drawn frames out, and the table of what was found when; a few frames are in memory."""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from retinamask.dataset.annotations import TRACKED_COLUMNS, make_table, objects
from retinamask.drawing.anonymise import anonymise as hide
from retinamask.drawing.boxes import draw_boxes
from retinamask.drawing.style import INK, PAPER, class_colors, text_font
from retinamask.inference import video_files
from retinamask.inference.detect import Detections, table_rows
from retinamask.inference.tracks import WEAKEST, Tracker
from retinamask.inference.window import Window
from retinamask.progress import track

VIDEO_COLUMNS = [*TRACKED_COLUMNS, "frame", "seconds"]
_ROWS_AT_ONCE = 20_000  # as Python objects, before they become columns, which take a fifth of the memory
_SPEED_BATCHES = 10  # over which the speed is measured


class VideoDetections(NamedTuple):
    """The detections in a video, and how it ended."""

    table: pd.DataFrame  # columns `VIDEO_COLUMNS`; image_path is "clip.mp4#12" for frame 12
    frames: int
    people: dict[int, str]  # class of each person, by the number in the column `track`; see `Tracker`
    remarks: list[str]  # that it was stopped, ended early, is damaged, or has lost its sound
    whole: bool  # False if it ended early or is damaged


def annotate_video(
    predictor,
    source: str | Path | int,
    out_video: str | Path | None = None,
    *,
    name: str | None = None,
    score_threshold: float = 0.5,
    batch_size: int = 4,
    limit: int | None = None,
    tracking: bool = True,
    anonymise: str | None = None,
    show: bool = False,
) -> VideoDetections:
    """Detect in every frame, count everybody once, and write the frames with boxes, labels, counts and speed.

    Ctrl-C ends it early; what was read by then is kept. It is the only end of a webcam without ``limit`` or ``show``.

    Args:
        predictor: a `Predictor` or a `TwoStage`.
        source: a video file, a GIF, or a webcam's number.
        out_video: ``.mp4``, ``.webm``, ``.gif``, ...: the drawn video, with the times of the source; none if left out.
        name: of the video in the table; the file's own if left out.
        score_threshold: keep detections from this score on.
        batch_size: frames per call of the predictor; a webcam's are taken one by one, so that none waits.
        limit: stop after so many frames.
        tracking: number the people, see `Tracker`; it reads weaker boxes too, which are not kept.
        anonymise: ``blur`` or ``pixelate`` the faces that are found in the frames that are drawn; those that tracking
            expects too, which were missed for a moment.
        show: show the drawn frames in a window, too; closing it, q or Esc ends the video.

    Returns:
        The table, one row a box and one row without box for a frame without any; the frames; people; and remarks.

    Raises:
        VideoError: the source cannot be read, has not a single frame, or the drawn video cannot be written or shown.

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
    if show:
        Window.check()
    rows, tables, remarks, done = [], [], [], 0
    finished = deque([(time.perf_counter(), 0)], maxlen=_SPEED_BATCHES + 1)
    with contextlib.ExitStack() as opened:
        video = opened.enter_context(video_files.frames(source))
        name = name or (video.name if video.live else Path(source).name)
        outputs = [opened.enter_context(video_files.video_file(out_video))] if out_video is not None else []
        outputs += [opened.enter_context(contextlib.closing(Window(name)))] if show else []
        seen = _Seen(predictor.class_names, score_threshold, video.rate if tracking else None, anonymise)
        stream, size = islice(video, limit), 1 if video.live else batch_size
        batches = iter(lambda: list(islice(stream, size)), [])
        total = min(filter(None, (video.total, limit)), default=None)
        try:
            for batch in track(batches, "detecting", "frame", total, count=len):
                found = predictor([frame.image_rgb for frame in batch], seen.weakest)
                finished.append((time.perf_counter(), done + len(batch)))
                speed = (finished[-1][1] - finished[0][1]) / (finished[-1][0] - finished[0][0])
                for frame, detections in zip(batch, found, strict=True):
                    its_rows = seen.rows(f"{name}#{frame.number}", frame, detections)
                    rows += [(*row, frame.number, frame.seconds) for row in its_rows]
                    done += 1
                    if outputs:
                        drawn_rgb = seen.drawn(frame, its_rows, speed)
                    for output in outputs:
                        output.write(drawn_rgb, frame.seconds, frame.duration)
                if len(rows) >= _ROWS_AT_ONCE:
                    tables.append(_table(rows, VIDEO_COLUMNS))
                    rows = []
        except KeyboardInterrupt:
            if not done:
                raise
            remarks.append(f"{video.name}: stopped after {done} frames")
        remarks += [video.remark] * bool(video.remark)
        if out_video is not None and video.has_sound:
            remarks.append(f"{video.name}: its sound is left out of {out_video}")
    if rows or not tables:
        tables.append(_table(rows, VIDEO_COLUMNS))
    return VideoDetections(pd.concat(tables, ignore_index=True), done, seen.people, remarks, not video.remark)


def _table(rows: list[tuple], columns: list[str]) -> pd.DataFrame:
    return make_table(rows, columns).astype({"track": "Int64"})


class _Seen:
    """What one video shows, frame by frame."""

    def __init__(self, class_names: list[str], score_threshold: float, rate: float | None, anonymise: str | None):
        """``rate`` in frames per second is for tracking, or `None`."""
        self._names, self._threshold, self._how = class_names, score_threshold, anonymise
        self._tracker = Tracker(score_threshold, rate) if rate else None
        self.weakest = min(WEAKEST, score_threshold) if rate else score_threshold
        self._drawing, self._hidden_xyxy = None, None

    @property
    def people(self) -> dict[int, str]:
        found = self._tracker.class_of if self._tracker else {}
        return {number: self._names[label] for number, label in found.items()}

    def rows(self, path: str, frame: video_files.Frame, detections: Detections) -> list[tuple]:
        """Return the rows of the next frame, of `TRACKED_COLUMNS`."""
        strong = detections.scores >= self._threshold
        numbers, self._hidden_xyxy = np.zeros(len(strong), int), detections.boxes_xyxy[strong]
        if self._tracker:
            numbers = self._tracker(detections, frame.seconds, frame.image_rgb.shape[1::-1])
            every = self._hidden_xyxy, detections.boxes_xyxy[numbers > 0], self._tracker.expected_xyxy
            self._hidden_xyxy = np.concatenate(every)
        kept = Detections(*(column[strong] for column in detections[:3]))
        tracks = [number or None for number in numbers[strong].tolist()] or [None]
        return [(*row, track) for row, track in zip(table_rows(path, kept, self._names), tracks, strict=True)]

    def drawn(self, frame: video_files.Frame, rows: list[tuple], speed: float) -> np.ndarray:
        """Return the frame that these are the rows of, drawn."""
        if not self._drawing:
            classes = {name: label for label, name in enumerate(self._names)}
            self._drawing = FrameDrawing(classes, frame.image_rgb.shape[1::-1], bool(self._tracker))
        image_rgb = hide(frame.image_rgb, self._hidden_xyxy, self._how) if self._how else frame.image_rgb
        boxes = objects(_table(rows, TRACKED_COLUMNS))
        return self._drawing(image_rgb, boxes, frame.seconds, speed, Counter(self.people.values()))


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


def when_visible(table: pd.DataFrame, people: dict[int, str]) -> pd.DataFrame:
    """Find when each person was seen in frames without a break.

    Args:
        table: of `VideoDetections`.
        people: of `VideoDetections`.

    Returns:
        One row per spell: ``track``, ``class_name`` (of the person), ``first`` and ``last``, in seconds.
    """
    boxes = table[table["track"].notna()].astype({"track": int}).sort_values(["track", "frame"])
    new = (boxes["track"].diff() != 0) | (boxes["frame"].diff() > 1)
    spells = boxes.groupby(new.cumsum()).agg(
        track=("track", "first"), first=("seconds", "min"), last=("seconds", "max")
    )
    return spells.assign(class_name=spells["track"].map(people))


class FrameDrawing:
    """Draw frames of one video with boxes and, below, where it hides no face, a bar of numbers in fixed places."""

    def __init__(self, classes: dict[str, int], size_wh: tuple[int, int], tracked: bool = False):
        """``tracked``: show beside the boxes of a class in the frame how many people of it there were so far."""
        self._tracked = tracked
        self._classes, self._colors = classes, class_colors(classes)
        self._font = text_font(max(11, max(size_wh) / 50))
        gap, self._right = self._font.size, size_wh[0] - self._font.size / 2
        left, line, self._places = gap / 2, 0, []
        longest = [dict.fromkeys(classes, count) for count in (999, 9999)]
        for text, _, color in self._entries(longest[0], 35999, 999, longest[1]):
            width = self._font.getlength(text) + (1.2 * gap if color else 0)
            if self._places and left + width > self._right:
                left, line = gap / 2, line + 1
            self._places.append((left, line))
            left += width + gap
        self._line_height = round(1.7 * self._font.size)
        self._bar_height = (line + 1) * self._line_height

    def _entries(self, counts, seconds: float, speed: float, people) -> list[tuple[str, str, str | None]]:
        """Return each entry of the bar, what is shown of it where it is too long, and the color of its swatch."""
        minutes, tenths = divmod(int(seconds * 10), 600)
        clock = f"{minutes}:{tenths // 10:02}.{tenths % 10}"
        entries = []
        for name, color in self._colors.items():
            long = short = str(counts.get(name, 0))
            if self._tracked:
                long, short = f"{long}, so far {people[name]}", f"{long}/{people[name]}"
            entries.append((f"{' '.join(name.split())} {long}", short, color))
        return [*entries, (clock, clock, None), (f"{speed:.1f} frames/s", f"{speed:.1f}/s", None)]

    def __call__(
        self,
        image_rgb: np.ndarray,
        boxes: pd.DataFrame,
        seconds: float,
        speed: float,
        people: Counter | None = None,
    ) -> np.ndarray:
        """Return the frame, ``uint8`` RGB, with the bar.

        Args:
            image_rgb: the frame.
            boxes: the detections in it.
            seconds: when it is shown.
            speed: in frames worked through per second.
            people: how many there were so far, by class.
        """
        drawn = draw_boxes(image_rgb, boxes, self._classes)
        canvas = Image.new("RGB", (drawn.width, drawn.height + self._bar_height), INK)
        canvas.paste(drawn)
        draw, side = ImageDraw.Draw(canvas), 0.8 * self._font.size
        entries = self._entries(boxes["class_name"].value_counts(), seconds, speed, people)
        for (text, short, color), (left, line) in zip(entries, self._places, strict=True):
            middle = drawn.height + (line + 0.5) * self._line_height
            if color:
                draw.rectangle((left, middle - side / 2, left + side, middle + side / 2), fill=color)
                left += 1.5 * side
            text = text if left + self._font.getlength(text) <= drawn.width else short
            draw.text((left, middle), text, fill=PAPER, font=self._font, anchor="lm")
        return np.asarray(canvas)
