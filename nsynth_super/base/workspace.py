"""Paths of the files in a workspace; no other module builds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nsynth_super.base.note_name import NoteName


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
        """Settings of the pack, in the upstream format."""
        return self.root / "settings.json"

    @property
    def notes(self) -> Path:
        """Folder of the source notes, `<instrument>_<pitch>.<extension>`."""
        return self.root / "audio_input"

    @property
    def embeddings(self) -> Path:
        """Folder of the notes' embeddings."""
        return self.root / "embeddings"

    def embedding(self, name: NoteName) -> Path:
        """Return the path of one note's embedding."""
        return self.embeddings / f"{name}.npy"

    @property
    def origins(self) -> Path:
        """Hashes of each embedding and of the note and the weights it was computed from."""
        return self.embeddings / "origins.json"

    @property
    def plan(self) -> Path:
        """List of the clips that the pack needs."""
        return self.root / "plan.json"

    @property
    def clips(self) -> Path:
        """Folder of the clips' codes, one file per block."""
        return self.root / "clips"

    @property
    def plan_copy(self) -> Path:
        """Copy of plan.json: without a plan, the blocks' content is unknown."""
        return self.root / ".plan.json"

    def block(self, index: int, identity: str) -> Path:
        """Return the path of a complete block; its name identifies its content."""
        return self.clips / f"{index:05d}-{identity}.npy"

    def partial(self, index: int, identity: str) -> Path:
        """Return the path of an unfinished block."""
        return self.clips / f"{index:05d}-{identity}.part.npy"

    @property
    def pads(self) -> Path:
        """Folder of the finished pads and the synth's settings."""
        return self.root / "pads_output"

    def pad(self, name: str) -> Path:
        """Return the path of one combination's pad."""
        return self.pads / f"{name}.bin"

    @property
    def synth_settings(self) -> Path:
        """The synth's settings.json for these pads."""
        return self.pads / "settings.json"

    @property
    def manifest(self) -> Path:
        """Geometry and hashes of the pads; exists only if every pad is complete."""
        return self.pads / "manifest.json"

    @property
    def report(self) -> Path:
        """Page that `check --plots` writes."""
        return self.root / "check.html"

    @property
    def status_folder(self) -> Path:
        """Folder of progress files, which `status` reads."""
        return self.root / "status"

    def status(self, stage: str, shard: str = "0-of-1") -> Path:
        """Return the path of one stage's progress."""
        return self.status_folder / f"{stage}.{shard}.json"

    def lock(self, stage: str, shard: str = "0-of-1") -> Path:
        """Return the path of the advisory lock of one stage and shard."""
        return self.status_folder / f".{stage}.{shard}.lock"
