"""The reference implementation of one decoder step; every fast path is tested against it.

NSynth's WaveNet decoder (Engel et al. 2017; Magenta 1.1.7, `FastGenerationConfig`) maps the
previous code and the current frame `en` of the encoding to the logits of the next code:

    x = (code - 128) / 128
    l = startconv(x)                                causal, 3 taps, 1 -> width
    s = skip_start(l)                               width -> skip width
    for i = 1 … layers, with dilation 2^((i - 1) mod 10):
        d = dilatedconv_i(l) + cond_map_i(en)       causal, 3 taps, width -> 2 width
        z = sigmoid(d[:width]) * tanh(d[width:])
        l = l + res_i(z)
        s = s + skip_i(z)
    logits = logits(relu(out1(relu(s)) + cond_map_out1(en)))

Each causal convolution keeps its past inputs in a queue that initially holds zero vectors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from nsynth_super.wavenet.dimensions import TAPS, Dimensions
from nsynth_super.wavenet.mulaw import ZERO


class Decoder:
    """The decoder and its state for `clips` clips.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The checkpoint's variables, by name; their dtype is the precision of the arithmetic.
    dimensions : Dimensions
        The model's sizes.
    clips : int
        Clips decoded in parallel.
    """

    def __init__(self, weights: Mapping[str, Tensor], dimensions: Dimensions, clips: int) -> None:
        self.weights = weights
        self.dimensions = dimensions
        self.past = {
            name: deque([weights[f"{name}/W"].new_zeros(clips, channels)] * ((TAPS - 1) * d))
            for name, channels, d in self._convolutions()
        }

    def _convolutions(self) -> list[tuple[str, int, int]]:
        layers = enumerate(self.dimensions.dilations, start=1)
        width = self.dimensions.width
        return [("startconv", 1, 1), *((f"dilatedconv_{i}", width, d) for i, d in layers)]

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Apply a convolution with one tap: `[clips, in]` to `[clips, out]`."""
        return x @ self.weights[f"{name}/W"][0, 0] + self.weights[f"{name}/biases"]

    def causal(self, name: str, x: Tensor) -> Tensor:
        """Apply a causal convolution with three taps to `x` and its past; push `x` to the past."""
        past = self.past[name]
        oldest, middle = past[0], past[len(past) // 2]
        past.popleft()
        past.append(x)
        w = self.weights[f"{name}/W"][0]
        return oldest @ w[0] + middle @ w[1] + x @ w[2] + self.weights[f"{name}/biases"]

    def step(self, codes: Tensor, encoding: Tensor) -> Tensor:
        """Advance by one sample.

        Parameters
        ----------
        codes : Tensor of int64, `[clips]`
            The previous code of each clip; silence (128) at the start.
        encoding : Tensor, `[clips, embedding]`
            The current frame of each clip's encoding.

        Returns
        -------
        Tensor, `[clips, 256]`
            The logits of the next code.
        """
        x = ((codes - ZERO).to(encoding.dtype) / ZERO)[:, None]
        l = self.causal("startconv", x)  # noqa: E741 - the paper's letter
        s = self.linear("skip_start", l)
        for i in range(1, self.dimensions.layers + 1):
            d = self.causal(f"dilatedconv_{i}", l) + self.linear(f"cond_map_{i}", encoding)
            gate, signal = d.chunk(2, dim=1)
            z = torch.sigmoid(gate) * torch.tanh(signal)
            l = l + self.linear(f"res_{i}", z)  # noqa: E741
            s = s + self.linear(f"skip_{i}", z)
        s = torch.relu(s)
        s = torch.relu(self.linear("out1", s) + self.linear("cond_map_out1", encoding))
        return self.linear("logits", s)
