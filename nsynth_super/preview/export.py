"""Export of the page and a pack's sounds as one HTML file: no server, no network.

Every distinct sound is stored once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import write_bytes
from nsynth_super.base.text import amount
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.grid import Grid
from nsynth_super.preview.document import single_file
from nsynth_super.preview.pack import Pack

MAX_SOUND_BYTES = 30_000_000
"""Limit for the sounds of one page: phones have trouble with more."""


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes
    ----------
    sounds : int
        Distinct sounds in the file.
    size : int
        Bytes of the file.
    notices : list of str
        What is missing from the file.
    """

    sounds: int
    size: int
    notices: list[str]


def export_page(pack: Pack, path: Path) -> Exported:
    """Write a pack's page to `path`.

    Raises
    ------
    BadInput
        If the pack is too large, or none of its clips is generated yet.
    """
    settings = pack.settings
    row = Geometry.of(settings).row_bytes
    if (size := len(Grid.of(settings).mixes) * row) > MAX_SOUND_BYTES:
        raise BadInput(
            Problem(
                "--export",
                f"the pack's sounds are {amount(size)}; a page holds {amount(MAX_SOUND_BYTES)} "
                "at most",
                "make a smaller pack to send: fewer instruments or pitches, a lower resolution or "
                "a shorter final_length",
            )
        )
    sounds, pads = _distinct_sounds(pack, row)
    if not sounds:
        raise BadInput(
            Problem("--export", "no clip is generated yet", "run `nsynth-super generate` first")
        )
    notices = []
    if (incomplete := sum(-1 in rows for rows in pads.values())) > 0:
        notices.append(f"{incomplete} of {len(pads)} pads are incomplete; missing cells are grey")
    notes = _recordings(pack)
    if size + sum(map(len, notes.values())) > MAX_SOUND_BYTES:
        notices.append("the recordings are omitted: they would make the page too large")
        notes = {}
    content = _document(pack, sounds, pads, notes)
    write_bytes(path, content)
    return Exported(len(sounds), len(content), notices)


def _distinct_sounds(pack: Pack, size: int) -> tuple[list[bytes], dict[str, list[int]]]:
    """Return the distinct sounds, and by pad the sound number of each row, -1 if not generated."""
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


def _recordings(pack: Pack) -> dict[tuple[str, int], bytes]:
    found = {name: pack.recording(*name) for name in pack.recordings}
    return {name: sound for name, sound in found.items() if sound is not None}


def _document(
    pack: Pack,
    sounds: list[bytes],
    pads: dict[str, list[int]],
    notes: dict[tuple[str, int], bytes],
) -> bytes:
    numbers: dict[str, dict[int, int]] = {}
    for number, (instrument, pitch) in enumerate(notes):
        numbers.setdefault(instrument, {})[pitch] = number
    embedded = {name: sorted(numbers.get(name, {})) for name in pack.described["notes"]}
    data = {"pack": {**pack.described, "notes": embedded}, "pads": pads, "notes": numbers}
    return single_file(data, sounds, list(notes.values()))
