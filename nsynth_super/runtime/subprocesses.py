"""Run a program, stream its output by line, and end it no later than this process.

The program runs in its own process group, so that only this process receives a Ctrl-C from the
terminal. The group is killed when the reader of the lines stops or dies.
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

HEARTBEAT = 0.25  # seconds; longest silence before an empty line
_GRACE = 2.0  # seconds between SIGTERM and SIGKILL, for a program with little to clean up
_PR_SET_PDEATHSIG = 1


def stream_lines(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], grace: float = _GRACE
) -> Generator[str, None, int]:
    """Run a program in `folder`; yield its output line by line; return its exit code.

    After `HEARTBEAT` seconds without output it yields an empty line. Closing the generator sends
    SIGTERM to the program, and SIGKILL after `grace` seconds. The exit code is the negative signal
    number if a signal killed the program.
    """
    with _started(command, folder, environment, grace) as process:
        yield from _lines(process)
        return process.returncode


@contextmanager
def _started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], grace: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in its own group; end the group when the context ends."""
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
            _end(process, grace)
        if process.stdout is not None:
            process.stdout.close()


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Terminate a process group; kill it after `grace` seconds.

    The leader is reaped last, because the system may then reuse the group's id.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    try:
        while os.waitid(os.P_PID, process.pid, options) is None and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:  # also kill the group if a second Ctrl-C interrupts the wait
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Have the kernel kill the new process when its parent dies; runs in the new process."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _lines(process: subprocess.Popen[bytes]) -> Generator[str, None, None]:
    """Yield a process's output line by line until it ends, and "" during silence."""
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
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace").rstrip()
    if rest:
        yield rest.decode(errors="replace").rstrip()
    while process.poll() is None:
        time.sleep(HEARTBEAT)
        yield ""
