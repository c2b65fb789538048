"""Compare the PyTorch engine with Magenta on the same weights.

Both engines encode the same notes. Magenta decodes some clips. Then the PyTorch decoder runs with
teacher forcing: it receives Magenta's codes and, at each step, samples with Magenta's random
number. If all codes of a clip agree, the PyTorch engine would have generated the identical clip.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from nsynth_super.engines import magenta
from nsynth_super.engines.base import Batch, Engine
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE
from nsynth_super.wavenet.dimensions import HOP

if TYPE_CHECKING:
    from nsynth_super.wavenet.checkpoint import Checkpoint

EMBEDDING = 1e-4
"""Largest acceptable difference between embeddings, relative to their largest value."""

SAME_CODES = 0.999
"""Smallest acceptable share of equal codes; rounding may occasionally change one."""

_NOTES = 4  # notes to encode at most; each takes seconds
T = TypeVar("T")


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison.

    Attributes
    ----------
    notes : int
        Number of encoded notes.
    embeddings : float
        Largest difference between embeddings, relative to the largest value.
    equal : ndarray of bool, `[clips, samples]`
        Whether both engines sampled the same code.
    """

    notes: int
    embeddings: float
    equal: NDArray[np.bool_]

    @property
    def within_bounds(self) -> bool:
        """Whether the engines differ by no more than rounding."""
        return bool(self.embeddings <= EMBEDDING and self.equal.mean() >= SAME_CODES)

    def lines(self) -> list[str]:
        """Return a readable report."""
        clips = int(self.equal.all(axis=1).sum())
        return [
            f"embeddings  largest relative difference in {self.notes} notes: "
            f"{self.embeddings:.1e} (bound: {EMBEDDING:.0e})",
            f"codes       {int(self.equal.sum()):,} of {self.equal.size:,} are equal "
            f"(bound: {SAME_CODES:.1%})",
            f"clips       {clips} of {len(self.equal)} are identical",
        ]


def compare_engines(
    checkpoint: Checkpoint,
    pytorch: Engine,
    reference: magenta.MagentaEngine,
    clips: int,
    samples: int,
    heartbeat: Callable[[], None] = lambda: None,
) -> Agreement:
    """Run both engines and compare their embeddings and codes.

    Parameters
    ----------
    checkpoint : Checkpoint
        The weights of both engines.
    pytorch, reference : Engine
        The PyTorch engine, and Magenta.
    clips, samples : int
        Number of clips to decode, and samples of each.
    heartbeat : callable
        Called about four times a second; an exception that it raises aborts the comparison.
    """
    notes = np.stack([_note(number) for number in range(min(clips, _NOTES))])
    embeddings = np.concatenate(_collect(reference.encode(notes), heartbeat))
    own = np.concatenate(_collect(pytorch.encode(notes), heartbeat))
    difference = np.abs(own - embeddings).max()
    batch = Batch(
        encodings=np.resize(embeddings, (clips, *embeddings.shape[1:])),
        keys=range(clips),
        seed=0,
        samples=samples,
        begun=np.empty((clips, 0), dtype=np.uint8),
    )
    pieces = _collect(reference.decode(batch), heartbeat)
    codes = np.concatenate([piece.codes for piece in pieces], axis=1)
    own_codes = teacher_forced_codes(
        checkpoint.weights, batch, codes, magenta_uniforms(batch), heartbeat
    )
    return Agreement(len(notes), float(difference / np.abs(embeddings).max()), own_codes == codes)


def magenta_uniforms(batch: Batch) -> NDArray[np.float64]:
    """Return the random numbers with which Magenta samples a batch, `[samples, clips]`."""
    legacy = np.random.RandomState(magenta.seed(batch))
    return legacy.rand(batch.samples, len(batch.encodings))


def teacher_forced_codes(
    weights: Mapping[str, NDArray[np.float32]],
    batch: Batch,
    codes: NDArray[np.uint8],
    uniform: NDArray[np.float64],
    heartbeat: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """Return the codes that the PyTorch decoder samples when `codes` is its past.

    Parameters
    ----------
    weights : mapping of str to ndarray of float32
        The checkpoint's variables.
    batch : Batch
        The encodings.
    codes : ndarray of uint8, `[clips, samples]`
        The codes that the decoder receives.
    uniform : ndarray of float64, `[samples, clips]`
        Random numbers to sample with.
    heartbeat : callable
        Called after each step.

    Returns
    -------
    ndarray of uint8, `[clips, samples]`
    """
    import torch

    from nsynth_super.wavenet import mulaw
    from nsynth_super.wavenet.cpu import CpuDecoder
    from nsynth_super.wavenet.dimensions import infer_dimensions
    from nsynth_super.wavenet.rewrites import Rewritten
    from nsynth_super.wavenet.sampling import draw

    dimensions, _ = infer_dimensions({name: array.shape for name, array in weights.items()})
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    decoder = CpuDecoder(Rewritten(tensors, dimensions, torch.float32), len(codes))
    silence = np.full((len(codes), 1), mulaw.ZERO, dtype=np.uint8)
    previous = torch.from_numpy(np.concatenate([silence, codes[:, :-1]], axis=1).astype(np.int64))
    encodings, random = torch.from_numpy(batch.encodings), torch.from_numpy(uniform)
    sampled = np.empty_like(codes)
    for t in range(codes.shape[1]):
        with torch.inference_mode():
            if t % HOP == 0:
                decoder.condition(encodings[:, t // HOP])
            sampled[:, t] = draw(decoder.step(previous[:, t]), random[t]).numpy()
        heartbeat()
    return sampled


def _note(number: int) -> NDArray[np.float32]:
    """Return a synthetic note of four seconds, `[samples]`: a decaying tone with two overtones."""
    t = np.arange(NOTE_SAMPLES) / SAMPLE_RATE
    phase = 2 * np.pi * 110.0 * 2 ** (number * 7 / 12) * t
    tone = np.sin(phase) + np.sin(2 * phase) / 2 + np.sin(3 * phase) / 3
    return np.asarray(0.5 * np.exp(-t) * tone, dtype=np.float32)


def _collect(pieces: Generator[T, None, None], heartbeat: Callable[[], None]) -> list[T]:
    collected = []
    with closing(pieces):
        for piece in pieces:
            collected.append(piece)
            heartbeat()
    return collected
