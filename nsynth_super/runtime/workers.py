"""One process for each GPU, all at one stage's work, and their exit codes made one.

A worker is the same command line with its own part of the shard, one GPU and its part of the
processors. What happens to one is told of it by name; the others go on, for what they decode stays.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Any

from nsynth_super import machine
from nsynth_super.blocks import clips_done
from nsynth_super.machine import Gpu
from nsynth_super.plan import BLOCK, Plan, Shard
from nsynth_super.problems import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    BadInput,
    Failed,
    Problem,
    Stopped,
)
from nsynth_super.progress import STOPS, Progress, following, say
from nsynth_super.wavenet.dimensions import Dimensions
from nsynth_super.workspace import Workspace

FORWARDED = {**{each: each for each in (*STOPS, signal.SIGINT)}, signal.SIGURG: signal.SIGUSR1}
"""What each signal is passed on as.

A worker that does not listen yet would not hear SIGURG, and go on. SIGUSR1 ends it; sent to the
worker alone, it ends nobody else.
"""
WATCH_EVERY = 0.25  # seconds

THREADS_GAIN = 0.88
"""Threads decode as many clips as their number to this power: two as many as 1.84, measured."""

WORTH_STARTING = 10**13
"""Multiplications: a minute of one core's. Less is done before more processes have started."""

SHARE_OF_MEMORY = 0.5  # for them all


@dataclass(frozen=True)
class Worker:
    """What one worker is given.

    Attributes
    ----------
    shard : Shard
        Its part of the plan.
    gpu : Gpu or None
        Its own; None where there is none to share out.
    threads : int
        Of the CPU.
    siblings : int
        Workers on this machine, this one among them: they share its memory.
    """

    shard: Shard
    gpu: Gpu | None
    threads: int
    siblings: int

    def arguments(self) -> list[str]:
        """Return what the command line says for it."""
        shard = f"{self.shard.index}/{self.shard.count}"
        return ["--workers", "1", "--shard", shard, "--threads", str(self.threads)]

    def environment(self) -> dict[str, str]:
        """Return the environment for it: its GPU, its share, and output that is not held back."""
        mine = {
            machine.WORKERS: str(self.siblings),
            "PYTHONUNBUFFERED": "1",
            "PYTHONSAFEPATH": "1",  # a folder of our name where it is started is not us
        }
        if self.gpu is not None:
            mine["CUDA_VISIBLE_DEVICES"] = self.gpu.name
        return {**os.environ, **mine}

    def __str__(self) -> str:
        """Name it in a message."""
        where = f" on GPU {self.gpu.name} {self.gpu.model}".rstrip() if self.gpu else ""
        return f"shard {self.shard.index}/{self.shard.count}{where}"


def planned(shard: Shard, count: int | None = None, threads: int | None = None) -> list[Worker]:
    """Share a shard out: one worker for each GPU that this process may use, or one without any.

    Parameters
    ----------
    shard : Shard
        What all of them are to do.
    count : int, optional
        Workers; by default one for each GPU.
    threads : int, optional
        Of each; by default the processors are shared out.
    """
    gpus = machine.gpus()
    count = count or max(1, len(gpus))
    each = threads or max(1, machine.processors() // count)
    return [
        Worker(
            Shard(shard.index * count + number, shard.count * count),
            gpus[number % len(gpus)] if gpus else None,
            each,
            count,
        )
        for number in range(count)
    ]


def on_cpu(
    shard: Shard, plan: Plan, dimensions: Dimensions, memory: Callable[[int], int]
) -> list[Worker]:
    """Share a shard out over the processor's cores: several processes, or one of several threads.

    A process of its own for each core is faster than threads, which wait for each other many times
    a step; but blocks must come out even, and each needs the weights in its memory. Where the work
    is less than it takes to start them there is one.

    Parameters
    ----------
    shard : Shard
    plan : Plan
    dimensions : Dimensions
        The model's.
    memory : callable
        Returns the bytes that a process takes to decode so many clips at once.
    """
    blocks = [len(plan.clips_of(block)) for block in shard.blocks(plan.blocks)]
    cores, room = machine.processors(), machine.memory() * SHARE_OF_MEMORY
    work = sum(blocks) * plan.samples * dimensions.multiplications
    most = min(cores, len(blocks)) if work > WORTH_STARTING else 1
    counts = [count for count in range(2, most + 1) if count * memory(BLOCK) <= room]

    def takes(count: int) -> float:
        shares = (Shard(number, count).blocks(len(blocks)) for number in range(count))
        largest = max(sum(blocks[share.start : share.stop]) for share in shares)
        return float(largest / (cores // count) ** THREADS_GAIN)

    count = min([1, *counts], key=takes)
    return [
        Worker(
            Shard(shard.index * count + number, shard.count * count), None, cores // count, count
        )
        for number in range(count)
    ]


def generate(
    workspace: Workspace,
    plan: Plan,
    shard: Shard,
    workers: Sequence[Worker],
    command: Sequence[str],
    quiet: bool = False,
) -> None:
    """Let workers decode a shard, and show their progress as one.

    Parameters
    ----------
    workspace : Workspace
    plan : Plan
    shard : Shard
        What the workers share.
    workers : sequence of Worker
    command : sequence of str
        What each runs, but for `Worker.arguments`.
    quiet : bool

    Raises
    ------
    Stopped
        If they stopped because a signal asked for it, with work left.
    BadInput
        If every worker that failed did so for what it was given.
    Failed
        If any failed otherwise, with the name and exit code of each that failed.
    """
    done = [clips_done(workspace, plan, worker.shard.blocks(plan.blocks)) for worker in workers]
    clips = sum(len(plan.clips_of(block)) for block in shard.blocks(plan.blocks))
    status = workspace.status("generate", shard.name)
    if not quiet:
        say(f"generate: {len(workers)} workers: {'; '.join(map(str, workers))}")
    began = time.time()
    progress = Progress("generate", clips, "clips", status, sum(done), shard.name, quiet)

    def watch(processes: Sequence[subprocess.Popen[bytes]]) -> None:
        for number, (worker, process) in enumerate(zip(workers, processes, strict=False)):
            report = workspace.status("generate", worker.shard.name)
            done[number] = max(done[number], _reported(report, process.pid, began))
        progress.advance(max(0.0, sum(done) - progress.done))

    with following(progress):
        run(workers, command, watch)


def _reported(report: Path, pid: int, began: float) -> float:
    """Return what a worker last said it had done; nothing if the report is an earlier run's."""
    try:
        status = json.loads(report.read_text(encoding="utf-8"))
        # In containers the same process ids come again; the report's time is of whole seconds.
        its_own = status["pid"] == pid and status["started"] >= began - 1
        return float(status["done"]) if its_own else 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def run(
    workers: Sequence[Worker],
    command: Sequence[str],
    watch: Callable[[Sequence[subprocess.Popen[bytes]]], None],
) -> None:
    """Start the workers, pass on the signals that come, wait for all; as `generate` raises."""
    processes: list[subprocess.Popen[bytes]] = []
    told = 0
    with _noting() as asked, _not_left_alone(processes):
        for worker, cores in zip(workers, _cores(workers), strict=True):
            # In a session of its own: a terminal's Ctrl-C reaches it once, by what follows.
            processes.append(
                subprocess.Popen(
                    [*command, *worker.arguments()],
                    env=worker.environment(),
                    start_new_session=True,
                )
            )
            if cores:
                with suppress(OSError):  # it ended already, or may not be bound
                    os.sched_setaffinity(processes[-1].pid, cores)
        while any(process.poll() is None for process in processes):
            # Here and not in the handler, which could come between a start and its note.
            for which in asked[told:]:
                told += 1
                for process in processes:
                    process.send_signal(FORWARDED[which])
            watch(processes)
            time.sleep(WATCH_EVERY)
        watch(processes)
    _conclude(workers, [process.returncode for process in processes], asked)


def _cores(workers: Sequence[Worker]) -> list[set[int]]:
    """Share out the cores, so that workers do not chase each other over them; or none.

    None where there are not enough, and where it is not known which are ours: a job that Slurm gave
    four of sixteen cores, without binding it to them, had better not take the first four.
    """
    ours = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    ends = list(accumulate(worker.threads for worker in workers))
    if len(ours) != machine.processors() or ends[-1] > len(ours):
        return [set() for _ in workers]
    return [
        set(ours[end - worker.threads : end]) for end, worker in zip(ends, workers, strict=True)
    ]


@contextmanager
def _noting() -> Iterator[list[signal.Signals]]:
    """Give the list of the signals that come, instead of what they else would do."""
    came: list[signal.Signals] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(signal.Signals(number))

    before: dict[signal.Signals, Any] = {s: signal.signal(s, note) for s in FORWARDED}
    try:
        yield came
    finally:
        for wanted, handler in before.items():
            signal.signal(wanted, handler)


@contextmanager
def _not_left_alone(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Stop what was started if it cannot be watched to its end."""
    try:
        yield
    except BaseException:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        raise


def _conclude(
    workers: Sequence[Worker], codes: Sequence[int], asked: Sequence[signal.Signals]
) -> None:
    # A worker that a signal ended before it could listen stopped as well.
    stops = {EXIT_STOPPED, EXIT_INTERRUPTED, *(-FORWARDED[came] for came in asked)}
    ended = list(zip(workers, codes, strict=True))
    if failed := [(worker, code) for worker, code in ended if code not in {0, *stops}]:
        if all(code == EXIT_BAD_INPUT for _, code in failed):
            raise BadInput(Problem(str(w), _how_it_ended(code)) for w, code in failed)
        raise Failed("\n".join(f"{worker} {_how_it_ended(code)}" for worker, code in failed))
    if stopped := [code for _, code in ended if code in stops]:
        raise Stopped(
            f"stopped: {len(stopped)} of {len(codes)} workers have work left; "
            "it is safe on disk, run it again to go on",
            EXIT_INTERRUPTED if signal.SIGINT in asked else EXIT_STOPPED,
        )


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}; run it again to go on"
    return f"failed with exit code {code}; its own lines above say why"
