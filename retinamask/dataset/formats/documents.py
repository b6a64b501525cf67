"""The reader that annotation tools' files share: each file is about one image or many, and gives their entries.

On top of `reading`, below `cvat`, `labelme`, `via` and `vott`.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd

from retinamask.dataset.annotations import AnnotationError
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
    entries: Callable[[Path, Reading], list[Entry]], tool: str, suffixes: Sequence[str]
) -> Callable[..., tuple[pd.DataFrame, list[Problem]]]:
    """Make a reader of `FORMATS`.

    Args:
        entries: gives the entries of one file, one an image.
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
        return read_documents(paths, entries, image_index(sources, image_folder), reading, with_unannotated)

    return read


def unusable(where: str, error: ValueError | str) -> FoundObject:
    """An object that is reported and left out; an image that has only such is left out too."""
    return FoundObject(where, "", (0.0, 0.0, 0.0, 0.0), str(error))


def text_number(text: str | None) -> float:
    """The text as a finite number, ``nan`` if it is none; ``1_0``, ``inf`` and other digits than 0 to 9 are none."""
    number = float(text) if text and _NUMBER.fullmatch(text.strip()) else math.nan
    return number if math.isfinite(number) else math.nan
