"""Pad geometry: corners, weights, mixes, and the order in which they are made.

Knows the instrument's pad (x to the right, y down, row by row) and which mixes a pack needs.
Knows neither audio nor files nor the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nsynth_super.settings import Settings

CORNER_XY = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
"""Where NW, NE, SW and SE lie on the pad, `[corner, xy]`."""

_RESOLVED = 1e-9
"""Weights closer than this are one weight: what is nearer is rounding, not a different sound."""


class Mix(NamedTuple):
    """What makes a clip distinct: a pitch, and weights over instruments.

    Attributes
    ----------
    pitch : int
        MIDI number of the notes that are mixed.
    weights : tuple of (instrument, weight)
        Sorted by instrument; an instrument in two corners appears once, with the sum.
    """

    pitch: int
    weights: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """A readable name: `60_flute-0.854_marimba-0.146`."""
        return "_".join([str(self.pitch), *(f"{i}-{w:.3f}" for i, w in self.weights)])

    @property
    def key(self) -> int:
        """64 bits that say which mix this is, on every machine: the name of its random numbers."""
        said = f"{self.pitch}/{_said(self.weights)}"
        return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "little")


@lru_cache(maxsize=1024)
def _said(weights: tuple[tuple[str, float], ...]) -> str:
    """Spell out weights as keys have them; a plan's next pitch has the same ones."""
    return "/".join([f"{name}/{weight:.9f}" for name, weight in weights])


def cells(resolution: int) -> NDArray[np.float64]:
    """Return the grid's points in the device's order, `[resolution², xy]`: x fastest, y down."""
    line = np.linspace(0.0, 1.0, resolution)
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def corner_weights(resolution: int) -> NDArray[np.float64]:
    """Return each cell's weights over NW, NE, SW and SE, `[resolution², 4]`; rows sum to 1.

    One minus the distance to the corner, nothing beyond distance 1, normalised: the upstream
    pipeline's formula, which the factory packs were made with.
    """
    distances = np.linalg.norm(cells(resolution)[:, None, :] - CORNER_XY[None], axis=2)
    nearness = np.maximum(1.0 - distances, 0.0)
    nearness[nearness < _RESOLVED] = 0.0
    return np.asarray(nearness / nearness.sum(axis=1, keepdims=True))


def mix_weights(
    combination: Sequence[str], weights: Sequence[float]
) -> tuple[tuple[str, float], ...]:
    """Sum the corners' weights by instrument; sorted, without the zeros."""
    summed: dict[str, float] = {}
    for instrument, weight in zip(combination, weights, strict=True):
        if weight > 0.0:
            summed[instrument] = summed.get(instrument, 0.0) + weight
    return tuple(sorted(summed.items()))


@dataclass(frozen=True)
class Grid:
    """All pads of a pack, and every distinct mix once.

    Attributes
    ----------
    combinations : list of tuple of str
        One instrument for each of NW, NE, SW, SE.
    resolution : int
        Cells along a side.
    mixes : list of Mix
        Every distinct mix once: single instruments first, then mixes of two, of three, of four,
        so that a pack under way can be heard from its corners inwards.
    where : ndarray of int32, `[combinations, cells, pitches]`
        Which mix plays where.
    """

    combinations: list[tuple[str, str, str, str]]
    resolution: int
    mixes: list[Mix]
    where: NDArray[np.int32]

    @classmethod
    def of(cls, settings: Settings) -> Grid:
        """Lay out the pads of `settings`."""
        weights = corner_weights(settings.resolution)
        combinations = settings.combinations
        found: dict[tuple[tuple[str, int], ...], int] = {}
        blends: list[tuple[tuple[str, float], ...]] = []
        where = np.empty((len(combinations), len(weights)), dtype=np.int32)
        rows = weights.tolist()
        for c, combination in enumerate(combinations):
            for cell, row in enumerate(rows):
                blend = mix_weights(combination, row)
                same = tuple((name, round(weight / _RESOLVED)) for name, weight in blend)
                where[c, cell] = index = found.setdefault(same, len(found))
                if index == len(blends):
                    blends.append(blend)
        order = sorted(range(len(blends)), key=lambda b: len(blends[b]))
        rank = np.empty(len(blends), dtype=np.int32)
        rank[order] = np.arange(len(blends), dtype=np.int32)
        pitches = settings.pitches
        mixes = [Mix(pitch, blends[b]) for b in order for pitch in pitches]
        pitch_index = np.arange(len(pitches), dtype=np.int32)
        return cls(
            combinations,
            settings.resolution,
            mixes,
            rank[where][:, :, None] * np.int32(len(pitches)) + pitch_index,
        )

    @cached_property
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each mix is heard: `(order, starts)`, as `places_of` reads them."""
        flat = self.where.ravel()
        order = np.argsort(flat, kind="stable")
        starts = np.searchsorted(flat[order], np.arange(len(self.mixes) + 1))
        return order.astype(np.int64), starts.astype(np.int64)

    def places_of(self, mix: int) -> Iterator[tuple[int, int]]:
        """Yield `(combination, row)` of every place where `mix` is heard.

        A row is one sound in a pad, as the device counts: `cell * pitches + pitch`, cells row by
        row from the top left.
        """
        order, starts = self.places
        rows_in_a_pad = self.where.shape[1] * self.where.shape[2]
        for place in order[starts[mix] : starts[mix + 1]].tolist():
            yield divmod(place, rows_in_a_pad)
