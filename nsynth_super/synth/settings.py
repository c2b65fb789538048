"""The instrument's contract: how a pad lies in its file, and what its settings.json must say.

A pad is headerless little-endian 16-bit mono, `[y, x, pitch, sample]`, the top row first. The
device maps it into memory and trusts it: a short file ends it, a wrong one plays noise.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import BaseModel, StrictInt, ValidationError

from nsynth_super.problems import BadInput, Problem
from nsynth_super.settings import ABBREVIATION, DISPLAY, SAMPLE_RATE, Settings, read_json

DATA_DIRECTORY = "/home/pi/pads"
BYTES = 2  # of a sample

LOOP = (0.2, 0.41)
"""Of a sound's length: the device's defaults (Multisampler.cpp), and its shipped settings'."""

CROSSFADE = 4_000  # samples: how far before the loop's start it turns round

_DEVICE_PITCHES = list(range(36, 85, 4))  # where its settings.json has none
_FITS = {"display": DISPLAY, "abbr": ABBREVIATION}
_REQUIRED_AUDIO = {"sampleRate": 48_000, "bufferSize": 128}
_DEFAULTS: dict[str, Any] = {
    "debug": False,
    "nsynth": {"dataDirectory": DATA_DIRECTORY, "looping": True},
    "audio": _REQUIRED_AUDIO,
    "midi": {"device": "/dev/ttyAMA0", "channel": 1},
    "osc": {"in": {"port": 8000}},
}
"""What a device needs besides the pack's own part, where nothing is known of its settings.json."""


class _Corner(BaseModel):
    instruments: list[dict[str, Any]] = []


class _Nsynth(BaseModel):
    resolution: StrictInt = 9
    length: StrictInt = 60_000
    sampleRate: StrictInt = SAMPLE_RATE  # noqa: N815 - the device's own word
    pitches: list[StrictInt] = []


class _DeviceFile(BaseModel):
    """As much of the device's file as is merged into; the rest is nobody's business here."""

    nsynth: _Nsynth = _Nsynth()
    audio: dict[str, Any] = {}
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


@dataclass(frozen=True)
class Geometry:
    """How a pad's samples lie; where two of these differ, the device plays one as noise or ends.

    Attributes
    ----------
    resolution : int
        Cells along one side.
    pitches : tuple of int
        MIDI numbers, in the order of the pad.
    length : int
        Samples of a sound.
    sample_rate : int
        Hz.
    """

    resolution: int
    pitches: tuple[int, ...]
    length: int
    sample_rate: int = SAMPLE_RATE

    @classmethod
    def of(cls, settings: Settings) -> Geometry:
        """Return what a pack's settings ask for."""
        return cls(settings.resolution, tuple(settings.pitches), settings.final_length)

    @classmethod
    def of_device(cls, given: Mapping[str, Any]) -> Geometry:
        """Return what the device reads from its settings.json, its own defaults included."""
        nsynth = given.get("nsynth", {})
        pitches = nsynth.get("pitches", _DEVICE_PITCHES)
        return cls(
            nsynth.get("resolution", 9),
            tuple(pitches) if isinstance(pitches, list) else (),
            nsynth.get("length", 60_000),
            nsynth.get("sampleRate", 16_000),
        )

    @property
    def bytes(self) -> int:
        """Size of a pad."""
        return self.resolution**2 * len(self.pitches) * self.length * BYTES

    def differences(self, other: Geometry) -> list[str]:
        """Say where `other` differs from this, a phrase each: `resolution 9, not 3`."""
        return [
            f"{key} {_said(theirs)}, not {_said(ours)}"
            for key, ours, theirs in (
                ("resolution", self.resolution, other.resolution),
                ("pitches", self.pitches, other.pitches),
                ("length", self.length, other.length),
                ("sampleRate", self.sample_rate, other.sample_rate),
            )
            if ours != theirs
        ]


def _said(value: int | tuple[int, ...]) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def instrument(name: str) -> dict[str, str]:
    """Return how the device lists an instrument: its file name, its label, two letters."""
    return {"name": name, "display": next(_displays(name)), "abbr": next(_abbreviations(name))}


def _displays(name: str) -> Iterator[str]:
    """Make labels of a name, the best first, without end."""
    label = re.sub(r"[_\W]+", " ", name).strip().upper() or name
    yield label[:DISPLAY].strip()
    if len(words := label.split()) > 1:
        yield f"{words[0][:3]} {words[-1]}"[:DISPLAY].strip()
    for number in count(2):
        yield label[: DISPLAY - len(str(number))].strip() + str(number)


def _abbreviations(name: str) -> Iterator[str]:
    """Make pairs of letters of a name, the best first; the first and a digit when all are taken."""
    words = re.findall(r"[^\W\d_]+|\d+", name) or [name]
    initials = "".join(word[0] for word in words[:2]) if len(words) > 1 else words[0][:2]
    yield (initials * 2).upper()[:ABBREVIATION]
    letters = "".join(words).upper()
    yield from (letters[0] + letter for letter in letters[1:])
    yield from (letters[0] + str(digit) for digit in range(2, 10))
    yield from (f"{number:02d}" for number in count())


def labels(settings: Settings, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how the device lists each instrument of a pack, by name; no two of them alike.

    A label comes from the pack's settings, else from the device's present settings, if it fits
    the screen, else it is made from the name.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in settings.instruments:
        said = settings.names.get(name)
        chosen = said.model_dump(exclude_none=True) if said else {}
        found[name] = {**_present(given, name), "name": name, **chosen}
    for key, made in (("display", _displays), ("abbr", _abbreviations)):
        taken = {entry[key] for entry in found.values() if key in entry}
        for name, entry in found.items():
            if key not in entry:
                entry[key] = next(text for text in made(name) if text not in taken)
                taken.add(entry[key])
    return {name: {"name": name, **_in_order(entry)} for name, entry in found.items()}


def _in_order(entry: dict[str, Any]) -> dict[str, Any]:
    return {"display": entry["display"], "abbr": entry["abbr"], **entry}


def _present(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the device's present entry of an instrument, without labels that do not fit."""
    for entry in listed(given):
        if entry.get("name") == name:
            return {
                key: value
                for key, value in entry.items()
                if key not in _FITS or (isinstance(value, str) and 0 < len(value) <= _FITS[key])
            }
    return {}


def listed(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of every instrument that a device's settings.json lists."""
    return [entry for corner in given.get("corners", []) for entry in corner.get("instruments", [])]


def corner_names(given: Mapping[str, Any]) -> list[list[str]]:
    """Return the names that a device's settings.json lists in each corner."""
    return [
        [str(entry.get("name", "")) for entry in corner.get("instruments", [])]
        for corner in given.get("corners", [])[:4]
    ]


def device_settings(
    settings: Settings,
    given: Mapping[str, Any] | None = None,
    data_directory: str | None = None,
    looping: bool | None = None,
) -> dict[str, Any]:
    """Return the device's settings.json for a pack.

    Parameters
    ----------
    settings : Settings
        The pack's.
    given : mapping, optional
        The device's present settings.json: everything in it that is not the pack's is kept, in
        its order (audio, MIDI, OSC, looping, and labels of instruments by the same name). Only
        what the device's program does not start without is added.
    data_directory : str, optional
        Where the device finds the pads; what `given` says, or /home/pi/pads, by default.
    looping : bool, optional
        Whether the device loops a held sound; what the pack's settings, or `given`, say by default.
    """
    merged: dict[str, Any] = copy.deepcopy(dict(given) if given else _DEFAULTS)
    nsynth = merged.setdefault("nsynth", {})
    nsynth["dataDirectory"] = data_directory or nsynth.get("dataDirectory") or DATA_DIRECTORY
    nsynth.update(
        resolution=settings.resolution,
        pitches=list(settings.pitches),
        length=settings.final_length,
        sampleRate=SAMPLE_RATE,
    )
    looping = settings.looping if looping is None else looping
    if looping is not None:
        nsynth["looping"] = looping
    audio = merged.setdefault("audio", {})
    for key, value in _REQUIRED_AUDIO.items():
        audio.setdefault(key, value)
    named = labels(settings, merged)
    merged["corners"] = [
        {"instruments": [named[name] for name in names]} for names in settings.corners
    ]
    return merged


def lacking(given: Mapping[str, Any]) -> list[str]:
    """Return the keys without which the device's program ends at once (ofApp.cpp: they throw)."""
    audio = given.get("audio", {})
    return [f"audio.{key}" for key in _REQUIRED_AUDIO if key not in audio]
