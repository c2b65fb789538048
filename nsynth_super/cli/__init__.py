"""The `nsynth-super` command line: parses arguments, calls a stage and prints its result."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import click

from nsynth_super import __version__
from nsynth_super.base.errors import EXIT_FAILED, EXIT_INTERRUPTED, NsynthSuperError, Stopped
from nsynth_super.base.files import explained
from nsynth_super.base.text import say
from nsynth_super.cli import pipeline as making
from nsynth_super.cli import workspace as looking
from nsynth_super.cli.bench import bench
from nsynth_super.cli.checkpoint import checkpoint
from nsynth_super.cli.demo import demo
from nsynth_super.cli.notes import notes
from nsynth_super.cli.preview import preview
from nsynth_super.cli.synth import install, verify


class _InOrder(click.Group):
    """List commands in the order of their use, not alphabetically."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)


@click.group(
    cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="nsynth-super")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option(
    "-v", "--verbose", is_flag=True, help="Print tracebacks and the output of other programs."
)
@click.pass_context
def cli(ctx: click.Context, quiet: bool, verbose: bool) -> None:
    """Make your own sounds for the Open NSynth Super: from recorded notes to pads.

    \b
    nsynth-super demo             make a small pack from bundled notes, and a page to play it
    nsynth-super new my-pack      create a workspace: settings.json, audio_input/
    nsynth-super check            find problems, estimate time and disk space
    nsynth-super run              prepare, generate, pads
    nsynth-super status           show progress, from any shell
    nsynth-super preview          play the pack in a browser
    nsynth-super install TARGET   copy the pack to the synth's SD card

    Exit codes: 0 success, 1 failure, 2 invalid input, 75 stopped with work left (run it again),
    130 interrupted.
    """  # noqa: D301 - \b is click's
    ctx.obj = {"quiet": quiet, "verbose": verbose}


for command in (
    demo,
    looking.new,
    notes,
    looking.check,
    making.prepare,
    making.generate,
    making.pads,
    making.run,
    looking.status,
    preview,
    install,
    verify,
    looking.export,
    checkpoint,
    bench,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line and exit with its exit code."""
    words = sys.argv[1:]
    # Global options are accepted anywhere, also after the command.
    common = [word for word in words if word in ("-q", "--quiet", "-v", "--verbose")]
    verbose = "-v" in common or "--verbose" in common
    try:
        code = cli.main(
            [*common, *(word for word in words if word not in common)],
            prog_name="nsynth-super",
            standalone_mode=False,
        )
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except NsynthSuperError as error:
        prefix = "" if isinstance(error, Stopped) else "error: "
        for line in str(error).splitlines():
            say(prefix + line)
        code = error.exit_code
    except BrokenPipeError:  # the reader of stdout has closed it, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = EXIT_FAILED
    except Exception as error:
        if verbose:
            traceback.print_exc()
        elif isinstance(error, OSError) and error.filename:
            say(f"error: {explained(error, Path(error.filename))}")
        else:
            what = f"{type(error).__name__}: {error}"
            say(f"error: {what} -> -v prints the traceback; please report it")
        code = EXIT_FAILED
    sys.exit(code)
