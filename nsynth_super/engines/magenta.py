"""The engine that runs the original Magenta 1.1.7 on TensorFlow 1.15 in a subprocess.

Notes, encodings and results are exchanged as files in a scratch folder, which is deleted after each
batch. The engine cannot resume within a batch: an interrupted batch restarts.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from nsynth_super.base import allocation
from nsynth_super.base.errors import Failed
from nsynth_super.base.files import explained
from nsynth_super.engines import magenta_checkpoint
from nsynth_super.engines.base import Batch, Piece
from nsynth_super.engines.python27 import SCRIPTS, Python27
from nsynth_super.pack.plan import BLOCK
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE
from nsynth_super.wavenet import mulaw
from nsynth_super.wavenet.checkpoint import Checkpoint
from nsynth_super.wavenet.dimensions import HOP, TAPS, Dimensions

_MODULES = "magenta.models.nsynth.wavenet"
_PROGRESS = re.compile(r"Sample: (\d+)/\d+ ")
_NOTES_AT_ONCE = 8  # as fast as 16 on two cores, with half the memory
_BYTES = 1_500_000_000  # process size without clips: TensorFlow, and the weights twice
_QUEUES = 2  # copies of the state: one is filled from another


class MagentaEngine:
    """The engine that runs patched Magenta under Python 2.7.

    Parameters
    ----------
    checkpoint : Checkpoint
        The weights.
    python : Python27
        The interpreter that runs Magenta.

    Raises
    ------
    BadInput
        If the model does not have the published sizes, the only ones that Magenta can build.
    """

    name = "magenta"
    resumes = False
    shares_cores = False

    def __init__(self, checkpoint: Checkpoint, python: Python27) -> None:
        magenta_checkpoint.require_published_sizes(checkpoint)
        self._checkpoint = checkpoint
        self._python = python

    @property
    def checkpoint_sha256(self) -> str:
        """Digest of the weights' names and values."""
        return self._checkpoint.sha256

    @property
    def dimensions(self) -> Dimensions:
        """The model's sizes."""
        return self._checkpoint.dimensions

    def describe(self) -> str:
        """Return the engine, its versions and its device on one line."""
        python = self._python
        where = f"CPU, {python.threads} thread{'s' * (python.threads > 1)}"
        if python.gpu is not None:
            where = f"{python.gpu.model or f'GPU {python.gpu.name}'} (CUDA 10.0)"
        return f"magenta {python.magenta}, TensorFlow {python.tensorflow}, {where}"

    def encode(self, notes: NDArray[np.float32]) -> Generator[NDArray[np.float32], None, None]:
        """Yield the embeddings of notes, `[notes, samples]`, in order.

        Each array is `[some, frames, embedding]`; it is empty until Magenta finishes a batch.
        """
        frames = notes.shape[1] // HOP
        none = np.empty((0, frames, self.dimensions.embedding), dtype=np.float32)
        prefix = yield from magenta_checkpoint.find_or_save(self._checkpoint, self._python, none)
        # Equal batches, because Magenta pads the last one with notes that it discards.
        batch = math.ceil(len(notes) / math.ceil(len(notes) / _NOTES_AT_ONCE))
        with _scratch("notes", "embeddings") as folder:
            for index, note in enumerate(notes):
                write_note(folder / "notes" / f"{index:05d}.wav", note)
            files = [
                folder / "embeddings" / f"{index:05d}_embeddings.npy" for index in range(len(notes))
            ]
            options = ["--source_path=notes", "--save_path=embeddings", f"--batch_size={batch}"]
            options += [f"--sample_length={notes.shape[1]}"]
            done = 0
            with closing(self._run("nsynth_save_embeddings", options, folder, prefix)) as lines:
                for _ in lines:
                    # Files are written in order: all but the newest are complete.
                    complete = max(sum(file.exists() for file in files) - 1, done)
                    yield self._embeddings(files[done:complete], none)
                    done = complete
            yield self._embeddings(files[done:], none)

    def _embeddings(self, files: list[Path], none: NDArray[np.float32]) -> NDArray[np.float32]:
        out = [none]
        for file in files:
            try:
                embedding = np.load(file)
            except (OSError, ValueError) as error:
                raise Failed(
                    f"{file.name}: Magenta wrote an incomplete embedding ({error})"
                ) from None
            if embedding.shape != none.shape[1:] or not np.isfinite(embedding).all():
                raise Failed(
                    f"{file.name}: Magenta's embedding has shape {list(embedding.shape)}, "
                    f"expected {list(none.shape[1:])} with finite values"
                )
            out.append(embedding[None].astype(np.float32))
        return np.concatenate(out)

    def decode(self, batch: Batch) -> Generator[Piece, None, None]:
        """Decode `batch`: the last piece holds all codes; earlier ones report only progress."""
        if batch.begun.shape[1]:
            raise ValueError("Magenta cannot resume a partially decoded batch")
        clips, frames = len(batch.encodings), math.ceil(batch.samples / HOP)
        none = np.empty((clips, 0), dtype=np.uint8)
        prefix = yield from magenta_checkpoint.find_or_save(
            self._checkpoint, self._python, Piece(none, 0)
        )
        with _scratch("encodings", "clips") as folder:
            for index, encoding in enumerate(batch.encodings):
                np.save(folder / "encodings" / f"{index:05d}.npy", encoding[:frames])
            options = ["--source_path=encodings", "--npy_only", "--save_path=clips"]
            options += [f"--batch_size={clips}", "--samples_per_save=0", f"--seed={seed(batch)}"]
            time = 0
            with closing(self._run("nsynth_generate", options, folder, prefix)) as lines:
                for line in lines:
                    if match := _PROGRESS.search(line):
                        time = min(int(match[1]), batch.samples)
                    yield Piece(none, time)
            files = [folder / "clips" / f"gen_{index:05d}.wav" for index in range(clips)]
            codes = np.stack([read_codes(file, frames * HOP) for file in files])
        yield Piece(codes[:, : batch.samples], batch.samples)

    def _run(
        self, module: str, options: list[str], folder: Path, prefix: Path
    ) -> Generator[str, None, None]:
        # Short relative paths, because Magenta expands `$` and `~` in paths as a shell does.
        (folder / "weights").symlink_to(prefix.parent.absolute())
        options = [f"--checkpoint_path=weights/{prefix.name}", *options]
        return self._python.run(["-m", f"{_MODULES}.{module}", *options], folder)

    def batch_clips(self) -> int:
        """Return the size of a block, so that a stop loses at most one block."""
        return BLOCK

    def memory(self, clips: int) -> int:
        """Return the memory for decoding `clips` clips at once, in bytes, as measured on a CPU."""
        width, dilations = self.dimensions.width, self.dimensions.dilations
        state = (TAPS - 1) * sum(dilations) * width * np.dtype(np.float32).itemsize
        return _BYTES + _QUEUES * clips * state

    def available_memory(self) -> int:
        """Return the memory that decoding may use, in bytes: the host's, even with a GPU."""
        return allocation.memory()

    def measure(self, clips: int, seconds: float = 2.0) -> float:
        """Return the median duration of one step of `clips` clips, in seconds."""
        return self._measured("steps", clips, seconds)

    def measure_encoder(self) -> float:
        """Return the duration of encoding one note, in seconds, extrapolated from an eighth."""
        eighth = NOTE_SAMPLES // 8 // HOP * HOP
        return self._measured("encoder", eighth) * NOTE_SAMPLES / eighth

    def measure_products(self, clips: int, seconds: float = 2.0) -> float | None:
        """Return None: not measured for TensorFlow."""
        return None

    def _measured(self, *arguments: object) -> float:
        with _scratch() as folder:
            lines = list(self._python.run([SCRIPTS / "measure.py", *arguments], folder))
        results = [line for line in lines if line.startswith("{")]
        if not results:
            raise Failed("Magenta returned no measurement -> reinstall its Python 2.7")
        return float(json.loads(results[-1])["seconds"])


def seed(batch: Batch) -> int:
    """Return the 32-bit seed of Magenta's random numbers for a batch."""
    text = f"{batch.seed} {batch.keys[0]}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def write_note(path: Path, note: NDArray[np.float32]) -> None:
    """Write a note as a 16-bit WAV file whose samples have the same codes as the note's samples.

    Magenta reads at most 16 bits, and its encoder sees only codes; this way both engines encode
    identical codes.
    """
    amplitudes = np.rint(mulaw.decode(mulaw.encode(note)) * 2.0**15).astype(np.int16)
    soundfile.write(path, amplitudes, SAMPLE_RATE, subtype="PCM_16")


def read_codes(path: Path, samples: int) -> NDArray[np.uint8]:
    """Read the codes of Magenta's float32 WAV file, `[samples]`.

    Raises
    ------
    Failed
        If the file is unreadable, has another length, or contains an amplitude without a code.
    """
    try:
        amplitudes, _ = soundfile.read(path, dtype="float32")
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise Failed(f"{path.name}: Magenta wrote an unreadable clip ({error})") from None
    if amplitudes.shape != (samples,):
        raise Failed(f"{path.name}: Magenta wrote {amplitudes.shape} samples, expected {samples}")
    codes = np.searchsorted(mulaw.AMPLITUDES, amplitudes).clip(0, mulaw.MU)
    invalid = mulaw.AMPLITUDES[codes] != amplitudes
    if invalid.any():
        at = int(invalid.argmax())
        raise Failed(
            f"{path.name}: sample {at:,} is {amplitudes[at]!r}, not the amplitude of any code"
        )
    return np.asarray(codes, dtype=np.uint8)


@contextmanager
def _scratch(*names: str) -> Iterator[Path]:
    """Yield a temporary folder on a local disk, with subfolders of these names."""
    where = allocation.scratch()
    try:
        with tempfile.TemporaryDirectory(dir=where, prefix="nsynth-super-") as folder:
            for name in names:
                (Path(folder) / name).mkdir()
            yield Path(folder)
    except OSError as error:
        raise explained(error, where) from error
