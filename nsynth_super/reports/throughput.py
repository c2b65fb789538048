"""Measures the throughput of an engine, and estimates from it how long a pack takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from nsynth_super.engines.base import Engine
from nsynth_super.pack.finishing import finish
from nsynth_super.settings import NOTE_SAMPLES
from nsynth_super.wavenet import mulaw


@dataclass(frozen=True)
class Throughput:
    """Measured time of each part of the work.

    Attributes
    ----------
    batch : int
        Clips decoded at once.
    step : float
        Seconds per decoding step of `batch` clips.
    note : float
        Seconds to encode one note.
    clip : float
        Seconds to finish one clip for the pads (levelling, trimming and fades).
    """

    batch: int
    step: float
    note: float
    clip: float

    @classmethod
    def measured(cls, engine: Engine, batch: int, length: int = NOTE_SAMPLES) -> Throughput:
        """Measure an engine decoding `batch` clips at once, and finishing of `length` samples."""
        sound = mulaw.decode(np.full(NOTE_SAMPLES, 200, dtype=np.uint8))
        begin = time.perf_counter()
        finish(sound, length)
        clip = time.perf_counter() - begin
        return cls(batch, engine.measure(batch), engine.measure_encoder(), clip)

    @property
    def rate(self) -> float:
        """Samples generated per second, over all clips."""
        return self.batch / self.step

    def seconds(self, notes: int, clips: int, samples: int) -> float:
        """Return the seconds for a pack of `notes` and distinct `clips` of `samples` each."""
        return notes * self.note + clips * (samples / self.rate + self.clip)
