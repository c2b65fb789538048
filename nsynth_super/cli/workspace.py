"""The commands around the work: new, check, status, export."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from nsynth_super.cli.options import (
    batch_option,
    fill_option,
    model_options,
    open_model,
    settings_of,
    workspace_option,
)
from nsynth_super.problems import BadInput, Problem, errors
from nsynth_super.progress import amount, duration, say
from nsynth_super.workspace import Workspace


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def new(folder: Path) -> None:
    """Make FOLDER: a workspace to fill in."""
    from nsynth_super.files import write_json

    workspace = Workspace(folder)
    if workspace.settings.exists():
        raise BadInput(
            Problem(str(workspace.settings), "is there already", "choose another folder")
        )
    template = {
        "pads": {"NW": ["flute"], "NE": ["marimba"], "SW": ["cello"], "SE": ["piano"]},
        "pitches": list(range(24, 85, 4)),
        "resolution": 9,
        "final_length": 60_000,
    }
    write_json(workspace.settings, template, indent=2)
    workspace.notes.mkdir(exist_ok=True)
    click.echo(
        f"{folder} is ready to fill in:\n"
        f"  1. {workspace.settings}: your instruments by corner, the MIDI pitches you recorded\n"
        f"  2. {workspace.notes}: a recording of each note, named like flute_60.wav\n"
        f"  3. nsynth-super check -w {folder}"
    )


@click.command()
@workspace_option
@model_options
@fill_option
@batch_option
@click.option(
    "--plots",
    is_flag=True,
    help="Write check.html too: each note's waveform, spectrum, pitch and level, and once its clip "
    "is made, its rainbowgram beside the clip's.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(ctx: click.Context, /, root: Path, plots: bool, as_json: bool, **options: Any) -> None:
    """List all that is wrong; say how long and how large it gets."""
    from nsynth_super import check as checking
    from nsynth_super import report as drawing

    workspace = Workspace(root)
    if plots:
        drawing.require()
    report = checking.run(
        workspace, lambda: open_model(**options), options["fill"], options["batch_clips"]
    )
    # Where there is no workspace, none is made.
    plots = plots and root.is_dir()
    page = drawing.write(workspace, report, ctx.obj["quiet"]) if plots else None
    if as_json:
        said = report.as_dict() | ({"report": str(page)} if page else {})
        click.echo(json.dumps(said, indent=1, ensure_ascii=False))
    else:
        _print_report(report, page)
    ctx.exit(0 if report.ready else 2)


def _then_run() -> str:
    """Return the command line of `run` with the options that `check` was given."""
    words = ["run" if word == "check" else word for word in sys.argv[1:] if word != "--plots"]
    return shlex.join(["nsynth-super", *words])


def _print_report(report: Any, page: Path | None) -> None:
    for problem in report.problems:
        click.echo(f"{problem.level}: {problem}")
    if report.clips:
        click.echo(f"clips   {report.clips:,}")
        click.echo(f"pads    {report.pads:,}")
        click.echo(f"disk    {amount(report.bytes)}")
    if report.seconds is not None:
        click.echo(f"engine  {report.engine}")
        left = report.seconds_left
        done = (
            f", {duration(left)} of it left"
            if left is not None and left < report.seconds * 0.99
            else ""
        )
        click.echo(f"time    about {duration(report.seconds)} on this machine{done}")
    if page is not None:
        click.echo(f"report  {page}")
    found = len(errors(report.problems))
    click.echo(
        f"ready: {_then_run()}"
        if not found
        else f"{found} problem{'s' * (found > 1)} to solve first"
    )


@click.command()
@workspace_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(root: Path, as_json: bool) -> None:
    """Say how far the pack is."""
    from nsynth_super import status as reporting

    found = reporting.collect(Workspace(root))
    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(reporting.lines(found)))


@click.command()
@workspace_option
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--raw", is_flag=True, help="As the model drew them: no levelling, no cut, no fades.")
@click.pass_obj
def export(obj: dict[str, bool], /, root: Path, folder: Path, raw: bool) -> None:
    """Write the clips made so far into FOLDER as 16-bit WAV."""
    from nsynth_super.stages import export as stage

    workspace = Workspace(root)
    written = stage.run(workspace, settings_of(workspace, True), folder, raw)
    if not obj["quiet"]:
        say(f"export: {written} clips written to {folder}")
