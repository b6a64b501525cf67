"""Writing files so that nothing is ever half written: to a temporary name, then renamed.

Beside `boxes` at the bottom of the package; everything that writes uses it.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it becomes ``path``, on error it goes.

    The suffix is kept, because model savers choose their format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}{path.suffix}")
    temporary.touch(exist_ok=False)  # with the mode that a plain open() gives, unlike tempfile's
    try:
        yield temporary
        to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, record: dict) -> None:
    """Write a record as indented JSON, atomically; ``NaN`` is refused because JSON has none."""
    write_text(path, json_text(record))


def json_text(record: dict) -> str:
    """A record as `write_json` writes it."""
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_disk(path: Path) -> None:
    """Ask the system to have the bytes on disk before the rename makes them the real file."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: str | Path) -> None:
    """Ask the system to have the folder's names on disk, so that a rename outlasts a power cut; not on Windows."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: BaseException | None) -> bool:
    """Whether an error means that there is no room left: disk, quota or limit; HDF5 says it only in its text."""
    while error is not None:
        said = re.search(r"errno = (\d+)", str(error))
        if {getattr(error, "errno", None), said and int(said[1])} & _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def no_room(path: str | Path, needed_bytes: int) -> str:
    """The first half of a message: which file did not fit, what it needed and what is free."""
    free = shutil.disk_usage(Path(path).parent).free
    return f"{path}: no room on the disk; it needs {needed_bytes / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"


def refuse_existing(path: str | Path, force: bool = False, option: str = "--out") -> None:
    """Raise `ValueError` if ``path``, which the user chose as ``option``, exists, except with ``force``."""
    if Path(path).exists() and not force:
        raise ValueError(f"{path} exists; choose another {option}, or replace it with --force")


@contextlib.contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder``; on success it becomes ``folder``, on error it goes.

    Paths relative to the one are right for the other.

    Raises:
        ValueError: ``folder`` is not new, nor an empty folder.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists; expected a new or empty folder to write into")
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            folder.rmdir()  # only ever an empty one; Windows renames onto nothing that exists
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
