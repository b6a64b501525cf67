"""labelImg sessions, for real: the window in its own process, real mouse events, and what is left when it closes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from retinamask.cli import main
from retinamask.dataset.annotations import image_paths, objects, read_annotations, read_classes
from retinamask.dataset.formats import read_voc, write_voc
from retinamask.dataset.sample import draw_sample
from retinamask.labelimg import process

STEPS = Path(__file__).with_name("labelimg_steps.py")
NAMES = ["Größe 人 & <1>.jpg", "scene 2.jpg", "scene 10.jpg"]  # in the order in which labelImg shows them
CLASSES = "mask,0\nno_mask,1\n"


@pytest.fixture(scope="session")
def qt() -> dict[str, str]:
    """An environment in which Qt draws without a screen; skips where PyQt5 cannot load its libraries."""
    environment = {**process.environment(), "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-c", "import PyQt5.QtTest; from PyQt5.QtWidgets import QApplication as A; A([])"]
    tried = subprocess.run(command, env=environment, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"PyQt5 does not start here: {tried.stderr[-300:]}")
    return environment


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Three drawn scenes of 256 px under awkward names, a class list, and a home with labelImg settings in it."""
    drawn = draw_sample(tmp_path / "drawn", images=3, size=256, seed=1)
    (tmp_path / "my images").mkdir()
    for path, name in zip(drawn, NAMES, strict=True):
        path.rename(tmp_path / "my images" / name)
    (tmp_path / "classes.csv").write_text(CLASSES)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".labelImgSettings.pkl").write_bytes(b"cos\nsystem\n(S'touch \"$HOME/pickle-was-run\"'\ntR.")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Annotating:
    """The command ``retinamask annotate``, whose window is led through steps; the rest is as it always is."""

    def __init__(self, folder: Path, monkeypatch, capsys):
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys

    def __call__(self, *steps, options=(), expected=0):
        report = self.folder / "report.json"
        script = self.folder / "steps.json"
        script.write_text(json.dumps({"steps": steps, "report": str(report)}))
        with self.monkeypatch.context() as patch:
            patch.setenv("QT_QPA_PLATFORM", "offscreen")
            patch.setattr(process, "WINDOW", [sys.executable, str(STEPS), "repaired", str(script)])
            status = main(["annotate", str(self.folder / "my images"), "--annotations", "labels", *options])
        said = self.capsys.readouterr()
        assert status == expected, said
        self.out, self.err = said.out, said.err
        self.report = json.loads(report.read_text())

    def returned(self, name: str) -> list:
        """What the steps of that name returned, in their order."""
        return [returned for step, returned in self.report if step == name]


@pytest.fixture
def annotate(qt, data, monkeypatch, capsys) -> Annotating:
    return Annotating(data, monkeypatch, capsys)


def boxes_of(table, name: str) -> list[tuple]:
    rows = table[table["image_path"].str.endswith(name)]
    return sorted(tuple(row) for row in rows[["class_name", "x1", "y1", "x2", "y2"]].itertuples(index=False))


def assert_drawn(found: list[tuple], drawn: list[tuple]) -> None:
    """Equal classes, and every edge within a pixel: labelImg rounds the cursor's place and cuts off fractions."""
    assert [name for name, *_ in found] == [name for name, *_ in sorted(drawn)]
    for (_, *box), (_, *expected) in zip(found, sorted(drawn), strict=True):
        assert box == pytest.approx(expected, abs=1)


# --- What a person does ---


@pytest.mark.parametrize(("port_format", "suffix"), [("voc", ".xml"), ("yolo", ".txt")])
def test_a_whole_session(annotate, data, port_format, suffix):
    annotate(
        ["state"],
        ["view"],
        ["draw", 20, 30, 80, 100, "mask"],
        ["wheel", 90, True],
        ["wheel", 2400, True],
        ["wheel", -300, False],
        ["pan", 200, 200, 150, 120],
        ["draw", 100, 110, 150, 190, "mask"],
        ["relabel", 1, "no_mask"],
        ["hide_others", "mask"],
        ["key", "ctrl+s"],
        ["state"],
        ["key", "d"],
        ["draw", 40, 50, 140, 160, "no_mask"],
        ["key", "d"],  # saves by itself
        ["state"],
        ["key", "space"],  # no face here
        ["state"],
        ["close"],
        options=["--port-format", port_format],
    )
    start, saved, after_next, last = annotate.returned("state")
    (fitted,), (near, far, lower), (panned,) = map(annotate.returned, ("view", "wheel", "pan"))
    (first, second, third), (relabelled,) = map(annotate.returned, ("draw", "relabel"))
    assert start["listed"] == NAMES and start["classes"] == ["mask", "no_mask"] and start["boxes"] == []
    assert first == ["mask"]
    assert near["zoom"] == round(fitted["zoom"] + 7.5) and far["zoom"] == near["zoom"] + 200  # 10 % a notch of 120
    assert lower["down"] > far["down"] and lower["right"] == far["right"]
    assert (panned["right"], panned["down"]) == (12, 70)  # by 25 and 50, 40 and 80 px / 120 * 20, each rounded
    assert second == ["mask", "mask"] and relabelled == ["mask", "no_mask"]
    assert saved["boxes"] == relabelled and not saved["dirty"]
    assert third == ["no_mask"] and after_next["file"] == NAMES[2] and not after_next["dirty"]
    assert last["verified"]

    assert sorted(path.name for path in Path("labels").glob(f"*{suffix}") if path.name != "classes.txt") == sorted(
        Path(name).stem + suffix for name in NAMES
    )
    table = read_annotations("annotations.csv", read_classes("classes.csv"))
    assert sorted(image_paths(table)) == sorted(f"my images/{name}" for name in NAMES)
    assert_drawn(boxes_of(table, NAMES[0]), [("mask", 20, 30, 80, 100), ("no_mask", 100, 110, 150, 190)])
    assert_drawn(boxes_of(table, NAMES[1]), [("no_mask", 40, 50, 140, 160)])
    assert table[table["image_path"].str.endswith(NAMES[2])]["x1"].isna().all()
    assert "3 new, 0 changed, 0 deleted" in annotate.out and "left to annotate: 0 of 3" in annotate.out
    assert "failed" not in annotate.err and Path("classes.csv").read_text() == CLASSES
    if port_format == "voc":
        read, problems = read_voc(["labels"], ".", image_folder="my images")
        assert problems == [] and len(objects(read)) == 3
    else:
        assert Path("labels/classes.txt").read_text() == "mask\nno_mask\n"


def test_correcting_what_is_there(annotate):
    annotate(["draw", 20, 30, 80, 100, "mask"], ["key", "ctrl+s"], ["close"])
    before = Path("annotations.csv").read_text()
    annotate(["state"], ["resize_box", 80, 100, 120, 140], ["key", "left"], ["key", "d"], ["close"])
    assert annotate.returned("state")[0]["boxes"] == ["mask"]
    table = read_annotations("annotations.csv")
    assert_drawn(boxes_of(table, NAMES[0]), [("mask", 19, 30, 119, 140)])
    assert "0 new, 1 changed, 0 deleted" in annotate.out
    (backup,) = Path().glob("annotations.csv.*.bak")
    assert backup.read_text() == before and f"kept as {backup.name}" in annotate.out
    annotate(["close"])
    assert "0 new, 0 changed, 0 deleted" in annotate.out and len(list(Path().glob("*.bak"))) == 1


def test_a_box_past_the_image_asks_nothing_at_the_start(annotate, data):
    """labelImg moves its edge inside, which counts as a change; it used to ask whether to save before anything."""
    (data / "labels").mkdir()
    write_voc(
        data / "labels" / "Größe 人 & <1>.xml", data / "my images" / NAMES[0], (256, 256), [[9, 9, 300, 99]], ["mask"]
    )
    annotate(["state"], ["key", "d"], ["close"])
    assert annotate.returned("state")[0]["boxes"] == ["mask"]
    assert boxes_of(read_annotations("annotations.csv"), NAMES[0]) == [("mask", 9, 9, 256, 99)]


def test_going_on_from_the_file_list_saves(annotate):
    """labelImg drops what is not saved there, without a question."""
    annotate(["draw", 20, 30, 80, 100, "mask"], ["show_image", 2], ["state"])
    assert annotate.returned("state")[0]["file"] == NAMES[2]
    assert_drawn(boxes_of(read_annotations("annotations.csv"), NAMES[0]), [("mask", 20, 30, 80, 100)])


def test_an_image_is_deleted_only_when_that_is_meant(annotate, data):
    annotate(["draw", 20, 30, 80, 100, "mask"], ["key", "ctrl+s"], ["delete_image", "no"], ["state"])
    assert annotate.returned("state")[0]["listed"] == NAMES
    annotate(["delete_image", "yes"], ["state"])
    assert annotate.returned("state")[0]["listed"] == NAMES[1:] and not (data / "my images" / NAMES[0]).exists()
    assert "1 image(s) were deleted in labelImg" in annotate.err and "left to annotate: 2 of 2" in annotate.out


def test_new_classes_are_added_at_the_end_and_slips_named(annotate):
    annotate(
        ["draw", 20, 30, 80, 100, "Hat"],
        ["key", "d"],
        ["draw", 20, 30, 80, 100, "No_mask"],
        ["key", "ctrl+s"],
        ["close"],
    )
    assert read_classes("classes.csv") == {"mask": 0, "no_mask": 1, "Hat": 2, "No_mask": 3}
    assert "added to classes.csv" in annotate.out and "'no_mask' and 'No_mask' count as two classes" in annotate.err


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        ([["draw", 20, 30, 80, 100, "mask"]], "paintEvent"),
        ([["wheel", 120, True]], "zoom_request"),
        ([["wheel", -120, False]], "scroll_request"),
    ],
    ids=["draw", "zoom", "scroll"],
)
def test_the_same_steps_end_plain_labelimg(qt, data, steps, place):
    """On Python 3.10 and later; the repaired window goes through them in the other tests and here."""
    (data / "classes.txt").write_text("mask\nno_mask\n")
    (data / "steps.json").write_text(json.dumps({"steps": steps, "report": "report.json"}))
    session = {
        "image_folder": str(data / "my images"),
        "images": [str(data / "my images" / name) for name in NAMES],
        "classes_file": str(data / "classes.txt"),
        "annotation_folder": str(data),
        "port_format": "voc",
        "events_file": str(data / "events.jsonl"),
    }
    (data / "session.json").write_text(json.dumps(session))
    (data / "home" / ".labelImgSettings.pkl").unlink()
    ended = {
        kind: subprocess.run(
            [sys.executable, str(STEPS), kind, "steps.json", "session.json"],
            env={**qt, "HOME": str(data / "home")},
            capture_output=True,
            text=True,
        )
        for kind in ("plain", "repaired")
    }
    assert ended["plain"].returncode == -signal.SIGABRT
    assert "TypeError" in ended["plain"].stderr and "unexpected type 'float'" in ended["plain"].stderr
    assert f"in {place}" in ended["plain"].stderr
    assert ended["repaired"].returncode == 0 and "Traceback" not in ended["repaired"].stderr


# --- When something goes wrong ---


def test_an_exception_does_not_end_the_session(annotate):
    annotate(["break_in_a_slot"], ["draw", 20, 30, 80, 100, "mask"], ["key", "ctrl+s"], ["close"])
    assert "labelImg failed, and went on: ZeroDivisionError" in annotate.err
    assert len(objects(read_annotations("annotations.csv"))) == 1


def test_a_killed_window_is_reported_and_what_it_saved_is_read(annotate):
    steps = [["draw", 20, 30, 80, 100, "mask"], ["key", "ctrl+s"], ["draw", 100, 30, 180, 100, "mask"], ["die"]]
    annotate(*steps, expected=1)
    assert "labelImg ended with signal 9 (SIGKILL)" in annotate.err and "no image" not in annotate.err
    assert_drawn(boxes_of(read_annotations("annotations.csv"), NAMES[0]), [("mask", 20, 30, 80, 100)])


def test_a_file_that_cannot_be_written_is_said_and_nothing_is_lost(annotate, data):
    folder = data / "labels" / f"{Path(NAMES[0]).stem}.xml"
    annotate(["draw", 20, 30, 80, 100, "mask"], ["make_unwritable", str(folder)], ["key", "ctrl+s"], ["state"])
    (here,) = annotate.returned("state")
    assert here["dirty"] and here["boxes"] == ["mask"]
    assert "not saved" in annotate.err


def test_the_real_window_saves_and_closes_when_asked_to(qt, data):
    """Nothing replaced: the command as a user starts it, ended with Ctrl-C."""
    command = [sys.executable, "-c", "import sys; from retinamask.cli import main; sys.exit(main(sys.argv[1:]))"]
    given = ["annotate", "my images", "--annotations", "labels"]
    (data / "tmp").mkdir()
    environment = {**qt, "HOME": str(data / "home"), "TMPDIR": str(data / "tmp")}
    options = {"env": environment, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([*command, *given], **options) as started:
        loaded = ""
        while "seen" not in loaded and started.poll() is None:
            time.sleep(0.05)
            loaded = "".join(path.read_text() for path in (data / "tmp").glob("*/events.jsonl"))
        os.killpg(started.pid, signal.SIGINT)  # as a terminal does: both processes get it
        said = started.stdout.read()
    assert "3 images; annotations go to" in said and "left to annotate: 3 of 3 images" in said
    assert started.returncode == 0 and list((data / "tmp").glob("retinamask-*")) == []


def test_files_that_go_elsewhere_are_said(annotate, data):
    annotate(["change_save_dir", str(data / "other")], ["draw", 20, 30, 80, 100, "mask"], ["key", "ctrl+s"])
    assert f"labelImg also saved to {data / 'other'}, which is not read here" in annotate.err


def test_no_screen_is_said(qt, data, capsys, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "no-such-platform")
    assert main(["annotate", "my images", "--annotations", "labels"]) == 1
    said = capsys.readouterr()
    assert "it showed no image: is there a screen?" in said.err and "no-such-platform" in said.err
    assert "nothing is annotated; annotations.csv is not written" in said.out


def test_the_settings_of_the_user_are_neither_read_nor_written(annotate, data):
    before = (data / "home" / ".labelImgSettings.pkl").read_bytes()
    annotate(["draw", 20, 30, 80, 100, "mask"], ["key", "ctrl+s"], ["close"])
    assert (data / "home" / ".labelImgSettings.pkl").read_bytes() == before
    assert not (data / "home" / "pickle-was-run").exists()


def test_opencvs_qt_is_not_inherited(monkeypatch):
    import cv2

    plugins = str(Path(cv2.__file__).parent / "qt" / "plugins")
    monkeypatch.setenv("QT_QPA_PLATFORM_PLUGIN_PATH", plugins)
    monkeypatch.setenv("QT_QPA_FONTDIR", str(Path(cv2.__file__).parent / "qt" / "fonts"))
    assert not {"QT_QPA_PLATFORM_PLUGIN_PATH", "QT_QPA_FONTDIR"} & set(process.environment())
    monkeypatch.setenv("QT_QPA_PLATFORM_PLUGIN_PATH", "/opt/my/plugins")
    assert process.environment()["QT_QPA_PLATFORM_PLUGIN_PATH"] == "/opt/my/plugins"


def test_the_window_loads_neither_opencv_nor_tensorflow(qt):
    code = "import sys, retinamask.labelimg.window; print({'cv2', 'tensorflow'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], env=qt, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr


def test_boxes_are_painted(annotate, data):
    """A picture of the window changes at the box's edge, and neither inside nor outside of it."""
    annotate(
        ["place", 100, 200],
        ["place", 120, 130],
        ["place", 30, 30],
        ["picture", str(data / "before.png")],
        ["draw", 60, 60, 180, 200, "mask"],
        ["key", "ctrl+s"],
        ["picture", str(data / "after.png")],
    )
    before, after = (Image.open(data / f"{name}.png").convert("RGB") for name in ("before", "after"))
    assert before.size == after.size == (1200, 800)
    changed = [before.getpixel(place) != after.getpixel(place) for place in map(tuple, annotate.returned("place"))]
    assert changed == [True, False, False]
