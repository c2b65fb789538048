"""The autoencoder for training, which processes complete windows instead of single samples.

Tensors are `[windows, samples, channels]`. Each convolution is one matrix product of its
concatenated taps in the precision of the weights; the residual and skip paths accumulate in the
precision of the input.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nsynth_super.wavenet.dimensions import HOP, TAPS, Dimensions, dilation
from nsynth_super.wavenet.mulaw import ZERO

Weights = Mapping[str, Tensor]


def reach(dimensions: Dimensions) -> int:
    """Return the number of samples on either side of a frame that influence its embedding."""
    return 1 + sum(dilation(layer) for layer in range(dimensions.encoder_layers))


def margin(dimensions: Dimensions) -> int:
    """Return the number of frames on either side of a window that the encoder needs."""
    return -(-reach(dimensions) // HOP)


def _taps(weights: Weights, name: str, x: Tensor, spacing: int) -> Tensor:
    """Apply a convolution with three taps, without padding: the result is `2 * spacing` shorter."""
    kernel = weights[f"{name}/W"][0].flatten(0, 1)
    x, samples = x.to(kernel.dtype), x.shape[1] - (TAPS - 1) * spacing
    side_by_side = torch.cat([x[:, tap * spacing :][:, :samples] for tap in range(TAPS)], dim=2)
    return F.linear(side_by_side, kernel.T, weights[f"{name}/biases"])


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    kernel = weights[f"{name}/W"][0, 0]
    return F.linear(x.to(kernel.dtype), kernel.T, weights[f"{name}/biases"])


def amplitude(codes: Tensor) -> Tensor:
    """Return the model's input for codes: codes scaled to -1 to 1."""
    return (codes.float() - ZERO) / ZERO


def encode(weights: Weights, dimensions: Dimensions, heard: Tensor, inside: Tensor) -> Tensor:
    """Return the embeddings of windows.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The model's variables.
    dimensions : Dimensions
        The model's sizes.
    heard : Tensor, `[windows, samples]`
        Amplitudes of a window and `margin` frames on either side; 0 outside of the note.
    inside : Tensor, `[windows, samples]`
        1 within the note, 0 outside, where every layer's input is zero as in the encoder.

    Returns
    -------
    Tensor, `[windows, frames, embedding]`
        Embeddings of the windows, without the margins.
    """
    inside = inside[:, :, None]
    en = _taps(weights, "ae_startconv", F.pad(heard[:, :, None], (0, 0, 1, 1)), 1).to(heard.dtype)
    for i in range(1, dimensions.encoder_layers + 1):
        reach = dilation(i - 1)
        d = torch.relu(en) * inside
        d = _taps(weights, f"ae_dilatedconv_{i}", F.pad(d, (0, 0, reach, reach)), reach)
        en = en + _linear(weights, f"ae_res_{i}", torch.relu(d))
    en = _linear(weights, "ae_bottleneck", en).to(heard.dtype)
    frames = en.unflatten(1, (-1, HOP)).mean(dim=2)
    beside = margin(dimensions)
    return frames[:, beside : frames.shape[1] - beside]


def decode(weights: Weights, dimensions: Dimensions, past: Tensor, encoding: Tensor) -> Tensor:
    """Return the logits of every code of a window with teacher forcing.

    Each window is decoded like the start of a clip: the past of every layer is zero.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The model's variables.
    dimensions : Dimensions
        The model's sizes.
    past : Tensor, `[windows, samples]`
        Amplitude of the previous sample; silence before the first.
    encoding : Tensor, `[windows, samples, embedding]`
        The encoding's frame at each sample.

    Returns
    -------
    Tensor, `[windows, samples, 256]`
    """

    def causal(name: str, x: Tensor, spacing: int) -> Tensor:
        return _taps(weights, name, F.pad(x, (0, 0, (TAPS - 1) * spacing, 0)), spacing)

    l = causal("startconv", past[:, :, None], 1).to(past.dtype)  # noqa: E741 - the paper's letter
    s = _linear(weights, "skip_start", l).to(past.dtype)
    for i, spacing in enumerate(dimensions.dilations, start=1):
        d = causal(f"dilatedconv_{i}", l, spacing) + _linear(weights, f"cond_map_{i}", encoding)
        gate, signal = d.chunk(2, dim=2)
        z = torch.sigmoid(gate) * torch.tanh(signal)
        l = l + _linear(weights, f"res_{i}", z)  # noqa: E741
        s = s + _linear(weights, f"skip_{i}", z)
    s = torch.relu(s)
    s = torch.relu(_linear(weights, "out1", s) + _linear(weights, "cond_map_out1", encoding))
    return _linear(weights, "logits", s)
