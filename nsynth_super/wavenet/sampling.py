"""Sample codes from logits with reproducible random numbers.

A clip's random numbers depend only on the pack's seed and the clip's mix, not on the batch, block,
shard, engine or the point at which a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WORDS = 4  # 64-bit words per Philox counter
_BITS = 23  # random bits per number


def uniforms(seed: int, clips: Sequence[int], start: int, count: int) -> NDArray[np.float32]:
    """Return uniform random numbers for every clip and time, float32 `[clips, count]`.

    They come from NumPy's Philox4x64 with (seed, clip) as the key and the time as the counter;
    NumPy guarantees that this stream never changes. The values are the midpoints (k + ½) / 2²³,
    which float32 represents exactly, so that every engine compares the same number; 0 and 1 do
    not occur.

    Parameters
    ----------
    seed : int
        The pack's seed, 0 to 2⁶³ - 1.
    clips : sequence of int
        The 64-bit key of each clip (`grid.Mix.key`).
    start, count : int
        First time and number of times, in samples.
    """
    first, skip = divmod(start, _WORDS)
    out = np.empty((len(clips), count), dtype=np.float32)
    for row, clip in enumerate(clips):
        words = np.random.Philox(key=np.array([seed, clip], dtype=np.uint64)).advance(first)
        raw = words.random_raw(skip + count)[skip:]
        out[row] = ((raw >> np.uint64(64 - _BITS)) + 0.5) * 2.0**-_BITS
    return out


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Sample one code per clip by inverting the cumulative distribution.

    The code is the number of entries of the cumulative sum below `uniform` times the total, as
    Magenta's fastgen finds it with `searchsorted`. Magenta assumes a total of 1, which float32 sums
    often miss; scaling by the actual total rules out code 256, because no sum is below itself.

    Parameters
    ----------
    logits : Tensor, `[clips, 256]`
    uniform : Tensor, `[clips]`
        One random number per clip, above 0 and below 1.

    Returns
    -------
    Tensor of int64, `[clips]`
        Codes, 0 to 255.
    """
    mass = torch.exp(logits - logits.amax(dim=1, keepdim=True))
    cumulative = torch.cumsum(mass, dim=1)
    below = cumulative < uniform[:, None] * cumulative[:, -1:]
    return below.sum(dim=1)
