"""Tests of the post-processing of clips, against the upstream formulas and bugs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsynth_super.pack import finishing
from nsynth_super.pack.finishing import finish
from nsynth_super.wavenet import mulaw


def tone(onset: int, length: int = 64_000) -> np.ndarray:
    t = np.arange(length - onset)
    sound = np.zeros(length, dtype=np.float32)
    sound[onset:] = 0.6 * np.cos(2 * np.pi * 220 * t / 16_000) * np.exp(-t / 30_000)
    return sound


def upstream(audio: np.ndarray, length: int) -> np.ndarray:
    """Apply steps 5 and 6 of the upstream pipeline as intended: without MP3 and without bugs."""
    x = audio.astype(np.float64)
    jumps = np.abs(np.diff(x)) > 1.0
    for i in range(len(jumps) - 1):
        if jumps[i] and jumps[i + 1]:
            x[i + 1] = (x[i] + x[i + 2]) / 2
    x *= 8231 / np.abs(x).max()
    searched = np.abs(x[:4000])
    first = next(i for i, v in enumerate(searched) if v > 0.1 * searched.max())
    x = x[max(first - 16, 0) :][:length]
    x[:8] *= np.linspace(0, 1, 8)
    x[-8:] *= np.linspace(1, 0, 8)
    return np.rint(x)


def plainly(audio: np.ndarray, length: int) -> np.ndarray:
    """Apply the same formulas in float32, one at a time: the exact content of a pad."""
    x = np.array(audio, dtype=np.float32)
    jumps = np.abs(np.diff(x)) > 1.0
    for i in np.flatnonzero(jumps[:-1] & jumps[1:]):
        x[i + 1] = (x[i] + x[i + 2]) / 2
    if (peak := np.abs(x).max()) > 0:
        x = x * np.float32(8231 / peak)
    searched = np.abs(x[:4000])
    first = int(np.argmax(searched > 0.1 * searched.max()))
    x = x[max(first - 16, 0) :][:length].copy()
    count = min(8, len(x))
    ramp = np.linspace(0.0, 1.0, 8, dtype=np.float32)[:count]
    x[:count] *= ramp
    x[len(x) - count :] *= ramp[::-1]
    return np.pad(np.rint(x).astype("<i2"), (0, length - len(x)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 64_000), st.integers(1, 128))
def test_finish_equals_the_plain_formulas_bit_for_bit(seed: int, length: int, loudest: int):
    """Random codes have thousands of clicks; with a small `loudest` they have none."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(128 - loudest, 128 + loudest, min(length + 4000, 64_000), dtype=np.uint8)
    codes[: rng.integers(5000)] = 128
    audio = mulaw.decode(codes)
    given = audio.copy()
    np.testing.assert_array_equal(finish(audio, length), plainly(audio, length))
    np.testing.assert_array_equal(audio, given)


@pytest.mark.parametrize("onset", [0, 10, 500, 3_999])
@pytest.mark.parametrize("length", [300, 16_000, 60_000])
def test_finish_matches_the_intended_upstream_formulas(onset: int, length: int):
    ours = finish(tone(onset), length)
    assert ours.dtype == np.dtype("<i2")
    assert np.abs(ours - upstream(tone(onset), length)).max() <= 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 64_000))
def test_any_codes_give_the_exact_length_and_stay_below_minus_12_dbfs(seed: int, length: int):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, min(length + 4000, 64_000), dtype=np.uint8)
    sound = finish(mulaw.decode(codes), length)
    assert sound.shape == (length,)
    assert np.abs(sound.astype(int)).max() <= 8231


def test_the_peak_is_minus_12_dbfs():
    assert np.abs(finish(tone(100), 60_000).astype(int)).max() == 8231
    assert pytest.approx(32767 * 10 ** (-12 / 20), abs=0.5) == finishing.PEAK


def test_a_late_swell_does_not_move_the_onset():
    """Upstream searched the entire clip, relative to its peak (bug 2)."""
    swell = tone(400) * np.float32(0.05)
    swell[32_000:] = tone(0, 32_000)
    assert finishing.onset(swell) == 400 - 16


@pytest.mark.parametrize("length", [300, 48_000, 64_000])
def test_final_length_is_respected(length: int):
    """Upstream always wrote 60,000 samples (bug 3)."""
    assert len(finish(tone(2000), length)) == length


def test_a_short_sound_is_padded_with_silence():
    sound = finish(tone(3000), 64_000)
    assert not sound[64_000 - 3000 + 16 :].any()
    assert sound[64_000 - 3000 + 16 - 100 : 64_000 - 3000].any()


def test_single_outliers_are_replaced_and_real_edges_are_not():
    sound = tone(0)
    wild = sound.copy()
    wild[1000] = -1.0 if sound[1000] > 0 else 1.0
    wild[999] = wild[1001] = -wild[1000] * 0.9
    assert abs(finishing.declick(wild)[1000]) < 1.0
    square = np.sign(np.sin(np.arange(1000) / 50)).astype(np.float32)
    np.testing.assert_array_equal(finishing.declick(square), square)


def test_full_scale_does_not_overflow():
    """Upstream turned +1.02 into -32048 (bug 19)."""
    sound = np.full(64_000, 1.02, dtype=np.float32)
    assert finish(sound, 60_000).min() >= 0


def test_silence_stays_silent():
    assert not finish(np.zeros(5000, dtype=np.float32), 1000).any()
