"""CreateML JSON as labelImg writes it (centre x and y, width and height in pixels) to entries and back."""

from collections.abc import Iterator
from pathlib import Path

from retinamask.dataset import files
from retinamask.dataset.annotations import write_classes
from retinamask.dataset.formats import parsing
from retinamask.dataset.formats.entries import Asked, Entry, Problem, entry_each, found_object
from retinamask.dataset.formats.writing import Picture, stems

FILE_NAME = "annotations.json"

_SIDES = ("x", "y", "width", "height")


def entries(path: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Read one file: one entry an image, sorted by image name; what is wrong with single records is reported.

    Format: https://developer.apple.com/documentation/createml (data source of an object detector), as written by
    labelImg 1.8.6.
    """

    def entry(where: str, record) -> Entry:
        name, annotations = parsing.text(record, "image"), parsing.member(record, "annotations", list)
        parsing.refuse_other_lists(record, ("annotations",))
        where += f" image {name!r}"
        objects = [found_object(f"{where} annotations[{n}]", _object, item) for n, item in enumerate(annotations)]
        return Entry(path, where, objects, name)

    return entry_each(((f"{path} [{n}]", record) for n, record in enumerate(parsing.load_json(path, list))), entry)


def _object(annotation) -> tuple[str, tuple[float, ...]]:
    name = parsing.text(annotation, "label")
    x, y, width, height = parsing.sized_box(parsing.member(annotation, "coordinates", dict), _SIDES, "coordinates: ")
    return name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def write_createml(new: Path, pictures: list[Picture], classes: dict[str, int], folder: Path) -> None:
    """Write ``annotations.json``, and ``classes.csv``, which keeps the order of the classes.

    Images of one folder are called by their file name, which is what labelImg looks for; those of several folders
    have what differs of the folders before it.
    """
    stem_of, records = stems([picture.path for picture in pictures]), []
    for picture in pictures:
        found = []
        for (x1, y1, x2, y2), name in zip(picture.boxes_xyxy.tolist(), picture.class_names, strict=True):
            values = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
            found.append({"label": name, "coordinates": dict(zip(_SIDES, values, strict=True))})
        name = (Path(stem_of[picture.path]).parent / picture.path.name).as_posix()
        records.append({"image": name, "annotations": found})
    files.write_json(new / FILE_NAME, records)
    write_classes(classes, new / "classes.csv")
