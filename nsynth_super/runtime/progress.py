"""How far a stage has come: a bar on a terminal, a calm line in a log, a status file always.

Knows nothing of what the work is. `Progress` is told; `Stop` is asked.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from tqdm import tqdm

from nsynth_super.files import write_json
from nsynth_super.problems import EXIT_INTERRUPTED, EXIT_STOPPED, Failed, Stopped

LINE_EVERY = 60.0  # seconds between lines in a log
FIRST_LINES = (2.0, 10.0, 30.0)  # sooner at first: people watch a run begin
STATUS_EVERY = 2.0  # seconds between status files

STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGURG)
"""Ask a run to stop with its work saved.

Slurm sends a signal to every process of a step, among them the one through which an unprivileged
Apptainer reads its image: SIGUSR1 would end it, and the run with it. SIGURG ends nobody who does
not listen.
"""


def duration(seconds: float) -> str:
    """Return a time as a person says it: `45 s`, `12 min`, `5 h 20 min`, `3.5 days`."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    if hours < 36:
        return f"{int(hours)} h {int(minutes % 60):02d} min"
    return f"{hours / 24:.1f} days"


def amount(size: float) -> str:
    """Return a number of bytes as a person says it: `1.5 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit in ("bytes", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


class Progress:
    """The progress of one stage.

    Parameters
    ----------
    stage : str
    total : float
        Of `unit`, done and to do.
    unit : str
        What is counted, in the plural: `clips`.
    done : float
        What earlier runs did; it does not count towards this run's speed.
    status : Path or None
        Where to write the status; written aside and renamed, every two seconds at most.
    shard : str
    quiet : bool
        No bar and no lines; the status file all the same.
    """

    def __init__(
        self,
        stage: str,
        total: float,
        unit: str,
        status: Path | None,
        done: float = 0.0,
        shard: str = "0-of-1",
        quiet: bool = False,
    ) -> None:
        self.stage, self.total, self.unit, self.shard = stage, total, unit, shard
        self.done, self._done_before = done, done
        self._status_path = status
        self._began = time.monotonic()
        self._started = time.time()
        self._last_status = 0.0
        self._lines = 0
        self._last_line = self._began
        self._quiet = quiet
        self._bar: Any = None
        if sys.stderr.isatty() and not quiet:
            bar = "{desc}: {percentage:3.0f}% |{bar}| {n:.1f}/{total:g} {unit}"
            self._bar = tqdm(
                total=total, initial=done, desc=stage, unit=unit, bar_format=bar, leave=False
            )
        self.write_status("running")

    @property
    def rate(self) -> float:
        """Of `unit`, in a second, in this run."""
        return (self.done - self._done_before) / max(time.monotonic() - self._began, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds to go at this run's speed; None before there is a speed."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def advance(self, by: float) -> None:
        """Count `by` more as done; show it where and when it is due."""
        self.done = min(self.done + by, self.total)
        now = time.monotonic()
        if self._bar is not None:
            left = "?" if self.left is None else duration(self.left)
            self._bar.unit = f"{self.unit} · {left} left"
            self._bar.update(self.done - self._bar.n)
        elif not self._quiet and now >= self._next_line():
            self.line()
        if now - self._last_status >= STATUS_EVERY:
            self.write_status("running")

    def _next_line(self) -> float:
        if self._lines < len(FIRST_LINES):
            return self._began + FIRST_LINES[self._lines]
        return self._last_line + LINE_EVERY

    def line(self) -> None:
        """Print one line for a log: done/total, speed, time left."""
        self._lines += 1
        self._last_line = time.monotonic()
        left = "?" if self.left is None else duration(self.left)
        say(
            f"{self.stage}: {round(self.done, 1):g}/{self.total:g} {self.unit} "
            f"({100 * self.done / max(self.total, 1e-9):.1f}%), "
            f"{self.rate * 3600:,.0f} {self.unit} an hour, {left} left"
        )

    def write_status(self, state: str) -> None:
        """Write the status file; a status that cannot be written stops nothing."""
        self._last_status = time.monotonic()
        if self._status_path is None:
            return
        status = {
            "stage": self.stage,
            "shard": self.shard,
            "state": state,
            "done": round(self.done, 3),
            "total": self.total,
            "unit": self.unit,
            "per_hour": round(self.rate * 3600, 3),
            "seconds_left": None if self.left is None else round(self.left),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": round(self._started),
            "updated": round(time.time()),
            **{
                k.lower(): v
                for k in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "CUDA_VISIBLE_DEVICES")
                if (v := os.environ.get(k))
            },
        }
        try:
            write_json(self._status_path, status)
        except Failed as failed:
            self._status_failed(failed)

    def _status_failed(self, failed: Failed) -> None:
        if not getattr(self, "_said", False):
            self._said = True
            say(f"status: {failed}")

    def close(self, state: str) -> None:
        """Take the bar away and leave the status as `state`."""
        if self._bar is not None:
            self._bar.close()
        self.write_status(state)


def say(line: str) -> None:
    """Print a line for people on stderr, without disturbing a bar."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


@contextmanager
def following(progress: Progress) -> Iterator[Progress]:
    """Close `progress` with the state in which the work ended."""
    try:
        yield progress
    except Stopped:
        progress.close("stopped")
        raise
    except BaseException:
        progress.close("failed")
        raise
    progress.close("done")


def alive(status: dict[str, Any]) -> bool | None:
    """Tell whether the process that wrote a status still runs; None if it is another host's."""
    if status.get("host") != socket.gethostname():
        return None
    try:
        return psutil.Process(int(status["pid"])).create_time() <= float(status["updated"]) + 1
    except (psutil.Error, KeyError, ValueError):
        return False


def stop_at_once() -> None:
    """Until work begins: end on one of `STOPS` at once, with the code that says run me again.

    Loading a model takes seconds in which a job may be asked to stop as well as later. Nothing is
    raised: what is imported meanwhile swallows exceptions that it did not expect.
    """

    def asked(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        os.write(2, f"stopped by {name} with nothing under way; run it again to go on\n".encode())
        os._exit(EXIT_STOPPED)

    for wanted in STOPS:
        signal.signal(wanted, asked)


class Stop:
    """Turns `STOPS` and SIGINT into a question that long work asks when it suits it.

    Used as a context; the second SIGINT ends the process at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        for wanted in (*STOPS, signal.SIGINT):
            self._before[wanted] = signal.signal(wanted, self._asked)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for which, before in self._before.items():
            signal.signal(which, before)
        if kind is None:
            self.here(lambda: "what was begun is finished and on disk; run it again to go on")

    def _asked(self, number: int, _frame: FrameType | None) -> None:
        asked = signal.Signals(number)
        if self.signal == asked == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = asked

    def here(self, save: Callable[[], str]) -> None:
        """If a stop was asked for, call `save` and raise `Stopped` with what it says."""
        if self.signal is None:
            return
        code = EXIT_INTERRUPTED if self.signal is signal.SIGINT else EXIT_STOPPED
        raise Stopped(f"stopped by {self.signal.name}: {save()}", code)
