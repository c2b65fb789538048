"""Builds nsynth.sif from Singularity.def: looks first, and puts nothing half-made in place.

`make image`, or, with what that installs, `.venv/bin/python build.py`; --help has the options.
This is the command line; building/ does it, and docs/image.md says what is in the image.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

import click

from building import apptainer, definition, room
from building.builder import Builder
from building.image import Image
from nsynth_super import __version__
from nsynth_super.files import only_one
from nsynth_super.problems import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    NsynthSuperError,
    Problem,
    Stopped,
    refuse,
)

REPOSITORY = Path(__file__).resolve().parent
DEFINITION = REPOSITORY / "Singularity.def"


def _revision() -> str:
    """Return the commit that the image is built from; `-dirty` if it is none quite."""
    describe = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    with suppress(OSError):
        return subprocess.run(describe, capture_output=True, text=True).stdout.strip() or "unknown"
    return "unknown"


def _pairs(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    for argument in given:
        if not argument.partition("=")[0] or "=" not in argument:
            raise click.BadParameter(f"{argument!r} is no NAME=VALUE")
    return dict(argument.split("=", 1) for argument in given)


_FILE = click.Path(path_type=Path, resolve_path=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--output", type=_FILE, help="The image; nsynth.sif here if left out.")
@click.option("--sandbox", type=_FILE, help="Build a folder instead, to look into or to change.")
@click.option("--checkpoint", type=_FILE, help="A .tar, .safetensors or folder: saves a download.")
@click.option(
    "--build-arg",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_pairs,
    help="A value for one of the definition's arguments; repeatable.",
)
@click.option(
    "--bind", "binds", multiple=True, metavar="SRC:DST", help="For the build only; repeatable."
)
@click.option("--no-test", is_flag=True, help="Do not run the image's own test.")
@click.option("--anyway", is_flag=True, help="Build though it looks as if it could not work.")
@click.option("--dry-run", is_flag=True, help="Print the commands, and make nothing.")
@click.option("--definition", "path", type=_FILE, default=DEFINITION, help="Another definition.")
def cli(
    output: Path | None,
    sandbox: Path | None,
    checkpoint: Path | None,
    given: dict[str, str],
    binds: tuple[str, ...],
    no_test: bool,
    anyway: bool,
    dry_run: bool,
    path: Path,
) -> None:
    """Build nsynth.sif: everything that turns notes into pads, in one file.

    What would make the build fail is listed at once, before an hour is spent. An image that is
    already there stays until the new one is whole and has passed its test.

    Exit codes: 0 done, 1 failed, 2 something here is wrong, 75 stopped, 130 interrupted.
    """
    if output and sandbox:
        raise click.UsageError("--output or --sandbox: choose one")
    if checkpoint and "CHECKPOINT" in given:
        raise click.UsageError("--checkpoint or --build-arg CHECKPOINT=…: choose one")
    recipe = definition.read(path)
    ours = {"REVISION": _revision(), "VERSION": __version__}
    arguments = {name: value for name, value in ours.items() if name in recipe.arguments}
    if checkpoint:
        arguments["CHECKPOINT"] = str(checkpoint)
    program, problems = apptainer.find()
    image = Image(
        definition=recipe,
        arguments={**arguments, **given},
        output=sandbox or output or Path.cwd() / "nsynth.sif",
        sandbox=sandbox is not None,
        tested=not no_test,
        binds=binds,
        program=program,
        builder=Builder.me(),
    )
    # How much room another definition's image takes is not known.
    needs = room.needs(program, image.output, image.sandbox) if path == DEFINITION else []
    _look(problems + image.problems(needs), go_on=anyway or dry_run)
    if dry_run:
        tests = [image.test_command()] if image.tested else []
        for command in [["cd", str(recipe.folder)], image.build_command(), *tests]:
            click.echo(shlex.join(command))
        return
    with only_one(image.lock, f"{image.output}: another build of it runs -> wait for that one"):
        labels = image.make()
    click.echo(image.summary(labels))


def _look(problems: list[Problem], go_on: bool) -> None:
    """Say what is worth knowing, and refuse what cannot work unless told to go on."""
    for problem in problems:
        if go_on or problem.level != "error":
            click.echo(f"note: {problem}", err=True)
    if not go_on:
        refuse(problems)


def _stop(number: int, _frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    raise Stopped(f"stopped by {name}: nothing is left of this build; run it again", EXIT_STOPPED)


def main() -> int:
    """Run the command line; return the exit code that says how it went."""
    for wanted in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(wanted, _stop)
    try:
        cli.main(prog_name="build.py", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: nothing is left of this build; run it again", err=True)
        return EXIT_INTERRUPTED
    except NsynthSuperError as error:
        for line in str(error).splitlines():
            click.echo(line if isinstance(error, Stopped) else f"error: {line}", err=True)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
