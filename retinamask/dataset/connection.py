"""What a web server's answer means: the file, worth another try, or an error with something to do about it.

Below `download`, which moves the bytes. Range and If-Range: RFC 9110, sections 13.1.5 and 14.
"""

import re
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from retinamask import __version__

_LOCALHOST = ("localhost", "127.0.0.1", "::1")
_WORTH_ANOTHER_TRY = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(ValueError):
    """A file cannot be had; the message says why and what to do."""


class TryAgain(Exception):
    """This attempt failed in a way that another may mend."""

    def __init__(self, reason: str, wait_s: float | None = None):
        super().__init__(reason)
        self.wait_s = wait_s


class StartOver(TryAgain):
    """What lies on the disk does not belong to what the server has now."""

    def __init__(self):
        super().__init__("the file on the server is not the one that was begun; starting over", wait_s=0)


class _OnlyHere(HTTPAdapter):
    """Plain http to this very computer; everywhere else anybody on the way could change the bytes."""

    def send(self, request, *args, **options):
        check_address(request.url)
        return super().send(request, *args, **options)


def check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCALHOST):
        raise DownloadError(f"{url}: expected an https address")


def session() -> requests.Session:
    made = requests.Session()
    made.mount("http://", _OnlyHere())
    made.headers.update({"User-Agent": f"retinamask/{__version__}", "Accept-Encoding": "identity"})
    return made


def check_status(response: requests.Response, url: str) -> None:
    """Nothing for 200 and 206; what is wrong otherwise."""
    status = f"{response.status_code} {response.reason}"
    if response.status_code in (200, 206):
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(f"{url}: the server compressed the file unasked, its size cannot be checked")
        return
    if response.status_code in _WORTH_ANOTHER_TRY:
        seconds = response.headers.get("Retry-After", "")
        raise TryAgain(f"the server answered {status}", float(seconds) if seconds.isdecimal() else None)
    if response.status_code == 416:  # the half is longer than the whole
        raise StartOver
    if response.status_code in (401, 403):
        raise DownloadError(f"{url}: access refused ({status}); it needs a login or is not public any more")
    if response.status_code in (404, 410):
        raise DownloadError(f"{url}: not there ({status}); it was moved or removed")
    raise DownloadError(f"{url}: the server answered {status}, expected the file")


def span(response: requests.Response, offset: int, validator: str | None) -> tuple[int, int | None]:
    """Where the answer's bytes start in the file, and how long the whole file is if that is known."""
    if response.status_code == 200:  # also from servers that do not continue, or when the file has changed
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    same = validator in (response.headers.get("ETag", validator), response.headers.get("Last-Modified"))
    if not found or int(found[1]) != offset or (offset and not same):
        raise StartOver
    return offset, int(found[2]) if found[2] != "*" else None


def validator_of(response: requests.Response) -> str | None:
    """A strong ETag, else the time of the last change; a weak ETag does not promise the same bytes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def judged(error: requests.RequestException, url: str) -> Exception:
    """What a failed request means: worth another try or not."""
    if isinstance(error, requests.exceptions.SSLError) and "certificate" in str(error).lower():
        return DownloadError(f"{url}: the server's certificate is not valid ({error}); nothing was fetched")
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in str(error):
        return TryAgain("the server did not answer in time")
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return TryAgain(f"no connection, or it was lost ({_root(error)})")
    return DownloadError(f"{url}: {error}")


def _root(error: Exception) -> Exception:
    """What lies below an error of urllib3, whose own words are long."""
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    cause = getattr(cause, "reason", cause)
    return cause.args[-1] if cause.args and isinstance(cause.args[-1], Exception) else cause
