"""The decoder on a GPU, in plain PyTorch: for every device that PyTorch supports.

`rewrites.py` defines the weights; this module defines the layout of the past inputs and runs steps
without host involvement. Each layer keeps its inputs in a ring buffer `[clips, 2 d + 1, width]`.
The device computes the ring indices from a clock in its own memory, so every step launches the
same kernels. Many steps are therefore captured once as a CUDA graph, and the host generates the
next random numbers while the graph runs. The ring has one slot more than the 2 d past inputs, so
that the new input can be written before the oldest one is read.

The layers' products are 16-bit with 32-bit accumulation; the first convolution, the skip path and
the head are float32.
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
"""Steps in one graph: the cost of a launch is spread over them."""

_SCRATCH = 48  # bytes of temporaries in a step, per clip and channel of `width`


class GpuDecoder(Stepper):
    """The decoder on the device of its weights.

    Parameters
    ----------
    weights : Rewritten
        Weights in the precision to compute in, on the device.
    clips : int
        Clips decoded in parallel.
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
        self._allocate()
        self._graph = _Graph(self) if device.type == "cuda" else None
        self.reset()

    def _allocate(self) -> None:
        """Allocate the ring buffers and the operands of the products."""
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
        """Return the memory for one clip, in bytes."""
        slots = sum(2 * d + 1 for d in dimensions.dilations[1:])
        return dimensions.width * (slots * dtype.itemsize + _SCRATCH)

    @staticmethod
    def weight_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory for the weights, in bytes: `Rewritten` plus the joined matrices."""
        return 2 * sum(Rewritten.layer_bytes(dimensions, dtype))

    def reset(self, time: int = 0) -> None:
        """Clear the past and the frame; the next step is sample `time`."""
        self._time.fill_(time)
        self._taken.zero_()
        self.code.fill_(ZERO)
        self._inputs.zero_()
        for ring in self._rings:
            ring.zero_()
        self.condition(torch.zeros(self.clips, self.dimensions.embedding, device=self.code.device))

    def condition(self, encoding: Tensor) -> None:
        """Set the frame of the next steps: `encoding`, float32 `[clips, embedding]`."""
        w = self._weights
        encoding = encoding.to(self.code.device, non_blocking=True)
        self._side[:, FIRST : w.columns.columns] = w.columns.of_frame(encoding)[:, FIRST:]
        bias = torch.addmm(w.head_bias, encoding, w.head_side)
        self._head_bias[:, : self.dimensions.skip_width] = bias

    def step(self, codes: Tensor) -> Tensor:
        """Advance by one sample; see `Stepper.step`."""
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
        """Push the previous codes; return l `[clips, width]` and s `[clips, skip width]`."""
        w, width = self._weights, self.dimensions.width
        x = ((codes - ZERO).to(torch.float32) / ZERO)[:, None]
        self._inputs.copy_(torch.cat([self._inputs[:, 1:], x], 1))
        self._side[:, :INPUTS] = self._inputs
        self._side[:, INPUTS:FIRST] = self._taken >= self._reach
        start = torch.addmm(w.start[-1], self._inputs[:, -TAPS:], w.start[:-1])
        return start[:, :width].to(w.dtype), start[:, width:].contiguous()

    def run(self, uniform: Tensor, forced: Tensor) -> Callable[[], NDArray[np.uint8]]:
        """Take steps as `Stepper.run` does; `GRAPH_STEPS` steps are a single graph launch."""
        device = self.code.device
        if device.type != "cuda":
            codes = self.take(uniform.to(device), forced.to(device))
            return lambda: codes.cpu().numpy()
        uniform, forced = (x.pin_memory().to(device, non_blocking=True) for x in (uniform, forced))
        if self._graph is not None and len(uniform) == self.steps:
            codes = self._graph.run(uniform, forced)
        else:
            codes = self.take(uniform, forced)
        on_host = torch.empty(codes.shape, dtype=codes.dtype, pin_memory=True)
        on_host.copy_(codes, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()

        def wait() -> NDArray[np.uint8]:
            copied.synchronize()
            return on_host.numpy()

        return wait


class _Graph:
    """A CUDA graph of several decoder steps.

    Parameters
    ----------
    decoder : GpuDecoder
        The decoder to capture. Two steps run before the capture, so that libraries create their
        handles and workspaces outside of it; reset the decoder afterwards.
    """

    def __init__(self, decoder: GpuDecoder) -> None:
        clips, device = decoder.clips, decoder.code.device
        self._uniform = torch.full((decoder.steps, clips), 0.5, device=device)
        self._forced = torch.full((decoder.steps, clips), DRAWN, device=device)
        warmup = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        warmup.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(warmup):
            decoder.take(self._uniform[:2], self._forced[:2])
        torch.cuda.current_stream(device).wait_stream(warmup)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._codes = decoder.take(self._uniform, self._forced)

    def run(self, uniform: Tensor, forced: Tensor) -> Tensor:
        """Replay the steps; return their codes, `[times, clips]`, valid until the next call."""
        self._uniform.copy_(uniform)
        self._forced.copy_(forced)
        self._graph.replay()
        return self._codes
