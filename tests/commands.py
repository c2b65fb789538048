"""Run commands of nsynth-super in processes that have imported PyTorch already.

A fork server imports the program once, and every command is a fork of it: importing PyTorch takes
two seconds in each new process, which would be most of the time of these tests. A command gets its
own environment, folder, umask, standard streams and exit code, as from a shell. What Python and
libraries read only once, when they start (PYTHONHASHSEED, OMP_NUM_THREADS, the order of imports),
needs a new process: the fixture `new_process`.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "__main__",
        "nsynth_super.cli",
        "nsynth_super.engines.pytorch",
        "nsynth_super.reports.check",
        "nsynth_super.stages.pads",
    ]
)
_READ_AT_START = ("PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "LD_")


def nsynth_super(*words: object) -> list[str]:
    """Return the argv of the command line under test, for a new process."""
    code = "from nsynth_super.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, words)]


def start(
    words: Sequence[object],
    environment: Mapping[str, str],
    streams: tuple[IO[Any], IO[Any], IO[Any]],
    *,
    folder: Path | None = None,
    before: str = "",
    measures: bool = False,
) -> Any:
    """Start a command, and return its process, a `multiprocessing.Process`.

    Parameters
    ----------
    words
        Of its command line.
    environment : mapping of str to str
        All of it.
    streams : tuple of files
        Its stdin, stdout and stderr.
    folder : Path or None
        To run in; by default the current one.
    before : str
        Python code to run before it.
    measures : bool
        Whether it measures the engine's speed, which takes seconds, or takes it as given.
    """
    for name, value in environment.items():
        if name.startswith(_READ_AT_START) and os.environ.get(name) != value:
            raise ValueError(f"{name} is read when a process starts: use `new_process`")
    umask = os.umask(0o077)
    os.umask(umask)
    given = [Connection(os.dup(stream.fileno())) for stream in streams]
    try:
        state = ([*map(str, words)], dict(environment), str(folder or Path.cwd()), umask)
        process = _FORKS.Process(target=_command, args=(given, *state, before, measures))
        process.start()
    finally:
        for connection in given:
            connection.close()
    return process


def run(
    words: Sequence[object], environment: Mapping[str, str], timeout: float = 300, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does with captured output; see `start`."""
    with (
        open(os.devnull) as nothing,
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
    ):
        process = start(words, environment, (nothing, out, err), **options)
        process.join(timeout)
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
        said = [stream.seek(0) or stream.read() for stream in (out, err)]
    if late:
        raise subprocess.TimeoutExpired(["nsynth-super", *map(str, words)], timeout, *said)
    return subprocess.CompletedProcess(["nsynth-super", *words], process.exitcode, *said)


def _command(
    streams: list[Connection],
    words: list[str],
    environment: dict[str, str],
    folder: str,
    umask: int,
    before: str,
    measures: bool,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.umask(umask)
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    # As Python opens them when it starts: buffered by lines only on a terminal, but for stderr.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    sys.argv = ["nsynth-super", *words]
    if not measures:
        _take_speed_as_given()
    exec(before, {"os": os, "sys": sys})
    from nsynth_super.cli import main

    main()


def _take_speed_as_given() -> None:
    """Spare a command the seconds for which it would measure the engine."""
    from nsynth_super.engines.pytorch import TorchEngine

    def step(_: TorchEngine, clips: int, seconds: float = 0.0) -> float:
        return 1e-5 * clips

    def products(_: TorchEngine, clips: int, seconds: float = 0.0) -> float:
        return 0.5e-5 * clips

    TorchEngine.measure = step  # type: ignore[method-assign]
    TorchEngine.measure_products = products  # type: ignore[method-assign]
    TorchEngine.measure_encoder = lambda _: 0.01  # type: ignore[method-assign]
