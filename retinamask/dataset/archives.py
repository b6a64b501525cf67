"""Unpack zip and tar archives that nobody here has seen: inside one folder, within limits, all or nothing.

Used by `fetching`. No number in an archive is trusted: bytes are counted while they are written, and names, links
and devices are judged before anything is made.
"""

import contextlib
import errno
import gzip
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

_CHUNK_BYTES = 1 << 20
_HEADER_BYTES = 1 << 24  # more than this at once is asked for only by a tar header that fills the memory
_ROOM_BYTES = 256 * 1024**2  # stays free on the disk
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, OverflowError, LookupError, ValueError),  # from fuzzed headers
)


class ArchiveError(ValueError):
    """An archive cannot be unpacked, or must not be; the message says why and what to do."""


class DamagedError(ArchiveError):
    """The file is no archive, or not a whole one: fetched again it may be."""


@dataclass(frozen=True)
class Limits:
    """What an archive may become; the defaults leave room for ten times the largest set of the catalogue."""

    max_bytes: int = 20 * 1024**3
    max_files: int = 500_000
    max_ratio: int = 100  # unpacked to packed: JPEG has 1, a folder of XML 10, a bomb 1,000
    ratio_from_bytes: int = 64 * 1024**2  # below this the ratio does not matter


class Unpacked(NamedTuple):
    """How many files were written, how many bytes they have, and how many links were left out."""

    files: int
    bytes: int
    links: int


class _Member(NamedTuple):
    """One entry: ``kind`` is ``file``, ``folder``, ``link`` or what else it is."""

    name: str
    kind: str
    target: str  # of a link, as seen from the archive's root
    open: Callable[[], IO[bytes]]


def unpack(
    archive: str | Path,
    folder: str | Path,
    place: Callable[[PurePosixPath], PurePosixPath | None] = lambda path: path,
    limits: Limits | None = None,
) -> Unpacked:
    """Unpack a zip or tar (also tar.gz) into a new folder; on any error nothing of it is left.

    Args:
        archive: the file; what it is is found by its content.
        folder: must not exist; its parent must.
        place: maps a path in the archive to one in ``folder``, or to ``None`` for what is not wanted.
        limits: for size, count and compression.

    Raises:
        ArchiveError: not a whole archive, encrypted, a name or a link that leads outside, a device, or past a limit.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.exists():
        raise ArchiveError(f"{folder} exists; choose a new folder")
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    temporary.chmod(0o755)
    try:
        writing = _Writing(archive, temporary, place, limits or Limits())
        for member in _members(archive, writing.limits):
            writing.take(member)
        if not writing.files:
            raise ArchiveError(f"{archive} {writing.nothing()}")
        temporary.rename(folder)
    except ArchiveError:
        raise
    except _DAMAGE as error:
        raise DamagedError(f"{archive}: damaged or cut short ({error}); fetch it again") from None
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ):  # places and names from fuzzed headers
            raise
        raise DamagedError(f"{archive}: damaged ({error.strerror}); fetch it again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Unpacked(writing.files, writing.bytes, writing.links)


def comment(archive: str | Path) -> str:
    """The comment of a zip, empty if there is none; GitHub writes the commit there."""
    if not zipfile.is_zipfile(archive):
        return ""
    with zipfile.ZipFile(archive) as opened:
        return opened.comment.decode("utf-8", "replace")


class _Writing:
    """What has been unpacked so far."""

    def __init__(self, archive: Path, folder: Path, place: Callable, limits: Limits):
        self.archive, self.folder, self.place, self.limits = archive, folder, place, limits
        self.packed = archive.stat().st_size if archive.is_file() else 0
        self.room = shutil.disk_usage(folder).free - _ROOM_BYTES
        self.files = self.bytes = self.links = self._seen = 0
        self._tops: dict[str, None] = {}

    def take(self, member: _Member) -> None:
        """Write one member, or leave it out, or refuse the archive."""
        self._seen += 1
        if self._seen > self.limits.max_files:
            raise ArchiveError(f"{self.archive}: more than {self.limits.max_files:,} entries; not unpacked")
        path = _checked(member.name, self.archive)
        self._tops[path.parts[0] if path.parts else "."] = None
        placed = self.place(path) if path.parts and not _is_noise(path) else None
        if placed is None or member.kind == "folder":
            return
        if member.kind == "link":
            _checked(member.target, self.archive, f"the link {member.name!r} leads to ")
            self.links += 1
            return
        if member.kind != "file":
            raise ArchiveError(f"{self.archive}: {member.name!r} is a {member.kind}, expected files; not unpacked")
        self._write(member, self.folder / _checked(str(placed), self.archive))

    def _write(self, member: _Member, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
        except (FileExistsError, NotADirectoryError):
            raise ArchiveError(f"{self.archive}: {member.name!r} stands in it twice; not unpacked") from None
        with open(path, "wb") as copy, member.open() as source:
            while chunk := source.read(_CHUNK_BYTES):
                self.bytes += len(chunk)
                _check_growth(self.archive, self.bytes, self.packed, self.limits)
                if self.bytes > self.room:
                    raise ArchiveError(f"{self.archive}: no room on the disk of {self.folder.parent}; free some")
                copy.write(chunk)
        self.files += 1

    def nothing(self) -> str:
        found = ", ".join(list(self._tops)[:10]) or "nothing at all"
        return f"holds none of the files that are used; at its top it has {found}"


def _check_growth(archive: Path, size: int, packed: int, limits: Limits) -> None:
    """Refuse what has grown past the limits."""
    if size > limits.max_bytes:
        raise ArchiveError(f"{archive}: more than {limits.max_bytes:,} bytes unpacked; not unpacked")
    if size > limits.ratio_from_bytes and size > packed * limits.max_ratio:
        raise ArchiveError(
            f"{archive}: {packed:,} bytes have become {size:,}, more than {limits.max_ratio} times as many; "
            "that is how a zip bomb looks, not unpacked"
        )


def _checked(name: str, archive: Path, prefix: str = "") -> PurePosixPath:
    """A member's name as a relative path that stays inside, or an error."""
    path = PurePosixPath(name.replace("\\", "/"))  # some Windows programs write backslashes
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name) or "\0" in name:
        raise ArchiveError(f"{archive}: {prefix}{name!r} leads outside the folder; not unpacked")
    return path


def _is_noise(path: PurePosixPath) -> bool:
    """What macOS puts into archives beside the files themselves."""
    return path.parts[0] == "__MACOSX" or path.name.startswith("._") or path.name == ".DS_Store"


def _members(archive: Path, limits: Limits) -> Iterator[_Member]:
    """The archive's entries in their order."""
    if not archive.is_file():
        raise ArchiveError(f"{archive} is not a file; expected a zip or tar archive")
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive, limits)
        return
    with open(archive, "rb") as file:
        start = file.read(512).lstrip()
    if start.startswith(b"PK"):
        raise DamagedError(f"{archive}: a zip that is cut short, or one volume of several; fetch it again")
    if start[:1] == b"<":
        raise DamagedError(f"{archive}: a web page, expected an archive; open its address in a browser to see why")
    yield from _tar_members(archive, limits)


def _zip_members(archive: Path, limits: Limits) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        if len(entries) > limits.max_files:
            raise ArchiveError(f"{archive}: {len(entries):,} entries, expected at most {limits.max_files:,}")
        for entry in entries:
            if entry.flag_bits & 1:
                raise ArchiveError(f"{archive}: {entry.filename!r} is encrypted; unpack it with its password by hand")
            kind, target = _zip_kind(entry), ""
            if kind == "link":
                with opened.open(entry) as content:
                    target = _beside(entry.filename, content.read(4096).decode("utf-8", "replace"))
            yield _Member(entry.filename, kind, target, lambda entry=entry: opened.open(entry))


def _zip_kind(entry: zipfile.ZipInfo) -> str:
    mode = entry.external_attr >> 16  # zero where the archive was not made on Unix
    if entry.is_dir() or stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISLNK(mode):
        return "link"
    return "file" if stat.S_ISREG(mode) or not stat.S_IFMT(mode) else "device"


def _tar_members(archive: Path, limits: Limits) -> Iterator[_Member]:
    with open(archive, "rb") as file, contextlib.ExitStack() as stack:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        plain = stack.enter_context(gzip.GzipFile(fileobj=file)) if packed else file
        guarded = _Guarded(plain, archive, limits)
        try:
            opened = stack.enter_context(tarfile.open(fileobj=guarded, mode="r:"))
        except tarfile.ReadError:
            raise DamagedError(f"{archive}: neither a zip nor a tar archive, or only a piece of one") from None
        for entry in opened:
            target = _beside(entry.name, entry.linkname) if entry.issym() else entry.linkname
            yield _Member(entry.name, _tar_kind(entry), target, lambda entry=entry: opened.extractfile(entry))
        guarded.seek(opened.offset)  # tarfile takes a file that is cut between two members for a whole one
        if len(guarded.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE:
            raise DamagedError(f"{archive}: cut short; fetch it again")
        while guarded.read(_CHUNK_BYTES):  # gzip's checksum stands at the very end
            pass


class _Guarded:
    """A file for `tarfile` that stops it from unpacking or holding too much, wherever a header sends it."""

    def __init__(self, file: IO[bytes], archive: Path, limits: Limits):
        self._file, self._archive, self._limits = file, archive, limits
        self._packed = archive.stat().st_size

    def read(self, size: int) -> bytes:
        if size > _HEADER_BYTES:
            raise ArchiveError(f"{self._archive}: a header of {size:,} bytes; that is no sound tar, not unpacked")
        self._check(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, position: int) -> int:
        self._check(position)
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, position: int) -> None:
        _check_growth(self._archive, position, self._packed, self._limits)


def _tar_kind(entry: tarfile.TarInfo) -> str:
    if entry.isdir():
        return "folder"
    if entry.issym() or entry.islnk():
        return "link"
    return "file" if entry.isreg() else "device"


def _beside(name: str, target: str) -> str:
    """Where a link in the archive leads, as seen from the archive's root."""
    parts: list[str] = list(PurePosixPath(name).parent.parts)
    for part in PurePosixPath(target).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)  # an absolute target or a ".." too many stays in sight
    return str(PurePosixPath(*parts)) if parts else "."
