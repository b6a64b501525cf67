"""The reader that annotation tools' files share: each file is about one image or many, and gives their entries.

On top of `reading`, below `cvat`, `labelme`, `via` and `vott`.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from retinamask.dataset.annotations import AnnotationError
from retinamask.dataset.formats import json_files
from retinamask.dataset.formats.reading import (
    Entry,
    FoundObject,
    Problem,
    Reading,
    files_below,
    image_index,
    read_documents,
)

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


def reader(
    entries: Callable[[Path, Path], Iterable[Entry | Problem]], tool: str, suffixes: Sequence[str]
) -> Callable[..., tuple[pd.DataFrame, list[Problem]]]:
    """Make a reader of `FORMATS`.

    Args:
        entries: what one file says. Takes the file and the folder that the user named; gives an entry an image, and
            problems.
        tool: whose files they are, for messages.
        suffixes: endings of the files that count in a folder.
    """

    def read(
        sources: Iterable[str | Path],
        csv_folder: str | Path,
        image_folder: str | Path | None = None,
        classes: dict[str, int] | None = None,
        with_unannotated: bool = False,
    ) -> tuple[pd.DataFrame, list[Problem]]:
        sources = [Path(source) for source in sources]
        paths = files_below(sources, suffixes, f"{tool} files")
        if not paths:
            listed = ", ".join(map(str, sources))
            raise AnnotationError(f"no {' or '.join(suffixes)} file below {listed}; expected files of {tool}")
        reading = Reading(Path(csv_folder), classes, f"{tool} entry", f"{tool} image(s)")
        return read_documents(paths, _listed, image_index(sources, image_folder), reading, with_unannotated)

    def _listed(path: Path, reading: Reading) -> list[Entry]:
        found = list(entries(path, path.parent))
        problems = [item for item in found if isinstance(item, Problem)]
        reading.problems += problems
        reading.list_lost |= any(problem.action == "skipped file" for problem in problems)
        return sorted((item for item in found if isinstance(item, Entry)), key=lambda entry: entry.written_name)

    return read


def unusable(where: str, error: ValueError | str) -> FoundObject:
    """An object that is reported and left out; an image that has only such is left out too."""
    return FoundObject(where, "", (0.0, 0.0, 0.0, 0.0), str(error))


def box_of_sides(record: dict, sides: Sequence[str]) -> tuple[float, float, float, float]:
    """The box of four numbers of a JSON object: left, top, width and height, under the names ``sides``.

    Raises:
        ValueError: one is missing or no number, or the width or height is not above 0.
    """
    left, top, width, height = (json_files.number(record.get(side)) for side in sides)
    if not (width > 0 and height > 0 and left + top < math.inf):  # false for nan too
        shown = ", ".join(f"{side} {json_files.called(record.get(side))}" for side in sides)
        raise ValueError(f"found {shown}; expected numbers, width and height above 0")
    return left, top, left + width, top + height


def text_number(text: str | None) -> float:
    """The text as a finite number, ``nan`` if it is none; ``1_0``, ``inf`` and other digits than 0 to 9 are none."""
    number = float(text) if text and _NUMBER.fullmatch(text.strip()) else math.nan
    return number if math.isfinite(number) else math.nan
