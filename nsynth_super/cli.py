"""`nsynth-super …`: parses, calls a stage, prints what a person needs. Decides nothing else."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nsynth_super import __version__
from nsynth_super.cli_checkpoint import checkpoint
from nsynth_super.files import explained
from nsynth_super.problems import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    BadInput,
    NsynthSuperError,
    Problem,
    Stopped,
    errors,
)
from nsynth_super.progress import amount, duration, say, stop_at_once
from nsynth_super.settings import MAX_SEED, Settings, read
from nsynth_super.workspace import Workspace

if TYPE_CHECKING:
    from nsynth_super.engines import TorchEngine

F = TypeVar("F", bound=Callable[..., Any])


class _Shard(click.ParamType[Any]):
    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from nsynth_super.plan import Shard

        try:
            return value if isinstance(value, Shard) else Shard.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


_workspace = click.option(
    "-w",
    "--workspace",
    "root",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="The pack's folder; the current one by default.",
)
_seed = click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    help="Of the clips' random numbers; settings.json's by default.",
)
_fill = click.option(
    "--fill-missing",
    "fill",
    type=click.Choice(["repeat", "repitch"]),
    help="Fill missing pitches from the nearest: as it is, or re-pitched.",
)
_batch = click.option(
    "--batch-clips",
    type=click.IntRange(64),
    help="Clips to decode at once, in multiples of 64; by default what memory allows.",
)
_model = _options(
    click.option(
        "--engine", type=click.Choice(["auto", "torch"]), default="auto", help="auto is torch."
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu"]), default="auto", help="auto is cpu, for now."
    ),
    click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        help="The model: .safetensors, TensorFlow's prefix, its folder or .tar. "
        "$NSYNTH_CHECKPOINT, or the one that `checkpoint fetch` got, by default.",
    ),
    click.option(
        "--threads", type=click.IntRange(1), help="Of the CPU; one for each core by default."
    ),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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

    Exit codes: 0 done, 1 failed, 2 bad input, 75 stopped with work left (run it again),
    130 interrupted.
    """  # noqa: D301 - \b is click's
    ctx.obj = {"quiet": quiet, "verbose": verbose}


def _open(checkpoint: Path | None, threads: int | None, **_: Any) -> TorchEngine:
    from nsynth_super.engines import open_engine

    return open_engine(checkpoint, threads)


def _settings(workspace: Workspace, quiet: bool) -> Settings:
    stop_at_once()
    settings, problems = read(workspace.settings)
    if settings is None:
        raise BadInput(errors(problems))
    if not quiet:
        for problem in problems:
            say(f"{problem.level}: {problem}")
    return settings


@cli.command()
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


@cli.command()
@_workspace
@_model
@_fill
@_batch
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(ctx: click.Context, /, root: Path, as_json: bool, **options: Any) -> None:
    """List everything that is wrong; say how long the pack takes and how large it will be."""
    from nsynth_super import check as checking

    workspace = Workspace(root)
    report = checking.run(
        workspace, lambda: _open(**options), options["fill"], options["batch_clips"]
    )
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        _print_report(report, root)
    ctx.exit(0 if report.ready else 2)


def _print_report(report: Any, root: Path) -> None:
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
    found = len(errors(report.problems))
    click.echo(
        f"ready: nsynth-super run -w {root}"
        if not found
        else f"{found} problem{'s' * (found > 1)} to solve first"
    )


@cli.command()
@_workspace
@_model
@_seed
@_fill
@click.option(
    "--replan", is_flag=True, help="Plan anew after a change; clips that are still valid are kept."
)
@click.pass_obj
def prepare(obj: dict[str, bool], /, root: Path, replan: bool, **options: Any) -> None:
    """Turn the notes into embeddings, and plan which clips the pack needs."""
    workspace = Workspace(root)
    settings = _settings(workspace, obj["quiet"])
    _prepare(workspace, settings, _open(**options), obj, options["fill"], options["seed"], replan)


def _prepare(
    workspace: Workspace,
    settings: Settings,
    engine: TorchEngine,
    obj: dict[str, bool],
    fill: Any,
    seed: int | None,
    replan: bool,
) -> None:
    from nsynth_super.stages import prepare as stage

    prepared = stage.run(workspace, settings, engine, fill, seed, replan, obj["quiet"])
    if obj["quiet"]:
        return
    kept = f", {prepared.kept} of them kept" if prepared.kept else ""
    planned = (
        f"planned {len(prepared.plan.mixes):,} clips{kept}"
        if prepared.changed
        else "the plan stands"
    )
    say(f"prepare: {prepared.encoded} notes encoded, {planned}")


@cli.command()
@_workspace
@_model
@_batch
@click.option(
    "--shard", type=_Shard(), help="Part I of N, from 0/N to (N-1)/N: one for each machine."
)
@click.pass_obj
def generate(
    obj: dict[str, bool], /, root: Path, shard: Any, batch_clips: int | None, **options: Any
) -> None:
    """Decode the plan's clips; goes on where it stopped."""
    workspace = Workspace(root)
    settings = _settings(workspace, obj["quiet"])
    _generate(workspace, settings, _open(**options), obj, shard, batch_clips)


def _generate(
    workspace: Workspace,
    settings: Settings,
    engine: TorchEngine,
    obj: dict[str, bool],
    shard: Any = None,
    batch_clips: int | None = None,
) -> None:
    from nsynth_super.stages import generate as stage

    generated = stage.run(workspace, settings, engine, shard, batch_clips, obj["quiet"])
    if not obj["quiet"]:
        say(f"generate: {generated.clips:,} clips are there, {generated.made:,} of them made now")


_device_settings = click.option(
    "--device-settings",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The device's present settings.json: its audio, MIDI and looping are kept.",
)


@cli.command()
@_workspace
@_device_settings
@click.pass_obj
def pads(obj: dict[str, bool], /, root: Path, device_settings: Path | None) -> None:
    """Build the pads, the device's settings.json and a manifest from the clips."""
    workspace = Workspace(root)
    _pads(workspace, _settings(workspace, obj["quiet"]), obj, device_settings)


def _pads(
    workspace: Workspace, settings: Settings, obj: dict[str, bool], device_settings: Path | None
) -> None:
    from nsynth_super.device import read_device_settings
    from nsynth_super.stages import pads as stage

    given = read_device_settings(device_settings) if device_settings else None
    pack = stage.run(workspace, settings, given, obj["quiet"])
    if obj["quiet"]:
        return
    state = "written" if pack.made else "there already"
    say(f"pads: {pack.pads} of {amount(settings.pad_bytes)} each {state} in {workspace.pads}")


@cli.command()
@_workspace
@_model
@_seed
@_fill
@_batch
@_device_settings
@click.option(
    "--replan", is_flag=True, help="Plan anew after a change; clips that are still valid are kept."
)
@click.pass_obj
def run(
    obj: dict[str, bool],
    /,
    root: Path,
    replan: bool,
    batch_clips: int | None,
    device_settings: Path | None,
    **options: Any,
) -> None:
    """Do prepare, generate and pads, in this order."""
    workspace = Workspace(root)
    settings = _settings(workspace, obj["quiet"])
    engine = _open(**options)
    _prepare(workspace, settings, engine, obj, options["fill"], options["seed"], replan)
    _generate(workspace, settings, engine, obj, None, batch_clips)
    _pads(workspace, settings, obj, device_settings)
    if not obj["quiet"]:
        say(
            f"Your pack is in {workspace.pads}: copy the .bin files into the device's pads folder, "
            "and let its settings.json take the part 'nsynth' and 'corners' of the one beside them."
        )


@cli.command()
@_workspace
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(root: Path, as_json: bool) -> None:
    """Say how far the pack is."""
    from nsynth_super import status as reporting

    found = reporting.collect(Workspace(root))
    click.echo(json.dumps(found, indent=1) if as_json else "\n".join(reporting.lines(found)))


@cli.command()
@_workspace
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--raw", is_flag=True, help="As the model drew them: no levelling, no cut, no fades.")
@click.pass_obj
def export(obj: dict[str, bool], /, root: Path, folder: Path, raw: bool) -> None:
    """Write the clips made so far into FOLDER as 16-bit WAV."""
    from nsynth_super.stages import export as stage

    workspace = Workspace(root)
    written = stage.run(workspace, _settings(workspace, True), folder, raw)
    if not obj["quiet"]:
        say(f"export: {written} clips written to {folder}")


cli.add_command(checkpoint)


def main() -> None:
    """Run the command line, and end with the exit code that says how it went."""
    words = [word for word in sys.argv[1:] if word.startswith("-")]
    verbose = any(w == "--verbose" or (w[1:2] != "-" and "v" in w) for w in words)
    try:
        code = cli.main(prog_name="nsynth-super", standalone_mode=False)
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
