"""Group blocks into batches that are decoded at once."""

from __future__ import annotations

from collections.abc import Sequence

from nsynth_super.base.errors import Failed
from nsynth_super.base.text import say
from nsynth_super.engines.base import Engine, OutOfMemoryError
from nsynth_super.pack.plan import BLOCK, Shard


def blocks_at_once(engine: Engine, batch_clips: int | None) -> int:
    """Return the number of blocks per batch."""
    return max(1, (batch_clips or engine.batch_clips()) // BLOCK)


def equal_batches(blocks: range, at_once: int) -> list[range]:
    """Divide blocks into the fewest batches, with sizes that differ by at most one block.

    A small last batch would take as long as a large one, because it leaves the hardware idle.
    """
    count = -(-len(blocks) // at_once)
    parts = [Shard(number, count).blocks(len(blocks)) for number in range(count)]
    return [blocks[part.start : part.stop] for part in parts]


def halved(batches: Sequence[range], missing: set[int], error: OutOfMemoryError) -> list[range]:
    """Return batches of half the size, after the device ran out of memory."""
    half = -(-len(batches[0]) // 2)
    if half == len(batches[0]):
        raise Failed(f"{error} -> free some memory: a block is the smallest batch") from error
    say(f"generate: {error}: continuing with {half * BLOCK}")
    halves = (part for batch in batches for part in equal_batches(batch, half))
    return [batch for batch in halves if not missing.isdisjoint(batch)]
