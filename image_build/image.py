"""The image: checked for, built, tested, read, and only then given its name."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from building import room, weights
from building.apptainer import Program, follow
from building.builder import Builder
from building.definition import Definition
from nsynth_super.files import explained, sha256, sync
from nsynth_super.problems import Failed, Problem
from nsynth_super.progress import amount

TITLE, VERSION, REVISION = (
    f"org.opencontainers.image.{name}" for name in ("title", "version", "revision")
)
LABELS = (TITLE, VERSION, REVISION, "nsynth.checkpoint.sha256", "nsynth.torch", "nsynth.magenta")
"""What every image says of itself, so that a pack can be traced to what made it."""


@dataclass(frozen=True)
class Image:
    """An image to build.

    Attributes
    ----------
    definition : Definition
    arguments : dict of str to str
        Values for the definition's arguments.
    output : Path
        The file, or the folder of a sandbox; absolute.
    sandbox : bool
    tested : bool
        Whether its own test has a say.
    binds : tuple of str
        Of this machine's files, for the time of the build.
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
        """Where it is until it is whole and tested."""
        return self.output.with_name(f"{self.output.name}.part")

    @property
    def lock(self) -> Path:
        """What a build of it holds."""
        return self.output.with_name(f".{self.output.name}.lock")

    def build_command(self) -> list[str]:
        """Return the command that builds it. Its test comes after, on the very file."""
        given = [_for_csv(f"{name}={value}") for name, value in self.arguments.items()]
        lesser = self.builder.uid != 0 and self.program.family != "apptainer"  # which implies it
        return [
            *(*self.builder.before, self.program.path, "build", "--notest"),
            *(["--sandbox"] if self.sandbox else []),
            *(["--fakeroot"] if lesser else []),
            *(word for bind in self.binds for word in ("--bind", bind)),
            *(word for argument in given for word in ("--build-arg", argument)),
            *(str(self.part), str(self.definition.path)),
        ]

    def test_command(self) -> list[str]:
        """Return the command that tests it, on a GPU if there is one."""
        nv = ["--nv"] if shutil.which("nvidia-smi") else []
        return [*self.builder.before, self.program.path, "test", *nv, str(self.part)]

    def problems(self, needs: Sequence[room.Need]) -> list[Problem]:
        """Return everything that would make a build fail, some of it an hour later."""
        values = {**self.definition.arguments, **self.arguments}
        setuid = self.program.installed_setuid
        mounted = self.tested and not self.sandbox
        found = [
            *self.builder.problems(setuid),
            *(self.builder.problems_with_running(setuid) if mounted else []),
            *self.definition.problems(self.arguments),
            *weights.problems(values, self.definition.folder),
            *room.problems(needs),
        ]
        if self.sandbox and self.output.exists():
            what = "is there already, perhaps with changes of yours"
            found.append(Problem(str(self.output), what, "remove it, or name another"))
        elif self.output.is_dir():
            found.append(Problem(str(self.output), "is a folder", "name a file with --output"))
        return found

    def make(self) -> dict[str, str]:
        """Build it, test it, look at its labels, and give it its name; return the labels.

        Raises
        ------
        Failed
            If any of that does. What had the name before still has it, and is as it was.
        """
        _discard(self.part)  # of a build that was killed
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
            kept = f"; {self.output.name} is as it was" if self.output.exists() else ""
            raise Failed(f"{self.output}: the {what} failed (exit {status}){kept} -> see above why")

    def _labels(self) -> dict[str, str]:
        """Return the labels that every image has, or fail with those that this one has not."""
        labels = self.program.labels(self.part)
        wrong = [f"no label {name}" for name in LABELS if not labels.get(name)]
        for name, argument in ((VERSION, "VERSION"), (REVISION, "REVISION")):
            expected = self.arguments.get(argument, labels.get(name))
            if labels.get(name) and labels[name] != expected:
                wrong.append(f"{name} {labels[name]}, not {expected}")
        if wrong:
            fix = f"see %labels and %post in {self.definition.path}"
            raise Failed(f"{self.part}: has {', '.join(wrong)} -> {fix}")
        return {name: labels[name] for name in LABELS}

    def summary(self, labels: dict[str, str]) -> str:
        """Return what to know of it once it is made, and what to do next."""
        size = self.output.stat().st_size
        lines = [f"{self.output}: a sandbox" if self.sandbox else f"{self.output}: {amount(size)}"]
        lines += [] if self.sandbox else [f"sha256 {sha256(self.output)}"]
        lines += [f"{name} {value}" for name, value in labels.items()]
        run = [Path(self.program.path).name, "run", str(self.output), "new", "my-pack"]
        lesser_root = "APPTAINER_USERNS=1 " if self.builder.before else ""
        return "\n".join([*lines, f"Next: {lesser_root}{shlex.join(run)}"])


def _for_csv(argument: str) -> str:
    """Quote an argument for --build-arg, which takes several with commas between."""
    return '"{}"'.format(argument.replace('"', '""')) if set(argument) & set(',"\n') else argument


def _discard(path: Path) -> None:
    """Remove what never got its name, or say that it is still there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    if path.exists():  # a sandbox, with files of ids that only a namespace has
        remove = shlex.join(["unshare", "--map-root-user", "--map-auto", "rm", "-rf", str(path)])
        click.echo(f"{path}: could not be removed -> {remove}", err=True)
