"""Downloads against a server on this computer: lost connections, changed files, lies, and what is left on the disk."""

import errno
import hashlib
import json
import os
import random
import socket
import threading
from collections import namedtuple

import pytest
import requests
from web import chunked, cut, page, ranged, send, serving

from retinamask.dataset.public import download
from retinamask.dataset.public.download import DownloadError

BODY = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    patient(monkeypatch, tries=3)
    with serving() as running:
        yield running


@pytest.fixture
def path(tmp_path):
    return tmp_path / "in" / "set.zip"


def patient(monkeypatch, tries, first_wait_s=0.0, read_s=2):
    monkeypatch.setattr(download, "TRIES", tries)
    monkeypatch.setattr(download, "FIRST_WAIT_S", first_wait_s)
    monkeypatch.setattr(download, "TIMEOUT_S", (2, read_s))


def get(url, path, **options) -> str:
    """Download and return the SHA-256 of the file."""
    download.download(url, path, **options)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left(path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir()) if path.parent.exists() else []


def fails(url, path, message, **options):
    """The error's message matches and no file of that name is there."""
    with pytest.raises(DownloadError, match=message):
        get(url, path, **options)
    assert "set.zip" not in left(path)


# --- What comes whole ---


@pytest.mark.parametrize("answer", [page(BODY), ranged(BODY, '"a"'), chunked(BODY)], ids=["plain", "ranged", "chunked"])
def test_a_whole_file(site, path, answer):
    assert get(site.add("/f", answer), path, sha256=SHA256.upper()) == SHA256
    assert left(path) == ["set.zip"]
    assert site.headers("Range") == [None] and site.headers("User-Agent")[0].startswith("retinamask/")


def test_a_file_that_is_there_is_not_fetched_again(site, path):
    url = site.add("/f", page(BODY))
    get(url, path)
    assert get(url, path, sha256=SHA256) == SHA256
    assert len(site.requests) == 1
    with pytest.raises(DownloadError, match=f"set.zip: SHA-256 is {SHA256}, expected 00; remove it"):
        get(url, path, sha256="00")
    assert path.read_bytes() == BODY


def test_redirects_are_followed(site, path):
    target = site.add("/f", page(BODY))
    assert get(site.add("/old", page(status=302, Location=target)), path) == SHA256


def test_a_login_is_not_told_to_another_server(site, path):
    target = site.add("/f", page(BODY)).replace("127.0.0.1", "localhost")
    url = site.add("/old", page(status=302, Location=target))
    get(url, path, auth=("me", "secret"))
    assert site.headers("Authorization") == ["Basic bWU6c2VjcmV0", None]


# --- Lost connections ---


def test_a_lost_connection_is_continued(site, path):
    lost = ranged(BODY, '"a"', after=100_000)
    get(site.add("/f", lost, lost, ranged(BODY, '"a"')), path, sha256=SHA256)
    first, second, third = site.headers("Range")
    starts = [int(header.removeprefix("bytes=").removesuffix("-")) for header in (second, third)]
    assert first is None and 0 < starts[0] < starts[1] <= 200_000
    assert site.headers("If-Range") == [None, '"a"', '"a"']
    assert path.read_bytes() == BODY and left(path) == ["set.zip"]


def test_the_next_run_continues_what_the_last_one_left(site, path):
    url = site.add("/f", ranged(BODY, '"a"', after=100_000), page(status=503))
    fails(url, path, r"503 .*; gave up after 3 failures in a row\. .*bytes are kept in .*set\.zip\.part")
    assert left(path) == ["set.zip.part", "set.zip.part.json"]
    kept = (path.parent / "set.zip.part").read_bytes()
    assert kept and kept == BODY[: len(kept)]
    site.add("/f", ranged(BODY, '"a"'))
    get(url, path, sha256=SHA256)
    assert site.headers("Range")[-1] == f"bytes={len(kept)}-" and left(path) == ["set.zip"]


def test_what_was_whole_but_not_yet_named_is_taken(site, path):
    url = site.add("/f", ranged(BODY, '"a"'))
    path.parent.mkdir()
    (path.parent / "set.zip.part").write_bytes(BODY)
    (path.parent / "set.zip.part.json").write_text(json.dumps({"url": url, "validator": '"a"'}))
    assert get(url, path) == SHA256
    assert len(site.requests) == 1


def test_a_server_that_knows_no_range_starts_over(site, path):
    lost = cut(BODY, 100_000, ETag='"a"')
    get(site.add("/f", lost, page(BODY, ETag='"a"')), path, sha256=SHA256)
    assert site.headers("Range")[1] is not None and path.read_bytes() == BODY


def test_the_time_of_the_last_change_will_do_where_the_etag_is_weak(site, path):
    date = "Sat, 21 Nov 2020 07:00:00 GMT"
    lost = cut(BODY, 100_000, ETag='W/"a"', Last_Modified=date)
    get(site.add("/f", lost, page(BODY)), path, sha256=SHA256)
    assert site.headers("If-Range") == [None, date]


def test_without_anything_to_know_the_file_by_it_starts_over(site, path):
    url = site.add("/f", cut(BODY, 100_000, ETag='W/"a"'), page(BODY))
    get(url, path, sha256=SHA256)
    assert site.headers("Range") == [None, None]


def test_a_changed_file_is_not_glued_to_the_old_half(site, path):
    get(site.add("/f", ranged(OTHER, '"a"', after=100_000), ranged(BODY, '"b"')), path, sha256=SHA256)
    assert site.headers("If-Range") == [None, '"a"']
    assert path.read_bytes() == BODY


def continued(etag: str, at: int = 0):
    """A server that answers Range without a look at If-Range, or from another place than asked."""

    def answer(handler):
        start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-")) + at
        where = f"bytes {start}-{len(OTHER) - 1}/{len(OTHER)}"
        send(handler, 206, OTHER[start:], ETag=etag, Content_Range=where)

    return answer


@pytest.mark.parametrize("wrong", [continued('"b"'), continued('"a"', at=-5)], ids=["another file", "another place"])
def test_a_wrong_continuation_is_thrown_away(site, path, wrong):
    get(site.add("/f", cut(BODY, 100_000, ETag='"a"'), wrong, ranged(BODY, '"c"')), path, sha256=SHA256)
    assert site.headers("Range")[2] is None and path.read_bytes() == BODY


def test_a_half_longer_than_the_whole_is_thrown_away(site, path):
    url = site.add("/f", ranged(BODY, '"a"'))
    path.parent.mkdir()
    (path.parent / "set.zip.part").write_bytes(BODY + BODY)
    (path.parent / "set.zip.part.json").write_text(json.dumps({"url": url, "validator": '"a"'}))
    get(url, path, sha256=SHA256)
    assert site.headers("Range") == [f"bytes={2 * len(BODY)}-", None]


@pytest.mark.parametrize("notes", ['{"url": "https://elsewhere", "validator": "\\"a\\""}', "{", "[]", None])
def test_a_half_of_unknown_origin_is_not_continued(site, path, notes):
    path.parent.mkdir()
    (path.parent / "set.zip.part").write_bytes(OTHER[:100_000])
    if notes is not None:
        (path.parent / "set.zip.part.json").write_text(notes)
    get(site.add("/f", ranged(BODY, '"a"')), path, sha256=SHA256)
    assert site.headers("Range") == [None]


def test_a_chunked_file_that_stops_early_is_not_whole(site, path):
    url = site.add("/f", chunked(BODY, whole=False))
    fails(url, path, "no connection, or it was lost .*gave up after 3 failures")
    site.add("/f", chunked(BODY, whole=False), chunked(BODY))
    assert get(url, path) == SHA256


def test_bytes_that_keep_coming_are_worth_any_number_of_tries(site, path, monkeypatch):
    patient(monkeypatch, tries=2)
    url = site.add("/f", *[ranged(BODY, '"a"', after=70_000)] * 20)
    assert get(url, path) == SHA256
    assert len(site.requests) >= 4


def test_waits_grow_and_a_server_may_ask_for_longer(site, path, monkeypatch):
    waits = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    answers = [page(status=500), page(status=502), page(status=429, Retry_After="7"), page(status=503), page(BODY)]
    patient(monkeypatch, tries=5, first_wait_s=1)
    get(site.add("/f", *answers), path)
    assert waits == [1, 2, 7, 8]
    site.add("/g", page(status=503, Retry_After="86400"), page(BODY))
    get(site.url + "/g", path.with_name("g"))
    assert waits[4:] == [60]


# --- Answers that are no file ---


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"access refused \(401 Unauthorized\); it needs a login or is not public any more"),
        (403, r"access refused \(403 Forbidden\)"),
        (404, r"/f: not there \(404 Not Found\); it was moved or removed"),
        (410, r"not there \(410 Gone\)"),
        (400, "the server answered 400 Bad Request, expected the file"),
        (204, "the server answered 204 No Content, expected the file"),
    ],
)
def test_a_refusal_is_final_and_leaves_nothing(site, path, status, message):
    fails(site.add("/f", page(status=status)), path, message)
    assert (len(site.requests), left(path)) == (1, [])


def test_wrong_bytes_are_removed(site, path):
    wrong = hashlib.sha256(OTHER).hexdigest()
    url = site.add("/f", page(OTHER), page(BODY))
    fails(url, path, f"expected {SHA256} but got {wrong}. Deleted download", sha256=SHA256)
    assert left(path) == []
    assert get(url, path, sha256=SHA256) == SHA256


def test_a_length_that_is_too_long_is_a_lost_connection(site, path):
    url = site.add("/f", lambda handler: send(handler, 200, BODY, length=len(BODY) + 5))
    fails(url, path, "gave up after 3 failures")


def test_a_length_that_is_too_short_is_found_by_the_checksum(site, path):
    url = site.add("/f", lambda handler: send(handler, 200, BODY, length=1000))
    fails(url, path, f"expected {SHA256} but got", sha256=SHA256)


def test_nothing_is_no_file(site, path):
    fails(site.add("/f", page(b"")), path, "the server sent an empty file")
    assert left(path) == []


def test_a_compressed_answer_is_refused(site, path):
    fails(site.add("/f", page(BODY, Content_Encoding="gzip")), path, "compressed the file unasked")
    assert site.headers("Accept-Encoding") == ["identity"]


def test_a_slow_server(site, path, monkeypatch):
    over = threading.Event()

    def slow(handler):
        send(handler, 200, BODY[:10], length=len(BODY))
        handler.wfile.flush()
        over.wait(20)

    patient(monkeypatch, tries=2, read_s=0.2)
    fails(site.add("/f", slow), path, "the server did not answer in time; gave up after 2")
    fails(site.add("/silent", lambda handler: over.wait(20)), path, "did not answer in time")
    over.set()


def test_no_server(site, path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/f"
        fails(url, path, "no connection, or it was lost .*refused.*Look at the network connection and run it again")
    assert left(path) == []


def test_a_full_disk(site, path, monkeypatch):
    url = site.add("/f", ranged(BODY, '"a"'))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage(1000))
    fails(url, path, "no room on the disk; it needs 0.3 MB, 0.0 MB are free; free some, run it again")
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")

    def full_after(chunks, *_, **__):
        for number, chunk in enumerate(chunks):
            if number == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield chunk

    with monkeypatch.context() as patched:
        patched.setattr(download, "track", full_after)
        fails(url, path, "no room on the disk of .*No space left on device.*received bytes are kept")
    assert left(path) == ["set.zip.part", "set.zip.part.json"]
    assert get(url, path, sha256=SHA256) == SHA256
    assert site.headers("Range")[-1] == f"bytes={2 * download._CHUNK_BYTES}-"


# --- Where it may go ---


@pytest.mark.parametrize("url", ["http://example.invalid/f", "ftp://127.0.0.1/f", "file:///etc/passwd", "f.zip"])
def test_only_https(path, url):
    fails(url, path, "expected an https address")
    assert not path.parent.exists()


def test_no_redirect_to_plain_http(site, path):
    url = site.add("/f", page(status=302, Location="http://example.invalid/f"))
    fails(url, path, "http://example.invalid/f: expected an https address")


def test_redirects_in_a_circle(site, path):
    url = site.add("/f", page(status=302, Location="/f"))
    fails(url, path, "Exceeded 30 redirects")


def test_an_invalid_certificate_is_not_tried_again():
    error = requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    with pytest.raises(DownloadError, match="https://a: the server's certificate is not valid"):
        download._reason(error, "https://a")
