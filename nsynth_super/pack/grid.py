"""Compute the grid of a pack: cells, corner weights and the distinct mixes, in order.

Coordinates are those of the synth's touch pad: x to the right, y down, row by row. Independent of
audio, files and the model.
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
"""Coordinates of NW, NE, SW and SE, `[corner, xy]`."""

_RESOLVED = 1e-9
"""Weights closer than this are equal: the difference is rounding, not a different sound."""


class Mix(NamedTuple):
    """A pitch and weights over instruments; each distinct mix is one clip.

    Attributes
    ----------
    pitch : int
        MIDI number of the mixed notes.
    weights : tuple of (instrument, weight)
        Sorted by instrument; the weights of an instrument in two corners are added.
    """

    pitch: int
    weights: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """Readable name: `60_flute-0.854_marimba-0.146`."""
        return "_".join([str(self.pitch), *(f"{i}-{w:.3f}" for i, w in self.weights)])

    @property
    def key(self) -> int:
        """64-bit hash of the mix, the same on every machine; selects its random numbers."""
        text = f"{self.pitch}/{_format_weights(self.weights)}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


@lru_cache(maxsize=1024)
def _format_weights(weights: tuple[tuple[str, float], ...]) -> str:
    """Return weights as text for `Mix.key`; cached, as every pitch has the same weights."""
    return "/".join([f"{name}/{weight:.9f}" for name, weight in weights])


def cells(resolution: int) -> NDArray[np.float64]:
    """Return the grid points in the synth's order, `[resolution², xy]`: x fastest, y down."""
    line = np.linspace(0.0, 1.0, resolution)
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def corner_weights(resolution: int) -> NDArray[np.float64]:
    """Return each cell's weights over NW, NE, SW and SE, `[resolution², 4]`; rows sum to 1.

    A weight is one minus the distance to the corner, at least 0, normalised. This is the formula of
    the upstream pipeline and of the factory packs.
    """
    distances = np.linalg.norm(cells(resolution)[:, None, :] - CORNER_XY[None], axis=2)
    nearness = np.maximum(1.0 - distances, 0.0)
    nearness[nearness < _RESOLVED] = 0.0
    return np.asarray(nearness / nearness.sum(axis=1, keepdims=True))


def mix_weights(
    combination: Sequence[str], weights: Sequence[float]
) -> tuple[tuple[str, float], ...]:
    """Return the sum of the corners' weights per instrument, sorted, without zeros."""
    summed: dict[str, float] = {}
    for instrument, weight in zip(combination, weights, strict=True):
        if weight > 0.0:
            summed[instrument] = summed.get(instrument, 0.0) + weight
    return tuple(sorted(summed.items()))


@dataclass(frozen=True)
class Grid:
    """All cells of all pads of a pack, mapped to distinct mixes.

    Attributes
    ----------
    combinations : list of tuple of str
        One instrument for each of NW, NE, SW, SE.
    resolution : int
        Cells along one side.
    mixes : list of Mix
        Distinct mixes: single instruments first, then mixes of two, three and four, so that an
        unfinished pack can be heard from its corners inwards.
    where : ndarray of int32, `[combinations, cells, pitches]`
        Index into `mixes` of each sound.
    """

    combinations: list[tuple[str, str, str, str]]
    resolution: int
    mixes: list[Mix]
    where: NDArray[np.int32]

    @classmethod
    def of(cls, settings: Settings) -> Grid:
        """Return the grid of a pack with these settings."""
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
        """Sorted index of `where`, as (order, starts), for `places_of`."""
        flat = self.where.ravel()
        order = np.argsort(flat, kind="stable")
        starts = np.searchsorted(flat[order], np.arange(len(self.mixes) + 1))
        return order.astype(np.int64), starts.astype(np.int64)

    def places_of(self, mix: int) -> Iterator[tuple[int, int]]:
        """Yield (combination, row) of every sound in the pads that plays `mix`.

        Rows are counted as in `geometry.Geometry.row`.
        """
        order, starts = self.places
        rows_in_a_pad = self.where.shape[1] * self.where.shape[2]
        for place in order[starts[mix] : starts[mix + 1]].tolist():
            yield divmod(place, rows_in_a_pad)
