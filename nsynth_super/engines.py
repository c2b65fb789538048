"""What makes embeddings of notes and codes of encodings. The stages know no other word.

`Engine` is what they may ask. `TorchEngine` is ours; the original, in `magenta.py`, is another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nsynth_super import machine
from nsynth_super.settings import NOTE_SAMPLES
from nsynth_super.wavenet import mulaw
from nsynth_super.wavenet.checkpoint import Checkpoint, load
from nsynth_super.wavenet.dimensions import HOP, Dimensions

CHUNK_SECONDS = 0.25
"""An engine yields about this often, so that whoever asks it to stop need not wait."""

# Threads that spin while they wait make a step a hundred times slower as soon as another program
# wants the same core. OpenMP reads this once, when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_WORTH_SHARING = 128  # width; a narrower model's products are too small for several threads
_UNIFORMS_AT_ONCE = 1024  # times; costs little memory and keeps the per-call cost small


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
    """

    name: str
    resumes: bool

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
        """Yield the codes of `work` in pieces, about four times a second."""

    def batch_clips(self) -> int:
        """Say how many clips to decode at once, by the memory there is."""

    def memory(self, clips: int) -> int:
        """Return the bytes that decoding `clips` clips at once takes."""

    def measure(self, clips: int, seconds: float = 2.0) -> float:
        """Return the seconds that one step of `clips` clips takes here, measured."""

    def measure_encoder(self) -> float:
        """Return the seconds that encoding one note takes here, measured."""


class TorchEngine:
    """Our own engine, on PyTorch.

    Parameters
    ----------
    checkpoint : Checkpoint
        The weights.
    threads : int or None
        Of the CPU; None is one for each core that this process may use, or one for a small model.
    """

    name = "torch"
    resumes = True

    def __init__(self, checkpoint: Checkpoint, threads: int | None = None) -> None:
        import torch

        if threads is None:
            small = checkpoint.dimensions.width < _WORTH_SHARING
            threads = 1 if small else machine.processors()
        torch.set_num_threads(threads)
        self._checkpoint = checkpoint
        self._weights = {name: torch.from_numpy(w) for name, w in checkpoint.weights.items()}

    @property
    def checkpoint_sha256(self) -> str:
        """Of the weights' names and numbers."""
        return self._checkpoint.sha256

    @property
    def dimensions(self) -> Dimensions:
        """The model's sizes."""
        return self._checkpoint.dimensions

    def describe(self) -> str:
        """Say on one line what computes, where and how."""
        import torch

        return f"torch {torch.__version__}, CPU, float32, {torch.get_num_threads()} threads"

    def encode(self, notes: NDArray[np.float32]) -> Generator[NDArray[np.float32], None, None]:
        """Turn notes, `[notes, samples]`, into embeddings, `[1, frames, embedding]` each."""
        import torch

        from nsynth_super.wavenet.encoder import encode

        for note in notes:
            codes = torch.from_numpy(mulaw.encode(note))
            with torch.inference_mode():
                embedding = encode(self._weights, self.dimensions, codes[None])
            yield np.asarray(embedding.numpy())

    def batch_clips(self) -> int:
        """Say how many clips to decode at once: 256, or fewer on a small machine."""
        # Of what it may use, not of what is free now: a run that goes on must batch alike.
        fits = int(machine.memory() * 0.5 // self.memory(1))
        return min(256, fits)

    def memory(self, clips: int) -> int:
        """Return the bytes that decoding `clips` clips at once takes: the decoder's state."""
        from nsynth_super.wavenet.cpu import CpuDecoder

        return CpuDecoder.state_bytes(self.dimensions, clips)

    def decode(self, work: Work) -> Generator[Piece, None, None]:
        """Yield the codes of `work` in pieces of about a quarter of a second's work.

        The state is a function of the last `receptive_field` codes: where codes are given, that
        many are replayed, and what follows is what an uninterrupted run would have drawn.
        """
        import torch

        from nsynth_super.wavenet.cpu import CpuDecoder
        from nsynth_super.wavenet.sampling import draw, uniforms

        clips, given = work.begun.shape
        first = max(0, given - self.dimensions.receptive_field)
        decoder = CpuDecoder(self._weights, self.dimensions, clips, time=first)
        forced = torch.from_numpy(work.begun.astype(np.int64))
        code = forced[:, first - 1] if first else torch.full((clips,), mulaw.ZERO)
        encodings = torch.from_numpy(work.encodings)
        uniform = torch.empty(0)
        frame = -1
        out: list[torch.Tensor] = []
        since = time.monotonic()
        for t in range(first, work.samples):
            with torch.inference_mode():
                if t // HOP != frame:
                    frame = t // HOP
                    decoder.condition(encodings[:, frame])
                logits = decoder.step(code)
                if t < given:
                    code = forced[:, t]
                else:
                    at = (t - given) % _UNIFORMS_AT_ONCE
                    if at == 0:
                        size = min(_UNIFORMS_AT_ONCE, work.samples - t)
                        uniform = torch.from_numpy(uniforms(work.seed, work.keys, t, size).T.copy())
                    code = draw(logits, uniform[at])
                    out.append(code)
            if time.monotonic() - since > CHUNK_SECONDS:
                yield Piece(_stacked(out, clips), max(t + 1, given))
                out = []
                since = time.monotonic()
        yield Piece(_stacked(out, clips), work.samples)

    def measure(self, clips: int, seconds: float = 2.0) -> float:
        """Return the seconds that one step of `clips` clips takes here: the median of some."""
        import torch

        from nsynth_super.wavenet.cpu import CpuDecoder
        from nsynth_super.wavenet.sampling import draw

        decoder = CpuDecoder(self._weights, self.dimensions, clips)
        code, uniform = torch.full((clips,), mulaw.ZERO), torch.full((clips,), 0.5)
        took: list[float] = []
        end = time.monotonic() + seconds
        with torch.inference_mode():
            decoder.condition(torch.zeros(clips, self.dimensions.embedding))
            while len(took) < 5 or (time.monotonic() < end and len(took) < 500):
                begin = time.perf_counter()
                code = draw(decoder.step(code), uniform)
                took.append(time.perf_counter() - begin)
        return float(np.median(took[1:]))  # the first pays for memory and kernels

    def measure_encoder(self) -> float:
        """Return the seconds that encoding one note takes here: an eighth of one, times eight."""
        eighth = np.zeros((1, NOTE_SAMPLES // 8 // HOP * HOP), dtype=np.float32)
        begin = time.perf_counter()
        next(self.encode(eighth))
        return (time.perf_counter() - begin) * NOTE_SAMPLES / eighth.shape[1]


def _stacked(codes: Sequence[object], clips: int) -> NDArray[np.uint8]:
    if not codes:
        return np.empty((clips, 0), dtype=np.uint8)
    return np.stack([np.asarray(code) for code in codes], axis=1).astype(np.uint8)


def open_engine(
    checkpoint: Path | None,
    threads: int | None = None,
    engine: str = "auto",
    device: str = "auto",
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
    device : {"auto", "cpu"}
        `cpu` leaves a GPU unused.
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
        return TorchEngine(load(checkpoint), threads)
    from nsynth_super.magenta import MagentaEngine
    from nsynth_super.python27 import Python27

    # What is refused for the machine's sake is refused before gigabytes are read.
    python = Python27.found(magenta, threads, device, quiet, verbose)
    return MagentaEngine(load(checkpoint), python)
