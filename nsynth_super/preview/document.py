"""The page as HTML: served file by file, or as one file that contains everything.

Both are renderings of one template, and the modules are the same bytes in both. They import each
other by names (`page/device.js`) that an import map resolves: to addresses on the server, and to
`data:` URLs in the single file. A relative import cannot be resolved from within a `data:` URL.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_TEMPLATE = "index.html.jinja"


def suffix(name: str) -> str:
    """Return a file name's suffix, with its dot."""
    return name[name.rfind(".") :]


@cache
def page_files() -> dict[str, bytes]:
    """Return the content of every file of the served page, by name."""
    return {**_assets(), "index.html": _render(_served_addresses())}


def served_script_sources() -> str:
    """Return the served page's `script-src`: its own files, and its inline import map by hash."""
    digest = hashlib.sha256(_import_map(_served_addresses()).encode()).digest()
    return f"'self' 'sha256-{base64.b64encode(digest).decode()}'"


def single_file(data: Any, sounds: Sequence[bytes], notes: Sequence[bytes]) -> bytes:
    """Return the page as one HTML file that needs no server and no network.

    Its Content-Security-Policy allows what carries a nonce, and nothing else. Hashes cannot do
    that: browsers do not apply them to imported modules, and `script-src data:` would allow any
    script that a crafted name smuggles into the page. A browser passes the nonce on from a module
    to its imports. The nonce is a digest of the embedded content, so that a name cannot contain
    it, and the same pack gives the same file.

    Parameters
    ----------
    data : JSON value
        For `source.js`: the pack's description, and the numbers of its sounds and notes.
    sounds, notes : sequence of bytes
        Embedded in base64, as elements `sound-N` and `note-N`.
    """
    text = json.dumps(data, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for content in (*sounds, *notes):
        digest.update(content)
    addresses = {name: _data_url(name, content) for name, content in _assets().items()}
    blocks = {
        f"{kind}-{number}": base64.b64encode(content).decode()
        for kind, contents in (("sound", sounds), ("note", notes))
        for number, content in enumerate(contents)
    }
    return _render(addresses, nonce=digest.hexdigest()[:32], embedded=data, blocks=blocks)


def _assets() -> dict[str, bytes]:
    folder = files("nsynth_super.preview") / "page"
    return {
        file.name: file.read_bytes()
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if suffix(file.name) in MEDIA_TYPES
    }


def _served_addresses() -> dict[str, str]:
    return {name: f"./{name}" for name in _assets()}


def _import_map(addresses: Mapping[str, str]) -> str:
    modules = {f"page/{name}": url for name, url in addresses.items() if suffix(name) == ".js"}
    return json.dumps({"imports": modules})


def _data_url(name: str, content: bytes) -> str:
    media_type = MEDIA_TYPES[suffix(name)].replace(" ", "")
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _render(addresses: Mapping[str, str], nonce: str | None = None, **embedded: Any) -> bytes:
    environment = Environment(
        loader=PackageLoader("nsynth_super.preview", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    text = environment.get_template(_TEMPLATE).render(
        addresses=addresses, import_map=_import_map(addresses), nonce=nonce, **embedded
    )
    return text.encode()
