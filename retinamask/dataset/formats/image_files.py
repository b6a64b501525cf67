"""Which image file belongs to an annotation file, without trusting the paths written inside it.

Used by the readers of this folder.
"""

import functools
import os
from collections import defaultdict
from pathlib import Path, PurePath, PureWindowsPath

from retinamask.dataset import images


class ImageIndex:
    """All image files below some folders, found by name or by stem.

    Only the last part of a name is ever looked up, and only among files that are really there, so no
    name inside an annotation can reach outside the folders.
    """

    def __init__(self, folders: list[Path]):
        self.folders = folders
        self._all = sorted({path for folder in folders for path in folder.rglob("*") if is_image(path)})
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._parent = {path: path.parent for path in self._all}  # asked for again and again where names recur
        for path in self._all:
            self._by_name[path.name].append(path)
            self._by_stem[path.stem].append(path)

    def all(self) -> list[Path]:
        """Every image file once, sorted."""
        return self._all

    def find(self, annotation: Path, written_name: str) -> Path:
        """The image of ``annotation``, one of its `candidates`.

        Where several folders hold that name the one nearest to the annotation counts.

        Raises:
            ValueError: there is none, or two are equally near.
        """
        candidates = self.candidates(annotation, written_name)
        if not candidates:
            raise ValueError(
                f"no image named {_last_part(written_name)!r} or {annotation.stem}{{{','.join(images.EXTENSIONS)}}} "
                f"below {', '.join(map(str, self.folders))}; put it there or name the folder of the images"
            )
        if len(candidates) == 1:
            return candidates[0]
        folder = annotation.parent
        steps = {path: _steps(folder, self._parent[path]) for path in candidates}
        fewest = min(steps.values())
        nearest = [path for path in candidates if steps[path] == fewest]
        if len(nearest) > 1:
            raise ValueError(f"the image is found in {len(nearest)} places: {', '.join(map(str, nearest))}; keep one")
        return nearest[0]

    def candidates(self, annotation: Path, written_name: str) -> list[Path]:
        """Images of that name, else with that name but for the extension, else with the annotation's own stem."""
        name = _last_part(written_name)
        return (
            self._by_name.get(name)
            or self._by_stem.get(name)
            or self._by_stem.get(PurePath(name).stem)
            or self._by_stem.get(annotation.stem)
            or []
        )


def is_image(path: Path) -> bool:
    """Whether a file's ending is one that `retinamask.dataset.images` reads; hidden files are not."""
    return path.suffix.lower() in images.EXTENSIONS and not is_hidden(path) and path.is_file()


def is_hidden(path: Path) -> bool:
    """A dot file, or a copy that Jupyter keeps."""
    return path.name.startswith(".") or path.parent.name == ".ipynb_checkpoints"


def _last_part(written_name: str) -> str:
    return PureWindowsPath(written_name).name  # splits at both kinds of slashes


@functools.lru_cache(maxsize=4096)
def _steps(folder: Path, other: Path) -> int:
    """How many steps up and down lead from one folder to another."""
    return len(Path(os.path.relpath(other, folder)).parts)
