"""Finds source notes by file name and conforms them to four seconds of mono at 16 kHz.

Independent of the grid and the model.
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

from nsynth_super.base.errors import Problem
from nsynth_super.base.note_name import NoteName, by_instrument
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE, Settings

Fill = Literal["repeat", "repitch"]
ENDINGS = {f".{ending.lower()}" for ending in soundfile.available_formats()} | {
    ".aif",
    ".oga",
    ".opus",
}
_HEADERLESS = {".raw"}  # its sample rate is unknown
_NAME = re.compile(r"(?P<instrument>.+)_(?P<pitch>\d{1,3})")

SILENCE = 10 ** (-60 / 20)
"""Amplitude below which a peak counts as silence: -60 dBFS."""

_FULL_SCALE = 1 - 2.0**-15
"""Largest 16-bit amplitude; mu-law has no code for exactly +1."""

_MARGIN = 0.1  # s read beyond the four seconds, for the resampler's filter


@dataclass(frozen=True)
class Note:
    """A note and the recording that it is made from.

    Attributes
    ----------
    name : NoteName
    path : Path
        The recording; of another pitch if this note is filled in.
    semitones : float
        Semitones by which the recording is re-pitched.
    filled_from : int or None
        MIDI pitch of the recording if this note has none of its own.
    """

    name: NoteName
    path: Path
    semitones: float = 0.0
    filled_from: int | None = None


@dataclass(frozen=True)
class Conformed:
    """The encoder's input for a note, and how it was made.

    Attributes
    ----------
    audio : ndarray of float32, `[64000]`
        Mono, 16 kHz.
    done : list of str
        The conversions applied, as text for users; empty if none were needed.
    problems : list of Problem
    """

    audio: NDArray[np.float32]
    done: list[str]
    problems: list[Problem]


def find(
    folder: Path, settings: Settings, fill: Fill | None = None
) -> tuple[list[Note], list[Problem]]:
    """Find a recording for every note that the settings require.

    Parameters
    ----------
    folder : Path
        `audio_input`.
    settings : Settings
    fill : {"repeat", "repitch"}, optional
        Fill a gap with the instrument's nearest pitch, unchanged or re-pitched.

    Returns
    -------
    notes : list of Note
        The notes found, sorted by instrument and pitch.
    problems : list of Problem
        Missing, misnamed, duplicate and unused recordings.
    """
    if not folder.is_dir():
        return [], [Problem(str(folder), "does not exist", "create it and add the notes")]
    recordings, problems = by_name(folder)
    needed = {
        NoteName(instrument, pitch)
        for instrument in settings.instruments
        for pitch in settings.pitches
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
            "is in no corner of settings.json; ignored",
            level="note",
        )
        for instrument in unused
    ]
    return notes, problems


def by_name(folder: Path) -> tuple[dict[NoteName, Path], list[Problem]]:
    """Return the recordings in `audio_input` by name, and the problems with file names."""
    recordings: dict[NoteName, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        where = f"audio_input/{path.name}"
        ending = path.suffix.lower()
        if ending not in ENDINGS or ending in _HEADERLESS:
            problems.append(Problem(where, "is not a supported sound file; ignored", level="note"))
            continue
        match = _NAME.fullmatch(path.stem)
        if not match or int(match["pitch"]) > 127:
            problems.append(
                Problem(
                    where,
                    "the name has no instrument and MIDI pitch",
                    "name it like flute_60.wav",
                )
            )
            continue
        # macOS stores ö as two code points; settings.json may use one.
        name = NoteName(unicodedata.normalize("NFC", match["instrument"]), int(match["pitch"]))
        if name in recordings:
            problems.append(
                Problem(
                    where,
                    f"is the same note as {recordings[name].name}",
                    "keep one of them",
                )
            )
        recordings.setdefault(name, path)
    return recordings, problems


def _filled(name: NoteName, recordings: dict[NoteName, Path], fill: Fill | None) -> Note | None:
    instrument, pitch = name
    available = [p for i, p in recordings if i == instrument]
    if fill is None or not available:
        return None
    nearest = min(available, key=lambda p: (abs(p - pitch), p))
    semitones = float(pitch - nearest) if fill == "repitch" else 0.0
    return Note(name, recordings[NoteName(instrument, nearest)], semitones, nearest)


def _missing(
    names: set[NoteName], recordings: dict[NoteName, Path], fill: Fill | None
) -> Iterator[Problem]:
    known = sorted({instrument for instrument, _ in recordings})
    for instrument, pitches in by_instrument(names).items():
        listed = ",".join(map(str, pitches))
        where = f"audio_input/{instrument}_{listed if len(pitches) == 1 else f'{{{listed}}}'}"
        if instrument in known:
            yield Problem(where, "missing", "record them, or use --fill-missing repeat or repitch")
        elif close := get_close_matches(instrument, known, n=1):
            yield Problem(
                where, "missing", f"is it the instrument {close[0]!r}? rename one of them"
            )
        else:
            yield Problem(where, "missing: this instrument has no notes", "add its recordings")


def read(note: Note) -> Conformed:
    """Read a recording and conform it to mono, 16 kHz, 64,000 samples, within full scale.

    Does not raise for a damaged file; its problems are part of the result.
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
    # Summing per channel is ten times faster than a mean along so short an axis.
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
    return Conformed(audio, done, list(_level_problems(where, audio, over)))


def _level_problems(where: str, audio: NDArray[np.float32], over: int) -> Iterator[Problem]:
    peak = float(np.abs(audio).max())
    if peak < SILENCE:
        yield Problem(
            where, "the first four seconds are silent", "record it again, or trim the start"
        )
    if over > NOTE_SAMPLES // 1000:
        yield Problem(
            where,
            f"exceeds full scale at {over:,} samples",
            "export it at a lower level",
            "warning",
        )


def identity(note: Note) -> str:
    """Return a hash of a note's recording and its re-pitching."""
    try:
        digest = hashlib.sha256(note.path.read_bytes())
    except OSError:
        return "unreadable"  # `read` reports the reason
    digest.update(f"{note.semitones}".encode())
    return digest.hexdigest()
