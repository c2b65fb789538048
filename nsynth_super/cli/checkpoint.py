"""`nsynth-super checkpoint …`: get, verify, convert or make up the model's weights."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from nsynth_super.cli.options import (
    checkpoint_option,
    device_option,
    magenta_option,
    threads_option,
)
from nsynth_super.problems import BadInput, Failed, Problem
from nsynth_super.progress import Stop
from nsynth_super.settings import NOTE_SAMPLES


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
    """Turn the checkpoint SOURCE, mostly TensorFlow's, into the safetensors file DESTINATION."""
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


@checkpoint.command("magenta")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@checkpoint_option
@magenta_option
@click.pass_obj
def save_for_magenta(
    obj: dict[str, bool], /, folder: Path, checkpoint: Path | None, magenta: Path | None
) -> None:
    """Save the weights in FOLDER as Magenta reads them: for $NSYNTH_MAGENTA_CHECKPOINTS.

    `--engine magenta` does so by itself, once, in the user's cache; a container image has them.
    """
    from nsynth_super import magenta_checkpoint
    from nsynth_super.python27 import Python27
    from nsynth_super.wavenet import checkpoint as model

    # Nothing is computed: a GPU that Magenta cannot drive is no hindrance.
    python = Python27.found(magenta, device="cpu", **obj)
    weights = model.load(checkpoint)
    with Stop() as stop, closing(magenta_checkpoint.save(weights, python, folder, None)) as saving:
        for _ in saving:
            stop.here(lambda: "nothing was saved; run it again")
    click.echo(f"{folder / magenta_checkpoint.name(weights)} written")


@checkpoint.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@device_option
@magenta_option
@threads_option
@click.option("--clips", type=click.IntRange(1, 256), default=4, show_default=True)
@click.option("--samples", type=click.IntRange(1, NOTE_SAMPLES), default=512, show_default=True)
@click.pass_obj
def compare(
    obj: dict[str, bool], /, path: Path | None, clips: int, samples: int, **options: Any
) -> None:
    """Run both engines on PATH, or on the default checkpoint, and say how near they are.

    Exit code 1 if they differ by more than rounding can explain.
    """
    from nsynth_super import agreement, magenta
    from nsynth_super.python27 import Python27
    from nsynth_super.torch_engine import TorchEngine
    from nsynth_super.wavenet import checkpoint as model

    threads = options["threads"]
    python = Python27.found(options["magenta"], threads, options["device"], **obj)
    weights = model.load(path)
    theirs = magenta.MagentaEngine(weights, python)
    ours = TorchEngine(weights, threads, "cpu", "fp32")
    with Stop() as stop:
        found = agreement.measured(
            *(weights, ours, theirs, clips, samples),
            lambda: stop.here(lambda: "nothing was compared; run it again"),
        )
    for line in (*(engine.describe() for engine in (theirs, ours)), *found.lines()):
        click.echo(line)
    if not found.within_bounds:
        raise Failed("the engines differ by more than rounding -> one of them is broken here")
    click.echo("the engines agree")
