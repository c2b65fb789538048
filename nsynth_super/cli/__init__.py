"""`nsynth-super …`: parses, calls a stage, prints what a person needs. Decides nothing else."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import click

from nsynth_super import __version__
from nsynth_super.cli import looking, making
from nsynth_super.cli.bench import bench
from nsynth_super.cli.card import install, verify
from nsynth_super.cli.checkpoint import checkpoint
from nsynth_super.cli.notes import notes
from nsynth_super.cli.preview import preview
from nsynth_super.files import explained
from nsynth_super.problems import EXIT_FAILED, EXIT_INTERRUPTED, NsynthSuperError, Stopped
from nsynth_super.progress import say


class _InOrder(click.Group):
    """Lists its commands as they are used, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(self.commands)


@click.group(
    cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="nsynth-super")
@click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong.")
@click.option("-v", "--verbose", is_flag=True, help="Show a traceback if something breaks.")
@click.pass_context
def cli(ctx: click.Context, quiet: bool, verbose: bool) -> None:
    """Make your own sounds for the Open NSynth Super: from recorded notes to pads.

    \b
    nsynth-super new my-pack      a folder to fill in: settings.json, audio_input/
    nsynth-super check            everything that could go wrong, and how long it will take
    nsynth-super run              prepare, generate, pads
    nsynth-super status           how far it is, from any other shell
    nsynth-super preview          play the pad in a browser
    nsynth-super install TARGET   put the pack onto the instrument's card

    Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped with work left (run it again),
    130 interrupted.
    """  # noqa: D301 - \b is click's
    ctx.obj = {"quiet": quiet, "verbose": verbose}


for command in (
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
    """Run the command line, and end with the exit code that says how it went."""
    words = sys.argv[1:]
    # They belong to every command, so they may stand anywhere.
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
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = EXIT_FAILED
    except Exception as error:
        if verbose:
            traceback.print_exc()
        elif isinstance(error, OSError) and error.filename:
            say(f"error: {explained(error, Path(error.filename))}")
        else:
            say(f"error: {type(error).__name__}: {error} -> -v shows where; please report it")
        code = EXIT_FAILED
    sys.exit(code)
