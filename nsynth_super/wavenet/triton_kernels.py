"""The decoder's step on an NVIDIA GPU, in two kernels a layer written in Triton.

The rewrites are `cuda.py`'s and so is how a step runs. What changes is how often a number travels:
`gate` reads the taps where they lie and forgets a layer's d as soon as z is made of it; `add`
writes l to where the next layer reads it. Both sum in float32 and round once.

A ring is `[2 d + 1, clips, width]`, so that a tap of all clips is one matrix. Sizes are filled up
with zeros to whole tiles; zeros stay zeros, and what is computed is the same. `kernels.py` holds
the kernels: Triton need only be there when a decoder is made.
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
from nsynth_super.wavenet.tiles import Card, Tile, tile

_OLDEST = (8, 0)  # compute capability: bfloat16 and asynchronous copies

_WIDE = 64  # every size is filled up to a multiple of it: of most tiles' columns

_BEGIN = Tile(rows=32, columns=_WIDE, inner=1, warps=4, stages=1)
_DRAW = Tile(rows=16, columns=CODES, inner=32, warps=4, stages=2)


def missing(device: torch.device) -> str | None:
    """Return what keeps Triton's kernels from running on a device, or None."""
    if device.type != "cuda" or torch.version.hip is not None:
        return "not an NVIDIA GPU"
    if torch.cuda.get_device_capability(device) < _OLDEST:
        return "older than compute capability 8.0"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if "tensorflow" in sys.modules:
        return "TensorFlow is in this process: each brings its own LLVM, and both crash"
    # What launches kernels is a C extension, which Triton builds where it first runs.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "no C compiler for Triton"
    if not Path(sysconfig.get_path("include", "posix_prefix"), "Python.h").exists():
        return "no Python.h for Triton"
    return None


class TritonDecoder(GpuDecoder):
    """The decoder's steps in Triton's kernels, on a device of which nothing is `missing`.

    Parameters
    ----------
    weights : Rewritten
        In the precision to compute in, on the device.
    clips : int
        Clips decoded side by side.
    """

    name = "Triton"

    @staticmethod
    def state_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory that one clip takes, in bytes."""
        return GpuDecoder.state_bytes(_filled_up(dimensions), dtype)

    @staticmethod
    def weight_bytes(dimensions: Dimensions, dtype: torch.dtype) -> int:
        """Return the memory that the weights take, in bytes: `Rewritten`, and filled up."""
        return GpuDecoder.weight_bytes(_filled_up(dimensions), dtype)

    def _lay_out(self) -> None:
        from nsynth_super.wavenet import kernels

        self._kernels: Any = kernels
        self._full = _filled_up(self.dimensions)
        self._lay_out_past()
        self._lay_out_weights()
        clips, card, dtype = self.clips, Card.of(self.code.device), self._weights.dtype
        width, skip = self._full.width, self._full.skip_width
        self._gate_tile = tile(clips, (2 * width,), dtype, card)
        # What is added to takes registers too.
        self._add_tile = tile(clips, (width, skip), dtype, card, largest=128 * 128)
        self._last_add_tile = tile(clips, (skip,), dtype, card, largest=128 * 128)
        self._head_tile = tile(clips, (skip,), torch.float32, card)

    def _lay_out_past(self) -> None:
        clips, device, dtype = self.clips, self.code.device, self._weights.dtype
        width, skip = self._full.width, self._full.skip_width
        self._inputs = torch.zeros(self._kernels.KEPT, clips, device=device)
        # What the first layer needs of the past is among its side columns: it has no ring, and a
        # ring of one slot for the l that it adds to.
        self._rings = [
            torch.zeros(slots, clips, width, dtype=dtype, device=device)
            for slots in [1, *(2 * d + 1 for d in self.dimensions.dilations[1:])]
        ]
        columns = _up(self._weights.columns.columns)
        self._side = torch.zeros(clips, columns, dtype=dtype, device=device)
        self._z = torch.empty(clips, width, dtype=dtype, device=device)
        self._s, self._h = (torch.empty(clips, skip, device=device) for _ in range(2))
        self._head_bias = torch.zeros(clips, skip, device=device)
        self._logits = torch.empty(clips, CODES, device=device)

    def _lay_out_weights(self) -> None:
        w, columns = self._weights, self._side.shape[1]
        width, skip = self.dimensions.width, self.dimensions.skip_width
        full = self._full.width
        self._start = _fill(w.start, len(w.start), width, skip)
        self._gates = [
            torch.cat(
                [_fill(taps, full, width, width).flatten(0, 1), _fill(side, columns, width, width)]
            )
            for taps, side in zip(w.taps, w.side, strict=True)
        ]
        parts = [(width, skip)] * (len(w.out) - 1) + [(skip,)]
        self._out = [_fill(out, full, *part) for out, part in zip(w.out, parts, strict=True)]
        self._out_bias = [
            _fill(bias[None], 1, *part) for bias, part in zip(w.out_bias, parts, strict=True)
        ]
        self._head = _fill(w.head, self._full.skip_width, skip)
        self._head_to_logits = _fill(w.logits, self._full.skip_width, CODES)

    def step(self, codes: Tensor) -> Tensor:
        """Return the next code's logits, float32 `[clips, 256]`, from the codes before.

        They stand until the next step.
        """
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
        """Take steps as `run` does; the codes stay where they are drawn."""
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
        """Take a step as far as what the logits are made of, from the codes before."""
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


def _up(size: int) -> int:
    return -(-size // _WIDE) * _WIDE


def _filled_up(dimensions: Dimensions) -> Dimensions:
    """Return the sizes that are computed with."""
    return replace(dimensions, width=_up(dimensions.width), skip_width=_up(dimensions.skip_width))


def _fill(w: Tensor, rows: int, *parts: int) -> Tensor:
    """Fill a matrix up with zeros: to `rows` rows, and each part of its columns to whole tiles."""
    filled = [
        pad(part, (0, _up(part.shape[-1]) - part.shape[-1], 0, rows - part.shape[-2]))
        for part in torch.split(w, list(parts), dim=-1)
    ]
    return torch.cat(filled, dim=-1)
