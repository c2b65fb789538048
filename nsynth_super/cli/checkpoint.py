"""The `checkpoint` commands: download, verify, convert, randomize and compare model weights."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from nsynth_super.base.errors import BadInput, Failed, Problem
from nsynth_super.cli.options import (
    checkpoint_option,
    device_option,
    magenta_option,
    threads_option,
)
from nsynth_super.runtime.signals import Stop
from nsynth_super.settings import NOTE_SAMPLES


@click.group()
def checkpoint() -> None:
    """Download, verify or convert the model's weights."""


@checkpoint.command()
@click.option("--url", help="Download from this mirror  [default: Magenta's server]")
@click.pass_obj
def fetch(obj: dict[str, bool], url: str | None) -> None:
    """Download Magenta's published checkpoint; resume an interrupted download."""
    from tqdm import tqdm

    from nsynth_super.wavenet import checkpoint as model
    from nsynth_super.wavenet import download
    from nsynth_super.wavenet.magenta_format import has_published_sizes

    shown = sys.stderr.isatty() and not obj["quiet"]
    with tqdm(unit="B", unit_scale=True, desc="fetch", disable=not shown) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        path = download.fetch(url or download.URL, model.fetched_path(), progress)
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    click.echo(f"{path}: {record['bytes']:,} bytes, sha256 {record['sha256']}")
    if not has_published_sizes(path):
        click.echo("note: file sizes differ from the published checkpoint")
    click.echo("next: `nsynth-super checkpoint verify` checks every variable")


@checkpoint.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
def verify(path: Path | None) -> None:
    """Verify the names, shapes, types, values and checksums of PATH or the default checkpoint."""
    from nsynth_super.wavenet import checkpoint as model
    from nsynth_super.wavenet import magenta_format
    from nsynth_super.wavenet.dimensions import describe

    found = model.find(path)
    if found.suffix != ".safetensors":
        verified = magenta_format.verify(found)
        which = "the published checkpoint" if verified.is_published else "another checkpoint"
        click.echo(f"{found}: {which}; all {verified.variables:,} checksums are right")
    loaded = model.load(found)
    click.echo(
        f"{loaded.source}: {len(loaded.weights)} variables, all finite; "
        f"{describe(loaded.dimensions)}\n"
        f"sha256 of the weights {loaded.sha256}"
    )


@checkpoint.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(dir_okay=False, path_type=Path))
def convert(source: Path, destination: Path) -> None:
    """Convert the checkpoint SOURCE, usually TensorFlow's, to the safetensors file DESTINATION."""
    from nsynth_super.wavenet import checkpoint as model

    if destination.suffix != ".safetensors":
        raise BadInput(Problem(str(destination), "does not end in .safetensors", "add the ending"))
    model.convert(model.find(source), destination)
    click.echo(f"wrote {destination}")


@checkpoint.command()
@click.argument("destination", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Random seed of the weights.",
)
@click.option(
    "--width",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Channels of the decoder's residual path.",
)
@click.option(
    "--skip-width",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Channels of the decoder's skip path.",
)
@click.option(
    "--layers",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Dilated layers of the decoder.",
)
@click.option(
    "--embedding",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Channels of an embedding.",
)
@click.option(
    "--encoder-width",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Channels of the encoder.",
)
@click.option(
    "--encoder-layers",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Dilated layers of the encoder.",
)
def random(destination: Path, seed: int, **sizes: int) -> None:
    """Write untrained weights to DESTINATION, to test the pipeline; they produce noise."""
    from nsynth_super.wavenet import checkpoint as model
    from nsynth_super.wavenet import random as untrained
    from nsynth_super.wavenet.dimensions import Dimensions, describe

    if destination.suffix != ".safetensors":
        raise BadInput(Problem(str(destination), "does not end in .safetensors", "add the ending"))
    dimensions = Dimensions(**sizes)
    model.save(untrained.weights(dimensions, seed), destination, f"random, seed {seed}")
    click.echo(f"wrote {destination}: untrained, {describe(dimensions)}")


@checkpoint.command("magenta")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@checkpoint_option
@magenta_option
@click.pass_obj
def save_for_magenta(
    obj: dict[str, bool], /, folder: Path, checkpoint: Path | None, magenta: Path | None
) -> None:
    """Save the weights to FOLDER in Magenta's format, for $NSYNTH_MAGENTA_CHECKPOINTS.

    Rarely needed: `--engine magenta` saves them once in the user's cache, and the container image
    contains them.
    """
    from nsynth_super.engines import magenta_checkpoint
    from nsynth_super.engines.python27 import Python27
    from nsynth_super.wavenet import checkpoint as model

    # Saving needs no GPU, and Magenta may not support the one here.
    python = Python27.found(magenta, device="cpu", **obj)
    weights = model.load(checkpoint)
    with Stop() as stop, closing(magenta_checkpoint.save(weights, python, folder, None)) as saving:
        for _ in saving:
            stop.here(lambda: "nothing was saved; run it again")
    click.echo(f"wrote {folder / magenta_checkpoint.name(weights)}")


@checkpoint.command()
@click.argument("path", type=click.Path(path_type=Path), required=False)
@device_option
@magenta_option
@threads_option
@click.option(
    "--clips",
    type=click.IntRange(1, 256),
    default=4,
    show_default=True,
    help="Clips to decode.",
)
@click.option(
    "--samples",
    type=click.IntRange(1, NOTE_SAMPLES),
    default=512,
    show_default=True,
    help="Samples to decode per clip.",
)
@click.pass_obj
def compare(
    obj: dict[str, bool], /, path: Path | None, clips: int, samples: int, **options: Any
) -> None:
    """Run both engines on PATH or the default checkpoint and compare their results.

    Exits with 1 if the results differ by more than rounding errors.
    """
    from nsynth_super.engines import agreement, magenta
    from nsynth_super.engines.python27 import Python27
    from nsynth_super.engines.pytorch import TorchEngine
    from nsynth_super.wavenet import checkpoint as model

    threads = options["threads"]
    python = Python27.found(options["magenta"], threads, options["device"], **obj)
    weights = model.load(path)
    original = magenta.MagentaEngine(weights, python)
    torch = TorchEngine(weights, threads, "cpu", "fp32")
    with Stop() as stop:
        found = agreement.compare_engines(
            *(weights, torch, original, clips, samples),
            lambda: stop.here(lambda: "nothing was compared; run it again"),
        )
    for line in (*(engine.describe() for engine in (original, torch)), *found.lines()):
        click.echo(line)
    if not found.within_bounds:
        raise Failed("the engines differ by more than rounding errors -> please report it")
    click.echo("the engines agree")
