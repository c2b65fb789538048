"""bench: what this machine can do, in clips an hour, against the roofline; what packs take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nsynth_super.engines import Engine
from nsynth_super.grid import Grid
from nsynth_super.plan import BLOCK
from nsynth_super.settings import NOTE_SAMPLES, Settings
from nsynth_super.speed import Speed
from nsynth_super.stages.generate import blocks_at_once

PACKS = (1, 2, 4)
"""Instruments a corner; of the last is the instrument's own pack."""

_PITCHES = list(range(24, 85, 4))
_RESOLUTION = 9


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes
    ----------
    engine : str
        What computes.
    speed : Speed
    share : float or None
        Of the roofline: what the matrix products alone would allow; None where nobody measured it.
    packs : dict of int to (int, float)
        By instruments a corner: clips, and seconds for all stages.
    """

    engine: str
    speed: Speed
    share: float | None
    packs: dict[int, tuple[int, float]]

    @property
    def clips_an_hour(self) -> float:
        """Clips of four seconds."""
        return 3600 * self.speed.rate / NOTE_SAMPLES

    def as_dict(self) -> dict[str, Any]:
        """Return it as `bench --json` prints it."""
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


def run(engine: Engine, batch_clips: int | None = None) -> Bench:
    """Measure an engine here, at as many clips at once as `generate` would decode of a large pack.

    Parameters
    ----------
    engine : Engine
    batch_clips : int, optional
        As `generate` takes it.
    """
    batch = blocks_at_once(engine, batch_clips) * BLOCK
    speed = Speed.measured(engine, batch)
    products = engine.measure_products(batch)
    packs = {}
    for each in PACKS:
        settings = _pack(each)
        clips, notes = len(Grid.of(settings).mixes), len(settings.instruments) * len(_PITCHES)
        packs[each] = clips, speed.seconds(notes, clips, settings.decoded_samples)
    return Bench(engine.describe(), speed, products and products / speed.step, packs)


def _pack(each: int) -> Settings:
    """Return the settings of a pack of other instruments in each corner, at the usual sizes."""
    corners = {
        corner: [f"{corner.lower()}{n}" for n in range(each)] for corner in ("NW", "NE", "SW", "SE")
    }
    return Settings.model_validate(
        {"pads": corners, "pitches": _PITCHES, "resolution": _RESOLUTION}
    )
