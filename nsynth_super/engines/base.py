"""The engine interface (notes to embeddings, encodings to codes): all that stages depend on.

`pytorch.py` and `magenta.py` implement it; `opening.py` chooses between them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nsynth_super.base.errors import NsynthSuperError
from nsynth_super.wavenet.dimensions import Dimensions


class OutOfMemoryError(NsynthSuperError):
    """The device cannot decode this many clips at once; no saved codes are lost."""


@dataclass(frozen=True)
class Batch:
    """The clips that an engine decodes in parallel.

    Attributes
    ----------
    encodings : ndarray of float32, `[clips, frames, embedding]`
    keys : sequence of int
        The key of each clip (`grid.Mix.key`), which determines its random numbers.
    seed : int
        The pack's seed.
    samples : int
        Length of the clips.
    begun : ndarray of uint8, `[clips, samples so far]`
        Codes from an earlier run, after which decoding resumes; zero samples for an engine that
        cannot resume.
    """

    encodings: NDArray[np.float32]
    keys: Sequence[int]
    seed: int
    samples: int
    begun: NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """The codes that an engine has decoded since the previous piece.

    Attributes
    ----------
    codes : ndarray of uint8, `[clips, times]`
        The codes that follow the previous piece; possibly zero times.
    time : int
        Samples of every clip decoded so far, including those not yet returned.
    """

    codes: NDArray[np.uint8]
    time: int


class Engine(Protocol):
    """The interface of an engine.

    Attributes
    ----------
    name : str
        The engine's value of `--engine`.
    resumes : bool
        Whether it can resume after the codes of an earlier run. An engine that cannot restarts
        interrupted blocks.
    """

    name: str
    resumes: bool

    @property
    def shares_cores(self) -> bool:
        """Whether it benefits from several single-core processes on the CPU."""

    @property
    def checkpoint_sha256(self) -> str:
        """Digest of the weights' names and values."""

    @property
    def dimensions(self) -> Dimensions:
        """The model's sizes."""

    def describe(self) -> str:
        """Return the engine, its versions and its device on one line."""

    def encode(self, notes: NDArray[np.float32]) -> Generator[NDArray[np.float32], None, None]:
        """Yield the embeddings of notes, `[notes, samples]`, in order.

        Each array is `[some, frames, embedding]`. Like `decode`, it yields frequently, if necessary
        an empty array, and stops when it is closed.
        """

    def decode(self, batch: Batch) -> Generator[Piece, None, None]:
        """Yield the codes of `batch` in pieces, about four times a second.

        Raises
        ------
        OutOfMemoryError
            If memory does not suffice for this many clips at once; fewer may fit.
        """

    def batch_clips(self) -> int:
        """Return how many clips to decode at once, given the available memory."""

    def memory(self, clips: int) -> int:
        """Return the memory for decoding `clips` clips at once, in bytes."""

    def available_memory(self) -> int:
        """Return the memory that decoding may use, on the GPU or the host, in bytes."""

    def measure(self, clips: int, seconds: float = 2.0) -> float:
        """Measure the duration of one step of `clips` clips, in seconds."""

    def measure_encoder(self) -> float:
        """Measure the duration of encoding one note, in seconds."""

    def measure_products(self, clips: int, seconds: float = 2.0) -> float | None:
        """Measure the duration of a step's matrix products alone, in seconds; None if unknown."""
