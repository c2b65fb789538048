"""Packs that can be heard without a model: codes of tones, at their pitches."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nsynth_super.base.files import write_array
from nsynth_super.base.workspace import Workspace
from nsynth_super.notes.pitch import frequency
from nsynth_super.pack.grid import Mix
from nsynth_super.pack.plan import Plan
from nsynth_super.settings import SAMPLE_RATE, Settings, read
from nsynth_super.wavenet import mulaw


def plan_of(workspace: Workspace) -> tuple[Settings, Plan]:
    """Plan a workspace's pack without a model."""
    settings = read(workspace.settings)[0]
    assert settings is not None
    names = {f"{i}_{p}": "0" * 64 for i in settings.instruments for p in settings.pitches}
    plan = Plan.of(settings, 0, "0" * 64, names)
    plan.write(workspace.plan)
    return settings, plan


def tone(mix: Mix, instruments: list[str], samples: int) -> np.ndarray:
    """Sound a mix: each instrument has harmonics of its own."""
    time = np.arange(samples) / SAMPLE_RATE
    sound = np.zeros(samples)
    for name, weight in mix.weights:
        number = instruments.index(name)
        for harmonic in range(1, 9):
            pitch = harmonic * frequency(mix.pitch)
            strength = weight / harmonic ** (1 + number % 3) * (harmonic == 1 or number % 2 < 1)
            if pitch < SAMPLE_RATE / 2:
                sound += strength * np.sin(2 * np.pi * pitch * time)
    return (0.3 * sound * np.exp(-time / 2)).astype(np.float32)


def draw(workspace: Workspace, settings: Settings, plan: Plan, blocks: Iterable[int]) -> None:
    """Write the codes of some blocks, as `generate` would."""
    for block in blocks:
        sounds = [
            mulaw.encode(tone(plan.mixes[clip], settings.instruments, plan.samples))
            for clip in plan.clips_of(block)
        ]
        write_array(workspace.block(block, plan.block_identity(block)), np.stack(sounds))
