"""What every fast path of the decoder offers: steps for clips side by side, drawing as it goes."""

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
"""In the place of a forced code: this one is drawn."""


class Stepper(ABC):
    """The decoder's steps for `clips` clips, taken in the order of time.

    Attributes
    ----------
    dimensions : Dimensions
    clips : int
    code : Tensor of int64, `[clips]`
        The code before: what the next step starts from.
    steps : int
        How many steps one call of `run` takes best; a frame is a multiple of it.
    ahead : int
        How many calls may be under way before the first one's codes are asked for.
    """

    steps = 1
    ahead = 0

    def __init__(self, dimensions: Dimensions, clips: int, device: torch.device) -> None:
        self.dimensions, self.clips = dimensions, clips
        self.code = torch.full((clips,), ZERO, device=device)

    @abstractmethod
    def reset(self, time: int = 0) -> None:
        """Forget the past and the frame; the next step is of `time`, in samples.

        What is computed does not depend on it, but where a ring's inputs lie does: a run that goes
        on from a replay rounds as one that never stopped.
        """

    @abstractmethod
    def condition(self, encoding: Tensor) -> None:
        """Take `encoding`, float32 `[clips, embedding]`, as the frame of the steps to come."""

    @abstractmethod
    def step(self, codes: Tensor) -> Tensor:
        """Return the next code's logits, float32 `[clips, 256]`, from the codes before."""

    def run(self, uniform: Tensor, forced: Tensor) -> Callable[[], NDArray[np.uint8]]:
        """Take steps; each step's code is drawn, or forced where there is one.

        Parameters
        ----------
        uniform : Tensor of float32, `[times, clips]`
            What each code is drawn with.
        forced : Tensor of int64, `[times, clips]`
            Codes, or `DRAWN`.

        Returns
        -------
        callable
            Waits for the codes and returns them, `[times, clips]`.
        """
        codes = self.take(uniform, forced)
        return lambda: codes.numpy()

    def take(self, uniform: Tensor, forced: Tensor) -> Tensor:
        """Take steps as `run` does; the codes stay where they are drawn."""
        codes = torch.empty(uniform.shape, dtype=torch.uint8, device=self.code.device)
        for at in range(len(uniform)):
            drawn = draw(self.step(self.code), uniform[at])
            self.code.copy_(torch.where(forced[at] == DRAWN, drawn, forced[at]))
            codes[at] = self.code
        return codes
