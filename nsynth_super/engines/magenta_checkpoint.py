"""Convert weights to a checkpoint that Magenta reads, and cache it by content.

Magenta's own Saver writes the checkpoint, also for weights from the published one: with one path
for all sources, both engines are certain to use identical weights.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import explained, sync
from nsynth_super.base.text import amount, say
from nsynth_super.engines.python27 import SCRIPTS, Python27
from nsynth_super.wavenet import checkpoint as model
from nsynth_super.wavenet.checkpoint import Checkpoint
from nsynth_super.wavenet.dimensions import PUBLISHED, describe
from nsynth_super.wavenet.magenta_format import PUBLISHED_NAME

SAVED = "NSYNTH_MAGENTA_CHECKPOINTS"
"""Environment variable: a folder, possibly read-only, to search before the cache."""

T = TypeVar("T")


def name(checkpoint: Checkpoint) -> str:
    """Return the name of the folder for these weights."""
    return f"magenta-{checkpoint.sha256[:16]}"


def require_published_sizes(checkpoint: Checkpoint) -> None:
    """Check that the model has the published sizes, the only ones that Magenta can build.

    Raises
    ------
    BadInput
        If it has other sizes.
    """
    if checkpoint.dimensions != PUBLISHED:
        raise BadInput(
            Problem(
                checkpoint.source,
                f"has sizes that Magenta cannot build ({describe(checkpoint.dimensions)})",
                "use `--engine torch`",
            )
        )


def find_or_save(checkpoint: Checkpoint, python: Python27, beat: T) -> Generator[T, None, Path]:
    """Find the weights, or else save them in the cache; return their prefix.

    Yields `beat` while Magenta saves.

    Raises
    ------
    Failed
        If Magenta cannot save the weights, or the disk is full.
    """
    named = os.environ.get(SAVED)
    for folder in (*([Path(named)] if named else []), model.cache_folder()):
        if (folder / name(checkpoint)).is_dir():
            return folder / name(checkpoint) / PUBLISHED_NAME
    if not python.quiet:
        size = amount(sum(array.nbytes for array in checkpoint.weights.values()))
        say(f"magenta: converting the weights once to its format: {size} in {model.cache_folder()}")
    return (yield from save(checkpoint, python, model.cache_folder(), beat))


def save(
    checkpoint: Checkpoint, python: Python27, folder: Path, beat: T
) -> Generator[T, None, Path]:
    """Save the weights in `folder` atomically; return their prefix.

    Yields `beat` while Magenta saves.
    """
    require_published_sizes(checkpoint)
    final = folder / name(checkpoint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{final.name}-") as temporary:
            weights, saved = Path(temporary) / "weights.safetensors", Path(temporary) / "saved"
            saved.mkdir()
            model.save(checkpoint.weights, weights, checkpoint.source)
            command = [SCRIPTS / "save_checkpoint.py", weights.name, f"saved/{PUBLISHED_NAME}"]
            with closing(python.run(command, Path(temporary))) as lines:
                for _ in lines:
                    yield beat
            for file in (*saved.iterdir(), saved):
                sync(file)
            _publish(saved, final)
    except OSError as error:
        raise explained(error, final) from error
    return final / PUBLISHED_NAME


def _publish(saved: Path, final: Path) -> None:
    """Rename a folder to its final name, unless another process created an equal one first."""
    try:
        saved.rename(final)
        sync(final.parent)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(saved)
