"""Measures throughput against the roofline, and estimates how long packs take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nsynth_super.engines.base import Engine
from nsynth_super.pack.grid import Grid
from nsynth_super.pack.plan import BLOCK
from nsynth_super.reports.throughput import Throughput
from nsynth_super.settings import NOTE_SAMPLES, Settings
from nsynth_super.stages.batches import blocks_at_once

PACKS = (1, 2, 4)
"""Instruments per corner; the synth's factory pack has the last number."""

_PITCHES = list(range(24, 85, 4))
_RESOLUTION = 9


@dataclass(frozen=True)
class Bench:
    """The result of `bench`.

    Attributes
    ----------
    engine : str
        Description of the engine.
    speed : Throughput
    share : float or None
        Fraction of the roofline, the throughput of the model's matrix products alone; None if the
        engine cannot measure it.
    packs : dict of int to (int, float)
        Number of clips and seconds for all stages, by instruments per corner.
    """

    engine: str
    speed: Throughput
    share: float | None
    packs: dict[int, tuple[int, float]]

    @property
    def clips_an_hour(self) -> float:
        """Four-second clips generated per hour."""
        return 3600 * self.speed.rate / NOTE_SAMPLES

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `bench --json`."""
        return {
            "engine": self.engine,
            "clips_at_once": self.speed.batch,
            "clip_samples_a_second": round(self.speed.rate),
            "clips_an_hour": round(self.clips_an_hour, 1),
            "share_of_roofline": None if self.share is None else round(self.share, 3),
            "seconds_a_note": round(self.speed.note, 3),
            "packs": {
                str(each): {"clips": clips, "seconds": round(seconds)}
                for each, (clips, seconds) in self.packs.items()
            },
        }


def run_bench(engine: Engine, batch_clips: int | None = None) -> Bench:
    """Measure an engine with the batch size that `generate` would choose for a large pack.

    Parameters
    ----------
    engine : Engine
    batch_clips : int, optional
        Clips to decode at once, as for `generate`.
    """
    batch = blocks_at_once(engine, batch_clips) * BLOCK
    speed = Throughput.measured(engine, batch)
    products = engine.measure_products(batch)
    packs = {}
    for each in PACKS:
        settings = _pack(each)
        clips, notes = len(Grid.of(settings).mixes), len(settings.instruments) * len(_PITCHES)
        packs[each] = clips, speed.seconds(notes, clips, settings.decoded_samples)
    return Bench(engine.describe(), speed, products and products / speed.step, packs)


def _pack(each: int) -> Settings:
    """Return settings with `each` different instruments per corner and factory sizes."""
    corners = {
        corner: [f"{corner.lower()}{n}" for n in range(each)] for corner in ("NW", "NE", "SW", "SE")
    }
    return Settings.model_validate(
        {"pads": corners, "pitches": _PITCHES, "resolution": _RESOLUTION}
    )
