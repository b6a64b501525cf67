"""People that the sample's painter draws walk, cross and leave; everybody has to count once."""

import json
import os
import struct
from collections import Counter

import cv2
import numpy as np
import pandas as pd
import pytest
import trackers
from PIL import Image
from pyarrow import parquet

from retinamask.cli import main
from retinamask.dataset import annotations
from retinamask.dataset.sample import clothes, face_box
from retinamask.dataset.sample.painter import Painter
from retinamask.dataset.sample.people import choose_look, draw_features, draw_head
from retinamask.dataset.sample.places import draw_background
from retinamask.drawing.boxes import draw_boxes
from retinamask.evaluation.plots import counts_over_time
from retinamask.inference import video, window
from retinamask.inference.detect import Detections
from retinamask.inference.tracks import Tracker
from retinamask.inference.video import annotate_video, counts_by_frame, when_visible
from retinamask.inference.video_files import VideoError, frames, video_file

CLASSES = ["mask", "no_mask"]
WIDTH, HEIGHT, SECONDS, RATE = 320, 180, 7.6, 12.5
# From back to front: class, size of the head and its height in the picture in shares of the width, and its ways,
# as places from left to right at seconds.
PEOPLE = [
    ("mask", 0.055, 0.22, {0: -0.1, 5: 1.1}),  # walks to the right
    ("no_mask", 0.075, 0.30, {0.4: 1.1, 4.8: -0.1}),  # to the left, before the first and behind the third
    ("mask", 0.065, 0.25, {0: 0.78, 3.4: 0.78, 4.6: 1.15}),  # stands, then leaves to the right
    ("no_mask", 0.06, 0.27, {4.3: -0.1, 7.1: 0.6}),  # comes where the second has just left
    ("mask", 0.05, 0.20, {5.6: -0.1, 7.6: 0.4}),  # comes last
]
COUNTS = {"mask": 3, "no_mask": 2}


def walking(seconds: float, image: Image.Image | None = None) -> list[np.ndarray | None]:
    """The face of each person, before it is cut at an edge or hidden by others; drawn if there is an image."""
    canvas = image or Image.new("RGB", (2 * WIDTH, 2 * HEIGHT))
    all_of_it, faces = Painter(canvas, scale=canvas.width), []
    if image:
        draw_background(all_of_it, np.random.default_rng(7))
    for number, (class_name, size, height, ways) in enumerate(PEOPLE, 1):
        x = np.interp(seconds, list(ways), list(ways.values()), left=-9, right=-9)
        look = choose_look(np.random.default_rng(number), class_name == "mask")
        at = x, height + 0.004 * np.sin(9 * seconds + number), size
        body, head = all_of_it.at(*at), all_of_it.at(*at, 0.06 * np.sin(5 * seconds + number))
        faces.append(face_box(head, look) / 2 if x > -0.2 else None)
        if image and x > -0.2:
            clothes.draw_hair_behind(head, look)
            clothes.draw_body(body, look)
            draw_head(head, look)
            draw_features(head, look)
            if look.mask:
                clothes.draw_mask(head, look)
            clothes.draw_hair_front(head, look)
    return faces


def visible(seconds: float) -> list[tuple[int, np.ndarray]]:
    """Number and face of each person of whom half can be seen."""
    faces, found = walking(seconds), []
    for number, face in enumerate(faces):
        if face is None:
            continue
        area, inside = np.prod(face[2:] - face[:2]), np.clip(face, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        before = [np.clip(np.minimum(inside[2:], other[2:]) - np.maximum(inside[:2], other[:2]), 0, None).prod()
                  for other in faces[number + 1 :] if other is not None]  # fmt: skip
        if np.prod(inside[2:] - inside[:2]) >= area / 2 and max(before, default=0) <= area / 2:
            found.append((number, inside))
    return found


class Walkers:
    """Finds the faces of each frame in turn as a poor detector would; has what a `Predictor` has."""

    class_names = CLASSES

    def __init__(self, rate=RATE, seed=0, missed=0.15, moved=0.04):
        self.times, self.missed, self.moved = iter(np.arange(0, SECONDS, 1 / rate)), missed, moved
        self.random, self.thresholds, self.who = np.random.default_rng(seed), set(), []

    def __call__(self, images_rgb, score_threshold=0.05, suppress="any_class"):
        self.thresholds.add(score_threshold)
        return [self.find(next(self.times), score_threshold) for _ in images_rgb]

    def find(self, seconds, score_threshold):
        """15 % are missed, 15 % are weak, 10 % are of the other class; edges are 4 % of the face's width off."""
        found = []
        for number, face in visible(seconds):
            label = CLASSES.index(PEOPLE[number][0])
            label = 1 - label if self.random.random() < 0.1 else label
            score = self.random.uniform(*((0.12, 0.45) if self.random.random() < 0.15 else (0.6, 0.98)))
            face = face + self.random.normal(0, self.moved * (face[2] - face[0]), 4)
            if self.random.random() >= self.missed and score >= score_threshold:
                found.append((score, label, number, face))
        found.sort(key=lambda one: -one[0])
        self.who.append([number for _, _, number, _ in found])
        boxes_xyxy = np.array([face for *_, face in found]).reshape(-1, 4)
        return Detections(boxes_xyxy, np.array([one[0] for one in found]), np.array([one[1] for one in found], int))


def one_face(x, score=0.9, label=0):
    return Detections(np.array([[x, 20.0, x + 20, 45]]), np.array([score]), np.array([label]))


NOBODY = Detections(np.empty((0, 4)), np.empty(0), np.empty(0, int))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "walkers.mp4"
    with video_file(path) as file:
        for seconds in np.arange(0, SECONDS, 1 / RATE):
            image = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT))
            walking(seconds, image)
            file.write(np.asarray(image.reduce(2)), seconds, 1 / RATE)
    return path


# --- Tracking ---


def tracks_of(walkers, rate):
    """The numbers that a tracker gives to each of the people, and their classes."""
    tracker, numbers = Tracker(0.5, rate), {number: Counter() for number in range(len(PEOPLE))}
    for seconds in np.arange(0, SECONDS, 1 / rate):
        for number, who in zip(tracker(walkers([0], 0.1)[0], seconds, (WIDTH, HEIGHT)), walkers.who[-1], strict=True):
            numbers[who][int(number)] += number > 0
    classes = Counter(CLASSES[label] for label in tracker.class_of.values())
    return {who: +found for who, found in numbers.items()}, classes


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rate", [25, 60])
def test_everybody_has_one_number_and_no_two_share_one(rate, seed):
    numbers, classes = tracks_of(Walkers(rate, seed), rate)
    assert sorted(number for found in numbers.values() for number in found) == [1, 2, 3, 4, 5]
    assert all(len(found) == 1 for found in numbers.values()) and classes == COUNTS


BROKEN = [{"lost_track_buffer": 0}, {"minimum_iou_threshold": 0.9}, {"minimum_consecutive_frames": 60}]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: next(iter(broken)))
def test_a_broken_tracker_counts_wrong(broken, monkeypatch):
    """So that the test above can fail."""
    real = trackers.ByteTrackTracker
    monkeypatch.setattr(trackers, "ByteTrackTracker", lambda **options: real(**(options | broken)))
    assert sum(tracks_of(Walkers(25), 25)[1].values()) != len(PEOPLE)


def numbers_of(detections, times, rate=25, score_threshold=0.5):
    tracker = Tracker(score_threshold, rate)
    return [tracker(*one, (WIDTH, HEIGHT)).tolist() for one in zip(detections, times, strict=True)], tracker


def test_one_who_is_away_for_less_than_a_second_is_the_same_and_for_longer_another():
    seen = [one_face(50)] * 5
    for away, expected in ((20, [1]), (30, [2])):
        detections = [*seen, *[NOBODY] * away, *seen]
        numbers, tracker = numbers_of(detections, np.arange(len(detections)) / 25)
        assert numbers[0] == [0] and numbers[4] == [1] and numbers[-1] == expected
        assert len(tracker.class_of) == expected[0]


@pytest.mark.parametrize(
    "times",
    [np.arange(8) * 2.0, np.arange(8) * 90.0, [0, 0, 0, 0.1, 0.1, 0.5, 5, 5.01], np.arange(8) / 1000],
    ids=["slow", "very slow", "uneven", "fast"],
)
def test_any_times_are_fine(times):
    """A webcam with a slow network, a GIF of slides, two frames at once; warnings would be errors here."""
    numbers, _ = numbers_of([one_face(50 + 3 * step) for step in range(8)], times, rate=1 / 2)
    assert numbers == [[0], *[[1]] * 7]


def test_weak_boxes_continue_people_and_start_none():
    numbers, tracker = numbers_of([one_face(50, 0.3)] * 5, np.arange(5) / 25)
    assert numbers == [[0]] * 5 and not tracker.class_of
    numbers, tracker = numbers_of([one_face(50), one_face(50), *[one_face(50, 0.3)] * 40], np.arange(42) / 25)
    assert numbers[1:] == [[1]] * 41 and len(tracker.class_of) == 1


def test_the_class_of_a_person_is_that_of_the_highest_sum_of_scores():
    scores_labels = [(0.6, 0), (0.6, 0), (0.6, 0), (0.9, 1), (0.9, 1)]  # the first box has no number yet
    _, tracker = numbers_of([one_face(50, *one) for one in scores_labels], np.arange(5) / 25)
    assert tracker.class_of == {1: 1}
    _, tracker = numbers_of([one_face(50, *one) for one in [*scores_labels, (0.7, 0)]], np.arange(6) / 25)
    assert tracker.class_of == {1: 0}


def test_where_a_missed_face_is_expected():
    _, tracker = numbers_of([*[one_face(50 + 4 * step) for step in range(8)], NOBODY], np.arange(9) / 25)
    np.testing.assert_allclose(tracker.expected_xyxy, [[82, 20, 102, 45]], atol=1)


# --- In videos ---


def test_people_in_a_video_are_counted_and_drawn(film, tmp_path):
    walkers = Walkers()
    found = annotate_video(walkers, film, tmp_path / "drawn.mp4")
    assert found.frames == len(np.arange(0, SECONDS, 1 / RATE)) and found.whole and not found.remarks
    assert Counter(found.people.values()) == COUNTS and walkers.thresholds == {0.1}
    assert list(found.table.columns) == video.VIDEO_COLUMNS and found.table["track"].dtype == "Int64"
    boxes = annotations.objects(found.table)
    assert boxes["score"].min() >= 0.5 and set(boxes["track"].dropna()) == set(found.people) == {1, 2, 3, 4, 5}
    assert boxes["track"].isna().mean() < 0.1
    for number, rows in boxes.dropna(subset="track").groupby("track"):  # each number stays with one face
        middles = {name: rows[[f"{name}1", f"{name}2"]].mean(axis=1).to_numpy() for name in "xy"}
        true = [dict(visible(seconds)) for seconds in rows["seconds"]]
        assert any(
            all(
                who in faces and abs(faces[who][[axis, axis + 2]].mean() - middles["xy"[axis]][row]) < 10
                for row, faces in enumerate(true)
                for axis in (0, 1)
            )
            for who in range(len(PEOPLE))
        ), number
    with frames(tmp_path / "drawn.mp4") as drawn:
        assert sum(1 for _ in drawn) == found.frames


def test_the_bar_and_the_labels_tell_numbers(monkeypatch, film, tmp_path):
    texts = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda self, xy, text, **_: texts.append(text))
    found = annotate_video(Walkers(), film, tmp_path / "drawn.gif")
    assert {text.split()[0] for text in texts if text.startswith("#")} == {"#1", "#2", "#3", "#4", "#5"}
    bar = [text for text in texts if ", so far " in text]
    assert len(bar) == 2 * found.frames and bar[0] == "mask 1, so far 0" and bar[-2].endswith(", so far 3")
    one = pd.DataFrame([(10.0, 10.0, 90.0, 90.0, "mask", 0.9, pd.NA)], columns=video.VIDEO_COLUMNS[1:8])
    texts.clear()
    draw_boxes(np.zeros((200, 200, 3), np.uint8), one, {"mask": 0})
    assert texts == ["mask 0.90"]


def test_without_tracking_nothing_is_numbered(film):
    walkers = Walkers()
    found = annotate_video(walkers, film, tracking=False, limit=30)
    assert walkers.thresholds == {0.5} and found.people == {} and found.table["track"].isna().all()


def test_every_format_of_detections_has_the_numbers(film, tmp_path, caplog):
    table = annotate_video(Walkers(), film, limit=40).table
    for ending in annotations.ENDINGS:
        annotations.write_detections(table, tmp_path / f"a{ending}", annotations.TRACKED_COLUMNS)
        read = annotations.read_detections(tmp_path / f"a{ending}")
        assert list(read.columns) == annotations.DETECTION_COLUMNS and len(read) == len(table)
    known = table["track"].dropna().astype(int).tolist()
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "image_path,x1,y1,x2,y2,class_name,score,track"
    assert [int(line.split(",")[7]) for line in lines[1:] if line.split(",")[7]] == known
    assert [row["track"] for row in json.loads((tmp_path / "a.json").read_text()) if row["track"]] == known
    assert [number for number in parquet.read_table(tmp_path / "a.parquet")["track"].to_pylist() if number] == known
    assert not caplog.records


def test_spells_end_where_a_frame_is_missed():
    rows = [("a#0", 0, 1), ("a#0", 0, 2), ("a#1", 1, 1), ("a#3", 3, 1), ("a#4", 4, None)]
    rows = [(path, 1, 1, 9, 9, "mask", 0.9, track, frame, frame / 10) for path, frame, track in rows]
    table = annotations.make_table(rows, video.VIDEO_COLUMNS).astype({"track": "Int64"})
    spells = when_visible(table, {1: "mask", 2: "no_mask"})
    assert spells[["track", "class_name", "first", "last"]].to_numpy().tolist() == [
        [1, "mask", 0, 0.1], [1, "mask", 0.3, 0.3], [2, "no_mask", 0, 0]
    ]  # fmt: skip


def test_the_figure_has_a_line_a_person_in_the_color_of_the_class(film):
    found = annotate_video(Walkers(), film)
    counts, spells = counts_by_frame(found.table, CLASSES), when_visible(found.table, found.people)
    figure = counts_over_time(counts, spells)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["mask", "no_mask", "5 people"]
    pale, solid = figure.axes[-1].collections
    assert len(pale.get_segments()) == 5 and len(solid.get_segments()) == len(spells) > 5
    colors = {tuple(color) for color in solid.get_colors()}
    assert len(colors) == 2
    assert len(counts_over_time(counts, spells[:0]).axes) == 2


# --- Hidden faces ---


@pytest.mark.parametrize("tracking", [True, False])
def test_faces_are_hidden_in_what_is_drawn_also_where_one_is_missed(tracking, tmp_path):
    """A striped face at a place; the tenth of 20 frames misses it."""

    class Missing:
        class_names, count = CLASSES, 0

        def __call__(self, images_rgb, score_threshold):
            self.count += 1
            return [
                NOBODY
                if self.count == 10
                else Detections(np.array([[40.0, 20, 80, 70]]), np.array([0.9]), np.zeros(1, int))
            ]

    image_rgb = np.full((90, 160, 3), 128, np.uint8)
    image_rgb[:, ::4] = 0
    image_rgb[:, 1::4] = 255
    with video_file(tmp_path / "a.gif") as file:
        for number in range(20):
            file.write(image_rgb, number / 10, 0.1)
    written = tmp_path / "drawn.gif"
    annotate_video(Missing(), tmp_path / "a.gif", written, batch_size=1, tracking=tracking, anonymise="blur")
    with frames(written) as drawn:
        pictures = [frame.image_rgb for frame in drawn]
    stripes = [np.abs(np.diff(image[40:60, 50:70].astype(int), axis=1)).mean() for image in pictures]
    assert max(stripes[:9] + stripes[10:]) < 10 and (stripes[9] < 10) == tracking
    assert np.abs(pictures[9][40:60, 100:150].astype(int) - image_rgb[40:60, 100:150]).mean() < 8


# --- The window ---


@pytest.fixture()
def screen(monkeypatch):
    """Stands for OpenCV's window; its keys are those of `keys`, one a picture, then none."""
    shown, keys = [], []
    monkeypatch.setattr(window.Window, "check", staticmethod(lambda: None))
    monkeypatch.setattr(cv2, "namedWindow", lambda title, flags: None)
    monkeypatch.setattr(cv2, "imshow", lambda title, image_bgr: shown.append((title, image_bgr)))
    monkeypatch.setattr(cv2, "waitKey", lambda ms: keys[len(shown) - 1] if 0 < len(shown) <= len(keys) else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda title, what: float(len(shown) < 30))
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append(None))
    return shown, keys


@pytest.mark.parametrize(("key", "count"), [(ord("q"), 3), (27, 3), (ord("a"), 30)])
def test_a_window_shows_the_drawn_frames_until_it_is_closed(key, count, screen, film, tmp_path):
    shown, keys = screen
    keys += [-1, -1, key]
    found = annotate_video(Walkers(), film, tmp_path / "drawn.mp4", show=True)
    assert found.frames == count and found.remarks == [f"{film}: stopped after {count} frames"]
    assert shown.pop() is None and len(shown) == count and shown[0][0] == "walkers.mp4 (q ends)"
    with frames(tmp_path / "drawn.mp4") as drawn:
        written = [frame.image_rgb for frame in drawn]
    assert len(written) == count
    for (_, image_bgr), image_rgb in zip(shown, written, strict=True):
        assert np.abs(image_bgr[..., ::-1].astype(int) - image_rgb[: len(image_bgr)]).mean() < 6


def test_without_a_display_the_reason_is_told(film, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(VideoError, match=r"no window can be opened \(.*display.*\); show it where"):
        annotate_video(Walkers(), film, show=True)


def test_without_windows_in_opencv_the_reason_is_told(film, monkeypatch):
    monkeypatch.setattr(window, "_TRY", "import sys; sys.exit('The function is not implemented. Rebuild the library')")
    with pytest.raises(VideoError, match=r"\(The function is not implemented. Rebuild the library\)"):
        annotate_video(Walkers(), film, show=True)


@pytest.mark.skipif("DISPLAY" not in os.environ, reason="needs a display, such as that of xvfb-run")
def test_a_real_window_opens(film):
    assert annotate_video(Walkers(), film, show=True, limit=10).frames == 10


# --- The command ---


@pytest.fixture()
def command(monkeypatch, film, tmp_path):
    """Runs `retinamask detect` on the film in an empty folder."""
    monkeypatch.setattr("retinamask.commands.detect.load_predictor", lambda _: Walkers())
    snapshot = type("Snapshot", (), {"thresholds": {"mask": 0.5, "no_mask": 0.5}})
    monkeypatch.setattr("retinamask.detectors.snapshots.read", lambda _: snapshot)
    monkeypatch.chdir(tmp_path)
    return lambda *given, source=film: main(["detect", str(source), *given, "--snapshot", "s.h5"])


def test_detect_says_how_many_people_and_writes_their_numbers(command, capsys):
    assert command("--counts", "counts.csv", "--out", "a.parquet") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "5 people: mask 3, no_mask 2"
    with Image.open("counts.png") as figure:
        assert figure.height > 400
    assert set(parquet.read_table("a.parquet")["track"].to_pylist()) == {None, 1, 2, 3, 4, 5}
    assert command("--no-track", "--frames", "3", "--force") == 0 and "people" not in capsys.readouterr().out


def test_detect_shows_and_hides(command, screen, capsys, monkeypatch):
    hidden = []
    monkeypatch.setattr(video, "hide", lambda image_rgb, boxes_xyxy, how: hidden.append(how) or image_rgb)
    assert command("--anonymise", "pixelate", "--show", "--frames", "4") == 0
    assert hidden == ["pixelate"] * 4 and len(screen[0]) == 5
    assert command("--anonymise", "blur", "--force") == 2
    assert "--anonymise has no effect on a video without --out-video or --show" in capsys.readouterr().err


def test_without_a_display_nothing_is_loaded(command, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setattr("retinamask.commands.detect.load_predictor", lambda _: pytest.fail("loaded"))
    assert command("--show", source="0") == 2 and "no window can be opened (" in capsys.readouterr().err


def test_what_is_for_videos_is_refused_on_images(command, capsys, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    for option in ("--show", "--track", "--no-track"):
        assert command(option, source="a.png") == 2
        assert f"{option} has no effect on images" in capsys.readouterr().err


LIES = [(60.0, "", 0), (1.0, "95 frames read, 7.6 seconds, though it says that it has 1.0", 1)]  # FFmpeg corrects 60


@pytest.mark.parametrize(("announced", "told", "status"), LIES)
def test_a_video_that_lies_about_its_length_is_told_and_all_of_it_kept(
    announced, told, status, command, film, capsys, tmp_path
):
    """The times in the headers `mvhd`, `tkhd` and `mdhd` of ISO 14496-12 are written over; the samples stay."""
    content = bytearray(film.read_bytes())
    for box, offset, clock in ((b"mvhd", 20, 1000), (b"tkhd", 24, 1000), (b"mdhd", 20, 90_000)):
        at = content.index(box) + offset
        assert struct.unpack_from(">I", content, at)[0] == pytest.approx(7.6 * clock, abs=clock / 10)
        struct.pack_into(">I", content, at, round(announced * clock))
    (tmp_path / "lie.mp4").write_bytes(content)
    assert command(source="lie.mp4") == status
    caught = capsys.readouterr()
    assert told in caught.err and "in 95 frames" in caught.out and "5 people" in caught.out
