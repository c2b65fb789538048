"""Pitch detection on tones of known pitch."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from nsynth_super.demo import NOTES
from nsynth_super.notes.pitch import RATE, detect, frequency, midi


def tone(pitch: float, harmonics: int = 6, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    phase = 2 * np.pi * frequency(pitch) * np.arange(int(seconds * rate)) / rate
    most = min(harmonics, int(rate / 2 / frequency(pitch)))
    return sum(np.sin(k * phase) / k for k in range(1, most + 1)) * 0.3


@pytest.mark.parametrize("harmonics", [1, 6, 20])
@pytest.mark.parametrize("pitch", [24, 36, 47.6, 60, 69, 84, 96.3, 100])
def test_tones_are_detected_within_three_cents(pitch, harmonics):
    assert detect(tone(pitch, harmonics)) == pytest.approx(pitch, abs=0.03)


def test_another_sample_rate_is_supported():
    assert detect(tone(60, rate=44_100), 44_100) == pytest.approx(60, abs=0.03)


def test_a_missing_fundamental_is_detected():
    phase = 2 * np.pi * frequency(48) * np.arange(RATE) / RATE
    assert detect(sum(np.sin(k * phase) for k in (2, 3, 4, 5))) == pytest.approx(48, abs=0.03)


def test_noise_silence_and_very_short_sounds_have_no_pitch():
    noise = np.random.default_rng(0).standard_normal(RATE)
    for sound in (noise, np.zeros(RATE), np.zeros(0), np.ones(3), np.ones(RATE)):
        assert detect(sound) is None


def test_a_decaying_tone_under_hiss_is_detected():
    hiss = 0.01 * np.random.default_rng(0).standard_normal(2 * RATE)
    sound = tone(60, seconds=2) * np.exp(-3 * np.arange(2 * RATE) / RATE) + hiss
    assert detect(sound) == pytest.approx(60, abs=0.05)


@pytest.mark.parametrize("path", sorted(NOTES.glob("*.flac")), ids=lambda path: path.stem)
def test_the_bundled_notes_are_in_tune(path):
    sound, rate = soundfile.read(path)
    assert detect(sound, rate) == pytest.approx(int(path.stem.rsplit("_")[1]), abs=0.1)


def test_midi_and_frequency_are_inverse():
    assert frequency(69) == 440
    assert midi(frequency(33.3)) == pytest.approx(33.3)
