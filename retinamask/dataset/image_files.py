"""The one walk over folders of images and annotations: linked folders are followed, and nothing vanishes uncounted.

Above `images`, which knows the endings, and `annotations`; the readers, detection, the audit and labelImg look for
files this way.
"""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from retinamask.dataset import images
from retinamask.dataset.annotations import AnnotationError, first_lines, relative_path

# what lies beside images for a reason: annotations, lists, notes, networks' settings, results
_COMPANIONS = (
    *(".xml", ".json", ".csv", ".txt", ".yaml", ".yml", ".data", ".names", ".labels"),
    *(".md", ".html", ".cfg", ".weights", ".h5"),
)

LISTS = (".txt", ".lst")  # endings of lists of images


class Walk(NamedTuple):
    """The files below a folder."""

    files: list[Path]  # sorted; without hidden ones
    hidden: list[Path]  # files that begin with a dot; what lies in hidden folders is not looked at
    problems: list[str]  # one message for each name that is no UTF-8, link to nowhere and folder that is closed

    def images(self) -> list[Path]:
        """Files whose ending is one of `images.EXTENSIONS`."""
        return [path for path in self.files if is_image(path)]

    def notes(self) -> list[str]:
        """The problems, and one line for each ending of files that are neither images nor annotations."""
        others = (path.suffix.lower() for path in self.files if not is_image(path))
        counts = Counter(suffix for suffix in others if suffix not in _COMPANIONS)
        what = {suffix: f"ending in {suffix}" if suffix else "without an ending" for suffix in counts}
        if hidden := sum(map(is_image, self.hidden)):
            counts["hidden"], what["hidden"] = hidden, "whose name begins with a dot"
        verbs = {kind: ("file", "is") if count == 1 else ("files", "are") for kind, count in counts.items()}
        return [
            *self.problems,
            *(f"{counts[kind]} {verbs[kind][0]} {what[kind]} {verbs[kind][1]} not read" for kind in sorted(counts)),
        ]


def walk(folder: str | Path) -> Walk:
    """List all files below a folder, linked folders included; hidden folders (``.git``, Jupyter's copies) are not.

    A folder is looked at once, whatever leads to it, so that links in a circle end.
    """
    files, hidden, problems, seen = [], [], [], set()
    folders, links = [Path(folder)], []
    while folders or links:  # links last: a folder goes by its own name where it lies below too
        place = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(place)
        if real in seen:
            problems.append(f"{place}: a link to {real}, which is read already")
            continue
        seen.add(real)
        try:
            found = sorted(os.scandir(place), key=lambda item: item.name)
        except OSError as error:
            problems.append(f"{place}: cannot be looked into ({error.strerror})")
            continue
        for item in found:
            path = place / item.name
            if not is_utf8(item.name):
                problems.append(f"{shown(path)}: the name is not UTF-8; rename it")
            elif item.name.startswith("."):
                hidden += [] if item.is_dir() else [path]
            elif item.is_dir():
                (links if item.is_symlink() else folders).append(path)
            elif item.is_file():
                files.append(path)
            elif item.is_symlink():
                problems.append(f"{path}: a link that leads nowhere")
    return Walk(sorted(files), hidden, problems)


def find_images(sources: Iterable[str | Path], folder: str | Path) -> tuple[list[str], list[str]]:
    """Find image files: those of `expand`, and all below folders.

    Args:
        sources: image files, whatever they are called, folders, globs and lists.
        folder: what the paths that are returned are relative to.

    Returns:
        Paths with forward slashes, sorted within each source, each once; and one line for each thing that was left
        out: names that are not UTF-8, links to nowhere, endings that are not read.

    Raises:
        AnnotationError: a source does not exist, or there is no image at all.
    """
    places, notes = expand(sources)
    paths, more = images_in(places, folder)
    return paths, notes + more


def expand(sources: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Replace globs by what they match and lists by what they name.

    Args:
        sources: files, folders, globs such as ``photos/**/*.jpg`` that are no file's name, files ending in ``.txt`` or
            ``.lst`` with a path a line, or ``-`` for such a list on standard input. Paths in a list are relative to
            the working folder.

    Returns:
        The files and folders, also those that only a list names and that do not exist; and a line for each ending
        that a glob matches and that is not read.

    Raises:
        AnnotationError: a source does not exist, a glob matches nothing to look at, a list names no file that exists.
    """
    places, notes = [], []
    for source in map(str, sources):
        path = Path(source)
        if source == "-" or (path.suffix.lower() in LISTS and path.is_file()):
            places += _listed(source)
        elif path.exists():
            places.append(path)
        elif glob.has_magic(source):
            matches = [Path(name) for name in sorted(glob.glob(source, recursive=True))]
            folders = {match for match in matches if match.is_dir()}
            matches = [match for match in matches if folders.isdisjoint(match.parents)]  # walked with its folder
            matched = [match for match in matches if match.is_dir() or is_image(match)]
            notes += Walk([match for match in matches if not match.is_dir()], [], []).notes()
            if not matched:
                found = f"{len(matches)} file(s) of other kinds, such as {shown(matches[0])}" if matches else "nothing"
                expected = f"expected folders or files ending in {', '.join(images.EXTENSIONS)}"
                raise AnnotationError(f"{shown(source)} matches {found}; {expected}")
            places += matched
        else:
            raise AnnotationError(f"{shown(source)} does not exist; expected an image or a folder of images")
    return places, notes


def _listed(source: str) -> list[Path]:
    """Read a list of paths from a file, or for ``-`` from standard input."""
    content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    where, expected = "standard input" if source == "-" else shown(source), "expected UTF-8 text with a path a line"
    if b"\0" in content:
        raise AnnotationError(f"{where} holds NUL bytes, {expected}")
    lines = content.decode("utf-8-sig", "surrogateescape").split("\n")
    places = [Path(line.rstrip("\r")) for line in lines if line.strip()]
    if not places:
        raise AnnotationError(f"{where} names no image, {expected}")
    if not any(map(os.path.exists, places)):
        found = f"{where}: none of its {len(places)} line(s) names a file that exists, such as {shown(places[0])}"
        raise AnnotationError(f"{found}; expected a path a line, relative to the folder where the command runs")
    return places


def images_in(places: Iterable[Path], folder: str | Path) -> tuple[list[str], list[str]]:
    """Find the images of `expand`'s files and folders, as `find_images` does."""
    found: dict[str, None] = {}
    notes: list[str] = []
    for place in places:
        seen = walk(place) if os.path.isdir(place) else None
        notes += seen.notes() if seen else []
        for path in seen.images() if seen else [place]:
            relative = relative_path(path, folder)
            if is_utf8(relative):
                found[relative] = None
            else:
                notes.append(f"{shown(relative)}: the name is not UTF-8; rename it")
    if not found:
        listed, expected = ", ".join(map(shown, places)), ", ".join(images.EXTENSIONS)
        raise AnnotationError(first_lines([f"no image below {listed}; expected files ending in {expected}", *notes]))
    return list(found), notes


def is_image(path: Path) -> bool:
    """Tell by a file's ending whether `retinamask.dataset.images` reads it."""
    return path.suffix.lower() in images.EXTENSIONS


def is_utf8(name: str) -> bool:
    """Whether a path can be written into a text file; Linux allows any bytes in it."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def shown(path: str | Path) -> str:
    """The path as it can be printed and written: bytes that are not UTF-8 as ``\\udc..``."""
    return str(path).encode("utf-8", "backslashreplace").decode()
