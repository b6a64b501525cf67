"""A weights file and its JSON replaced together: whenever the process dies, both old or both new can be read.

Below `snapshots`, which alone uses it. The two cannot be renamed at one moment, so the JSON's rename decides:

1. The new weights are written to ``.<stem>.new.h5`` and, when they are on disk, named ``.<stem>-<checksum>.h5``.
2. The new JSON, which holds their SHA-256, takes the place of the old one. From here on the new pair counts.
3. The waiting weights take their name. Whoever reads a JSON whose weights still wait does this step (`settle`).
"""

import contextlib
import re
from pathlib import Path
from typing import Any

from retinamask.dataset import files


def fresh(path: Path) -> Path:
    """Where new content of ``path`` is written; the same each time, so that half of a file never stays for long."""
    return path.with_name(f".{path.stem}.new{path.suffix}")


def waiting(weights: Path, checksum: str) -> Path:
    """Where whole weights of that SHA-256 wait for their name."""
    return weights.with_name(f".{weights.stem}-{checksum[:16]}{weights.suffix}")


def commit(weights: Path, record: dict[str, Any], checksum: str) -> None:
    """Make ``fresh(weights)``, whole and of that SHA-256, and ``record``, which holds it, the pair of that name."""
    described = weights.with_suffix(".json")
    text = files.json_text(record)
    files.to_disk(fresh(weights))
    fresh(weights).replace(waiting(weights, checksum))
    fresh(described).write_text(text, encoding="utf-8", newline="\n")
    files.to_disk(fresh(described))
    files.sync_folder(weights.parent)
    fresh(described).replace(described)
    files.sync_folder(weights.parent)
    settle(weights, checksum)


def settle(weights: Path, checksum: str) -> None:
    """Give weights that wait for their name that name, if there are any.

    Raises:
        OSError: the folder cannot be written to.
    """
    with contextlib.suppress(FileNotFoundError):  # another process may do the same at the same moment
        if waiting(weights, checksum).is_file():
            waiting(weights, checksum).replace(weights)
            files.sync_folder(weights.parent)
            waiting(weights, checksum).unlink()  # still there if both were links to one file


def tidy(weights: Path, checksum: str | None) -> None:
    """Remove what saves that were cut short have left, except weights that wait for the JSON of that SHA-256."""
    kept = waiting(weights, checksum) if checksum else None
    pattern = re.compile(rf"\.{re.escape(weights.stem)}(\.new\.(h5|json)|-[0-9a-f]{{16}}\.h5)")
    for path in weights.parent.iterdir():
        if pattern.fullmatch(path.name) and path != kept:
            path.unlink(missing_ok=True)
