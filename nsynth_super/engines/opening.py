"""Open the engine that runs a checkpoint: the one module that imports both engines."""

from __future__ import annotations

from pathlib import Path

from nsynth_super.engines.base import Engine
from nsynth_super.wavenet.checkpoint import load


def open_engine(
    checkpoint: Path | None,
    threads: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    magenta: Path | None = None,
    quiet: bool = False,
    verbose: bool = False,
) -> Engine:
    """Load a checkpoint and return the engine that runs it.

    Parameters
    ----------
    checkpoint : Path or None
        Path of the checkpoint; see `wavenet.checkpoint.find`.
    threads : int or None
        CPU threads; by default one per available core.
    engine : {"auto", "torch", "magenta"}
        `auto` is `torch`.
    device : {"auto", "cpu", "cuda", "mps"}
        `auto` is a GPU if one is available; `cpu` leaves GPUs unused.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Precision of the PyTorch engine's layers; `auto` is the fastest with negligible effect on
        the results.
    magenta : Path or None
        The Python 2.7 with Magenta; by default $NSYNTH_MAGENTA.
    quiet, verbose : bool
        Print only errors; print the last output of a failed subprocess.

    Raises
    ------
    BadInput
        If the checkpoint is missing or invalid, or the engine cannot run on this machine.
    """
    if engine != "magenta":
        weights = load(checkpoint)  # report an invalid checkpoint before the slow import of PyTorch
        from nsynth_super.engines.pytorch import TorchEngine

        return TorchEngine(weights, threads, device, precision)
    from nsynth_super.engines.magenta import MagentaEngine
    from nsynth_super.engines.python27 import Python27

    # Check the machine before reading a large checkpoint.
    python = Python27.found(magenta, threads, device, quiet, verbose)
    return MagentaEngine(load(checkpoint), python)
