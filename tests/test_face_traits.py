"""Traits of faces in images made by hand, and which groups of them are found."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_coco import CLASSES

import retinamask as rm
from retinamask.dataset.annotations import DETECTION_COLUMNS, make_table
from retinamask.evaluation.errors import find_causes
from retinamask.evaluation.face_traits import face_traits, found_by_trait


class Halving:
    """Resizes images to half their size, as a detector would."""

    @staticmethod
    def scale(size_wh):
        assert size_wh == (200, 100)
        return 0.5


@pytest.fixture
def faces(tmp_path):
    """Three faces of an image: flat and dark, chequered, and one that lies outside; and one of a broken image."""
    grey = np.full((100, 200), 50, np.uint8)
    grey[0:64, 100:164] = 200 * (np.indices((64, 64)).sum(axis=0) % 2)
    Image.fromarray(grey).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    boxes = [(0, 0, 32, 50, "mask"), (100, 0, 164, 64, "no_mask"), (300, 0, 310, 10, "mask")]
    truth = make_table([*(("a.png", *box) for box in boxes), ("b.png", 0, 0, 9, 9, "mask")])
    rows = [("a.png", 0, 0, 32, 50, "mask", 0.9), ("a.png", 100, 0, 164, 64, "mask", 0.8)]
    causes = find_causes(truth, make_table(rows, DETECTION_COLUMNS), CLASSES)
    return face_traits(truth, causes, tmp_path, Halving)


def test_traits_by_hand(faces):
    assert faces["found"].tolist() == [True, False, False, False]
    assert faces["size"].tolist()[:3] == pytest.approx([20, 32, 0])  # half the root of 32 * 50 and of 64 * 64
    # Of a chequerboard of 0 and 200 the Laplacian is 4 * 200 where it is dark and -4 * 200 where it is bright.
    assert faces["brightness"].tolist()[:2] == [50, 100] and faces["sharpness"].tolist()[:2] == [0, 800**2]
    assert faces[["brightness", "sharpness"]][2:].isna().all(axis=None) and np.isnan(faces["size"].iloc[3])


def test_groups_by_hand():
    sizes, levels = [4, 8, 15.9, 200, np.nan], [10, 20, 30, 40, 50]
    faces = pd.DataFrame({"class_name": ["mask"] * 4 + ["no_mask"], "found": [False, True, False, True, True]})
    faces = faces.assign(size=sizes, brightness=levels, sharpness=7.0)
    table = found_by_trait(faces)
    rows = table.groupby("trait", sort=False)[["group", "faces", "found"]].apply(lambda rows: rows.to_numpy().tolist())
    assert rows["class"] == [["mask", 4, 2], ["no_mask", 1, 1]]
    assert rows["size"] == [["0 to 8", 1, 0], ["8 to 16", 2, 1], ["from 128", 1, 1]]
    ranges = ["10 to 18", "18 to 26", "26 to 34", "34 to 42", "from 42"]
    assert rows["brightness"] == [[name, 1, int(found)] for name, found in zip(ranges, faces["found"], strict=True)]
    assert rows["sharpness"] == [["from 7", 5, 3]]
    # Wilson's interval of 2 of 4, as worked out by his formula with z = 1.959964: 1/2 -+ z / (2 sqrt(n + z²))
    z = 1.959964
    assert table.loc[0, ["share", "low", "high"]].tolist() == pytest.approx(
        [0.5, 0.5 - z / (2 * np.sqrt(4 + z**2)), 0.5 + z / (2 * np.sqrt(4 + z**2))]
    )


def test_an_evaluation_shows_its_mistakes(tmp_path):
    """At the best threshold, 0.8, the weak box does not count."""
    image_rgb = np.random.default_rng(0).integers(0, 255, (100, 200, 3), np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(image_rgb).save(tmp_path / name)
    truth = make_table(
        [("a.png", 0, 0, 32, 50, "mask"), ("a.png", 100, 0, 164, 64, "mask"), ("b.png", 9, 9, 60, 60, "mask")]
    )
    rows = [("a.png", 0, 0, 32, 50, "mask", 0.9), ("b.png", 120, 9, 160, 60, "mask", 0.85)]
    rows += [("a.png", 100, 0, 164, 64, "mask", 0.8), ("a.png", 170, 70, 190, 90, "mask", 0.1)]
    found = rm.evaluate(make_table(rows, DETECTION_COLUMNS), truth, CLASSES)
    assert found.thresholds == {"mask": 0.8} and found.shown["score"].tolist() == [0.9, 0.85, 0.8]
    assert found.mistakes[["image_path", "cause"]].to_numpy().tolist() == [["b.png", "background"], ["b.png", "missed"]]
    worst, doubtful = found.worst_images(tmp_path, most=1), found.doubtful_annotations(tmp_path)
    assert worst.width > 800 > doubtful.width > 256
    table, _ = found.found_by_trait(tmp_path, Halving)
    assert table.loc[table["trait"] == "class", ["faces", "found"]].to_numpy().tolist() == [[3, 2]]
