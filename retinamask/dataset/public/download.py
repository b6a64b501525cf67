"""Download a file: pooch verifies and places it, and an interrupted download is resumed, which pooch cannot.

Bytes received so far are in ``NAME.part``; ``NAME.part.json`` holds the validator that identifies the server's file
(Range and If-Range: RFC 9110, sections 13.1.5 and 14).
"""

import json
import logging
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from requests.adapters import HTTPAdapter

from retinamask import __version__
from retinamask.dataset import files
from retinamask.progress import track

TIMEOUT_S = (10, 60)  # to connect, and without a single byte
TRIES = 5  # in a row that bring nothing new
FIRST_WAIT_S = 1  # doubled after each failure, up to a minute

_LONGEST_WAIT_S = 60
_CHUNK_BYTES = 1 << 16
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_REFUSED = "access refused ({}); it needs a login or is not public any more"
_GONE = "not there ({}); it was moved or removed"
_REFUSALS = {401: _REFUSED, 403: _REFUSED, 404: _GONE, 410: _GONE}

log = logging.getLogger(__name__)


class DownloadError(ValueError):
    """A file that cannot be downloaded."""


def download(url: str, path: str | Path, *, sha256: str | None = None, auth: tuple[str, str] | None = None) -> None:
    """Download ``url`` to ``path``; an earlier half is resumed, an existing file is only verified.

    Args:
        url: https; http is for this computer only, also after a redirect.
        path: the file to make.
        sha256: what the file must have, in hexadecimal, if that is known.
        auth: user name and key for the server (not for another one that it redirects to).

    Raises:
        DownloadError: refused, not there, wrong bytes (which are removed), no connection, or no room on the disk.
            After a lost connection or a full disk the half is kept and resumed the next time.
    """
    path = Path(path)
    _check_address(url)
    if path.exists():
        found = files.sha256(path) if sha256 else None
        if found != (sha256 and sha256.lower()):
            raise DownloadError(f"{path}: SHA-256 is {found}, expected {sha256}; remove it or choose another place")
        return
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, sha256, path.name, path.parent, downloader=_Resuming(path, auth))
    except DownloadError:
        raise
    except ValueError as error:
        raise DownloadError(f"{url}: {error}") from None


class _Resuming:
    """Download for pooch from where an earlier try stopped."""

    def __init__(self, path: Path, auth: tuple[str, str] | None):
        self.part, self.notes = (path.with_name(path.name + suffix) for suffix in (".part", ".part.json"))
        self.session = requests.Session()
        self.session.auth = auth
        self.session.mount("http://", _ThisComputer())
        self.session.headers.update({"User-Agent": f"retinamask/{__version__}", "Accept-Encoding": "identity"})

    def __call__(self, url: str, output_file: str, _) -> None:
        furthest, failures = self._size(), 0
        while True:
            try:
                self._attempt(url)
                break
            except requests.RequestException as error:
                reason, asked_s = _reason(error, url)
            if self._size() > furthest:
                furthest, failures = self._size(), 0
            failures += 1
            if failures >= TRIES:
                kept = f": {self._size():,} bytes are kept in {self.part}" if self._validator(url) else ""
                raise DownloadError(
                    f"{url}: {reason}; gave up after {failures} failures in a row. Look at the network connection and "
                    f"run it again{kept}"
                )
            seconds = min(FIRST_WAIT_S * 2 ** (failures - 1) if asked_s is None else asked_s, _LONGEST_WAIT_S)
            log.warning("%s; trying again in %g s", reason, seconds)
            time.sleep(seconds)
        self.part.replace(output_file)
        self.notes.unlink(missing_ok=True)

    def _attempt(self, url: str) -> None:
        """Make one request; return when the file is whole."""
        validator = self._validator(url)
        start = self._size() if validator else 0
        resume = {"Range": f"bytes={start}-", "If-Range": validator} if start else {}
        with self.session.get(url, headers=resume, stream=True, timeout=TIMEOUT_S) as response:
            headers, where = response.headers, response.headers.get("Content-Range", "")
            if response.status_code == 416 and where == f"bytes */{start}":
                return  # it was whole already
            same = validator in (headers.get("ETag", validator), headers.get("Last-Modified"))
            follows = same and where.startswith(f"bytes {start}-")
            if response.status_code == 416 or response.status_code == 206 and not follows:
                self._discard()
                raise requests.ConnectionError("the file on the server has changed; starting over")
            if response.status_code not in (200, 206):
                raise requests.HTTPError(response=response)
            if headers.get("Content-Encoding", "identity") != "identity":
                raise DownloadError(f"{url}: the server compressed the file unasked, its size cannot be checked")
            if response.status_code == 200:  # also from servers that cannot resume, or when the file has changed
                start = 0
                etag = headers.get("ETag", "")  # a weak one does not promise the same bytes
                validator = etag if etag.startswith('"') else headers.get("Last-Modified")
                files.write_json(self.notes, {"url": url, "validator": validator})
            self._append(url, response, start)

    def _append(self, url: str, response: requests.Response, start: int) -> None:
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        chunks = response.iter_content(_CHUNK_BYTES)
        try:
            with open(self.part, "ab" if start else "wb") as file:
                if total and total - start > shutil.disk_usage(self.part.parent).free:
                    raise DownloadError(f"{url}: {files.no_room(self.part, total - start)}; free some, run it again")
                for chunk in track(chunks, f"downloading {self.part.stem}", "byte", total, start, count=len):
                    file.write(chunk)
        except OSError as error:  # requests' own errors are OSErrors too
            if not files.is_full(error):
                raise
            raise DownloadError(
                f"{url}: no room on the disk of {self.part.parent} ({error.strerror}); free some and run it again, "
                "received bytes are kept"
            ) from None
        if not self._size():
            self._discard()
            raise DownloadError(f"{url}: the server sent an empty file")

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _validator(self, url: str) -> str | None:
        """Return what If-Range needs, ``None`` if the half is not known to belong to ``url``."""
        try:
            notes = json.loads(self.notes.read_text(encoding="utf-8"))
            return notes["validator"] if notes["url"] == url and self._size() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


class _ThisComputer(HTTPAdapter):
    """Allow plain http to this computer only; elsewhere the bytes could be changed on the way."""

    def send(self, request, *args, **options):
        _check_address(request.url)
        return super().send(request, *args, **options)


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not local:
        raise DownloadError(f"{url}: expected an https address")


def _reason(error: requests.RequestException, url: str) -> tuple[str, float | None]:
    """Return why a request failed and how many seconds to wait if the server asks for it.

    Raises:
        DownloadError: another try would not help.
    """
    if isinstance(error, requests.HTTPError):
        code = error.response.status_code
        status = f"{code} {error.response.reason}"
        if code not in _TRANSIENT:
            refusal = _REFUSALS.get(code, "the server answered {}, expected the file").format(status)
            raise DownloadError(f"{url}: {refusal}") from None
        asked = error.response.headers.get("Retry-After", "")
        return f"the server answered {status}", float(asked) if asked.isdecimal() else None
    if isinstance(error, requests.exceptions.SSLError) and "certificate" in str(error).lower():
        raise DownloadError(f"{url}: the server's certificate is not valid ({error}); nothing was fetched") from None
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "the server did not answer in time", None
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return f"no connection, or it was lost ({error})", None
    raise DownloadError(f"{url}: {error}") from None
