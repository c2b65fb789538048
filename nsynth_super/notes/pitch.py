"""Which pitch a sound has: by autocorrelation, as a tuner hears it.

McLeod and Wyvill's normalised square difference (2005): of a frame and itself shifted, 1 where they
are the same. The first peak that is nearly the highest is the period; a tone's octaves and
harmonics repeat later, or less.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CONCERT_A, CONCERT_A_PITCH = 440.0, 69  # Hz, MIDI
RATE = 16_000  # Hz
FRAME, HOP = 4096, 2048  # samples
LOWEST, HIGHEST = 20.0, 4500.0  # Hz: below MIDI 16, above MIDI 108
SURE = 0.8  # of a perfect repetition: less is no pitch
_NEARLY = 0.9  # of the highest peak
_FINER = 8  # lags a sample: high tones have few samples a period
_SILENT = 0.05  # of the loudest frame: quieter ones are not asked


def frequency(pitch: float) -> float:
    """Return a MIDI pitch's frequency in Hz, in equal temperament."""
    return float(CONCERT_A * 2 ** ((pitch - CONCERT_A_PITCH) / 12))


def midi(frequency: float) -> float:
    """Return a frequency's MIDI pitch, with its fraction: a cent is 0.01."""
    return float(CONCERT_A_PITCH + 12 * np.log2(frequency / CONCERT_A))


def detect(sound: NDArray[np.floating], rate: int = RATE) -> float | None:
    """Detect the pitch of a sound: the median over its louder frames.

    Parameters
    ----------
    sound : ndarray, `[samples]`
        One note, mono.
    rate : int
        Samples a second.

    Returns
    -------
    float or None
        MIDI pitch with its fraction; None where less than a quarter of the frames have one.
    """
    frame = min(FRAME * rate // RATE, len(sound))
    if frame < 4 or not np.any(sound):
        return None
    hop = max(1, HOP * rate // RATE)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(sound, np.float64), frame)[::hop]
    loudness = np.sqrt(np.mean(frames**2, axis=1))
    loud = frames[loudness >= _SILENT * loudness.max()]
    heard = [pitch for each in loud if (pitch := _of_frame(each, rate)) is not None]
    return float(np.median(heard)) if 4 * len(heard) >= len(loud) else None


def _of_frame(frame: NDArray[np.float64], rate: int) -> float | None:
    samples, centred = len(frame), frame - frame.mean()
    last = min(samples // 2, int(rate / LOWEST)) * _FINER
    power = np.abs(np.fft.rfft(centred, 2 * samples)) ** 2
    products = np.fft.irfft(power, 2 * samples * _FINER)[: last + 1] * _FINER
    squares = np.cumsum(centred**2)
    # Of the parts that overlap when shifted by each lag: all but its first, all but its last.
    energy = squares[::-1] + squares[-1] - np.concatenate([[0.0], squares[:-1]])
    lags = np.arange(len(products)) / _FINER
    likeness = 2 * products / np.maximum(np.interp(lags, np.arange(samples), energy), 1e-12)
    below = np.flatnonzero(likeness[:last] < 0)  # past the peak at 0, which every sound has
    if not len(below):
        return None
    first = max(int(below[0]), int(rate / HIGHEST) * _FINER, 1)
    middle = likeness[first : last - 1]
    rises, falls = middle > likeness[first - 1 : last - 2], middle >= likeness[first + 1 : last]
    peaks = first + np.flatnonzero(rises & falls)
    if not len(peaks) or likeness[peaks].max() < SURE:
        return None
    peak = int(peaks[np.argmax(likeness[peaks] >= _NEARLY * likeness[peaks].max())])
    left, top, right = likeness[peak - 1 : peak + 2]
    bend = left - 2 * top + right
    period = peak + (0.5 * (left - right) / bend if bend else 0.0)
    return midi(rate * _FINER / period)
