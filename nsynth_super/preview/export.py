"""The page and a pack's sounds in one file, to send to a friend: no server, no network.

Every distinct sound stands there once, in base64. A policy in the page lets it run its own script
and style and load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsynth_super.device import offset
from nsynth_super.files import write_bytes
from nsynth_super.grid import Grid
from nsynth_super.preview.pack import Pack
from nsynth_super.preview.server import page
from nsynth_super.problems import BadInput, Problem
from nsynth_super.progress import amount

MOST = 30_000_000
"""Bytes of sound in one page: more, and a phone has trouble with it."""

_MODULES = (
    *("device.js", "source.js", "screen.js", "spectrogram.js", "synth.js", "keyboard.js"),
    *("midi.js", "main.js"),
)
"""In the order in which they need each other: one file has no modules to import from."""

_IMPORT = re.compile(r"^import .*?;\n", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (?=async |function|class|const)", re.MULTILINE)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    sounds : int
    size : int
        Bytes of the file.
    notices : list of str
        What was left out.
    """

    sounds: int
    size: int
    notices: list[str]


def run(pack: Pack, path: Path) -> Exported:
    """Write the page of a pack.

    Raises
    ------
    BadInput
        If the pack is too large, or nothing of it is made yet.
    """
    settings = pack.settings
    row = offset(1, settings.final_length)
    if (size := len(Grid.of(settings).mixes) * row) > MOST:
        raise BadInput(
            Problem(
                "--export",
                f"the pack's sounds are {amount(size)}; a page holds {amount(MOST)} at most",
                "make a smaller pack to send: fewer instruments or pitches, a lower resolution or "
                "a shorter final_length",
            )
        )
    sounds, pads = _sounds(pack, row)
    if not sounds:
        raise BadInput(
            Problem("--export", "no clip is made yet", "run `nsynth-super generate` first")
        )
    notices = []
    if (left := sum(-1 in rows for rows in pads.values())) > 0:
        notices.append(f"{left} of {len(pads)} pads are not whole yet; what is missing is greyed")
    notes = _notes(pack)
    if size + sum(map(len, notes.values())) > MOST:
        notices.append("the recordings are left out: with them the page would be too large")
        notes = {}
    content = _html(pack, sounds, pads, notes)
    write_bytes(path, content)
    return Exported(len(sounds), len(content), notices)


def _sounds(pack: Pack, size: int) -> tuple[list[bytes], dict[str, list[int]]]:
    """Return every distinct sound, and each pad's rows as their numbers, -1 where there is none."""
    numbers: dict[bytes, int] = {}
    pads = {}
    for name, combination in pack.combinations.items():
        rows = []
        for row, made in enumerate(pack.sounds.made(combination)):
            if not made:
                rows.append(-1)
                continue
            sound = b"".join(pack.sounds.stream(combination, row * size, (row + 1) * size))
            rows.append(numbers.setdefault(sound, len(numbers)))
        pads[name] = rows
    return list(numbers), pads


def _notes(pack: Pack) -> dict[tuple[str, int], bytes]:
    found = {name: pack.recording(*name) for name in pack.recordings}
    return {name: sound for name, sound in found.items() if sound is not None}


def _html(
    pack: Pack,
    sounds: list[bytes],
    pads: dict[str, list[int]],
    notes: dict[tuple[str, int], bytes],
) -> bytes:
    files = {name: content.decode() for name, content in page().items()}
    style = files["style.css"]
    script = "\n".join(
        _EXPORT.sub("", _IMPORT.sub("", files[name])).strip() for name in _MODULES
    ).replace("</", "<\\/")
    numbered: dict[str, dict[int, int]] = {}
    for number, (instrument, pitch) in enumerate(notes):
        numbered.setdefault(instrument, {})[pitch] = number
    described: dict[str, Any] = {
        **pack.described,
        "notes": {name: sorted(numbered.get(name, {})) for name in pack.described["notes"]},
    }
    data = {"pack": described, "pads": pads, "notes": numbered}
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    blocks = [
        f'<script type="application/json" id="embedded">{_json(data)}</script>',
        *(_block(f"sound-{number}", sound) for number, sound in enumerate(sounds)),
        *(_block(f"note-{number}", sound) for number, sound in enumerate(notes.values())),
        f'<script type="module">{script}</script>',
    ]
    icon = base64.b64encode(files["icon.svg"].encode()).decode()
    parts = {
        '<meta charset="utf-8">': '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<link rel="icon" href="icon.svg">': '<link rel="icon" '
        f'href="data:image/svg+xml;base64,{icon}">',
        '<link rel="stylesheet" href="style.css">': f"<style>{style}</style>",
        '<script type="module" src="main.js"></script>\n': "",
        "</body>": "\n".join([*blocks, "</body>"]),
    }
    html = files["index.html"]
    for here, instead in parts.items():
        before, found, after = html.partition(here)
        assert found, here
        html = before + instead + after
    return html.encode()


def _block(name: str, content: bytes) -> str:
    return f'<script type="text/plain" id="{name}">{base64.b64encode(content).decode()}</script>'


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
