"""The decoder's step on a CPU, without the copies and small products of the definition.

Three rewrites of `decoder.py`, each exact but for the order of float additions:

- A layer's past is a ring of 2 d slots that is never moved. At time t, slot t mod 2d holds the
  input of t - 2d, and is read before the input of t overwrites it.
- Conditioning and biases change once every 512 samples: they are one addend for each layer,
  made when the frame changes.
- `res_i` and `skip_i` read the same z: one product. `res_30` feeds nothing, and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nsynth_super.wavenet.dimensions import TAPS, Dimensions
from nsynth_super.wavenet.mulaw import ZERO


class CpuDecoder:
    """The decoder's step for `clips` clips; steps must be taken in the order of time.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The checkpoint's variables under Magenta's names, float32.
    dimensions : Dimensions
        The model's sizes.
    clips : int
        Clips decoded side by side.
    time : int
        The time, in samples, of the first step. It decides which slot of a ring is written first,
        so that a run that goes on from a replay computes what one that never stopped does.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], dimensions: Dimensions, clips: int, time: int = 0
    ) -> None:
        self.dimensions = dimensions
        self.time = time
        self._w = {name: w[0] if w.dim() == 4 else w for name, w in weights.items()}
        w = self._w
        layers = range(1, dimensions.layers + 1)
        self._taps = [w[f"dilatedconv_{i}/W"].unbind(0) for i in layers]
        self._start_w = w["startconv/W"][:, 0]
        self._out_w = [torch.cat([w[f"res_{i}/W"][0], w[f"skip_{i}/W"][0]], 1) for i in layers]
        self._out_b = [torch.cat([w[f"res_{i}/biases"], w[f"skip_{i}/biases"]]) for i in layers]
        self._out_w[-1] = w[f"skip_{dimensions.layers}/W"][0]
        self._out_b[-1] = w[f"skip_{dimensions.layers}/biases"]
        zeros = self._start_w.new_zeros
        self._past_codes = zeros(clips, TAPS)
        self._rings = [zeros((TAPS - 1) * d, clips, dimensions.width) for d in dimensions.dilations]
        self._bias: list[Tensor] = []
        self._head_bias = zeros(0)

    @staticmethod
    def state_bytes(dimensions: Dimensions, clips: int) -> int:
        """Return the memory that the state of `clips` clips takes, in bytes."""
        ring = sum(dimensions.dilations) * (TAPS - 1) * dimensions.width
        return 4 * clips * (ring + 2 * dimensions.layers * dimensions.width)

    def condition(self, encoding: Tensor) -> None:
        """Take `encoding`, `[clips, embedding]`, as the frame of the steps to come."""
        w = self._w
        self._bias = [
            torch.addmm(
                w[f"cond_map_{i}/biases"] + w[f"dilatedconv_{i}/biases"],
                encoding,
                w[f"cond_map_{i}/W"][0],
            )
            for i in range(1, self.dimensions.layers + 1)
        ]
        self._head_bias = torch.addmm(
            w["cond_map_out1/biases"] + w["out1/biases"], encoding, w["cond_map_out1/W"][0]
        )

    def step(self, codes: Tensor) -> Tensor:
        """Return the next code's logits, `[clips, 256]`, from the codes before, `[clips]`."""
        w, width = self._w, self.dimensions.width
        self._past_codes = torch.cat(
            [self._past_codes[:, 1:], ((codes - ZERO).to(torch.float32) / ZERO)[:, None]], 1
        )
        l = torch.addmm(w["startconv/biases"], self._past_codes, self._start_w)  # noqa: E741
        s = torch.addmm(w["skip_start/biases"], l, w["skip_start/W"][0])
        last = self.dimensions.layers - 1
        for i, (d, ring) in enumerate(zip(self.dimensions.dilations, self._rings, strict=True)):
            oldest, middle = self.time % (2 * d), (self.time + d) % (2 * d)
            first, second, third = self._taps[i]
            x = torch.addmm(self._bias[i], ring[oldest], first)
            x.addmm_(ring[middle], second).addmm_(l, third)
            z = torch.sigmoid(x[:, :width]).mul_(torch.tanh(x[:, width:]))
            out = torch.addmm(self._out_b[i], z, self._out_w[i])
            ring[oldest] = l
            if i == last:
                s += out
            else:
                l = l + out[:, :width]  # noqa: E741
                s += out[:, width:]
        s = torch.addmm(self._head_bias, torch.relu_(s), w["out1/W"][0])
        self.time += 1
        return torch.addmm(w["logits/biases"], torch.relu_(s), w["logits/W"][0])
