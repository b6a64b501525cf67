"""Which image file belongs to an annotation file, without trusting the paths written inside it.

Used by the readers of this folder.
"""

import functools
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePath, PureWindowsPath

from retinamask.dataset import images


class ImageIndex:
    """All image files below some folders, found by name or by stem.

    Only the last part of a name is ever looked up, and only among files that are really there, so no
    name inside an annotation can reach outside the folders.
    """

    def __init__(self, folders: list[Path], paths: Iterable[Path] | None = None):
        """Look for all images below ``folders``, or take ``paths`` for all there are."""
        self.folders = folders
        below = (path for folder in folders for path in folder.rglob("*") if is_image(path))
        self._all = sorted(set(below if paths is None else paths))
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._parent = {path: path.parent for path in self._all}  # asked for again and again where names recur
        for path in self._all:
            self._by_name[path.name].append(path)
            self._by_stem[path.stem].append(path)

    def all(self) -> list[Path]:
        """Every image file once, sorted."""
        return self._all

    def find(self, annotation: Path, written_name: str, own_stem: bool = True, hint: PurePath | None = None) -> Path:
        """The image of ``annotation``, one of its `candidates`.

        Where several folders hold that name, the one counts whose folders are called as in the hint, counted from
        the file upwards; of several such the nearest to the annotation.

        Args:
            annotation: the annotation file.
            written_name: the image's name, or path, as the annotation has it.
            own_stem: an image with the annotation file's own stem will do.
            hint: where the image is likely to be; without it ``written_name`` if it has folders, else ``annotation``.

        Raises:
            ValueError: there is none, or two are equally near.
        """
        candidates = self.candidates(annotation, written_name, own_stem)
        if not candidates:
            stem = f"{annotation.stem}{{{','.join(images.EXTENSIONS)}}}"
            wanted = [repr(_last_part(written_name))] * bool(written_name) + [stem] * own_stem
            raise ValueError(
                f"no image named {' or '.join(wanted)} below {', '.join(map(str, self.folders))}; "
                "put it there or name the folder of the images"
            )
        if len(candidates) == 1:
            return candidates[0]
        written = PureWindowsPath(written_name)
        hint = hint or (written if len(written.parts) > 1 else annotation)
        folder = annotation.parent
        ranks = {
            path: (-_alike(self._parent[path], hint.parent), _steps(folder, self._parent[path])) for path in candidates
        }
        nearest = [path for path in candidates if ranks[path] == min(ranks.values())]
        if len(nearest) > 1:
            raise ValueError(f"the image is found in {len(nearest)} places: {', '.join(map(str, nearest))}; keep one")
        return nearest[0]

    def rival(self, annotation: Path, image_path: Path) -> Path | None:
        """Another image than the one found, that has the annotation file's own stem: labelImg goes by that."""
        own = self._by_stem.get(annotation.stem, [])
        near = [path for path in own if self._parent[path] in (self._parent[image_path], annotation.parent)]
        return near[0] if near and image_path not in own else None

    def candidates(self, annotation: Path, written_name: str, own_stem: bool = True) -> list[Path]:
        """Images of that name, else with that name but for the extension, else with the annotation's own stem."""
        name = _last_part(written_name)
        return (
            self._by_name.get(name)
            or self._by_stem.get(name)
            or self._by_stem.get(PurePath(name).stem)
            or (self._by_stem.get(annotation.stem) if own_stem else None)
            or []
        )


def nearness(folder: Path, images_folder: Path) -> tuple[int, int]:
    """How near a folder of annotations is to one of images; less is nearer."""
    return -_alike(images_folder, folder), _steps(folder, images_folder)


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


def _alike(folder: PurePath, other: PurePath) -> int:
    """How many folders are called the same, counted from the innermost."""
    count = 0
    for name, other_name in zip(reversed(folder.parts), reversed(other.parts), strict=False):
        if name != other_name:
            break
        count += 1
    return count
