"""Frames of a video file, a GIF or a webcam, one at a time, so that a video of any length fits into memory.

PyAV, which is FFmpeg, reads files and gives the times that they hold; OpenCV reads webcams.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.stream import Disposition
from PIL import Image, ImageSequence

VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".gif"),
    *(".3gp", ".flv", ".mts", ".ogv", ".ts"),
)
USUAL_RATE = 25  # frames per second where a file or camera gives neither times nor rate


class VideoError(ValueError):
    """A video cannot be read or written; the message says which, why and what to do."""


class Frame(NamedTuple):
    """An upright picture, shown ``seconds`` after the start for ``duration`` seconds; ``number`` counts from 0."""

    number: int
    seconds: float
    duration: float  # of use for the last frame alone; where the file gives none, that of the frame before
    image_rgb: np.ndarray  # uint8, (height, width, 3)


@dataclass
class Frames:
    """The frames of an open video, to iterate over once, and what is known about it."""

    name: str  # for messages and tables
    read: Callable[["Frames"], Iterator[Frame]]
    live: bool = False  # has no end of its own
    total: int | None = None  # frames that the file announces
    has_sound: bool = False
    remark: str = ""  # once iterated to the end: what was damaged or missing

    def __iter__(self) -> Iterator[Frame]:
        frame = None
        for frame in self.read(self):
            yield frame
        if frame is None:
            raise VideoError(f"{self.name}: not a single frame can be read; expected a video with pictures")


@contextlib.contextmanager
def frames(source: str | Path | int) -> Iterator[Frames]:
    """Open a video file, a GIF, or a webcam by its index (0, 1, ...; as a number or as text).

    Of a file named like a number, ``./0`` is the file and ``0`` the webcam.

    Raises:
        VideoError: there is no such file or webcam, or it is no video; while iterating: it has no frame.
    """
    index = webcam_index(source)
    if index is not None:
        with _opened_webcam(index) as capture:
            yield Frames(f"webcam{index}", functools.partial(_webcam_frames, capture=capture), live=True)
        return
    if not Path(source).is_file():
        raise VideoError(f"{source} does not exist or is no file; expected a video file or a webcam's number such as 0")
    try:
        # Without "file:" a colon in a name would start an address; titles may be in any encoding.
        container = av.open(f"file:{source}", metadata_errors="replace")
    except av.FFmpegError as error:
        found = error.strerror if Path(source).stat().st_size else "the file is empty"
        raise VideoError(f"{source}: no readable video ({found}); it may be cut short, damaged or no video") from None
    with container:
        kinds = [stream.type for stream in container.streams]
        # A song's cover is a video stream too, of one attached picture.
        streams = [stream for stream in container.streams.video if Disposition.attached_pic not in stream.disposition]
        if not streams or not streams[0].codec_context:
            found = "a codec that FFmpeg lacks" if streams else ", ".join(kinds) or "nothing"
            raise VideoError(f"{source}: no readable video (found {found}); expected moving pictures")
        read = functools.partial(_file_frames, container=container, stream=streams[0])
        yield Frames(str(source), read, total=streams[0].frames or None, has_sound="audio" in kinds)


def webcam_index(source: str | Path | int) -> int | None:
    """Return the webcam that is meant, ``None`` if a file is."""
    text = str(source)
    return int(text) if text.isascii() and text.isdigit() else None


def is_video(source: str | Path | int) -> bool:
    """Return whether a source is a webcam's number or is named like a video file."""
    return webcam_index(source) is not None or Path(source).suffix.lower() in VIDEO_EXTENSIONS


def _file_frames(video: Frames, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Frame]:
    stream.thread_type = "AUTO"
    kind, step = container.format.name, 1 / float(stream.average_rate or USUAL_RATE)
    # AVI knows no times of display, only an order of pictures, of which the first is shown at once.
    zero = None if kind == "avi" else (container.start_time or 0) / av.time_base
    number, seconds, duration, damaged = 0, -step, 0.0, 0
    packets = container.demux(stream)
    while True:
        try:
            decoded = next(packets).decode()
        except StopIteration:
            break
        except av.FFmpegError:
            damaged += 1
            continue
        for frame in decoded:
            before, ticks = seconds, frame.dts if kind == "avi" else frame.pts
            stamp = None if ticks is None else float(ticks * frame.time_base)
            zero = stamp if zero is None else zero
            seconds = before + step if stamp is None else stamp - zero
            if seconds < before:  # the clock was set back, as where two recordings were joined
                seconds = before + step
                zero = stamp - seconds
            known = frame.duration and stream.average_rate  # without a rate FFmpeg makes durations up
            duration = float(frame.duration * frame.time_base) if known else seconds - before
            upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            damaged += frame.is_corrupt
            yield Frame(number, seconds, duration, np.ascontiguousarray(upright))
            number += 1
    if kind == "gif":
        damaged += _gif_is_damaged(video.name)
    if kind == "avi":  # whose duration FFmpeg takes down to that of a file that is cut short
        announced = stream.frames * step
    elif stream.duration:
        announced = float(stream.duration * stream.time_base)
    else:
        announced = (container.duration or 0) / av.time_base
    end = seconds + duration
    if end < 0.95 * announced - 2 * step:  # the sound may be a little longer than the pictures
        remark = f"ends after {number} frames, {end:.1f} of {announced:.1f} seconds; it may be cut short"
        video.remark = f"{video.name}: {remark}"
    elif damaged:
        remark = f"{number} frames read; damaged in {damaged} place(s), where some are lost or blurred"
        video.remark = f"{video.name}: {remark}"


def _gif_is_damaged(path: str) -> bool:
    """Ask Pillow, since FFmpeg reads a broken GIF up to the fault and says nothing."""
    try:
        with Image.open(path) as image:
            for _ in ImageSequence.Iterator(image):
                image.load()
    except Exception:  # whatever damage makes Pillow raise
        return True
    return False


@contextlib.contextmanager
def _opened_webcam(index: int) -> Iterator[cv2.VideoCapture]:
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the message below says it better
    capture = cv2.VideoCapture(index)
    cv2.utils.logging.setLogLevel(before)
    if not capture.isOpened():
        raise VideoError(
            f"webcam {index} cannot be opened; check that it is plugged in, that no other program uses it and that "
            "this one may, or try another number"
        )
    try:
        yield capture
    finally:
        capture.release()


def _webcam_frames(video: Frames, capture: cv2.VideoCapture) -> Iterator[Frame]:
    """Yield frames with the times at which they come; those that come while the caller is busy are lost."""
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # rather the newest picture than a queue of old ones
    number, start, before = 0, None, -1 / USUAL_RATE
    while (read := capture.read())[0]:
        now = time.monotonic()
        start = now if start is None else start
        seconds = now - start
        yield Frame(number, seconds, seconds - before, np.ascontiguousarray(read[1][..., ::-1]))
        number, before = number + 1, seconds
    video.remark = f"{video.name}: stopped giving pictures after {number} frames"
