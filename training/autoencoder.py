"""The autoencoder over whole windows, for training: what `decoder.py` does a sample at a time.

Time runs along the second axis, `[windows, samples, channels]`, and every convolution is one matrix
product of its taps side by side: in the weights' precision; what layers add up is in the input's.
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
    """Return the samples to either side of it that an embedding's frame is a function of."""
    return 1 + sum(dilation(layer) for layer in range(dimensions.encoder_layers))


def margin(dimensions: Dimensions) -> int:
    """Return the frames to either side of a window that the encoder needs to see, too."""
    return -(-reach(dimensions) // HOP)


def _taps(weights: Weights, name: str, x: Tensor, spacing: int) -> Tensor:
    """Apply a valid convolution of three taps, in the weights' precision; `2 * spacing` shorter."""
    kernel = weights[f"{name}/W"][0].flatten(0, 1)
    x, samples = x.to(kernel.dtype), x.shape[1] - (TAPS - 1) * spacing
    side_by_side = torch.cat([x[:, tap * spacing :][:, :samples] for tap in range(TAPS)], dim=2)
    return F.linear(side_by_side, kernel.T, weights[f"{name}/biases"])


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    kernel = weights[f"{name}/W"][0, 0]
    return F.linear(x.to(kernel.dtype), kernel.T, weights[f"{name}/biases"])


def amplitude(codes: Tensor) -> Tensor:
    """Return what the model hears of codes: themselves, from -1 to 1."""
    return (codes.float() - ZERO) / ZERO


def encode(weights: Weights, dimensions: Dimensions, heard: Tensor, inside: Tensor) -> Tensor:
    """Encode windows.

    Parameters
    ----------
    weights : mapping of str to Tensor
    dimensions : Dimensions
    heard : Tensor, `[windows, samples]`
        Amplitudes of a window and `margin` frames to either side of it; 0 outside of the note.
    inside : Tensor, `[windows, samples]`
        1 where the note is, 0 outside: there, every layer hears zeros, as in the encoder.

    Returns
    -------
    Tensor, `[windows, frames, embedding]`
        Of the window, without the margins.
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
    """Return the logits of every code of a window, given the true codes before it.

    A window is decoded as a clip that begins there: every layer remembers zeros.

    Parameters
    ----------
    weights : mapping of str to Tensor
    dimensions : Dimensions
    past : Tensor, `[windows, samples]`
        Amplitude of the sample before each; silence before the first.
    encoding : Tensor, `[windows, samples, embedding]`
        The frame that each sample lies in.

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
