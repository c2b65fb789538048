"""How `triton_kernels.py` cuts a matrix product into tiles, by its size and the card.

Chosen by a model of what holds a tile up, not by measuring.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_FEWEST_STAGES = 3  # with two, a load is waited for as soon as it is asked for

_LINE = 128  # bytes of a cache's line, and of what wgmma takes side by side

_UNDER_WAY = 64 * 1024
"""Bytes that a unit should have asked for and not got yet: 64 a cycle, a thousand cycles away."""


@dataclass(frozen=True)
class Card:
    """What the choice of tiles depends on.

    Attributes
    ----------
    capability : tuple of int
        Compute capability.
    units : int
        Multiprocessors.
    """

    capability: tuple[int, int]
    units: int

    @property
    def _is_large(self) -> bool:
        """Whether tensor cores read shared memory themselves: Hopper, and Blackwell's large ones.

        The others' operands go through registers, of which 128 x 256 sums leave too few.
        """
        return self.capability in {(9, 0), (10, 0), (10, 3)}

    @property
    def shared(self) -> int:
        """Bytes of shared memory a program may take; 8.0 and 8.7 have more, but no use for it."""
        return (227 if self._is_large else 99) * 1024

    @property
    def sums(self) -> int:
        """Numbers that a tile may have."""
        return 128 * 256 if self._is_large else 128 * 128

    @staticmethod
    def of(device: torch.device) -> Card:
        """Return a device's; of what is no GPU, any: Triton's interpreter has no limits."""
        if device.type != "cuda":
            return Card((9, 0), 132)
        properties = torch.cuda.get_device_properties(device)
        return Card((properties.major, properties.minor), properties.multi_processor_count)


@dataclass(frozen=True)
class Tile:
    """What one program computes of a product, and how.

    Attributes
    ----------
    rows, columns : int
        Of the product.
    inner : int
        Of the sum: what is loaded at once.
    warps, stages : int
        Threads, in 32s; loads under way, and one.
    """

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int

    def grid(self, clips: int, columns: int) -> tuple[int, int]:
        """Return the programs that make up a product."""
        return -(-clips // self.rows), columns // self.columns

    @property
    def options(self) -> dict[str, int]:
        """What a kernel is launched with."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "inner": self.inner,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


def tile(
    clips: int, parts: tuple[int, ...], dtype: torch.dtype, card: Card, largest: int | None = None
) -> Tile:
    """Choose the tiles of a product `[clips, sum of parts]`.

    What holds a tile up is loading its rows and columns, so its time is their sum, times the
    rounds in which the card's units get through all tiles. That is least for one round of all
    units: 128 x 256 for 4,224 clips on an H200, whose 132 tiles are its 132 units, and narrow tiles
    for few clips.

    Parameters
    ----------
    clips : int
        Rows of the product.
    parts : tuple of int
        Columns: no tile spans two parts.
    dtype : torch.dtype
        Of what is multiplied.
    card : Card
    largest : int, optional
        Numbers that a tile may have, if these are fewer than the card's.
    """
    largest = min(largest or card.sums, card.sums)
    if dtype.itemsize >= 4:  # no tensor cores, but as many instructions as a thread has products
        largest = min(largest, 64 * 64)
    sides = [
        (rows, columns)
        for rows in (128, 64, 32, 16)
        for columns in (256, 128, 64, 32)
        if rows * columns <= largest and _FEWEST_STAGES * (rows + columns) * _LINE <= card.shared
        if all(part % columns == 0 for part in parts)
    ]

    def time(sides: tuple[int, int]) -> int:
        rows, columns = sides
        tiles = -(-clips // rows) * (sum(parts) // columns)
        return -(-tiles // card.units) * (rows + columns)

    rows, columns = min(sides, key=time)
    inner = _LINE // dtype.itemsize
    stage = (rows + columns) * _LINE
    stages = min(max(_FEWEST_STAGES, 1 + _UNDER_WAY // stage), 6, card.shared // stage)
    return Tile(rows, columns, inner, 8 if rows * columns > 64 * 128 else 4, stages)
