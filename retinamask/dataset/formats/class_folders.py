"""Folders called like classes (``with_mask/``, ``without_mask/``): a classification set as entries.

Such a set says what an image shows, not where; each image becomes one box that covers it, which suits a classifier on
the cut-out boxes, and training a detector only where each image is one close-up face.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats.entries import Asked, Entry, FoundObject, Problem
from retinamask.dataset.image_files import is_image, walk

# the folders of data sets; a YOLO export whose labels are lost is not one of the classes images and labels
NO_CLASSES = (
    *("images", "jpegimages", "labels", "annotations", "xml", "xmls"),
    *("train", "training", "val", "valid", "validation", "test", "testing"),
)


def select(files: list[Path]) -> list[Path]:
    """The folders that images lie in."""
    return sorted({path.parent for path in files if is_image(path)})


def entries(folder: Path, asked: Asked) -> Iterator[Entry | Problem]:
    """Read one folder: every image in it is of the class that it is called.

    As in the Kaggle sets of masked faces and https://keras.io/api/data_loading/image/.
    """
    if not folder.is_dir():
        raise AnnotationError(f"{folder} is not a folder; expected a folder of class folders")
    own = sorted(path for path in folder.iterdir() if is_image(path) and path.name[0] != "." and path.is_file())
    name = folder.resolve().name  # "." has none
    reason = _why_no_class(folder)
    if not reason and asked.classes is not None and name not in asked.classes:
        reason = f"class {name!r} is not among the classes ({', '.join(asked.classes)}); add it or rename the folder"
    if reason:
        yield Problem("note", str(folder), f"{reason}; {len(own)} image(s) left out")
        return
    for path in own:
        objects = [FoundObject(str(path), name, (0.0, 0.0, 1.0, 1.0))]
        yield Entry(path, str(path), objects, image_path=path, relative=True)


def folder_classes(sources: Iterable[Path]) -> list[str]:
    """Names of the class folders, sorted."""
    folders = {folder for source in sources if source.is_dir() for folder in select(walk(source).files)}
    return sorted({folder.resolve().name for folder in folders if not _why_no_class(folder)})


def _why_no_class(folder: Path) -> str | None:
    """Why a folder with images is no class folder, or ``None``."""
    if folder.resolve().name.lower() in NO_CLASSES:
        return f"a folder called {folder.name} is a part of a data set, no class"
    if any(path.is_dir() and walk(path).images() for path in folder.iterdir() if path.name[0] != "."):
        return "images beside folders with images, so that their own folder is no class"
    return None
