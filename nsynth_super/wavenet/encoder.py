"""Notes to embeddings: the encoder of Magenta's `Config` (h512_bo16).

Thirty non-causal dilated layers at the notes' own rate, a bottleneck of 16 channels, and the mean
over every 512 samples: four seconds become `[125, 16]`.

Convolutions of two dimensions, one of them of size 1, with channels last: what every library has
its fastest code for.
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
        kernel = weights[f"{name}/W"].permute(3, 2, 0, 1)
        reach = spacing * (kernel.shape[3] // 2)
        bias = weights[f"{name}/biases"]
        return F.conv2d(x, kernel, bias, padding=(0, reach), dilation=(1, spacing))

    dtype = weights["ae_startconv/W"].dtype
    x = ((codes.to(dtype) - ZERO) / ZERO)[:, None, None]
    en = convolution("ae_startconv", x).contiguous(memory_format=torch.channels_last)
    for i in range(1, dimensions.encoder_layers + 1):
        d = convolution(f"ae_dilatedconv_{i}", torch.relu(en), dilation(i - 1))
        en += convolution(f"ae_res_{i}", torch.relu_(d))
    en = convolution("ae_bottleneck", en)
    frames = en.reshape(len(en), dimensions.embedding, -1, HOP)
    return frames.mean(dim=3).transpose(1, 2)
