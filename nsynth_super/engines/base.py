"""What makes embeddings of notes and codes of encodings. The stages know no other word.

`Engine` is what they may ask. Ours is in `torch_engine.py`, the original in `magenta.py`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nsynth_super.problems import NsynthSuperError
from nsynth_super.wavenet.checkpoint import load
from nsynth_super.wavenet.dimensions import Dimensions

CHUNK_SECONDS = 0.25
"""An engine yields about this often, so that whoever asks it to stop need not wait."""


class OutOfMemoryError(NsynthSuperError):
    """The device cannot decode so many clips at once; nothing of them was lost."""


@dataclass(frozen=True)
class Work:
    """The clips that a device decodes at once.

    Attributes
    ----------
    encodings : ndarray of float32, `[clips, frames, embedding]`
    keys : sequence of int
        Each clip's key (`grid.Mix.key`), which its random numbers are drawn with.
    seed : int
        The pack's.
    samples : int
        How many to decode.
    begun : ndarray of uint8, `[clips, samples so far]`
        Codes that an earlier run drew; decoding goes on behind them. None for an engine that does
        not resume.
    """

    encodings: NDArray[np.float32]
    keys: Sequence[int]
    seed: int
    samples: int
    begun: NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """What an engine has to tell of a work under way.

    Attributes
    ----------
    codes : ndarray of uint8, `[clips, times]`
        Those that follow the ones before; possibly of no length.
    time : int
        How many samples of every clip are drawn by now, handed over or not.
    """

    codes: NDArray[np.uint8]
    time: int


class Engine(Protocol):
    """What a stage may ask of an engine.

    Attributes
    ----------
    resumes : bool
        Whether it can go on behind codes that were drawn before. One that cannot is given none,
        and what it is stopped in begins anew.
    shares_cores : bool
        Whether it computes on the CPU so that several processes, of a core each, are of use.
    """

    name: str
    resumes: bool

    @property
    def shares_cores(self) -> bool:
        """Whether several processes on the CPU are of use."""

    @property
    def checkpoint_sha256(self) -> str:
        """Of the weights' names and numbers."""

    @property
    def dimensions(self) -> Dimensions:
        """The model's sizes."""

    def describe(self) -> str:
        """Say on one line what computes, where and how."""

    def encode(self, notes: NDArray[np.float32]) -> Generator[NDArray[np.float32], None, None]:
        """Turn notes, `[notes, samples]`, into embeddings, `[some, frames, embedding]`, in order.

        Like `decode`, it yields often, even if it has none to give, and ends when it is closed.
        """

    def decode(self, work: Work) -> Generator[Piece, None, None]:
        """Yield the codes of `work` in pieces, about four times a second.

        Raises
        ------
        OutOfMemoryError
            If these are too many clips at once; fewer may do.
        """

    def batch_clips(self) -> int:
        """Say how many clips to decode at once, by the memory there is."""

    def memory(self, clips: int) -> int:
        """Return the bytes that decoding `clips` clips at once takes."""

    def room(self) -> int:
        """Return the bytes that it may take, where it takes them."""

    def measure(self, clips: int, seconds: float = 2.0) -> float:
        """Return the seconds that one step of `clips` clips takes here, measured."""

    def measure_encoder(self) -> float:
        """Return the seconds that encoding one note takes here, measured."""

    def measure_products(self, clips: int, seconds: float = 2.0) -> float | None:
        """Return the seconds that a step's matrix products alone take; None if nobody can say."""


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
        See `wavenet.checkpoint.find`.
    threads : int or None
        Of the CPU; by default one for each core that this process may use.
    engine : {"auto", "torch", "magenta"}
        `auto` is `torch`.
    device : {"auto", "cpu", "cuda", "mps"}
        `auto` is a GPU if there is one; `cpu` leaves it unused.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Of our own engine's layers; `auto` is the fastest of those that change next to nothing.
    magenta : Path or None
        The Python 2.7 that has Magenta; by default $NSYNTH_MAGENTA.
    quiet, verbose : bool
        Let the engine say nothing but what went wrong; let it show what a program that failed said.

    Raises
    ------
    BadInput
        If there is no checkpoint, or it is not NSynth's; if the engine cannot run here.
    """
    if engine != "magenta":
        weights = load(checkpoint)  # what is wrong with it is said without waiting for PyTorch
        from nsynth_super.torch_engine import TorchEngine

        return TorchEngine(weights, threads, device, precision)
    from nsynth_super.magenta import MagentaEngine
    from nsynth_super.python27 import Python27

    # What is refused for the machine's sake is refused before gigabytes are read.
    python = Python27.found(magenta, threads, device, quiet, verbose)
    return MagentaEngine(load(checkpoint), python)
