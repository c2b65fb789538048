"""A program run beside us: its lines as they come, and its end whenever ours comes.

It is a process group of its own, so that a Ctrl-C at the terminal is ours to answer. The group ends
when whoever reads its lines stops reading, or dies.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

HEARTBEAT = 0.25  # seconds; whoever reads lines hears at least that often
_GRACE = 2.0  # seconds between asking a program to end and ending it
_PR_SET_PDEATHSIG = 1


def run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Generator[str, None, int]:
    """Run a program in `folder`; yield what it says, line by line; return its exit code.

    An empty line comes when `HEARTBEAT` seconds have passed without another. When the generator is
    closed, the program is ended. The exit code is minus the signal's number if one ended it.
    """
    with _started(command, folder, environment) as process:
        yield from _lines(process)
        return process.returncode


@contextmanager
def _started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process in a group of its own; the group is ended with the context."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            _end(process)
        if process.stdout is not None:
            process.stdout.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process group to end, and end it if it does not.

    The leader is waited for last: as long as nobody has, the group's number is nobody else's.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    late = time.monotonic() + _GRACE
    seen = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, process.pid, seen) is None and time.monotonic() < late:
        time.sleep(0.02)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """In the new process: have the system end it when we die, even if we are killed."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _lines(process: subprocess.Popen[bytes]) -> Generator[str, None, None]:
    """Yield what a process writes, line by line, and "" when it is silent, until it ends."""
    assert process.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(HEARTBEAT):
                yield ""
                continue
            read = os.read(process.stdout.fileno(), 1 << 16)
            if not read:
                break
            *whole, rest = (rest + read).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace").rstrip()
    if rest:
        yield rest.decode(errors="replace").rstrip()
    while process.poll() is None:
        time.sleep(HEARTBEAT)
        yield ""
