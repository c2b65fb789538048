"""The instrument's contract: how a pad lies in its file, and what its settings.json must say.

A pad is headerless little-endian 16-bit mono, `[y, x, pitch, sample]`, the top row first. The
device maps it into memory and trusts it: a short file ends it, a wrong one plays noise.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from nsynth_super.problems import BadInput, Problem
from nsynth_super.settings import SAMPLE_RATE, Settings, read_json

DATA_DIRECTORY = "/home/pi/pads"
DISPLAY = 8  # characters of an instrument's name on the device's screen
BYTES = 2  # of a sample

_DEFAULTS: dict[str, Any] = {
    "debug": False,
    "nsynth": {"dataDirectory": DATA_DIRECTORY, "looping": True},
    "audio": {"sampleRate": 48_000, "bufferSize": 128},
    "midi": {"device": "/dev/ttyAMA0", "channel": 1},
    "osc": {"in": {"port": 8000}},
}
"""What a device needs besides the pack's own part, where its own settings.json does not say."""


class _Corner(BaseModel):
    instruments: list[dict[str, Any]] = []


class _DeviceFile(BaseModel):
    """As much of the device's file as is merged into; the rest is nobody's business here."""

    nsynth: dict[str, Any] = {}
    corners: list[_Corner] = []


def read_device_settings(path: Path) -> dict[str, Any]:
    """Read the device's present settings.json.

    Raises
    ------
    BadInput
        If it is missing, no JSON, or has something else where the pack's part goes.
    """
    raw = read_json(path, "name the device's own settings.json")
    try:
        _DeviceFile.model_validate(raw)
    except ValidationError as invalid:
        raise BadInput(
            Problem(
                f"{path} {'.'.join(map(str, error['loc']))}",
                f"is not what the device reads ({error['msg']})",
                "give the device's own settings.json",
            )
            for error in invalid.errors()
        ) from None
    return raw


def offset(row: int, length: int) -> int:
    """Return where a row, `(y * resolution + x) * pitches + pitch`, begins in a pad, in bytes."""
    return row * length * BYTES


def instrument(name: str) -> dict[str, str]:
    """Return how the device lists an instrument: its file name, its label, two letters."""
    words = re.findall(r"[^\W\d_]+|\d+", name) or [name]
    initials = "".join(word[0] for word in words[:2]) if len(words) > 1 else words[0][:2]
    label = re.sub(r"[_\W]+", " ", name).strip() or name
    return {
        "name": name,
        "display": label.upper()[:DISPLAY].strip(),
        "abbr": (initials * 2).upper()[:2],
    }


def device_settings(settings: Settings, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the device's settings.json for a pack.

    Parameters
    ----------
    settings : Settings
        The pack's.
    given : mapping, optional
        The device's present settings.json: everything in it that is not the pack's is kept
        (audio, MIDI, OSC, looping, and labels of instruments by the same name).
    """
    merged = copy.deepcopy(_DEFAULTS | dict(given or {}))
    merged["nsynth"].setdefault("dataDirectory", DATA_DIRECTORY)
    merged["nsynth"].update(
        resolution=settings.resolution,
        pitches=list(settings.pitches),
        length=settings.final_length,
        sampleRate=SAMPLE_RATE,
    )
    labels = {
        entry["name"]: entry
        for corner in merged.get("corners", [])
        for entry in corner.get("instruments", [])
        if {"name", "display", "abbr"} <= entry.keys()
    }
    merged["corners"] = [
        {"instruments": [labels.get(name, instrument(name)) for name in names]}
        for names in settings.corners
    ]
    return merged
