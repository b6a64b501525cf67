"""labelImg sessions, for real: the window in its own process, real mouse events, and what is left when it closes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from retinamask.cli import main
from retinamask.dataset.annotations import image_paths, objects, read_annotations, read_classes
from retinamask.dataset.formats import read, write_voc
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


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> list[Path]:
    return draw_sample(tmp_path_factory.mktemp("drawn"), images=3, size=256, seed=1)


@pytest.fixture
def data(tmp_path, scenes, monkeypatch) -> Path:
    """Three drawn scenes of 256 px under awkward names, a class list, and a home with labelImg settings in it."""
    (tmp_path / "my images").mkdir()
    for path, name in zip(scenes, NAMES, strict=True):
        shutil.copy(path, tmp_path / "my images" / name)
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
            places = ["--annotations", "labels", "--out", "annotations.csv", "--classes", "classes.csv"]
            status = main(["annotate", str(self.folder / "my images"), "--no-proposals", *places, *options])
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
    settings = (data / "home" / ".labelImgSettings.pkl").read_bytes()
    annotate(
        ["state"],
        ["view"],
        ["place", 20, 60],
        ["place", 50, 65],
        ["place", 200, 200],
        ["picture", str(data / "before.png")],
        ["draw", 20, 30, 80, 100, "mask"],
        ["picture", str(data / "after.png")],
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
        ["loaded"],
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
    assert annotate.returned("loaded") == [[]]
    assert (data / "home" / ".labelImgSettings.pkl").read_bytes() == settings
    assert not (data / "home" / "pickle-was-run").exists()
    before, after = (Image.open(data / f"{name}.png").convert("RGB") for name in ("before", "after"))
    assert before.size == after.size == (1200, 800)
    changed = [before.getpixel(place) != after.getpixel(place) for place in map(tuple, annotate.returned("place"))]
    assert changed == [True, False, False]  # at the box's edge, inside and outside

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
        table, problems = read("voc", ["labels"], ".", image_folder="my images")
        assert problems == [] and len(objects(table)) == 3
    else:
        assert Path("labels/classes.txt").read_text() == "mask\nno_mask\n"


def test_correcting_what_is_there(annotate, data):
    """One box ends past the image: labelImg moves its edge inside, and used to ask at once whether to save that."""
    (data / "labels").mkdir()
    path = data / "labels" / Path(NAMES[0]).with_suffix(".xml").name
    write_voc(path, data / "my images" / NAMES[0], (256, 256), [[9, 9, 300, 99]], ["mask"])
    Path("annotations.csv").write_text(f"my images/{NAMES[0]},9,9,256,99,mask\n")
    before = Path("annotations.csv").read_text()
    annotate(["state"], ["resize_box", 9, 99, 20, 140], ["key", "left"], ["key", "d"], ["close"])
    assert annotate.returned("state")[0]["boxes"] == ["mask"]
    assert_drawn(boxes_of(read_annotations("annotations.csv"), NAMES[0]), [("mask", 19, 9, 255, 140)])
    assert "0 new, 1 changed, 0 deleted" in annotate.out
    (backup,) = Path().glob("annotations.csv.*.bak")
    assert backup.read_text() == before and f"kept as {backup.name}" in annotate.out
    annotate(["close"])
    assert "0 new, 0 changed, 0 deleted" in annotate.out and list(Path().glob("*.bak")) == [backup]


def test_going_through_the_file_list_new_classes_and_deleting(annotate, data):
    """labelImg drops what is not saved when another image is chosen, and deletes an image without a question."""
    annotate(
        ["draw", 20, 30, 80, 100, "Hat"],
        ["show_image", 2],
        ["state"],
        ["draw", 30, 40, 90, 110, "No_mask"],
        ["key", "ctrl+s"],
        ["delete_image", "no"],
        ["state"],
        ["delete_image", "yes"],
        ["state"],
    )
    from_list, spared, deleted = annotate.returned("state")
    assert from_list["file"] == NAMES[2] and spared["listed"] == NAMES and deleted["listed"] == NAMES[:2]
    assert not (data / "my images" / NAMES[2]).exists()
    assert "1 image(s) were deleted in labelImg" in annotate.err and "left to annotate: 1 of 2" in annotate.out
    table = read_annotations("annotations.csv")
    assert_drawn(boxes_of(table, NAMES[0]), [("Hat", 20, 30, 80, 100)])
    assert image_paths(table) == [f"my images/{NAMES[0]}"]


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
    """On Python 3.10 and later; the repaired window goes through them in `test_a_whole_session`."""
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
    ended = subprocess.run(
        [sys.executable, str(STEPS), "plain", "steps.json", "session.json"],
        env={**qt, "HOME": str(data / "home")},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == -signal.SIGABRT
    assert "TypeError" in ended.stderr and "unexpected type 'float'" in ended.stderr
    assert f"in {place}" in ended.stderr


# --- When something goes wrong ---


def test_what_goes_wrong_is_reported_and_nothing_is_lost(annotate, data):
    """An exception that the repair knows nothing of, a file that cannot be written, and another folder to save to."""
    annotate(
        ["break_in_a_slot"],
        ["draw", 20, 30, 80, 100, "mask"],
        ["make_unwritable", str(data / "labels" / f"{Path(NAMES[0]).stem}.xml")],
        ["key", "ctrl+s"],
        ["state"],
        ["make_writable", str(data / "labels" / f"{Path(NAMES[0]).stem}.xml")],
        ["key", "d"],
        ["change_save_dir", str(data / "other")],
        ["draw", 100, 30, 180, 100, "mask"],
        ["key", "ctrl+s"],
        ["close"],
    )
    (unsaved,) = annotate.returned("state")
    assert unsaved["dirty"] and unsaved["boxes"] == ["mask"]
    assert "labelImg failed and continued: ZeroDivisionError" in annotate.err and "not saved" in annotate.err
    assert f"labelImg also saved to {data / 'other'}, which is not read here" in annotate.err
    table = read_annotations("annotations.csv")
    assert image_paths(table) == [f"my images/{NAMES[0]}"] and len(objects(table)) == 1


def test_a_killed_window_is_reported_and_what_it_saved_is_read(annotate):
    steps = [["draw", 20, 30, 80, 100, "mask"], ["key", "ctrl+s"], ["draw", 100, 30, 180, 100, "mask"], ["die"]]
    annotate(*steps, expected=1)
    assert "labelImg ended with signal 9 (SIGKILL)" in annotate.err and "no image" not in annotate.err
    assert_drawn(boxes_of(read_annotations("annotations.csv"), NAMES[0]), [("mask", 20, 30, 80, 100)])


def test_the_real_window_saves_and_closes_when_asked_to(qt, data):
    """Nothing replaced: the command as a user starts it, ended with Ctrl-C."""
    command = [sys.executable, "-c", "import sys; from retinamask.cli import main; sys.exit(main(sys.argv[1:]))"]
    given = ["annotate", "my images", "--annotations", "labels", "--no-proposals"]
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


def test_no_screen_is_said(qt, data, capsys, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "no-such-platform")
    assert main(["annotate", "my images", "--annotations", "labels", "--no-proposals"]) == 1
    said = capsys.readouterr()
    assert "it showed no image: is there a screen?" in said.err and "no-such-platform" in said.err
    assert "nothing was labelled" in said.out


def test_opencvs_qt_is_not_inherited(monkeypatch):
    import cv2

    plugins = str(Path(cv2.__file__).parent / "qt" / "plugins")
    monkeypatch.setenv("QT_QPA_PLATFORM_PLUGIN_PATH", plugins)
    monkeypatch.setenv("QT_QPA_FONTDIR", str(Path(cv2.__file__).parent / "qt" / "fonts"))
    assert not {"QT_QPA_PLATFORM_PLUGIN_PATH", "QT_QPA_FONTDIR"} & set(process.environment())
    monkeypatch.setenv("QT_QPA_PLATFORM_PLUGIN_PATH", "/opt/my/plugins")
    assert process.environment()["QT_QPA_PLATFORM_PLUGIN_PATH"] == "/opt/my/plugins"
