"""Detects which note each recording in a folder is, from its file name and its pitch.

Conventions differ: MIDI 60 is called C3, C4 or C5. The pitches of the recordings show which one a
folder uses. Independent of settings and workspaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nsynth_super.base import allocation
from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.note_name import NoteName
from nsynth_super.notes.instrument_names import instrument_name, problem_of_name
from nsynth_super.notes.pitch import detect
from nsynth_super.notes.recordings import ENDINGS, Note
from nsynth_super.notes.recordings import read as read_recording
from nsynth_super.settings import SAMPLE_RATE

MiddleC = Literal["C3", "C4", "C5"]
"""Name of MIDI 60."""

VELOCITY = 100  # MIDI velocity if a name contains none
DYNAMICS = {"ppp": 16, "pp": 33, "p": 49, "mp": 64, "mf": 80, "f": 96, "ff": 112, "fff": 126}

_OCTAVES: dict[MiddleC, int] = {
    "C3": 1,
    "C4": 0,
    "C5": -1,
}  # octaves to add to a pitch read as C4 = 60
_CLASSES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SIGNS = {"#": 1, "♯": 1, "s": 1, "b": -1, "♭": -1, "": 0}
_IN_TUNE = 0.5  # semitones
_ANALYSED = 2 * SAMPLE_RATE  # samples

_AT_START = r"(?<![^\W_])(?<![#♯♭])"
_AT_END = r"(?![^\W_]|[#♯♭])"
_NO_LETTER = r"(?<![^\W\d_])"
_NOTE = re.compile(
    rf"(?:{_AT_START}|(?<=[a-z])(?=[A-G]))"  # violin-C4, violin c4, ViolinC4
    rf"(?P<letter>[A-Ga-g])(?P<sign>[#♯b♭s]?)(?P<octave>-[12]|10|\d){_AT_END}"
)
_NUMBER = re.compile(rf"{_AT_START}\d{{2,3}}{_AT_END}")
_NUMBERS = re.compile(rf"{_AT_START}\d+{_AT_END}")
_TAKE = re.compile(rf"{_NO_LETTER}(?:rr|take|round)[ _-]?\d{{1,3}}{_AT_END}", re.IGNORECASE)
_VELOCITY = re.compile(
    rf"{_NO_LETTER}(?:(?i:v|vel|velocity)[ _-]?(?P<number>\d{{1,3}})"
    rf"|(?P<mark>p|f|(?i:ppp|pp|mp|mf|ff|fff))){_AT_END}"
)
_NSYNTH_NAME = re.compile(r"(?P<instrument>.+_\d{3})-(?P<pitch>\d{3})-(?P<velocity>\d{3})")


@dataclass(frozen=True)
class Reading:
    """One way to read a recording's name.

    Attributes
    ----------
    note : str
        Part of the name that gives the note: `A#4`, or `060`.
    pitch : int
        MIDI number; for a note name, with C4 as middle C.
    named : bool
        Whether `note` is a note name and not a MIDI number.
    rest : str
        Rest of the name: the instrument and possibly numbers.
    exact : bool
        Whether `rest` is the instrument's name, including its numbers.
    """

    note: str
    pitch: int
    named: bool
    rest: str
    exact: bool = False


@dataclass(frozen=True)
class Recording:
    """A file and the note it is assigned to.

    Attributes
    ----------
    path : Path
    readings : tuple of Reading
        All ways to read its name; a single one once resolved.
    velocity : int
        MIDI velocity, from the name.
    heard : float or None
        Detected MIDI pitch with its fraction; None for unpitched sounds.
    name : NoteName or None
        The note it is imported as.
    why_not : str
        Why it is not imported; empty if it is.
    """

    path: Path
    readings: tuple[Reading, ...]
    velocity: int = VELOCITY
    heard: float | None = None
    name: NoteName | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Guess:
    """The notes detected in a folder.

    Attributes
    ----------
    recordings : list of Recording
        Sorted by file name.
    middle_c : {"C3", "C4", "C5"}
        Name of MIDI 60 in this folder.
    because : str
        Reason for that choice.
    problems : list of Problem
        Warnings and notes.
    """

    recordings: list[Recording]
    middle_c: MiddleC
    because: str
    problems: list[Problem]

    @property
    def taken(self) -> dict[NoteName, Path]:
        """The recording selected for each note."""
        return {each.name: each.path for each in self.recordings if each.name is not None}


def read(stem: str) -> tuple[tuple[Reading, ...], int]:
    """Parse a file name without its ending into all possible notes and the velocity.

    Parameters
    ----------
    stem : str
        `piano-C4-mf`, `A#4`, `piano_060`.

    Returns
    -------
    readings : tuple of Reading
        In the order of the name; MIDI numbers only if there is no note name.
    velocity : int
        MIDI velocity.
    """
    stem = unicodedata.normalize("NFC", stem)
    if match := _NSYNTH_NAME.fullmatch(stem):
        number = match["pitch"]
        reading = Reading(number, int(number), False, match["instrument"], exact=True)
        return ((reading,) if int(number) <= 127 else ()), int(match["velocity"])
    velocity = VELOCITY
    for match in _VELOCITY.finditer(stem):
        velocity = int(match["number"] or DYNAMICS[match["mark"].lower()])
    for marks in (_VELOCITY, _TAKE):  # replaced by spaces, to keep the words beside them separate
        stem = marks.sub(lambda match: " " * len(match[0]), stem)
    readings = [_note_reading(stem, match) for match in _NOTE.finditer(stem)] or [
        Reading(match[0], int(match[0]), False, _rest(stem, match))
        for match in _NUMBER.finditer(stem)
        if int(match[0]) <= 127
    ]
    return tuple(readings), velocity


def _note_reading(stem: str, match: re.Match[str]) -> Reading:
    semitones = _CLASSES[match["letter"].lower()] + _SIGNS[match["sign"]]
    pitch = 12 * (int(match["octave"]) + 1) + semitones
    return Reading(match[0], pitch, True, _rest(stem, match))


def _rest(stem: str, match: re.Match[str]) -> str:
    return f"{stem[: match.start()]} {_NUMBERS.sub(' ', stem[match.end() :])}"


def guess(
    folder: Path,
    middle_c: MiddleC | None = None,
    instrument: str | None = None,
    known: Iterable[str] = (),
    velocity: int = VELOCITY,
) -> Guess:
    """Detect which note each recording in a folder is.

    Parameters
    ----------
    folder : Path
        Folder of recordings; subfolders are ignored.
    middle_c : {"C3", "C4", "C5"}, optional
        Name of MIDI 60; detected from the pitches of the recordings by default.
    instrument : str, optional
        Instrument of all recordings; taken from the file names or the folder by default.
    known : iterable of str
        Known instruments, matched regardless of case and punctuation.
    velocity : int
        Preferred MIDI velocity where a note has several recordings.

    Returns
    -------
    Guess

    Raises
    ------
    BadInput
        If no recording can be assigned to a note.
    """
    recordings = [_resolve_reading(each) for each in _analyse(folder)]
    because = "from --middle-c"
    if middle_c is None:
        middle_c, because = _detect_middle_c(recordings)
    recordings = _assign_names(recordings, folder, instrument, known, _OCTAVES[middle_c])
    recordings = _select_takes(recordings, velocity)
    if all(each.name is None for each in recordings):
        reasons = Counter(each.why_not for each in recordings)
        counted = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
        raise BadInput(
            Problem(
                str(folder),
                f"no recording can be used: {counted}",
                "name the recordings like C4.wav, piano-A#3.wav or piano_60.wav",
            )
        )
    problems = [*_pitch_warnings(recordings), *_number_warnings(recordings)]
    return Guess(recordings, middle_c, because, problems)


def _analyse(folder: Path) -> list[Recording]:
    try:
        paths = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())
    except OSError as error:
        raise BadInput(
            Problem(str(folder), f"cannot be read ({error.strerror})", "check the path")
        ) from None
    paths = [path for path in paths if path.suffix.lower() in ENDINGS - {".raw"}]
    if not paths:
        raise BadInput(
            Problem(str(folder), "contains no sound files", "give the folder that contains them")
        )
    with ThreadPoolExecutor(allocation.processors()) as pool:
        return list(pool.map(_analyse_file, paths))


def _analyse_file(path: Path) -> Recording:
    readings, velocity = read(path.stem)
    conformed = read_recording(Note(NoteName("", 0), path))
    error = next((p.what for p in conformed.problems if p.level == "error"), "")
    heard = None if error else detect(conformed.audio[:_ANALYSED])
    return Recording(path, readings, velocity, heard, why_not=error)


def _resolve_reading(recording: Recording) -> Recording:
    """Choose among several readings the one that matches the detected pitch."""
    readings, heard = recording.readings, recording.heard
    if recording.why_not or len({reading.pitch for reading in readings}) == 1:
        return replace(recording, readings=readings[-1:])
    if not readings:
        return replace(recording, why_not="no note in the name")
    if heard is not None:
        matching = [each for each in readings if abs(_offset(each, heard)) < _IN_TUNE]
        if len({reading.pitch for reading in matching}) == 1:
            return replace(recording, readings=tuple(matching[-1:]))
    listed = " or ".join(dict.fromkeys(reading.note for reading in readings))
    return replace(recording, why_not=f"ambiguous: {listed}")


def _offset(reading: Reading, heard: float) -> float:
    """Return the semitones from a reading to the detected pitch; note names ignore the octave."""
    offset = heard - reading.pitch
    return offset - 12 * round(offset / 12) if reading.named else offset


def _detect_middle_c(recordings: list[Recording]) -> tuple[MiddleC, str]:
    octaves = [
        round((each.heard - each.readings[0].pitch) / 12)
        for each in recordings
        if not each.why_not
        and each.readings[0].named
        and each.heard is not None
        and abs(_offset(each.readings[0], each.heard)) < _IN_TUNE
    ]
    votes = Counter(octaves)
    for middle_c, octave in _OCTAVES.items():
        if 2 * votes[octave] > len(octaves):
            return middle_c, f"matches the pitch of {votes[octave]} of {len(octaves)} recordings"
    if not any(each.readings[:1] and each.readings[0].named for each in recordings):
        return "C4", "not needed: the names have MIDI numbers"
    return "C4", "assumed, as the pitches are inconclusive; use --middle-c to change it"


def _assign_names(
    recordings: list[Recording],
    folder: Path,
    instrument: str | None,
    known: Iterable[str],
    octaves: int,
) -> list[Recording]:
    known = list(known)
    rests = [each.readings[0].rest for each in recordings if not each.why_not]
    # A number in every name is part of the instrument (juno-106); others only count (01 - C4).
    constant = set.intersection(*(set(_NUMBERS.findall(rest)) for rest in rests or [""]))

    def assign(recording: Recording) -> Recording:
        if recording.why_not:
            return recording
        reading = recording.readings[0]
        pitch = reading.pitch + 12 * octaves * reading.named
        if not 0 <= pitch <= 127:
            return replace(recording, why_not=f"MIDI {pitch} is out of range")
        rest = reading.rest
        if not reading.exact and instrument_name(rest, known) not in known:
            rest = _NUMBERS.sub(lambda m: m[0] if m[0] in constant else " ", rest)
        text = rest if re.search(r"[^\W\d_]", rest) else folder.resolve().name
        name = instrument or instrument_name(text, known)
        if not name:
            return replace(recording, why_not="no usable instrument name")
        if (problem := problem_of_name(name, "")) is not None:
            return replace(recording, why_not=f"instrument name {problem.what}")
        return replace(recording, name=NoteName(name, pitch))

    return [assign(recording) for recording in recordings]


def _select_takes(recordings: list[Recording], velocity: int) -> list[Recording]:
    best: dict[NoteName, Recording] = {}
    for each in sorted(recordings, key=lambda each: abs(each.velocity - velocity)):
        if each.name is not None:
            best.setdefault(each.name, each)

    def select(recording: Recording) -> Recording:
        if recording.name is None or (chosen := best[recording.name]) is recording:
            return recording
        return replace(recording, name=None, why_not=f"{chosen.path.name} is used instead")

    return [select(recording) for recording in recordings]


def _pitch_warnings(recordings: list[Recording]) -> list[Problem]:
    """Return a warning for each recording whose pitch differs from its name."""
    problems = []
    for each in recordings:
        if each.name is None or each.heard is None:
            continue
        offset = each.heard - each.name.pitch
        if abs(offset) >= _IN_TUNE:
            problems.append(
                Problem(
                    each.path.name,
                    f"is named MIDI {each.name.pitch}, but sounds {offset:+.1f} semitones from it",
                    "listen to it, and rename it if the name is wrong",
                    "warning",
                )
            )
    return problems


def _number_warnings(recordings: list[Recording]) -> Iterator[Problem]:
    """Warn when ignored numbers seem to distinguish instruments.

    A take number repeats at the same note and a counter is different for each file. These numbers
    occur at several notes each, and at different ones.
    """
    pitches: dict[str, dict[tuple[str, ...], set[int]]] = {}
    for each in recordings:
        if each.name is not None and not each.readings[0].exact:
            numbers = tuple(_NUMBERS.findall(each.readings[0].rest))
            instrument, pitch = each.name
            pitches.setdefault(instrument, {}).setdefault(numbers, set()).add(pitch)
    for instrument, numbered in pitches.items():
        several = len(numbered) > 1 and all(len(notes) > 1 for notes in numbered.values())
        if several and len(set.union(*numbered.values())) == sum(map(len, numbered.values())):
            listed = ", ".join(" ".join(numbers) or "none" for numbers in sorted(numbered))
            yield Problem(
                instrument,
                f"combines recordings with different numbers in their names ({listed})",
                "if these are several instruments, import each from its own folder with --as",
                "warning",
            )
