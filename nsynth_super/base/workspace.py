"""Where everything of one pack lies. Nothing else builds a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The folder of one pack.

    Parameters
    ----------
    root : Path
    """

    root: Path

    @property
    def settings(self) -> Path:
        """What the pack shall be: the upstream format."""
        return self.root / "settings.json"

    @property
    def notes(self) -> Path:
        """The source notes, `<instrument>_<pitch>.<ending>`."""
        return self.root / "audio_input"

    @property
    def embeddings(self) -> Path:
        """The notes' embeddings."""
        return self.root / "embeddings"

    def embedding(self, instrument: str, pitch: int) -> Path:
        """Return the file of one note's embedding."""
        return self.embeddings / f"{instrument}_{pitch}.npy"

    @property
    def origins(self) -> Path:
        """Which note and which weights each embedding was made from, by hashes of all three."""
        return self.embeddings / "origins.json"

    @property
    def plan(self) -> Path:
        """Which clips the pack needs."""
        return self.root / "plan.json"

    @property
    def clips(self) -> Path:
        """The codes, block by block."""
        return self.root / "clips"

    @property
    def plan_copy(self) -> Path:
        """A copy of plan.json: without it nobody could say which clips the blocks hold."""
        return self.root / ".plan.json"

    def block(self, index: int, identity: str) -> Path:
        """Return the file of a complete block; its name says what is in it."""
        return self.clips / f"{index:05d}-{identity}.npy"

    def partial(self, index: int, identity: str) -> Path:
        """Return the file of a block under way."""
        return self.clips / f"{index:05d}-{identity}.part.npy"

    @property
    def pads(self) -> Path:
        """What goes onto the instrument."""
        return self.root / "pads_output"

    def pad(self, name: str) -> Path:
        """Return one combination's pad."""
        return self.pads / f"{name}.bin"

    @property
    def device_settings(self) -> Path:
        """The device's own settings.json, to go with the pads."""
        return self.pads / "settings.json"

    @property
    def manifest(self) -> Path:
        """What the pads are, with their hashes; there only when all of them are."""
        return self.pads / "manifest.json"

    @property
    def report(self) -> Path:
        """What `check --plots` found, with pictures."""
        return self.root / "check.html"

    @property
    def status_folder(self) -> Path:
        """Progress, for `status`."""
        return self.root / "status"

    def status(self, stage: str, shard: str = "0-of-1") -> Path:
        """Return the file of one stage's progress."""
        return self.status_folder / f"{stage}.{shard}.json"

    def lock(self, stage: str, shard: str = "0-of-1") -> Path:
        """Return the advisory lock that keeps two runs of one stage apart."""
        return self.status_folder / f".{stage}.{shard}.lock"


def readable_name(name: str) -> str:
    """Return `name` with everything that a file name had better not hold turned into a dash."""
    return re.sub(r"[^\w.+-]+", "-", name)
