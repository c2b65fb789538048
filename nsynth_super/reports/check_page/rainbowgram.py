"""Rainbowgrams (Engel et al., 2017): the magnitude and the phase advance of each frequency.

The magnitude of a constant-Q transform is the intensity; its instantaneous frequency, the
derivative of its phase, is the hue. A steady harmonic is a line of one colour; noise has many.

librosa's transform depends on numba, LLVM, SciPy and scikit-learn (300 MB). This one takes a dozen
lines, because it need be neither invertible nor fast.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nsynth_super.notes.pitch import frequency
from nsynth_super.settings import SAMPLE_RATE

LOWEST = frequency(24)  # Hz: MIDI 24, a C
PER_OCTAVE = 24  # rows: quarter tones
ROWS = int(PER_OCTAVE * math.log2(SAMPLE_RATE / 2 / LOWEST))  # up to half the sample rate
HOP = 512  # samples a column: 32 ms
RANGE = 70.0  # dB of dynamic range, as in the paper's figures
_WIDTH = 1.25 * (
    2 ** (1 / PER_OCTAVE) - 1
)  # a row's bandwidth / its frequency; 1 / 0.8 as in the paper
_GAUSSIAN = 2 * math.sqrt(math.log(2))  # width at half power, in standard deviations
_APART = 16  # columns of silence at the end, because the transform is circular


def row(hertz: float) -> float:
    """Return the row of a frequency, as a fraction."""
    return PER_OCTAVE * math.log2(hertz / LOWEST)


def constant_q(audio: NDArray[np.float32]) -> NDArray[np.complex128]:
    """Return a constant-Q transform `[rows, columns]`; a sine's magnitude is its amplitude.

    The lowest row comes first. Each row is the sound filtered by a Gaussian band of constant Q and
    decimated by `HOP`: a product in the spectrum, and a sum over the bins that alias.
    """
    columns = -(-len(audio) // HOP)
    circle = columns + _APART
    # Positive frequencies only: an analytic signal has a phase.
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

    The hue is the phase advance from one column to the next, in turns, and cyclic.
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
