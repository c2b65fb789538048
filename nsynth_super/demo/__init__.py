"""The demo's files: a small trained model, and a workspace of twelve notes for it to play.

NOTES.md describes the notes and where they come from, model.md the model.
"""

from __future__ import annotations

from pathlib import Path

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import write_bytes

FOLDER = Path(__file__).parent

MODEL = FOLDER / "model.safetensors"
"""The small trained model: `--checkpoint demo`."""

MODEL_CARD = FOLDER / "model.md"
"""How the model was trained, how it sounds, and its limits."""

NOTES = FOLDER / "audio_input"
"""The notes: clarinet, marimba, cello and electric piano at MIDI 48, 60 and 72."""

SETTINGS = FOLDER / "settings.json"
"""The settings of a pack of one pad: 75 clips of one second."""

LICENSE = FOLDER / "LICENSE-FluidR3_GM"
"""The notes' licence; every copy of them includes it."""


def copy_workspace(root: Path) -> None:
    """Copy the demo's settings, notes and licence into a folder, which becomes a workspace.

    Files that exist are never overwritten, so a demo that was stopped can be resumed.

    Parameters
    ----------
    root : Path
        A folder that does not exist, is empty, or holds a copy made before.

    Raises
    ------
    BadInput
        If the folder holds anything else.
    """
    copied, another = root / SETTINGS.name, "choose another folder: `nsynth-super demo FOLDER`"
    if root.exists() and not root.is_dir():
        raise BadInput(Problem(str(root), "is a file, not a folder", another))
    if copied.exists():
        if copied.read_bytes() != SETTINGS.read_bytes():
            raise BadInput(Problem(str(copied), "differs from the demo's settings", another))
    elif root.exists() and any(not each.name.startswith(".") for each in root.iterdir()):
        raise BadInput(Problem(str(root), "holds other files, and no demo", another))
    # Settings come first: the folder is recognized as the demo's if the copy is interrupted.
    for source in (SETTINGS, LICENSE, *sorted(NOTES.iterdir())):
        target = root / source.relative_to(FOLDER)
        if not target.exists():
            write_bytes(target, source.read_bytes())
