"""Reads and builds the synth's settings.json.

The synth maps pads into memory and trusts its settings: a truncated pad crashes it, and one of
another geometry plays as noise.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import BaseModel, StrictInt, ValidationError

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.settings import ABBREVIATION, DISPLAY, SAMPLE_RATE, Settings, read_json

DATA_DIRECTORY = "/home/pi/pads"

LOOP = (0.2, 0.41)
"""Start and end of the loop as fractions of a sound's length (Multisampler.cpp)."""

CROSSFADE = 4_000  # samples before the loop's start at which playback reverses

_MAX_LENGTHS = {"display": DISPLAY, "abbr": ABBREVIATION}
_REQUIRED_AUDIO = {"sampleRate": 48_000, "bufferSize": 128}
_DEFAULTS: dict[str, Any] = {
    "debug": False,
    "nsynth": {"dataDirectory": DATA_DIRECTORY, "looping": True},
    "audio": _REQUIRED_AUDIO,
    "midi": {"device": "/dev/ttyAMA0", "channel": 1},
    "osc": {"in": {"port": 8000}},
}
"""Settings that the synth needs besides the pack's, if its own settings.json is unknown."""


class _Corner(BaseModel):
    instruments: list[dict[str, Any]] = []


class _Nsynth(BaseModel):
    resolution: StrictInt = 9
    length: StrictInt = 60_000
    sampleRate: StrictInt = SAMPLE_RATE  # noqa: N815 - the synth's spelling
    pitches: list[StrictInt] = []


class _SynthFile(BaseModel):
    """The part of the synth's settings.json that is merged; other keys are not validated."""

    nsynth: _Nsynth = _Nsynth()
    audio: dict[str, Any] = {}
    corners: list[_Corner] = []


def read_synth_settings(path: Path) -> dict[str, Any]:
    """Read the synth's current settings.json.

    Raises
    ------
    BadInput
        If it is missing, invalid JSON, or has invalid values for the keys that are merged.
    """
    raw = read_json(path, "give the synth's settings.json")
    try:
        _SynthFile.model_validate(raw)
    except ValidationError as invalid:
        raise BadInput(
            Problem(
                f"{path} {'.'.join(map(str, error['loc']))}",
                f"is not valid for the synth ({error['msg']})",
                "give the synth's settings.json",
            )
            for error in invalid.errors()
        ) from None
    return raw


def instrument(name: str) -> dict[str, str]:
    """Return the synth's entry for an instrument: name, label and two-letter abbreviation."""
    return {"name": name, "display": next(_displays(name)), "abbr": next(_abbreviations(name))}


def _displays(name: str) -> Iterator[str]:
    """Yield labels for a name endlessly, the best first."""
    label = re.sub(r"[_\W]+", " ", name).strip().upper() or name
    yield label[:DISPLAY].strip()
    if len(words := label.split()) > 1:
        yield f"{words[0][:3]} {words[-1]}"[:DISPLAY].strip()
    for number in count(2):
        yield label[: DISPLAY - len(str(number))].strip() + str(number)


def _abbreviations(name: str) -> Iterator[str]:
    """Yield two-character abbreviations of a name endlessly, the best first."""
    words = re.findall(r"[^\W\d_]+|\d+", name) or [name]
    initials = "".join(word[0] for word in words[:2]) if len(words) > 1 else words[0][:2]
    yield (initials * 2).upper()[:ABBREVIATION]
    letters = "".join(words).upper()
    yield from (letters[0] + letter for letter in letters[1:])
    yield from (letters[0] + str(digit) for digit in range(2, 10))
    yield from (f"{number:02d}" for number in count())


def labels(settings: Settings, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the synth's entry for each instrument of a pack, by name, with unique labels.

    A label comes from the pack's settings, else from the synth's current settings if it fits the
    screen, else from the name.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in settings.instruments:
        label = settings.names.get(name)
        chosen = label.model_dump(exclude_none=True) if label else {}
        found[name] = {**_current_entry(given, name), "name": name, **chosen}
    for key, candidates in (("display", _displays), ("abbr", _abbreviations)):
        taken = {entry[key] for entry in found.values() if key in entry}
        for name, entry in found.items():
            if key not in entry:
                entry[key] = next(text for text in candidates(name) if text not in taken)
                taken.add(entry[key])
    return {name: {"name": name, **_in_order(entry)} for name, entry in found.items()}


def _in_order(entry: dict[str, Any]) -> dict[str, Any]:
    return {"display": entry["display"], "abbr": entry["abbr"], **entry}


def _current_entry(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the synth's current entry for an instrument, without labels that do not fit."""
    for entry in listed(given):
        if entry.get("name") == name:
            return {
                key: value
                for key, value in entry.items()
                if key not in _MAX_LENGTHS
                or (isinstance(value, str) and 0 < len(value) <= _MAX_LENGTHS[key])
            }
    return {}


def listed(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of all instruments in the synth's settings.json."""
    return [entry for corner in given.get("corners", []) for entry in corner.get("instruments", [])]


def corner_names(given: Mapping[str, Any]) -> list[list[str]]:
    """Return the instrument names of each corner in the synth's settings.json."""
    return [
        [str(entry.get("name", "")) for entry in corner.get("instruments", [])]
        for corner in given.get("corners", [])[:4]
    ]


def synth_settings(
    settings: Settings,
    given: Mapping[str, Any] | None = None,
    data_directory: str | None = None,
    looping: bool | None = None,
) -> dict[str, Any]:
    """Return the synth's settings.json for a pack.

    Parameters
    ----------
    settings : Settings
        The pack's settings.
    given : mapping, optional
        The synth's current settings.json. Keys that do not belong to the pack are kept in their
        order (audio, MIDI, OSC, looping, and labels of instruments with the same name). Only keys
        that the synth's program requires are added.
    data_directory : str, optional
        Pads folder as the synth sees it; from `given`, or /home/pi/pads, by default.
    looping : bool, optional
        Whether the synth loops held sounds; from the pack's settings or `given` by default.
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
    """Return the missing keys that the synth's program requires (ofApp.cpp throws without them)."""
    audio = given.get("audio", {})
    return [f"audio.{key}" for key in _REQUIRED_AUDIO if key not in audio]
