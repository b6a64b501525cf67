"""Faces cut out of images: where the squares are, what the files hold, and what is reported."""

import numpy as np
import pytest
from PIL import Image
from sound_data import picture

from retinamask.dataset import annotations, faces, images
from retinamask.dataset.copies import image_groups
from retinamask.dataset.formats import read


def rows(*boxes):
    return annotations.make_table(boxes)


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        ((40, 30, 60, 50), 0, (40, 30, 60, 50)),
        ((40, 30, 60, 50), 0.5, (30, 20, 70, 60)),
        ((40, 30, 50, 50), 0.1, (33, 28, 57, 52)),  # 20 and twice 2 pixels, around (45, 40)
        ((0, 0, 20, 20), 0.5, (0, 0, 40, 40)),  # moved into the image, as large as it was
        ((90, 70, 100, 80), 0.5, (80, 60, 100, 80)),
        ((10, 0, 50, 80), 0.25, (0, 0, 100, 80)),  # 120 pixels, more than there are
        ((-30, 10, 10, 30), 0, (0, 0, 40, 40)),
        ((120, 10, 150, 30), 0.2, (0, 0, 0, 0)),  # beside the image
        ((20, 20, 20, 40), 0.2, (0, 0, 0, 0)),
        ((50.2, 40.2, 50.6, 40.4), 0, (50, 40, 51, 41)),
    ],
)
def test_where_a_square_is(box, margin, expected):
    assert faces.squares([box], (100, 80), margin).tolist() == [list(expected)]


def test_the_pixels_are_those_of_the_image_and_a_copy():
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    before = image.copy()
    first, empty = faces.crop(image, np.array([[40, 30, 60, 50], [200, 10, 220, 30]]), 0.5)
    assert (first == image[20:60, 30:70]).all() and first.dtype == np.uint8 and empty.shape == (0, 0, 3)
    first[:] = 0
    assert (image == before).all()
    assert faces.crop(image, np.zeros((0, 4))) == []


@pytest.mark.parametrize("margin", [-0.1, float("nan"), 6])
def test_an_impossible_margin_is_refused(margin):
    with pytest.raises(ValueError, match="margin is .*, expected 0 to 5"):
        faces.squares([(0, 0, 1, 1)], (4, 4), margin)


@pytest.fixture
def scene(tmp_path):
    """Two pictures of which one has a near copy, a folder deeper, and a file that is no image."""
    (tmp_path / "more").mkdir()
    picture(1).save(tmp_path / "a.png")
    picture(2).save(tmp_path / "b.png")
    picture(1).save(tmp_path / "more" / "a.jpg", quality=80)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    table = rows(
        ("a.png", 10, 10, 50, 40, "mask"),
        ("a.png", 60, 60, 100, 120, "no_mask"),
        ("a.png", 100, 20, 104, 60, "mask"),
        ("b.png", 200, 100, 260, 160, "mask"),
        ("b.png", 300, 100, 360, 160, "no_mask"),
        ("more/a.jpg", 10, 10, 50, 40, "mask"),
        ("broken.jpg", 10, 10, 50, 40, "mask"),
    )
    return tmp_path, table


def test_faces_are_written_as_class_folders(scene):
    folder, table = scene
    cut = faces.cut_faces(table, folder, folder / "faces", margin=0.25)
    assert cut.folder == folder / "faces" and len(cut.table) == 5
    names = sorted(path.relative_to(cut.folder).as_posix() for path in cut.folder.rglob("*.png"))
    assert names == sorted(cut.table["image_path"])
    expected = faces.crop(images.read_image(folder / "a.png"), np.array([[10, 10, 50, 40]]), 0.25)[0]
    assert expected.shape == (60, 60, 3)
    assert (images.read_image(cut.folder / cut.table["image_path"][0]) == expected).all()
    assert annotations.read_annotations(cut.folder / faces.FACES_CSV).equals(cut.table)
    again, problems = read("class_folders", [cut.folder], cut.folder)
    assert problems == [] and again.sort_values("image_path").reset_index(drop=True).equals(
        cut.table.sort_values("image_path").reset_index(drop=True)
    )


def test_faces_of_an_earlier_call_are_replaced_when_asked_for_and_nothing_else_is(scene):
    folder, table = scene
    for kept, replace in ((table, False), (table.iloc[:2], True)):
        cut = faces.cut_faces(kept, folder, folder / "faces", replace=replace)
        names = sorted(path.relative_to(cut.folder).as_posix() for path in cut.folder.rglob("*.png"))
        assert names == sorted(cut.table["image_path"])
    assert len(names) == 2
    (folder / "faces" / faces.FACES_CSV).unlink()
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        faces.cut_faces(table, folder, folder / "faces", replace=True)


def test_what_gives_no_face_is_named(scene):
    folder, table = scene
    thin, broken = sorted(faces.cut_faces(table, folder, folder / "faces").left_out, key=lambda text: "broken" in text)
    assert thin == "a.png: box [100.0, 20.0, 104.0, 60.0] has 4 pixels on its shorter side, expected 8"
    assert "broken.jpg" in broken and "not a readable image" in broken


def test_faces_of_an_image_and_of_its_near_copy_are_one_group(scene):
    folder, table = scene
    cut = faces.cut_faces(table, folder, folder / "faces")
    groups = image_groups(cut.table["image_path"], cut.folder, faces.GROUP_BY)
    of = dict(zip(groups.paths, groups.numbers.tolist(), strict=True))
    a_mask, a_none, b_mask, b_none, copy = [of[path] for path in cut.table["image_path"]]
    assert a_mask == a_none == copy != b_mask == b_none


def test_bad_input_is_refused_and_leaves_nothing(scene):
    folder, table = scene
    with pytest.raises(annotations.AnnotationError, match=r"no face could be cut out of 1 image\(s\), such as: .*brok"):
        faces.cut_faces(table.iloc[-1:], folder, folder / "faces")
    assert not (folder / "faces").exists()
    with pytest.raises(annotations.AnnotationError, match="'mask/no' cannot be the name of a folder"):
        faces.cut_faces(rows(("a.png", 1, 1, 20, 20, "mask/no")), folder, folder / "faces")
    (folder / "full").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "full" / "mine.png")
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        faces.cut_faces(table, folder, folder / "full")
    assert [path.name for path in (folder / "full").iterdir()] == ["mine.png"]
