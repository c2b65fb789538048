"""The commands that make a pack: prepare, generate, pads, and run, which runs all three."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsynth_super.base.text import amount, say
from nsynth_super.base.workspace import Workspace
from nsynth_super.cli.options import (
    ShardType,
    batch_option,
    fill_option,
    model_options,
    open_model,
    seed_option,
    settings_of,
    synth_settings_option,
    workers_option,
    workspace_option,
)
from nsynth_super.settings import Settings

if TYPE_CHECKING:
    from nsynth_super.engines.base import Engine
    from nsynth_super.pack.plan import Shard


_synth_settings_option = synth_settings_option(
    "The synth's current settings.json, whose audio, MIDI and looping settings are kept."
)


@click.command()
@workspace_option
@model_options
@seed_option
@fill_option
@click.option("--replan", is_flag=True, help="Plan again after a change; valid clips are kept.")
@click.pass_obj
def prepare(obj: dict[str, bool], /, root: Path, replan: bool, **options: Any) -> None:
    """Encode the notes as embeddings and plan the clips."""
    workspace = Workspace(root)
    settings = settings_of(workspace, obj["quiet"])
    engine = open_model(**options)
    _prepare(workspace, settings, engine, obj, options["fill"], options["seed"], replan)


def _prepare(
    workspace: Workspace,
    settings: Settings,
    engine: Engine,
    obj: dict[str, bool],
    fill: Any,
    seed: int | None,
    replan: bool,
) -> None:
    from nsynth_super.stages.prepare import run_prepare

    prepared = run_prepare(workspace, settings, engine, fill, seed, replan, obj["quiet"])
    if obj["quiet"]:
        return
    kept = f", {prepared.kept} of them kept" if prepared.kept else ""
    planned = (
        f"planned {len(prepared.plan.mixes):,} clips{kept}"
        if prepared.changed
        else "the plan is unchanged"
    )
    say(f"prepare: {prepared.encoded} notes encoded, {planned}")


@click.command()
@workspace_option
@model_options
@batch_option
@click.option(
    "--shard",
    type=ShardType(),
    help="Part I of N to generate, from 0/N to (N-1)/N; auto reads Slurm's variables.",
)
@workers_option
@click.pass_context
def generate(ctx: click.Context, /, root: Path, **options: Any) -> None:
    """Decode the planned clips; resume where an earlier run stopped."""
    workspace = Workspace(root)
    _generate(ctx, workspace, settings_of(workspace, ctx.obj["quiet"]), None, **options)


def _generate(
    ctx: click.Context,
    workspace: Workspace,
    settings: Settings,
    opened: Engine | None,
    workers: int,
    batch_clips: int | None,
    shard: Shard | None = None,
    **options: Any,
) -> None:
    """Decode in this process, or in several if requested or faster."""
    from nsynth_super.pack.plan import Shard, require
    from nsynth_super.runtime import worker_plan
    from nsynth_super.runtime.workers import run_workers
    from nsynth_super.stages.generate import run_generate
    from nsynth_super.wavenet import checkpoint

    part, quiet = shard or Shard(), ctx.obj["quiet"]
    team = worker_plan.by_request(part, workers, options["threads"], options["device"])
    if len(team) < 2:
        opened = opened or open_model(**options)
        if not workers and not options["threads"] and opened.shares_cores:
            plan = require(workspace.plan, settings)
            team = worker_plan.on_cpu(part, plan, opened.dimensions, opened.memory)
            if len(team) > 1 and not quiet:
                say(f"generate: using {len(team)} workers, the fastest ({opened.describe()})")
    if len(team) < 2 and opened:
        done = run_generate(workspace, settings, opened, part, batch_clips, quiet)
        if not quiet:
            say(f"generate: {done.clips:,} clips complete, {done.made:,} of them new")
        return
    checkpoint.find(options["checkpoint"])  # fail here once, not in each worker
    plan = require(workspace.plan, settings)
    del opened  # the workers need its memory
    run_workers(workspace, plan, part, team, _worker_command(ctx), quiet)
    if not quiet:
        clips = sum(len(plan.clips_of(block)) for block in part.blocks(plan.blocks))
        say(f"generate: {clips:,} clips complete")


def _worker_command(ctx: click.Context) -> list[str]:
    """Return a worker's command line: the given options except shard, workers and threads."""
    isolated = ["-I"] * sys.flags.isolated  # as in the container image
    words = [sys.executable, *isolated, "-m", "nsynth_super", "-q", *["-v"] * ctx.obj["verbose"]]
    words.append("generate")
    for option in generate.params:
        value = ctx.params.get(str(option.name))
        if value is not None and option.name not in ("shard", "workers", "threads"):
            words += [option.opts[-1], str(value)]
    return words


@click.command()
@workspace_option
@_synth_settings_option
@click.pass_obj
def pads(obj: dict[str, bool], /, root: Path, synth_settings: Path | None) -> None:
    """Build the pads, the synth's settings.json and the manifest from the clips."""
    workspace = Workspace(root)
    given = _read_given(synth_settings)
    _pads(workspace, settings_of(workspace, obj["quiet"]), obj, given)


def _read_given(synth_settings: Path | None) -> dict[str, Any] | None:
    from nsynth_super.synth.settings import read_synth_settings

    return read_synth_settings(synth_settings) if synth_settings else None


def _pads(
    workspace: Workspace, settings: Settings, obj: dict[str, bool], given: dict[str, Any] | None
) -> None:
    from nsynth_super.pack.geometry import Geometry
    from nsynth_super.stages.pads import run_pads

    pack = run_pads(workspace, settings, given, obj["quiet"])
    if obj["quiet"]:
        return
    state = "written" if pack.made else "already present"
    size = amount(Geometry.of(settings).bytes)
    say(f"pads: {pack.pads} {state} in {workspace.pads}, {size} each")


@click.command()
@workspace_option
@model_options
@seed_option
@fill_option
@batch_option
@workers_option
@_synth_settings_option
@click.option("--replan", is_flag=True, help="Plan again after a change; valid clips are kept.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    root: Path,
    replan: bool,
    synth_settings: Path | None,
    **options: Any,
) -> None:
    """Run prepare, generate and pads."""
    obj, workspace = ctx.obj, Workspace(root)
    given = _read_given(synth_settings)
    settings = settings_of(workspace, obj["quiet"])
    engine = open_model(**options)
    _prepare(workspace, settings, engine, obj, options["fill"], options["seed"], replan)
    _generate(ctx, workspace, settings, engine, **options)
    _pads(workspace, settings, obj, given)
    if not obj["quiet"]:
        say(
            f"Your pack is in {workspace.pads}: `nsynth-super preview` plays it, "
            "`nsynth-super install` copies it to the synth's SD card."
        )
