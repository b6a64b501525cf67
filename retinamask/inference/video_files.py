"""Pictures written as a video or a GIF, one at a time, each with the time at which it is shown."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from PIL import Image

from retinamask.dataset import files
from retinamask.inference.video_source import VideoError

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
    with files.replacing(path) as temporary, ThreadPoolExecutor(1) as worker:
        try:
            with av.open(f"file:{temporary}", "w", format=container, container_options=options) as output:
                video = VideoFile(output, worker, *encoder)
                yield video
                video.flush()
        except av.FFmpegError as error:
            raise VideoError(f"{path}: cannot be written ({error.strerror}); make room or write elsewhere") from error
        if not temporary.stat().st_size:
            raise VideoError(f"{path}: no picture to write")


class VideoFile:
    """A video that is being written, by `video_file`."""

    def __init__(
        self,
        output: av.container.OutputContainer,
        worker: ThreadPoolExecutor,
        codec: str,
        options: dict[str, str],
        ticks: int,
    ):
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

    def flush(self) -> None:
        """Write the last picture and what the encoder still holds."""
        if self._held:
            self._encode(self._held, None)

    def _encode(self, *frames: av.VideoFrame | None) -> None:
        # Ctrl-C only stops the main thread. Between encoding and writing it would lose what later pictures build on.
        self._worker.submit(lambda: [self._output.mux(self._stream.encode(frame)) for frame in frames]).result()

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
