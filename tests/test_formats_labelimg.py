"""labelImg 1.8.6 itself: its classes write what we read, and read what we write."""

import os
from pathlib import Path

import pytest
from format_files import EMPTY, draw, rows

from retinamask.dataset.annotations import make_table, objects
from retinamask.dataset.formats import classes_of, read, write_format

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
QtGui = pytest.importorskip("PyQt5.QtGui", reason="PyQt5 is not installed", exc_type=ImportError)
pascal_voc_io = pytest.importorskip("libs.pascal_voc_io", reason="labelImg is not installed", exc_type=ImportError)
yolo_io = pytest.importorskip("libs.yolo_io", reason="labelImg is not installed", exc_type=ImportError)
create_ml_io = pytest.importorskip("libs.create_ml_io", reason="labelImg is not installed", exc_type=ImportError)

CLASSES = {"no mask": 0, "mask": 1, "Öl & <Maß>": 2}
SIZE = (123, 457)
TABLE = make_table(
    [
        ("images/a.png", 5, 6, 20, 25, "mask"),
        ("images/a.png", 0, 0, *SIZE, "no mask"),
        ("images/b.png", 1, 2, 122, 4, "Öl & <Maß>"),
        ("images/empty.png", *EMPTY),
    ]
)


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a", "b", "empty"):
        draw(tmp_path / "images" / f"{name}.png", SIZE)
    return tmp_path


def shapes(reader) -> list[tuple]:
    """What labelImg would show: name and corners of each box."""
    return [(name, *points[0], *points[2]) for name, points, *_ in reader.get_shapes()]


def expected(path: str) -> list[tuple]:
    boxes = objects(TABLE)
    return [(name, *box) for image, *box, name in rows(boxes) if image == path]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # labelImg's reader of YOLO does not close its files
@pytest.mark.parametrize("name", ["a", "b", "empty"])
def test_labelimg_opens_our_files(folder, name):
    for kind in ("voc", "yolo", "createml"):
        write_format(TABLE, CLASSES, kind, folder / kind, folder)
    wanted = expected(f"images/{name}.png")
    assert shapes(pascal_voc_io.PascalVocReader(str(folder / "voc" / f"{name}.xml"))) == wanted

    label = folder / "yolo" / "obj_train_data" / f"{name}.txt"
    image = QtGui.QImage(str(label.with_suffix(".png")))
    assert (image.width(), image.height()) == SIZE
    assert shapes(yolo_io.YoloReader(str(label), image)) == wanted

    reader = create_ml_io.CreateMLReader(str(folder / "createml" / "annotations.json"), f"/elsewhere/{name}.png")
    assert shapes(reader) == wanted


def labelimg_yolo(folder: Path) -> None:
    """labelImg keeps one list of classes for the session and writes it beside each label file."""
    names = list(CLASSES)
    for path in sorted(set(TABLE["image_path"])):
        writer = yolo_io.YOLOWriter("images", Path(path).name, (*SIZE[::-1], 3))
        for name, *box in expected(path):
            writer.add_bnd_box(*map(int, box), name, 0)
        writer.save(class_list=names, target_file=str((folder / path).with_suffix(".txt")))


def labelimg_createml(folder: Path) -> None:
    for path in sorted(set(TABLE["image_path"])):
        corners = [(name, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]) for name, x1, y1, x2, y2 in expected(path)]
        drawn = [{"label": name, "points": points} for name, points in corners]
        out = str(folder / "images" / "labels.json")
        create_ml_io.CreateMLWriter("images", Path(path).name, (*SIZE[::-1], 3), drawn, out).write()


def labelimg_voc(folder: Path) -> None:
    for path in sorted(set(TABLE["image_path"])):
        writer = pascal_voc_io.PascalVocWriter("images", Path(path).name, (*SIZE[::-1], 3), local_img_path=path)
        for name, *box in expected(path):
            writer.add_bnd_box(*map(int, box), name, 0)
        writer.save(str((folder / path).with_suffix(".xml")))


@pytest.mark.parametrize(
    ("kind", "writes"), [("voc", labelimg_voc), ("createml", labelimg_createml), ("yolo", labelimg_yolo)]
)
def test_we_read_labelimgs_files(folder, kind, writes):
    """Whole pixels come back as such from labelImg's six decimals of YOLO too."""
    writes(folder)
    table, problems = read(kind, [folder / "images"], folder)
    assert (rows(table), problems) == (rows(TABLE), [])
    if kind == "yolo":
        assert classes_of(kind, [folder / "images"], table) == CLASSES
