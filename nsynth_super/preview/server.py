"""Serves the page to this machine and to nobody else: pads by ranges, progress, source notes.

No path is made of what is asked for: names are looked up among those that there are.
"""

from __future__ import annotations

import json
import re
import socketserver
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

from nsynth_super.device import offset
from nsynth_super.preview.pack import Pack, Preview
from nsynth_super.problems import BadInput, NsynthSuperError, Problem

HOST = "127.0.0.1"
PORT = 8420
PORTS_TRIED = 20

_HOSTS = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
"""What a browser on this machine calls us. Another name that leads here is somebody else's page."""

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_NOTE = re.compile(r"(?P<instrument>.+)_(?P<pitch>\d{1,3})\.wav", re.DOTALL)


@lru_cache(maxsize=1)
def page() -> dict[str, bytes]:
    """Return the page's files by name."""
    folder = files("nsynth_super.preview") / "page"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name[file.name.rfind(".") :] in _KINDS
    }


class Server(ThreadingHTTPServer):
    """Listens on the loopback interface.

    Parameters
    ----------
    preview : Preview
    port : int
        0 is any that is free.

    Raises
    ------
    OSError
        If the port is taken.
    """

    daemon_threads = True

    def __init__(self, preview: Preview, port: int) -> None:
        self.preview = preview
        super().__init__((HOST, port), _Handler)

    def server_bind(self) -> None:
        """Bind, without asking a name server who we are."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that hung up."""

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"


def listen(preview: Preview, port: int | None) -> Server:
    """Listen on `port`, or without one on the first that is free from `PORT` on.

    Raises
    ------
    BadInput
        If there is none.
    """
    ports = range(PORT, PORT + PORTS_TRIED) if port is None else [port]
    for number in ports:
        with suppress(OSError):
            return Server(preview, number)
    taken = f"port {port} is" if port is not None else f"ports {ports[0]} to {ports[-1]} are"
    raise BadInput(Problem("--port", f"{taken} taken, or not ours", "choose another number"))


class _Missing(Exception):  # noqa: N818 - it is no error of ours
    """There is nothing by that name."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a silent connection keeps its thread
    server: Server
    server_version, sys_version = "nsynth-super", ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is the user's."""

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _answer(self) -> None:
        if not _HOSTS.fullmatch(self.headers.get("Host", "")):
            self._say(HTTPStatus.FORBIDDEN, "this page answers to 127.0.0.1 and localhost only")
            return
        try:
            parts = [
                unquote(part, errors="strict") for part in urlsplit(self.path).path.split("/")[1:]
            ]
            self._give(parts)
        except (_Missing, ValueError):
            self._say(HTTPStatus.NOT_FOUND, "there is nothing by that name")
        except NsynthSuperError as error:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    def _give(self, parts: list[str]) -> None:
        match parts:
            case [name] if (name or "index.html") in page():
                name = name or "index.html"
                self._send(_KINDS[name[name.rfind(".") :]], page()[name])
            case ["pack.json"]:
                self._json(self.server.preview.now().described)
            case ["progress", name] if name.endswith(".json"):
                pack = self.server.preview.now()
                self._json(pack.progress(_combination(pack, name.removesuffix(".json"))))
            case ["pads", name] if name.endswith(".bin"):
                pack = self.server.preview.now()
                self._pad(pack, _combination(pack, name.removesuffix(".bin")))
            case ["notes", name] if match := _NOTE.fullmatch(name):
                pack = self.server.preview.now()
                sound = pack.recording(match["instrument"], int(match["pitch"]))
                if sound is None:
                    raise _Missing
                self._send("audio/wav", sound)
            case _:
                raise _Missing

    def _pad(self, pack: Pack, combination: int) -> None:
        size = pack.settings.pad_bytes
        asked = "" if "If-Range" in self.headers else self.headers.get("Range", "")
        try:
            part = span(asked, size)
        except _Unsatisfiable:
            headers = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            self._say(status, f"the pad has {size:,} bytes", headers)
            return
        start, stop = part or (0, size)
        row = offset(1, pack.settings.final_length)
        if not pack.sounds.made(combination)[start // row : -(-stop // row)].all():
            self._say(HTTPStatus.NOT_FOUND, "these clips are not made yet")
            return
        pieces = pack.sounds.stream(combination, start, stop)
        first = next(pieces)  # what fails, fails before the headers are out
        headers = {"Accept-Ranges": "bytes"}
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
        kind = "application/octet-stream"
        self._stream(status, kind, stop - start, _chain(first, pieces), headers)

    def _json(self, content: dict[str, Any]) -> None:
        self._send("application/json", json.dumps(content, ensure_ascii=False).encode())

    def _say(self, status: HTTPStatus, line: str, headers: dict[str, str] | None = None) -> None:
        content = (line + "\n").encode()
        self._stream(status, "text/plain; charset=utf-8", len(content), [content], headers or {})

    def _send(self, kind: str, content: bytes) -> None:
        self._stream(HTTPStatus.OK, kind, len(content), [content], {})

    def _stream(
        self,
        status: HTTPStatus,
        kind: str,
        length: int,
        content: Iterable[bytes],
        headers: dict[str, str],
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            try:
                for piece in content:
                    self.wfile.write(piece)
            except NsynthSuperError:  # too late to say so: the browser sees a cut answer
                self.close_connection = True


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _combination(pack: Pack, name: str) -> int:
    if name not in pack.combinations:
        raise _Missing
    return pack.combinations[name]


class _Unsatisfiable(Exception):  # noqa: N818
    """No byte of the range is there."""


def span(asked: str, size: int) -> tuple[int, int] | None:
    """Read a Range header; None, which is the whole, if it is no range or several.

    Returns
    -------
    start, stop : int
        The last byte is `stop - 1`.

    Raises
    ------
    _Unsatisfiable
        If it lies behind the end.
    """
    match = _RANGE.fullmatch(asked.strip())
    if not match or match[1] == match[2] == "" or (match[1] and match[2] and _backwards(match)):
        return None
    if match[1]:
        start, stop = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    else:
        start, stop = max(size - int(match[2]), 0), size
    if start >= stop:
        raise _Unsatisfiable
    return start, stop


def _backwards(match: re.Match[str]) -> bool:
    return int(match[2]) < int(match[1])
