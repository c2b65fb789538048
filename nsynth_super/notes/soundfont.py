"""Notes from a SoundFont: its presets, and each of them struck, held and released.

FluidSynth plays them, through pyfluidsynth; no audio device is opened. Knows no workspace.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from nsynth_super.fluidsynth import function, hush, library
from nsynth_super.naming import instrument_name, problem_of_name
from nsynth_super.notes import Name
from nsynth_super.problems import BadInput, Problem, refuse
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE

VELOCITY = 100  # MIDI's, 1 to 127
HELD, RINGING = 3, 2  # s: NSynth's notes were held so long; the second more is for late onsets
RENDER_RATE = 48_000  # Hz
PEAK = 10 ** (-3 / 20)  # -3 dBFS
_ONSET = 10 ** (-50 / 20)  # of the peak: the note begins where it first exceeds this
_LATEST_ONSET = (HELD + RINGING) * SAMPLE_RATE - NOTE_SAMPLES  # samples
_SILENT = 10 ** (-100 / 20)  # a preset without a sample for a key gives none at all
_GAIN = 0.5  # of FluidSynth, in float: nothing clips
_DRY = {"synth.reverb.active": 0, "synth.chorus.active": 0}
_LEAN = {"synth.dynamic-sample-loading": 1, "synth.lock-memory": 0}  # only what is played
_LISTED = 8  # presets in one line


@dataclass(frozen=True, order=True)
class Preset:
    """One sound of a SoundFont.

    Attributes
    ----------
    bank, program : int
        MIDI's numbers, from 0; General MIDI is bank 0, its drums bank 128.
    name : str
    """

    bank: int
    program: int
    name: str

    def __str__(self) -> str:
        return f"{self.bank}:{self.program} {self.name}"


class SoundFont:
    """A SoundFont 2 file.

    Parameters
    ----------
    path : Path
        .sf2, or .sf3 where FluidSynth was built to read it.

    Attributes
    ----------
    presets : list of Preset
        By bank and program.

    Raises
    ------
    BadInput
        If it is no SoundFont.
    Failed
        If FluidSynth is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _refuse_what_is_none(path)
        with self._opened() as (synth, font):
            self.presets = _presets(synth, font)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, int]]:
        """Give a synthesizer and its number of the font; the samples are read when they sound."""
        hush()
        synth = library().Synth(_GAIN, RENDER_RATE, 16, **_DRY, **_LEAN)
        try:
            font = library().fluid_synth_sfload(synth.synth, os.fsencode(self.path), 0)
            if font < 0:
                raise self._unreadable(self.path.name)
            yield synth, font
        finally:
            synth.delete()

    def _unreadable(self, where: str) -> BadInput:
        return BadInput(Problem(where, "FluidSynth cannot read it", "get the SoundFont again"))

    def find(self, text: str) -> Preset:
        """Return the preset that `text` means: `BANK:PROGRAM`, its name, or enough of it.

        Raises
        ------
        BadInput
            If there is none, or more than one.
        """
        folded = text.strip().casefold()
        for means in (
            lambda preset: f"{preset.bank}:{preset.program}" == folded,
            lambda preset: preset.name.casefold() == folded,
            lambda preset: folded in preset.name.casefold() and folded,
        ):
            found = [preset for preset in self.presets if means(preset)]
            if len(found) == 1:
                return found[0]
            if found:
                listed = ", ".join(map(str, found[:_LISTED])) + ", …" * (len(found) > _LISTED)
                raise BadInput(
                    Problem(f"--preset {text!r}", f"may be {listed}", "say which, as BANK:PROGRAM")
                )
        names = {preset.name.casefold(): preset.name for preset in self.presets}
        close = get_close_matches(folded, names, n=1)
        fix = f"did you mean {names[close[0]]!r}?" if close else "--list shows the presets"
        raise BadInput(Problem(f"--preset {text!r}", f"{self.path.name} has none", fix))

    def note(
        self, preset: Preset, pitch: int, velocity: int = VELOCITY
    ) -> NDArray[np.float32] | None:
        """Render one note: struck, held for three seconds, released.

        Parameters
        ----------
        preset : Preset
            One of `presets`.
        pitch : int
            MIDI number.
        velocity : int
            1 to 127.

        Returns
        -------
        ndarray of float32, `[64000]`, or None
            At 16 kHz, mono, from where it rises out of silence, its peak at -3 dBFS; None if the
            preset has no sound at this pitch.
        """
        played = self._play(preset, pitch, velocity)
        mono: NDArray[np.float64] = soxr.resample(played, RENDER_RATE, SAMPLE_RATE, quality="VHQ")
        level = np.abs(mono)
        if level.max() < _SILENT:
            return None
        onset = min(int(np.argmax(level > _ONSET * level.max())), _LATEST_ONSET)
        note = mono[onset : onset + NOTE_SAMPLES]
        return np.asarray(note * (PEAK / np.abs(note).max()), np.float32)

    def _play(self, preset: Preset, pitch: int, velocity: int) -> NDArray[np.float64]:
        # A synthesizer of its own: one that played before begins a note otherwise.
        with self._opened() as (synth, font):
            if synth.program_select(0, font, preset.bank, preset.program) < 0:
                raise self._unreadable(f"{self.path.name} {preset}")
            synth.noteon(0, pitch, velocity)
            held = _rendered(synth, HELD * RENDER_RATE)
            synth.noteoff(0, pitch)
            return np.concatenate([held, _rendered(synth, RINGING * RENDER_RATE)])


def _rendered(synth: Any, samples: int) -> NDArray[np.float64]:
    stereo = np.zeros((samples, 2), np.float32)
    left = right = stereo.ctypes.data
    function("fluid_synth_write_float")(synth.synth, samples, left, 0, 2, right, 1, 2)
    mono: NDArray[np.float64] = stereo.mean(axis=1, dtype=np.float64)
    return mono


def _presets(synth: Any, number: int) -> list[Preset]:
    font = library().fluid_synth_get_sfont_by_id(synth.synth, number)
    found: dict[tuple[int, int], Preset] = {}
    function("fluid_sfont_iteration_start")(font)
    while preset := function("fluid_sfont_iteration_next")(font):
        bank = function("fluid_preset_get_banknum")(preset)
        program = function("fluid_preset_get_num")(preset)
        name = library().fluid_preset_get_name(preset).decode("latin-1").strip()
        found.setdefault((bank, program), Preset(bank, program, name))
    return sorted(found.values())


def render(
    path: Path, bank: int, program: int, pitches: Iterable[int], velocity: int = VELOCITY
) -> NDArray[np.float32]:
    """Render notes of one preset.

    Parameters
    ----------
    path : Path
    bank, program : int
    pitches : iterable of int
    velocity : int

    Returns
    -------
    ndarray of float32, `[notes, 64000]`

    Raises
    ------
    BadInput
        If there is no such preset, or it is silent at one of the pitches.
    """
    font = SoundFont(path)
    preset = next((p for p in font.presets if (p.bank, p.program) == (bank, program)), None)
    if preset is None:
        raise BadInput(
            Problem(path.name, f"holds no preset {bank}:{program}", "choose one it lists")
        )
    pitches = list(pitches)
    notes = play(font, {"": preset}, pitches, velocity)
    return np.array([notes["", pitch] for pitch in pitches], np.float32).reshape(-1, NOTE_SAMPLES)


def assigned(
    font: SoundFont, wishes: Iterable[str], known: Iterable[str] = ()
) -> dict[str, Preset]:
    """Find the presets that somebody wishes, and what they are called in the workspace.

    Parameters
    ----------
    font : SoundFont
    wishes : iterable of str
        Each what `SoundFont.find` takes, or that and `=` and an instrument's name.
    known : iterable of str
        Instruments whose names are to be used where they are the preset's own.

    Returns
    -------
    dict of str to Preset
        By instrument.

    Raises
    ------
    BadInput
        With everything that is wrong with any of the wishes.
    """
    chosen: dict[str, Preset] = {}
    problems: list[Problem] = []
    whole = {preset.name.casefold() for preset in font.presets}
    for wish in wishes:
        text, equals, instrument = wish.rpartition("=")
        if not equals or wish.strip().casefold() in whole:
            text, instrument = wish, ""
        try:
            preset = font.find(text)
        except BadInput as bad:
            problems += bad.problems
            continue
        instrument = instrument or instrument_name(preset.name.replace("_", " "), known)
        where = f"--preset {wish!r}"
        if not instrument:
            problems.append(Problem(where, "has no name to use", f"write {text}=some-name"))
        elif (problem := problem_of_name(instrument, where)) is not None:
            problems.append(problem)
        elif chosen.setdefault(instrument, preset) != preset:
            what = f"{chosen[instrument]} is to be {instrument!r} already"
            problems.append(Problem(where, what, f"write {text}=another-name"))
    refuse(problems)
    return chosen


def play(
    font: SoundFont,
    chosen: Mapping[str, Preset],
    pitches: Iterable[int],
    velocity: int = VELOCITY,
    skip_silent: bool = False,
) -> dict[Name, NDArray[np.float32]]:
    """Render notes of several presets.

    Parameters
    ----------
    font : SoundFont
    chosen : mapping of str to Preset
        By instrument.
    pitches : iterable of int
    velocity : int
    skip_silent : bool
        Leave out the pitches at which a preset has no sound.

    Returns
    -------
    dict of (instrument, pitch) to ndarray of float32, `[64000]`

    Raises
    ------
    BadInput
        With every preset that is silent somewhere; with `skip_silent`, everywhere.
    """
    pitches = list(pitches)
    notes: dict[Name, NDArray[np.float32]] = {}
    problems = []
    for instrument, preset in chosen.items():
        silent = []
        for pitch in pitches:
            note = font.note(preset, pitch, velocity)
            if note is None:
                silent.append(pitch)
            else:
                notes[instrument, pitch] = note
        if silent and (not skip_silent or silent == pitches):
            problems.append(
                Problem(
                    f"{font.path.name} {preset}",
                    f"is silent at MIDI {', '.join(map(str, silent))}",
                    "--skip-silent leaves them out; or choose other pitches, or another preset",
                )
            )
    refuse(problems)
    return notes


def _refuse_what_is_none(path: Path) -> None:
    if path.suffix.lower() == ".sfz":
        raise BadInput(
            Problem(
                str(path),
                "is an SFZ, not a SoundFont 2",
                "give the folder of its samples with --guess, or convert it to .sf2",
            )
        )
    try:
        with path.open("rb") as file:
            head, size = file.read(12), file.seek(0, os.SEEK_END)
    except OSError as error:
        raise BadInput(
            Problem(str(path), f"cannot be read ({error.strerror})", "see the name")
        ) from None
    if head[:4] + head[8:] != b"RIFFsfbk":
        raise BadInput(
            Problem(str(path), "is not a SoundFont 2", "give a file that ends in .sf2 or .sf3")
        )
    whole = 8 + int.from_bytes(head[4:8], "little")
    if size < whole:
        raise BadInput(
            Problem(str(path), f"is cut short: {size:,} of {whole:,} bytes", "get it again")
        )
