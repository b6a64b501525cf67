"""Frames of a video file, a GIF or a webcam, one after the other, so that a film of any length fits into memory.

Below `inference.video`. OpenCV's FFmpeg reads video files and turns them upright as their metadata says; Pillow reads
GIFs, which OpenCV would read without their timing.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageSequence

VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".gif"),
    *(".3gp", ".flv", ".mts", ".ogv", ".ts"),
)
USUAL_RATE = 25.0  # frames per second where a file or camera does not say, or says something impossible
MAX_RATE = 1000.0
GIF_DELAY = 0.1  # seconds that browsers show a GIF's frame that asks for no time at all


class VideoError(ValueError):
    """A video cannot be read or written; the message says which, why and what to do."""


class Frame(NamedTuple):
    """One picture of a video, shown from ``seconds`` until ``until`` after the start; ``number`` counts from 0."""

    number: int
    seconds: float
    until: float
    image_rgb: np.ndarray  # uint8, (height, width, 3)


class Frames:
    """The frames of an open video, to iterate over once, and what is known about it.

    ``name`` is for messages and tables; ``rate`` the frames per second that it announces; ``live`` whether it goes on
    without end; ``remark`` stays empty unless, once iterated to the end, less came than was announced.
    """

    def __init__(self, name: str, rate: float, live: bool, read: Callable[["Frames"], Iterator[Frame]]):
        self.name, self.rate, self.live, self.remark = name, rate, live, ""
        self._read = read

    def __iter__(self) -> Iterator[Frame]:
        number = -1
        for frame in self._read(self):
            number = frame.number
            yield frame
        if number < 0:
            raise VideoError(f"{self.name}: not a single frame can be read; expected a video with pictures")


@contextlib.contextmanager
def frames(source: str | Path | int) -> Iterator[Frames]:
    """Open a video file, a GIF, or a webcam by its index (0, 1, ...; as a number or as text).

    Of a file named like a number, ``./0`` is the file and ``0`` the webcam.

    Raises:
        VideoError: there is no such file or webcam, or it cannot be read as a video; while iterating: it has no frame.
    """
    index = webcam_index(source)
    if index is None and not Path(source).is_file():
        raise VideoError(f"{source} does not exist or is no file; expected a video file or a webcam's number such as 0")
    if index is None and Path(source).suffix.lower() == ".gif":
        with _opened_gif(Path(source)) as image:
            yield Frames(str(source), 1 / _shortest_delay(image), False, lambda video: _gif_frames(video, image))
        return
    capture = _opened_capture(source, index)
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if math.isfinite(rate) and 0 < rate <= MAX_RATE else USUAL_RATE
        if index is None:
            yield Frames(str(source), rate, False, lambda video: _file_frames(video, capture))
        else:
            yield Frames(f"webcam{index}", rate, True, lambda video: _webcam_frames(video, capture))
    finally:
        capture.release()


def webcam_index(source: str | Path | int) -> int | None:
    """The webcam that is meant, ``None`` if a file is."""
    text = str(source)
    return int(text) if text.isascii() and text.isdigit() else None


def is_video(source: str | Path | int) -> bool:
    """Whether a source is a webcam's number or is named like a video file."""
    return webcam_index(source) is not None or Path(source).suffix.lower() in VIDEO_EXTENSIONS


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own log lines away while something is tried that a message of ours explains if it fails."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def _opened_capture(source: str | Path | int, index: int | None) -> cv2.VideoCapture:
    with quiet_opencv():
        # Left to choose, OpenCV would take a name with digits for the first of a series of image files.
        capture = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG) if index is None else cv2.VideoCapture(index)
    if capture.isOpened():
        return capture
    if index is not None:
        raise VideoError(
            f"webcam {index} cannot be opened; check that it is plugged in, that no other program uses it and that "
            "this one may, or try another number"
        )
    size = Path(source).stat().st_size
    found = "the file is empty" if not size else f"OpenCV cannot read these {size:,} bytes"
    raise VideoError(
        f"{source}: no readable video ({found}); it may be cut short, damaged or in a format that FFmpeg does not know"
    )


def _file_frames(video: Frames, capture: cv2.VideoCapture) -> Iterator[Frame]:
    """A file's frames at equal distances; of a file of varying rate the mean is taken, so that its length is right."""
    announced, number = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0
    while (image_bgr := _next_picture(capture)) is not None:
        yield Frame(number, number / video.rate, (number + 1) / video.rate, image_bgr[..., ::-1])
        number += 1
    # Some formats only let FFmpeg estimate how many there are; a frame or a hundredth less is no damage.
    if number < announced - max(1, 0.01 * announced):
        video.remark = f"{video.name}: ends after {number} of {announced:.0f} announced frames; it may be cut short"


def _webcam_frames(video: Frames, capture: cv2.VideoCapture) -> Iterator[Frame]:
    """A webcam's frames at the times when they come; those that come while a caller is busy are lost."""
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # rather the newest picture than a row of old ones
    start, number = None, 0
    while (image_bgr := _next_picture(capture)) is not None:
        now = time.monotonic()
        start = now if start is None else start
        yield Frame(number, now - start, now - start + 1 / video.rate, image_bgr[..., ::-1])
        number += 1
    video.remark = f"{video.name}: stopped giving pictures after {number} frames"


def _next_picture(capture: cv2.VideoCapture) -> np.ndarray | None:
    there, image_bgr = capture.read()
    return image_bgr if there else None


@contextlib.contextmanager
def _opened_gif(path: Path) -> Iterator[Image.Image]:
    try:
        image = Image.open(path, formats=["GIF"])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise VideoError(f"{path}: more pixels than a picture may have") from None
    except Exception:  # whatever a damaged header makes Pillow's reader raise
        raise VideoError(f"{path}: no readable GIF; it may be empty, cut short or something else") from None
    with image:
        yield image


def _delay(image: Image.Image) -> float:
    return image.info.get("duration", 0) / 1000 or GIF_DELAY


def _shortest_delay(image: Image.Image) -> float:
    """Of all frames: a rate by it leaves none out. Damage is met again, and told, where the frames are read."""
    delays = [_delay(image)]
    with contextlib.suppress(Exception):
        delays += [_delay(frame) for frame in ImageSequence.Iterator(image)]
    return min(delays)


def _gif_frames(video: Frames, image: Image.Image) -> Iterator[Frame]:
    number, seconds = 0, 0.0
    while True:
        try:
            image.seek(number)
            image_rgb = np.array(image.convert("RGB"))
        except EOFError:
            return
        except Exception as error:  # whatever damage makes Pillow's decoder raise
            video.remark = f"{video.name}: ends after {number} frames, the next is damaged ({error})"
            return
        until = seconds + _delay(image)
        yield Frame(number, seconds, until, image_rgb)
        number, seconds = number + 1, until
