#!/usr/bin/env python3
"""Evaluate a pack's sounds against its notes: `python -m training.listening WORKSPACE`.

For the cells of the corners: the pitch, the distances to their own note and to the other notes, and
the level of hiss. For the cells halfway between two corners: whether they sound in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from nsynth_super.base.workspace import Workspace
from nsynth_super.notes import recordings as notes
from nsynth_super.notes.pitch import detect, frequency
from nsynth_super.pack.finishing import finish
from nsynth_super.settings import CORNERS, SAMPLE_RATE, Settings, pad_name, read

Sound = NDArray[np.floating]

FRAME, HOP, BANDS = 1024, 256, 48
LOWEST, HIGHEST = 40, 7_800  # Hz
FLOOR = 10.0  # energy about 40 dB below a tone at the sound's level; hides quieter differences
SKIPPED, ANALYZED = 2_000, 8_192  # samples: skips the attack
WIDTH = 40  # Hz on either side of a harmonic, at most a quarter of the distance to the next


def _bands() -> NDArray[np.float64]:
    """Return a mel filter bank of triangles, `[bands, frequencies]`."""
    ends = 2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(sound: Sound) -> NDArray[np.float64]:
    """Return the log-mel spectrogram of a sound normalized in level, `[frames, bands]`."""
    level = sound / (np.sqrt(np.mean(np.square(sound, dtype=np.float64))) + 1e-9)
    frames = np.lib.stride_tricks.sliding_window_view(level, FRAME)[::HOP] * np.hanning(FRAME)
    energy = np.abs(np.fft.rfft(frames)) ** 2 @ _bands().T
    return np.asarray(np.log(energy + FLOOR))


def distance(one: Sound, other: Sound) -> float:
    """Return the mean absolute difference of the log-mel spectrograms of equally long sounds."""
    return float(np.abs(log_mel(one) - log_mel(other)).mean())


def hiss(sound: Sound, pitch: float) -> float:
    """Return the level of noise in a tone, in dB relative to the total energy.

    Extrapolates the mean energy between the harmonics to all frequencies.
    """
    part = sound[SKIPPED:][:ANALYZED]
    energy = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
    harmonic = np.fft.rfftfreq(len(part), 1 / SAMPLE_RATE) / frequency(pitch)
    off = np.abs(harmonic - np.rint(harmonic)) * frequency(pitch)
    between = (off > min(WIDTH, frequency(pitch) / 4)) & (harmonic > 0.5)
    return float(10 * np.log10(energy[between].mean() * len(energy) / energy.sum()))


@dataclass(frozen=True)
class Cell:
    """Evaluation of a corner's cell at one pitch.

    Attributes
    ----------
    instrument : str
    pitch : int
        MIDI number.
    cents : float or None
        Deviation of the detected pitch; None if no pitch was detected.
    distances : dict of str to float
        Distance to each instrument's note.
    hiss, hiss_of_note : float
        Level of noise in the cell and in the instrument's note, in dB.
    """

    instrument: str
    pitch: int
    cents: float | None
    distances: dict[str, float]
    hiss: float
    hiss_of_note: float

    @property
    def in_tune(self) -> bool:
        """Whether the pitch deviates by at most 50 cents."""
        return self.cents is not None and abs(self.cents) <= 50

    @property
    def sounds_like_itself(self) -> bool:
        """Whether the cell is closer to its own note than to those of the other instruments."""
        return min(self.distances, key=lambda name: self.distances[name]) == self.instrument


@dataclass(frozen=True)
class Halfway:
    """Evaluation of the middle cell of an edge at one pitch.

    Attributes
    ----------
    edge : str
        Names of the two corners.
    pitch : int
        MIDI number.
    cents : float or None
        Deviation of the detected pitch; None if no pitch was detected.
    one, other : float
        Distances to the two corners' cells.
    apart : float
        Distance between the two corners' cells.
    """

    edge: str
    pitch: int
    cents: float | None
    one: float
    other: float
    apart: float

    @property
    def in_tune(self) -> bool:
        """Whether the pitch deviates by at most 50 cents."""
        return self.cents is not None and abs(self.cents) <= 50

    @property
    def between(self) -> bool:
        """Whether the cell is closer to both corners than they are to each other."""
        return max(self.one, self.other) < self.apart

    @property
    def near(self) -> bool:
        """Whether the cell is on average closer to the corners than they are to each other."""
        return (self.one + self.other) / 2 < self.apart


class Pack:
    """The first pad of a finished workspace and its notes."""

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
        """Row and column of each corner."""
        last = self.settings.resolution - 1
        return dict(zip(CORNERS, ((0, 0), (0, last), (last, 0), (last, last)), strict=True))

    @cached_property
    def corners(self) -> list[Cell]:
        """Evaluations of the corners' cells, by corner and pitch."""
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
        """Return the evaluations of the middle cells of all edges, by edge and pitch."""
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
    detected = detect(sound)
    return None if detected is None else 100 * (detected - pitch)


def _format(cents: float | None) -> str:
    return "—" if cents is None else f"{cents:+.0f}"


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(root: Path) -> None:
    """Print the evaluation as Markdown tables."""
    pack = Pack(Workspace(root))
    click.echo("| note | cents | to own note | to nearest other | hiss, dB | note's hiss, dB |")
    click.echo("|---|---|---|---|---|---|")
    for cell in pack.corners:
        others = [d for name, d in cell.distances.items() if name != cell.instrument]
        own = cell.distances[cell.instrument]
        click.echo(
            f"| {cell.instrument} {cell.pitch} | {_format(cell.cents)} | {own:.2f} | "
            f"{min(others):.2f} | {cell.hiss:.0f} | {cell.hiss_of_note:.0f} |"
        )
    click.echo("\n| halfway | cents | to one corner | to the other | between the corners |")
    click.echo("|---|---|---|---|---|")
    for mix in pack.halfway():
        click.echo(
            f"| {mix.edge} {mix.pitch} | {_format(mix.cents)} | {mix.one:.2f} | {mix.other:.2f} | "
            f"{mix.apart:.2f} |"
        )


if __name__ == "__main__":
    main()
