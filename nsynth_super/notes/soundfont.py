"""Renders notes of SoundFont presets with FluidSynth.

Opens no audio device. Independent of workspaces.
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

from nsynth_super.base.errors import BadInput, Problem, refuse
from nsynth_super.base.note_name import NoteName
from nsynth_super.notes.fluidsynth import function, hush, library
from nsynth_super.notes.instrument_names import instrument_name, problem_of_name
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE

VELOCITY = 100  # MIDI, 1 to 127
HELD, RINGING = 3, 2  # s: as NSynth's notes, and 1 s more of release for late onsets
RENDER_RATE = 48_000  # Hz
PEAK = 10 ** (-3 / 20)  # -3 dBFS
_ONSET = 10 ** (-50 / 20)  # fraction of the peak at which the note begins
_LATEST_ONSET = (HELD + RINGING) * SAMPLE_RATE - NOTE_SAMPLES  # samples
_SILENT = 10 ** (-100 / 20)  # a preset without a sample for a key renders exact silence
_GAIN = 0.5  # FluidSynth renders float, so nothing clips
_DRY = {"synth.reverb.active": 0, "synth.chorus.active": 0}
_LEAN = {"synth.dynamic-sample-loading": 1, "synth.lock-memory": 0}  # load only the samples played
_LISTED = 8  # presets listed in a message


@dataclass(frozen=True, order=True)
class Preset:
    """One sound of a SoundFont.

    Attributes
    ----------
    bank, program : int
        MIDI numbers from 0; General MIDI is bank 0, its drums bank 128.
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
        .sf2, or .sf3 if FluidSynth was built with support for it.

    Attributes
    ----------
    presets : list of Preset
        Sorted by bank and program.

    Raises
    ------
    BadInput
        If the file is not a SoundFont.
    Failed
        If FluidSynth is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _validate(path)
        with self._opened() as (synth, font):
            self.presets = _presets(synth, font)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, int]]:
        """Open a synthesizer and yield it with its number of the font; samples load when played."""
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
        return BadInput(Problem(where, "FluidSynth cannot read it", "download the SoundFont again"))

    def find(self, text: str) -> Preset:
        """Return the preset with this `BANK:PROGRAM`, name or part of a name.

        Raises
        ------
        BadInput
            If no preset matches, or several do.
        """
        folded = text.strip().casefold()
        for matches in (
            lambda preset: f"{preset.bank}:{preset.program}" == folded,
            lambda preset: preset.name.casefold() == folded,
            lambda preset: folded in preset.name.casefold() and folded,
        ):
            found = [preset for preset in self.presets if matches(preset)]
            if len(found) == 1:
                return found[0]
            if found:
                listed = ", ".join(map(str, found[:_LISTED])) + ", …" * (len(found) > _LISTED)
                raise BadInput(
                    Problem(
                        f"--preset {text!r}", f"matches {listed}", "choose one with BANK:PROGRAM"
                    )
                )
        names = {preset.name.casefold(): preset.name for preset in self.presets}
        close = get_close_matches(folded, names, n=1)
        fix = f"did you mean {names[close[0]]!r}?" if close else "list the presets with --list"
        raise BadInput(Problem(f"--preset {text!r}", f"{self.path.name} has no such preset", fix))

    def note(
        self, preset: Preset, pitch: int, velocity: int = VELOCITY
    ) -> NDArray[np.float32] | None:
        """Render one note, held for three seconds and released.

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
            Mono, 16 kHz, from the onset, with a peak of -3 dBFS; None if the preset is silent at
            this pitch.
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
        # A new synthesizer for each note: earlier notes would change how it begins.
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
        If the preset does not exist or is silent at one of the pitches.
    """
    font = SoundFont(path)
    preset = next((p for p in font.presets if (p.bank, p.program) == (bank, program)), None)
    if preset is None:
        raise BadInput(
            Problem(path.name, f"has no preset {bank}:{program}", "choose one of its presets")
        )
    pitches = list(pitches)
    notes = play(font, {"": preset}, pitches, velocity)
    return np.array([notes[NoteName("", pitch)] for pitch in pitches], np.float32).reshape(
        -1, NOTE_SAMPLES
    )


def assigned(
    font: SoundFont, requests: Iterable[str], known: Iterable[str] = ()
) -> dict[str, Preset]:
    """Resolve `--preset` options to presets by instrument name.

    Parameters
    ----------
    font : SoundFont
    requests : iterable of str
        Each `PRESET` or `PRESET=INSTRUMENT`, with a preset as in `SoundFont.find`.
    known : iterable of str
        Known instruments, matched with preset names regardless of case and punctuation.

    Returns
    -------
    dict of str to Preset
        Presets by instrument.

    Raises
    ------
    BadInput
        With the problems of all `requests`.
    """
    chosen: dict[str, Preset] = {}
    problems: list[Problem] = []
    names = {preset.name.casefold() for preset in font.presets}
    for request in requests:
        text, equals, instrument = request.rpartition("=")
        if not equals or request.strip().casefold() in names:
            text, instrument = request, ""
        try:
            preset = font.find(text)
        except BadInput as bad:
            problems += bad.problems
            continue
        instrument = instrument or instrument_name(preset.name.replace("_", " "), known)
        where = f"--preset {request!r}"
        if not instrument:
            problems.append(Problem(where, "no usable instrument name", f"write {text}=some-name"))
        elif (problem := problem_of_name(instrument, where)) is not None:
            problems.append(problem)
        elif chosen.setdefault(instrument, preset) != preset:
            what = f"{instrument!r} is already {chosen[instrument]}"
            problems.append(Problem(where, what, f"write {text}=another-name"))
    refuse(problems)
    return chosen


def play(
    font: SoundFont,
    chosen: Mapping[str, Preset],
    pitches: Iterable[int],
    velocity: int = VELOCITY,
    skip_silent: bool = False,
) -> dict[NoteName, NDArray[np.float32]]:
    """Render notes of several presets.

    Parameters
    ----------
    font : SoundFont
    chosen : mapping of str to Preset
        Presets by instrument.
    pitches : iterable of int
    velocity : int
    skip_silent : bool
        Omit pitches at which a preset is silent.

    Returns
    -------
    dict of NoteName to ndarray of float32, `[64000]`

    Raises
    ------
    BadInput
        With every preset that is silent at a pitch; with `skip_silent`, at all pitches.
    """
    pitches = list(pitches)
    notes: dict[NoteName, NDArray[np.float32]] = {}
    problems = []
    for instrument, preset in chosen.items():
        silent = []
        for pitch in pitches:
            note = font.note(preset, pitch, velocity)
            if note is None:
                silent.append(pitch)
            else:
                notes[NoteName(instrument, pitch)] = note
        if silent and (not skip_silent or silent == pitches):
            problems.append(
                Problem(
                    f"{font.path.name} {preset}",
                    f"is silent at MIDI {', '.join(map(str, silent))}",
                    "omit them with --skip-silent, or choose other pitches or another preset",
                )
            )
    refuse(problems)
    return notes


def _validate(path: Path) -> None:
    if path.suffix.lower() == ".sfz":
        raise BadInput(
            Problem(
                str(path),
                "is an SFZ, not a SoundFont 2",
                "import the folder of its samples with --guess, or convert it to .sf2",
            )
        )
    try:
        with path.open("rb") as file:
            head, size = file.read(12), file.seek(0, os.SEEK_END)
    except OSError as error:
        raise BadInput(
            Problem(str(path), f"cannot be read ({error.strerror})", "check the path")
        ) from None
    if head[:4] + head[8:] != b"RIFFsfbk":
        raise BadInput(Problem(str(path), "is not a SoundFont 2", "give a .sf2 or .sf3 file"))
    expected = 8 + int.from_bytes(head[4:8], "little")
    if size < expected:
        raise BadInput(
            Problem(str(path), f"is truncated: {size:,} of {expected:,} bytes", "download it again")
        )
