"""Pictures written as a video file or a GIF, one at a time, so that a film of any length fits into memory.

Below `inference.video`. Each picture comes with the time until which it is shown; pictures are repeated or left out so
that the file runs at the speed of what it was made from. A file appears under its name only once it is whole.
"""

import contextlib
import io
import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import cv2
import numpy as np
from PIL import Image

from retinamask.dataset import files
from retinamask.inference.video_source import VideoError, quiet_opencv

# What OpenCV's own FFmpeg can encode; it has no H.264. Browsers play .webm and .gif, most players all of them.
CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
WRITTEN_EXTENSIONS = (*CODECS, ".gif")
MAX_GIF_SIDE = 65535
_GIF_TICKS = 100  # a GIF counts time in hundredths of a second
_LEAST_GIF_DELAY = 2  # of them; browsers show a frame of less for a tenth of a second


class VideoFile(Protocol):
    """A video that is being written."""

    def write(self, image_rgb: np.ndarray, until: float) -> None:
        """Show a ``uint8`` RGB picture until so many seconds after the start."""


def check_name(path: str | Path) -> None:
    """Raise `VideoError` if no video can be written under this name."""
    if Path(path).suffix.lower() not in WRITTEN_EXTENSIONS:
        raise VideoError(f"{path}: found no known ending, expected one of {', '.join(WRITTEN_EXTENSIONS)}")


@contextlib.contextmanager
def video_file(path: str | Path, rate: float) -> Iterator[VideoFile]:
    """Write a video; its ending says how: ``.mp4``, ``.avi``, ``.webm``, ``.gif``, ...

    Args:
        path: the file; replaced if it exists, and left as it was if something fails.
        rate: frames per second of the file; a GIF has none and shows each picture for its own time.

    Raises:
        VideoError: the ending is unknown, the codec is missing, no picture was written, or the disk is full.
    """
    check_name(path)
    with files.replacing(path) as temporary:
        if Path(path).suffix.lower() == ".gif":
            with open(temporary, "wb") as file:
                gif = _Gif(path, file)
                yield gif
                gif.close()
        else:
            film = _Film(path, temporary, rate)
            try:
                yield film
            finally:
                film.release()
            film.check()


class _Film:
    """A file of OpenCV's: pictures of one size at equal distances."""

    def __init__(self, path: str | Path, temporary: Path, rate: float):
        self._path, self._temporary, self._rate = path, temporary, _possible_rate(rate)
        self._writer, self._size_wh, self._written = None, (0, 0), 0

    def write(self, image_rgb: np.ndarray, until: float) -> None:
        if self._writer is None:
            self._writer, self._size_wh = self._open(image_rgb.shape[1::-1]), image_rgb.shape[1::-1]
        if image_rgb.shape[1::-1] != self._size_wh:  # OpenCV would silently leave it out
            image_rgb = cv2.resize(image_rgb, self._size_wh, interpolation=cv2.INTER_AREA)
        width, height = self._size_wh
        even = cv2.copyMakeBorder(image_rgb, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        for _ in range(round(until * self._rate) - self._written):
            self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
            self._written += 1

    def _open(self, size_wh: tuple[int, int]) -> cv2.VideoWriter:
        codec = CODECS[self._temporary.suffix.lower()]
        even_wh = [side + side % 2 for side in size_wh]  # the codecs keep colors for two pixels by two
        with quiet_opencv():
            fourcc = cv2.VideoWriter.fourcc(*codec)
            writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, fourcc, self._rate, even_wh)
        if not writer.isOpened():
            raise VideoError(
                f"{self._path}: this OpenCV cannot write {codec} video of {even_wh[0]} x {even_wh[1]} pixels; install "
                "opencv-python as the project names it, or choose another ending such as .avi or .gif"
            )
        return writer

    def release(self) -> None:
        """Write what is still in memory; OpenCV does that here and does not say whether it worked."""
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Read it back, far faster than detecting was: on a full disk OpenCV goes on without a word."""
        if not self._written:
            raise VideoError(f"{self._path}: no picture to write")
        readable = 0
        with quiet_opencv():
            capture = cv2.VideoCapture(str(self._temporary), cv2.CAP_FFMPEG)
            while capture.grab():
                readable += 1
            capture.release()
        if readable < 0.99 * self._written - 1:
            free = shutil.disk_usage(self._temporary.parent).free / 1e6
            raise VideoError(
                f"{self._path}: only {readable} of the {self._written} pictures written can be read back; the disk or "
                f"a quota may be full ({free:.1f} MB are free); make room or write elsewhere"
            )


def _possible_rate(rate: float) -> float:
    """A rate near enough, or a multiple of it, that every codec takes.

    OpenCV writes it as a fraction over 1, 10, 100, ..., and MPEG-4 has 16 bits for its upper part; WebM is not written
    below one picture in some seconds.
    """
    if rate < 1:
        return rate * math.ceil(1 / rate)
    return round(rate, 3 if rate < 65 else 2 if rate < 655 else 1)


class _Gif:
    """A GIF that grows by one picture at a time, as GIF89a says (https://www.w3.org/Graphics/GIF/spec-gif89a.txt).

    Pillow compresses each picture; given all of them it would keep all of them in memory.
    """

    def __init__(self, path: str | Path, file: BinaryIO):
        self._path, self._file, self._size_wh, self._shown = path, file, (0, 0), 0

    def write(self, image_rgb: np.ndarray, until: float) -> None:
        delay = round(until * _GIF_TICKS) - self._shown
        if self._shown and delay < _LEAST_GIF_DELAY:
            return
        delay = min(max(delay, _LEAST_GIF_DELAY), 0xFFFF)
        image = Image.fromarray(np.ascontiguousarray(image_rgb))
        if not self._shown:
            self._begin(image.size)
        image = image if image.size == self._size_wh else image.resize(self._size_wh)
        self._file.write(struct.pack("<4sHBB", b"\x21\xf9\x04\x04", delay, 0, 0) + _gif_picture(image))
        self._shown += delay

    def close(self) -> None:
        if not self._shown:
            raise VideoError(f"{self._path}: no picture to write")
        self._file.write(b"\x3b")

    def _begin(self, size_wh: tuple[int, int]) -> None:
        if max(size_wh) > MAX_GIF_SIDE:
            raise VideoError(f"{self._path}: a GIF has at most {MAX_GIF_SIDE} pixels a side, found {size_wh}")
        self._size_wh = size_wh
        forever = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
        self._file.write(b"GIF89a" + struct.pack("<HHBBB", *size_wh, 0x70, 0, 0) + forever)


def _gif_picture(image_rgb: Image.Image) -> bytes:
    """The blocks of one picture with its own 256 colors: those of a GIF of it alone, its color table made local."""
    single = io.BytesIO()
    # Dithered noise would hide from the compression what is plain and make the file several times larger.
    image_rgb.quantize(256, dither=Image.Dither.NONE).save(single, "GIF")
    data = single.getvalue()
    table_bits = data[10] & 7
    start = 13 + 3 * 2 ** (table_bits + 1)
    colors, place = data[13:start], start
    while data[place] == 0x21:  # extensions say nothing here that matters
        place += 2
        while data[place]:
            place += data[place] + 1
        place += 1
    descriptor = data[place : place + 9] + bytes([data[place + 9] & 0x40 | 0x80 | table_bits])
    return descriptor + colors + data[place + 10 : -1]
