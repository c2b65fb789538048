"""Warnings about notes whose pitch differs from their file name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nsynth_super.notes.recordings import Note
from nsynth_super.notes.tuning import Heard, problems


def heard(instrument: str, pitch: int, sounds: float | None, **filled: float) -> Heard:
    path = Path(f"{instrument}_{filled.get('filled_from', pitch)}.wav")
    return Heard(Note((instrument, pitch), path, **filled), sounds)


def warnings(*notes: Heard) -> list[str]:
    return [str(problem) for problem in problems(notes)]


def test_a_note_in_tune_or_without_pitch_gets_no_warning():
    assert (
        warnings(heard("flute", 60, 60.49), heard("flute", 62, 61.51), heard("drum", 60, None))
        == []
    )


@pytest.mark.parametrize(
    ("sounds", "what", "fix"),
    [
        (60.63, "63 cents higher", "flute_61, rename it, or record it in tune"),
        (59.0, "1 semitone lower", "flute_59, rename it, or record it in tune"),
        (63.42, "3.4 semitones higher", "flute_63, rename it, or record it in tune"),
        (48.1, "11.9 semitones lower", "flute_48, rename it (middle C is 60)"),
        (83.98, "24 semitones higher", "flute_84, rename it (middle C is 60)"),
    ],
)
def test_a_note_more_than_50_cents_off_gets_a_warning_with_its_pitch(
    sounds: float, what: str, fix: str
):
    assert warnings(heard("flute", 60, sounds), heard("flute", 62, 62.0)) == [
        f"audio_input/flute_60.wav: sounds {what} than its file name says -> if it is {fix}"
    ]
    assert {problem.level for problem in problems([heard("flute", 60, sounds)])} == {"warning"}


def test_all_notes_off_by_the_same_octaves_get_one_warning():
    notes = [
        heard(name, pitch, pitch - 12 + drift)
        for name, drift in (("flute", 0.2), ("oboe", -0.3))
        for pitch in range(24, 88, 4)
    ]
    assert warnings(*notes, heard("drum", 60, None)) == [
        "audio_input: every note sounds 12 semitones lower than its file name says"
        " -> if middle C is not 60 in your names, subtract 12 from the numbers"
    ]


def test_one_instrument_an_octave_off_gets_one_warning():
    notes = [heard("flute", pitch, pitch + 12) for pitch in (48, 60, 72)]
    assert warnings(*notes, heard("oboe", 60, 60.0), heard("viola", 60, 62.0)) == [
        "audio_input/flute_*: every note sounds 12 semitones higher than its file name says"
        " -> if middle C is not 60 in your names, add 12 to the numbers",
        "audio_input/viola_60.wav: sounds 2 semitones higher than its file name says"
        " -> if it is viola_62, rename it, or record it in tune",
    ]


def test_notes_without_a_common_octave_offset_get_a_warning_each():
    assert len(warnings(heard("flute", 60, 48.0), heard("flute", 72, 84.0))) == 2
    assert len(warnings(heard("flute", 60, 49.0), heard("flute", 72, 61.0))) == 2
    assert len(warnings(heard("flute", 60, 48.0), heard("flute", 72, 72.0))) == 1


@pytest.mark.parametrize(("semitones", "sounds"), [(0.0, 60.0), (3.0, 63.0)])
def test_a_filled_in_note_is_compared_with_the_recordings_name(semitones: float, sounds: float):
    filled = {"semitones": semitones, "filled_from": 60}
    assert warnings(heard("flute", 63, sounds, **filled)) == []
    assert warnings(heard("flute", 63, sounds - 12, **filled)) == [
        "audio_input/flute_60.wav: sounds 12 semitones lower than its file name says"
        " -> if it is flute_48, rename it (middle C is 60)"
    ]
    off = heard("flute", 63, sounds + 0.02, **filled).off
    assert off is not None
    assert np.isclose(off, 0.02)
