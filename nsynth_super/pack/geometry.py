"""The layout of a pad file; no other module depends on a pad's byte order.

A pad is headerless little-endian 16-bit mono, `[y, x, pitch, sample]`, top row first. The synth
maps it into memory without checks: a truncated file crashes it, a wrong layout plays as noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nsynth_super.settings import CORNERS, SAMPLE_RATE, Settings

SAMPLE = np.dtype("<i2")
LAYOUT = "[y][x][pitch][sample], top row first, headerless little-endian int16 mono"
"""Description of the layout, as recorded in manifest.json."""

_DEFAULT_PITCHES = list(range(36, 85, 4))  # the synth's default


@dataclass(frozen=True)
class Geometry:
    """The dimensions of a pad.

    If they differ from the synth's settings, the synth plays noise or crashes.

    Attributes
    ----------
    resolution : int
        Cells along one side.
    pitches : tuple of int
        MIDI numbers, in the order of the pad.
    length : int
        Samples per sound.
    sample_rate : int
        Hz.
    """

    resolution: int
    pitches: tuple[int, ...]
    length: int
    sample_rate: int = SAMPLE_RATE

    @classmethod
    def of(cls, settings: Settings) -> Geometry:
        """Return the geometry of a pack with these settings."""
        return cls(settings.resolution, tuple(settings.pitches), settings.final_length)

    @classmethod
    def of_synth(cls, given: Mapping[str, Any]) -> Geometry:
        """Return the geometry in the synth's settings.json, with the synth's defaults."""
        nsynth = given.get("nsynth", {})
        pitches = nsynth.get("pitches", _DEFAULT_PITCHES)
        return cls(
            nsynth.get("resolution", 9),
            tuple(pitches) if isinstance(pitches, list) else (),
            nsynth.get("length", 60_000),
            nsynth.get("sampleRate", 16_000),
        )

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> Geometry:
        """Convert the dict that `as_dict` returns back to a geometry.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a key is missing or has a value of another type.
        """
        return cls(
            int(described["resolution"]),
            tuple(int(pitch) for pitch in described["pitches"]),
            int(described["length"]),
            int(described["sample_rate"]),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the geometry as a dict, as recorded in manifest.json."""
        return {
            "order": LAYOUT,
            "corners": list(CORNERS),
            "resolution": self.resolution,
            "pitches": list(self.pitches),
            "length": self.length,
            "sample_rate": self.sample_rate,
            "bytes": self.bytes,
        }

    @property
    def rows(self) -> int:
        """Number of sounds in a pad."""
        return self.resolution**2 * len(self.pitches)

    def row(self, x: int, y: int, pitch: int) -> int:
        """Return the index of the sound in cell (x, y), counted from the top left.

        Parameters
        ----------
        x, y : int
        pitch : int
            Index into `pitches`.
        """
        return (y * self.resolution + x) * len(self.pitches) + pitch

    @property
    def row_bytes(self) -> int:
        """Bytes of one sound."""
        return self.length * SAMPLE.itemsize

    def offset(self, row: int) -> int:
        """Return the byte offset of a row in its pad."""
        return row * self.row_bytes

    @property
    def bytes(self) -> int:
        """Bytes of a pad."""
        return self.offset(self.rows)

    def differences(self, other: Geometry) -> list[str]:
        """Return a phrase for each difference of `other` from this: `resolution 9, not 3`."""
        return [
            f"{key} {_text(theirs)}, not {_text(ours)}"
            for key, ours, theirs in (
                ("resolution", self.resolution, other.resolution),
                ("pitches", self.pitches, other.pitches),
                ("length", self.length, other.length),
                ("sampleRate", self.sample_rate, other.sample_rate),
            )
            if ours != theirs
        ]


def _text(value: int | tuple[int, ...]) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
