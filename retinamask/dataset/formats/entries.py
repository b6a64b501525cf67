"""What the readers of this folder pass on: an image's annotation as its file has it, and what is wrong with it.

Below `reading`, which makes the table of it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple


class Problem(NamedTuple):
    """Something wrong in one annotation file, and what was done about it."""

    action: str  # "skipped file", "dropped box", "clipped box" or "note"
    where: str  # file, and line where there is one
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message} ({self.action})"


class FoundObject(NamedTuple):
    """One object as its file has it."""

    where: str  # file and line, or file and number
    name: str
    box_xyxy: tuple[float, float, float, float]  # pixels, or shares of the image: see `Entry`
    wrong: str | None = None  # why the format itself forbids it


class Entry(NamedTuple):
    """What an annotation file says of one image."""

    source: Path  # the annotation file
    where: str  # how messages name the entry
    objects: list[FoundObject]
    written_name: str = ""  # the image's name in the annotation
    image_path: Path | None = None  # the image, where it need not be looked for
    hint: PurePath | None = None  # where the image is likely to be, among several of its name
    own_stem: bool = False  # an image with the annotation file's own stem will do
    size_wh: tuple[int, int] | None = None  # what the annotation says
    size_label: str = ""  # how the format calls the size; empty if it has none
    relative: bool = False  # boxes are shares of the image, 0 to 1


@dataclass
class Reading:
    """What is asked for, and what has been gathered so far."""

    csv_folder: Path
    classes: dict[str, int] | None
    kind: str  # what an image's annotation is called in messages, such as "XML"
    counted: str  # what is counted in messages, such as "XML file(s)"
    annotated: Callable[[Path], bool] = lambda image_path: False  # has it a file, if not among those asked for?
    rows: list[tuple] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    taken: dict[Path, str] = field(default_factory=dict)  # image: its annotation
    doubtful: set[Path] = field(default_factory=set)  # images whose annotation could not be used
    names: Counter = field(default_factory=Counter)  # classes, how many boxes are called so
    list_lost: bool = False  # a file about many images could not be read: nobody knows about which

    def skip_file(self, path: Path, error: ValueError) -> None:
        """Report a file that is about many images and cannot be used."""
        self.problems.append(Problem("skipped file", str(path), str(error).removeprefix(f"{path}: ")))
        self.list_lost = True
