"""One uniform for each (seed, clip, time), and the code that it draws.

A clip's random numbers depend on nothing but the pack's seed and the clip's mix: not on the batch,
the block, the shard, the engine or where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WORDS = 4  # 64-bit words from one Philox counter
_BITS = 23


def uniforms(seed: int, clips: Sequence[int], start: int, count: int) -> NDArray[np.float32]:
    """Return the uniforms of `clips` for the times `start` to `start + count`, `[clips, count]`.

    NumPy's Philox4x64 with the key (seed, clip) and the time as its counter: a stream that NumPy
    promises never to change. The numbers are the midpoints (k + ½) / 2²³, exact in float32, so
    that every engine compares the same number; none is 0 or 1.

    Parameters
    ----------
    seed : int
        The pack's, 0 to 2⁶³ - 1.
    clips : sequence of int
        Each clip's 64-bit key (`grid.Mix.key`).
    start, count : int
        First time, and number of times, in samples.
    """
    first, skip = divmod(start, _WORDS)
    out = np.empty((len(clips), count), dtype=np.float32)
    for row, clip in enumerate(clips):
        words = np.random.Philox(key=np.array([seed, clip], dtype=np.uint64)).advance(first)
        raw = words.random_raw(skip + count)[skip:]
        out[row] = ((raw >> np.uint64(64 - _BITS)) + 0.5) * 2.0**-_BITS
    return out


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draw one code for each row by inverse CDF.

    The code is the number of entries of the cumulative sum that lie below `uniform` times its
    total, as `searchsorted` finds it in Magenta's fastgen. Scaling by the total (Magenta assumes
    it is 1, which float32 sums often miss) makes 256 impossible: no sum is below itself.

    Parameters
    ----------
    logits : Tensor, `[clips, 256]`
    uniform : Tensor, `[clips]`

    Returns
    -------
    Tensor of int64, `[clips]`
        Codes, 0 to 255.
    """
    mass = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    cumulative = torch.cumsum(mass, dim=1)
    below = cumulative < uniform[:, None] * cumulative[:, -1:]
    return below.sum(dim=1)
