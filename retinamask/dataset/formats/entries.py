"""Pass on an image's annotation as its file has it, and what is wrong with it."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Problem(NamedTuple):
    """Something wrong in one annotation file, and what was done about it."""

    action: str  # "skipped file", "dropped box", "clipped box" or "note"
    where: str  # file, and line where there is one
    message: str
    image_path: str | None = None  # as in the table, where the image is known
    written_wh: tuple[int, int] | None = None  # the size that the annotation says, where it is not the image's

    def __str__(self) -> str:
        return f"{self.where}: {self.message} ({self.action})"


class FoundObject(NamedTuple):
    """One object as its file has it."""

    where: str  # file and line, or file and number
    name: str = ""
    box_xyxy: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # pixels, or shares of the image: see `Entry`
    wrong: str | None = None  # why the format itself forbids it


class Entry(NamedTuple):
    """One image's annotation, as its file has it."""

    source: Path  # the annotation file
    where: str  # how messages name the entry
    objects: list[FoundObject]
    written_name: str = ""  # the image's name, or path, in the annotation
    image_path: Path | None = None  # the image, where it need not be looked for
    folder: str = ""  # the name of the image's folder, where the annotation has it besides
    own_stem: bool = False  # an image with the annotation file's own stem will do
    size_wh: tuple[int, int] | None = None  # what the annotation says
    size_label: str = ""  # how the format calls the size; empty if it has none
    relative: bool = False  # boxes are shares of the image, 0 to 1


class Asked(NamedTuple):
    """The context in which a format reads a file."""

    root: Path  # the folder that the user named, or that of the file
    classes: dict[str, int] | None  # if given, there are no others
    memory: dict  # lives as long as one reading: for what is to be looked up once
    class_list: dict[str, None]  # gets the classes that the files list, in their order


class Format(NamedTuple):
    """An annotation format: how to find its files, read one and write a table."""

    entries: Callable[[Path, Asked], Iterable[Entry | Problem | Path]]
    """Reads one file: gives entries, problems, and paths of images that it names without annotation."""
    select: Callable[[list[Path]], list[Path]]  # of all files below a folder those that may be its annotations
    file: str  # how messages call a file
    expected: str  # and what they say is missing
    kind: str  # how they call an image's annotation
    counted: str  # and several
    write: Callable[..., None] | None = None
    """Writes into a new folder: takes it, the pictures, the classes, the folder that it will be, and options."""
    suffix: str = ""  # the ending of its files, where each is about the image that has its stem


def ending(*suffixes: str) -> Callable[[list[Path]], list[Path]]:
    """Select the files with these endings."""
    return lambda files: [path for path in files if path.suffix.lower() in suffixes]


def folders_up_to(path: Path, root: Path) -> list[Path]:
    """The folder of a file and those above it, up to the one that the user named; elsewhere its own alone."""
    here, root = path.parent.absolute(), root.absolute()
    return [folder for folder in (here, *here.parents) if folder.is_relative_to(root)] or [here]


def value_or_error(function: Callable, *given):
    """What a function returns, or its `ValueError`, so that a pool continues with the others."""
    try:
        return function(*given)
    except ValueError as error:
        return error


def found_object(where: str, read: Callable[..., tuple[str, tuple]], *given) -> FoundObject:
    """The object that ``read`` makes of what is given, a name and a box; its `ValueError` says what is wrong."""
    try:
        return FoundObject(where, *read(*given))
    except ValueError as error:
        return FoundObject(where, wrong=str(error))


def entry_each(
    records: Iterable[tuple[str, object]], read: Callable[[str, object], Entry | None], unsure: str = ""
) -> Iterator[Entry | Problem]:
    """A problem for each record that ``read`` cannot make an entry of, then the entries, sorted by image name.

    Args:
        records: how messages name each, and what it is.
        read: takes both; ``None`` leaves a record out.
        unsure: the tool, if its files do not say whether anybody has opened an image that has no shape.
    """
    found = []
    for where, record in records:
        try:
            found.append(read(where, record))
        except ValueError as error:
            yield Problem("skipped file", where, str(error))
    found = sorted(filter(None, found), key=lambda entry: entry.written_name)
    empty = [entry for entry in found if not entry.objects]
    if unsure and empty:
        yield Problem(
            "note",
            str(empty[0].source),
            f"{len(empty)} image(s) without a shape count as images without objects, such as "
            f"{empty[0].written_name!r}; {unsure} does not say whether anybody opened them",
        )
    yield from found
