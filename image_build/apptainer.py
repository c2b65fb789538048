"""Apptainer or SingularityCE: find it, query it, run it and stream its output.

Knows nothing about what is built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import click
from spython.main.inspect import parse_labels
from spython.utils import run_command

from nsynth_super.base.errors import Problem
from nsynth_super.runtime import subprocesses

OLDEST = {"apptainer": (1, 2), "singularity": (4, 0)}
"""The first releases with %arguments; the same for SingularityCE and SingularityPRO."""

_GRACE = 120.0  # seconds for a stopped build to remove its gigabytes of temporary files
_INSTALL = (
    "install Apptainer 1.2 or newer (apptainer.org has packages for most Linux distributions; "
    "tests/cluster/setup installs it on Debian 12), or `module load` it"
)


@dataclass(frozen=True)
class Program:
    """A program that builds images.

    Attributes
    ----------
    path : str
        The program's file; a bare name if it is not installed.
    family : str
        `apptainer` or `singularity`: the prefix of its variables and the name of its cache.
    """

    path: str
    family: str = "apptainer"

    def variable(self, name: str) -> str | None:
        """Return $APPTAINER_<name>, or $SINGULARITY_<name>, to which Apptainer falls back."""
        own = os.environ.get(f"{self.family.upper()}_{name}")
        return own or os.environ.get(f"SINGULARITY_{name}") or None

    @property
    def installed_setuid(self) -> bool:
        """Whether it can become root, and so needs no unprivileged user namespaces."""
        with suppress(OSError):
            done = subprocess.run([self.path, "buildcfg"], capture_output=True, text=True)
            return "_SUID_INSTALL=1" in done.stdout
        return False

    def labels(self, image: Path) -> dict[str, str]:
        """Return the labels of an image or a sandbox; empty if it cannot be read."""
        answer = _output([self.path, "inspect", "--json", "--labels", str(image)])
        if not answer:
            return {}
        return dict(parse_labels(json.loads(answer)["data"])["attributes"]["labels"])


def find() -> tuple[Program, list[Problem]]:
    """Return the program on the PATH, Apptainer before Singularity, and its problems."""
    path = shutil.which("apptainer") or shutil.which("singularity")
    if path is None:
        what = "not on the PATH, and neither is singularity"
        return Program("apptainer"), [Problem("apptainer", what, _INSTALL)]
    printed = _output([path, "--version"]).strip()
    match = re.match(r"(apptainer|singularity)\S* version (\d+)\.(\d+)", printed)
    if match is None:
        what = f"`{path} --version` prints {printed!r}, which is not a version"
        return Program(path), [Problem(path, what, _INSTALL)]
    family, version = match[1], (int(match[2]), int(match[3]))
    if version < OLDEST[family]:
        what = f"is {printed}, without %arguments; Apptainer 1.2 or SingularityCE 4.0 has them"
        return Program(path, family), [Problem(path, what, _INSTALL)]
    return Program(path, family), []


def _output(command: Sequence[str]) -> str:
    """Return what a command prints; empty if it fails.

    `spython.main.Client` would run whatever `singularity` means on the PATH.
    """
    with suppress(OSError, UnicodeDecodeError):
        done = run_command(list(command), quiet=True)
        if done["return_code"] == 0 and done["message"]:
            return str(done["message"][0])
    return ""


def follow(command: Sequence[str], folder: Path) -> int:
    """Run a command in a folder, stream its output to stderr, and return its exit status.

    If this raises, the command and its children have ended. `spython.utils.stream_command` raises
    at the first byte that is not UTF-8, and leaves the build running.
    """
    with closing(subprocesses.stream_lines(command, folder, os.environ, grace=_GRACE)) as lines:
        while True:
            try:
                line = next(lines)
            except StopIteration as ended:
                return int(ended.value)
            if line:  # an empty one says only that the command is running
                click.echo(line, err=True)
