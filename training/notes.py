#!/usr/bin/env python3
"""Render the training notes of the demo model: `python -m training.notes SF2 OUT.npz`.

Uses the demo's four instruments, at the demo's pitches or also at those in between.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from nsynth_super.notes.soundfont import SoundFont
from nsynth_super.wavenet import mulaw

PRESETS = {
    "clarinet": "Clarinet",
    "marimba": "Marimba",
    "electricpiano": "Rhodes EP",
    "cello": "Cello",
}
PITCHES = range(48, 73)  # MIDI numbers


@click.command()
@click.argument("soundfont", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--every", default=4, show_default=True, help="Semitones between notes.")
def main(soundfont: Path, out: Path, every: int) -> None:
    """Render notes of SOUNDFONT and write their names and codes, [notes, 64000], to OUT."""
    font = SoundFont(soundfont)
    notes = {
        f"{name}_{pitch}": font.note(font.find(preset), pitch)
        for name, preset in tqdm(PRESETS.items(), unit="instrument")
        for pitch in PITCHES[::every]
    }
    codes = np.stack([mulaw.encode(note) for note in notes.values() if note is not None])
    np.savez_compressed(out, names=np.array(list(notes)), codes=codes)


if __name__ == "__main__":
    main()
