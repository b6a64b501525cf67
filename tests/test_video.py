"""Videos in and out, against OpenCV, Pillow and times written by hand; the predictor finds painted rectangles."""

import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageColor, ImageDraw, ImageSequence

from retinamask.cli import main
from retinamask.dataset import annotations
from retinamask.drawing import style
from retinamask.drawing.boxes import draw_boxes
from retinamask.evaluation.plots import counts_over_time
from retinamask.inference import video, video_files
from retinamask.inference.detect import Detections
from retinamask.inference.video import FrameDrawing, annotate_video, counts_by_frame
from retinamask.inference.video_files import WRITTEN_EXTENSIONS, VideoError, frames, video_file

ROOT = Path(__file__).parents[1]

CLASSES = {"mask": 0, "no_mask": 1}
BLUE, RED = (30, 60, 220), (220, 40, 30)  # in RGB: whoever mixes up the channels finds the other class
WIDTH, HEIGHT, RATE, COUNT = 161, 120, 12.5, 10
UNEVEN_MS = [0, 33, 100, 116, 150, 500, 516, 600, 1200, 1300]
TOP, SIDE = 40, 32


class ColorPredictor:
    """Finds the bounding box of what is blue (a mask) and of what is red (none); has what a `Predictor` has."""

    class_names = list(CLASSES)

    def __init__(self):
        self.batches = []

    def __call__(self, images_rgb, score_threshold=0.05, suppress="any_class"):
        self.batches.append(len(images_rgb))
        return [self._one(image) for image in images_rgb]

    def _one(self, image_rgb):
        assert image_rgb.dtype == np.uint8 and image_rgb.flags.c_contiguous
        found = []
        for label, color in enumerate((BLUE, RED)):
            near = (np.abs(image_rgb.astype(int) - color).max(axis=2) < 60).nonzero()
            if near[0].size:
                found.append((label, near[1].min(), near[0].min(), near[1].max() + 1, near[0].max() + 1))
        table = np.array(found, dtype=float).reshape(-1, 5)
        return Detections(table[:, 1:], np.full(len(found), 0.9), table[:, 0].astype(int))


def picture(number: int) -> np.ndarray:
    """A blue square that moves right by 8 pixels a frame, and in the later half a red one that stays."""
    image = np.full((HEIGHT, WIDTH, 3), 225, np.uint8)
    image[TOP : TOP + SIDE, 8 * number : 8 * number + SIDE] = BLUE
    if number >= COUNT // 2:
        image[80:112, 120:152] = RED
    return image


def film(path, pictures, codec="MJPG", rate=RATE):
    """A video of equal distances written by OpenCV alone."""
    size_wh = pictures[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, size_wh)
    for image in pictures:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    return path


def timed_film(path, times_ms, codec="libx264", sound=False, title="", **options):
    """A video of `picture`s at given times, written by PyAV alone."""
    with av.open(str(path), "w", container_options=options) as container:
        container.metadata["title"] = title
        clock = Fraction(1, 1000) if path.suffix != ".avi" else Fraction(1, 25)
        stream = container.add_stream(codec, width=160, height=HEIGHT, time_base=clock, rate=25)
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        voice = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture(number % COUNT)[:, :160]))
            frame.pts, frame.time_base = round(time_ms / 1000 / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            container.mux(voice.encode(frame))
            container.mux(voice.encode())
    return path


def times_of(path):
    """The times of all frames, as PyAV says them, and how long the file says it lasts."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)], container.duration / av.time_base


def all_frames(path):
    with frames(path) as source:
        return list(source), source.remark


def read_back(path):
    """All frames by OpenCV, and the rate."""
    capture, pictures = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (read := capture.read())[0]:
        pictures.append(read[1][..., ::-1])
    return pictures, capture.get(cv2.CAP_PROP_FPS)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    even = [picture(number)[:, :160] for number in range(COUNT)]
    return film(tmp_path_factory.mktemp("clip") / "clip.avi", even)


@pytest.fixture(scope="module")
def gif(tmp_path_factory):
    """A GIF of Pillow's own whose frames take 40, 80, 120 ... milliseconds."""
    path = tmp_path_factory.mktemp("gif") / "clip.gif"
    pictures = [Image.fromarray(picture(number)) for number in range(COUNT)]
    durations = [40 * (number + 1) for number in range(COUNT)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations)
    return path


# --- Reading ---


def test_a_video_file_gives_its_frames_in_rgb_with_their_times(clip):
    with frames(clip) as source:
        read = list(source)
    assert (source.total, source.live, source.has_sound, source.remark) == (COUNT, False, False, "")
    assert [frame.number for frame in read] == list(range(COUNT))
    assert [frame.seconds for frame in read] == pytest.approx([number / RATE for number in range(COUNT)])
    assert read[-1].duration == pytest.approx(1 / RATE)
    for frame in read:
        assert np.abs(frame.image_rgb.astype(int) - picture(frame.number)[:, :160]).mean() < 4  # JPEG's own loss


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.mkv", "mpeg4"), ("a.webm", "libvpx")]
)
def test_uneven_times_are_the_files_own(name, codec, tmp_path):
    read, remark = all_frames(timed_film(tmp_path / name, UNEVEN_MS, codec))
    assert [frame.seconds for frame in read] == pytest.approx([time_ms / 1000 for time_ms in UNEVEN_MS])
    assert not remark
    for frame in read:
        assert np.abs(frame.image_rgb.astype(int) - picture(frame.number)[:, :160]).mean() < 8


def test_a_browsers_recording_has_neither_length_nor_rate(tmp_path):
    path = timed_film(tmp_path / "a.webm", UNEVEN_MS, "libvpx", live="1")
    content = path.read_bytes()
    rate = content.index(b"\x23\xe3\x83\x84")  # DefaultDuration of four bytes, made a Void of as many
    path.write_bytes(content[:rate] + b"\xec\x86" + bytes(6) + content[rate + 8 :])
    with av.open(str(path)) as container:
        assert container.duration is None and container.streams[0].average_rate is None
    read, remark = all_frames(path)
    assert [frame.seconds for frame in read] == pytest.approx([time_ms / 1000 for time_ms in UNEVEN_MS])
    assert read[-1].duration == pytest.approx(0.1) and not remark  # as the one before it
    annotate_video(ColorPredictor(), path, tmp_path / "drawn.mp4")
    assert times_of(tmp_path / "drawn.mp4") == ([frame.seconds for frame in read], pytest.approx(1.4))


def test_pictures_that_an_avi_holds_in_another_order_keep_an_even_pace(tmp_path):
    read, _ = all_frames(timed_film(tmp_path / "a.avi", range(0, 1200, 40)))  # x264 codes them out of order
    assert [frame.seconds for frame in read] == pytest.approx([number / 25 for number in range(30)])


def test_joined_recordings_go_on_where_the_clock_is_set_back(tmp_path):
    part = timed_film(tmp_path / "a.ts", range(0, 800, 40)).read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    read, _ = all_frames(tmp_path / "joined.ts")
    assert [frame.seconds for frame in read] == pytest.approx([number / 25 for number in range(40)], abs=1e-4)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_phone_video_held_sideways_is_turned_upright(turns, tmp_path):
    """ISO 14496-12 puts the turn into the track header's matrix; it is written over OpenCV's identity."""
    path = film(tmp_path / "phone.mp4", [picture(9)[:, :160]] * 3, codec="mp4v")
    a, b = [(1, 0), (0, 1), (-1, 0), (0, -1)][turns]
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    content = path.read_bytes()
    header = content.index(b"tkhd")
    path.write_bytes(content[:header] + content[header:].replace(upright, turned, 1))
    image_rgb = all_frames(path)[0][0].image_rgb
    clockwise = np.rot90(picture(9)[:, :160], -turns)
    assert image_rgb.shape == clockwise.shape and np.abs(image_rgb.astype(int) - clockwise).mean() < 8
    np.testing.assert_allclose(image_rgb, read_back(path)[0][0], atol=6)  # OpenCV turns it as well


def test_a_gif_keeps_the_time_of_each_frame(gif):
    read, remark = all_frames(gif)
    assert [frame.seconds for frame in read] == pytest.approx([0.02 * n * (n + 1) for n in range(COUNT)])
    assert read[-1].duration == pytest.approx(0.04 * COUNT) and not remark
    for frame in read:
        assert np.abs(frame.image_rgb.astype(int) - picture(frame.number)).mean() < 2


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.avi", "mjpeg", {}),
        ("a.mp4", "mpeg4", {"movflags": "+faststart"}),
        ("a.mkv", "mpeg4", {}),
        ("a.webm", "libvpx", {}),
    ],
)
def test_a_video_that_is_cut_short_gives_what_is_there_and_says_so(name, codec, options, tmp_path):
    whole = timed_film(tmp_path / name, range(0, 2400, 40), codec, **options).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    found = annotate_video(ColorPredictor(), tmp_path / name, tmp_path / "drawn.mp4")
    assert 10 <= found.frames <= 50 and found.frames == len(read_back(tmp_path / "drawn.mp4")[0])
    assert len(found.remarks) == 1
    assert f"{name}: ends after {found.frames} frames, {found.frames / 25:.1f} of" in found.remarks[0]


def test_a_video_that_is_damaged_in_the_middle_gives_the_rest_and_says_so(tmp_path):
    path = timed_film(tmp_path / "a.mp4", range(0, 2400, 40))
    content = path.read_bytes()
    middle = content.index(b"mdat") + (content.index(b"moov") - content.index(b"mdat")) // 2
    path.write_bytes(content[:middle] + bytes(400) + content[middle + 400 :])
    read, remark = all_frames(path)
    assert read[-1].seconds == pytest.approx(2.36)
    assert 30 <= len(read) < 60 and f"a.mp4: {len(read)} frames read; damaged in" in remark


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_gif_gives_what_is_there_and_says_so(damage, gif, tmp_path):
    whole = gif.read_bytes()
    half = len(whole) // 2
    (tmp_path / "bad.gif").write_bytes(whole[:half] + (b"" if damage == "cut" else bytes(40) + whole[half + 40 :]))
    read, remark = all_frames(tmp_path / "bad.gif")
    assert 0 < len(read) <= COUNT and f"bad.gif: {len(read)} frames read; damaged" in remark


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".gif"])
@pytest.mark.parametrize("content", [b"", b"no video at all"], ids=["empty", "text"])
def test_what_is_no_video_is_refused(suffix, content, tmp_path):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(VideoError, match="bad.*no readable video"), frames(path):
        pass


def test_sound_alone_an_unknown_codec_and_no_frame_are_refused(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        voice = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(voice.encode(frame))
        container.mux(voice.encode())
    with pytest.raises(VideoError, match=r"song.mp4: no readable video \(found audio\)"), frames(tmp_path / "song.mp4"):
        pass
    path = timed_film(tmp_path / "a.mp4", UNEVEN_MS)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    with pytest.raises(VideoError, match="a codec that FFmpeg lacks"), frames(path):
        pass
    content = timed_film(tmp_path / "a.mov", UNEVEN_MS).read_bytes()
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    (tmp_path / "a.mov").write_bytes(content[:start] + bytes(end - start) + content[end:])
    with pytest.raises(VideoError, match="a.mov: not a single frame can be read"):
        annotate_video(ColorPredictor(), tmp_path / "a.mov", tmp_path / "drawn.mp4")
    assert not (tmp_path / "drawn.mp4").exists()


def test_a_title_in_an_old_encoding_does_no_harm(tmp_path):
    path = timed_film(tmp_path / "a.mkv", UNEVEN_MS, "mpeg4", title="Xtitle")
    path.write_bytes(path.read_bytes().replace(b"Xtitle", b"\xe9title"))
    assert len(all_frames(path)[0]) == COUNT


def test_a_name_that_looks_like_an_address_is_a_file(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("http:%03d.avi").write_bytes(clip.read_bytes())
    annotate_video(ColorPredictor(), "http:%03d.avi", "pipe:1.mp4")
    assert len(times_of(tmp_path / "pipe:1.mp4")[0]) == COUNT


def test_a_missing_file_and_a_missing_webcam_are_told_apart(tmp_path):
    with pytest.raises(VideoError, match="clip.mp4 does not exist"), frames(tmp_path / "clip.mp4"):
        pass
    with pytest.raises(VideoError, match="webcam 97 cannot be opened; check that it is plugged in"), frames("97"):
        pass


@pytest.mark.parametrize(
    ("source", "is_one"),
    [("0", True), (1, True), ("a.MP4", True), ("a.gif", True), ("a.jpg", False), ("-1", False), ("./0", False)],
)
def test_what_is_taken_for_a_video(source, is_one):
    assert video_files.is_video(source) == is_one


class FakeCamera:
    """Stands for `cv2.VideoCapture` of a webcam that gives a picture every 0.3 seconds, seven in all."""

    def __init__(self, index):
        self.count, self.released = 0, False

    def isOpened(self):  # noqa: N802
        return True

    def get(self, _):
        return 0.0  # many cameras do not know their rate

    def set(self, *_):
        return True

    def read(self):
        self.count += 1
        return self.count <= 7, np.ascontiguousarray(picture(self.count)[..., ::-1])

    def release(self):
        self.released = True


@pytest.fixture()
def camera(monkeypatch):
    made, times = [], iter(np.arange(100) * 0.3)
    real = cv2.VideoCapture
    choose = lambda source, *backend: real(source, *backend) if backend else made.append(FakeCamera(source)) or made[-1]  # noqa: E731
    monkeypatch.setattr(cv2, "VideoCapture", choose)
    monkeypatch.setattr(video_files, "time", SimpleNamespace(monotonic=lambda: next(times)))
    return made


def test_a_webcam_is_drawn_at_the_speed_of_life(camera, tmp_path):
    predictor = ColorPredictor()
    found = annotate_video(predictor, 0, tmp_path / "drawn.mp4", limit=5)
    assert found.frames == 5 and predictor.batches == [1] * 5 and camera[0].released and not found.remarks
    assert found.table["seconds"].unique() == pytest.approx([0, 0.3, 0.6, 0.9, 1.2])
    assert found.table["image_path"].iloc[0] == "webcam0#0"
    times, length = times_of(tmp_path / "drawn.mp4")
    assert times == pytest.approx([0, 0.3, 0.6, 0.9, 1.2]) and length == pytest.approx(1.5)


def test_a_webcam_that_stops_is_told(camera):
    found = annotate_video(ColorPredictor(), "0")
    assert found.frames == 7 and found.remarks == ["webcam0: stopped giving pictures after 7 frames"]


# --- Writing ---


def write(path, pictures, times, last):
    with video_file(path) as file:
        for image_rgb, seconds in zip(pictures, times, strict=True):
            file.write(image_rgb, seconds, last)


@pytest.mark.parametrize("suffix", WRITTEN_EXTENSIONS)
def test_every_ending_keeps_times_and_pictures(suffix, tmp_path):
    path, times = tmp_path / "new" / f"new{suffix}", [0, 0.04, 0.1, 0.5, 0.52, 1, 2, 2.1, 2.2, 2.3]
    write(path, map(picture, range(COUNT)), times, 0.7)
    assert times_of(path) == (pytest.approx(times), pytest.approx(3.0, abs=0.002))
    pictures, _ = read_back(path)
    assert pictures[0].shape == (HEIGHT, WIDTH + (suffix != ".gif"), 3)  # H.264 and VP9 want even sides
    for number, image in enumerate(pictures):
        assert np.abs(image[:, :WIDTH].astype(int) - picture(number)).mean() < 8, number
    assert list(path.parent.iterdir()) == [path]


def test_an_mp4_is_what_browsers_play(tmp_path):
    """H.264 in 4:2:0, the index before the pictures, and the colors named in full."""
    write(tmp_path / "new.mp4", [picture(0)] * 5, np.arange(5) / 25, 0.04)
    content = (tmp_path / "new.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(tmp_path / "new.mp4")) as container:
        context = container.streams[0].codec_context
        colors = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert (context.name, context.pix_fmt, colors) == ("h264", "yuv420p", (1, 1, 1, 1))


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("rate", [0.04, 29.97003, 119.8765, 1000 / 3, 999.99])  # phones write such mean rates
def test_a_strange_rate_is_written_at_its_speed(suffix, rate, tmp_path):
    write(tmp_path / f"new{suffix}", map(picture, range(5)), np.arange(5) / rate, 1 / rate)
    times, length = times_of(tmp_path / f"new{suffix}")
    assert times == pytest.approx(np.arange(5) / rate, abs=0.001)
    assert length == pytest.approx(5 / rate, rel=0.01, abs=0.001)


def test_a_gif_of_ours_is_what_pillow_expects(tmp_path):
    write(tmp_path / "new.gif", map(picture, range(3)), [0, 0.04, 0.15], 0.45)
    with Image.open(tmp_path / "new.gif") as image:
        read = [(frame.info["duration"], np.array(frame.convert("RGB"))) for frame in ImageSequence.Iterator(image)]
        assert image.info["loop"] == 0
    assert [duration for duration, _ in read] == [40, 110, 450]
    for number, (_, image_rgb) in enumerate(read):
        np.testing.assert_allclose(image_rgb.astype(int), picture(number), atol=8)


def test_a_gif_of_a_fast_video_keeps_its_length_and_shows_no_picture_for_less_than_browsers_can(tmp_path):
    write(tmp_path / "new.gif", [picture(number % COUNT) for number in range(120)], np.arange(120) / 120, 1 / 120)
    with Image.open(tmp_path / "new.gif") as image:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert min(durations) >= 20 and sum(durations) == pytest.approx(1000, abs=40)


def test_a_gif_keeps_the_colors_of_classes_on_a_colorful_picture(tmp_path):
    across, down = np.meshgrid(np.linspace(0, 255, 320), np.linspace(0, 255, 240))
    colorful = np.dstack([across, down, 255 - across]).astype(np.uint8)
    table = annotations.make_table(
        [("a", 20, 40, 120, 200, "mask", 0.9), ("a", 180, 40, 290, 200, "no_mask", 0.8)], annotations.DETECTION_COLUMNS
    )
    drawn = np.asarray(draw_boxes(colorful, table, CLASSES))
    write(tmp_path / "new.gif", [drawn], [0], 1)
    with Image.open(tmp_path / "new.gif") as image:
        shown = np.asarray(image.convert("RGB")).astype(int)
    for color in (style.GREEN, style.VERMILLION):
        there = (drawn == ImageColor.getrgb(color)).all(axis=2)
        assert there.sum() > 500 and np.abs(shown[there] - ImageColor.getrgb(color)).mean(axis=0).max() < 12


@pytest.mark.parametrize("name", ["new.mp4", "new.gif"])
def test_a_frame_of_another_size_is_fitted_in(name, tmp_path):
    write(tmp_path / name, [picture(0), picture(1)[:60, :80]], [0, 0.1], 0.1)
    assert len(read_back(tmp_path / name)[0]) == 2


@pytest.mark.parametrize("name", ["new.mp4", "new.webm", "new.gif"])
def test_a_failure_leaves_the_old_file_as_it_was(name, tmp_path):
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(RuntimeError, match="in the middle"), video_file(tmp_path / name) as file:
        file.write(picture(0), 0.0, 1.0)
        raise RuntimeError("in the middle")
    with pytest.raises(VideoError, match="no picture to write"), video_file(tmp_path / name):
        pass
    assert (tmp_path / name).read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_an_unknown_ending_lists_the_known_ones_before_anything_is_read(tmp_path):
    with pytest.raises(VideoError, match=r"new.avi: found no known ending, expected one of .mp4, .*.webm, .gif"):
        annotate_video(ColorPredictor(), "97", tmp_path / "new.avi")


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_a_full_disk_is_an_error_and_leaves_nothing(suffix, tmp_path):
    """A limit on the size of files stands for the disk."""
    program = f"""
import resource, signal
import numpy as np
from retinamask.inference.video_files import video_file

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
noise = np.random.default_rng(0).integers(0, 256, (40, 120, 160, 3), dtype=np.uint8)
with video_file("new{suffix}") as file:
    for number, image_rgb in enumerate(noise):
        file.write(image_rgb, number / 10, 0.1)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert f"VideoError: new{suffix}: cannot be written (File too large); make room" in ended.stderr
    assert not list(tmp_path.iterdir())


# --- Detecting ---


@pytest.mark.parametrize("out", ["drawn.mp4", "drawn.webm", "drawn.gif"])
def test_the_drawn_video_shows_the_boxes_of_the_table(clip, out, tmp_path):
    predictor = ColorPredictor()
    found = annotate_video(predictor, clip, tmp_path / out, batch_size=4)
    assert predictor.batches == [4, 4, 2] and found.frames == COUNT and found.remarks == []
    assert list(found.table.columns) == video.VIDEO_COLUMNS
    masks = found.table[found.table["class_name"] == "mask"]
    expected = [[8 * number, TOP, 8 * number + SIDE, TOP + SIDE] for number in range(COUNT)]
    np.testing.assert_allclose(masks[annotations.BOX_COLUMNS], expected, atol=2)
    assert list(found.table["frame"][found.table["class_name"] == "no_mask"]) == [5, 6, 7, 8, 9]
    pictures, _ = read_back(tmp_path / out)
    assert times_of(tmp_path / out)[0] == pytest.approx(np.arange(COUNT) / RATE)
    green = np.abs(pictures[9][TOP + 8 : TOP + 24, 70:77].astype(int) - ImageColor.getrgb(style.GREEN)).max(axis=2)
    assert (green.min(axis=1) < 70).all()  # the left line of the box around the square at 72


def test_a_gif_stays_in_time_as_gif_and_as_video(gif, tmp_path):
    annotate_video(ColorPredictor(), gif, tmp_path / "drawn.gif")
    with Image.open(tmp_path / "drawn.gif") as image:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert durations == [40 * (number + 1) for number in range(COUNT)]
    annotate_video(ColorPredictor(), gif, tmp_path / "drawn.mp4")
    times, length = times_of(tmp_path / "drawn.mp4")
    assert times == pytest.approx([0.02 * n * (n + 1) for n in range(COUNT)]) and length == pytest.approx(2.2)


def test_uneven_times_reach_drawing_and_counts_and_lost_sound_is_told(tmp_path):
    path = timed_film(tmp_path / "a.mp4", UNEVEN_MS, sound=True)
    found = annotate_video(ColorPredictor(), path, tmp_path / "drawn.webm")
    assert times_of(tmp_path / "drawn.webm")[0] == pytest.approx([time_ms / 1000 for time_ms in UNEVEN_MS])
    assert found.remarks == [f"{path}: its sound is left out of {tmp_path / 'drawn.webm'}"]
    seconds = counts_by_frame(found.table, CLASSES).index.get_level_values("seconds")
    assert list(seconds) == [time_ms / 1000 for time_ms in UNEVEN_MS]
    assert annotate_video(ColorPredictor(), path).remarks == []


def test_the_counts_are_those_of_each_frame(clip):
    counts = counts_by_frame(annotate_video(ColorPredictor(), clip).table, CLASSES)
    lines = counts.to_csv().splitlines()
    assert lines[:3] == ["frame,seconds,mask,no_mask", "0,0.0,1,0", "1,0.08,1,0"] and lines[-1] == "9,0.72,1,1"
    assert len(lines) == 1 + COUNT


def test_frames_without_boxes_are_counted_and_kept_in_the_csv(tmp_path):
    film(tmp_path / "empty.avi", [np.full((64, 64, 3), 225, np.uint8)] * 3)
    found = annotate_video(ColorPredictor(), tmp_path / "empty.avi", tmp_path / "drawn.mp4")
    assert counts_by_frame(found.table, CLASSES).to_numpy().tolist() == [[0, 0]] * 3
    annotations.write_detections(found.table, tmp_path / "found.csv")
    paths = annotations.image_paths(annotations.read_detections(tmp_path / "found.csv"))
    assert paths == ["empty.avi#0", "empty.avi#1", "empty.avi#2"]


def test_control_c_keeps_what_was_seen(clip, tmp_path):
    class Stopped(ColorPredictor):
        def __call__(self, images_rgb, score_threshold=0.05, suppress="any_class"):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().__call__(images_rgb, score_threshold)

    found = annotate_video(Stopped(), clip, tmp_path / "drawn.mp4", batch_size=3)
    assert found.frames == 6 and "stopped after 6 frames" in found.remarks[0]
    assert len(read_back(tmp_path / "drawn.mp4")[0]) == 6


INTERRUPTED = """
import signal, sys
import numpy as np
from retinamask.inference.video_files import video_file

noise = np.random.default_rng(0).integers(0, 256, (240, 640, 3), dtype=np.uint8)
signal.signal(signal.SIGALRM, signal.default_int_handler)
with video_file(sys.argv[1]) as file:
    try:
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
        for number in range(1000):
            file.write(noise[:, 2 * number % 320 : 2 * number % 320 + 320], number / 25, 0.04)
    except KeyboardInterrupt:
        print(number)
"""


@pytest.mark.parametrize("seconds", [0.2, 0.24, 0.28])
def test_control_c_while_a_picture_is_encoded_tears_none_apart(seconds, tmp_path):
    """An alarm stands for the key; x264 needs far longer for these pictures than all else here.

    In a process of its own: in one with hundreds of tests behind it the signal ended the process.
    """
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "new.mp4"), str(seconds)]
    number = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)
    noise = np.random.default_rng(0).integers(0, 256, (240, 640, 3), dtype=np.uint8)
    read, remark = all_frames(tmp_path / "new.mp4")
    assert not remark and number - 1 <= len(read) <= number + 1
    for frame in read:
        at = 2 * round(frame.seconds * 25) % 320
        assert np.abs(frame.image_rgb.astype(int) - noise[:, at : at + 320]).mean() < 60, frame.number


def test_a_long_video_takes_no_more_pictures_at_once_than_a_batch(clip, monkeypatch):
    """Frames are followed from birth to death; the loop holds those of its batch and of the one before at most."""
    import weakref

    alive, most = weakref.WeakSet(), []

    class Counted(np.ndarray):
        __hash__ = object.__hash__

        def __eq__(self, other):
            return self is other

    def read(_):
        for number in range(200):
            image_rgb = picture(number % COUNT).view(Counted)
            alive.add(image_rgb)
            most.append(len(alive))
            yield video_files.Frame(number, number / RATE, 1 / RATE, image_rgb)

    monkeypatch.setattr(video_files, "_file_frames", lambda source, container, stream: read(source))
    assert annotate_video(ColorPredictor(), clip, batch_size=4).frames == 200
    assert max(most) <= 9


@pytest.mark.parametrize("wrong", [{"score_threshold": 1.5}, {"batch_size": 0}, {"limit": 0}])
def test_impossible_parameters_are_refused(clip, wrong):
    with pytest.raises(ValueError, match="expected 0 to 1, at least 1 and at least 1"):
        annotate_video(ColorPredictor(), clip, **wrong)


# --- What is seen ---


def test_the_bar_is_below_the_picture_and_has_a_swatch_for_each_class():
    image_rgb = np.full((200, 400, 3), 255, np.uint8)
    none = annotations.make_table([], annotations.DETECTION_COLUMNS)
    drawn = FrameDrawing({"with_mask": 0, "without_mask": 1}, (400, 200))(image_rgb, none, 61.26, 3.2)
    np.testing.assert_array_equal(drawn[:200], image_rgb)
    bar = drawn[200:]
    for color in (style.GREEN, style.VERMILLION):
        assert (bar == ImageColor.getrgb(color)).all(axis=2).sum() > 40
    assert bar.shape[0] < 50


def test_many_classes_in_a_narrow_video_take_more_lines_and_stay_inside():
    classes = {f"a class with a long name {number}": number for number in range(6)}
    none = annotations.make_table([], annotations.DETECTION_COLUMNS)
    drawn = FrameDrawing(classes, (96, 96))(np.zeros((96, 96, 3), np.uint8), none, 0.0, 10.0)
    assert drawn.shape[1] == 96 and drawn.shape[0] > 96 + 6 * 11


def test_an_entry_without_room_is_its_number_alone_beside_the_color(monkeypatch):
    texts = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, position, text, **_: texts.append(text))
    none = annotations.make_table([], annotations.DETECTION_COLUMNS)
    for width in (64, 640):
        FrameDrawing({"mask": 0, "mask_weared_incorrect": 1}, (width, 48))(
            np.zeros((48, width, 3), np.uint8), none, 65.25, 12.4
        )
    assert texts[:4] == ["mask 0", "0", "1:05.2", "12.4/s"]
    assert texts[4:] == ["mask 0", "mask_weared_incorrect 0", "1:05.2", "12.4 frames/s"]


@pytest.mark.parametrize(
    ("color", "names"),
    [
        (style.GREEN, ["mask", "with_mask", "WithMask", "face_with_mask", "masked face"]),
        (style.VERMILLION, ["noMask", "no-mask", "without_mask", "WithoutMask", "face_no_mask", "Unmasked"]),
        (style.AMBER, ["mask_weared_incorrect", "incorrect_mask", "worn wrong", "face_with_mask_incorrect"]),
    ],
)
def test_the_names_of_the_public_sets_have_their_colors(color, names):
    for name in names:
        assert style.class_colors({"hat": 0, name: 1})[name] == color, name


def test_no_other_class_shares_a_color_with_one_that_is_known():
    colors = style.class_colors({"hat": 0, "with_mask": 1, "mask_weared_incorrect": 2, "scarf": 3})
    assert len(set(colors.values())) == 4


@pytest.mark.parametrize("count", [0, 1, 40, 9001])
def test_the_figure_of_counts_takes_any_length(count):
    index = pd.MultiIndex.from_arrays([np.arange(count), np.arange(count) / RATE], names=["frame", "seconds"])
    figure = counts_over_time(pd.DataFrame({"mask": 2, "_odd $name": 1}, index=index))
    assert isinstance(figure, Figure)
    if count:
        assert [axes.lines[0].get_ydata()[0] for axes in figure.axes] == [2, 1]
        assert len(figure.axes[0].lines[0].get_xdata()) <= 300


# --- The command ---


@pytest.fixture()
def command(monkeypatch, tmp_path):
    """Runs `retinamask detect` with the predictor of this file in the place of a snapshot's."""
    monkeypatch.setattr("retinamask.commands.detect.load_predictor", lambda _: ColorPredictor())
    snapshot = type("Snapshot", (), {"record": {"weights_sha256": ""}, "thresholds": {"mask": 0.5}})
    monkeypatch.setattr("retinamask.detectors.snapshots.read", lambda _: snapshot)
    monkeypatch.chdir(tmp_path)
    return lambda *given: main(["detect", *map(str, given), "--snapshot", "s.h5"])


def test_detect_writes_table_video_counts_and_figure(command, clip, tmp_path, capsys):
    given = (clip, "--out-video", "drawn.mp4", "--counts", "counts.csv", "--frames", "6")
    assert command(*given) == 0
    assert "7 detections in 6 frames: drawn.csv, drawn.mp4, counts.csv, counts.png" in capsys.readouterr().out
    assert len(read_back("drawn.mp4")[0]) == 6 and len((tmp_path / "counts.csv").read_text().splitlines()) == 7
    with Image.open("counts.png") as figure:
        assert figure.width > 500
    table = annotations.read_detections("drawn.csv")
    assert table["image_path"].iloc[0] == annotations.relative_path(clip, tmp_path) + "#0"
    assert command(*given) == 2 and "drawn.csv exists; choose another --out, or" in capsys.readouterr().err
    Path("drawn.csv").unlink()
    assert command(*given) == 2 and "drawn.mp4 exists; choose another --out-video, or" in capsys.readouterr().err
    assert command(*given, "--force") == 0


def test_detect_refuses_what_cannot_be_meant(command, clip, tmp_path, capsys):
    Image.fromarray(picture(0)).save("a.png")
    for given, message in (
        ((clip, "a.png"), "clip.avi is a video or webcam and has to be the only source"),
        (("a.png", "--out-video", "x.mp4"), "--out-video has no effect on images, only on a video"),
        (("a.png", "--frames", "3"), "--frames has no effect on images, only on a video"),
        ((clip, "--out-video", clip, "--force"), "named twice"),
        ((clip, "--out-video", "x.avi"), "no known ending"),
        (("nothing.mp4",), "nothing.mp4 does not exist"),
    ):
        assert command(*given) == 2
        assert message in capsys.readouterr().err, given
    assert clip.stat().st_size > 1000 and command("a.png") == 0


def test_a_folder_named_like_a_number_is_a_folder(command, tmp_path, capsys):
    (tmp_path / "0").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "0" / "a.png")
    assert command("0") == 0 and "1 images: mask 1, no_mask 0" in capsys.readouterr().out
