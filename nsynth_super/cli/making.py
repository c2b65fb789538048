"""The commands that make a pack: prepare, generate, pads, and run, which is the three."""

from __future__ import annotations

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
    workspace_option,
)
from nsynth_super.progress import amount, say
from nsynth_super.settings import Settings
from nsynth_super.workspace import Workspace

if TYPE_CHECKING:
    from nsynth_super.engines import TorchEngine


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
    """Turn the notes into embeddings, and plan which clips the pack needs."""
    workspace = Workspace(root)
    settings = settings_of(workspace, obj["quiet"])
    engine = open_model(**options)
    _prepare(workspace, settings, engine, obj, options["fill"], options["seed"], replan)


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


@click.command()
@workspace_option
@model_options
@batch_option
@click.option(
    "--shard", type=ShardType(), help="Part I of N, from 0/N to (N-1)/N: one for each machine."
)
@click.pass_obj
def generate(
    obj: dict[str, bool], /, root: Path, shard: Any, batch_clips: int | None, **options: Any
) -> None:
    """Decode the plan's clips; goes on where it stopped."""
    workspace = Workspace(root)
    settings = settings_of(workspace, obj["quiet"])
    _generate(workspace, settings, open_model(**options), obj, shard, batch_clips)


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


@click.command()
@workspace_option
@device_settings_option
@click.pass_obj
def pads(obj: dict[str, bool], /, root: Path, device_settings: Path | None) -> None:
    """Build the pads, the device's settings.json and a manifest from the clips."""
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
@device_settings_option
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
    given = _given(device_settings)
    settings = settings_of(workspace, obj["quiet"])
    engine = open_model(**options)
    _prepare(workspace, settings, engine, obj, options["fill"], options["seed"], replan)
    _generate(workspace, settings, engine, obj, None, batch_clips)
    _pads(workspace, settings, obj, given)
    if not obj["quiet"]:
        say(
            f"Your pack is in {workspace.pads}: copy the .bin files into the device's pads folder, "
            "and let its settings.json take the part 'nsynth' and 'corners' of the one beside them."
        )
