"""Folders called like classes (``with_mask/``, ``without_mask/``): a classification set as a table.

On top of `reading`. Such a set says what an image shows, not where; each image becomes one box that covers it, which
suits a classifier on the cut-out boxes, and training a detector only where each image is one close-up face.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats.reading import Entry, FoundObject, Problem, Reading, image_index, read_entries


def read_class_folders(
    sources: Iterable[str | Path],
    csv_folder: str | Path,
    image_folder: str | Path | None = None,
    classes: dict[str, int] | None = None,
    with_unannotated: bool = False,
) -> tuple[pd.DataFrame, list[Problem]]:
    """Read images whose class is the name of their folder: one box over the whole image each.

    Args:
        sources: folders of class folders, such as ``dataset`` with ``dataset/with_mask`` (or
            ``dataset/train/with_mask``) in it, or class folders themselves.
        csv_folder: the folder that the table's image paths are relative to.
        image_folder: not for this format; the images are the annotation.
        classes: if given, folders of other names are left out and reported.
        with_unannotated: without effect; every image is annotated by its folder.

    Returns:
        The table, sorted by path, and the problems. Images beside class folders are left out and reported.

    Raises:
        AnnotationError: no image at all, or none that could be used.
    """
    if image_folder:
        raise AnnotationError("class folders hold their images themselves; leave the folder of the images away")
    sources = [Path(source) for source in sources]
    for source in sources:
        if not source.is_dir():
            raise AnnotationError(f"{source} is not a folder; expected a folder of class folders")
    index = image_index(sources, None)
    reading = Reading(Path(csv_folder), classes, "class folder", "image(s)")
    folders = {path: path.parent.resolve() for path in index.all()}  # "." has no name
    counts = Counter(folders.values())
    left_out = {folder: reason for folder in counts if (reason := _why_not(folder, counts, classes))}
    for folder, reason in left_out.items():
        reading.problems.append(Problem("note", str(folder), f"{reason}; {counts[folder]} image(s) left out"))
    reading.doubtful.update(path for path in folders if folders[path] in left_out)
    entries = [path for path in folders if folders[path] not in left_out]
    return read_entries(entries, lambda path: _load(path, folders[path].name), index, reading)


def folder_classes(sources: Iterable[str | Path]) -> list[str]:
    """Names of the class folders, sorted."""
    counts = Counter(path.parent.resolve() for path in image_index([Path(source) for source in sources], None).all())
    return sorted({folder.name for folder in counts if not _why_not(folder, counts, None)})


def _why_not(folder: Path, counts: Iterable[Path], classes: dict[str, int] | None) -> str | None:
    """Why a folder with images is no class folder, or ``None``."""
    if any(folder in other.parents for other in counts):
        return "images beside folders with images, so that their own folder is no class"
    if classes is not None and folder.name not in classes:
        return f"class {folder.name!r} is not among the classes ({', '.join(classes)}); add it or rename the folder"
    return None


def _load(image_path: Path, class_name: str) -> Entry:
    found = FoundObject(str(image_path), class_name, (0.0, 0.0, 1.0, 1.0))
    return Entry(image_path, str(image_path), [found], image_path=image_path, relative=True)
