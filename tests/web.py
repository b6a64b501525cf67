"""A web server on this computer that misbehaves in every way that downloads must survive."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """Pages by path; every request that came is kept as ``(path, headers)``.

    A page is a list of answers: the first request gets the first one, and so on; the last one stays.
    """

    def __init__(self):
        self.pages: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    def add(self, path: str, *answers: Answer) -> str:
        self.pages[path] = list(answers)
        return self.url + path

    def headers(self, name: str) -> list[str | None]:
        return [headers.get(name) for _, headers in self.requests]


@contextlib.contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            site.requests.append((self.path, dict(self.headers)))
            answers = site.pages[self.path]
            self.close_connection = True
            with contextlib.suppress(ConnectionError):  # the other side may go when it has seen enough
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", length: int | None = None, **headers) -> None:
    """One answer; ``length`` is what the header claims if that is not the truth."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.send_header("Connection", "close")
    for name, text in headers.items():
        handler.send_header(name.replace("_", "-"), text)
    handler.end_headers()
    handler.wfile.write(body)


def page(body: bytes = b"", status: int = 200, **headers) -> Answer:
    """Always the same, whatever is asked for: this server knows no Range."""
    return lambda handler: send(handler, status, body, **headers)


def cut(body: bytes, after: int, **headers) -> Answer:
    """The connection goes after some bytes."""
    return lambda handler: send(handler, 200, body[:after], length=len(body), **headers)


def ranged(body: bytes, etag: str, after: int | None = None) -> Answer:
    """Answers Range as RFC 9110 wants it; goes after ``after`` bytes of the answer if that is given."""

    def answer(handler):
        asked = handler.headers.get("Range")
        if asked is None or handler.headers.get("If-Range") not in (None, etag):
            send(handler, 200, body[:after], length=len(body), ETag=etag)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            send(handler, 416, Content_Range=f"bytes */{len(body)}")
            return
        rest = body[start:]
        where = f"bytes {start}-{len(body) - 1}/{len(body)}"
        send(handler, 206, rest[:after], length=len(rest), ETag=etag, Content_Range=where)

    return answer


def chunked(body: bytes, whole: bool = True, **headers) -> Answer:
    """Without a length, as GitHub's archives come; not ``whole``: the end is missing."""

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        for name, text in headers.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) + (b"0\r\n\r\n" if whole else b""))

    return answer
