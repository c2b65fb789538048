"""SD cards as the synth has them, and packs made without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nsynth_super.base.files import write_array
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.plan import Plan
from nsynth_super.settings import read
from nsynth_super.stages import pads
from nsynth_super.synth.card import PROGRAM

SYNTH: dict[str, Any] = {
    "debug": False,
    "osc": {"in": {"portNumber": 8000}},
    "corners": [
        {"instruments": [{"name": name, "display": name.upper(), "abbr": name[:2].upper()}]}
        for name in ("brass", "viola", "snare", "windfx")
    ],
    "nsynth": {
        "looping": True,
        "dataDirectory": "/home/pi/pads",
        "length": 60000,
        "loopStart": 0.2,
        "resolution": 9,
        "pitches": [24, 28],
        "mine": "stays",
        "sampleRate": 16000,
    },
    "midi": {"device": "/dev/ttyAMA0", "channel": 3},
    "audio": {"sampleRate": 48000, "bufferSize": 256, "deviceId": 2},
    "mine": [1, 2],
}
"""Settings of a synth, with an unusual order of keys and with unknown keys."""

SMALL: dict[str, Any] = {
    "pads": {"NW": ["flute", "harp"], "NE": ["oboe"], "SW": ["drum"], "SE": ["viola"]},
    "pitches": [48, 60],
    "resolution": 2,
    "final_length": 40,
}
"""Two pads of 640 bytes."""


def make_pack(root: Path, sounds: int = 0, **changes: Any) -> Workspace:
    """Make a complete pack with random codes, seeded with `sounds`."""
    workspace = Workspace(root)
    workspace.notes.mkdir(parents=True)
    workspace.settings.write_text(json.dumps({**SMALL, **changes}), encoding="utf-8")
    settings, problems = read(workspace.settings)
    assert settings is not None, problems
    names = {f"{i}_{p}": "0" * 64 for i in settings.instruments for p in settings.pitches}
    plan = Plan.of(settings, sounds, "0" * 64, names)
    plan.write(workspace.plan)
    chance = np.random.default_rng(sounds)
    for block in range(plan.blocks):
        codes = chance.integers(256, size=(len(plan.clips_of(block)), plan.samples), dtype=np.uint8)
        write_array(workspace.block(block, plan.block_identity(block)), codes)
    pads.run_pads(workspace, settings, quiet=True)
    return workspace


def make_card(root: Path, settings: dict[str, Any] | None = SYNTH) -> Path:
    """Make the root of a card with the synth's program folder and an empty pads folder."""
    program(root).mkdir(parents=True)
    (root / "home/pi/pads").mkdir()
    for name in ("etc", "usr"):
        (root / name).mkdir()
    if settings is not None:
        (program(root) / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return root


def program(root: Path) -> Path:
    """Return the folder with the synth's settings."""
    return root / PROGRAM[1:]


def tree(root: Path) -> dict[str, Any]:
    """Return every path below a folder, with the content and modification time of files."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        if path.is_file()
        else None
        for path in sorted(root.rglob("*"))
        if path.name != ".install.lock"
    }
