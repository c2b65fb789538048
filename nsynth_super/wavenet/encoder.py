"""Notes to embeddings: the encoder of Magenta's `Config` (h512_bo16).

Thirty non-causal dilated layers at the notes' own rate, a bottleneck of 16 channels, and the mean
over every 512 samples: four seconds become `[125, 16]`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nsynth_super.wavenet.dimensions import HOP, Dimensions, dilation
from nsynth_super.wavenet.mulaw import ZERO


def encode(weights: Mapping[str, Tensor], dimensions: Dimensions, codes: Tensor) -> Tensor:
    """Encode notes.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The checkpoint's variables under Magenta's names.
    dimensions : Dimensions
        The model's sizes.
    codes : Tensor of uint8, `[notes, samples]`
        Mu-law codes; `samples` a multiple of 512.

    Returns
    -------
    Tensor, `[notes, samples / 512, embedding]`
    """

    def convolution(name: str, x: Tensor, spacing: int = 1) -> Tensor:
        taps = weights[f"{name}/W"][0]
        reach = spacing * (len(taps) // 2)
        padded = F.pad(x, (0, 0, reach, reach))
        y = weights[f"{name}/biases"] + padded[:, : x.shape[1]] @ taps[0]
        for k, tap in enumerate(taps[1:], start=1):
            y += padded[:, k * spacing : k * spacing + x.shape[1]] @ tap
        return y

    dtype = weights["ae_startconv/W"].dtype
    en = convolution("ae_startconv", ((codes.to(dtype) - ZERO) / ZERO)[:, :, None])
    for i in range(1, dimensions.encoder_layers + 1):
        d = convolution(f"ae_dilatedconv_{i}", torch.relu(en), dilation(i - 1))
        en = en + convolution(f"ae_res_{i}", torch.relu(d))
    en = convolution("ae_bottleneck", en)
    return en.reshape(len(en), -1, HOP, dimensions.embedding).mean(dim=2)
