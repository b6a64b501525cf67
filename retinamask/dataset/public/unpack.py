"""Unpack zip and tar archives from strangers: inside one folder and within one size limit."""

import errno
import gzip
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

MAX_BYTES = 20 * 1024**3  # unpacked; ten times the largest set of the catalogue

_ROOM_BYTES = 256 * 1024**2  # stays free on the disk
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, struct.error, EOFError)
_FUZZED_HEADERS = (NotImplementedError, RuntimeError, OverflowError, LookupError, ValueError)
_NO_FILE_NAME = (errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ)


class ArchiveError(ValueError):
    """An archive that cannot be unpacked, or must not be."""


class DamagedError(ArchiveError):
    """A file that is no archive, or not a whole one: another download may help."""


def unpack(
    archive: str | Path, folder: str | Path, place: Callable[[PurePosixPath], PurePosixPath | None] = lambda path: path
) -> int:
    """Unpack a zip or tar (also tar.gz); links are left out. After an error the folder may hold a part.

    Args:
        archive: the file; its kind is found by its content.
        folder: where to.
        place: maps a path in the archive to one in ``folder``, or to ``None`` for what is not wanted.

    Returns:
        The number of files written.

    Raises:
        ArchiveError: not a whole archive, encrypted, a name or a link that leads outside, a device, or too large.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(folder).free - _ROOM_BYTES
    count = size = 0
    tops = {}
    try:
        for name, member_size, opened in _members(archive):
            path = _inside(name, archive)
            if not path.parts:
                raise DamagedError(f"{archive}: damaged (a file without a name); fetch it again")
            tops[path.parts[0]] = None
            # what macOS puts beside the files themselves
            noise = path.parts[0] == "__MACOSX" or path.name.startswith("._") or path.name == ".DS_Store"
            placed = None if noise else place(path)
            if placed is None:
                continue
            size += member_size
            if size > MAX_BYTES:
                raise ArchiveError(f"{archive}: more than {MAX_BYTES:,} bytes unpacked; not unpacked")
            if size > room:
                raise ArchiveError(f"{archive}: no room on the disk of {folder}; free some")
            copy = folder / _inside(str(placed), archive)
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
                with opened() as source, open(copy, "xb") as target:
                    shutil.copyfileobj(source, target)
            except (FileExistsError, NotADirectoryError):
                raise ArchiveError(f"{archive}: {name!r} occurs twice; not unpacked") from None
            count += 1
    except tarfile.FilterError as error:
        raise ArchiveError(f"{archive}: {error}; not unpacked") from None
    except ArchiveError:
        raise
    except (*_DAMAGE, *_FUZZED_HEADERS) as error:
        raise DamagedError(f"{archive}: damaged or cut short ({error}); fetch it again") from None
    except OSError as error:
        if error.errno not in _NO_FILE_NAME:
            raise
        raise DamagedError(f"{archive}: damaged ({error.strerror}); fetch it again") from None
    if not count:
        found = ", ".join(list(tops)[:10]) or "nothing at all"
        raise ArchiveError(f"{archive} holds none of the files that are used; at its top it has {found}")
    return count


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Yield name, size in bytes and a way to read it of each file in the archive."""
    if not archive.is_file():
        raise ArchiveError(f"{archive} is not a file; expected a zip or tar archive")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if entry.flag_bits & 1:
                    raise ArchiveError(f"{archive}: {entry.filename!r} is encrypted; unpack it by hand")
                kind = stat.S_IFMT(entry.external_attr >> 16)  # zero where the archive was not made on Unix
                if not entry.is_dir() and kind in (0, stat.S_IFREG):
                    yield entry.filename, entry.file_size, lambda entry=entry: opened.open(entry)
        return
    with open(archive, "rb") as file:
        start = file.read(512).lstrip()
    if start.startswith(b"PK"):
        raise DamagedError(f"{archive}: a zip that is cut short, or one volume of several; fetch it again")
    if start[:1] == b"<":
        raise DamagedError(f"{archive}: a web page, expected an archive; open its address in a browser to see why")
    if not tarfile.is_tarfile(archive):
        raise DamagedError(f"{archive}: neither a zip nor a tar archive, or only a piece of one")
    with tarfile.open(archive) as opened:
        for entry in opened:
            tarfile.data_filter(entry, archive.parent)  # raises for what leads outside, and for devices
            if entry.isreg():
                yield entry.name, entry.size, lambda entry=entry: opened.extractfile(entry)
        opened.fileobj.seek(opened.offset)  # tarfile takes a file that is cut between two members for a whole one
        if len(opened.fileobj.read()) < tarfile.BLOCKSIZE:  # to the very end, where gzip has its checksum
            raise DamagedError(f"{archive}: cut short; fetch it again")


def _inside(name: str, archive: Path) -> PurePosixPath:
    """Return a member's name as a relative path; `ArchiveError` if it leads outside."""
    path = PurePosixPath(name.replace("\\", "/"))  # some Windows programs write backslashes
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise ArchiveError(f"{archive}: {name!r} leads outside the folder; not unpacked")
    return path
