"""The decoder on a CPU: two oneDNN matrix products per layer.

`rewrites.py` defines the weights; this module defines the layout of the past inputs. Each layer
keeps them in a ring buffer of groups, `[dilation, clips, 3 width + columns]`. A group holds the
three inputs of the dilated convolution and the side columns, so it is an operand of the layer's
product without a gather. The newest input rotates through the three positions of a group, hence
three copies of the weights. The side columns of a frame are written when the frame changes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nsynth_super.wavenet.dimensions import TAPS, Dimensions
from nsynth_super.wavenet.linear import Linear
from nsynth_super.wavenet.mulaw import ZERO
from nsynth_super.wavenet.rewrites import INPUTS, Rewritten, Side, rotated, slot
from nsynth_super.wavenet.stepping import Stepper


class CpuDecoder(Stepper):
    """The decoder on the CPU.

    Parameters
    ----------
    weights : Rewritten
        Weights in the precision to compute in.
    clips : int
        Clips decoded in parallel.
    """

    def __init__(self, weights: Rewritten, clips: int) -> None:
        super().__init__(weights.dimensions, clips, torch.device("cpu"))
        self._weights = weights
        width, columns = self.dimensions.width, weights.columns.columns
        self._first = torch.zeros(clips, columns, dtype=weights.dtype)
        self._rings = [
            torch.zeros(d, clips, TAPS * width + columns, dtype=weights.dtype)
            for d in self.dimensions.dilations[1:]
        ]
        self._begin = Linear(weights.start, rows=clips)
        self._gates = [
            [
                Linear(torch.cat([rotated(taps, place), side]), rows=clips)
                for place in range(TAPS if len(taps) else 1)
            ]
            for taps, side in zip(weights.taps, weights.side, strict=True)
        ]
        self._outs = [
            Linear(out, bias, clips)
            for out, bias in zip(weights.out, weights.out_bias, strict=True)
        ]
        self._head = Linear(weights.head, rows=clips)
        self._logits = Linear(weights.logits, weights.logits_bias, clips)
        self.reset()

    @staticmethod
    def state_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory for the state of one clip, in bytes."""
        columns = Side(dtype, dimensions.embedding).columns
        return sum(dimensions.dilations) * (TAPS * dimensions.width + columns) * dtype.itemsize

    @staticmethod
    def weight_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory for the weights, in bytes: `Rewritten` plus the packed copies."""
        taps, rest = Rewritten.layer_bytes(dimensions, dtype)
        return (1 + TAPS) * taps + 2 * rest

    def reset(self, time: int = 0) -> None:
        """Clear the past and the frame; the next step is sample `time`."""
        self._time, self._taken = time, 0
        self.code.fill_(ZERO)
        self._inputs = torch.zeros(self.clips, INPUTS)
        for ring in self._rings:
            ring.zero_()
        self.condition(torch.zeros(self.clips, self.dimensions.embedding))

    def condition(self, encoding: Tensor) -> None:
        """Set the frame of the next steps: `encoding`, float32 `[clips, embedding]`."""
        columns = self._weights.columns.of_frame(encoding)
        self._first.copy_(columns)
        for ring in self._rings:
            ring[:, :, -columns.shape[1] :] = columns
        self._head_bias = torch.addmm(self._weights.head_bias, encoding, self._weights.head_side)

    def step(self, codes: Tensor) -> Tensor:
        """Advance by one sample; see `Stepper.step`."""
        width = self.dimensions.width
        x = ((codes - ZERO).to(torch.float32) / ZERO)[:, None]
        self._inputs = torch.cat([self._inputs[:, 1:], x], 1)
        self._first[:, :INPUTS] = self._inputs
        for tap in range(TAPS):
            self._first[:, INPUTS + tap] = float(self._taken >= TAPS - 1 - tap)
        start = self._begin(torch.cat([self._inputs[:, -TAPS:], torch.ones_like(x)], 1))
        l, s = start[:, :width].to(self._first.dtype), start[:, width:]  # noqa: E741
        for i, (gates, outs) in enumerate(zip(self._gates, self._outs, strict=True)):
            row, place = self._first, 0
            if i:
                row, place = self._row(i)
            t = gates[place].tanh(row)
            z = torch.addcmul(t[:, width:], t[:, :width], t[:, width:])
            out = outs(z)
            if i + 1 < len(self._gates):
                row, place = self._row(i + 1)
                taps = row[:, place * width : (place + 1) * width]
                l = torch.add(l, out[:, :width], out=taps)  # noqa: E741
            s = s.add_(out[:, -s.shape[1] :])
        s = self._head(torch.relu_(s)).add_(self._head_bias)
        self._time += 1
        self._taken += 1
        return self._logits(torch.relu_(s))

    def _row(self, i: int) -> tuple[Tensor, int]:
        """Return the operand `[clips, columns]` of layer `i` > 0, and its newest tap's position."""
        group, place = slot(self._time, self.dimensions.dilations[i])
        return self._rings[i - 1][group], place
