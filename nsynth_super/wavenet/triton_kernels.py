"""The decoder on an NVIDIA GPU, with two Triton kernels per layer.

Weights and graph capture are those of `cuda.py`; the kernels reduce memory traffic. `gate` reads
the taps directly from the ring buffer and computes z without storing d; `add` writes l directly to
the next layer's ring buffer. Both accumulate in float32 and round once. For few clips, `past` first
multiplies the past taps of all layers, which leaves less work on the chain of layers.

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
from itertools import accumulate
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

_SPLIT_CLIPS = 128
"""Most clips with a separate kernel for the past taps: 14 % faster for 64 clips, slower for 256."""

_EARLY = (9, 0)  # compute capability: a kernel may start before the previous one has ended


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
        clips, device, dtype = self.clips, self.code.device, self._weights.dtype
        gpu = GpuLimits.of(device)
        width, skip = self._full.width, self._full.skip_width
        self._split = clips <= _SPLIT_CLIPS
        # Triton's interpreter, on the CPU, starts one kernel after the other.
        early = kernels.EARLY and device.type != "cpu" and gpu.capability >= _EARLY
        self._launch = {"early": early} | ({"launch_pdl": True} if early else {})
        self._gate_tile = tile(clips, (2 * width,), dtype, gpu)
        # Small tiles, several per multiprocessor: one loads its addends while another multiplies.
        add_tile, last_add_tile, self._past_tile = (
            tile(clips, parts, dtype, gpu, largest=64 * 128)
            for parts in ((width, skip), (skip,), (2 * width,) * (self.dimensions.layers - 1))
        )
        self._add_tiles = [add_tile] * (self.dimensions.layers - 1) + [last_add_tile]
        self._head_tile = tile(clips, (skip,), torch.float32, gpu)
        self._allocate_state()
        self._pad_weights()

    def _allocate_state(self) -> None:
        clips, device, dtype = self.clips, self.code.device, self._weights.dtype
        width, skip = self._full.width, self._full.skip_width
        # The first layer's past inputs are side columns; its ring buffer has one slot, for l.
        dilations = [0, *self.dimensions.dilations[1:]]
        sizes = [(2 * d + 1) * clips * width for d in dilations]
        self._every_ring = torch.zeros(sum(sizes), dtype=dtype, device=device)
        self._rings = [ring.view(-1, clips, width) for ring in torch.split(self._every_ring, sizes)]
        self._starts = torch.tensor([0, *accumulate(sizes[:-1])], device=device)
        layers = 1 << (len(sizes) - 1).bit_length()  # the vectors of a kernel are powers of two
        dilations += [0] * (layers - len(dilations))
        self._slots = torch.tensor([(2 * d + 1, d) for d in dilations], device=device)
        self._taps = torch.zeros(layers, 4, dtype=torch.int64, device=device)
        self._inputs = torch.zeros(self._kernels.KEPT, clips, device=device)
        columns = _round_up(self._weights.columns.columns)
        self._side = torch.zeros(clips, columns, dtype=dtype, device=device)
        self._d = torch.empty(len(sizes) - 1 if self._split else 0, clips, 2 * width, device=device)
        self._z = torch.empty(clips, width, dtype=dtype, device=device)
        self._s, self._h = (torch.empty(clips, skip, device=device) for _ in range(2))
        self._head_bias = torch.zeros(clips, skip, device=device)
        self._logits = torch.empty(clips, CODES, device=device)

    def _pad_weights(self) -> None:
        w, columns = self._weights, self._side.shape[1]
        width, skip = self.dimensions.width, self.dimensions.skip_width
        full = self._full.width
        self._start = _pad(w.start, len(w.start), width, skip)
        sides = [_pad(side, columns, width, width) for side in w.side]
        taps = [_pad(each, full, width, width) for each in w.taps]  # none for the first layer
        if self._split:
            pairs = zip(taps[1:], sides[1:], strict=True)
            past = [torch.cat([*tap[:-1], side]) for tap, side in pairs]
            self._past = torch.stack([_tiled(_mixed(one), self._past_tile.columns) for one in past])
            gates = [sides[0], *(tap[-1] for tap in taps[1:])]
        else:
            pairs = zip(taps, sides, strict=True)
            gates = [torch.cat([tap.flatten(0, 1), side]) for tap, side in pairs]
        self._gates = [_tiled(_mixed(gate), self._gate_tile.columns) for gate in gates]
        parts = [(width, skip)] * (len(w.out) - 1) + [(skip,)]
        self._out = [
            _tiled(_pad(out, full, *part), tile.columns)
            for out, part, tile in zip(w.out, parts, self._add_tiles, strict=True)
        ]
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
            **self._launch,
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
                **self._launch,
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
            self._slots,
            self._taps,
            self._clock,
            self.clips,
            layers=len(self._slots),
            width=width,
            skip_width=skip,
            side_columns=self._side.shape[1],
            rows=_BEGIN.rows,
            columns=_BEGIN.columns,
            **self._launch,
        )
        if self._split:
            self._of_past()
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
            **self._launch,
        )

    def _of_past(self) -> None:
        width, tile = self._full.width, self._past_tile
        rows, columns = tile.grid(self.clips, 2 * width)
        self._kernels.past[rows, columns, len(self._d)](
            self._d,
            self._every_ring,
            self._starts,
            self._side,
            self._past,
            self._taps,
            self.clips,
            width=width,
            side_columns=self._side.shape[1],
            **tile.options,
            **self._launch,
        )

    def _gate(self, layer: int) -> None:
        ring, width = self._rings[layer], self._full.width
        self._kernels.gate[self._gate_tile.grid(self.clips, 2 * width)](
            self._z,
            ring,
            self._side,
            self._gates[layer],
            self._d[layer - 1 :],
            self._taps[layer],
            self.clips,
            taps=(1 if self._split else TAPS) if layer else 0,
            width=width,
            side_columns=self._side.shape[1],
            **self._gate_tile.options,
            **self._launch,
        )

    def _add(self, layer: int) -> None:
        ring, width, skip = self._rings[layer], self._full.width, self._full.skip_width
        is_last = layer + 1 == len(self._rings)
        next_ring = ring if is_last else self._rings[layer + 1]
        tile = self._add_tiles[layer]
        self._kernels.add[tile.grid(self.clips, (0 if is_last else width) + skip)](
            self._z,
            self._out[layer],
            self._out_bias[layer],
            ring,
            next_ring,
            self._s,
            self._taps[layer],
            self._taps[layer if is_last else layer + 1],
            self.clips,
            width=width,
            res_width=0 if is_last else width,
            skip_width=skip,
            **tile.options,
            **self._launch,
        )


def _round_up(size: int) -> int:
    return -(-size // _WIDE) * _WIDE


def _padded(dimensions: Dimensions) -> Dimensions:
    """Return the padded sizes."""
    width, skip_width = _round_up(dimensions.width), _round_up(dimensions.skip_width)
    return replace(dimensions, width=width, skip_width=skip_width)


def _mixed(w: Tensor) -> Tensor:
    """Return a matrix with the columns of its two halves in turn: a program needs both of a z."""
    return w.view(len(w), 2, -1).transpose(1, 2).reshape(w.shape)


def _tiled(w: Tensor, columns: int) -> Tensor:
    """Return a matrix `[inner, n]` as `[n / columns, inner, columns]`.

    The weights of a program are then contiguous: its reads use whole lines of the cache.
    """
    return w.view(len(w), -1, columns).transpose(0, 1).contiguous()


def _pad(w: Tensor, rows: int, *parts: int) -> Tensor:
    """Zero-pad a matrix: to `rows` rows, and each range of its columns to full tiles."""
    padded = [
        pad(part, (0, _round_up(part.shape[-1]) - part.shape[-1], 0, rows - part.shape[-2]))
        for part in torch.split(w, list(parts), dim=-1)
    ]
    return torch.cat(padded, dim=-1)
