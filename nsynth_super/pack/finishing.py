"""A clip's finish: clicks mended, level set, cut at its onset, faded. Arrays in, arrays out.

The upstream pipeline's formulas (its steps 5 and 6) without its detours: no MP3, no 16-bit
overflow, no search for the onset beyond the first quarter of a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nsynth_super.settings import ONSET_SEARCH

PEAK = 8231  # round(32767 * 10 ** (-12 / 20)): -12 dBFS, room for 32 voices without a limiter
CLICK = 1.0  # a jump of more than half of full scale …
ONSET_SHARE = 0.1  # of the peak
WALK_BACK = 16  # samples before the onset that are kept
FADE = 8  # samples, at both ends
_RAMP = np.linspace(0.0, 1.0, FADE, dtype=np.float32)


def declick(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace single wild samples: where two jumps of more than 1.0 follow each other.

    Returns
    -------
    ndarray of float32
        `audio` itself, if there are none.
    """
    jumps = np.abs(audio[1:] - audio[:-1]) > CLICK
    clicks = np.flatnonzero(jumps[:-1] & jumps[1:])
    if not len(clicks):
        return audio
    mended = np.array(audio)
    for click in clicks:
        mended[click + 1] = (mended[click] + mended[click + 2]) / 2
    return mended


def level(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale to a peak of -12 dBFS, in 16-bit units; silence stays silence."""
    peak = max(audio.max(initial=0.0), -audio.min(initial=0.0))
    return audio * np.float32(PEAK / peak) if peak > 0 else audio


def onset(audio: NDArray[np.float32]) -> int:
    """Return where the sound begins, in samples, with 16 samples of walk-back.

    It begins where it first exceeds a tenth of the peak of its first 4,000 samples.
    """
    loudness = np.abs(audio[:ONSET_SEARCH])
    begin = int(np.argmax(loudness > ONSET_SHARE * loudness.max(initial=0.0)))
    return max(begin - WALK_BACK, 0)


def fade(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fade in and out over 8 samples."""
    faded = np.array(audio)
    count = min(FADE, len(audio))
    faded[:count] *= _RAMP[:count]
    faded[len(faded) - count :] *= _RAMP[:count][::-1]
    return faded


def finish(audio: NDArray[np.float32], length: int) -> NDArray[np.int16]:
    """Make a clip's audio what a pad holds.

    Parameters
    ----------
    audio : ndarray of float32
        Amplitudes from -1 to 1.
    length : int
        Samples of the pad's sound. What is missing behind the fade is silence: only where
        `length` exceeds 60,000 can the onset leave less than that.

    Returns
    -------
    ndarray of '<i2', `[length]`
    """
    levelled = level(declick(np.asarray(audio, dtype=np.float32)))
    begin = onset(levelled)
    faded = fade(levelled[begin : begin + length])
    sound = np.zeros(length, dtype="<i2")
    sound[: len(faded)] = np.rint(faded, out=faded)
    return sound
