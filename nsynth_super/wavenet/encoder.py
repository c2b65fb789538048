"""The encoder of Magenta's `Config` (h512_bo16): notes to embeddings.

Thirty non-causal dilated layers at the sample rate, a bottleneck of 16 channels, and the mean over
every 512 samples: a note of four seconds becomes `[125, 16]`.

The convolutions are two-dimensional with a dimension of size 1 and channels last, because this is
the case that libraries optimize best.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nsynth_super.wavenet.dimensions import HOP, STAGES, Dimensions, dilation
from nsynth_super.wavenet.mulaw import ZERO

_MARGIN = dilation(STAGES - 1)  # the largest dilation
_CPU_CHUNK = 16 * HOP  # samples of a layer whose intermediate results fit in a CPU's cache


def encode(weights: Mapping[str, Tensor], dimensions: Dimensions, codes: Tensor) -> Tensor:
    """Return the embeddings of notes.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The checkpoint's variables, by name.
    dimensions : Dimensions
        The model's sizes.
    codes : Tensor of uint8, `[notes, samples]`
        Mu-law codes; `samples` must be a multiple of 512.

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
    padded = en.new_zeros(notes, 1, samples + 2 * _MARGIN, dimensions.encoder_width)
    padded = padded.permute(0, 3, 1, 2)  # channels last in memory, zeros at both ends
    chunk = _CPU_CHUNK if codes.device.type == "cpu" else samples
    for i in range(1, dimensions.encoder_layers + 1):
        reach = dilation(i - 1)
        torch.clamp_min(en, 0, out=padded[..., _MARGIN : _MARGIN + samples])
        for begin in range(0, samples, chunk):
            end = min(begin + chunk, samples)
            window = padded[..., _MARGIN + begin - reach : _MARGIN + end + reach]
            d = convolution(f"ae_dilatedconv_{i}", window, reach)
            en[..., begin:end] += convolution(f"ae_res_{i}", torch.relu_(d))
    frames = convolution("ae_bottleneck", en).reshape(notes, dimensions.embedding, -1, HOP)
    return frames.mean(dim=3).transpose(1, 2)
