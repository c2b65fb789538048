"""How near the two engines are to each other on the same weights: measured, and held to bounds.

Both encode the same notes. Magenta decodes some clips; our decoder is led through the codes that
Magenta drew, and draws at each step with the random number that Magenta drew with. A clip whose
every code is drawn alike is a clip that our engine would have made, code for code.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from nsynth_super import magenta
from nsynth_super.engines import Engine, Work
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE
from nsynth_super.wavenet.dimensions import HOP

if TYPE_CHECKING:
    from nsynth_super.wavenet.checkpoint import Checkpoint

EMBEDDING = 1e-4
"""The most that embeddings may differ, of the largest value."""

SAME_CODES = 0.999
"""The least share of codes that must be drawn alike: rounding may move a code now and then."""

_NOTES = 4  # at most; each takes seconds
T = TypeVar("T")


@dataclass(frozen=True)
class Agreement:
    """How near the engines are.

    Attributes
    ----------
    notes : int
        How many were encoded.
    embeddings : float
        The largest difference of their embeddings, of the largest value.
    alike : ndarray of bool, `[clips, samples]`
        Whether ours drew Magenta's code.
    """

    notes: int
    embeddings: float
    alike: NDArray[np.bool_]

    @property
    def within_bounds(self) -> bool:
        """Whether they differ by no more than rounding."""
        return bool(self.embeddings <= EMBEDDING and self.alike.mean() >= SAME_CODES)

    def lines(self) -> list[str]:
        """Return what was found as a person reads it."""
        whole = int(self.alike.all(axis=1).sum())
        return [
            f"embeddings  of {self.notes} notes differ by {self.embeddings:.1e} of the largest "
            f"value at most (bound: {EMBEDDING:.0e})",
            f"codes       {int(self.alike.sum()):,} of {self.alike.size:,} are drawn alike "
            f"(bound: {SAME_CODES:.1%})",
            f"clips       {whole} of {len(self.alike)} are equal throughout",
        ]


def measured(
    checkpoint: Checkpoint,
    ours: Engine,
    theirs: magenta.MagentaEngine,
    clips: int,
    samples: int,
    often: Callable[[], None] = lambda: None,
) -> Agreement:
    """Run both engines, and compare what they make.

    Parameters
    ----------
    checkpoint : Checkpoint
        The weights of both.
    ours, theirs : Engine
    clips, samples : int
        How many to decode, and how much of each.
    often : callable
        Called about four times a second; what it raises ends the work.
    """
    notes = np.stack([_note(number) for number in range(min(clips, _NOTES))])
    embeddings = np.concatenate(_all(theirs.encode(notes), often))
    difference = np.abs(np.concatenate(_all(ours.encode(notes), often)) - embeddings).max()
    work = Work(
        encodings=np.resize(embeddings, (clips, *embeddings.shape[1:])),
        keys=range(clips),
        seed=0,
        samples=samples,
        begun=np.empty((clips, 0), dtype=np.uint8),
    )
    codes = np.concatenate([piece.codes for piece in _all(theirs.decode(work), often)], axis=1)
    drawn = redrawn(checkpoint.weights, work, codes, uniforms(work), often)
    return Agreement(len(notes), float(difference / np.abs(embeddings).max()), drawn == codes)


def uniforms(work: Work) -> NDArray[np.float64]:
    """Return the random numbers that Magenta draws a work with, `[samples, clips]`."""
    legacy = np.random.RandomState(magenta.seed(work))
    return legacy.rand(work.samples, len(work.encodings))


def redrawn(
    weights: Mapping[str, NDArray[np.float32]],
    work: Work,
    codes: NDArray[np.uint8],
    uniform: NDArray[np.float64],
    often: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """Return the codes that our decoder draws if it hears `codes`, `[clips, samples]` both."""
    import torch

    from nsynth_super.wavenet import mulaw
    from nsynth_super.wavenet.cpu import CpuDecoder
    from nsynth_super.wavenet.dimensions import read_off
    from nsynth_super.wavenet.rewrites import Rewritten
    from nsynth_super.wavenet.sampling import draw

    dimensions, _ = read_off({name: array.shape for name, array in weights.items()})
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    decoder = CpuDecoder(Rewritten(tensors, dimensions, torch.float32), len(codes))
    silence = np.full((len(codes), 1), mulaw.ZERO, dtype=np.uint8)
    heard = torch.from_numpy(np.concatenate([silence, codes[:, :-1]], axis=1).astype(np.int64))
    encodings, chance = torch.from_numpy(work.encodings), torch.from_numpy(uniform)
    drawn = np.empty_like(codes)
    for t in range(codes.shape[1]):
        with torch.inference_mode():
            if t % HOP == 0:
                decoder.condition(encodings[:, t // HOP])
            drawn[:, t] = draw(decoder.step(heard[:, t]), chance[t]).numpy()
        often()
    return drawn


def _note(number: int) -> NDArray[np.float32]:
    """Return a note of four seconds, `[samples]`: a tone with two overtones that dies away."""
    t = np.arange(NOTE_SAMPLES) / SAMPLE_RATE
    phase = 2 * np.pi * 110.0 * 2 ** (number * 7 / 12) * t
    tone = np.sin(phase) + np.sin(2 * phase) / 2 + np.sin(3 * phase) / 3
    return np.asarray(0.5 * np.exp(-t) * tone, dtype=np.float32)


def _all(pieces: Generator[T, None, None], often: Callable[[], None]) -> list[T]:
    found = []
    with closing(pieces):
        for piece in pieces:
            found.append(piece)
            often()
    return found
