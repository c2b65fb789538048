"""Untrained weights that behave like trained ones, the same numbers on every machine.

What they are for: Magenta and our engine can be given the same model without anyone's download,
and tests and the demo need no gigabyte. What they are not: they make no music.

The numbers are uniform, from NumPy's frozen Mersenne Twister, scaled in float64 and rounded once
to float32: no logarithm, no fused operation, nothing that two machines could compute differently.
The scales are chosen so that the logits have a standard deviation of 2 to 4 and the output an
entropy of 2 to 4 nat: on flat logits any decoder would look right.
"""

from __future__ import annotations

import math
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from nsynth_super.wavenet.dimensions import PUBLISHED, Dimensions

_BIAS = 0.02  # standard deviation of every bias

_GAINS = {
    # Standard deviation out for one in. Chosen by hand, held by tests over widths and seeds.
    "ae_startconv": 3.0,  # the codes of a note are small: most are near silence
    "ae_dilatedconv": 1.2,  # makes up for the rectifier before it
    "ae_res": 0.2,  # thirty of them add up
    "ae_bottleneck": 1.0,
    "startconv": 2.0,
    "skip_start": 0.5,
    "dilatedconv": 1.5,
    "cond_map": 1.0,
    "res": 0.6,
    "skip": 0.6,  # thirty again; fewer weigh more
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
    """Return all variables of an untrained model of these sizes.

    Parameters
    ----------
    dimensions : Dimensions
        The model's sizes.
    seed : int
        0 to 2³² - 1; another seed, another model.

    Returns
    -------
    dict of str to ndarray of float32
        By Magenta's names.
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
