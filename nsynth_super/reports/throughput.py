"""How fast this machine is, measured; how long a pack takes, from that."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from nsynth_super.engines import Engine
from nsynth_super.finishing import finish
from nsynth_super.settings import NOTE_SAMPLES
from nsynth_super.wavenet import mulaw


@dataclass(frozen=True)
class Speed:
    """What the parts of the work take.

    Attributes
    ----------
    batch : int
        Clips decoded at once.
    step : float
        Seconds that a step of so many clips takes.
    note : float
        Seconds to encode one note.
    clip : float
        Seconds to finish one clip for the pads.
    """

    batch: int
    step: float
    note: float
    clip: float

    @classmethod
    def measured(cls, engine: Engine, batch: int, length: int = NOTE_SAMPLES) -> Speed:
        """Measure an engine at so many clips at once, and finishing to `length` samples."""
        sound = mulaw.decode(np.full(NOTE_SAMPLES, 200, dtype=np.uint8))
        begin = time.perf_counter()
        finish(sound, length)
        clip = time.perf_counter() - begin
        return cls(batch, engine.measure(batch), engine.measure_encoder(), clip)

    @property
    def rate(self) -> float:
        """Clip-samples a second."""
        return self.batch / self.step

    def seconds(self, notes: int, clips: int, samples: int) -> float:
        """Return how long a pack takes: its notes, its distinct clips of so many samples."""
        return notes * self.note + clips * (samples / self.rate + self.clip)
