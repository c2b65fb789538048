"""Decide how many workers share a shard: one per GPU, or the fastest number on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from nsynth_super.base import allocation
from nsynth_super.base.allocation import Gpu
from nsynth_super.pack.plan import BLOCK, Plan, Shard
from nsynth_super.wavenet.dimensions import Dimensions

THREADS_GAIN = 0.88
"""Throughput of n threads is n to this power: 1.84 times that of one for two threads, measured."""

WORTH_STARTING = 10**13
"""Multiplications, about one core-minute; for less work, starting more processes does not pay."""

SHARE_OF_MEMORY = 0.5  # fraction of memory for all workers together


@dataclass(frozen=True)
class Worker:
    """The shard and the resources of one worker.

    Attributes
    ----------
    shard : Shard
        Part of the plan.
    gpu : Gpu or None
        GPU to use; None if the process has no GPUs.
    threads : int
        CPU threads.
    siblings : int
        Workers that share this machine's memory, including this one.
    """

    shard: Shard
    gpu: Gpu | None
    threads: int
    siblings: int

    def arguments(self) -> list[str]:
        """Return the command-line arguments of this worker."""
        shard = f"{self.shard.index}/{self.shard.count}"
        return ["--workers", "1", "--shard", shard, "--threads", str(self.threads)]

    def environment(self) -> dict[str, str]:
        """Return the environment of this worker: GPU, memory share, unbuffered output."""
        mine = {
            allocation.WORKERS: str(self.siblings),
            "PYTHONUNBUFFERED": "1",
            "PYTHONSAFEPATH": "1",  # ignore a folder named nsynth_super in the current folder
        }
        if self.gpu is not None:
            mine["CUDA_VISIBLE_DEVICES"] = self.gpu.name
        return {**os.environ, **mine}

    def __str__(self) -> str:
        """Return the worker's name in messages."""
        where = f" on GPU {self.gpu.name} {self.gpu.model}".rstrip() if self.gpu else ""
        return f"shard {self.shard.index}/{self.shard.count}{where}"


def on_gpus(shard: Shard, count: int | None = None, threads: int | None = None) -> list[Worker]:
    """Divide a shard among one worker per GPU, or return one worker if there are no GPUs.

    Parameters
    ----------
    shard : Shard
        The work to divide.
    count : int, optional
        Number of workers; by default one per GPU.
    threads : int, optional
        CPU threads per worker; by default the cores are divided evenly.
    """
    gpus = allocation.gpus()
    count = count or max(1, len(gpus))
    each = threads or max(1, allocation.processors() // count)
    return [
        Worker(
            Shard(shard.index * count + number, shard.count * count),
            gpus[number % len(gpus)] if gpus else None,
            each,
            count,
        )
        for number in range(count)
    ]


def by_request(shard: Shard, count: int, threads: int | None, device: str) -> list[Worker]:
    """Divide a shard without opening an engine; return no workers if only the engine can decide.

    Parameters
    ----------
    shard : Shard
    count : int
        Number of workers; 0 chooses it automatically.
    threads : int or None
        CPU threads per worker.
    device : {"auto", "cpu", "cuda", "mps"}
        `cpu` leaves the GPUs unused.
    """
    if count > 1 or (not count and device != "cpu"):
        return on_gpus(shard, count or None, threads)
    return []


def on_cpu(
    shard: Shard, plan: Plan, dimensions: Dimensions, memory: Callable[[int], int]
) -> list[Worker]:
    """Divide a shard among the CPU cores: several processes, or one process with several threads.

    One process per core is faster than threads, which wait for each other many times per step. But
    the blocks may not divide evenly, and each process holds the weights in memory. If there is less
    work than `WORTH_STARTING`, the result is one worker.

    Parameters
    ----------
    shard : Shard
    plan : Plan
    dimensions : Dimensions
        Dimensions of the model.
    memory : callable
        Returns the bytes that a process needs to decode a given number of clips at once.
    """
    blocks = [len(plan.clips_of(block)) for block in shard.blocks(plan.blocks)]
    cores, available_memory = allocation.processors(), allocation.memory() * SHARE_OF_MEMORY
    work = sum(blocks) * plan.samples * dimensions.multiplications
    most = min(cores, len(blocks)) if work > WORTH_STARTING else 1
    counts = [count for count in range(2, most + 1) if count * memory(BLOCK) <= available_memory]

    def relative_time(count: int) -> float:
        shares = (Shard(number, count).blocks(len(blocks)) for number in range(count))
        largest = max(sum(blocks[share.start : share.stop]) for share in shares)
        return float(largest / (cores // count) ** THREADS_GAIN)

    count = min([1, *counts], key=relative_time)
    return [
        Worker(
            Shard(shard.index * count + number, shard.count * count), None, cores // count, count
        )
        for number in range(count)
    ]
