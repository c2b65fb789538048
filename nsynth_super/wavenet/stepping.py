"""The interface of the decoder's fast paths: autoregressive steps for a batch of clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsynth_super.wavenet.dimensions import Dimensions
from nsynth_super.wavenet.mulaw import ZERO
from nsynth_super.wavenet.sampling import draw

DRAWN = -1
"""Marks a time without a forced code: its code is sampled."""


class Stepper(ABC):
    """A decoder that advances `clips` clips sample by sample.

    Attributes
    ----------
    dimensions : Dimensions
        The model's sizes.
    clips : int
        Clips decoded in parallel.
    code : Tensor of int64, `[clips]`
        The previous code of each clip, input of the next step.
    steps : int
        Optimal number of steps per call of `run`; divides the length of a frame.
    ahead : int
        Calls of `run` that may be queued before waiting for the codes of the first.
    """

    steps = 1
    ahead = 0

    def __init__(self, dimensions: Dimensions, clips: int, device: torch.device) -> None:
        self.dimensions, self.clips = dimensions, clips
        self.code = torch.full((clips,), ZERO, device=device)

    @abstractmethod
    def reset(self, time: int = 0) -> None:
        """Clear the past and the frame; the next step is sample `time`.

        The time determines the positions in the ring buffers and thereby the rounding: with the
        right time, a resumed run returns exactly the codes of an uninterrupted one.
        """

    @abstractmethod
    def condition(self, encoding: Tensor) -> None:
        """Set the frame of the next steps: `encoding`, float32 `[clips, embedding]`."""

    @abstractmethod
    def step(self, codes: Tensor) -> Tensor:
        """Advance by one sample.

        Parameters
        ----------
        codes : Tensor of int64, `[clips]`
            The previous code of each clip.

        Returns
        -------
        Tensor of float32, `[clips, 256]`
            The logits of the next code.
        """

    def run(self, uniform: Tensor, forced: Tensor) -> Callable[[], NDArray[np.uint8]]:
        """Start several steps; each samples its code or takes the forced one.

        Parameters
        ----------
        uniform : Tensor of float32, `[times, clips]`
            Random numbers to sample with.
        forced : Tensor of int64, `[times, clips]`
            Forced codes, or `DRAWN` where the code is sampled.

        Returns
        -------
        callable
            Waits for the steps and returns their codes, `[times, clips]`.
        """
        codes = self.take(uniform, forced)
        return lambda: codes.numpy()

    def take(self, uniform: Tensor, forced: Tensor) -> Tensor:
        """Take steps as `run` does; return the codes, uint8 `[times, clips]`, on the device."""
        codes = torch.empty(uniform.shape, dtype=torch.uint8, device=self.code.device)
        for at in range(len(uniform)):
            drawn = draw(self.step(self.code), uniform[at])
            self.code.copy_(torch.where(forced[at] == DRAWN, drawn, forced[at]))
            codes[at] = self.code
        return codes
