"""Report the progress of a stage: a bar on a terminal, lines in a log, and a status file.

Independent of the kind of work.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from nsynth_super.base.errors import Failed, Stopped
from nsynth_super.base.files import write_json
from nsynth_super.base.text import duration, say

LINE_EVERY = 60.0  # seconds between lines in a log
FIRST_LINES = (2.0, 10.0, 30.0)  # seconds after the start: users watch a run begin
STATUS_EVERY = 2.0  # seconds between status files


class Progress:
    """The progress of one stage.

    Parameters
    ----------
    stage : str
    total : float
        Units, done and to do.
    unit : str
        Name of the unit, in the plural: `clips`.
    status : Path or None
        Status file, written atomically at most every two seconds.
    done : float
        Units that earlier runs did; they do not count towards this run's rate.
    shard : str
    quiet : bool
        Write the status file only, without a bar or lines.
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
        self.done = done
        self._first: tuple[float, float] | None = None  # when this run first advanced, and to what
        self._status_path = status
        self._began = time.monotonic()
        self._started = time.time()
        self._last_status = 0.0
        self._status_failure_reported = False
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
        """Units per second since this run first advanced; 0 while unknown.

        What precedes the first units is not repeated: on a GPU, kernels are compiled and verified.
        """
        if self._first is None:
            return 0.0
        since, done = self._first
        return (self.done - done) / max(time.monotonic() - since, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds left at this run's rate; None while the rate is unknown."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def advance(self, by: float) -> None:
        """Add `by` to the units done; update the bar, the log and the status file if due."""
        self.done = min(self.done + by, self.total)
        now = time.monotonic()
        if self._first is None and by > 0:
            self._first = now, self.done
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
        """Print a line for a log: done/total and, once known, rate and time left."""
        self._lines += 1
        self._last_line = time.monotonic()
        line = (
            f"{self.stage}: {round(self.done, 1):g}/{self.total:g} {self.unit} "
            f"({100 * self.done / max(self.total, 1e-9):.1f}%)"
        )
        if self.left is not None:
            line += f", {self.rate * 3600:,.0f} {self.unit} an hour, {duration(self.left)} left"
        say(line)

    def write_status(self, state: str) -> None:
        """Write the status file; a failure to write it does not stop the work."""
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
        if not self._status_failure_reported:
            self._status_failure_reported = True
            say(f"status: {failed}")

    def close(self, state: str) -> None:
        """Remove the bar and write the status file with `state`."""
        if self._bar is not None:
            self._bar.close()
        self.write_status(state)


@contextmanager
def following(progress: Progress) -> Iterator[Progress]:
    """Yield `progress`; close it as "done", "stopped" or "failed" when the context ends."""
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
    """Return whether the process that wrote a status still runs; None on another host."""
    if status.get("host") != socket.gethostname():
        return None
    try:
        return psutil.Process(int(status["pid"])).create_time() <= float(status["updated"]) + 1
    except (psutil.Error, KeyError, ValueError):
        return False
