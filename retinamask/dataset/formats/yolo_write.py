"""The table to a YOLO folder that Darknet, Ultralytics and labelImg open.

Beside `yolo`, which reads it. Formats: see `yolo_lists`.
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import yaml

from retinamask.dataset import files
from retinamask.dataset.annotations import AnnotationError, relative_path
from retinamask.dataset.formats import writing

IMAGES = ("link", "copy", "none")
LABEL_FOLDER = "obj_train_data"

_NOTE = "# One list for both: divide train.txt before training, val must be images that train has not seen.\n"


def write_yolo(
    table: pd.DataFrame, classes: dict[str, int], folder: str | Path, csv_folder: str | Path, images: str = "link"
) -> None:
    """Write label files, their class list in every form, and the list of images.

    ``obj_train_data/`` holds a ``.txt`` an image and ``classes.txt`` (labelImg); beside it lie ``obj.names``,
    ``obj.data`` and ``train.txt`` (Darknet, to be started in that folder) and ``data.yaml`` (Ultralytics). Both
    demand the images beside the label files: they are there as ``images`` says. Ten decimals.

    Args:
        table: annotations with image paths relative to ``csv_folder``.
        classes: name to id; the id is YOLO's class number.
        folder: new or empty.
        csv_folder: see ``table``.
        images: ``link`` (symbolic links, which Windows gives only with special rights), ``copy``, or ``none``: then
            ``train.txt`` names the images where they are, which is enough for labelImg and for reading back with
            the folder of the images.

    Raises:
        AnnotationError: nothing is written then.
    """
    if images not in IMAGES:
        raise AnnotationError(f"images is {images!r}, expected one of: {', '.join(IMAGES)}")
    folder = Path(folder).resolve()
    pictures = writing.pictures(table, classes, csv_folder)
    stems = writing.stems([picture.path for picture in pictures])
    # the class list lies among the label files
    stems = {path: f"{stem}_" if Path(stem).name.lower() == "classes" else stem for path, stem in stems.items()}
    if images == "none":
        _check_stems(stems)
    names = sorted(classes, key=classes.get)
    with writing.new_folder(folder) as new:
        listed = []
        for picture in pictures:
            label_path = new / LABEL_FOLDER / f"{stems[picture.path]}.txt"
            files.write_text(label_path, label_lines(picture, classes))
            placed = label_path.with_name(Path(stems[picture.path]).name + picture.path.suffix)
            place_image(picture.path, placed, images)
            inside = f"./{placed.relative_to(new).as_posix()}"  # Ultralytics counts only ./ from the list's folder
            listed.append(relative_path(picture.path, folder) if images == "none" else inside)
        _write_lists(new, names, listed, {(new / LABEL_FOLDER / stem).parent for stem in stems.values()})


def label_lines(picture: writing.Picture, classes: dict[str, int]) -> str:
    """The text of an image's label file; empty for one without objects."""
    width, height = picture.size_wh
    lines = []
    for (x1, y1, x2, y2), name in zip(picture.boxes_xyxy.tolist(), picture.class_names, strict=True):
        shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(" ".join([str(classes[name]), *(f"{share:.10f}" for share in shares)]) + "\n")
    return "".join(lines)


def _check_stems(stems: dict[Path, str]) -> None:
    """A label file is found by the stem of its image, so that images must not share one."""
    renamed = [path for path, stem in stems.items() if Path(stem).name != path.stem]
    if renamed:
        raise AnnotationError(
            f"{renamed[0]}: another image differs only in the extension, or its label file would be classes.txt; "
            "use images copy or link"
        )


def place_image(image_path: Path, placed: Path, images: str) -> None:
    """Link or copy an image to a place in a folder of `writing.new_folder`; ``images`` is as in `write_yolo`.

    Raises:
        AnnotationError: the system refuses.
    """
    try:
        if images == "link":
            # the folder is renamed afterwards, to a name beside it: the way up and down stays the same
            placed.symlink_to(os.path.relpath(image_path, placed.parent))
        elif images == "copy":
            shutil.copyfile(image_path, placed)
    except OSError as error:
        raise AnnotationError(f"{placed}: no {images} of {image_path} ({error.strerror}); use images copy") from None


def _write_lists(folder: Path, names: list[str], listed: list[str], label_folders: set[Path]) -> None:
    """Class lists and image lists of Darknet, Ultralytics and labelImg."""
    text = "".join(f"{name}\n" for name in names)
    for label_folder in sorted(label_folders):
        files.write_text(label_folder / "classes.txt", text)
    files.write_text(folder / "obj.names", text)
    data = {"classes": len(names), "train": "train.txt", "names": "obj.names", "backup": "backup"}
    files.write_text(folder / "obj.data", "".join(f"{key} = {value}\n" for key, value in data.items()))
    files.write_text(folder / "train.txt", "".join(f"{line}\n" for line in listed))
    record = {"train": "train.txt", "val": "train.txt", "nc": len(names), "names": dict(enumerate(names))}
    dumped = yaml.safe_dump(record, sort_keys=False, allow_unicode=True)
    files.write_text(folder / "data.yaml", _NOTE + dumped)
