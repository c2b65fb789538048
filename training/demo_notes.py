#!/usr/bin/env python3
"""Render the demo's source notes from FluidR3_GM, at concert pitch (MIDI 69 = 440 Hz).

Needs `fluidsynth`, the soundfont (Debian: fluid-soundfont-gm) and this package's environment:
`python -m training.demo_notes [FluidR3_GM.sf2]`.
"""

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

from nsynth_super.demo import NOTES

PROGRAMS = {"clarinet": 71, "marimba": 12, "electricpiano": 4, "cello": 42}  # General MIDI, from 0
PITCHES = (48, 60, 72)  # MIDI numbers
VELOCITY = 100
HELD, RINGING = 3_000, 2_000  # ms
RENDER_RATE, RATE = 48_000, 16_000  # Hz: the synthesizer's, and the model's
SAMPLES = 4 * RATE  # 64,000: the four seconds the model was trained on
PEAK = 10 ** (-3 / 20)  # -3 dBFS
SILENCE = 10 ** (-50 / 20)  # of the peak: the note begins where it first exceeds this

SOUNDFONT = Path(sys.argv[1] if sys.argv[1:] else "/usr/share/sounds/sf2/FluidR3_GM.sf2")


def midi(program: int, pitch: int) -> bytes:
    """Return a MIDI file of one note, in ticks of 1 ms: 500 a beat, at the default 120 a minute."""

    def after(ms: int, *event: int) -> bytes:
        return bytes([0x80 | ms >> 7, ms & 0x7F, *event])

    track = (
        after(0, 0xC0, program)
        + after(0, 0x90, pitch, VELOCITY)
        + after(HELD, 0x80, pitch, 0)
        + after(RINGING, 0xFF, 0x2F, 0)
    )
    return struct.pack(">4sIHHH4sI", b"MThd", 6, 0, 1, 500, b"MTrk", len(track)) + track


def note(program: int, pitch: int) -> np.ndarray:
    """Render one note: `[64000]` samples at 16 kHz, mono, peak -3 dBFS."""
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder, "note.mid"), Path(folder, "note.wav")
        score.write_bytes(midi(program, pitch))
        dry = ["-R", "0", "-C", "0", "-g", "0.5"]
        render = ["-q", "-n", "-i", "-r", str(RENDER_RATE), "-O", "float", "-F", sound]
        subprocess.run(["fluidsynth", *dry, *render, SOUNDFONT, score], check=True)
        stereo, rate = soundfile.read(sound)
    mono = soxr.resample(stereo.mean(axis=1), rate, RATE, quality="VHQ")
    level = np.abs(mono) / np.abs(mono).max()
    clip = mono[np.argmax(level > SILENCE) :][:SAMPLES]
    return clip * (PEAK / np.abs(clip).max())


for name, program in PROGRAMS.items():
    for pitch in PITCHES:
        soundfile.write(NOTES / f"{name}_{pitch}.flac", note(program, pitch), RATE, "PCM_16")
