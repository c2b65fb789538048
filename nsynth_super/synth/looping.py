"""Which of a pack's sounds die away before the device loops them.

While a key is held the device plays a sound up to 0.41 of its length, then the part from 0.2 on to
and fro (0.5 to 1.54 s of 3.75 s): of a struck or plucked sound that is a faint tail.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nsynth_super.device import LOOP, offset
from nsynth_super.settings import Settings, pad_name

DECAYED = 4.0
"""How many times louder (12 dB) a sound's loudest window is than its loop, if it dies away."""

WINDOW = 800  # samples: 50 ms


def decays(sound: NDArray[np.int16]) -> bool:
    """Tell whether a sound, `[samples]`, has died away where the device loops it."""
    start, end = (int(len(sound) * share) for share in LOOP)
    if start < WINDOW:
        return False
    audio = sound.astype(np.float64)
    windows = audio[: start // WINDOW * WINDOW].reshape(-1, WINDOW)
    loudest = np.sqrt((windows**2).mean(axis=1).max())
    return bool(loudest > DECAYED * np.sqrt((audio[start:end] ** 2).mean()))


def count(folder: Path, settings: Settings) -> tuple[int, int]:
    """Count the pack's own notes, as the corners of its pads hold them, that die away; and all.

    Parameters
    ----------
    folder : Path
        Of the pack's pads.
    settings : Settings
    """
    last = settings.resolution - 1
    cells = [(0, 0), (last, 0), (0, last), (last, last)]  # NW, NE, SW, SE
    heard: dict[str, tuple[tuple[str, str, str, str], int]] = {}
    for combination in settings.combinations:
        for name, (x, y) in zip(combination, cells, strict=True):
            heard.setdefault(name, (combination, y * settings.resolution + x))
    dying = total = 0
    for combination, cell in heard.values():
        for pitch in range(len(settings.pitches)):
            row = cell * len(settings.pitches) + pitch
            sound = np.fromfile(
                folder / f"{pad_name(combination)}.bin",
                "<i2",
                settings.final_length,
                offset=offset(row, settings.final_length),
            )
            dying += decays(sound)
            total += 1
    return dying, total
