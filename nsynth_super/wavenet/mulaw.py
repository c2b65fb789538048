"""Convert between amplitudes and 8-bit mu-law codes, compatible with Magenta.

Codes are 0 to 255; the model's input is `(code - 128) / 128`, which 16-bit floats represent
exactly. Magenta computes in float32. Here the logarithm and the power are computed in float64 and
rounded once, because the last bit of NumPy's float32 functions depends on its version and the
processor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MU = 255
ZERO = 128
"""The code of silence."""


def encode(audio: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the codes of amplitudes, uint8 of the same shape (Magenta 1.1.7, `utils.mu_law`).

    Parameters
    ----------
    audio : ndarray of float32
        Amplitudes from -1 to 1. Magenta maps +1 to code 256; this function maps it to 255.
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
    """Return the amplitudes of codes, float32 of the same shape."""
    return np.asarray(AMPLITUDES.take(codes))
