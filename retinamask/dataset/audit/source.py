"""Read the annotations to audit, a CSV or a folder, and look once at each of their images."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from retinamask.dataset import annotations, files, formats, images
from retinamask.dataset.annotations import AnnotationError, image_paths, read_annotations
from retinamask.dataset.copies import DECODED_SIDE, packed_hashes
from retinamask.dataset.formats import Problem, class_ids
from retinamask.dataset.image_files import walk
from retinamask.progress import track


@dataclass(frozen=True)
class Source:
    """A data set to audit.

    Attributes:
        name: what was given, for headings.
        table: the annotations.
        folder: what the table's image paths are relative to.
        classes: name to id.
        unannotated: images of a folder that are not in the table; they are looked at as well.
        problems: what was wrong with the annotation files.
        splits: the image paths of each split.
    """

    name: str
    table: pd.DataFrame
    folder: Path
    classes: dict[str, int]
    unannotated: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    splits: dict[str, set[str]] = field(default_factory=dict)

    @property
    def written_sizes(self) -> dict[str, tuple[int, int]]:
        """Width and height in an annotation, by image path, where they are not the upright image's."""
        return {problem.image_path: problem.written_wh for problem in self.problems if problem.written_wh}

    def all_images(self) -> list[str]:
        """Each image once: those of the table, those without annotation, those that only a split names."""
        own = dict.fromkeys([*image_paths(self.table), *self.unannotated])
        return list(own | dict.fromkeys(sorted(set().union(*self.splits.values()))))


def read_source(
    source: str | Path,
    classes_csv: str | Path | None = None,
    image_folder: str | Path | None = None,
    splits: Iterable[str | Path] = (),
) -> Source:
    """Read what is to be audited.

    Args:
        source: an annotation CSV, or a folder tree with labelImg XML or of another format that `formats.guess` knows.
        classes_csv: the class list; without it ``classes.csv`` beside the CSV or in the folder, else the classes
            as they appear.
        image_folder: where the images are: what a CSV's paths are relative to, if not its own folder; for XML the
            folder tree to search, if not the same.
        splits: CSVs of the splits; each is named by its file, such as ``train``.

    Raises:
        AnnotationError: there is nothing to read, or a CSV that cannot be read.
    """
    source = Path(source)
    if not source.exists():
        raise AnnotationError(f"{source} does not exist; expected an annotation CSV or a folder of annotations")
    if image_folder and not Path(image_folder).is_dir():
        raise AnnotationError(f"{image_folder} is not a folder; expected the folder of the images")
    class_list = Path(classes_csv) if classes_csv else (source if source.is_dir() else source.parent) / "classes.csv"
    classes = annotations.read_classes(class_list) if classes_csv or class_list.is_file() else None
    if source.is_dir():
        table, own, problems = formats.read_annotations(source, source, {}, image_folder=image_folder)
        classes = own if classes is None else classes
        known = set(image_paths(table))
        paths = [annotations.relative_path(path, source) for path in walk(image_folder or source).images()]
        read = Source(str(source), table, source, classes, [path for path in paths if path not in known], problems)
    else:
        table = read_annotations(source)
        classes = class_ids(table) if classes is None else classes
        read = Source(str(source), table, Path(image_folder or source.parent), classes)
    split_folder = None if source.is_dir() else image_folder

    def place(path: str) -> str:
        return os.path.abspath(read.folder / path)

    own = {place(path): path for path in [*image_paths(table), *read.unannotated]}
    members: dict[str, set[str]] = {}
    for split in map(Path, splits):
        paths = image_paths(annotations.moved(read_annotations(split), split_folder or split.parent, read.folder))
        name = split.stem if split.stem not in members else str(split)
        members[name] = {own.get(place(path), path) for path in paths}
    return replace(read, splits=members)


class Look(NamedTuple):
    """Facts about one image file; without ``size_wh`` it could not be read and ``trouble`` says why."""

    path: str  # as in the table
    size_wh: tuple[int, int] | None = None  # as stored in the file
    upright_wh: tuple[int, int] | None = None  # after the turn that EXIF asks for
    orientation: int = 1  # EXIF's, 1 to 8
    traits: tuple[str, ...] = ()  # see `images.Inspection`
    trouble: str = ""  # a key of `checks.KINDS`
    message: str = ""  # the trouble in words
    sha256: bytes = b""  # of the file, 32 bytes
    hashes: bytes = b""  # of the image and of its mirror image, 20 bytes


def look_at(paths: Sequence[str], folder: str | Path, max_pixels: int = images.MAX_PIXELS) -> list[Look]:
    """Look at image files, several at a time, each decoded once.

    Images of more than ``max_pixels`` are not decoded. The order is that of the paths.
    """
    troubles = {images.DamagedImageError: "damaged image", images.TooManyPixelsError: "too many pixels"}

    def look(path: str) -> Look:
        full, sha256 = Path(folder, path), b""
        try:
            sha256 = bytes.fromhex(files.sha256(full))
            seen = images.inspect_image(full, max_pixels, DECODED_SIDE)
        except images.ImageError as error:
            message = str(error).removeprefix(f"{full}: ")
            return Look(path, trouble=troubles.get(type(error), "unreadable image"), message=message, sha256=sha256)
        except FileNotFoundError:
            return Look(path, trouble="missing image", message="no such file")
        except OSError as error:
            return Look(path, trouble="unreadable image", message=f"cannot be read ({error.strerror})")
        hashes = packed_hashes(seen.image_rgb).tobytes()
        return Look(path, seen.size_wh, seen.upright_wh, seen.orientation, seen.traits, sha256=sha256, hashes=hashes)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and hashlib sums outside Python's lock
        return list(track(pool.map(look, paths), "checking", "image", len(paths)))
