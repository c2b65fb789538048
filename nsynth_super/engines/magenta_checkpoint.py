"""Weights as Magenta reads them: saved with its own Saver, once, in a folder named by content.

The published checkpoint would do as it is, but weights come from other files too. All go one way:
what Magenta computes with is what our own engine computes with, number by number.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from nsynth_super.files import explained, sync
from nsynth_super.problems import BadInput, Problem
from nsynth_super.progress import amount, say
from nsynth_super.python27 import SCRIPTS, Python27
from nsynth_super.wavenet import checkpoint as model
from nsynth_super.wavenet.checkpoint import Checkpoint
from nsynth_super.wavenet.dimensions import PUBLISHED, describe
from nsynth_super.wavenet.magenta_format import PUBLISHED_NAME

SAVED = "NSYNTH_MAGENTA_CHECKPOINTS"
"""Names a folder to look in before the cache; it may be read-only."""

T = TypeVar("T")


def name(checkpoint: Checkpoint) -> str:
    """Return the name of the folder that holds these weights."""
    return f"magenta-{checkpoint.sha256[:16]}"


def require_published_sizes(checkpoint: Checkpoint) -> None:
    """Refuse weights of other sizes than the published ones: Magenta builds no others.

    Raises
    ------
    BadInput
    """
    if checkpoint.dimensions != PUBLISHED:
        raise BadInput(
            Problem(
                checkpoint.source,
                f"has sizes that Magenta cannot build ({describe(checkpoint.dimensions)})",
                "`--engine torch` runs it",
            )
        )


def ready(checkpoint: Checkpoint, python: Python27, beat: T) -> Generator[T, None, Path]:
    """Find the weights, or save them in the cache; return their prefix, and yield `beat` meanwhile.

    Raises
    ------
    Failed
        If Magenta cannot save them, or there is no space.
    """
    named = os.environ.get(SAVED)
    for folder in (*([Path(named)] if named else []), model.cache_folder()):
        if (folder / name(checkpoint)).is_dir():
            return folder / name(checkpoint) / PUBLISHED_NAME
    if not python.quiet:
        size = amount(sum(array.nbytes for array in checkpoint.weights.values()))
        say(
            f"magenta: saving the weights in its own format, once: {size} in {model.cache_folder()}"
        )
    return (yield from save(checkpoint, python, model.cache_folder(), beat))


def save(
    checkpoint: Checkpoint, python: Python27, folder: Path, beat: T
) -> Generator[T, None, Path]:
    """Save the weights in `folder`, whole or not at all; return their prefix."""
    require_published_sizes(checkpoint)
    final = folder / name(checkpoint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{final.name}-") as aside:
            weights, whole = Path(aside) / "weights.safetensors", Path(aside) / "whole"
            whole.mkdir()
            model.save(checkpoint.weights, weights, checkpoint.source)
            words = [SCRIPTS / "save_checkpoint.py", weights.name, f"whole/{PUBLISHED_NAME}"]
            with closing(python.run(words, Path(aside))) as lines:
                for _ in lines:
                    yield beat
            for file in (*whole.iterdir(), whole):
                sync(file)
            _put(whole, final)
    except OSError as error:
        raise explained(error, final) from error
    return final / PUBLISHED_NAME


def _put(whole: Path, final: Path) -> None:
    """Give a folder its final name; if another process was first, its folder is as good."""
    try:
        whole.rename(final)
        sync(final.parent)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(whole)
