"""Handle the signals that request a stop with the work saved."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from nsynth_super.base.errors import EXIT_INTERRUPTED, EXIT_STOPPED, Stopped

STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGURG)
"""Signals that request a stop with the work saved.

Slurm signals every process of a step, including the one through which an unprivileged Apptainer
reads its image. SIGUSR1 would kill that process, and the run with it. SIGURG is ignored by default.
"""


def stop_at_once() -> None:
    """Exit with `EXIT_STOPPED` on any of `STOPS`, until a `Stop` takes over.

    This covers the seconds that loading a model takes. The handler raises no exception because
    imported code might swallow it.
    """

    def exit_now(number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        os.write(2, f"stopped by {name} before work began; run it again to resume\n".encode())
        os._exit(EXIT_STOPPED)

    for which in STOPS:
        signal.signal(which, exit_now)


class Stop:
    """Context manager that records `STOPS` and SIGINT until the work polls for them with `here`.

    A second SIGINT interrupts the process at once.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        for which in (*STOPS, signal.SIGINT):
            self._before[which] = signal.signal(which, self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for which, before in self._before.items():
            signal.signal(which, before)
        if kind is None:
            self.here(lambda: "all started work is complete on disk; run it again to resume")

    def _record(self, number: int, _frame: FrameType | None) -> None:
        received = signal.Signals(number)
        if self.signal == received == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = received

    def here(self, save: Callable[[], str]) -> None:
        """If a stop was requested, call `save` and raise `Stopped` with the text it returns."""
        if self.signal is None:
            return
        code = EXIT_INTERRUPTED if self.signal is signal.SIGINT else EXIT_STOPPED
        raise Stopped(f"stopped by {self.signal.name}: {save()}", code)
