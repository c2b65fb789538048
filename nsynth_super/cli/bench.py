"""The `bench` command: measures the throughput of this machine."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsynth_super.base.text import duration, say
from nsynth_super.cli.options import batch_option, model_options, open_model

if TYPE_CHECKING:
    from nsynth_super.reports.bench import Bench


@click.command()
@model_options
@batch_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def bench(obj: dict[str, bool], /, as_json: bool, batch_clips: int | None, **options: Any) -> None:
    """Measure this machine in a minute and estimate how long packs take.

    Without a checkpoint, bench uses random weights of the published model's size, which take as
    long.
    """
    from nsynth_super.reports.bench import run_bench
    from nsynth_super.wavenet import checkpoint as model
    from nsynth_super.wavenet import random
    from nsynth_super.wavenet.dimensions import PUBLISHED

    if not obj["quiet"]:
        say("bench: measuring for about half a minute …")
    with tempfile.TemporaryDirectory(prefix="nsynth-super-") as folder:
        if options["checkpoint"] is None and model.default_path() is None:
            untrained = Path(folder) / "random.safetensors"
            model.save(random.weights(PUBLISHED, 0), untrained, "random")
            options["checkpoint"] = untrained
        found = run_bench(open_model(**options), batch_clips)
    click.echo(json.dumps(found.as_dict(), indent=1) if as_json else "\n".join(_lines(found)))


def _lines(found: Bench) -> list[str]:
    speed = found.speed
    lines = [
        f"engine    {found.engine}",
        f"decoder   {speed.batch} clips at once, {1000 * speed.step:.3g} ms per step: "
        f"{speed.rate:,.0f} clip-samples/s, {found.clips_an_hour:,.0f} clips an hour",
    ]
    if found.share is not None:
        lines.append(
            f"roofline  {found.share:.0%} of the throughput of the model's matrix products alone"
        )
    lines += [f"encoder   {speed.note:.2g} s per note", "packs     16 pitches, all stages:"]
    for each, (clips, seconds) in found.packs.items():
        instruments = f"{each} instrument{'s' * (each > 1)} per corner"
        lines.append(f"          {instruments:24} {clips:>8,} clips   {duration(seconds)}")
    return lines
