"""Run several worker processes on one shard and combine their exit codes.

A worker runs the same command line on its part of the shard, with its own GPU and CPU cores. If one
fails, the message names it, and the others continue: their clips remain valid.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Any

from nsynth_super.base import allocation
from nsynth_super.base.errors import (
    EXIT_BAD_INPUT,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    BadInput,
    Failed,
    Problem,
    Stopped,
)
from nsynth_super.base.text import say
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.blocks import clips_done
from nsynth_super.pack.plan import Plan, Shard
from nsynth_super.runtime.progress import Progress, following
from nsynth_super.runtime.signals import STOPS
from nsynth_super.runtime.worker_plan import Worker

FORWARDED = {**{each: each for each in (*STOPS, signal.SIGINT)}, signal.SIGURG: signal.SIGUSR1}
"""The signal that a worker gets for each signal that this process gets.

A worker that has not installed its handlers yet would ignore SIGURG and continue; SIGUSR1 ends it.
"""
WATCH_EVERY = 0.25  # seconds


def run_workers(
    workspace: Workspace,
    plan: Plan,
    shard: Shard,
    workers: Sequence[Worker],
    command: Sequence[str],
    quiet: bool = False,
) -> None:
    """Decode a shard with several workers and show their combined progress.

    Parameters
    ----------
    workspace : Workspace
    plan : Plan
    shard : Shard
        Shard that the workers divide.
    workers : sequence of Worker
    command : sequence of str
        Command line of a worker, without `Worker.arguments`.
    quiet : bool

    Raises
    ------
    Stopped
        If the workers stopped on a signal, with work left.
    BadInput
        If every failed worker reported bad input.
    Failed
        If any worker failed otherwise, with the name and exit code of each failed worker.
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
        supervise(workers, command, watch)


def _reported(report: Path, pid: int, began: float) -> float:
    """Return the clips done in a worker's status file; 0 if an earlier run wrote the file."""
    try:
        status = json.loads(report.read_text(encoding="utf-8"))
        # Containers reuse process ids; the status file rounds times to seconds.
        current = status["pid"] == pid and status["started"] >= began - 1
        return float(status["done"]) if current else 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def supervise(
    workers: Sequence[Worker],
    command: Sequence[str],
    watch: Callable[[Sequence[subprocess.Popen[bytes]]], None],
) -> None:
    """Start the workers, forward signals, wait for all; raise errors as `run_workers` does."""
    processes: list[subprocess.Popen[bytes]] = []
    forwarded = 0
    with _recorded_signals() as received, _terminated_on_error(processes):
        for worker, cores in zip(workers, _cores(workers), strict=True):
            # In its own session, a worker gets Ctrl-C once: from the forwarding below.
            processes.append(
                subprocess.Popen(
                    [*command, *worker.arguments()],
                    env=worker.environment(),
                    start_new_session=True,
                )
            )
            if cores:
                with suppress(OSError):  # the process has ended, or binding is not allowed
                    os.sched_setaffinity(processes[-1].pid, cores)
        while any(process.poll() is None for process in processes):
            # Not in the handler: it could run between the start of a process and its append.
            for which in received[forwarded:]:
                forwarded += 1
                for process in processes:
                    process.send_signal(FORWARDED[which])
            watch(processes)
            time.sleep(WATCH_EVERY)
        watch(processes)
    _conclude(workers, [process.returncode for process in processes], received)


def _cores(workers: Sequence[Worker]) -> list[set[int]]:
    """Return the cores to bind each worker to; empty sets leave the workers unbound.

    Workers stay unbound if there are fewer cores than threads, or if the allocated cores are
    unknown: Slurm may allocate four of sixteen cores without binding the job to them.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    ends = list(accumulate(worker.threads for worker in workers))
    if len(allowed) != allocation.processors() or ends[-1] > len(allowed):
        return [set() for _ in workers]
    return [
        set(allowed[end - worker.threads : end]) for end, worker in zip(ends, workers, strict=True)
    ]


@contextmanager
def _recorded_signals() -> Iterator[list[signal.Signals]]:
    """Yield the growing list of received signals; their usual handlers are suspended."""
    received: list[signal.Signals] = []

    def record(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number))

    before: dict[signal.Signals, Any] = {s: signal.signal(s, record) for s in FORWARDED}
    try:
        yield received
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextmanager
def _terminated_on_error(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Terminate the processes and wait for them if the context raises."""
    try:
        yield
    except BaseException:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        raise


def _conclude(
    workers: Sequence[Worker], codes: Sequence[int], received: Sequence[signal.Signals]
) -> None:
    # A worker killed by a forwarded signal before it installed its handlers counts as stopped.
    stops = {EXIT_STOPPED, EXIT_INTERRUPTED, *(-FORWARDED[which] for which in received)}
    ended = list(zip(workers, codes, strict=True))
    if failed := [(worker, code) for worker, code in ended if code not in {0, *stops}]:
        if all(code == EXIT_BAD_INPUT for _, code in failed):
            raise BadInput(Problem(str(w), _how_it_ended(code)) for w, code in failed)
        raise Failed("\n".join(f"{worker} {_how_it_ended(code)}" for worker, code in failed))
    if stopped := [code for _, code in ended if code in stops]:
        raise Stopped(
            f"stopped: {len(stopped)} of {len(codes)} workers have work left; "
            "finished work is saved, run it again to resume",
            EXIT_INTERRUPTED if signal.SIGINT in received else EXIT_STOPPED,
        )


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}; run it again to resume"
    return f"failed with exit code {code}; see its messages above"
