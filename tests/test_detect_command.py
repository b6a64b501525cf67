"""`retinamask detect` and `evaluate` with a stand-in for the network: stopped, resumed, drawn, summed up, judged."""

import errno
import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from PIL import Image

from retinamask.cli import main
from retinamask.commands import detect, models
from retinamask.dataset import files, formats
from retinamask.dataset.annotations import make_table, objects, read_detections, write_annotations, write_classes
from retinamask.detectors import snapshots
from retinamask.inference.detect import Detections
from retinamask.inference.suppression import filter_detections

NAMES = ["a/1.png", "a/2.png", "b/1.png", "b/2.bmp", "b/black.png"]
SNAPSHOT = ["--snapshot", "net.h5"]


class StandIn:
    """Sees in each image a face whose class, place and score follow from its colour; nothing in a black one."""

    class_names = ("mask", "no_mask")

    def __call__(self, images_rgb, score_threshold, suppress="any_class"):
        found = []
        for image_rgb in images_rgb:
            red, green, _ = (int(each) for each in image_rgb[0, 0])
            boxes_xyxy = np.array([[green % 4, 1, green % 4 + 4, 7]] * 2, np.float32)
            class_scores = np.array([[0.9, 0.6], [0.7, 0.8]][:: 1 if red % 2 else -1]) * (red > 0)
            kept = filter_detections(boxes_xyxy, class_scores, score_threshold, suppress=suppress)
            found.append(Detections(*kept, float(class_scores.max())))
        return found


def stand_in(replace=setattr) -> None:
    """Let the commands use the stand-in."""
    for module in (detect, models):
        replace(module, "load_predictor", lambda given: StandIn())
    known = {
        "weights": "net.h5",
        "classifies": False,
        "classes": {"mask": 0, "no_mask": 1},
        "thresholds": {"mask": 0.5, "no_mask": 0.5},
    }
    replace(snapshots, "read", lambda path: type("Snapshot", (), {**known, "record": {"weights_sha256": path}}))
    replace(snapshots, "check_classes", lambda snapshot, classes: None)


@pytest.fixture(autouse=True)
def stood_in(monkeypatch):
    stand_in(monkeypatch.setattr)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Six images in two folders, one black and one damaged."""
    for index, name in enumerate(NAMES):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (index + 1 if "black" not in name else 0, index, 9)).save(path)
    (tmp_path / "photos" / "a" / "damaged.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_it_says_in_two_lines_what_was_found_by_what_and_makes_the_folder(photos, capsys):
    assert main(["detect", "photos", *SNAPSHOT, "--out", "results/new/x.csv"]) == 1  # one could not be read
    said = capsys.readouterr()
    expected = "net.h5, score threshold 0.5\n"
    expected += "6 images: mask 4, no_mask 0, 1 image without a face, 1 unreadable: results/new/x.csv\n"
    assert said.out == expected and "left out: " in said.err and "damaged.jpg" in said.err
    table = read_detections("results/new/x.csv")
    assert len(objects(table)) == 4 and len(table) == 5
    assert {(Path("results/new") / path).resolve().is_file() for path in table["image_path"]} == {True}
    assert sorted(path.name for path in Path("results/new").iterdir()) == [".x.csv.run.json", "x.csv"]
    Path("photos/a/damaged.jpg").unlink()
    assert main(["detect", "photos", *SNAPSHOT, "--out", "y.csv", "--suppress", "per_class"]) == 0
    assert "mask 4, no_mask 4" in capsys.readouterr().out


def test_the_best_score_is_given_where_nothing_is_found(photos, capsys):
    assert main(["detect", "photos", *SNAPSHOT, "--score-threshold", "0.95"]) == 1
    said = capsys.readouterr().out
    assert "mask 0, no_mask 0, 5 images without a face" in said
    assert said.endswith("nothing at or above 0.95; the best score was 0.9\n")


def test_names_that_are_no_utf8_are_reported_and_the_rest_is_done(photos, capsys):
    try:
        shutil.copy("photos/a/1.png", b"photos/b/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    Path("photos/a/damaged.jpg").unlink()
    assert main(["detect", "photos", *SNAPSHOT]) == 0
    said = capsys.readouterr()
    assert "caf\\udce9.png: the name is not UTF-8; rename it" in said.err
    assert "5 images: mask 4" in said.out and "1 remark above on files that were left out" in said.out


def test_what_cannot_be_written_is_said_before_the_network_is_loaded(photos, monkeypatch, capsys):
    monkeypatch.setattr(detect, "load_predictor", None)
    Path("taken.csv").write_text("mine")
    Path("file").write_text("")
    for out, message in (("taken.csv", "taken.csv exists; choose another --out"), ("file/x.csv", "file")):
        assert main(["detect", "photos", *SNAPSHOT, "--out", out]) == 2
        assert message in capsys.readouterr().err
    assert Path("taken.csv").read_text() == "mine"


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than its bytes hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_bad_images_among_many_are_named_and_counted_and_the_rest_is_done(photos, capsys):
    Path("photos/a/damaged.jpg").unlink()
    assert main(["detect", "photos", *SNAPSHOT, "--out", "sound.csv"]) == 0
    whole = Path("photos/a/1.png").read_bytes()
    for name, content in {
        "a/0 bytes.jpg": b"",
        "a/11.png": whole[: len(whole) // 2],
        "a/huge.png": png_of(40_000, 40_000),
        "b/0.png": png_of(5000, 5000),
    }.items():
        Path("photos", name).write_bytes(content)
    assert main(["detect", "photos", *SNAPSHOT, "--out", "x.csv", "--batch-size", "2"]) == 1
    said = capsys.readouterr()
    assert "9 images: mask 4, no_mask 0, 1 image without a face, 4 unreadable: x.csv" in said.out
    for found in (
        "0 bytes.jpg: not a readable image",
        "11.png: damaged image",
        "huge.png: more pixels",
        "b/0.png: dam",
    ):
        assert found in said.err
    assert Path("x.csv").read_text() == Path("sound.csv").read_text()


# --- Sources ---


def standard_input(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_globs_lists_and_standard_input_name_the_same_images(photos, monkeypatch, capsys):
    names = [f"photos/{name}" for name in NAMES]
    Path("list.txt").write_bytes("\ufeff{}\n\n".format("\r\n".join(names)).encode())  # as Windows writes it
    Path("photos/a/notes.heic").write_text("")
    Path("a[1].png").write_bytes(Path("photos/a/1.png").read_bytes())
    texts = {}
    for number, sources in enumerate([["photos/**/[12b]*.*"], ["list.txt"], ["-"], ["photos/?/[!d]*"], names]):
        standard_input(monkeypatch, "\n".join(names).encode())
        assert main(["detect", *sources, *SNAPSHOT, "--out", f"{number}.csv"]) == 0
        texts[number] = Path(f"{number}.csv").read_text()
    assert len(set(texts.values())) == 1 and texts[0].count("\n") == 6
    assert "left out: 1 file ending in .heic is not read" in capsys.readouterr().err
    assert (
        main(["detect", "a[1].png", "photos/a", *SNAPSHOT, "--out", "both.csv"]) == 1
    )  # a file's own name comes first
    assert "4 images: mask 3" in capsys.readouterr().out


def test_drawn_copies_of_a_list_keep_their_folders(photos):
    Path("list.lst").write_text("photos/a/1.png\nphotos/b/1.png\n")
    assert main(["detect", "list.lst", *SNAPSHOT, "--save-images", "drawn"]) == 0
    assert sorted(path.relative_to("drawn").as_posix() for path in Path("drawn").rglob("*.*")) == ["a/1.png", "b/1.png"]


def test_drawn_copies_of_linked_folders_stay_in_their_folder(photos, tmp_path, monkeypatch):
    """A link leads up to another place than its name says; nothing may be written there."""
    for name in ("deep/er", "work/here"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "deep" / "er" / "link").symlink_to(photos)
    (photos / "b" / "out..").symlink_to("../a")
    before = sorted(photos.rglob("*"))
    monkeypatch.chdir("work/here")
    sources = {"one": ["../../deep/er/link/b"], "two": ["../../deep/er/link/b/*.png"], "three": ["../../photos/b"]}
    for to, source in sources.items():
        assert main(["detect", *source, *SNAPSHOT, "--out", f"{to}.csv", "--save-images", f"drawn/{to}"]) in (0, 1)
    found = {
        to: {path.relative_to(f"drawn/{to}").as_posix() for path in Path("drawn", to).rglob("*.*")} for to in sources
    }
    plain = {"1.png", "2.bmp.jpg", "black.png"}
    assert found == {
        "one": plain | {"a/1.png", "a/2.png"},
        "two": {"1.png", "black.png"},
        "three": plain | {"a/1.png", "a/2.png"},
    }
    assert sorted(photos.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "photos", "work"]
    assert sorted(path.name for path in Path().glob("[!.]*")) == ["drawn", "one.csv", "three.csv", "two.csv"]


def test_what_a_list_names_and_is_not_there_is_named_and_counted(photos, capsys):
    Path("list.txt").write_text(f"photos/a/1.png\nphotos/gone.png\nphotos/b\n{'long' * 100}.png\n")
    assert main(["detect", "list.txt", *SNAPSHOT]) == 1
    said = capsys.readouterr()
    assert "6 images: mask 3, no_mask 0, 1 image without a face, 2 unreadable" in said.out
    assert "left out: photos/gone.png does not exist; expected an image file" in said.err and "longlong" in said.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no image, expected UTF-8 text with a path a line"),
        (b" \n\r\n", "names no image"),
        (b"0 0.5 0.5 0.1 0.1\n", "none of its 1 line(s) names a file that exists, such as 0 0.5 0.5 0.1 0.1"),
        ("photos/a/1.png".encode("utf-16"), "holds NUL bytes, expected UTF-8 text"),
        (b"caf\xe9.png\n", "such as caf\\udce9.png; expected a path a line, relative to the folder where"),
    ],
)
def test_a_list_that_is_none(content, message, photos, monkeypatch, capsys):
    monkeypatch.setattr(detect, "load_predictor", None)
    Path("list.txt").write_bytes(content)
    for source, where in (("list.txt", "list.txt"), ("-", "standard input")):
        standard_input(monkeypatch, content)
        assert main(["detect", source, *SNAPSHOT]) == 2
        said = capsys.readouterr().err
        assert message in said and said.startswith(f"retinamask: {where}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("*.jpg", "*.jpg matches nothing; expected folders or files ending in .jpg, .jpeg, "),
        ("*.gif", "*.gif matches nothing; expected folders or files ending in .jpg, .jpeg, "),
        ("[bc].m*", "[bc].m* matches 2 file(s) of other kinds, such as b.md; expected folders or files ending in .jpg"),
        ("gone.txt", "gone.txt does not exist"),
    ],
)
def test_sources_that_are_not_there(source, message, photos, capsys):
    for name in ("b.md", "c.mp4"):
        Path(name).write_text("no image")
    assert main(["detect", source, *SNAPSHOT]) == 2
    assert message in capsys.readouterr().err


# --- Outputs ---


def test_every_file_holds_the_same_table(photos):
    for ending in ("csv", "parquet", "json"):
        assert main(["detect", "photos", *SNAPSHOT, "--out", f"x.{ending}"]) == 1
    found = read_detections("x.csv")
    assert len(found) == 5
    for ending in ("parquet", "json"):
        pd.testing.assert_frame_equal(read_detections(f"x.{ending}"), found)
    pd.testing.assert_frame_equal(pd.read_csv("x.csv"), pd.read_parquet("x.parquet"), check_dtype=False)


@pytest.mark.parametrize("to", ["voc", "yolo", "coco"])
def test_every_format_holds_the_same_boxes(to, photos, monkeypatch):
    monkeypatch.setattr("retinamask.inference.detect_in_parts.PART", 2)
    Path("photos/a/damaged.jpg").unlink()
    assert main(["detect", "photos", *SNAPSHOT, "--out", f"new/{to}", "--to", to, "--resume"]) == 0
    assert main(["detect", "photos", *SNAPSHOT]) == 0
    assert sorted(path.name for path in Path("new").glob("[!.]*")) == [to]
    table, problems = formats.read(to, [f"new/{to}"], ".", None if to == "yolo" else "photos")
    if to == "yolo":  # it links to the images
        names = [f"photos/{path.removeprefix('new/yolo/obj_train_data/')}" for path in table["image_path"]]
        table["image_path"] = pd.Series(names, dtype=object)
    assert problems == []
    expected = read_detections("detections.csv").drop(columns="score")
    pd.testing.assert_frame_equal(table, expected, check_exact=False, atol=1e-6)
    assert formats.classes_of(to, [Path("new", to)], table) == {"mask": 0, "no_mask": 1}


def test_boxes_of_less_than_a_pixel_do_not_spoil_a_format(photos, monkeypatch, capsys):
    thin = Detections(np.array([[0, 0, 0.3, 9], [1, 1, 9, 9]]), np.array([0.9, 0.8]), np.array([0, 1]), 0.9)
    monkeypatch.setattr(StandIn, "__call__", lambda self, images_rgb, *options: [thin] * len(images_rgb))
    assert main(["detect", "photos/a/1.png", "photos/b", *SNAPSHOT, "--out", "x", "--to", "voc"]) == 0
    assert "4 of less than a pixel, which voc cannot hold, are not in it" in capsys.readouterr().out
    table, _ = formats.read("voc", ["x"], ".", "photos")
    assert table["class_name"].tolist() == ["no_mask"] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x.txt"], "x.txt: found no known ending, expected one of .csv, .parquet, .json"),
        (["--out", "photos"], "photos is a folder; add --to voc, yolo or coco, or name a file"),
        (["--out", "photos", "--to", "voc", "--force"], "photos exists; --to voc writes into a new or empty folder"),
        (["--out", "x.json", "--to", "coco"], "--to coco writes a folder; choose another --out than x.json"),
        (["--to", "coco"], "--to coco writes a folder; choose another --out than detections.csv"),
        (["--anonymise", "blur"], "--anonymise has no effect without --save-images DIR"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_the_network_is_loaded(options, message, photos, monkeypatch, capsys):
    monkeypatch.setattr(detect, "load_predictor", None)
    assert main(["detect", "photos", *SNAPSHOT, *options]) == 2
    assert message in capsys.readouterr().err and not list(Path().glob("*.parts"))


def test_a_name_that_a_format_cannot_hold_is_said_before_the_run(photos, capsys):
    shutil.copy("photos/a/1.png", "photos/a/two\nlines.png")
    assert main(["detect", "photos", *SNAPSHOT, "--out", "x", "--to", "yolo"]) == 2
    assert "found the name 'photos/a/two\\nlines.png', expected names without line ends" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["blur", "pixelate"])
def test_anonymised_copies_hide_faces_and_show_no_boxes(how, photos):
    noise = np.random.default_rng(0).integers(1, 256, (30, 40, 3), np.uint8)
    noise[0, 0] = 1, 0, 0  # the stand-in sees a face at 0, 1, 4, 7
    Image.fromarray(noise).save("photos/a/1.png")
    assert main(["detect", "photos/a/1.png", *SNAPSHOT, "--save-images", "safe", "--anonymise", how]) == 0
    with Image.open("safe/1.png") as image:
        changed = (np.asarray(image) != noise).any(axis=2)
    assert changed[1:7, :4].all() and not changed[8:].any() and not changed[:, 5:].any()


def test_a_full_disk_keeps_what_is_done(photos, monkeypatch, capsys):
    monkeypatch.setattr("retinamask.inference.detect_in_parts.PART", 1)
    Path("photos/a/damaged.jpg").unlink()
    command, to_disk = ["detect", "photos", *SNAPSHOT, "--out"], files.to_disk

    def full(path):
        if "part-000000003" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        to_disk(path)

    with monkeypatch.context() as patched:
        patched.setattr(files, "to_disk", full)
        assert main([*command, "x.parquet"]) == 2
    said = capsys.readouterr().err
    assert "x.parquet is not finished ([Errno 28] No space left on device); x.parquet.parts keeps what is done" in said
    assert len(list(Path("x.parquet.parts").glob("*"))) == 4 and not Path("x.parquet").exists()
    assert main([*command, "x.parquet", "--resume"]) == 0 and main([*command, "x.csv"]) == 0
    pd.testing.assert_frame_equal(read_detections("x.parquet"), read_detections("x.csv"))


def test_evaluation_counts_the_boxes_of_each_class_and_names_copies(photos, capsys):
    """Each face is annotated as no_mask, which the stand-in says second: found only if classes are kept apart."""
    Path("photos/a/damaged.jpg").unlink()
    table = [(f"photos/{name}", index % 4, 1, index % 4 + 4, 7, "no_mask") for index, name in enumerate(NAMES[:4])]
    write_annotations(make_table(table), "true.csv")
    write_classes({"mask": 0, "no_mask": 1}, "classes.csv")
    command = ["evaluate", "true.csv", "classes.csv", "--out", "figures.json", "--force"]
    ap50 = {}
    for options in ((), ("--suppress", "any_class"), ("--score-threshold", "0.95")):
        assert main([*command, *SNAPSHOT, *options]) == 0
        ap50[options] = json.loads(Path("figures.json").read_text())["AP50"]
    said = capsys.readouterr()
    assert list(ap50.values()) == [1.0, 0.0, 0.0]
    assert "detections from score 0.05 on, suppressed per_class" in said.out and "from score 0.95 on" in said.out
    lines = [line.split()[:6] for line in said.out.splitlines()]
    header = lines.index(["class", "AP", "AP50", "AP75", "AR100", "boxes"])
    assert lines[header + 1 : header + 3] == [["mask", *"----", "0"], ["no_mask", *["1.000"] * 4, "4"]]
    assert "4 of 4 images are copies of each other, in 1 group, such as photos/a/1.png and photos/a/2.png" in said.err
    assert main([*command, "--detections", "x.csv", "--suppress", "any_class"]) == 2
    assert "--suppress has no effect on --detections" in capsys.readouterr().err


def test_not_one_image_can_be_read(photos, capsys):
    assert main(["detect", "photos/a/damaged.jpg", *SNAPSHOT, "--out", "x.csv"]) == 2
    assert "none of the 1 image(s) can be read, such as: " in capsys.readouterr().err
    assert sorted(path.name for path in photos.parent.iterdir()) == ["photos"]


def test_drawn_copies_keep_folders_and_replace_nothing(photos, capsys):
    Path("photos/a/damaged.jpg").unlink()
    command = ["detect", "photos", *SNAPSHOT, "--out", "x.csv", "--save-images", "drawn/here"]
    assert main(command) == 0
    drawn = sorted(path.relative_to("drawn/here").as_posix() for path in Path("drawn").rglob("*.*"))
    assert drawn == ["a/1.png", "a/2.png", "b/1.png", "b/2.bmp.jpg", "b/black.png"]
    with Image.open("drawn/here/a/1.png") as image, Image.open("photos/a/1.png") as plain:
        assert image.size == plain.size and image.tobytes() != plain.tobytes()
    with Image.open("drawn/here/b/black.png") as image:
        assert image.getextrema() == ((0, 0), (4, 4), (9, 9))
    Path("x.csv").unlink()
    assert main(command) == 2
    assert "drawn/here/a/1.png exists; choose another --save-images" in capsys.readouterr().err
    assert not Path("x.csv").exists()
    assert main([*command, "--force"]) == 0
    two = ["detect", "photos/a", "photos/b", *SNAPSHOT, "--out", "y.csv", "--save-images", "two"]
    assert main(two) == 0 and Path("two/a/1.png").is_file() and Path("two/b/1.png").is_file()


@pytest.mark.parametrize(
    ("sources", "folder", "message"),
    [
        (["photos"], "photos/drawn", "lies in photos, where drawn copies would be taken for images"),
        (["photos/a/1.png"], "photos/a", "photos/a holds photos/a/1.png, where drawn copies"),
        (["photos/a"], "photos/a", "photos/a is photos/a, where"),
        (["photos/a", "photos/b"], "photos", "photos holds photos/a, where drawn copies would be taken for images"),
        (["photos/b/2.bmp", "photos/b/2.bmp.jpg"], "drawn", "two images would be drawn as .*2.bmp.jpg; rename one"),
    ],
)
def test_where_drawn_copies_cannot_go(photos, sources, folder, message, capsys):
    Image.new("RGB", (9, 9)).save("photos/b/2.bmp.jpg")
    before = sorted(Path().rglob("*"))
    assert main(["detect", *sources, *SNAPSHOT, "--save-images", folder, "--force"]) == 2
    assert re.search(message, capsys.readouterr().err) and sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("option", ["--track", "--no-track", "--show"])
def test_options_of_a_video_are_refused_for_images(option, photos, capsys):
    assert main(["detect", "photos", *SNAPSHOT, option]) == 2
    assert f"{option} has no effect on images, only on a video" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--save-images=x", "--resume", "--suppress=per_class"])
def test_options_of_images_are_refused_for_a_video(option, photos, capsys):
    Image.new("RGB", (9, 9)).save("clip.gif", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")])
    assert main(["detect", "clip.gif", *SNAPSHOT, option]) == 2
    assert f"{option.split('=')[0]} has no effect on a video, only on images" in capsys.readouterr().err


def test_the_folders_of_a_video_s_outputs_are_made_before_the_network_is_loaded(photos, monkeypatch, capsys):
    Image.new("RGB", (9, 9)).save("clip.gif", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")])
    outputs = ["--out", "new/x.csv", "--out-video", "drawn/here/x.gif", "--counts", "counts/x.csv"]
    assert main(["detect", "clip.gif", *SNAPSHOT, *outputs]) == 0
    assert "in 2 frames: new/x.csv, drawn/here/x.gif, counts/x.csv, counts/x.png" in capsys.readouterr().out
    assert read_detections("new/x.csv")["image_path"].iloc[0] == "../clip.gif#0"
    monkeypatch.setattr(detect, "load_predictor", None)
    Path("file").write_text("")
    for option in ("--out", "--out-video", "--counts"):
        assert main(["detect", "clip.gif", *SNAPSHOT, "--out", "y.csv", option, "file/x.gif"]) == 2
        assert "file" in capsys.readouterr().err


def test_a_finished_run_has_nothing_to_resume_and_one_stopped_early_has_kept_nothing(photos, monkeypatch, capsys):
    command = ["detect", "photos", *SNAPSHOT]
    with monkeypatch.context() as patched:
        patched.setattr(StandIn, "__call__", stopping_after(1))
        assert main(command) == 130
    assert capsys.readouterr().err == "retinamask: stopped; nothing was done that could be kept\n"
    assert main([*command, "--resume"]) == 1
    before = Path("detections.csv").stat().st_mtime_ns
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    expected = "detections.csv is finished already, by a run on the same images with the same snapshot and options\n"
    assert capsys.readouterr().out == expected and Path("detections.csv").stat().st_mtime_ns == before
    for other, message in (
        (["photos", *SNAPSHOT, "--score-threshold", "0.7"], "score_threshold was 0.5, now 0.7"),
        (["photos", "--snapshot", "b.h5", "--force"], "weights_sha256 was net.h5, now b.h5"),
        (["photos", *SNAPSHOT, "--to", "voc"], "to was None, now voc"),
        (["photos/a", *SNAPSHOT], "images was 6, now 3"),
    ):
        assert main(["detect", *other, "--resume"]) == 2
        assert f"detections.csv is of another run: {message}" in capsys.readouterr().err
    Path(".detections.csv.run.json").unlink()
    assert main([*command, "--resume"]) == 2 and "detections.csv exists; choose another" in capsys.readouterr().err
    assert Path("detections.csv").stat().st_mtime_ns == before


def test_parts_of_another_run_are_not_taken_over(photos, monkeypatch, capsys):
    monkeypatch.setattr("retinamask.inference.detect_in_parts.PART", 1)
    monkeypatch.setattr(StandIn, "__call__", stopping_after(3))
    command = ["detect", "photos", *SNAPSHOT, "--batch-size", "1"]
    assert main(command) == 130
    assert "stopped; detections.csv.parts keeps what is done, --resume continues from there" in capsys.readouterr().err
    assert len(list(Path("detections.csv.parts").glob("part-*"))) == 3 and not Path("detections.csv").exists()
    assert main(command) == 2
    assert "holds parts of a run that was stopped; add --resume, or begin anew" in capsys.readouterr().err
    for other, message in (
        (["--score-threshold", "0.7"], "score_threshold was 0.5, now 0.7"),
        (["--suppress", "per_class"], "suppress was any_class, now per_class"),
        (["--snapshot", "b.h5"], "weights_sha256 was net.h5, now b.h5"),
        (["--save-images", "drawn"], "save_images was None, now drawn"),
    ):
        assert main([*command, *other, "--resume"]) == 2
        assert message in capsys.readouterr().err
    Image.new("RGB", (9, 9)).save("photos/new.png")
    assert main([*command, "--resume"]) == 2
    assert "images was 6, now 7" in capsys.readouterr().err
    assert main([*command, "--resume", "--force"]) == 2  # replaces a CSV; the parts are as wrong as before
    capsys.readouterr()
    assert main([*command, "--force"]) == 1
    assert "7 images" in capsys.readouterr().out


def stopping_after(count: int):
    """A stand-in's call during which Ctrl-C is pressed once, after so many images."""
    calls, look = [], StandIn.__call__

    def call(self, images_rgb, *options):
        calls.append(images_rgb)
        if len(calls) == count:
            raise KeyboardInterrupt
        return look(self, images_rgb, *options)

    return call


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_detect_command
from retinamask.cli import main
from retinamask.inference import detect_in_parts

test_detect_command.stand_in()
look = test_detect_command.StandIn.__call__
test_detect_command.StandIn.concurrent = {concurrent}
test_detect_command.StandIn.__call__ = lambda *all: (time.sleep(0.02), look(*all))[1]
detect_in_parts.PART = 8
command = ["detect", "photos", "--snapshot", "net.h5", "--save-images", "drawn"]
random.seed(5)
parts = lambda: {{path.name: path.stat().st_mtime_ns for path in Path("detections.csv.parts").glob("part-*")}}
before = {{}}
for kill in range({kills}):
    child = os.fork()
    if not child:
        try:
            main([*command, *["--resume"] * bool(kill)])
        finally:  # Ctrl-C may come before the command is ready for it
            os._exit(0)
    deadline = time.monotonic() + 60
    while kill and len(parts()) <= len(before):  # the first kill comes at any moment, the others after a new part
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.08))
    os.kill(child, {signals}[kill % len({signals})])
    os.waitpid(child, 0)
    after = parts()
    assert before.items() <= after.items(), "a part was lost or made again"
    before = after
    drawn = [path for path in Path("drawn").glob("*.png") if not path.name.startswith(".")]
    assert len(drawn) >= 8 * len(after), "a part was written before its images were drawn"
    print("parts", len(after), flush=True)
    assert not Path("detections.csv").exists()
assert main([*command, "--resume"]) == 0
"""


def killed_and_resumed(folder, images: int, kills: int, signals: tuple, concurrent: bool) -> None:
    """Kill a run again and again, resume it, and compare its end with that of a run left in peace."""
    (folder / "photos").mkdir()
    for index in range(images):
        Image.new("RGB", (10, 8), (1 + index % 255, index // 4, 0)).save(folder / "photos" / f"{index}.png")
    signals = tuple(map(int, signals))
    script = KILLS.format(tests=str(ROOT / "tests"), concurrent=concurrent, kills=kills, signals=signals)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    counts = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("parts")]
    assert len(counts) == kills and sorted(set(counts[1:])) == counts[1:]  # each further kill came in the middle
    assert counts[1] > 0 and counts[-1] < images / 8
    assert main(["detect", "photos", *SNAPSHOT, "--out", "whole.csv", "--save-images", "at_once"]) == 0
    assert Path("detections.csv").read_text() == Path("whole.csv").read_text()
    assert read_detections("detections.csv")["image_path"].nunique() == images
    names = {path.name for path in Path("drawn").iterdir() if not path.name.startswith(".")}
    assert names == {path.name for path in Path("at_once").iterdir()} and len(names) == images
    assert not Path("detections.csv.parts").exists()


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_run_killed_at_any_moment_loses_and_doubles_nothing(concurrent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    killed_and_resumed(tmp_path, 240, 6, (signal.SIGKILL, signal.SIGTERM, signal.SIGINT), concurrent)


@pytest.mark.slow
def test_a_run_killed_twenty_times_loses_and_doubles_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    killed_and_resumed(tmp_path, 960, 20, (signal.SIGKILL,), concurrent=True)
