"""The decoder's step on a GPU, in plain PyTorch: any that PyTorch drives.

`rewrites.py` says which weights; here is how the past lies, and how a step runs without the host. A
layer's inputs lie in a ring `[clips, 2 d + 1, width]`, and where in it is computed on the device,
from a time that lies there. So a step is the same commands each time, many steps are recorded once
as a CUDA graph, and while it runs the host draws the next random numbers. The slot more than the
2 d that are remembered lets an input be written before the oldest is read.

Layers' products are of 16 bits and summed in 32; beginning, skip path and head are float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsynth_super.wavenet.dimensions import HOP, TAPS, Dimensions
from nsynth_super.wavenet.mulaw import ZERO
from nsynth_super.wavenet.rewrites import FIRST, INPUTS, Rewritten
from nsynth_super.wavenet.stepping import DRAWN, Stepper

GRAPH_STEPS = 64
"""Steps in one graph: what the host adds to each is a 64th of a launch."""

_SCRATCH = 48  # bytes a clip takes for each of width: what one step computes and forgets


class GpuDecoder(Stepper):
    """The decoder's steps on a GPU, or on whatever device the weights lie on.

    Parameters
    ----------
    weights : Rewritten
        In the precision to compute in, on the device.
    clips : int
        Clips decoded side by side.
    """

    name = "PyTorch"
    steps = GRAPH_STEPS
    ahead = HOP // GRAPH_STEPS

    def __init__(self, weights: Rewritten, clips: int) -> None:
        device = weights.start.device
        super().__init__(weights.dimensions, clips, device)
        self._weights = weights
        self._clock = torch.zeros(2, dtype=torch.int64, device=device)
        self._time, self._taken = self._clock[:1], self._clock[1:]
        self._lay_out()
        self._graph = _Graph(self) if device.type == "cuda" else None
        self.reset()

    def _lay_out(self) -> None:
        """Lay out the past, the weights as the products take them, and room for what comes out."""
        w, clips, device = self._weights, self.clips, self.code.device
        width, columns = self.dimensions.width, w.columns.columns
        dilations = torch.tensor(self.dimensions.dilations)
        self._inputs = torch.zeros(clips, INPUTS, device=device)
        self._rings = [
            torch.zeros(clips, 2 * d + 1, width, dtype=w.dtype, device=device)
            for d in self.dimensions.dilations[1:]
        ]
        self._slots = (2 * dilations + 1)[:, None].to(device)
        ages = torch.arange(TAPS - 1, -1, -1)
        self._back = (dilations[:, None] * ages).to(device)
        self._reach = ages.to(device)
        self._row = torch.zeros(clips, TAPS * width + columns, dtype=w.dtype, device=device)
        self._side = self._row[:, TAPS * width :]
        self._head_bias = torch.zeros(clips, self.dimensions.skip_width, device=device)
        self._gates = [
            torch.cat([taps.flatten(0, 1), side]) for taps, side in zip(w.taps, w.side, strict=True)
        ]
        self._out_bias = [bias.to(w.dtype) for bias in w.out_bias]

    @staticmethod
    def state_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory that one clip takes, in bytes."""
        slots = sum(2 * d + 1 for d in dimensions.dilations[1:])
        return dimensions.width * (slots * dtype.itemsize + _SCRATCH)

    @staticmethod
    def weight_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory that the weights take, in bytes: `Rewritten`, and taps with columns."""
        return 2 * sum(Rewritten.layer_bytes(dimensions, dtype))

    def reset(self, time: int = 0) -> None:
        """Forget the past and the frame; the next step is of `time`, in samples."""
        self._time.fill_(time)
        self._taken.zero_()
        self.code.fill_(ZERO)
        self._inputs.zero_()
        for ring in self._rings:
            ring.zero_()
        self.condition(torch.zeros(self.clips, self.dimensions.embedding, device=self.code.device))

    def condition(self, encoding: Tensor) -> None:
        """Take `encoding`, float32 `[clips, embedding]`, as the frame of the steps to come."""
        w = self._weights
        encoding = encoding.to(self.code.device, non_blocking=True)
        self._side[:, FIRST : w.columns.columns] = w.columns.of_frame(encoding)[:, FIRST:]
        bias = torch.addmm(w.head_bias, encoding, w.head_side)
        self._head_bias[:, : self.dimensions.skip_width] = bias

    def step(self, codes: Tensor) -> Tensor:
        """Return the next code's logits, float32 `[clips, 256]`, from the codes before."""
        w, width = self._weights, self.dimensions.width
        l, s = self._begin(codes)  # noqa: E741 - the paper's letter
        at = (self._time - self._back) % self._slots
        for i, gates in enumerate(self._gates):
            if i == 0:
                d = self._side @ gates
            else:
                ring = self._rings[i - 1]
                ring.index_copy_(1, at[i, -1:], l[:, None])
                taps = self._row[:, : TAPS * width].view(-1, TAPS, width)
                torch.index_select(ring, 1, at[i], out=taps)
                d = self._row @ gates
            t = d.tanh_()
            z = torch.addcmul(t[:, width:], t[:, :width], t[:, width:])
            out = torch.addmm(self._out_bias[i], z, w.out[i])
            if i + 1 < len(self._gates):
                l = l + out[:, :width]  # noqa: E741
            s += out[:, -s.shape[1] :]
        s = torch.addmm(self._head_bias, torch.relu_(s), w.head)
        self._clock += 1
        return torch.addmm(w.logits_bias, torch.relu_(s), w.logits)

    def _begin(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Take the codes before; return l and s before the first layer."""
        w, width = self._weights, self.dimensions.width
        x = ((codes - ZERO).to(torch.float32) / ZERO)[:, None]
        self._inputs.copy_(torch.cat([self._inputs[:, 1:], x], 1))
        self._side[:, :INPUTS] = self._inputs
        self._side[:, INPUTS:FIRST] = self._taken >= self._reach
        start = torch.addmm(w.start[-1], self._inputs[:, -TAPS:], w.start[:-1])
        return start[:, :width].to(w.dtype), start[:, width:].contiguous()

    def run(self, uniform: Tensor, forced: Tensor) -> Callable[[], NDArray[np.uint8]]:
        """Take steps; see `Stepper.run`. `GRAPH_STEPS` of them are one launch."""
        device = self.code.device
        if device.type != "cuda":
            codes = self.take(uniform.to(device), forced.to(device))
            return lambda: codes.cpu().numpy()
        uniform, forced = (x.pin_memory().to(device, non_blocking=True) for x in (uniform, forced))
        if self._graph is not None and len(uniform) == self.steps:
            codes = self._graph.run(uniform, forced)
        else:
            codes = self.take(uniform, forced)
        there = torch.empty(codes.shape, dtype=codes.dtype, pin_memory=True)
        there.copy_(codes, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()

        def wait() -> NDArray[np.uint8]:
            arrived.synchronize()
            return there.numpy()

        return wait


class _Graph:
    """Steps recorded once, to be launched as one.

    Parameters
    ----------
    decoder : GpuDecoder
        Its steps. They are taken once, so that libraries make their handles and workspaces before
        anything is recorded: it must be reset.
    """

    def __init__(self, decoder: GpuDecoder) -> None:
        clips, device = decoder.clips, decoder.code.device
        self._uniform = torch.full((decoder.steps, clips), 0.5, device=device)
        self._forced = torch.full((decoder.steps, clips), DRAWN, device=device)
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            decoder.take(self._uniform[:2], self._forced[:2])
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._codes = decoder.take(self._uniform, self._forced)

    def run(self, uniform: Tensor, forced: Tensor) -> Tensor:
        """Take the steps; the codes, `[times, clips]`, stand until the next call."""
        self._uniform.copy_(uniform)
        self._forced.copy_(forced)
        self._graph.replay()
        return self._codes
