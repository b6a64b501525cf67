"""The walk over folders: what is found, what is left out, and that neither goes unsaid."""

import os

import numpy as np
import pytest
from PIL import Image

from retinamask.dataset import images
from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.image_files import find_images, walk


def _draw(path, size_wh=(40, 30), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    pixels[: size_wh[1] // 2, : size_wh[0] // 2] = 255  # white in the upper left corner
    Image.fromarray(pixels).save(path, **options)


def test_every_ending_that_is_read_is_found_and_the_others_are_counted(tmp_path):
    for name in ("a.jpg", "b.tif", "c.tiff", "d.gif", "e.webp", "f.bmp", "g.PNG"):
        _draw(tmp_path / name)
    _draw(tmp_path / "h.jfif", format="JPEG")
    for name in ("x.heic", "y.HEIC", "clip.mp4", "Makefile", "a.xml", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    paths, notes = find_images([tmp_path], tmp_path)
    assert paths == ["a.jpg", "b.tif", "c.tiff", "d.gif", "e.webp", "f.bmp", "g.PNG", "h.jfif"]
    assert notes == [
        "1 file without an ending is not read",
        "2 files ending in .heic are not read",
        "1 file ending in .mp4 is not read",
    ]
    for path in paths:
        assert images.check_image(tmp_path / path)[0] == images.image_size(tmp_path / path) == (40, 30)
        image_rgb = images.read_image(tmp_path / path)
        assert image_rgb[2, 2].min() > 240 and image_rgb[-2, -2].max() < 15


def test_a_tiff_is_turned_like_any_other_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to the right: the upper left corner goes to the upper right
    for name in ("a.tif", "a.png"):
        _draw(tmp_path / name, exif=exif)
        assert images.image_size(tmp_path / name) == images.check_image(tmp_path / name)[0] == (30, 40)
        assert images.inspect_image(tmp_path / name).upright_wh == (30, 40)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif"), images.read_image(tmp_path / "a.png"))
    assert images.read_image(tmp_path / "a.tif")[2, -2].min() == 255


def test_deep_tiffs(tmp_path):
    values = (np.arange(1200).reshape(30, 40) * 50).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.tif")[..., 1], values >> 8)
    assert images.inspect_image(tmp_path / "a.tif").traits == ("16 bits",)
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(images.ImageError, match="b.tif: pixels of 32 bits, expected 8 or 16; convert it"):
        images.read_image(tmp_path / "b.tif")


def test_linked_folders_are_followed_and_circles_end(tmp_path):
    _draw(tmp_path / "disk" / "b.jpg")
    _draw(tmp_path / "photos" / "a.jpg")
    (tmp_path / "photos" / "day2").symlink_to("../disk")
    (tmp_path / "photos" / "circle").symlink_to(".")
    (tmp_path / "photos" / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "disk" / "up").symlink_to("../photos")
    paths, notes = find_images([tmp_path / "photos"], tmp_path / "photos")
    assert paths == ["a.jpg", "day2/b.jpg"]
    assert len(notes) == 3 and "gone.jpg: a link that leads nowhere" in notes[0]
    assert all("which is read already" in note for note in notes[1:])


def test_a_folder_reached_by_two_ways_is_read_once_by_its_own_name(tmp_path):
    _draw(tmp_path / "z" / "a.jpg")
    (tmp_path / "link").symlink_to("z")
    assert find_images([tmp_path], tmp_path)[0] == ["z/a.jpg"]


def test_hidden_files_are_counted_and_jupyters_copies_left_out(tmp_path):
    for name in ("a.jpg", "._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", ".git/x.png"):
        _draw(tmp_path / name)
    paths, notes = find_images([tmp_path], tmp_path)
    assert paths == ["a.jpg"] and notes == ["1 file whose name begins with a dot is not read"]


def test_names_that_are_no_utf8_are_named_and_the_rest_is_found(tmp_path):
    _draw(tmp_path / "a.jpg")
    for name in (b"caf\xe9.jpg", b"d\xe9"):
        target = os.path.join(os.fsencode(tmp_path), name)
        if name.endswith(b"jpg"):
            os.link(tmp_path / "a.jpg", target)
        else:
            os.mkdir(target)
    paths, notes = find_images([tmp_path], tmp_path)
    assert paths == ["a.jpg"]
    assert [note.split("/")[-1] for note in notes] == [
        r"caf\udce9.jpg: the name is not UTF-8; rename it",
        r"d\udce9: the name is not UTF-8; rename it",
    ]
    bad = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg"))
    with pytest.raises(AnnotationError, match=r"caf.udce9.jpg: the name is not UTF-8"):
        find_images([bad], tmp_path)
    assert len(walk(tmp_path).problems) == 2


def test_an_image_given_by_name_is_taken_whatever_its_ending(tmp_path):
    _draw(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.photo")
    assert find_images([tmp_path / "a.photo"], tmp_path) == (["a.photo"], [])
    with pytest.raises(AnnotationError, match=r"no image below .*\n1 file ending in .photo is not read"):
        find_images([tmp_path], tmp_path)
