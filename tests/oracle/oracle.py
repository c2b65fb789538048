"""Call the real Magenta: run `py27/magenta_oracle.py` under Python 2.7 and return its results."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from nsynth_super import demo

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOLDEN = HERE.parent / "golden" / "magenta-1.1.7.npz"
NOTES = [
    demo.NOTES / f"{name}.flac"
    for name in ("cello_48", "clarinet_60", "electricpiano_72", "marimba_60")
]
"""One note of each instrument of the demo; all are four seconds of mono at 16 kHz."""


def python() -> Path | None:
    """Return the Python 2.7 with Magenta: $NSYNTH_ORACLE_PYTHON, or the one of `setup`."""
    if named := os.environ.get("NSYNTH_ORACLE_PYTHON"):
        return Path(named)
    installed = ROOT / ".oracle" / "py27" / "bin" / "python"
    return installed if installed.exists() else None


def read_notes() -> NDArray[np.float32]:
    """Return the four notes, `[notes, samples]`."""
    return np.stack([soundfile.read(note, dtype="float32")[0] for note in NOTES])


class Oracle:
    """The real Magenta with a checkpoint.

    Parameters
    ----------
    python : Path
        A Python 2.7 with Magenta.
    prefix : Path
        Prefix of the checkpoint, which `save_checkpoint` writes.
    """

    def __init__(self, python: Path, prefix: Path) -> None:
        self.python = python
        self.prefix = prefix

    def run(self, command: str, *arguments: object) -> str:
        """Run a subcommand of the oracle; return its output."""
        script = HERE / "py27" / "magenta_oracle.py"
        line = [str(word) for word in (self.python, script, command, *arguments)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(line)} failed:\n{done.stderr}")
        return done.stdout

    def call(self, command: str, *arguments: object, **inputs: NDArray) -> dict[str, NDArray]:
        """Run a subcommand with input arrays, if any; return its output arrays."""
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "output.npz"
            given = Path(folder) / "input.npz"
            if inputs:
                np.savez(given, **inputs)
                arguments = (*arguments, given)
            self.run(command, *arguments, output)
            with np.load(output) as arrays:
                return dict(arrays)

    def save_checkpoint(self, weights: Path, *, slots: bool) -> None:
        """Save a .safetensors with Magenta's Saver, optionally with the slots of training."""
        self.run("save-checkpoint", weights, self.prefix, *(["--slots"] if slots else []))

    def encode(self, notes: NDArray) -> NDArray:
        """Encode `[notes, samples]` with `fastgen.encode`."""
        return self.call("encode", self.prefix, notes=notes)["embeddings"]

    def decode(self, encodings: NDArray, uniforms: NDArray, **codes: NDArray) -> dict[str, NDArray]:
        """Decode `[clips, frames, 16]`, feeding back the sampled codes, or `codes` if given."""
        return self.call("decode", self.prefix, encodings=encodings, uniforms=uniforms, **codes)

    def mulaw(self) -> dict[str, NDArray]:
        """Return the codes of all 16-bit amplitudes, and the amplitudes of all codes."""
        return self.call("mulaw")

    def versions(self) -> dict[str, str]:
        """Return the versions of Magenta, TensorFlow, NumPy and Python."""
        return {name: value.item().decode() for name, value in self.call("versions").items()}

    def generated_samples(self, encoding: Path, *flags: str) -> int:
        """Return how many samples `nsynth_generate` would generate from a .npy file."""
        return int(self.run("generated-samples", encoding, "--", *flags))
