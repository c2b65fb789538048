"""The decoder on an NVIDIA GPU, with two Triton kernels per layer.

Weights and graph capture are those of `cuda.py`; the kernels reduce memory traffic. `gate` reads
the taps directly from the ring buffer and computes z without storing d; `add` writes l directly to
the next layer's ring buffer. Both accumulate in float32 and round once.

A ring buffer is `[2 d + 1, clips, width]`, so that a tap of all clips is one matrix. Sizes are
zero-padded to full tiles, which does not change the results. The kernels are in `kernels.py`, which
is imported on demand: Triton is required only to create a decoder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.dimensions import CODES, TAPS, Dimensions
from nsynth_super.wavenet.tiles import GpuLimits, Tile, tile

_OLDEST = (8, 0)  # compute capability: bfloat16 and asynchronous copies

_WIDE = 64  # sizes are padded to a multiple of it, which suits the columns of most tiles

_BEGIN = Tile(rows=32, columns=_WIDE, inner=1, warps=4, stages=1)
_DRAW = Tile(rows=16, columns=CODES, inner=32, warps=4, stages=2)


def unavailable_reason(device: torch.device) -> str | None:
    """Return why the Triton kernels cannot run on a device, or None if they can."""
    if device.type != "cuda" or torch.version.hip is not None:
        return "not an NVIDIA GPU"
    if torch.cuda.get_device_capability(device) < _OLDEST:
        return "older than compute capability 8.0"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if "tensorflow" in sys.modules:
        return "TensorFlow is loaded in this process: the two LLVM copies would crash"
    # Triton compiles its kernel launcher, a C extension, on first use.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "no C compiler for Triton"
    if not Path(sysconfig.get_path("include", "posix_prefix"), "Python.h").exists():
        return "no Python.h for Triton"
    return None


class TritonDecoder(GpuDecoder):
    """The decoder with Triton kernels, on a device without an `unavailable_reason`.

    Parameters
    ----------
    weights : Rewritten
        Weights in the precision to compute in, on the device.
    clips : int
        Clips decoded in parallel.
    """

    name = "Triton"

    @staticmethod
    def state_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory for one clip, in bytes."""
        return GpuDecoder.state_bytes(_padded(dimensions), dtype)

    @staticmethod
    def weight_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory for the weights, in bytes: `Rewritten` plus the padded matrices."""
        return GpuDecoder.weight_bytes(_padded(dimensions), dtype)

    def _allocate(self) -> None:
        from nsynth_super.wavenet import kernels

        self._kernels: Any = kernels
        self._full = _padded(self.dimensions)
        self._allocate_state()
        self._pad_weights()
        clips, gpu, dtype = self.clips, GpuLimits.of(self.code.device), self._weights.dtype
        width, skip = self._full.width, self._full.skip_width
        self._gate_tile = tile(clips, (2 * width,), dtype, gpu)
        # The addends occupy registers as well.
        self._add_tile = tile(clips, (width, skip), dtype, gpu, largest=128 * 128)
        self._last_add_tile = tile(clips, (skip,), dtype, gpu, largest=128 * 128)
        self._head_tile = tile(clips, (skip,), torch.float32, gpu)

    def _allocate_state(self) -> None:
        clips, device, dtype = self.clips, self.code.device, self._weights.dtype
        width, skip = self._full.width, self._full.skip_width
        self._inputs = torch.zeros(self._kernels.KEPT, clips, device=device)
        # The first layer's past inputs are side columns; its ring buffer has one slot, for l.
        self._rings = [
            torch.zeros(slots, clips, width, dtype=dtype, device=device)
            for slots in [1, *(2 * d + 1 for d in self.dimensions.dilations[1:])]
        ]
        columns = _round_up(self._weights.columns.columns)
        self._side = torch.zeros(clips, columns, dtype=dtype, device=device)
        self._z = torch.empty(clips, width, dtype=dtype, device=device)
        self._s, self._h = (torch.empty(clips, skip, device=device) for _ in range(2))
        self._head_bias = torch.zeros(clips, skip, device=device)
        self._logits = torch.empty(clips, CODES, device=device)

    def _pad_weights(self) -> None:
        w, columns = self._weights, self._side.shape[1]
        width, skip = self.dimensions.width, self.dimensions.skip_width
        full = self._full.width
        self._start = _pad(w.start, len(w.start), width, skip)
        self._gates = [
            torch.cat(
                [_pad(taps, full, width, width).flatten(0, 1), _pad(side, columns, width, width)]
            )
            for taps, side in zip(w.taps, w.side, strict=True)
        ]
        parts = [(width, skip)] * (len(w.out) - 1) + [(skip,)]
        self._out = [_pad(out, full, *part) for out, part in zip(w.out, parts, strict=True)]
        self._out_bias = [
            _pad(bias[None], 1, *part) for bias, part in zip(w.out_bias, parts, strict=True)
        ]
        self._head = _pad(w.head, self._full.skip_width, skip)
        self._head_to_logits = _pad(w.logits, self._full.skip_width, CODES)

    def step(self, codes: Tensor) -> Tensor:
        """Advance by one sample; see `Stepper.step`. The logits are valid until the next step."""
        self._to_head(codes)
        self._kernels.logits[_DRAW.grid(self.clips, CODES)](
            self._logits,
            self._h,
            self._head_to_logits,
            self._weights.logits_bias,
            self._clock,
            self.clips,
            skip_width=self._full.skip_width,
            **_DRAW.options,
        )
        return self._logits

    def take(self, uniform: Tensor, forced: Tensor) -> Tensor:
        """Take steps as `run` does; return the codes, uint8 `[times, clips]`, on the device."""
        uniform, forced = uniform.contiguous(), forced.contiguous()
        codes = torch.empty(uniform.shape, dtype=torch.uint8, device=self.code.device)
        for at in range(len(uniform)):
            self._to_head(self.code)
            self._kernels.draw[_DRAW.grid(self.clips, CODES)](
                self.code,
                codes,
                uniform,
                forced,
                self._h,
                self._head_to_logits,
                self._weights.logits_bias,
                self._clock,
                self.clips,
                at,
                skip_width=self._full.skip_width,
                **_DRAW.options,
            )
        return codes

    def _to_head(self, codes: Tensor) -> None:
        """Advance by one sample up to the input of the last product, which makes the logits."""
        width, skip = self._full.width, self._full.skip_width
        self._kernels.begin[_BEGIN.grid(self.clips, width + skip)](
            codes,
            self._inputs,
            self._side,
            self._rings[0],
            self._s,
            self._start,
            self._clock,
            self.clips,
            width=width,
            skip_width=skip,
            side_columns=self._side.shape[1],
            rows=_BEGIN.rows,
            columns=_BEGIN.columns,
        )
        for layer in range(len(self._rings)):
            self._gate(layer)
            self._add(layer)
        self._kernels.head[self._head_tile.grid(self.clips, skip)](
            self._h,
            self._s,
            self._head,
            self._head_bias,
            self.clips,
            skip_width=skip,
            **self._head_tile.options,
        )

    def _gate(self, layer: int) -> None:
        ring, width = self._rings[layer], self._full.width
        self._kernels.gate[self._gate_tile.grid(self.clips, 2 * width)](
            self._z,
            ring,
            self._side,
            self._gates[layer],
            self._clock,
            self.clips,
            len(ring),
            taps=TAPS if layer else 0,
            width=width,
            side_columns=self._side.shape[1],
            **self._gate_tile.options,
        )

    def _add(self, layer: int) -> None:
        ring, width, skip = self._rings[layer], self._full.width, self._full.skip_width
        is_last = layer + 1 == len(self._rings)
        next_ring = ring if is_last else self._rings[layer + 1]
        tile = self._last_add_tile if is_last else self._add_tile
        self._kernels.add[tile.grid(self.clips, self._out[layer].shape[1])](
            self._z,
            self._out[layer],
            self._out_bias[layer],
            ring,
            next_ring,
            self._s,
            self._clock,
            self.clips,
            len(ring),
            len(next_ring),
            width=width,
            res_width=0 if is_last else width,
            skip_width=skip,
            **tile.options,
        )


def _round_up(size: int) -> int:
    return -(-size // _WIDE) * _WIDE


def _padded(dimensions: Dimensions) -> Dimensions:
    """Return the padded sizes."""
    width, skip_width = _round_up(dimensions.width), _round_up(dimensions.skip_width)
    return replace(dimensions, width=width, skip_width=skip_width)


def _pad(w: Tensor, rows: int, *parts: int) -> Tensor:
    """Zero-pad a matrix: to `rows` rows, and each range of its columns to full tiles."""
    padded = [
        pad(part, (0, _round_up(part.shape[-1]) - part.shape[-1], 0, rows - part.shape[-2]))
        for part in torch.split(w, list(parts), dim=-1)
    ]
    return torch.cat(padded, dim=-1)
