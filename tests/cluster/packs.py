"""Small packs for the cluster tests: the demo's notes, short clips, several pads."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from nsynth_super.base.workspace import Workspace
from nsynth_super.demo import NOTES

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "pads": {
        "NW": ["clarinet", "marimba"],
        "NE": ["cello", "electricpiano"],
        "SW": ["marimba", "cello"],
        "SE": ["electricpiano", "clarinet"],
    },
    "pitches": [48, 60, 72],
    "resolution": 7,
    "final_length": 2400,
}
"""Enough clips for each of eight workers to have at least one block."""


def new(folder: Path) -> Workspace:
    """Create a workspace with the demo's notes."""
    shutil.copytree(NOTES, folder / "audio_input")
    (folder / "settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    return Workspace(folder)


def pads(workspace: Workspace) -> dict[str, str]:
    """Return the SHA-256 of each pad by file name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(workspace.pads.glob("*.bin"))
    }
