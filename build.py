"""Build nsynth.sif from Singularity.def, after checks that a build can succeed.

Run `make image`, or `.venv/bin/python build.py` afterwards; --help lists the options. This is the
command line of image_build/; docs/image.md describes the image.
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

from image_build import apptainer, definition, disk_space
from image_build.builder import Builder
from image_build.image import Image
from nsynth_super import __version__
from nsynth_super.base.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    NsynthSuperError,
    Problem,
    Stopped,
    refuse,
)
from nsynth_super.base.files import only_one

REPOSITORY = Path(__file__).resolve().parent
DEFINITION = REPOSITORY / "Singularity.def"


def _revision() -> str:
    """Return the commit that the image is built from, with `-dirty` if files differ from it."""
    describe = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    with suppress(OSError):
        return subprocess.run(describe, capture_output=True, text=True).stdout.strip() or "unknown"
    return "unknown"


def _pairs(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    for argument in given:
        if not argument.partition("=")[0] or "=" not in argument:
            raise click.BadParameter(f"{argument!r} is not NAME=VALUE")
    return dict(argument.split("=", 1) for argument in given)


_FILE = click.Path(path_type=Path, resolve_path=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--output", type=_FILE, help="The image [default: nsynth.sif here].")
@click.option("--sandbox", type=_FILE, help="Build a folder instead, to inspect or change.")
@click.option("--checkpoint", type=_FILE, help="A .tar, .safetensors or folder, not a download.")
@click.option(
    "--build-arg",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_pairs,
    help="Set one of the definition's arguments; repeatable.",
)
@click.option(
    "--bind", "binds", multiple=True, metavar="SRC:DST", help="For the build only; repeatable."
)
@click.option("--no-test", is_flag=True, help="Skip the image's own test.")
@click.option("--anyway", is_flag=True, help="Build despite the problems found.")
@click.option("--dry-run", is_flag=True, help="Print the commands without running them.")
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
    """Build nsynth.sif, the container image that turns notes into pads.

    Lists every problem that would make the build fail before it starts. An existing image is
    replaced only after the new one has passed its test.

    Exit codes: 0 done, 1 failed, 2 invalid input, 75 stopped, 130 interrupted.
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
    # The sizes are known for our definition alone.
    needs = disk_space.needs(program, image.output, image.sandbox) if path == DEFINITION else []
    _report(problems + image.problems(needs), proceed=anyway or dry_run)
    if dry_run:
        tests = [image.test_command()] if image.tested else []
        for command in [["cd", str(recipe.folder)], image.build_command(), *tests]:
            click.echo(shlex.join(command))
        return
    with only_one(image.lock, f"{image.output}: another build of it runs -> wait for it"):
        labels = image.make()
    click.echo(image.summary(labels))


def _report(problems: list[Problem], proceed: bool) -> None:
    """Print problems as notes if the build proceeds; raise the errors among them otherwise."""
    for problem in problems:
        if proceed or problem.level != "error":
            click.echo(f"note: {problem}", err=True)
    if not proceed:
        refuse(problems)


def _stop(number: int, _frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    raise Stopped(f"stopped by {name}: this build leaves no files; run it again", EXIT_STOPPED)


def main() -> int:
    """Run the command line; return its exit code."""
    for wanted in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(wanted, _stop)
    try:
        cli.main(prog_name="build.py", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: this build leaves no files; run it again", err=True)
        return EXIT_INTERRUPTED
    except NsynthSuperError as error:
        for line in str(error).splitlines():
            click.echo(line if isinstance(error, Stopped) else f"error: {line}", err=True)
        return error.exit_code
    except BrokenPipeError:  # the reader of stdout has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
