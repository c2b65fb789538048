"""Choose the tile sizes of the Triton kernels' matrix products for a GPU.

A cost model of memory traffic chooses them, without autotuning.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_FEWEST_STAGES = 3  # with two, every load is waited for right after its request

_MOST_STAGES = 6

_LINE = 128  # bytes of a cache line, and of a wgmma operand's row

_IN_FLIGHT = 96 * 1024
"""Bytes of outstanding loads that hide latency: 64 bytes per cycle, about 1,500 cycles."""


@dataclass(frozen=True)
class GpuLimits:
    """The limits of a GPU that determine the tile sizes.

    Attributes
    ----------
    capability : tuple of int
        Compute capability, major and minor.
    multiprocessors : int
        Streaming multiprocessors.
    """

    capability: tuple[int, int]
    multiprocessors: int

    @property
    def _is_large(self) -> bool:
        """Whether tensor cores read operands from shared memory: Hopper and data-center Blackwell.

        On other GPUs the operands pass through registers, and 128 x 256 accumulators leave too few.
        """
        return self.capability in {(9, 0), (10, 0), (10, 3)}

    @property
    def shared_memory(self) -> int:
        """Shared memory for one program, in bytes; 8.0 and 8.7 have more but cannot use it."""
        return (227 if self._is_large else 99) * 1024

    @property
    def tile_elements(self) -> int:
        """Largest number of elements in a tile."""
        return 128 * 256 if self._is_large else 128 * 128

    @staticmethod
    def of(device: torch.device) -> GpuLimits:
        """Return a device's limits; arbitrary ones for a CPU, where Triton's interpreter runs."""
        if device.type != "cuda":
            return GpuLimits((9, 0), 132)
        properties = torch.cuda.get_device_properties(device)
        return GpuLimits((properties.major, properties.minor), properties.multi_processor_count)


@dataclass(frozen=True)
class Tile:
    """The part of a product that one Triton program computes.

    Attributes
    ----------
    rows, columns : int
        Size of the tile.
    inner : int
        Elements of the inner dimension per iteration.
    warps, stages : int
        Warps per program, and stages of the software pipeline.
    """

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int

    def grid(self, clips: int, columns: int) -> tuple[int, int]:
        """Return the number of programs along the rows and the columns of a product."""
        return -(-clips // self.rows), columns // self.columns

    @property
    def options(self) -> dict[str, int]:
        """Keyword arguments for a kernel launch."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "inner": self.inner,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


def tile(
    clips: int,
    parts: tuple[int, ...],
    dtype: torch.dtype,
    gpu: GpuLimits,
    largest: int | None = None,
) -> Tile:
    """Choose the tile for a product `[clips, sum of parts]`.

    Loading rows and columns dominates, so the cost of a tile is their sum times the number of
    waves in which the multiprocessors process all tiles. A single wave that occupies all of them
    is best: 128 x 256 for 4,224 clips on an H200 (132 tiles, 132 multiprocessors), and narrow
    tiles for few clips.

    Parameters
    ----------
    clips : int
        Rows of the product.
    parts : tuple of int
        Widths of the column ranges; no tile spans two of them.
    dtype : torch.dtype
        Type of the operands.
    gpu : GpuLimits
        Limits of the GPU.
    largest : int, optional
        Largest number of elements in a tile, if below the GPU's own limit.
    """
    largest = min(largest or gpu.tile_elements, gpu.tile_elements)
    if dtype.itemsize >= 4:  # without tensor cores, code size grows with the products per thread
        largest = min(largest, 64 * 64)
    sides = [
        (rows, columns)
        for rows in (64, 128, 32, 16)  # of equal costs the first: 64 rows are one wgmma
        for columns in (256, 128, 64, 32)
        if rows * columns <= largest
        if _FEWEST_STAGES * (rows + columns) * _LINE <= gpu.shared_memory
        if all(part % columns == 0 for part in parts)
    ]

    def waves(sides: tuple[int, int]) -> int:
        rows, columns = sides
        tiles = -(-clips // rows) * (sum(parts) // columns)
        return -(-tiles // gpu.multiprocessors)

    def cost(sides: tuple[int, int]) -> int:
        return waves(sides) * sum(sides)

    rows, columns = min(sides, key=cost)
    inner = _LINE // dtype.itemsize
    stage = (rows + columns) * _LINE
    # Tiles of several waves share a multiprocessor, if it has shared memory for enough stages.
    shared_by = min(waves((rows, columns)), gpu.shared_memory // (_FEWEST_STAGES * stage))
    most = min(_MOST_STAGES, gpu.shared_memory // (shared_by * stage))
    stages = min(max(_FEWEST_STAGES, 1 + _IN_FLIGHT // stage), most)
    return Tile(rows, columns, inner, 8 if rows * columns > 64 * 128 else 4, stages)
