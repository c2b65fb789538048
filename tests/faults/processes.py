"""Run commands as processes that tests can kill, stop or deprive of resources."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nsynth_super.base.workspace import Workspace
from tests.commands import start
from tests.conftest import SETTINGS, write_note

OFTEN = """
from nsynth_super.engines import pytorch
from nsynth_super.stages import generate
pytorch.CHUNK_SECONDS, generate.SAVE_EVERY = 0.02, 0.0
"""
"""Run before a command: the engine yields 50 times per second, and every piece is saved."""

DIE = """
import signal
left = {changes}
def count(event, about):
    global left
    writes = event == "open" and len(about) > 2 and (about[2] or 0) & (os.O_WRONLY | os.O_RDWR)
    if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.truncate"):
        paths = [os.fsdecode(path) for path in about if isinstance(path, (str, os.PathLike))]
        if any(path.startswith({root!r}) and "/status/" not in path for path in paths):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
"""
"""Run before a command: it kills itself before file change number `changes`, counted from 0 and
without the status folder; with fewer changes, it finishes."""

AS_ANYONE = """
import ctypes
if sys.platform == "linux":
    version_3 = 0x20080522
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(version_3), (ctypes.c_uint32 * 6)())
"""
"""Run before a command: drop the capabilities by which root ignores file permissions."""


@dataclass
class Ended:
    """Exit code and output of a command.

    Attributes
    ----------
    code : int
        Exit code; the negative signal number if a signal killed the command.
    said : str
        Output on stdout and stderr.
    """

    code: int
    said: str

    @property
    def errors(self) -> list[str]:
        """Lines of the output that start with `error: `."""
        return [line for line in self.said.splitlines() if line.startswith("error: ")]


class Command:
    """A running `nsynth-super` with one thread.

    Parameters
    ----------
    words
        Arguments of the command line.
    checkpoint : Path
        Model to use.
    before : str
        Python code to run before the command.
    """

    def __init__(self, *words: object, checkpoint: Path, before: str = "") -> None:
        threads = ["--threads", "1"] if words[0] in ("prepare", "generate", "run") else []
        environment = {**os.environ, "NSYNTH_CHECKPOINT": str(checkpoint)}
        handle, log = tempfile.mkstemp(suffix=".log")
        self.log = Path(log)
        with open(os.devnull) as nothing, open(handle, "a") as both:
            streams = (nothing, both, both)
            self._process = start([*words, *threads], environment, streams, before=before)

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def send(self, which: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid or 0, which)

    def until(self, condition: Callable[[], Any], seconds: float = 300) -> bool:
        """Wait until `condition()` is true; return False if the command ended before that."""
        end = time.monotonic() + seconds
        while not condition():
            if not self.alive:
                return False
            assert time.monotonic() < end, f"not in {seconds} s: {self.log.read_text()}"
            time.sleep(0.001)
        return True

    def wait(self, seconds: float = 600) -> Ended:
        """Wait for the command to end; if it takes too long, kill it and fail the test."""
        self._process.join(seconds)
        late = self.alive
        if late:
            self._process.kill()
            self._process.join()
        said = self.log.read_text(encoding="utf-8")
        self.log.unlink()
        assert not late, f"no end in {seconds} s: {said}"
        assert "Traceback" not in said, said
        return Ended(self._process.exitcode or 0, said)


def prepared(root: Path, checkpoint: Path, **changes: Any) -> Workspace:
    """Create a workspace with notes, embeddings and plan; keywords override settings."""
    workspace = Workspace(root)
    workspace.notes.mkdir(parents=True)
    settings = {**SETTINGS, **changes}
    workspace.settings.write_text(json.dumps(settings), encoding="utf-8")
    for number, name in enumerate(
        sorted({i for names in settings["pads"].values() for i in names})
    ):
        record(workspace, name, settings["pitches"], 1 + number / 50)
    done(Command("prepare", "-w", root, checkpoint=checkpoint).wait())
    return workspace


def record(workspace: Workspace, instrument: str, pitches: list[int], detune: float) -> None:
    """Write the notes of an instrument as WAV files."""
    for pitch in pitches:
        frequency = detune * 440.0 * 2 ** ((pitch - 69) / 12)
        write_note(workspace.notes / f"{instrument}_{pitch}.wav", frequency)


def copied(workspace: Workspace, root: Path) -> Workspace:
    """Copy a workspace to `root`."""
    shutil.copytree(workspace.root, root)
    return Workspace(root)


def done(ended: Ended) -> Ended:
    """Assert that a command succeeded."""
    assert ended.code == 0, ended.said
    return ended


def temporaries(workspace: Workspace) -> list[str]:
    """Return the temporary and unfinished files in a workspace."""
    return [str(path) for path in workspace.root.rglob("*") if ".part" in path.name]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made(workspace: Workspace) -> dict[str, dict[str, bytes]]:
    """Return the content of each file that `generate` and `pads` wrote, by folder."""
    return {folder.name: contents(folder) for folder in (workspace.clips, workspace.pads)}


def saved_samples(workspace: Workspace) -> int:
    """Return the number of saved samples of the first unfinished block."""
    for path in workspace.clips.glob("*.part.npy"):
        try:
            return int(np.load(path, mmap_mode="r").shape[1])
        except (OSError, ValueError):  # the block was completed in the meantime
            return 0
    return 0


def refuses(ended: Ended, code: int, *words: str) -> None:
    """Assert that a command failed with one error line that contains each of `words`."""
    assert ended.code == code, ended.said
    assert len(ended.errors) == 1, ended.said
    for word in words:
        assert re.search(re.escape(word), ended.errors[0]), f"{word!r} not in {ended.errors[0]!r}"
