"""The drawn sample data set: the same for the same seed, honest boxes, balanced classes, clear refusals."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from retinamask.dataset.boxes import overlaps
from retinamask.dataset.sample import CLASSES, draw_sample, draw_scene, face_box
from retinamask.dataset.sample.painter import Painter
from retinamask.dataset.sample.people import choose_look, draw_head

SIZE = 96
SCENES = 40


@pytest.fixture(scope="module")
def scenes():
    """(image, boxes, names) of 40 small scenes."""
    return [draw_scene(np.random.default_rng((0, index)), SIZE) for index in range(SCENES)]


def folder_bytes(folder):
    """Every file's bytes by its path inside the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        draw_sample(tmp_path / name, images=2, size=64, seed=seed)
    first, again, other = (folder_bytes(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    image = "images/scene_0001.jpg"
    assert first[image] != other[image]
    assert first["images/scene_0000.jpg"] != first[image]


def test_a_scene_does_not_depend_on_how_many_are_drawn(tmp_path):
    draw_sample(tmp_path / "few", images=2, size=64, seed=5)
    draw_sample(tmp_path / "more", images=4, size=64, seed=5)
    more = folder_bytes(tmp_path / "more")
    assert all(more[name] == content for name, content in folder_bytes(tmp_path / "few").items())


def test_the_global_random_state_is_neither_read_nor_changed():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    draw_scene(np.random.default_rng(0), 64)
    assert np.array_equal(before, np.random.get_state()[1])


def test_files_are_a_jpeg_and_the_xml_of_its_boxes(tmp_path):
    paths = draw_sample(tmp_path, images=3, size=SIZE, seed=0)
    assert [path.name for path in paths] == ["scene_0000.jpg", "scene_0001.jpg", "scene_0002.jpg"]
    assert len(folder_bytes(tmp_path)) == 2 * 3 + 1  # and classes.csv
    for index, path in enumerate(paths):
        _, boxes_xyxy, names = draw_scene(np.random.default_rng((0, index)), SIZE)
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE, SIZE))
        objects = ElementTree.parse(tmp_path / "annotations" / f"{path.stem}.xml").findall("object")
        assert [found.findtext("name") for found in objects] == names
        edges = [[int(edge.text) for edge in found.find("bndbox")] for found in objects]
        assert edges == boxes_xyxy.tolist()


def test_boxes_lie_inside_the_image_and_have_the_size_of_a_face(scenes):
    boxes_xyxy = np.concatenate([boxes for _, boxes, _ in scenes])
    assert boxes_xyxy.dtype == np.int64
    assert boxes_xyxy.min() >= 0 and boxes_xyxy.max() <= SIZE
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) / SIZE
    # One pixel of rounding at this small size, on either side of the 18 to 55 per cent.
    assert sides.min() >= 0.18 - 1 / SIZE and sides.max() <= 0.55 + 1 / SIZE


def test_faces_do_not_cover_one_another(scenes):
    for _, boxes_xyxy, _ in scenes:
        apart = overlaps(boxes_xyxy.astype(float), boxes_xyxy.astype(float)) - np.eye(len(boxes_xyxy))
        assert (apart <= 0.1).all()


def test_both_classes_occur_about_equally_often_and_no_other(scenes):
    names = [name for _, _, scene_names in scenes for name in scene_names]
    assert set(names) == set(CLASSES)
    assert 0.35 <= names.count("mask") / len(names) <= 0.65
    counts = [len(scene_names) for _, _, scene_names in scenes]
    assert min(counts) >= 0 and max(counts) <= 4 and len(set(counts)) >= 4


@pytest.mark.parametrize("angle", [-0.24, 0.0, 0.2])
def test_the_box_is_the_edge_of_the_drawn_head(angle):
    canvas = Image.new("RGB", (400, 400), (0, 255, 0))
    head = Painter(canvas, origin_xy=(200, 200), scale=120, angle=angle)
    look = choose_look(np.random.default_rng(1), masked=False)
    draw_head(head, look)
    drawn = (np.asarray(canvas) != (0, 255, 0)).any(axis=2)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert face_box(head, look) == pytest.approx(edges, abs=1.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"images": 0}, "images is 0"), ({"size": 63}, "size is 63"), ({"seed": -1}, "seed is -1")],
)
def test_bad_numbers_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_sample(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "images/mine.jpg", "images/scene_0001.jpg", "annotations/scene_0000.jpg", "photos/a.jpg"],
)
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path, name):
    foreign = tmp_path / name
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_text("mine")
    with pytest.raises(ValueError, match="found .*; choose another folder"):
        draw_sample(tmp_path, images=1, size=64)
    assert list(folder_bytes(tmp_path)) == [name] and foreign.read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="found a file"):
        draw_sample(tmp_path / "out", images=1, size=64)


def test_its_own_scenes_may_be_drawn_anew(tmp_path):
    draw_sample(tmp_path, images=2, size=64, seed=1)
    draw_sample(tmp_path, images=2, size=64, seed=2)
    draw_sample(tmp_path, images=3, size=64, seed=2)
    assert len(folder_bytes(tmp_path)) == 2 * 3 + 1  # and classes.csv
