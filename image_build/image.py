"""Build an image under a temporary name, test it, check its labels, then rename it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from image_build import disk_space, weights
from image_build.apptainer import Program, follow
from image_build.builder import Builder
from image_build.definition import Definition
from nsynth_super.base.errors import Failed, Problem
from nsynth_super.base.files import explained, sha256, sync
from nsynth_super.base.text import amount

TITLE, VERSION, REVISION = (
    f"org.opencontainers.image.{name}" for name in ("title", "version", "revision")
)
LABELS = (TITLE, VERSION, REVISION, "nsynth.checkpoint.sha256", "nsynth.torch", "nsynth.magenta")
"""Labels that every image has, so that a pack can be traced to the software that made it."""


@dataclass(frozen=True)
class Image:
    """An image to build.

    Attributes
    ----------
    definition : Definition
    arguments : dict of str to str
        Values for the definition's arguments.
    output : Path
        The image file, or the sandbox folder; absolute.
    sandbox : bool
    tested : bool
        Whether to run %test on the built image.
    binds : tuple of str
        Bind mounts during the build, as SRC:DST.
    program : Program
    builder : Builder
    """

    definition: Definition
    arguments: dict[str, str]
    output: Path
    sandbox: bool
    tested: bool
    binds: tuple[str, ...]
    program: Program
    builder: Builder

    @property
    def part(self) -> Path:
        """The temporary name, until the image is complete and tested."""
        return self.output.with_name(f"{self.output.name}.part")

    @property
    def lock(self) -> Path:
        """The lock file that a build holds."""
        return self.output.with_name(f".{self.output.name}.lock")

    def build_command(self) -> list[str]:
        """Return the command that builds it; `test_command` then tests the finished file."""
        given = [_for_csv(f"{name}={value}") for name, value in self.arguments.items()]
        # Apptainer implies --fakeroot for ordinary users; SingularityCE does not.
        fakeroot = self.builder.uid != 0 and self.program.family != "apptainer"
        return [
            *(*self.builder.prefix, self.program.path, "build", "--notest"),
            *(["--sandbox"] if self.sandbox else []),
            *(["--fakeroot"] if fakeroot else []),
            *(word for bind in self.binds for word in ("--bind", bind)),
            *(word for argument in given for word in ("--build-arg", argument)),
            *(str(self.part), str(self.definition.path)),
        ]

    def test_command(self) -> list[str]:
        """Return the command that tests it, on a GPU if there is one."""
        nv = ["--nv"] if shutil.which("nvidia-smi") else []
        return [*self.builder.prefix, self.program.path, "test", *nv, str(self.part)]

    def problems(self, needs: Sequence[disk_space.Need]) -> list[Problem]:
        """Return everything known to make a build fail, some of it only after an hour."""
        values = {**self.definition.arguments, **self.arguments}
        setuid = self.program.installed_setuid
        mounted = self.tested and not self.sandbox
        found = [
            *self.builder.problems(setuid),
            *(self.builder.problems_with_running(setuid) if mounted else []),
            *self.definition.problems(self.arguments),
            *weights.problems(values, self.definition.folder),
            *disk_space.problems(needs),
        ]
        if self.sandbox and self.output.exists():
            what = "already exists, perhaps with your changes"
            found.append(Problem(str(self.output), what, "remove it, or name another"))
        elif self.output.is_dir():
            found.append(Problem(str(self.output), "is a folder", "name a file with --output"))
        return found

    def make(self) -> dict[str, str]:
        """Build it, test it, check its labels and rename it; return the labels.

        Raises
        ------
        Failed
            If a step fails. A previous image of this name is unchanged.
        """
        _discard(self.part)  # left by a build that was killed
        try:
            self._run("build", self.build_command())
            if self.tested:
                self._run("test", self.test_command())
            labels = self._labels()
            if not self.sandbox:
                sync(self.part)
            os.replace(self.part, self.output)
            sync(self.output.parent)
            return labels
        except OSError as error:
            raise explained(error, self.output) from error
        finally:
            _discard(self.part)

    def _run(self, what: str, command: Sequence[str]) -> None:
        click.echo(shlex.join(command), err=True)
        if status := follow(command, self.definition.folder):
            kept = f"; {self.output.name} is unchanged" if self.output.exists() else ""
            raise Failed(
                f"{self.output}: the {what} failed (exit {status}){kept} -> see the output above"
            )

    def _labels(self) -> dict[str, str]:
        """Return the image's `LABELS`, or fail and name those that are missing or wrong."""
        labels = self.program.labels(self.part)
        wrong = [f"no label {name}" for name in LABELS if not labels.get(name)]
        for name, argument in ((VERSION, "VERSION"), (REVISION, "REVISION")):
            expected = self.arguments.get(argument, labels.get(name))
            if labels.get(name) and labels[name] != expected:
                wrong.append(f"{name} {labels[name]}, not {expected}")
        if wrong:
            fix = f"check %labels and %post in {self.definition.path}"
            raise Failed(f"{self.part}: wrong labels ({', '.join(wrong)}) -> {fix}")
        return {name: labels[name] for name in LABELS}

    def summary(self, labels: dict[str, str]) -> str:
        """Return a summary of the built image, and the next command to type."""
        size = self.output.stat().st_size
        lines = [f"{self.output}: a sandbox" if self.sandbox else f"{self.output}: {amount(size)}"]
        lines += [] if self.sandbox else [f"sha256 {sha256(self.output)}"]
        lines += [f"{name} {value}" for name, value in labels.items()]
        run = [Path(self.program.path).name, "run", str(self.output), "new", "my-pack"]
        namespaced = "APPTAINER_USERNS=1 " if self.builder.prefix else ""
        return "\n".join([*lines, f"Next: {namespaced}{shlex.join(run)}"])


def _for_csv(argument: str) -> str:
    """Quote an argument for --build-arg, which splits its value at commas."""
    return '"{}"'.format(argument.replace('"', '""')) if set(argument) & set(',"\n') else argument


def _discard(path: Path) -> None:
    """Remove an unfinished image, or print the command that can."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    if path.exists():  # a sandbox with files of user ids that exist only in a namespace
        remove = shlex.join(["unshare", "--map-root-user", "--map-auto", "rm", "-rf", str(path)])
        click.echo(f"{path}: could not be removed -> {remove}", err=True)
