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

from nsynth_super.wavenet.dimensions import HOP, STAGES, Dimensions, dilation
from nsynth_super.wavenet.mulaw import ZERO

_MARGIN = dilation(STAGES - 1)  # the widest reach
_AT_ONCE = 16 * HOP  # samples of a layer on a CPU: what comes of them stays in its cache


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
        return F.conv2d(x, kernel, weights[f"{name}/biases"], dilation=(1, spacing))

    dtype, (notes, samples) = weights["ae_startconv/W"].dtype, codes.shape
    x = ((codes.to(dtype) - ZERO) / ZERO)[:, None, None]
    en = convolution("ae_startconv", F.pad(x, (1, 1))).contiguous(memory_format=torch.channels_last)
    heard = en.new_zeros(notes, 1, samples + 2 * _MARGIN, dimensions.encoder_width)
    heard = heard.permute(0, 3, 1, 2)  # channels last in memory, silence at both ends
    at_once = _AT_ONCE if codes.device.type == "cpu" else samples
    for i in range(1, dimensions.encoder_layers + 1):
        reach = dilation(i - 1)
        torch.clamp_min(en, 0, out=heard[..., _MARGIN : _MARGIN + samples])
        for begin in range(0, samples, at_once):
            end = min(begin + at_once, samples)
            around = heard[..., _MARGIN + begin - reach : _MARGIN + end + reach]
            d = convolution(f"ae_dilatedconv_{i}", around, reach)
            en[..., begin:end] += convolution(f"ae_res_{i}", torch.relu_(d))
    frames = convolution("ae_bottleneck", en).reshape(notes, dimensions.embedding, -1, HOP)
    return frames.mean(dim=3).transpose(1, 2)
