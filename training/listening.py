#!/usr/bin/env python3
"""What a pack sounds like beside its notes, in figures: `python -m training.listening WORKSPACE`.

Of every corner's cells: the pitch, how near the sound is to its own note and to the others, how
much of it is hiss; of the cells between two corners: whether they sound like something between.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from nsynth_super import notes
from nsynth_super.finishing import finish
from nsynth_super.pitch import detect, frequency
from nsynth_super.settings import CORNERS, SAMPLE_RATE, Settings, pad_name, read
from nsynth_super.workspace import Workspace

Sound = NDArray[np.floating]

FRAME, HOP, BANDS = 1024, 256, 48
LOWEST, HIGHEST = 40, 7_800  # Hz
FLOOR = 10.0  # some 40 dB below the energy of a tone at the sound's own level: less is not compared
SKIPPED, LISTENED = 2_000, 8_192  # samples: past the attack
WIDTH = 40  # Hz to either side of a harmonic, at most a quarter of the way to the next


def _bands() -> NDArray[np.float64]:
    """Return triangles of equal width on the mel scale, `[bands, frequencies]`."""
    ends = 2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(sound: Sound) -> NDArray[np.float64]:
    """Return a sound's log-mel spectrogram at one level for all, `[frames, bands]`."""
    level = sound / (np.sqrt(np.mean(np.square(sound, dtype=np.float64))) + 1e-9)
    frames = np.lib.stride_tricks.sliding_window_view(level, FRAME)[::HOP] * np.hanning(FRAME)
    energy = np.abs(np.fft.rfft(frames)) ** 2 @ _bands().T
    return np.asarray(np.log(energy + FLOOR))


def distance(one: Sound, other: Sound) -> float:
    """Return how differently two sounds of a length sound: the mean of |log-mel difference|."""
    return float(np.abs(log_mel(one) - log_mel(other)).mean())


def hiss(sound: Sound, pitch: float) -> float:
    """Return the level of what lies between a tone's harmonics, in dB of the whole.

    The energy of the frequencies far from every harmonic, as if all frequencies had as much.
    """
    heard = sound[SKIPPED:][:LISTENED]
    energy = np.abs(np.fft.rfft(heard * np.hanning(len(heard)))) ** 2
    harmonic = np.fft.rfftfreq(len(heard), 1 / SAMPLE_RATE) / frequency(pitch)
    off = np.abs(harmonic - np.rint(harmonic)) * frequency(pitch)
    between = (off > min(WIDTH, frequency(pitch) / 4)) & (harmonic > 0.5)
    return float(10 * np.log10(energy[between].mean() * len(energy) / energy.sum()))


@dataclass(frozen=True)
class Cell:
    """A corner's cell at one pitch, and what it was made from."""

    instrument: str
    pitch: int
    cents: float | None
    distances: dict[str, float]
    hiss: float
    hiss_of_note: float

    @property
    def in_tune(self) -> bool:
        """Within 50 cents."""
        return self.cents is not None and abs(self.cents) <= 50

    @property
    def sounds_like_itself(self) -> bool:
        """Nearer to its own note than to any other instrument's."""
        return min(self.distances, key=lambda name: self.distances[name]) == self.instrument


@dataclass(frozen=True)
class Halfway:
    """The cell in the middle of an edge at one pitch, and how it lies between its corners."""

    edge: str
    pitch: int
    cents: float | None
    one: float
    other: float
    apart: float

    @property
    def in_tune(self) -> bool:
        """Within 50 cents."""
        return self.cents is not None and abs(self.cents) <= 50

    @property
    def between(self) -> bool:
        """Nearer to each of its corners than they are to each other."""
        return max(self.one, self.other) < self.apart

    @property
    def near(self) -> bool:
        """Nearer to its corners, on average, than they are to each other."""
        return (self.one + self.other) / 2 < self.apart


class Pack:
    """The first pad of a finished workspace, its notes, and how they compare."""

    def __init__(self, workspace: Workspace) -> None:
        settings, _ = read(workspace.settings)
        assert settings is not None
        self.settings: Settings = settings
        self.names = settings.combinations[0]
        side, pitches = settings.resolution, len(settings.pitches)
        flat = np.fromfile(workspace.pad(pad_name(self.names)), "<i2")
        self.cells = flat.reshape(side, side, pitches, settings.final_length) / 32768
        found, _ = notes.find(workspace.notes, settings)
        self.notes = {
            note.name: finish(notes.read(note).audio, settings.final_length) / 32768
            for note in found
        }

    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """Each corner's row and column."""
        last = self.settings.resolution - 1
        return dict(zip(CORNERS, ((0, 0), (0, last), (last, 0), (last, last)), strict=True))

    @cached_property
    def corners(self) -> list[Cell]:
        """The corners' cells."""
        return [
            self._cell(name, place, index)
            for name, place in zip(self.names, self.places.values(), strict=True)
            for index in range(len(self.settings.pitches))
        ]

    def _cell(self, name: str, place: tuple[int, int], index: int) -> Cell:
        pitch, sound = self.settings.pitches[index], self.cells[place][index]
        return Cell(
            name,
            pitch,
            _cents(sound, pitch),
            {other: distance(sound, self.notes[other, pitch]) for other in self.names},
            hiss(sound, pitch),
            hiss(self.notes[name, pitch], pitch),
        )

    def halfway(self) -> list[Halfway]:
        """Return each edge's middle, at every pitch."""
        half, places = self.settings.resolution // 2, self.places
        last = self.settings.resolution - 1
        middles = {"NW NE": (0, half), "SW SE": (last, half)}
        middles |= {"NW SW": (half, 0), "NE SE": (half, last)}
        return [
            Halfway(
                *(edge, pitch, _cents(cell, pitch)),
                *(distance(cell, one), distance(cell, other), distance(one, other)),
            )
            for edge, place in middles.items()
            for index, pitch in enumerate(self.settings.pitches)
            for cell in [self.cells[place][index]]
            for one, other in [[self.cells[places[corner]][index] for corner in edge.split()]]
        ]


def _cents(sound: Sound, pitch: int) -> float | None:
    heard = detect(sound)
    return None if heard is None else 100 * (heard - pitch)


def _said(cents: float | None) -> str:
    return "—" if cents is None else f"{cents:+.0f}"


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(root: Path) -> None:
    """Print the figures as a table in Markdown."""
    pack = Pack(Workspace(root))
    click.echo("| note | cents | to itself | to the nearest other | hiss, dB | the note's own |")
    click.echo("|---|---|---|---|---|---|")
    for cell in pack.corners:
        others = [d for name, d in cell.distances.items() if name != cell.instrument]
        own = cell.distances[cell.instrument]
        click.echo(
            f"| {cell.instrument} {cell.pitch} | {_said(cell.cents)} | {own:.2f} | "
            f"{min(others):.2f} | {cell.hiss:.0f} | {cell.hiss_of_note:.0f} |"
        )
    click.echo("\n| halfway | cents | to one | to the other | they are apart |")
    click.echo("|---|---|---|---|---|")
    for mix in pack.halfway():
        click.echo(
            f"| {mix.edge} {mix.pitch} | {_said(mix.cents)} | {mix.one:.2f} | {mix.other:.2f} | "
            f"{mix.apart:.2f} |"
        )


if __name__ == "__main__":
    main()
