"""The command that measures this machine: bench."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsynth_super.cli.options import batch_option, model_options, open_model
from nsynth_super.progress import duration, say

if TYPE_CHECKING:
    from nsynth_super.bench import Bench


@click.command()
@model_options
@batch_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def bench(obj: dict[str, bool], /, as_json: bool, batch_clips: int | None, **options: Any) -> None:
    """Measure this machine in a minute: how long packs take.

    Without a checkpoint, weights of the published model's size are made up: they cost as much.
    """
    from nsynth_super import bench as measuring
    from nsynth_super.wavenet import checkpoint as model
    from nsynth_super.wavenet import random
    from nsynth_super.wavenet.dimensions import PUBLISHED

    if not obj["quiet"]:
        say("bench: measuring; this takes half a minute …")
    with tempfile.TemporaryDirectory(prefix="nsynth-super-") as folder:
        if options["checkpoint"] is None and model.default_path() is None:
            made_up = Path(folder) / "random.safetensors"
            model.save(random.weights(PUBLISHED, 0), made_up, "random")
            options["checkpoint"] = made_up
        found = measuring.run(open_model(**options), batch_clips)
    click.echo(json.dumps(found.as_dict(), indent=1) if as_json else "\n".join(_lines(found)))


def _lines(found: Bench) -> list[str]:
    speed = found.speed
    lines = [
        f"engine    {found.engine}",
        f"decoder   {speed.batch} clips at once, {1000 * speed.step:.3g} ms a step: "
        f"{speed.rate:,.0f} clip-samples/s, {found.clips_an_hour:,.0f} clips an hour",
    ]
    if found.share is not None:
        lines.append(
            f"roofline  {found.share:.0%} of what the model's matrix products alone would allow"
        )
    lines += [f"encoder   {speed.note:.2g} s a note", "packs     of 16 pitches, all stages:"]
    for each, (clips, seconds) in found.packs.items():
        instruments = f"{each} instrument{'s' * (each > 1)} a corner"
        lines.append(f"          {instruments:22} {clips:>8,} clips   {duration(seconds)}")
    return lines
