"""Which note each recording in a folder is, by its name, and by what is heard in it.

`C4` is MIDI 60 to some and 72 or 48 to others: which it is here, the recordings themselves say.
Knows neither settings nor workspaces.
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

from nsynth_super import machine, notes
from nsynth_super.naming import instrument_name, problem_of_name
from nsynth_super.notes import ENDINGS, Name, Note
from nsynth_super.pitch import detect
from nsynth_super.problems import BadInput, Problem
from nsynth_super.settings import SAMPLE_RATE

MiddleC = Literal["C3", "C4", "C5"]
"""What MIDI 60 is called."""

VELOCITY = 100  # MIDI's: of recordings whose names do not say how hard they were struck
NAMED = {"ppp": 16, "pp": 33, "p": 49, "mp": 64, "mf": 80, "f": 96, "ff": 112, "fff": 126}

_OCTAVES: dict[MiddleC, int] = {"C3": 1, "C4": 0, "C5": -1}  # to add, to what C4 = 60 makes of it
_CLASSES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_SIGNS = {"#": 1, "♯": 1, "s": 1, "b": -1, "♭": -1, "": 0}
_IN_TUNE = 0.5  # semitones
_LISTENED = 2 * SAMPLE_RATE  # samples

_AT_START = r"(?<![^\W_])(?<![#♯♭])"
_AT_END = r"(?![^\W_]|[#♯♭])"
_NO_LETTER = r"(?<![^\W\d_])"
_NOTE = re.compile(
    rf"(?:{_AT_START}|(?<=[a-z])(?=[A-G]))"  # violin-C4, violin c4, ViolinC4
    rf"(?P<letter>[A-Ga-g])(?P<sign>[#♯b♭s]?)(?P<octave>-[12]|10|\d){_AT_END}"
)
_NUMBER = re.compile(rf"{_AT_START}\d{{2,3}}{_AT_END}")
_COUNTERS = re.compile(rf"{_AT_START}\d+{_AT_END}")
_TAKE = re.compile(rf"{_NO_LETTER}(?:rr|take|round)[ _-]?\d{{1,3}}{_AT_END}", re.IGNORECASE)
_STRUCK = re.compile(
    rf"{_NO_LETTER}(?:(?i:v|vel|velocity)[ _-]?(?P<number>\d{{1,3}})"
    rf"|(?P<mark>p|f|(?i:ppp|pp|mp|mf|ff|fff))){_AT_END}"
)
_OF_NSYNTH = re.compile(r"(?P<instrument>.+_\d{3})-(?P<pitch>\d{3})-(?P<velocity>\d{3})")


@dataclass(frozen=True)
class Reading:
    """One way to read a recording's name.

    Attributes
    ----------
    note : str
        As it stands there: `A#4`, or `060`.
    pitch : int
        MIDI; of a note's name, as if middle C were C4.
    named : bool
        Whether it is a note's name, not a MIDI number.
    rest : str
        What is left: the instrument, perhaps numbers.
    whole : bool
        Whether all of that is the instrument, numbers included.
    """

    note: str
    pitch: int
    named: bool
    rest: str
    whole: bool = False


@dataclass(frozen=True)
class Recording:
    """A file, and which note it is taken for.

    Attributes
    ----------
    path : Path
    readings : tuple of Reading
        All the ways to read its name; one, once it is decided.
    velocity : int
        How hard it was struck, as its name says.
    heard : float or None
        MIDI pitch with its fraction; None if the sound has none.
    name : (instrument, pitch) or None
        What it becomes.
    why_not : str
        Why it becomes nothing; empty if it does.
    """

    path: Path
    readings: tuple[Reading, ...]
    velocity: int = VELOCITY
    heard: float | None = None
    name: Name | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Guess:
    """What a folder holds.

    Attributes
    ----------
    recordings : list of Recording
        By file name.
    middle_c : {"C3", "C4", "C5"}
        What MIDI 60 is called in this folder.
    because : str
        How that is known.
    problems : list of Problem
        Warnings, and notes.
    """

    recordings: list[Recording]
    middle_c: MiddleC
    because: str
    problems: list[Problem]

    @property
    def taken(self) -> dict[Name, Path]:
        """The recording of each note."""
        return {each.name: each.path for each in self.recordings if each.name is not None}


def read(stem: str) -> tuple[tuple[Reading, ...], int]:
    """Read a file's name, without its ending: every note it may mean, and the velocity.

    Parameters
    ----------
    stem : str
        `piano-C4-mf`, `A#4`, `piano_060`.

    Returns
    -------
    readings : tuple of Reading
        In the order in which they stand there; MIDI numbers only if there is no note's name.
    velocity : int
    """
    stem = unicodedata.normalize("NFC", stem)
    if match := _OF_NSYNTH.fullmatch(stem):
        number = match["pitch"]
        reading = Reading(number, int(number), False, match["instrument"], whole=True)
        return ((reading,) if int(number) <= 127 else ()), int(match["velocity"])
    velocity = VELOCITY
    for struck in _STRUCK.finditer(stem):
        velocity = int(struck["number"] or NAMED[struck["mark"].lower()])
    for marks in (_STRUCK, _TAKE):  # blanks in their place: what stands beside them is whole then
        stem = marks.sub(lambda match: " " * len(match[0]), stem)
    readings = [_named(stem, match) for match in _NOTE.finditer(stem)] or [
        Reading(match[0], int(match[0]), False, _rest(stem, match))
        for match in _NUMBER.finditer(stem)
        if int(match[0]) <= 127
    ]
    return tuple(readings), velocity


def _named(stem: str, match: re.Match[str]) -> Reading:
    semitones = _CLASSES[match["letter"].lower()] + _SIGNS[match["sign"]]
    pitch = 12 * (int(match["octave"]) + 1) + semitones
    return Reading(match[0], pitch, True, _rest(stem, match))


def _rest(stem: str, match: re.Match[str]) -> str:
    return f"{stem[: match.start()]} {_COUNTERS.sub(' ', stem[match.end() :])}"


def guess(
    folder: Path,
    middle_c: MiddleC | None = None,
    instrument: str | None = None,
    known: Iterable[str] = (),
    velocity: int = VELOCITY,
) -> Guess:
    """Find out which note each recording in a folder is.

    Parameters
    ----------
    folder : Path
        Only what lies in it, not in folders within it.
    middle_c : {"C3", "C4", "C5"}, optional
        What MIDI 60 is called; otherwise as most recordings sound.
    instrument : str, optional
        The name of them all; otherwise what their names say, or the folder's.
    known : iterable of str
        Instruments whose names are to be used where they are meant.
    velocity : int
        Of several recordings of a note, the one struck most nearly so is taken.

    Returns
    -------
    Guess

    Raises
    ------
    BadInput
        If there is nothing that could be taken.
    """
    recordings = _listened_to(folder)
    recordings = [_decided(each) for each in recordings]
    because = "as you say"
    if middle_c is None:
        middle_c, because = _voted(recordings)
    recordings = _called(recordings, folder, instrument, known, _OCTAVES[middle_c])
    recordings = _one_of_each(recordings, velocity)
    if all(each.name is None for each in recordings):
        reasons = Counter(each.why_not for each in recordings)
        counted = "; ".join(f"{reason} ({count})" for reason, count in reasons.items())
        raise BadInput(
            Problem(
                str(folder),
                f"nothing can be taken from it: {counted}",
                "name the recordings like C4.wav, piano-A#3.wav or piano_60.wav",
            )
        )
    problems = [*_doubts(recordings), *_merged(recordings)]
    return Guess(recordings, middle_c, because, problems)


def _listened_to(folder: Path) -> list[Recording]:
    try:
        paths = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.is_file())
    except OSError as error:
        raise BadInput(
            Problem(str(folder), f"cannot be read ({error.strerror})", "see the name")
        ) from None
    paths = [path for path in paths if path.suffix.lower() in ENDINGS - {".raw"}]
    if not paths:
        raise BadInput(
            Problem(str(folder), "no sound file lies in it", "give the folder that they lie in")
        )
    with ThreadPoolExecutor(machine.processors()) as pool:
        return list(pool.map(_listen, paths))


def _listen(path: Path) -> Recording:
    readings, velocity = read(path.stem)
    conformed = notes.read(Note(("", 0), path))
    wrong = next((p.what for p in conformed.problems if p.level == "error"), "")
    heard = None if wrong else detect(conformed.audio[:_LISTENED])
    return Recording(path, readings, velocity, heard, why_not=wrong)


def _decided(recording: Recording) -> Recording:
    """Settle which of several readings is meant: the one that fits what is heard."""
    readings, heard = recording.readings, recording.heard
    if recording.why_not or len({reading.pitch for reading in readings}) == 1:
        return replace(recording, readings=readings[-1:])
    if not readings:
        return replace(recording, why_not="names no note")
    if heard is not None:
        fitting = [each for each in readings if abs(_off(each, heard)) < _IN_TUNE]
        if len({reading.pitch for reading in fitting}) == 1:
            return replace(recording, readings=tuple(fitting[-1:]))
    listed = " or ".join(dict.fromkeys(reading.note for reading in readings))
    return replace(recording, why_not=f"may be {listed}")


def _off(reading: Reading, heard: float) -> float:
    """Return how many semitones lie between; for a note's name, its octave aside."""
    off = heard - reading.pitch
    return off - 12 * round(off / 12) if reading.named else off


def _voted(recordings: list[Recording]) -> tuple[MiddleC, str]:
    octaves = [
        round((each.heard - each.readings[0].pitch) / 12)
        for each in recordings
        if not each.why_not
        and each.readings[0].named
        and each.heard is not None
        and abs(_off(each.readings[0], each.heard)) < _IN_TUNE
    ]
    votes = Counter(octaves)
    for middle_c, octave in _OCTAVES.items():
        if 2 * votes[octave] > len(octaves):
            return middle_c, f"{votes[octave]} of {len(octaves)} recordings sound so"
    if not any(each.readings[:1] and each.readings[0].named for each in recordings):
        return "C4", "which no file needs: they have MIDI numbers"
    return "C4", "assumed: their sound does not decide it; --middle-c says it"


def _called(
    recordings: list[Recording],
    folder: Path,
    instrument: str | None,
    known: Iterable[str],
    octaves: int,
) -> list[Recording]:
    known = list(known)
    rests = [each.readings[0].rest for each in recordings if not each.why_not]
    # A number in every name belongs to it (juno-106); one in some of them counts (01 - C4).
    constant = set.intersection(*(set(_COUNTERS.findall(rest)) for rest in rests or [""]))

    def called(recording: Recording) -> Recording:
        if recording.why_not:
            return recording
        reading = recording.readings[0]
        pitch = reading.pitch + 12 * octaves * reading.named
        if not 0 <= pitch <= 127:
            return replace(recording, why_not=f"would be MIDI {pitch}")
        rest = reading.rest
        if not reading.whole and instrument_name(rest, known) not in known:
            rest = _COUNTERS.sub(lambda m: m[0] if m[0] in constant else " ", rest)
        said = rest if re.search(r"[^\W\d_]", rest) else folder.resolve().name
        name = instrument or instrument_name(said, known)
        if not name:
            return replace(recording, why_not="no name for the instrument can be made of it")
        if (problem := problem_of_name(name, "")) is not None:
            return replace(recording, why_not=f"the instrument's name {problem.what}")
        return replace(recording, name=(name, pitch))

    return [called(recording) for recording in recordings]


def _one_of_each(recordings: list[Recording], velocity: int) -> list[Recording]:
    best: dict[Name, Recording] = {}
    for each in sorted(recordings, key=lambda each: abs(each.velocity - velocity)):
        if each.name is not None:
            best.setdefault(each.name, each)

    def settled(recording: Recording) -> Recording:
        if recording.name is None or (one := best[recording.name]) is recording:
            return recording
        return replace(recording, name=None, why_not=f"{one.path.name} is taken")

    return [settled(recording) for recording in recordings]


def _doubts(recordings: list[Recording]) -> list[Problem]:
    problems = []
    for each in recordings:
        if each.name is None or each.heard is None:
            continue
        off = each.heard - each.name[1]
        if abs(off) >= _IN_TUNE:
            problems.append(
                Problem(
                    each.path.name,
                    f"becomes MIDI {each.name[1]}, and sounds {off:+.1f} semitones from it",
                    "listen to it: rename it if its name is wrong",
                    "warning",
                )
            )
    return problems


def _merged(recordings: list[Recording]) -> Iterator[Problem]:
    """Doubt numbers that were left out and yet seem to tell instruments apart.

    A take's number comes again at the same note, a counter's at none; these come at several notes,
    and never at another's.
    """
    pitches: dict[str, dict[tuple[str, ...], set[int]]] = {}
    for each in recordings:
        if each.name is not None and not each.readings[0].whole:
            numbers = tuple(_COUNTERS.findall(each.readings[0].rest))
            instrument, pitch = each.name
            pitches.setdefault(instrument, {}).setdefault(numbers, set()).add(pitch)
    for instrument, numbered in pitches.items():
        several = len(numbered) > 1 and all(len(notes) > 1 for notes in numbered.values())
        if several and len(set.union(*numbered.values())) == sum(map(len, numbered.values())):
            listed = ", ".join(" ".join(numbers) or "none" for numbers in sorted(numbered))
            yield Problem(
                instrument,
                f"is made of recordings with different numbers in their names ({listed})",
                "if those are several instruments, give them one folder each, and --as",
                "warning",
            )
