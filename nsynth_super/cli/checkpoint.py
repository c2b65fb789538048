"""`nsynth-super checkpoint …`: get, verify, convert or make up the model's weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from nsynth_super.problems import BadInput, Problem


@click.group()
def checkpoint() -> None:
    """Get, verify, convert or make up the model's weights."""


@checkpoint.command()
@click.option("--url", help="Of a mirror; Magenta's own by default.")
@click.pass_obj
def fetch(obj: dict[str, bool], url: str | None) -> None:
    """Download Magenta's published checkpoint; goes on where it broke off."""
    from tqdm import tqdm

    from nsynth_super.wavenet import checkpoint as model
    from nsynth_super.wavenet import download
    from nsynth_super.wavenet.magenta_format import is_published

    shown = sys.stderr.isatty() and not obj["quiet"]
    with tqdm(unit="B", unit_scale=True, desc="fetch", disable=not shown) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        path = download.fetch(url or download.URL, model.fetched_path(), progress)
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    click.echo(f"{path}: {record['bytes']:,} bytes, sha256 {record['sha256']}")
    if not is_published(path):
        click.echo("note: its files have not the published checkpoint's sizes")
    click.echo("next: `nsynth-super checkpoint verify` reads it once, and checks every variable")


@checkpoint.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
def verify(path: Path | None) -> None:
    """Verify PATH, or the default checkpoint: names, shapes, types and values."""
    from nsynth_super.wavenet import checkpoint as model
    from nsynth_super.wavenet.dimensions import describe
    from nsynth_super.wavenet.magenta_format import is_published

    found = model.find(path)
    loaded = model.load(found)
    if found.suffix != ".safetensors":
        sizes = "the published sizes" if is_published(found) else "not the published file's sizes"
        click.echo(f"{found}: {sizes}")
    click.echo(
        f"{loaded.source}: {len(loaded.weights)} variables, all finite; "
        f"{describe(loaded.dimensions)}\n"
        f"sha256 of the weights {loaded.sha256}"
    )


@checkpoint.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(dir_okay=False, path_type=Path))
def convert(source: Path, destination: Path) -> None:
    """Turn TensorFlow's checkpoint SOURCE into the safetensors file DESTINATION."""
    from nsynth_super.wavenet import checkpoint as model

    if destination.suffix != ".safetensors":
        raise BadInput(Problem(str(destination), "is no .safetensors name", "give it that ending"))
    model.convert(model.find(source), destination)
    click.echo(f"{destination} written")


@checkpoint.command()
@click.argument("destination", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--width", type=click.IntRange(1), default=512, show_default=True)
@click.option("--skip-width", type=click.IntRange(1), default=256, show_default=True)
@click.option("--layers", type=click.IntRange(1), default=30, show_default=True)
@click.option("--embedding", type=click.IntRange(1), default=16, show_default=True)
@click.option("--encoder-width", type=click.IntRange(1), default=128, show_default=True)
@click.option("--encoder-layers", type=click.IntRange(1), default=30, show_default=True)
def random(destination: Path, seed: int, **sizes: int) -> None:
    """Write untrained weights to DESTINATION: to try the pipeline, not to hear it."""
    from nsynth_super.wavenet import checkpoint as model
    from nsynth_super.wavenet import random as untrained
    from nsynth_super.wavenet.dimensions import Dimensions, describe

    if destination.suffix != ".safetensors":
        raise BadInput(Problem(str(destination), "is no .safetensors name", "give it that ending"))
    dimensions = Dimensions(**sizes)
    model.save(untrained.weights(dimensions, seed), destination, f"random, seed {seed}")
    click.echo(f"{destination} written: untrained, {describe(dimensions)}")
