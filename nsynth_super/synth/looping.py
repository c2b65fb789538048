"""Counts the sounds of a pack that decay before the synth loops them.

While a key is held, the synth plays a sound up to 0.41 of its length, then loops the part from 0.2
back and forth (0.5 to 1.54 s of 3.75 s). For struck or plucked sounds that is a faint tail.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsynth_super.pack.geometry import SAMPLE, Geometry
from nsynth_super.settings import Settings, pad_name
from nsynth_super.synth.settings import LOOP

DECAYED = 4.0
"""Ratio of a sound's loudest window to its loop, 12 dB, above which it counts as decayed."""

WINDOW = 800  # samples: 50 ms


def decays(sound: NDArray[np.int16]) -> bool:
    """Return whether a sound, `[samples]`, has decayed before the part that the synth loops."""
    start, end = (int(len(sound) * share) for share in LOOP)
    if start < WINDOW:
        return False
    audio = sound.astype(np.float64)
    windows = audio[: start // WINDOW * WINDOW].reshape(-1, WINDOW)
    loudest = np.sqrt((windows**2).mean(axis=1).max())
    return bool(loudest > DECAYED * np.sqrt((audio[start:end] ** 2).mean()))


def count(folder: Path, settings: Settings) -> tuple[int, int]:
    """Count the notes in the corners of the pads that decay before the loop.

    Parameters
    ----------
    folder : Path
        The pack's pads.
    settings : Settings

    Returns
    -------
    decaying, total : int
        Number of notes that decay, and of all notes.
    """
    last = settings.resolution - 1
    geometry = Geometry.of(settings)
    cells = [(0, 0), (last, 0), (0, last), (last, last)]  # NW, NE, SW, SE
    pads: dict[str, tuple[tuple[str, str, str, str], tuple[int, int]]] = {}
    for combination in settings.combinations:
        for name, cell in zip(combination, cells, strict=True):
            pads.setdefault(name, (combination, cell))
    decaying = total = 0
    for combination, cell in pads.values():
        for pitch in range(len(settings.pitches)):
            sound = np.fromfile(
                folder / f"{pad_name(combination)}.bin",
                SAMPLE,
                geometry.length,
                offset=geometry.offset(geometry.row(*cell, pitch)),
            )
            decaying += decays(sound)
            total += 1
    return decaying, total
