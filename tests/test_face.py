"""The public face: ``import retinamask as rm``."""

import subprocess
import sys

import numpy as np
import pytest
from darknet_networks import SMALL_CFG
from matplotlib.figure import Figure
from PIL import Image

import retinamask as rm
from retinamask.inference.detect import Detections
from retinamask.model import Model, rgb_array

IMAGE_RGB = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


class Finder:
    """Finds one box in every image, of class ``mask`` where red prevails; as a `Predictor` is called."""

    class_names = ("mask", "no_mask")

    def __call__(self, images_rgb, score_threshold=0.05, suppress="any_class"):
        for image in images_rgb:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        boxes = np.array([[1.0, 2, 11, 12]])
        reds = [int(image[..., 0].mean() <= image[..., 2].mean()) for image in images_rgb]
        return [Detections(boxes, np.array([0.75]), np.array([red])) for red in reds]


class Snapshot:
    classes, thresholds = {"mask": 0, "no_mask": 1}, {"mask": 0.5, "no_mask": 0.5}

    def __str__(self):
        return "snapshots/a.h5 (a test)"


@pytest.fixture
def model():
    return Model(Snapshot(), Finder())


def test_importing_is_quick_and_starts_nothing_heavy():
    code = (
        "import sys; before = set(sys.modules); import retinamask; new = set(sys.modules) - before;"
        "print([name for name in ('tensorflow', 'pandas', 'cv2', 'matplotlib') if name in sys.modules], len(new) < 10)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[] True\n"


def test_without_a_threshold_each_class_has_its_own(model, monkeypatch):
    picture = np.full((30, 40, 3), 200, np.uint8)  # a no_mask of 0.75
    assert len(model.detect(picture).dropna()) == 1
    monkeypatch.setattr(model.snapshot, "thresholds", {"no_mask": 0.8, "mask": 0.3})
    assert model.detect(picture).dropna().empty and len(model.detect(picture, 0.7).dropna()) == 1
    monkeypatch.setattr(model.snapshot, "thresholds", {"mask": 0.8, "no_mask": 0.7})
    assert len(model.detect(picture).dropna()) == 1


@pytest.mark.parametrize("name", [name for name in rm.__all__ if name != "__version__"])
def test_every_public_name_is_there_with_an_example(name):
    assert name in dir(rm)
    assert ">>> " in (getattr(rm, name).__doc__ or ""), f"{name} shows no use"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'detcet'"):
        _ = rm.detcet


def test_a_model_says_what_it_is(model):
    assert repr(model) == "Model(snapshots/a.h5 (a test))"


@pytest.mark.parametrize(
    "source",
    [
        IMAGE_RGB,
        Image.fromarray(IMAGE_RGB),
        np.dstack([IMAGE_RGB, np.full((30, 40), 255, np.uint8)]),
        Image.fromarray(IMAGE_RGB).convert("RGBA"),
        IMAGE_RGB[..., 0],  # grey
        IMAGE_RGB[..., :1],
    ],
    ids=["rgb", "PIL", "rgba", "PIL rgba", "grey", "grey of one channel"],
)
def test_a_picture_in_memory(model, source):
    table = model.detect(source)
    assert list(table["image_path"]) == ["image 1"]
    assert table[["x1", "y1", "x2", "y2", "score"]].to_numpy().tolist() == [[1, 2, 11, 12, 0.75]]
    assert table.attrs["problems"] == []


def test_files_folders_and_pictures_together(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(IMAGE_RGB).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "c.jpg").write_text("no picture")
    table = model.detect(["photos", IMAGE_RGB])
    assert list(table["image_path"]) == ["image 1", "photos/a.png", "photos/b.png"]
    assert len(table.attrs["problems"]) == 1 and "c.jpg" in table.attrs["problems"][0]
    assert list(model.detect("photos/a.png")["image_path"]) == ["photos/a.png"]
    drawn = rm.draw("photos/a.png", table)
    assert drawn.size == (40, 30) and not np.array_equal(np.asarray(drawn), IMAGE_RGB)
    with pytest.raises(ValueError, match="photos/c.jpg is not in the table"):
        Image.fromarray(IMAGE_RGB).save(tmp_path / "photos" / "c.jpg")
        rm.draw("photos/c.jpg", table)


@pytest.mark.parametrize(
    "source, message",
    [
        (IMAGE_RGB / 255, r"array of float64, expected uint8 from 0 to 255.*\(image \* 255\)"),
        (IMAGE_RGB[None], r"shape \(1, 30, 40, 3\), expected \(height, width, 3\)"),
        (IMAGE_RGB[..., :2], r"shape \(30, 40, 2\), expected"),
        (IMAGE_RGB[:0], r"shape \(0, 40, 3\), expected"),
        (3, "found int, expected a path, a folder, a NumPy array, a PIL image"),
        ("nowhere.jpg", "nowhere.jpg does not exist"),
        ([], "source has no image; expected a path, a folder, an array"),
    ],
)
def test_what_is_no_picture_is_refused(model, source, message):
    with pytest.raises(ValueError, match=message):
        model.detect(source)


def test_a_turned_picture_is_turned_upright():
    picture = Image.fromarray(IMAGE_RGB)
    picture.getexif()[0x0112] = 6  # to be turned by 90 degrees
    assert rgb_array(picture).shape == (40, 30, 3)


def test_from_annotations_to_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rm.draw_sample("scenes", images=12, size=96, seed=3)
    table, classes, problems = rm.read_annotations("scenes")
    assert problems == [] and set(classes) == {"mask", "no_mask"}
    assert table["image_path"].str.startswith("scenes/").all()
    parts = rm.split(table, val=0.2, test=0.2)
    assert sum(part["image_path"].nunique() for part in parts.values()) == 12
    network = {"detector": "yolov4_tiny", "cfg": SMALL_CFG}
    trained = rm.train(parts, classes, **network, epochs=1, steps=1, batch_size=2, precision="float32", out="net")
    model = rm.load(trained.best)
    assert repr(model).startswith("Model(net_best.h5 (yolov4_tiny, training model, 64 px")
    detections = model.detect(parts["test"], score_threshold=0.01, suppress="per_class")
    figures = rm.evaluate(detections, parts["test"], classes, folder=".")
    assert 0 <= figures["AP50"] <= 1 and list(figures.table()["name"][:2]) == ["AP", "AP50"]
    assert rm.count_boxes(table, classes)["boxes"].sum() == table["x1"].count()
    pictures = [rm.plot_classes(parts), rm.plot_box_sizes(table, 64), *figures.pictures().values()]
    assert all(isinstance(picture, Figure) for picture in pictures)
    assert rm.contact_sheet(detections, parts["test"], images=2, columns=2, score_threshold=0.5).width > 500
    assert rm.compare_conversion(trained.best, rm.convert(trained.best), parts["test"], most=1)
    with pytest.raises(ValueError, match=r"no part 'train' in image_path, .*; expected what rm.split\(table\) gives"):
        rm.train(parts["train"], classes)
    with pytest.raises(ValueError, match="net_best.h5 exists; choose another run name"):
        rm.train(parts, classes, **network, out="net")
    with pytest.raises(ValueError, match="epcohs"):
        rm.train(parts, classes, epcohs=3, out="other")
