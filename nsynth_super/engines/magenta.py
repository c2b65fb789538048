"""The original as an engine: Magenta 1.1.7 on TensorFlow 1.15, each work a process of its own.

Notes and encodings go to it as files, and what it made comes back as files, in a scratch folder
that goes away with the work. It cannot go on inside a batch: what is under way when it is stopped
begins anew.
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

from nsynth_super import machine, magenta_checkpoint
from nsynth_super.engines import Piece, Work
from nsynth_super.files import explained
from nsynth_super.plan import BLOCK
from nsynth_super.problems import Failed
from nsynth_super.python27 import SCRIPTS, Python27
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE
from nsynth_super.wavenet import mulaw
from nsynth_super.wavenet.checkpoint import Checkpoint
from nsynth_super.wavenet.dimensions import HOP, TAPS, Dimensions

_MODULES = "magenta.models.nsynth.wavenet"
_PROGRESS = re.compile(r"Sample: (\d+)/\d+ ")
_NOTES_AT_ONCE = 8  # as fast as 16 on two cores, and half the memory
_BYTES = 1_500_000_000  # of a process that decodes one clip: TensorFlow and the weights, twice
_QUEUES = 2  # the state's size, in states: one is filled from another


class MagentaEngine:
    """The original: patched Magenta under Python 2.7.

    Parameters
    ----------
    checkpoint : Checkpoint
        The weights.
    python : Python27
        What runs it.

    Raises
    ------
    BadInput
        If the weights are not of the published size, which is the only one that Magenta builds.
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
        """Of the weights' names and numbers."""
        return self._checkpoint.sha256

    @property
    def dimensions(self) -> Dimensions:
        """The model's sizes."""
        return self._checkpoint.dimensions

    def describe(self) -> str:
        """Say on one line what computes, where and how."""
        python = self._python
        where = f"CPU, {python.threads} thread{'s' * (python.threads > 1)}"
        if python.gpu is not None:
            where = f"{python.gpu.model or f'GPU {python.gpu.name}'} (CUDA 10.0)"
        return f"magenta {python.magenta}, TensorFlow {python.tensorflow}, {where}"

    def encode(self, notes: NDArray[np.float32]) -> Generator[NDArray[np.float32], None, None]:
        """Turn notes, `[notes, samples]`, into embeddings, `[some, frames, embedding]`, in order.

        Some are there each time when Magenta has a batch of them.
        """
        frames = notes.shape[1] // HOP
        none = np.empty((0, frames, self.dimensions.embedding), dtype=np.float32)
        prefix = yield from magenta_checkpoint.ready(self._checkpoint, self._python, none)
        # Batches of one size: Magenta fills up the last one with notes that it throws away.
        batch = math.ceil(len(notes) / math.ceil(len(notes) / _NOTES_AT_ONCE))
        with _scratch("notes", "embeddings") as folder:
            for index, note in enumerate(notes):
                write_note(folder / "notes" / f"{index:05d}.wav", note)
            files = [
                folder / "embeddings" / f"{index:05d}_embeddings.npy" for index in range(len(notes))
            ]
            words = ["--source_path=notes", "--save_path=embeddings", f"--batch_size={batch}"]
            words += [f"--sample_length={notes.shape[1]}"]
            done = 0
            with closing(self._run("nsynth_save_embeddings", words, folder, prefix)) as lines:
                for _ in lines:
                    # One is whole when the next is there: they are written one after the other.
                    whole = max(sum(file.exists() for file in files) - 1, done)
                    yield self._embeddings(files[done:whole], none)
                    done = whole
            yield self._embeddings(files[done:], none)

    def _embeddings(self, files: list[Path], none: NDArray[np.float32]) -> NDArray[np.float32]:
        out = [none]
        for file in files:
            try:
                embedding = np.load(file)
            except (OSError, ValueError) as error:
                raise Failed(f"{file.name}: Magenta wrote no whole embedding ({error})") from None
            if embedding.shape != none.shape[1:] or not np.isfinite(embedding).all():
                raise Failed(
                    f"{file.name}: Magenta's embedding has shape {list(embedding.shape)}, "
                    f"expected {list(none.shape[1:])} of finite numbers"
                )
            out.append(embedding[None].astype(np.float32))
        return np.concatenate(out)

    def decode(self, work: Work) -> Generator[Piece, None, None]:
        """Decode `work`: its codes are the last piece; until then the pieces tell the time."""
        if work.begun.shape[1]:
            raise ValueError("Magenta cannot go on behind codes that were drawn before")
        clips, frames = len(work.encodings), math.ceil(work.samples / HOP)
        none = np.empty((clips, 0), dtype=np.uint8)
        prefix = yield from magenta_checkpoint.ready(self._checkpoint, self._python, Piece(none, 0))
        with _scratch("encodings", "clips") as folder:
            for index, encoding in enumerate(work.encodings):
                np.save(folder / "encodings" / f"{index:05d}.npy", encoding[:frames])
            words = ["--source_path=encodings", "--npy_only", "--save_path=clips"]
            words += [f"--batch_size={clips}", "--samples_per_save=0", f"--seed={seed(work)}"]
            time = 0
            with closing(self._run("nsynth_generate", words, folder, prefix)) as lines:
                for line in lines:
                    if match := _PROGRESS.search(line):
                        time = min(int(match[1]), work.samples)
                    yield Piece(none, time)
            files = [folder / "clips" / f"gen_{index:05d}.wav" for index in range(clips)]
            codes = np.stack([read_codes(file, frames * HOP) for file in files])
        yield Piece(codes[:, : work.samples], work.samples)

    def _run(
        self, module: str, words: list[str], folder: Path, prefix: Path
    ) -> Generator[str, None, None]:
        # All paths are short and plain: Magenta expands what a shell would, a $ in a name as well.
        (folder / "weights").symlink_to(prefix.parent.absolute())
        words = [f"--checkpoint_path=weights/{prefix.name}", *words]
        return self._python.run(["-m", f"{_MODULES}.{module}", *words], folder)

    def batch_clips(self) -> int:
        """Say how many clips to decode at once: a block, so that a stop costs no more than one."""
        return BLOCK

    def memory(self, clips: int) -> int:
        """Return the bytes that decoding `clips` clips at once takes, measured on the CPU."""
        width, dilations = self.dimensions.width, self.dimensions.dilations
        state = (TAPS - 1) * sum(dilations) * width * np.dtype(np.float32).itemsize
        return _BYTES + _QUEUES * clips * state

    def room(self) -> int:
        """Return the bytes that it may take: of the machine, also where a GPU computes."""
        return machine.memory()

    def measure(self, clips: int, seconds: float = 2.0) -> float:
        """Return the seconds that one step of `clips` clips takes here: the median of some."""
        return self._measured("steps", clips, seconds)

    def measure_encoder(self) -> float:
        """Return the seconds that encoding one note takes here: an eighth of one, times eight."""
        eighth = NOTE_SAMPLES // 8 // HOP * HOP
        return self._measured("encoder", eighth) * NOTE_SAMPLES / eighth

    def measure_products(self, clips: int, seconds: float = 2.0) -> float | None:
        """Return None: nobody asked TensorFlow."""
        return None

    def _measured(self, *words: object) -> float:
        with _scratch() as folder:
            lines = list(self._python.run([SCRIPTS / "measure.py", *words], folder))
        answers = [line for line in lines if line.startswith("{")]
        if not answers:
            raise Failed("Magenta measured nothing -> is its Python 2.7 whole?")
        return float(json.loads(answers[-1])["seconds"])


def seed(work: Work) -> int:
    """Return the 32 bits that Magenta's random numbers for a work are made from."""
    said = f"{work.seed} {work.keys[0]}"
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:4], "big")


def write_note(path: Path, note: NDArray[np.float32]) -> None:
    """Write a note as a 16-bit WAV whose every sample has the code of the note's own sample.

    Magenta reads no more than 16 bits, and its encoder sees codes and nothing else: so what it is
    given is what our own encoder is given, to the bit.
    """
    amplitudes = np.rint(mulaw.decode(mulaw.encode(note)) * 2.0**15).astype(np.int16)
    soundfile.write(path, amplitudes, SAMPLE_RATE, subtype="PCM_16")


def read_codes(path: Path, samples: int) -> NDArray[np.uint8]:
    """Read the codes that a float32 WAV was made of, `[samples]`.

    Raises
    ------
    Failed
        If it is not whole, or holds an amplitude that no code has.
    """
    try:
        amplitudes, _ = soundfile.read(path, dtype="float32")
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise Failed(f"{path.name}: Magenta wrote no clip that can be read ({error})") from None
    if amplitudes.shape != (samples,):
        raise Failed(f"{path.name}: Magenta wrote {amplitudes.shape} samples, expected {samples}")
    codes = np.searchsorted(mulaw.AMPLITUDES, amplitudes).clip(0, mulaw.MU)
    strange = mulaw.AMPLITUDES[codes] != amplitudes
    if strange.any():
        at = int(strange.argmax())
        raise Failed(
            f"{path.name}: sample {at:,} is {amplitudes[at]!r}, which is no code's amplitude"
        )
    return np.asarray(codes, dtype=np.uint8)


@contextmanager
def _scratch(*names: str) -> Iterator[Path]:
    """Give a folder on this machine with folders of these names, for as long as it is needed."""
    where = machine.scratch()
    try:
        with tempfile.TemporaryDirectory(dir=where, prefix="nsynth-super-") as folder:
            for name in names:
                (Path(folder) / name).mkdir()
            yield Path(folder)
    except OSError as error:
        raise explained(error, where) from error
