"""One file from an address to the disk: resumed, verified, and whole or not there at all.

Used by `fetching` for the public data sets. What has come so far lies in ``NAME.part``; beside it ``NAME.part.json``
holds what says later whether the server's file is still the same. ``NAME`` appears only when every byte is there.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import requests
from tqdm import tqdm

from retinamask.dataset import connection, files
from retinamask.dataset.connection import DownloadError, StartOver, TryAgain

try:
    import fcntl
except ImportError:  # Windows has none; two downloads at once are then not noticed
    fcntl = None

MAX_BYTES = 20 * 1024**3

_CHUNK_BYTES = 1 << 16
_LONGEST_WAIT_S = 60

log = logging.getLogger(__name__)


class Downloaded(NamedTuple):
    """A whole file, its SHA-256 in hexadecimal, and whether it had been there before."""

    path: Path
    sha256: str
    was_there: bool


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds, and how many failures in a row to bear."""

    connect_s: float = 10
    read_s: float = 60  # without a single byte
    failures: int = 5  # what brings new bytes starts the count anew
    first_wait_s: float = 1  # doubled after each failure, up to a minute


def download(
    url: str,
    path: str | Path,
    *,
    sha256: str | None = None,
    max_bytes: int = MAX_BYTES,
    auth: tuple[str, str] | None = None,
    patience: Patience | None = None,
) -> Downloaded:
    """Fetch ``url`` into ``path``; an earlier half is continued, an existing file is only verified.

    Args:
        url: https; http is for this very computer only, also after a redirect.
        path: the file to make; while it comes there are ``path.part`` and ``path.part.json``.
        sha256: what the file must have, in hexadecimal, if that is known.
        max_bytes: a larger file is refused, by the server's word or while it comes.
        auth: user name and key for the server (not for another one that it redirects to).
        patience: time limits and how often to try.

    Raises:
        DownloadError: refused, not there, too large, wrong bytes (which are removed), no connection, or no room on
            the disk. After a lost connection or a full disk the half is kept and continued the next time.
    """
    path, patience = Path(path), patience or Patience()
    connection.check_address(url)
    if path.exists():
        return Downloaded(path, _verified(path, sha256, "it lay there before; remove it or choose another place"), True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(path, url)
    with _opened(part) as file, connection.session() as session:
        _persist(lambda: _attempt(session, part, file, max_bytes, auth, patience), part, patience)
        os.fsync(file.fileno())
    try:
        found = _verified(part.path, sha256, "these bytes are removed; run it again, or look whether the file changed")
    except DownloadError:
        part.discard()
        raise
    part.path.replace(path)
    part.notes.unlink(missing_ok=True)
    return Downloaded(path, found, False)


class _Part:
    """The half file, and what the server said that identifies the whole one."""

    def __init__(self, path: Path, url: str):
        self.url = url
        self.path = path.with_name(path.name + ".part")
        self.notes = path.with_name(path.name + ".part.json")

    def size(self) -> int:
        return self.path.stat().st_size

    def validator(self) -> str | None:
        """What If-Range needs to continue, ``None`` if the half cannot be trusted to belong to ``url``."""
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        fits = isinstance(notes, dict) and notes.get("url") == self.url
        return notes.get("validator") if fits else None

    def remember(self, validator: str | None) -> None:
        files.write_json(self.notes, {"url": self.url, "validator": validator})

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


def _persist(attempt, part: _Part, patience: Patience) -> None:
    """Call ``attempt`` until it returns; give up after too many failures that brought nothing new."""
    furthest, failures = part.size(), 0
    while True:
        try:
            return attempt()
        except TryAgain as cause:
            failures = 1 if part.size() > furthest else failures + 1
            furthest = max(furthest, part.size())
            if failures >= patience.failures:
                kept = f": {part.size():,} bytes are kept in {part.path}" if part.size() and part.validator() else ""
                raise DownloadError(
                    f"{part.url}: {cause}; gave up after {failures} failures in a row. Look at the network connection "
                    f"and run it again{kept}"
                ) from None
            wait_s = patience.first_wait_s * 2 ** (failures - 1) if cause.wait_s is None else cause.wait_s
            wait_s = min(wait_s, _LONGEST_WAIT_S)
            log.warning("%s; trying again in %g s", cause, wait_s)
            time.sleep(wait_s)


def _attempt(
    session: requests.Session, part: _Part, file: IO[bytes], max_bytes: int, auth: tuple | None, patience: Patience
) -> None:
    """One request; returns when the file is whole."""
    validator = part.validator()
    offset = part.size() if validator else 0
    headers = {"Range": f"bytes={offset}-", "If-Range": validator} if offset else {}
    timeout = (patience.connect_s, patience.read_s)
    try:
        with session.get(part.url, headers=headers, stream=True, timeout=timeout, auth=auth) as response:
            if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{offset}":
                return  # it was whole already
            connection.check_status(response, part.url)
            start, total = connection.span(response, offset, validator)
            if not start:
                file.truncate(0)
                part.remember(connection.validator_of(response))
            _check_size(total, start, max_bytes, part)
            _copy(response, file, total, max_bytes, part)
    except StartOver:
        part.remember(None)
        raise
    except requests.RequestException as error:
        raise connection.judged(error, part.url) from None


def _check_size(total: int | None, start: int, max_bytes: int, part: _Part) -> None:
    """Refuse before anything is written what is too large for the limit or the disk."""
    if total is None:
        return
    if total > max_bytes:
        part.discard()
        raise DownloadError(f"{part.url}: {total:,} bytes, expected at most {max_bytes:,}")
    free = shutil.disk_usage(part.path.parent).free
    if total - start > free:
        raise DownloadError(f"{part.url}: {_no_room(part)}; {total - start:,} bytes are needed, {free:,} are free")


def _copy(response: requests.Response, file: IO[bytes], total: int | None, max_bytes: int, part: _Part) -> None:
    """Append the answer's bytes."""
    size = part.size()
    name = part.path.name.removesuffix(".part")
    options = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "disable": None}  # None: only on a terminal
    with tqdm(total=total, initial=size, desc=name, **options) as bar:
        for chunk in response.iter_content(_CHUNK_BYTES):
            size += len(chunk)
            if size > max_bytes:
                part.discard()
                raise DownloadError(f"{part.url}: more than {max_bytes:,} bytes came, expected at most that")
            _write(file, chunk, part)
            bar.update(len(chunk))
    if not size:
        raise DownloadError(f"{part.url}: the server sent an empty file")
    if total is not None and size != total:
        raise TryAgain(f"{size:,} of {total:,} bytes came")


def _write(file: IO[bytes], chunk: bytes, part: _Part) -> None:
    rest = memoryview(chunk)
    try:
        while rest:  # an unbuffered write may take less than it is given
            rest = rest[file.write(rest) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DownloadError(f"{part.url}: {_no_room(part)} ({error.strerror})") from None


def _no_room(part: _Part) -> str:
    return f"no room on the disk of {part.path.parent}; free some and run it again, what has come is kept"


def _verified(path: Path, expected: str | None, advice: str) -> str:
    """The file's SHA-256, or an error if it is not the expected one."""
    found = files.sha256(path)
    if expected and found != expected.lower():
        raise DownloadError(f"{path}: SHA-256 is {found}, expected {expected.lower()}; {advice}")
    return found


@contextlib.contextmanager
def _opened(part: _Part) -> Iterator[IO[bytes]]:
    """The half file, opened to append; a second download of it at the same time is refused."""
    with open(part.path, "ab", buffering=0) as file:  # unbuffered: after a lost connection its size is true
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DownloadError(f"{part.path} is being written by another download; wait for it") from None
        try:
            yield file
        finally:
            if part.path.exists() and not part.size():
                part.discard()
