"""Generate untrained weights with realistic activations, reproducible on every machine.

Tests use them to run Magenta and the PyTorch engine on the same model without a download of 1 GB.
Their output is noise.

The weights are uniform random numbers from NumPy's frozen Mersenne Twister, scaled in float64 and
rounded once to float32. There is no logarithm and no fused operation, so every machine computes the
same values. The scales give logits with a standard deviation of 2 to 4 and an output entropy of 2
to 4 nats: with flat logits, a wrong decoder would pass the tests.
"""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from nsynth_super.wavenet.dimensions import PUBLISHED, Dimensions

_BIAS = 0.02  # standard deviation of every bias

_GAINS = {
    # Output standard deviation for unit input. Tuned by hand; tests check several widths and seeds.
    "ae_startconv": 3.0,  # most samples of a note are near zero
    "ae_dilatedconv": 1.2,  # compensates for the ReLU before it
    "ae_res": 0.2,  # thirty of them add up
    "ae_bottleneck": 1.0,
    "startconv": 2.0,
    "skip_start": 0.5,
    "dilatedconv": 1.5,
    "cond_map": 1.0,
    "res": 0.6,
    "skip": 0.6,  # thirty add up too; `_gain` raises it for fewer layers
    "out1": 1.4,
    "cond_map_out1": 0.4,
    "logits": 1.8,
}


def _gain(name: str, dimensions: Dimensions) -> float:
    layer = name.split("/")[0]
    kind = layer.rstrip("0123456789").rstrip("_") if layer not in _GAINS else layer
    fewer = PUBLISHED.layers / dimensions.layers if kind == "skip" else 1.0
    return _GAINS[kind] * math.sqrt(fewer)


def weights(dimensions: Dimensions, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return all variables of an untrained model.

    Parameters
    ----------
    dimensions : Dimensions
        The model's sizes.
    seed : int
        Seed of the random numbers, 0 to 2³² - 1.

    Returns
    -------
    dict of str to ndarray of float32
        The variables, by their names in Magenta's checkpoint.
    """
    out = {}
    for name, shape in dimensions.shapes().items():
        generator = np.random.RandomState([seed, crc32(name.encode())])
        if name.endswith("/biases"):
            deviation = _BIAS
        else:
            deviation = _gain(name, dimensions) / math.sqrt(shape[1] * shape[2])
        uniform = generator.random_sample(shape) * 2.0 - 1.0
        out[name] = (uniform * (deviation * math.sqrt(3.0))).astype(np.float32)
    return out
