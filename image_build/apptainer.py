"""Apptainer, or SingularityCE: found, asked what it is, run with its output as it comes.

Knows nothing of what is built. spython asks the questions; it is not let near the build itself,
for reasons that stand at `follow`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from spython.main import Client

from nsynth_super.problems import Problem

OLDEST = {"apptainer": (1, 2), "singularity": (4, 0)}
"""The first releases that know %arguments; SingularityCE and SingularityPRO count alike."""

_GRACE = 120.0  # seconds that a stopped build has to take away its gigabytes of temporary files
_GET_IT = (
    "install Apptainer 1.2 or newer (apptainer.org, packages for most Linuxes; tests/cluster/setup "
    "does it on Debian 12), or `module load` it"
)


@dataclass(frozen=True)
class Program:
    """A program that builds images.

    Attributes
    ----------
    path : str
        Its file; a bare name where there is none.
    family : str
        `apptainer` or `singularity`: how its variables and its cache are called.
    """

    path: str
    family: str = "apptainer"

    def variable(self, name: str) -> str | None:
        """Return $APPTAINER_<name>, or the $SINGULARITY_<name> that Apptainer falls back to."""
        own = os.environ.get(f"{self.family.upper()}_{name}")
        return own or os.environ.get(f"SINGULARITY_{name}") or None

    @property
    def installed_setuid(self) -> bool:
        """Whether it may become root, and so makes user namespaces without leave."""
        with suppress(OSError):
            told = subprocess.run([self.path, "buildcfg"], capture_output=True, text=True)
            return "_SUID_INSTALL=1" in told.stdout
        return False

    def labels(self, image: Path) -> dict[str, str]:
        """Return what an image, or a sandbox, says of itself; empty if it cannot be read."""
        with _known_to_spython(self.path):
            told: dict[str, Any] = Client.inspect(str(image), quiet=True)
        return dict(told.get("attributes", {}).get("labels") or {})


def find() -> tuple[Program, list[Problem]]:
    """Return the program on the PATH, Apptainer before Singularity, and what is wrong with it."""
    path = shutil.which("apptainer") or shutil.which("singularity")
    if path is None:
        what = "neither it nor singularity is on the PATH"
        return Program("apptainer"), [Problem("apptainer", what, _GET_IT)]
    with _known_to_spython(path):
        told = Client.version()
    says = told.strip() if isinstance(told, str) else ""
    match = re.match(r"(apptainer|singularity)\S* version (\d+)\.(\d+)", says)
    if match is None:
        what = f"`{path} --version` says {says!r}, which names no version"
        return Program(path), [Problem(path, what, _GET_IT)]
    family, version = match[1], (int(match[2]), int(match[3]))
    if version < OLDEST[family]:
        what = f"is {says}, which knows no %arguments; Apptainer 1.2 or SingularityCE 4.0 does"
        return Program(path, family), [Problem(path, what, _GET_IT)]
    return Program(path, family), []


@contextmanager
def _known_to_spython(path: str) -> Iterator[None]:
    """Let `singularity` mean `path`: spython calls no other name, and it may be absent."""
    named = shutil.which("singularity")
    if named and os.path.samefile(named, path):
        yield
        return
    before = os.environ["PATH"]
    with tempfile.TemporaryDirectory(prefix="nsynth-build-") as folder:
        stand_in = Path(folder, "singularity")
        stand_in.write_text(f'#!/bin/sh\nexec {shlex.quote(path)} "$@"\n', encoding="utf-8")
        stand_in.chmod(0o755)
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before


def follow(command: Sequence[str], folder: Path) -> int:
    """Run a command in a folder, show what it says as it says it, and return its exit status.

    However this ends, nothing of the command goes on. `spython.utils.stream_command` would do for
    the first half: it raises at the first byte that is no UTF-8, and leaves the build running.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C comes to us alone, and we end all of it, once
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            click.echo(line, nl=False, err=True)
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[str]) -> None:
    """Ask a command and all its children to end, wait for it to tidy up, and see that it did."""
    try:
        _signal(process, signal.SIGTERM)
        process.communicate(timeout=_GRACE)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        pass
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[str], which: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # ended, or another user's by now
        os.killpg(process.pid, which)
