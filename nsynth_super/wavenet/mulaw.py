"""Codes and amplitudes: 8-bit mu-law as Magenta writes it.

A code is 0 to 255; the model sees `(code - 128) / 128`, which is exact in 16 bits too.
Magenta computes in float32. Logarithm and power are taken in float64 here and rounded once: what
NumPy's own float32 functions return in the last bit depends on its version and the processor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MU = 255
ZERO = 128
"""The code of silence."""


def encode(audio: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn amplitudes into codes (Magenta 1.1.7, `utils.mu_law`).

    Parameters
    ----------
    audio : ndarray of float32
        Amplitudes from -1 to 1. Exactly +1 would be code 256 there; here it is 255.
    """
    x = np.asarray(audio, dtype=np.float32)
    grown = np.float32(1) + np.float32(MU) * np.abs(x)
    log = np.log(grown, dtype=np.float64).astype(np.float32)
    curve = np.sign(x) * log / np.float32(np.log(1 + MU))
    codes = np.floor(curve * np.float32(ZERO)) + ZERO
    return np.asarray(np.clip(codes, 0, MU), dtype=np.uint8)


def _amplitudes() -> NDArray[np.float32]:
    x = np.arange(-ZERO, ZERO, dtype=np.float32)
    step = (x + np.float32(0.5)) * np.float32(2) / np.float32(MU + 1)
    power = ((1.0 + MU) ** np.abs(step).astype(np.float64)).astype(np.float32)
    curve = np.sign(step) / np.float32(MU) * (power - np.float32(1))
    return np.asarray(np.where(x == 0, x, curve), dtype=np.float32)


AMPLITUDES = _amplitudes()
"""The amplitude of each code, float32 `[256]` (Magenta 1.1.7, `utils.inv_mu_law_numpy`)."""


def decode(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn codes into amplitudes, float32 of the same shape."""
    return np.asarray(AMPLITUDES.take(codes))
