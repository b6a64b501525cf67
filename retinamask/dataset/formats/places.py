"""Where the image of an annotation lies: a few fixed places, all inside what the user named.

The written path counts from each of these folders, in this order:

1. the folder of the annotation file (labelImg, Darknet, Roboflow's VOC and COCO);
2. ``images/`` for ``labels/``, ``annotations/``, ``xml/`` or ``xmls/`` in its path (Ultralytics, Roboflow's YOLO, the
   public mask sets; ``JPEGImages/`` in the VOC devkit); without such a folder of images, the one that ``labels/``
   lies in; without ``labels/``, an ``images/`` beside the file;
3. if the user named a folder of images, only that: the part of it that is called as the annotation's own folder
   (``train/``), if there is one, else itself, else its ``images/``.

Of an absolute path only the file's name counts besides, since it may be of another computer; of one that leads up and
out of the named folders too, but only in a folder of images that the user named.
"""

import functools
import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from retinamask.dataset.formats.entries import Entry
from retinamask.dataset.image_files import is_image

# in lower case; the last of both is how the public set praveen calls them
ANNOTATION_FOLDERS = ("annotations", "labels", "xml", "xmls", "obj_train_data", "maskdetectorxmlfiles")
IMAGE_FOLDERS = ("images", "Images", "JPEGImages", "maskDetectorJPEGImages")

_ABSOLUTE = re.compile(r"/|[A-Za-z]+:")  # a drive and an internet address too


class Places:
    """Finds images; each folder is listed once."""

    def __init__(self, image_folder: Path | None):
        self.image_folder = image_folder
        self._folders, self._names = functools.cache(self._folders), functools.cache(self._names)

    def find(self, entry: Entry, root: Path) -> Path:
        """The image of an entry: of the written name, else, if the entry allows it, of the annotation's own stem.

        Args:
            entry: what the annotation says.
            root: the folder that the user named, or that of the file.

        Raises:
            ValueError: there is none, or several of one stem.
        """
        folders = self._folders(entry.source.parent, root, entry.folder)
        limits = [folder for folder in (root, self.image_folder) if folder is not None]

        def named(path: Path) -> Path | None:
            path = Path(os.path.normpath(path))
            return self._named(path) if any(_is_inside(path, limit) for limit in limits) else None

        written = entry.written_name.replace("\\", "/")
        plain = re.sub(r"^(\.\./)+", "", written)
        climbs, name_alone = plain != written, False
        if climbs:
            if found := named(entry.source.parent / written):
                return found
            inside = any(_is_inside(entry.source.parent / written, limit) for limit in limits)
            name_alone = self.image_folder is not None and not inside
        for folder in folders:
            for name in _spellings(plain, folder, not climbs, name_alone):
                if found := named(folder / name) if "/" in name else self._named(folder / name):
                    return found
        if found := self.of_own_stem(entry, root):
            return found
        raise ValueError(self._missing(entry, folders))

    def of_own_stem(self, entry: Entry, root: Path) -> Path | None:
        """The image that has the annotation file's own stem: labelImg goes by that alone."""
        for folder in self._folders(entry.source.parent, root, entry.folder) if entry.own_stem else ():
            if found := self._of_stem(folder, entry.source.stem):
                return found
        return None

    def _folders(self, here: Path, root: Path, written_folder: str) -> list[Path]:
        given = self.image_folder
        if given is None:
            return [here, *_parallel(here, root)]
        if _is_inside(here, given):
            return [here, *(_parallel(here, given) or [given])]
        parts = here.absolute().parts
        marks = [number for number, part in enumerate(parts) if part.lower() in ANNOTATION_FOLDERS]
        below = Path(*parts[marks[-1] + 1 :]) if marks else Path(os.path.relpath(here, root))
        for tail in filter(None, (Path(written_folder).name, "/".join(below.parts))):
            for top in (given, *_images_in(given)):
                if (top / tail).is_dir():
                    return [top / tail]
        return [given, *_images_in(given)]

    def _named(self, path: Path) -> Path | None:
        """The file, or the one image that has this name and an ending, where the name is written without one."""
        names, _ = self._names(path.parent)
        if path.name in names:
            return path
        return None if is_image(path) else self._of_stem(path.parent, path.name)

    def _of_stem(self, folder: Path, stem: str) -> Path | None:
        found = self._names(folder)[1].get(stem, [])
        if len(found) > 1:
            raise ValueError(f"{', '.join(found)} lie in {folder}, expected one image called {stem}; keep one")
        return folder / found[0] if found else None

    def _names(self, folder: Path) -> tuple[set[str], dict[str, list[str]]]:
        """All names in a folder, and those of images by their stem."""
        try:
            names = sorted(os.listdir(folder))
        except (OSError, ValueError):  # no such folder, or a name that no folder can have
            names = []
        by_stem = defaultdict(list)
        for name in names:
            if is_image(Path(name)) and not name.startswith("."):
                by_stem[os.path.splitext(name)[0]].append(name)
        return set(names), by_stem

    def _missing(self, entry: Entry, folders: list[Path]) -> str:
        name = re.split(r"[/\\]", entry.written_name)[-1]
        wanted = [repr(entry.written_name)] * bool(name)
        wanted += [f"{entry.source.stem!r} with an image's ending"] * entry.own_stem
        message = f"no image named {' or '.join(wanted)} in {', '.join(map(str, folders))}; "
        there = {other for folder in folders for other in self._names(folder)[0]}
        alike = sorted(other for other in there if other != name and _folded(other) == _folded(name))
        if alike:  # é may be one character or two, which look the same
            return message + f"{ascii(alike[0])} is there, but the annotation has {ascii(name)}: rename one"
        return message + "put it there or name the folder of the images"


def labels_of(image_path: Path, suffix: str) -> list[Path]:
    """Annotation files that an image has: in ``labels/`` or ``annotations/`` for its ``images/``, or beside it."""
    beside = image_path.with_suffix(suffix)
    parts = beside.parts
    marks = [number for number, part in enumerate(parts[:-1]) if part in IMAGE_FOLDERS]
    swaps = [Path(*parts[: marks[-1]], name, *parts[marks[-1] + 1 :]) for name in ("labels", "annotations") if marks]
    return [path for path in (*swaps, beside) if path.is_file()]


def _parallel(here: Path, root: Path) -> list[Path]:
    """The folder of images that goes with one of annotations, below ``root``."""
    inside = os.path.relpath(here, root).split(os.sep) if _is_inside(here, root) else []
    marks = [number for number, part in enumerate(inside) if part.lower() in ANNOTATION_FOLDERS]
    if not marks:
        return _images_in(here)
    top = root.joinpath(*inside[: marks[-1]])
    return [(*_images_in(top), top)[0].joinpath(*inside[marks[-1] + 1 :])]


def _images_in(folder: Path) -> list[Path]:
    return [folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()][:1]


def _spellings(written: str, folder: Path, whole: bool, name_alone: bool) -> list[str]:
    """The path as it is to be looked for from a folder: as it is, without the folders that it repeats, its name."""
    parts = written.split("/")
    if not parts[-1]:
        return []
    if whole and len(parts) == 1 and ":" not in written:
        return parts
    if _ABSOLUTE.match(written):
        return [written, parts[-1]]
    own = os.path.abspath(folder).split(os.sep)
    repeated = ["/".join(parts[n:]) for n in range(1, len(parts)) if own[-n:] == parts[:n]]
    return [written] * whole + repeated + [parts[-1]] * name_alone


def _is_inside(path: Path, folder: Path | str) -> bool:
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
