"""Packs that the cluster's tests make: the example notes, short clips, several pads."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from nsynth_super.workspace import Workspace

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SETTINGS = {
    "pads": {
        "NW": ["clarinet", "marimba"],
        "NE": ["cello", "electricpiano"],
        "SW": ["marimba", "cello"],
        "SE": ["electricpiano", "clarinet"],
    },
    "pitches": [48, 60, 72],
    "resolution": 7,
    "final_length": 4000,
}
"""Enough clips for every one of eight workers to have a block of its own."""


def new(folder: Path) -> Workspace:
    """Make a workspace of the example notes."""
    shutil.copytree(EXAMPLES / "audio_input", folder / "audio_input")
    (folder / "settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    return Workspace(folder)


def pads(workspace: Workspace) -> dict[str, str]:
    """Return the sha256 of every pad by its name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(workspace.pads.glob("*.bin"))
    }
