"""Videos, GIFs and webcams: read one frame at a time, and written one picture at a time, each with its time.

PyAV, which is FFmpeg, reads and writes files with the times that they hold; OpenCV reads webcams.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import Image, ImageSequence

from retinamask.dataset import files

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
    rate: float = 10.0  # frames per second, about; those of a webcam come as fast as the caller works
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
        before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the message below says it better
        capture = cv2.VideoCapture(index)
        cv2.utils.logging.setLogLevel(before)
        if not capture.isOpened():
            raise VideoError(
                f"webcam {index} cannot be opened; check that it is plugged in, that no other program uses it and that "
                "this one may, or try another number"
            )
        try:
            yield Frames(f"webcam{index}", functools.partial(_webcam_frames, capture=capture), live=True)
        finally:
            capture.release()
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
        rate = float(streams[0].average_rate or USUAL_RATE)
        yield Frames(str(source), read, rate=rate, total=streams[0].frames or None, has_sound="audio" in kinds)


def webcam_index(source: str | Path | int) -> int | None:
    """Return the webcam that is meant, ``None`` if a file is."""
    text = str(source)
    return int(text) if text.isascii() and text.isdigit() else None


def is_video(source: str | Path | int) -> bool:
    """Return whether a source is a webcam's number or is named like a video file."""
    return webcam_index(source) is not None or Path(source).suffix.lower() in VIDEO_EXTENSIONS


def _file_frames(video: Frames, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Frame]:
    stream.thread_type = "AUTO"
    kind, step = container.format.name, 1 / video.rate
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
    if kind == "gif":  # FFmpeg reads a broken one up to the fault and reports nothing
        try:
            with Image.open(video.name) as image:
                for _ in ImageSequence.Iterator(image):
                    image.load()
        except Exception:  # whatever damage makes Pillow raise
            damaged += 1
    whole = stream.duration and stream.duration * stream.time_base
    announced = float(whole or (container.duration or 0) / av.time_base)
    if kind == "avi":  # whose duration FFmpeg takes down to that of a file that is cut short
        announced = stream.frames * step
    end, where = seconds + duration, f"{video.name}: "
    if end < 0.95 * announced - 2 * step:  # the sound may be a little longer than the pictures
        video.remark = f"{where}ends after {number} frames, {end:.1f} of {announced:.1f} seconds; it may be cut short"
    elif announced and end > 2 * announced + 1:  # FFmpeg itself leaves the time of a late last picture out
        video.remark = f"{where}{number} frames read, {end:.1f} seconds, though it says that it has {announced:.1f}"
    elif damaged:
        video.remark = f"{where}{number} frames read; damaged in {damaged} place(s), where some are lost or blurred"


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


# No B-frames: FFmpeg would hand their durations to the wrong pictures.
_H264 = ("libx264", {"preset": "veryfast", "crf": "20", "bf": "0"}, 90_000)
_VP9 = ("libvpx-vp9", {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "7"}, 1000)
# Container, encoder, its options, and ticks per second of the clock. AVI has no clock and is not written.
_FORMATS = {
    ".mp4": ("mp4", *_H264),
    ".m4v": ("mp4", *_H264),
    ".mov": ("mov", *_H264),
    ".mkv": ("matroska", *_H264),
    ".webm": ("webm", *_VP9),
    ".gif": ("gif", "gif", {}, 100),
}
WRITTEN_EXTENSIONS = tuple(_FORMATS)


def check_name(path: str | Path) -> None:
    """Raise `VideoError` if no video can be written under this name."""
    if Path(path).suffix.lower() not in _FORMATS:
        raise VideoError(f"{path}: found no known ending, expected one of {', '.join(_FORMATS)}")


@contextlib.contextmanager
def video_file(path: str | Path) -> Iterator["VideoFile"]:
    """Write a video; its ending says how: H.264 in ``.mp4`` and its like, VP9 in ``.webm``, or a GIF.

    The file appears once it is whole; one that exists is replaced, or left as it was if something fails.

    Raises:
        VideoError: the ending is unknown, no picture was written, or the file cannot be written.
    """
    check_name(path)
    container, *encoder = _FORMATS[Path(path).suffix.lower()]
    options = {"movflags": "+faststart"} if container in ("mp4", "mov") else {}
    with files.replacing(path) as temporary:
        try:
            # The worker ends before the file is closed, whatever stops the main thread.
            with (
                av.open(f"file:{temporary}", "w", format=container, container_options=options) as output,
                ThreadPoolExecutor(1) as worker,
            ):
                video = VideoFile(output, worker, *encoder)
                yield video
                video.flush()
        except av.FFmpegError as error:
            raise VideoError(f"{path}: cannot be written ({error.strerror}); make room or write elsewhere") from error
        if not temporary.stat().st_size:
            raise VideoError(f"{path}: no picture to write")


class VideoFile:
    """A video that is being written, by `video_file`."""

    def __init__(self, output: av.container.OutputContainer, worker: ThreadPoolExecutor, codec, options, ticks: int):
        self._output, self._worker, self._codec, self._options, self._ticks = output, worker, codec, options, ticks
        self._least = 2 if codec == "gif" else 1  # ticks per picture; browsers slow a GIF's single tick down to ten
        self._stream, self._size_wh, self._held = None, None, None

    def write(self, image_rgb: np.ndarray, seconds: float, duration: float) -> None:
        """Add a picture.

        Args:
            image_rgb: ``uint8`` of shape (height, width, 3); a video has the size of its first one.
            seconds: when it is shown, counted from the start.
            duration: how long it is shown if it is the last one, in seconds.
        """
        # Ctrl-C only stops the main thread: no picture is torn apart, and none is lost that later ones build on.
        self._worker.submit(self._add, image_rgb, seconds, duration).result()

    def flush(self) -> None:
        """Write the last picture and what the encoder still holds."""
        # By the worker too: the picture of an interrupted `write` comes first.
        self._worker.submit(lambda: self._held and self._encode(self._held, None)).result()

    def _add(self, image_rgb: np.ndarray, seconds: float, duration: float) -> None:
        image = Image.fromarray(image_rgb)
        if not self._stream:
            self._open(image.size)
        tick, held = round(seconds * self._ticks), self._held
        if held:
            tick = max(tick, held.pts + self._least)
            if tick - seconds * self._ticks > self._least:
                return  # more pictures than the format can show
            held.duration = tick - held.pts
        image = image if image.size == self._size_wh else image.resize(self._size_wh)
        frame = _indexed(image) if self._codec == "gif" else _even(image)
        frame.pts, frame.time_base = tick, Fraction(1, self._ticks)
        frame.duration = max(round(duration * self._ticks), self._least)
        self._held = frame
        if held:
            self._encode(held)

    def _encode(self, *frames: av.VideoFrame | None) -> None:
        for frame in frames:
            self._output.mux(self._stream.encode(frame))

    def _open(self, size_wh: tuple[int, int]) -> None:
        self._size_wh = size_wh
        self._stream = self._output.add_stream(self._codec, options=self._options, time_base=Fraction(1, self._ticks))
        context = self._stream.codec_context
        context.flags |= Flags.frame_duration
        if self._codec == "gif":
            context.pix_fmt, (context.width, context.height) = "pal8", size_wh
        else:
            context.width, context.height = (side + side % 2 for side in size_wh)
            # All four, or browsers take a small H.264 video for BT.601 and show its green too bright.
            context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
            context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709


def _even(image: Image.Image) -> av.VideoFrame:
    """Convert to YUV 4:2:0, which keeps a color for two by two pixels: odd sides grow by one."""
    width, height = image.size
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    colors = {"dst_colorspace": Colorspace.ITU709, "dst_color_range": ColorRange.MPEG}
    return av.VideoFrame.from_ndarray(even).reformat(format="yuv420p", **colors)


def _indexed(image: Image.Image) -> av.VideoFrame:
    """Convert to 256 colors of the picture's own; dithered noise would make a GIF several times larger."""
    indexed = image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colors_rgb = np.array(indexed.getpalette(), np.uint8).reshape(-1, 3)
    palette_argb = np.full((256, 4), 255, np.uint8)
    palette_argb[: len(colors_rgb), 1:] = colors_rgb
    return av.VideoFrame.from_ndarray((np.asarray(indexed), palette_argb), format="pal8")
