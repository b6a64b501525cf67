"""The pixel cache: decoded once, equal in memory and in a file, never trusted when something changed."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from retinamask.dataset import images
from retinamask.training import pixel_cache
from retinamask.training.pixel_cache import PixelCacheError, open_pixels

SIZES_WH = [(90, 60), (33, 80), (64, 64), (1, 50), (127, 41)]


def to_48(size_wh):
    return images.fit_scale(size_wh, 48)


def to_32(size_wh):
    return images.fit_scale(size_wh, 32)


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES_WH):
        cv2.imwrite(str(tmp_path / f"{number}.png"), generator.integers(0, 256, (height, width, 3), np.uint8))
    return tmp_path


def paths():
    return [f"{number}.png" for number in range(len(SIZES_WH))]


def the_file(folder):
    (found,) = (folder / pixel_cache.FOLDER).glob("*.pixels")
    return found


@pytest.fixture
def no_decoding(monkeypatch):
    def refused(path):
        raise AssertionError(f"{path} was decoded again")

    return lambda: monkeypatch.setattr(images, "read_image", refused)


@pytest.mark.parametrize("cache", ["memory", "file"])
def test_pixels_are_those_of_the_road_to_the_network(folder, cache):
    pixels = open_pixels(folder, paths(), to_48, cache)
    assert pixels.paths == paths() and pixels.unusable == [] and pixels.original_sizes_wh == SIZES_WH
    for number, (path, size_wh) in enumerate(zip(paths(), SIZES_WH, strict=True)):
        expected = images.resize(images.read_image(folder / path), to_48(size_wh))
        np.testing.assert_array_equal(pixels.read(number), expected)
        assert pixels.sizes_wh[number] == expected.shape[1::-1]
    assert pixels.nbytes == sum(width * height * 3 for width, height in pixels.sizes_wh)


def test_what_is_read_may_be_changed(folder):
    pixels = open_pixels(folder, paths(), to_48, "memory")
    pixels.read(0)[:] = 7
    assert len(np.unique(pixels.read(0))) > 9


def test_a_size_is_rounded_as_opencv_rounds_it():
    generator = np.random.default_rng(1)
    for _ in range(300):
        width, height, side = (int(n) for n in generator.integers([1, 1, 8], [400, 400, 90]))
        scale = images.fit_scale((width, height), side)
        resized = images.resize(np.zeros((height, width, 3), np.uint8), scale)
        assert pixel_cache._resized((width, height), scale) == resized.shape[1::-1]


@pytest.mark.parametrize("cache", ["memory", "file"])
def test_what_cannot_be_read_is_named_and_left_out(folder, cache):
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])  # found in decoding
    (folder / "2.png").write_bytes(b"no image")  # found in the header
    for _ in range(2):  # made, then found
        pixels = open_pixels(folder, [*paths(), "missing.png"], to_48, cache)
        assert pixels.paths == ["0.png", "3.png", "4.png"]
        told = "\n".join(pixels.unusable)
        assert len(pixels.unusable) == 3 and all(name in told for name in ("1.png: damaged", "2.png", "missing.png"))
        expected = images.resize(images.read_image(folder / "4.png"), to_48(SIZES_WH[4]))
        np.testing.assert_array_equal(pixels.read(2), expected)


def test_the_last_image_may_be_the_damaged_one(folder):
    whole = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(whole[: len(whole) // 2])
    assert len(open_pixels(folder, paths(), to_48, "file").paths) == 4
    assert len(open_pixels(folder, paths(), to_48, "file").paths) == 4


def test_a_file_is_used_again(folder, no_decoding, capsys):
    first = open_pixels(folder, paths(), to_48, "file")
    no_decoding()
    again = open_pixels(folder, paths(), to_48, "file")
    np.testing.assert_array_equal(again.read(3), first.read(3))
    making, finding = capsys.readouterr().out.splitlines()
    assert making.startswith("5 images, 0 MB in ") and making.endswith(".pixels") and "found in" in finding


def test_every_table_finds_the_file_beside_the_images(folder, tmp_path, no_decoding):
    """A run has a folder of its own for its tables, from where its images lie elsewhere."""
    inside = tmp_path / "data" / "images"
    inside.mkdir(parents=True)
    for path in paths():
        (folder / path).rename(inside / path)
    cut = (inside / paths()[1]).read_bytes()
    (inside / paths()[1]).write_bytes(cut[: len(cut) // 2])
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    first = open_pixels(tmp_path, [f"data/images/{path}" for path in paths()], to_48, "file")
    assert the_file(inside).samefile(first.where)
    no_decoding()
    again = open_pixels(run, [f"../../data/images/{path}" for path in paths()], to_48, "file")
    assert again.where == first.where and not (run / pixel_cache.FOLDER).exists()
    np.testing.assert_array_equal(again.read(3), first.read(3))
    assert (
        len(again.paths) == len(first.paths) == 4 and again.unusable == first.unusable != []
    )  # not a black picture with boxes


def test_where_images_must_not_be_written_beside_the_file_is_in_the_folder_of_the_table(folder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    pixels = open_pixels(run, [f"../{path}" for path in paths()], to_48, "file")
    assert the_file(run).samefile(pixels.where) and not (folder / pixel_cache.FOLDER).exists()
    assert pixels.read(2).any()


def test_more_than_two_gigabytes_can_be_kept_in_memory(folder, monkeypatch):
    """Some of TensorFlow's sizes have 32 bits; of the memory that lies between, next to nothing is touched."""
    monkeypatch.setattr(pixel_cache, "_RECORD_OVERHEAD", 2**31)
    pixels = open_pixels(folder, paths()[:2], to_48, "memory")
    expected = images.resize(images.read_image(folder / "1.png"), to_48(SIZES_WH[1]))
    np.testing.assert_array_equal(pixels.read(1), expected)


def test_a_changed_image_makes_the_file_anew_and_removes_the_old_one(folder):
    open_pixels(folder, paths(), to_48, "file")
    old = the_file(folder)
    cv2.imwrite(str(folder / "0.png"), np.full((60, 90, 3), 77, np.uint8))
    pixels = open_pixels(folder, paths(), to_48, "file")
    assert (pixels.read(0) == 77).all() and the_file(folder) != old
    assert len(list((folder / pixel_cache.FOLDER).glob("*.index"))) == 1


def test_another_time_of_change_is_a_change(folder, no_decoding):
    open_pixels(folder, paths(), to_48, "file")
    os.utime(folder / "2.png", (1, 1))
    no_decoding()
    with pytest.raises(AssertionError, match="decoded again"):
        open_pixels(folder, paths(), to_48, "file")


def test_another_scale_has_a_file_of_its_own(folder, no_decoding):
    large = open_pixels(folder, paths(), to_48, "file")
    small = open_pixels(folder, paths(), to_32, "file")
    assert large.where != small.where and max(small.sizes_wh[0]) == 32
    no_decoding()
    assert max(open_pixels(folder, paths(), to_48, "file").sizes_wh[0]) == 48


def test_what_nobody_used_for_long_is_removed(folder):
    forgotten = open_pixels(folder, paths(), to_32, "file").where
    half_written = folder / pixel_cache.FOLDER / ".abc-0123.pixels"
    half_written.touch()
    for path in (half_written, forgotten, forgotten.replace(".pixels", ".index")):
        os.utime(path, (1, 1))
    kept = open_pixels(folder, paths(), to_48, "file").where
    assert not half_written.exists() and the_file(folder).samefile(kept)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def written_over(path):
    path.write_bytes(bytes(path.stat().st_size))


def without_index(path):
    path.with_suffix(".index").unlink()


def broken_index(path):
    path.with_suffix(".index").write_text('{"bytes": ')


def strange_index(path):
    path.with_suffix(".index").write_text("[1]")


@pytest.mark.parametrize("damage", [cut_short, written_over, without_index, broken_index, strange_index])
def test_a_damaged_file_is_made_anew(folder, damage, caplog):
    open_pixels(folder, paths(), to_48, "file")
    damage(the_file(folder))
    pixels = open_pixels(folder, paths(), to_48, "file")
    expected = images.resize(images.read_image(folder / "4.png"), to_48(SIZES_WH[4]))
    np.testing.assert_array_equal(pixels.read(4), expected)
    assert ("the images are decoded again" in caplog.text) == (damage is not without_index)


def test_a_file_that_shrinks_in_use_is_an_error_and_no_crash(folder):
    pixels = open_pixels(folder, paths(), to_48, "file")
    os.truncate(the_file(folder), 10)
    with pytest.raises(PixelCacheError, match="damaged or removed while it was in use"):
        pixels.read(4)


def test_a_full_disk_is_told_before_anything_is_written(folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 900, 100))
    with pytest.raises(PixelCacheError, match=r"\.pixels.*100 bytes are free; 16,784 bytes are needed.*cache='memory'"):
        open_pixels(folder, paths(), to_48, "file")
    assert list((folder / pixel_cache.FOLDER).glob("*.pixels")) == []


def test_a_disk_that_fills_up_while_writing_leaves_nothing(folder, monkeypatch):
    decoded = pixel_cache._decoded

    def then_full(*given):
        yield from list(decoded(*given))[:2]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pixel_cache, "_decoded", then_full)
    with pytest.raises(PixelCacheError, match="No space left on device"):
        open_pixels(folder, paths(), to_48, "file")
    assert [path.name for path in (folder / pixel_cache.FOLDER).iterdir()] == [".gitignore"]


def test_a_folder_that_must_not_be_written_is_told(folder, monkeypatch):
    monkeypatch.setattr(pixel_cache, "MEMORY_BYTES", 10)
    (folder / pixel_cache.FOLDER).write_text("a file stands where the folder belongs")
    with pytest.raises(PixelCacheError, match=r"cannot be written \(.*cache='memory'"):
        open_pixels(folder, paths(), to_48, "auto")


def test_auto_takes_memory_as_long_as_it_is_little(folder, monkeypatch, capsys):
    assert open_pixels(folder, paths(), to_48).where == "memory"
    monkeypatch.setattr(pixel_cache, "MEMORY_BYTES", 10)
    assert open_pixels(folder, paths(), to_48).where == str(the_file(folder))
    assert capsys.readouterr().out.startswith("5 images, 0 MB in memory\n")


def test_git_does_not_see_the_cache(folder):
    open_pixels(folder, paths(), to_48, "file")
    assert (folder / pixel_cache.FOLDER / ".gitignore").read_text() == "*\n"


def test_the_index_is_plain_json(folder):
    open_pixels(folder, paths(), to_48, "file")
    record = json.loads(the_file(folder).with_suffix(".index").read_text())
    assert record["bytes"] == the_file(folder).stat().st_size and record["damaged"] == []


def test_what_is_flipped_on_the_disk_is_not_trained_on(folder):
    pixels = open_pixels(folder, paths(), to_48, "file")
    whole = bytearray(the_file(folder).read_bytes())
    whole[40] ^= 1
    with open(the_file(folder), "r+b") as file:
        file.write(whole)
    with pytest.raises(PixelCacheError, match="corrupted record"):
        pixels.read(0)


def test_a_file_in_use_is_not_removed(folder):
    used = open_pixels(folder, paths(), to_48, "file")
    os.utime(folder / "0.png", (1, 1))
    open_pixels(folder, paths(), to_48, "file")
    assert used.read(4).any() and os.path.exists(used.where)
    where = used.where
    del used
    open_pixels(folder, paths(), to_48, "file")
    assert not os.path.exists(where) and not os.path.exists(where.replace(".pixels", ".index"))


PEAK = """
import resource, sys
from retinamask.training.pixel_cache import open_pixels

def peak(count):
    pixels = open_pixels(sys.argv[1], [f"{n}.bmp" for n in range(count)], lambda size_wh: 1.0, "file")
    for n in range(count):
        pixels.read(n)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few = peak(30)
print(peak(300) - few)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux only")
def test_memory_does_not_grow_with_the_images_of_a_file(tmp_path):
    cv2.imwrite(str(tmp_path / "0.bmp"), np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8))
    for number in range(1, 300):
        os.link(tmp_path / "0.bmp", tmp_path / f"{number}.bmp")
    run = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(run.stdout.splitlines()[-1]) < 20_000  # kB; the pixels of the others are 162 MB


def test_the_same_file_may_be_made_several_times_at_once(folder):
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_pixels(folder, paths(), to_48, "file"), range(4)))
    memory = open_pixels(folder, paths(), to_48, "memory")
    for pixels in opened:
        np.testing.assert_array_equal(pixels.read(4), memory.read(4))
    assert the_file(folder).samefile(opened[0].where)
