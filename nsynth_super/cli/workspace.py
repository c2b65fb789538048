"""The commands for a workspace: new, check, status and export."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from nsynth_super.base.errors import BadInput, Problem, errors
from nsynth_super.base.text import amount, duration, say
from nsynth_super.base.workspace import Workspace
from nsynth_super.cli.options import (
    batch_option,
    fill_option,
    model_options,
    open_model,
    settings_of,
    workspace_option,
)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def new(folder: Path) -> None:
    """Create a workspace in FOLDER."""
    from nsynth_super.base.files import write_json

    workspace = Workspace(folder)
    if workspace.settings.exists():
        raise BadInput(Problem(str(workspace.settings), "already exists", "choose another folder"))
    template = {
        "pads": {"NW": ["flute"], "NE": ["marimba"], "SW": ["cello"], "SE": ["piano"]},
        "pitches": list(range(24, 85, 4)),
        "resolution": 9,
        "final_length": 60_000,
    }
    write_json(workspace.settings, template, indent=2)
    workspace.notes.mkdir(exist_ok=True)
    click.echo(
        f"created {folder}. Next:\n"
        f"  1. {workspace.settings}: list your instruments per corner and the MIDI pitches\n"
        f"  2. {workspace.notes}: add a recording of each note, named like flute_60.wav\n"
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
    help="Also write check.html: waveform, spectrum, pitch and level of each note and, if its clip "
    "exists, the rainbowgrams of both.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(ctx: click.Context, /, root: Path, plots: bool, as_json: bool, **options: Any) -> None:
    """List every problem; estimate time and disk space."""
    from nsynth_super.reports import check_page
    from nsynth_super.reports.check import check_workspace

    workspace = Workspace(root)
    if plots:
        check_page.require()
    report = check_workspace(
        workspace, lambda: open_model(**options), options["fill"], options["batch_clips"]
    )
    # Do not create a missing workspace.
    plots = plots and root.is_dir()
    page = check_page.write_check_page(workspace, report, ctx.obj["quiet"]) if plots else None
    if as_json:
        content = report.as_dict() | ({"report": str(page)} if page else {})
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
    else:
        _print_report(report, page, _run_command(ctx))
    ctx.exit(0 if report.ready else 2)


def _run_command(ctx: click.Context) -> str:
    """Return the command line of `run` with the same options as this `check`."""
    words = ["nsynth-super", "run"]
    for option in ctx.command.params:
        name = str(option.name)
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ("plots", "as_json"):
            words += [option.opts[0], str(ctx.params[name])]
    return shlex.join(words)


def _print_report(report: Any, page: Path | None, next_command: str) -> None:
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
            f", {duration(left)} left" if left is not None and left < report.seconds * 0.99 else ""
        )
        click.echo(f"time    about {duration(report.seconds)} on this machine{done}")
    if page is not None:
        click.echo(f"report  {page}")
    found = len(errors(report.problems))
    click.echo(
        f"ready: {next_command}"
        if not found
        else f"{found} problem{'s' * (found > 1)} to fix first"
    )


@click.command()
@workspace_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(root: Path, as_json: bool) -> None:
    """Show the progress of the pack."""
    from nsynth_super.reports import status as report

    found = report.collect(Workspace(root))
    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(report.lines(found)))


@click.command()
@workspace_option
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--raw",
    is_flag=True,
    help="Write the model's output: no levelling, trimming or fades.",
)
@click.pass_obj
def export(obj: dict[str, bool], /, root: Path, folder: Path, raw: bool) -> None:
    """Write the clips generated so far to FOLDER as 16-bit WAV."""
    from nsynth_super.stages.export import export_clips

    workspace = Workspace(root)
    written = export_clips(workspace, settings_of(workspace, True), folder, raw)
    if not obj["quiet"]:
        say(f"export: wrote {written} clips to {folder}")
