"""The commands that make a pack: prepare, generate, pads, and run, which is the three."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsynth_super.cli.options import (
    ShardType,
    batch_option,
    device_settings_option,
    fill_option,
    model_options,
    open_model,
    seed_option,
    settings_of,
    workers_option,
    workspace_option,
)
from nsynth_super.progress import amount, say
from nsynth_super.settings import Settings
from nsynth_super.workspace import Workspace

if TYPE_CHECKING:
    from nsynth_super.engines import Engine
    from nsynth_super.plan import Shard


@click.command()
@workspace_option
@model_options
@seed_option
@fill_option
@click.option(
    "--replan", is_flag=True, help="Plan anew after a change; clips that are still valid are kept."
)
@click.pass_obj
def prepare(obj: dict[str, bool], /, root: Path, replan: bool, **options: Any) -> None:
    """Turn the notes into embeddings, and plan the clips."""
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


@click.command()
@workspace_option
@model_options
@batch_option
@click.option(
    "--shard",
    type=ShardType(),
    help="Part I of N, from 0/N to (N-1)/N: one for each machine; auto: this Slurm task's.",
)
@workers_option
@click.pass_context
def generate(ctx: click.Context, /, root: Path, **options: Any) -> None:
    """Decode the plan's clips; goes on where it stopped."""
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
    """Decode in this process, or in several where they are asked for or faster."""
    from nsynth_super import workers as side_by_side
    from nsynth_super.plan import Shard, require
    from nsynth_super.stages import generate as stage

    part, quiet = shard or Shard(), ctx.obj["quiet"]
    team: list[side_by_side.Worker] = []
    if workers > 1 or (not workers and options["device"] != "cpu"):
        team = side_by_side.planned(part, workers or None, options["threads"])
    if len(team) < 2:
        opened = opened or open_model(**options)
        if not workers and not options["threads"] and opened.shares_cores:
            plan = require(workspace.plan, settings)
            team = side_by_side.on_cpu(part, plan, opened.dimensions, opened.memory)
            if len(team) > 1 and not quiet:
                say(f"generate: faster than threads: {len(team)} workers ({opened.describe()})")
    if len(team) < 2 and opened:
        done = stage.run(workspace, settings, opened, part, batch_clips, quiet)
        if not quiet:
            say(f"generate: {done.clips:,} clips are there, {done.made:,} of them made now")
        return
    from nsynth_super.wavenet import checkpoint

    checkpoint.find(options["checkpoint"])  # one line now, not one from each worker
    plan = require(workspace.plan, settings)
    del opened  # its memory is needed
    side_by_side.generate(workspace, plan, part, team, _one_of_a_team(ctx), quiet)
    if not quiet:
        clips = sum(len(plan.clips_of(block)) for block in part.blocks(plan.blocks))
        say(f"generate: {clips:,} clips are there")


def _one_of_a_team(ctx: click.Context) -> list[str]:
    """Return the command of one worker, but for its shard and threads: with the options given."""
    isolated = ["-I"] * sys.flags.isolated  # as the image's program is
    words = [sys.executable, *isolated, "-m", "nsynth_super", "-q", *["-v"] * ctx.obj["verbose"]]
    words.append("generate")
    for option in generate.params:
        value = ctx.params.get(str(option.name))
        if value is not None and option.name not in ("shard", "workers", "threads"):
            words += [option.opts[-1], str(value)]
    return words


@click.command()
@workspace_option
@device_settings_option
@click.pass_obj
def pads(obj: dict[str, bool], /, root: Path, device_settings: Path | None) -> None:
    """Build pads, device settings and manifest from the clips."""
    workspace = Workspace(root)
    given = _given(device_settings)
    _pads(workspace, settings_of(workspace, obj["quiet"]), obj, given)


def _given(device_settings: Path | None) -> dict[str, Any] | None:
    from nsynth_super.device import read_device_settings

    return read_device_settings(device_settings) if device_settings else None


def _pads(
    workspace: Workspace, settings: Settings, obj: dict[str, bool], given: dict[str, Any] | None
) -> None:
    from nsynth_super.stages import pads as stage

    pack = stage.run(workspace, settings, given, obj["quiet"])
    if obj["quiet"]:
        return
    state = "written" if pack.made else "there already"
    say(f"pads: {pack.pads} of {amount(settings.pad_bytes)} each {state} in {workspace.pads}")


@click.command()
@workspace_option
@model_options
@seed_option
@fill_option
@batch_option
@workers_option
@device_settings_option
@click.option(
    "--replan", is_flag=True, help="Plan anew after a change; clips that are still valid are kept."
)
@click.pass_context
def run(
    ctx: click.Context,
    /,
    root: Path,
    replan: bool,
    device_settings: Path | None,
    **options: Any,
) -> None:
    """Do prepare, generate and pads, in this order."""
    obj, workspace = ctx.obj, Workspace(root)
    given = _given(device_settings)
    settings = settings_of(workspace, obj["quiet"])
    engine = open_model(**options)
    _prepare(workspace, settings, engine, obj, options["fill"], options["seed"], replan)
    _generate(ctx, workspace, settings, engine, **options)
    _pads(workspace, settings, obj, given)
    if not obj["quiet"]:
        say(
            f"Your pack is in {workspace.pads}: `nsynth-super preview` plays it, "
            "`nsynth-super install` puts it onto the instrument's card."
        )
