"""Rainbowgrams (Engel et al., 2017): how strong each frequency is, and how its phase moves.

A constant-Q transform. Its magnitude is the picture's intensity; the speed at which its phase
turns, the instantaneous frequency, is the hue. A steady harmonic is a line of one colour; noise
glitters.

librosa's transform would bring numba, LLVM, SciPy and scikit-learn along, 300 MB: this is the same
in a dozen lines, for it need be neither inverted nor fast.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nsynth_super.pitch import frequency
from nsynth_super.settings import SAMPLE_RATE

LOWEST = frequency(24)  # Hz: the C that is MIDI 24
PER_OCTAVE = 24  # rows: quarter tones
ROWS = int(PER_OCTAVE * math.log2(SAMPLE_RATE / 2 / LOWEST))  # up to half the sample rate
HOP = 512  # samples a column: 32 ms
RANGE = 70.0  # dB below the loudest that are seen, as in the paper's figures
_WIDTH = 1.25 * (2 ** (1 / PER_OCTAVE) - 1)  # of a row, by its frequency: the paper's, 1 / 0.8
_GAUSSIAN = 2 * math.sqrt(math.log(2))  # width at half power, in standard deviations
_APART = 16  # columns of silence: the transform is circular


def row(hertz: float) -> float:
    """Return the row in which a frequency lies, with its fraction."""
    return PER_OCTAVE * math.log2(hertz / LOWEST)


def constant_q(audio: NDArray[np.float32]) -> NDArray[np.complex128]:
    """Transform a sound: `[rows, columns]`, lowest row first; a sine's magnitude is its amplitude.

    Each row is the sound through a Gaussian band as wide as its frequency asks for, every `HOP`
    samples: in the spectrum, one product, and a sum over what falls together when samples are left
    out.
    """
    columns = -(-len(audio) // HOP)
    circle = columns + _APART
    # Positive frequencies only, so that each row has one phase.
    spectrum = np.fft.rfft(audio, circle * HOP)[:-1].reshape(HOP // 2, circle)
    hertz = np.arange(spectrum.size).reshape(spectrum.shape) * SAMPLE_RATE / (circle * HOP)
    rows = np.empty((ROWS, columns), dtype=np.complex128)
    for number, middle in enumerate(LOWEST * 2 ** (np.arange(ROWS) / PER_OCTAVE)):
        deviation = middle * _WIDTH / _GAUSSIAN
        band = np.exp(-0.5 * ((hertz - middle) / deviation) ** 2)
        rows[number] = 2 / HOP * np.fft.ifft((spectrum * band).sum(axis=0))[:columns]
    return rows


def rainbowgram(audio: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return intensity and hue, `[rows, columns]` each, both from 0 to 1.

    The hue is how far the phase turns from one column to the next, in turns: it goes round.
    """
    rows = constant_q(audio)
    magnitude = np.abs(rows)
    loudest = max(float(magnitude.max(initial=0.0)), 1e-9)
    intensity = 1 + 20 * np.log10(np.maximum(magnitude / loudest, 1e-9)) / RANGE
    phase = np.unwrap(np.angle(rows), axis=1)
    turning = np.diff(phase, axis=1, prepend=phase[:, :1])
    if turning.shape[1] > 1:
        turning[:, 0] = turning[:, 1]
    silent = magnitude.max(initial=0.0) == 0
    return np.clip(intensity, 0, 1) * (not silent), turning / (2 * np.pi) % 1
