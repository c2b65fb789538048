"""One sound on the page: its level, its pitch, and its audio as a `data:` URL."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray

from nsynth_super.notes.pitch import detect
from nsynth_super.settings import SAMPLE_RATE

LOUD = 400 * SAMPLE_RATE // 1000  # samples: the window of a meter's "momentary" loudness
_HOP = LOUD // 4


@dataclass(frozen=True)
class Sound:
    """A sound with its measurements.

    Attributes
    ----------
    audio : ndarray of float32, `[samples]`
    peak : float or None
        dBFS; None for silence.
    loudness : float or None
        RMS of the loudest 400 ms, dBFS; None for silence.
    pitch : float or None
        Fractional MIDI pitch; None if none is detected.
    """

    audio: NDArray[np.float32]
    peak: float | None
    loudness: float | None
    pitch: float | None

    @classmethod
    def of(cls, audio: NDArray[np.float32]) -> Sound:
        """Measure a sound."""
        # Windows of 400 ms, truncated at the end of the sound.
        sums = np.concatenate([[0.0], np.cumsum(np.square(audio, dtype=np.float64))])
        begins = np.arange(0, max(len(audio) - LOUD, 0) + 1, _HOP)
        ends = np.minimum(begins + LOUD, len(audio))
        power = (sums[ends] - sums[begins]) / np.maximum(ends - begins, 1)
        return cls(
            audio,
            decibels(float(np.abs(audio).max(initial=0.0))),
            decibels(float(np.sqrt(power.max()))),
            detect(audio),
        )

    def as_flac(self) -> str:
        """Return the sound as FLAC in a `data:` URL."""
        content = io.BytesIO()
        soundfile.write(content, self.audio, SAMPLE_RATE, "PCM_16", format="FLAC")
        return f"data:audio/flac;base64,{base64.b64encode(content.getvalue()).decode()}"


def decibels(amplitude: float) -> float | None:
    """Return an amplitude in dBFS; None for silence."""
    return 20 * float(np.log10(amplitude)) if amplitude > 0 else None
