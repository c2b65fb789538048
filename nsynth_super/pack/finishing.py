"""Post-process clips: remove clicks, set the level, trim to the onset, fade. Arrays in and out.

The formulas are those of the upstream pipeline (steps 5 and 6), without its MP3 round trip, its
16-bit overflow and its onset search beyond the first quarter of a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nsynth_super.pack.geometry import SAMPLE
from nsynth_super.settings import ONSET_SEARCH

PEAK = 8231  # round(32767 * 10 ** (-12 / 20)): -12 dBFS leaves headroom for 32 voices
CLICK = 1.0  # jump between neighbouring samples, in amplitudes of -1 to 1
ONSET_SHARE = 0.1  # fraction of the peak
WALK_BACK = 16  # samples kept before the onset
FADE = 8  # samples, at each end
_RAMP = np.linspace(0.0, 1.0, FADE, dtype=np.float32)


def declick(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace single outliers, between two jumps of more than 1.0, by their neighbours' mean.

    Returns
    -------
    ndarray of float32
        `audio` itself, if it has no clicks.
    """
    jumps = np.abs(audio[1:] - audio[:-1]) > CLICK
    clicks = np.flatnonzero(jumps[:-1] & jumps[1:])
    if not len(clicks):
        return audio
    repaired = np.array(audio)
    for click in clicks:
        repaired[click + 1] = (repaired[click] + repaired[click + 2]) / 2
    return repaired


def level(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale to a peak of -12 dBFS, in 16-bit units; silence stays silent."""
    peak = max(audio.max(initial=0.0), -audio.min(initial=0.0))
    return audio * np.float32(PEAK / peak) if peak > 0 else audio


def onset(audio: NDArray[np.float32]) -> int:
    """Return the first sample to keep: 16 samples before the onset.

    The onset is the first sample above a tenth of the peak of the first 4,000 samples.
    """
    loudness = np.abs(audio[:ONSET_SEARCH])
    begin = int(np.argmax(loudness > ONSET_SHARE * loudness.max(initial=0.0)))
    return max(begin - WALK_BACK, 0)


def fade(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a copy that fades in and out over 8 samples."""
    faded = np.array(audio)
    count = min(FADE, len(audio))
    faded[:count] *= _RAMP[:count]
    faded[len(faded) - count :] *= _RAMP[:count][::-1]
    return faded


def finish(audio: NDArray[np.float32], length: int) -> NDArray[np.int16]:
    """Convert a clip's audio to the samples of a pad.

    Parameters
    ----------
    audio : ndarray of float32
        Amplitudes from -1 to 1.
    length : int
        Samples of the pad's sound. A sound that is shorter after trimming ends with silence, which
        can happen only if `length` exceeds 60,000.

    Returns
    -------
    ndarray of `geometry.SAMPLE`, `[length]`
    """
    levelled = level(declick(np.asarray(audio, dtype=np.float32)))
    begin = onset(levelled)
    faded = fade(levelled[begin : begin + length])
    sound = np.zeros(length, dtype=SAMPLE)
    sound[: len(faded)] = np.rint(faded, out=faded)
    return sound
