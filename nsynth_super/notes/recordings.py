"""Source notes: found by name, read, and conformed to four seconds of mono at 16 kHz.

Knows files and sound. Knows neither the grid nor the model.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from nsynth_super.problems import Problem
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE, Settings

Fill = Literal["repeat", "repitch"]
Name = tuple[str, int]
"""Instrument and MIDI pitch."""

ENDINGS = {f".{ending.lower()}" for ending in soundfile.available_formats()} | {
    ".aif",
    ".oga",
    ".opus",
}
_ENDINGS_UNSAID = {".raw"}  # no header: nothing says its rate
_NAME = re.compile(r"(?P<instrument>.+)_(?P<pitch>\d{1,3})")

SILENCE = 10 ** (-60 / 20)
"""A peak below -60 dBFS is no note."""

_FULL_SCALE = 1 - 2.0**-15
"""The largest 16-bit amplitude; mu-law has no code for exactly +1."""

_MARGIN = 0.1  # seconds read beyond the four, for the resampler's filter


@dataclass(frozen=True)
class Note:
    """One source recording, and how it comes to be the sound of its name.

    Attributes
    ----------
    name : (instrument, pitch)
    path : Path
        The recording; another pitch's, if this one is filled in.
    semitones : float
        How far the recording is re-pitched.
    filled_from : int or None
        The pitch whose recording is used, if there is none of this one.
    """

    name: Name
    path: Path
    semitones: float = 0.0
    filled_from: int | None = None


@dataclass(frozen=True)
class Conformed:
    """A note as the encoder takes it, and what was done to it.

    Attributes
    ----------
    audio : ndarray of float32, `[64000]`
    done : list of str
        What was done, in plain words; empty if the recording already was what it should be.
    problems : list of Problem
    """

    audio: NDArray[np.float32]
    done: list[str]
    problems: list[Problem]


def find(
    folder: Path, settings: Settings, fill: Fill | None = None
) -> tuple[list[Note], list[Problem]]:
    """Find the recording of every note that the settings need.

    Parameters
    ----------
    folder : Path
        `audio_input`.
    settings : Settings
    fill : {"repeat", "repitch"}, optional
        Fill a gap with the instrument's nearest pitch, as it is or re-pitched.

    Returns
    -------
    notes : list of Note
        Those that could be found, by instrument and pitch.
    problems : list of Problem
        Everything missing, misnamed, doubled or unused.
    """
    if not folder.is_dir():
        return [], [Problem(str(folder), "there is no such folder", "put the notes there")]
    recordings, problems = by_name(folder)
    needed = {
        (instrument, pitch) for instrument in settings.instruments for pitch in settings.pitches
    }
    notes = []
    for name in sorted(needed):
        if name in recordings:
            notes.append(Note(name, recordings[name]))
        elif (filled := _filled(name, recordings, fill)) is not None:
            notes.append(filled)
    problems += _missing(needed - {note.name for note in notes}, recordings, fill)
    unused = sorted({instrument for instrument, _ in recordings} - set(settings.instruments))
    problems += [
        Problem(
            f"audio_input/{instrument}_*",
            "is in no corner of settings.json, and not used",
            level="note",
        )
        for instrument in unused
    ]
    return notes, problems


def by_name(folder: Path) -> tuple[dict[Name, Path], list[Problem]]:
    """Return the recordings in `audio_input` by their names; name the files that have none."""
    recordings: dict[Name, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        where = f"audio_input/{path.name}"
        ending = path.suffix.lower()
        if ending not in ENDINGS or ending in _ENDINGS_UNSAID:
            problems.append(
                Problem(where, "is no sound file that can be read here, and not used", level="note")
            )
            continue
        match = _NAME.fullmatch(path.stem)
        if not match or int(match["pitch"]) > 127:
            problems.append(
                Problem(
                    where,
                    "does not name an instrument and a MIDI pitch",
                    "name it like flute_60.wav",
                )
            )
            continue
        # A Mac writes ö as two characters; settings.json may have it as one.
        name = (unicodedata.normalize("NFC", match["instrument"]), int(match["pitch"]))
        if name in recordings:
            problems.append(
                Problem(
                    where,
                    f"and {recordings[name].name} are recordings of the same note",
                    "keep one",
                )
            )
        recordings.setdefault(name, path)
    return recordings, problems


def _filled(name: Name, recordings: dict[Name, Path], fill: Fill | None) -> Note | None:
    instrument, pitch = name
    available = [p for i, p in recordings if i == instrument]
    if fill is None or not available:
        return None
    nearest = min(available, key=lambda p: (abs(p - pitch), p))
    semitones = float(pitch - nearest) if fill == "repitch" else 0.0
    return Note(name, recordings[instrument, nearest], semitones, nearest)


def _missing(
    names: set[Name], recordings: dict[Name, Path], fill: Fill | None
) -> Iterator[Problem]:
    by_instrument: dict[str, list[int]] = {}
    for instrument, pitch in sorted(names):
        by_instrument.setdefault(instrument, []).append(pitch)
    known = sorted({instrument for instrument, _ in recordings})
    for instrument, pitches in by_instrument.items():
        listed = ",".join(map(str, pitches))
        where = f"audio_input/{instrument}_{listed if len(pitches) == 1 else f'{{{listed}}}'}"
        if instrument in known:
            yield Problem(where, "missing", "record them, or --fill-missing repeat or repitch")
        elif close := get_close_matches(instrument, known, n=1):
            yield Problem(
                where, "missing", f"is it the instrument {close[0]!r}? rename one of them"
            )
        else:
            yield Problem(
                where, "missing: there is no note of this instrument", "add its recordings"
            )


def read(note: Note) -> Conformed:
    """Read a recording and conform it: mono, 16 kHz, 64,000 samples, within full scale.

    Never raises for what is wrong with the file: that is among the problems of the answer.
    """
    where = f"audio_input/{note.path.name}"
    silence = np.zeros(NOTE_SAMPLES, dtype=np.float32)
    pitch_ratio = 2.0 ** (note.semitones / 12.0)
    try:
        with soundfile.SoundFile(note.path) as file:
            rate, channels, frames = file.samplerate, file.channels, file.frames
            wanted = int((NOTE_SAMPLES / SAMPLE_RATE + _MARGIN) * rate * pitch_ratio) + 1
            sound = file.read(wanted, dtype="float64", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        return Conformed(
            silence, [], [Problem(where, f"cannot be read ({error})", "export it again")]
        )
    if not np.isfinite(sound).all():
        return Conformed(silence, [], [Problem(where, "holds NaN or infinity", "export it again")])

    done = []
    # Channel by channel: a mean along so short an axis takes ten times as long.
    mono = reduce(np.add, sound.T) / channels if channels > 1 else sound[:, 0]
    if channels > 1:
        done.append(f"mixed down from {channels} channels")
    if note.filled_from is not None:
        how = f", re-pitched by {note.semitones:+g} semitones" if note.semitones else ""
        done.append(f"filled in from pitch {note.filled_from}{how}")
    source_rate = rate * pitch_ratio
    if source_rate != SAMPLE_RATE and len(mono):
        mono = soxr.resample(mono, source_rate, SAMPLE_RATE, quality="VHQ")
    if rate != SAMPLE_RATE:
        done.append(f"resampled from {rate:,} Hz")
    seconds = frames / source_rate
    if len(mono) < NOTE_SAMPLES:
        done.append(f"padded from {seconds:.2f} s")
        mono = np.pad(mono, (0, NOTE_SAMPLES - len(mono)))
    elif seconds > NOTE_SAMPLES / SAMPLE_RATE:
        done.append(f"trimmed from {seconds:.2f} s")
    mono = mono[:NOTE_SAMPLES]
    if over := int((np.abs(mono) > 1.0).sum()):
        done.append(f"clipped at {over:,} samples")
    audio = np.clip(mono, -1.0, _FULL_SCALE).astype(np.float32)
    return Conformed(audio, done, list(_of_the_sound(where, audio, over)))


def _of_the_sound(where: str, audio: NDArray[np.float32], over: int) -> Iterator[Problem]:
    peak = float(np.abs(audio).max())
    if peak < SILENCE:
        yield Problem(
            where, "is silent in its first four seconds", "record it again, or cut the lead-in"
        )
    if over > NOTE_SAMPLES // 1000:
        yield Problem(
            where, f"goes beyond full scale at {over:,} samples", "export it quieter", "warning"
        )


def identity(note: Note) -> str:
    """Return a hash of what the note's sound is made from: the recording, and the filling."""
    try:
        digest = hashlib.sha256(note.path.read_bytes())
    except OSError:
        return "unreadable"  # `read` says why
    digest.update(f"{note.semitones}".encode())
    return digest.hexdigest()
