"""Pictures written as a video or a GIF, one at a time, each shown from its own time on."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from retinamask.dataset import files
from retinamask.inference.video_source import VideoError


class _Format(NamedTuple):
    container: str
    codec: str
    options: dict[str, str]
    ticks: int  # of its clock in a second
    least: int = 1  # ticks that a picture is shown


# Without B-frames, since FFmpeg gives their durations to the wrong pictures.
_H264 = ("libx264", {"preset": "veryfast", "crf": "20", "bf": "0"}, 90_000)
_FORMATS = {
    ".mp4": _Format("mp4", *_H264),
    ".m4v": _Format("mp4", *_H264),
    ".mov": _Format("mov", *_H264),
    ".mkv": _Format("matroska", *_H264),
    ".webm": _Format("webm", "libvpx-vp9", {"crf": "30", "b": "0", "deadline": "realtime", "cpu-used": "7"}, 1000),
    ".gif": _Format("gif", "gif", {}, 100, 2),  # browsers show a picture of one tick for a tenth of a second
}
WRITTEN_EXTENSIONS = tuple(_FORMATS)


def check_name(path: str | Path) -> None:
    """Raise `VideoError` if no video can be written under this name."""
    if Path(path).suffix.lower() not in _FORMATS:
        raise VideoError(f"{path}: found no known ending, expected one of {', '.join(_FORMATS)}")


@contextlib.contextmanager
def video_file(path: str | Path) -> Iterator["VideoFile"]:
    """Write a video; its ending says how: H.264 in ``.mp4`` and ``.mkv``, VP9 in ``.webm``, or ``.gif``.

    The file appears once it is whole; one that exists is replaced, or left as it was if something fails.

    Raises:
        VideoError: the ending is unknown, no picture was written, or the file cannot be written.
    """
    check_name(path)
    form = _FORMATS[Path(path).suffix.lower()]
    with files.replacing(path) as temporary:
        try:
            faststart = {"movflags": "+faststart"} if form.container in ("mp4", "mov") else {}
            with av.open(f"file:{temporary}", "w", format=form.container, container_options=faststart) as container:
                video = VideoFile(container, form)
                yield video
                video.flush()
        except av.FFmpegError as error:
            raise VideoError(f"{path}: cannot be written ({error.strerror}); make room or write elsewhere") from error
        if not temporary.stat().st_size:
            raise VideoError(f"{path}: no picture to write")


class VideoFile:
    """A video that is being written; of `video_file`."""

    def __init__(self, container: av.container.OutputContainer, form: _Format):
        self._container, self._form, self._stream, self._free_tick = container, form, None, 0

    def write(self, image_rgb: np.ndarray, seconds: float, duration: float) -> None:
        """Add a picture.

        Args:
            image_rgb: ``uint8`` of shape (height, width, 3); the first one's size is the video's.
            seconds: when it is shown, counted from the start.
            duration: how long it is shown if it is the last one, in seconds.
        """
        self._stream = self._stream or self._opened(image_rgb.shape[1::-1])
        due = seconds * self._form.ticks
        tick = max(round(due), self._free_tick)
        if tick - due > self._form.least:
            return  # more pictures than the format can show
        self._free_tick = tick + self._form.least
        frame = self._frame(Image.fromarray(image_rgb))
        frame.pts, frame.time_base = tick, self._stream.codec_context.time_base
        frame.duration = max(round(duration * self._form.ticks), self._form.least)
        self._container.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder still holds."""
        if self._stream:
            self._container.mux(self._stream.encode())

    def _opened(self, size_wh: tuple[int, int]) -> av.VideoStream:
        is_gif = self._form.codec == "gif"
        width, height = (side if is_gif else side + side % 2 for side in size_wh)  # a color is of two by two pixels
        stream = self._container.add_stream(
            self._form.codec,
            options=self._form.options,
            width=width,
            height=height,
            pix_fmt="pal8" if is_gif else "yuv420p",
            time_base=Fraction(1, self._form.ticks),
        )
        context = stream.codec_context
        context.flags |= Flags.frame_duration
        if not is_gif:
            context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
            context.color_primaries = context.color_trc = 1  # BT.709
        self._size_wh = size_wh
        return stream

    def _frame(self, image: Image.Image) -> av.VideoFrame:
        image = image if image.size == self._size_wh else image.resize(self._size_wh)
        if self._form.codec == "gif":
            # Dithered noise would make the file several times larger.
            indexed = image.quantize(256, dither=Image.Dither.NONE)
            colors_rgb = np.array(indexed.getpalette(), np.uint8).reshape(-1, 3)
            palette_argb = np.full((256, 4), 255, np.uint8)
            palette_argb[: len(colors_rgb), 1:] = colors_rgb
            return av.VideoFrame.from_ndarray((np.asarray(indexed), palette_argb), format="pal8")
        width, height = image.size
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return av.VideoFrame.from_ndarray(even).reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
