"""The decoder's step on a CPU: two oneDNN products a layer, and little else.

`rewrites.py` says which weights; here is how the past lies. A layer's inputs lie in a grouped ring
`[dilation, clips, 3 width + columns]`: a group is one row of the layer's product, with nothing to
be gathered. Its three taps rotate, so there are three copies of the weights. The columns of a frame
stand beside every group, and are written when the frame changes.
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
    """The decoder's steps on the CPU.

    Parameters
    ----------
    weights : Rewritten
        In the precision to compute in.
    clips : int
        Clips decoded side by side.
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
        """Return the memory that the state of one clip takes, in bytes."""
        columns = Side(dtype, dimensions.embedding).columns
        return sum(dimensions.dilations) * (TAPS * dimensions.width + columns) * dtype.itemsize

    @staticmethod
    def weight_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory that the weights take, in bytes: `Rewritten`, and laid out."""
        taps, rest = Rewritten.layer_bytes(dimensions, dtype)
        return (1 + TAPS) * taps + 2 * rest

    def reset(self, time: int = 0) -> None:
        """Forget the past; the next step is of `time`, in samples."""
        self._time, self._taken = time, 0
        self.code.fill_(ZERO)
        self._inputs = torch.zeros(self.clips, INPUTS)
        for ring in self._rings:
            ring.zero_()
        self.condition(torch.zeros(self.clips, self.dimensions.embedding))

    def condition(self, encoding: Tensor) -> None:
        """Take `encoding`, float32 `[clips, embedding]`, as the frame of the steps to come."""
        columns = self._weights.columns.of_frame(encoding)
        self._first.copy_(columns)
        for ring in self._rings:
            ring[:, :, -columns.shape[1] :] = columns
        self._head_bias = torch.addmm(self._weights.head_bias, encoding, self._weights.head_side)

    def step(self, codes: Tensor) -> Tensor:
        """Return the next code's logits, float32 `[clips, 256]`, from the codes before."""
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
        """Return what layer `i`, not the first, multiplies now; the newest tap's place in it."""
        group, place = slot(self._time, self.dimensions.dilations[i])
        return self._rings[i - 1][group], place
