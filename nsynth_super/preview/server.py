"""HTTP server of the preview: the page, byte ranges of pads, progress, source notes.

It listens on the loopback interface and answers only to loopback host names. Requests never become
file paths: their names are looked up among those of the pack.
"""

from __future__ import annotations

import json
import re
import socketserver
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from nsynth_super.base.errors import BadInput, NsynthSuperError, Problem
from nsynth_super.pack.geometry import Geometry
from nsynth_super.preview.document import MEDIA_TYPES, page_files, served_script_sources, suffix
from nsynth_super.preview.pack import Pack, Preview

HOST = "127.0.0.1"
PORT = 8420
PORTS_TRIED = 20

_HOSTS = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)
"""Accepted Host headers. Any other name that resolves to this server is DNS rebinding."""

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_NOTE = re.compile(r"(?P<instrument>.+)_(?P<pitch>\d{1,3})\.wav", re.DOTALL)


@cache
def _headers() -> dict[str, str]:
    return {
        "Content-Security-Policy": f"default-src 'self'; script-src {served_script_sources()}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


class Server(ThreadingHTTPServer):
    """HTTP server on the loopback interface.

    Parameters
    ----------
    preview : Preview
    port : int
        0 selects any free port.

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
        """Bind without a DNS lookup of the host name, which `HTTPServer` does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore browsers that close the connection."""

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_port}/"


def listen(preview: Preview, port: int | None) -> Server:
    """Listen on `port`, or on the first free port from `PORT` on if None.

    Raises
    ------
    BadInput
        If no port is available.
    """
    ports = range(PORT, PORT + PORTS_TRIED) if port is None else [port]
    for number in ports:
        with suppress(OSError):
            return Server(preview, number)
    tried = f"port {port} is" if port is not None else f"ports {ports[0]} to {ports[-1]} are"
    raise BadInput(Problem("--port", f"{tried} in use or not permitted", "choose another number"))


class _Missing(Exception):  # noqa: N818 - reported as a status
    """The requested name does not exist."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds until an idle connection releases its thread
    server: Server
    server_version, sys_version = "nsynth-super", ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests: the terminal shows the program's own messages only."""

    def end_headers(self) -> None:
        for name, value in _headers().items():
            self.send_header(name, value)
        super().end_headers()

    def _answer(self) -> None:
        if not _HOSTS.fullmatch(self.headers.get("Host", "")):
            self._send_text(
                HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only"
            )
            return
        try:
            parts = [
                unquote(part, errors="strict") for part in urlsplit(self.path).path.split("/")[1:]
            ]
            self._route(parts)
        except (_Missing, ValueError):
            self._send_text(HTTPStatus.NOT_FOUND, "not found")
        except NsynthSuperError as error:
            self._send_text(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    def _route(self, parts: list[str]) -> None:
        match parts:
            case [name] if (name or "index.html") in page_files():
                name = name or "index.html"
                self._send(MEDIA_TYPES[suffix(name)], page_files()[name])
            case ["pack.json"]:
                self._send_json(self.server.preview.now().described)
            case ["progress", name] if name.endswith(".json"):
                pack = self.server.preview.now()
                self._send_json(pack.progress(_combination(pack, name.removesuffix(".json"))))
            case ["pads", name] if name.endswith(".bin"):
                pack = self.server.preview.now()
                self._send_pad(pack, _combination(pack, name.removesuffix(".bin")))
            case ["notes", name] if match := _NOTE.fullmatch(name):
                pack = self.server.preview.now()
                sound = pack.recording(match["instrument"], int(match["pitch"]))
                if sound is None:
                    raise _Missing
                self._send("audio/wav", sound)
            case _:
                raise _Missing

    def _send_pad(self, pack: Pack, combination: int) -> None:
        geometry = Geometry.of(pack.settings)
        size = geometry.bytes
        requested = "" if "If-Range" in self.headers else self.headers.get("Range", "")
        try:
            part = parse_range(requested, size)
        except _Unsatisfiable:
            headers = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
            status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            self._send_text(status, f"the pad has {size:,} bytes", headers)
            return
        start, stop = part or (0, size)
        row = geometry.row_bytes
        if not pack.sounds.made(combination)[start // row : -(-stop // row)].all():
            self._send_text(HTTPStatus.NOT_FOUND, "these clips are not generated yet")
            return
        pieces = pack.sounds.stream(combination, start, stop)
        first = next(pieces)  # so that it fails before the headers are sent
        headers = {"Accept-Ranges": "bytes"}
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
        kind = "application/octet-stream"
        self._stream(status, kind, stop - start, _chain(first, pieces), headers)

    def _send_json(self, content: dict[str, Any]) -> None:
        self._send("application/json", json.dumps(content, ensure_ascii=False).encode())

    def _send_text(
        self, status: HTTPStatus, line: str, headers: dict[str, str] | None = None
    ) -> None:
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
            except NsynthSuperError:  # the headers are sent: truncate the response
                self.close_connection = True


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _combination(pack: Pack, name: str) -> int:
    if name not in pack.combinations:
        raise _Missing
    return pack.combinations[name]


class _Unsatisfiable(Exception):  # noqa: N818
    """The range starts behind the end."""


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Parse a Range header; return None, for the full content, if it is not one valid range.

    Returns
    -------
    start, stop : int
        Byte offsets; `stop` is exclusive.

    Raises
    ------
    _Unsatisfiable
        If the range contains no byte of the content.
    """
    match = _RANGE.fullmatch(header.strip())
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
