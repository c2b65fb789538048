"""Detects the pitch of a sound by autocorrelation.

Uses McLeod and Wyvill's normalised square difference (2005), which is 1 where a frame equals itself
shifted by a lag. The period is the first peak that is nearly as high as the highest one:
subharmonics peak at longer lags, and harmonics lower.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONCERT_A, CONCERT_A_PITCH = 440.0, 69  # Hz, MIDI
RATE = 16_000  # Hz
FRAME, HOP = 4096, 2048  # samples
LOWEST, HIGHEST = 20.0, 4500.0  # Hz: just below MIDI 16, just above MIDI 108
SURE = 0.8  # a lower normalised peak counts as unpitched
_NEARLY = 0.9  # fraction of the highest peak
_FINER = 8  # lags per sample: high tones have few samples per period
_SILENT = 0.05  # fraction of the loudest frame; quieter frames are ignored


def frequency(pitch: float) -> float:
    """Return the frequency in Hz of a MIDI pitch, in equal temperament."""
    return float(CONCERT_A * 2 ** ((pitch - CONCERT_A_PITCH) / 12))


def midi(frequency: float) -> float:
    """Return the fractional MIDI pitch of a frequency in Hz; a cent is 0.01."""
    return float(CONCERT_A_PITCH + 12 * np.log2(frequency / CONCERT_A))


def detect(sound: NDArray[np.floating], rate: int = RATE) -> float | None:
    """Return the pitch of a sound: the median over its loud frames.

    Parameters
    ----------
    sound : ndarray, `[samples]`
        A single note, mono.
    rate : int
        Samples per second.

    Returns
    -------
    float or None
        Fractional MIDI pitch; None if less than a quarter of the loud frames have one.
    """
    frame = min(FRAME * rate // RATE, len(sound))
    if frame < 4 or not np.any(sound):
        return None
    hop = max(1, HOP * rate // RATE)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(sound, np.float64), frame)[::hop]
    loudness = np.sqrt(np.mean(frames**2, axis=1))
    loud = frames[loudness >= _SILENT * loudness.max()]
    heard = [pitch for each in loud if (pitch := _detect_in_frame(each, rate)) is not None]
    return float(np.median(heard)) if 4 * len(heard) >= len(loud) else None


def _detect_in_frame(frame: NDArray[np.float64], rate: int) -> float | None:
    samples, centred = len(frame), frame - frame.mean()
    last = min(samples // 2, int(rate / LOWEST)) * _FINER
    power = np.abs(np.fft.rfft(centred, 2 * samples)) ** 2
    products = np.fft.irfft(power, 2 * samples * _FINER)[: last + 1] * _FINER
    squares = np.cumsum(centred**2)
    # For each lag, the energy of both overlapping parts: all but the first and all but the last.
    energy = squares[::-1] + squares[-1] - np.concatenate([[0.0], squares[:-1]])
    lags = np.arange(len(products)) / _FINER
    similarity = 2 * products / np.maximum(np.interp(lags, np.arange(samples), energy), 1e-12)
    below = np.flatnonzero(similarity[:last] < 0)  # skip the peak at lag 0, which every sound has
    if not len(below):
        return None
    first = max(int(below[0]), int(rate / HIGHEST) * _FINER, 1)
    middle = similarity[first : last - 1]
    rises, falls = middle > similarity[first - 1 : last - 2], middle >= similarity[first + 1 : last]
    peaks = first + np.flatnonzero(rises & falls)
    if not len(peaks) or similarity[peaks].max() < SURE:
        return None
    peak = int(peaks[np.argmax(similarity[peaks] >= _NEARLY * similarity[peaks].max())])
    left, top, right = similarity[peak - 1 : peak + 2]
    bend = left - 2 * top + right
    period = peak + (0.5 * (left - right) / bend if bend else 0.0)
    return midi(rate * _FINER / period)
