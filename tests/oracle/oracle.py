"""The real Magenta, called from here: `py27/magenta_oracle.py` under Python 2.7, and back."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOLDEN = HERE.parent / "golden" / "magenta-1.1.7.npz"
NOTES = [
    ROOT / "examples" / "audio_input" / f"{name}.flac"
    for name in ("cello_48", "clarinet_60", "electricpiano_72", "marimba_60")
]
"""One note of each instrument of the examples; all are four seconds of mono at 16 kHz."""


def python() -> Path | None:
    """Return the Python 2.7 that has Magenta: $NSYNTH_ORACLE_PYTHON, or what `setup` made."""
    if named := os.environ.get("NSYNTH_ORACLE_PYTHON"):
        return Path(named)
    made = ROOT / ".oracle" / "py27" / "bin" / "python"
    return made if made.exists() else None


def read_notes() -> NDArray[np.float32]:
    """Return the four notes, `[notes, samples]`."""
    return np.stack([soundfile.read(note, dtype="float32")[0] for note in NOTES])


class Oracle:
    """The real Magenta and a checkpoint of its own.

    Parameters
    ----------
    python : Path
        A Python 2.7 that has Magenta.
    prefix : Path
        Of the checkpoint, which `save_checkpoint` makes.
    """

    def __init__(self, python: Path, prefix: Path) -> None:
        self.python = python
        self.prefix = prefix

    def run(self, command: str, *arguments: object) -> str:
        """Run a subcommand of the oracle; return what it printed."""
        script = HERE / "py27" / "magenta_oracle.py"
        line = [str(word) for word in (self.python, script, command, *arguments)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(line)} failed:\n{done.stderr}")
        return done.stdout

    def ask(self, command: str, *arguments: object, **given: NDArray) -> dict[str, NDArray]:
        """Run a subcommand that leaves arrays, give it arrays if it takes any; return its own."""
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "answer.npz"
            question = Path(folder) / "question.npz"
            if given:
                np.savez(question, **given)
                arguments = (*arguments, question)
            self.run(command, *arguments, answer)
            with np.load(answer) as arrays:
                return dict(arrays)

    def save_checkpoint(self, weights: Path, *, slots: bool) -> None:
        """Save the weights of a .safetensors with Magenta's Saver, alone or as training does."""
        self.run("save-checkpoint", weights, self.prefix, *(["--slots"] if slots else []))

    def encode(self, notes: NDArray) -> NDArray:
        """Encode `[notes, samples]` with `fastgen.encode`."""
        return self.ask("encode", self.prefix, notes=notes)["embeddings"]

    def decode(self, encodings: NDArray, uniforms: NDArray, **codes: NDArray) -> dict[str, NDArray]:
        """Decode `[clips, frames, 16]`; what is fed next is what was drawn, or `codes`."""
        return self.ask("decode", self.prefix, encodings=encodings, uniforms=uniforms, **codes)

    def mulaw(self) -> dict[str, NDArray]:
        """Return the codes of all 16-bit amplitudes, and the amplitudes of all codes."""
        return self.ask("mulaw")

    def versions(self) -> dict[str, str]:
        """Return the versions of Magenta, TensorFlow, NumPy and Python."""
        return {name: value.item().decode() for name, value in self.ask("versions").items()}

    def generated_samples(self, encoding: Path, *flags: str) -> int:
        """Return how many samples `nsynth_generate` would make of one .npy."""
        return int(self.run("generated-samples", encoding, "--", *flags))
