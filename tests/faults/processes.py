"""Commands as real processes that can be killed, starved and stopped.

They are forked from a server that has imported PyTorch: what importing it takes, two seconds for
each, would be most of the time of these tests. Nothing else differs from the command line.
"""

from __future__ import annotations

import json
import multiprocessing
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

from nsynth_super.workspace import Workspace
from tests.conftest import SETTINGS, write_note

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "__main__",
        "nsynth_super.cli",
        "nsynth_super.stages.pads",
        "nsynth_super.wavenet.cpu",
        "nsynth_super.wavenet.encoder",
        "nsynth_super.wavenet.sampling",
    ]
)

_MAIN = """
import os, sys
os.environ.update(environment)
for stream in (1, 2):
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
sys.argv = ["nsynth-super", *words]
exec(before)
from nsynth_super.cli import main
main()
"""

OFTEN = """
from nsynth_super import engines
from nsynth_super.stages import generate
engines.CHUNK_SECONDS, generate.SAVE_EVERY = 0.02, 0.0
"""
"""Run before a command: it saves as often as it can."""

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
"""Run before a command: it kills itself before its change number `changes`, from 0, of a file that
matters; with no such change it comes to its end."""

AS_ANYONE = """
import ctypes
if sys.platform == "linux":
    version_3 = 0x20080522
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(version_3), (ctypes.c_uint32 * 6)())
"""
"""Run before a command: root loses what lets it read and write where nobody may."""


@dataclass
class Ended:
    """How a command ended.

    Attributes
    ----------
    code : int
        Exit code; minus the signal's number if one ended it.
    said : str
        On both streams.
    """

    code: int
    said: str

    @property
    def errors(self) -> list[str]:
        """The lines that say what went wrong."""
        return [line for line in self.said.splitlines() if line.startswith("error: ")]


class Command:
    """`nsynth-super` under way, on one thread.

    Parameters
    ----------
    words
        Of its command line.
    before : str
        Python to run before it.
    """

    def __init__(self, *words: object, checkpoint: Path, before: str = "") -> None:
        handle, log = tempfile.mkstemp(suffix=".log")
        os.close(handle)
        self.log = Path(log)
        threads = ["--threads", "1"] if words[0] in ("prepare", "generate", "run") else []
        given = {
            "words": [*map(str, words), *threads],
            "environment": {**os.environ, "NSYNTH_CHECKPOINT": str(checkpoint)},
            "log": log,
            "before": before,
        }
        self._process = _FORKS.Process(target=exec, args=(_MAIN, given))
        self._process.start()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def send(self, which: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid or 0, which)

    def until(self, happens: Callable[[], Any], seconds: float = 60) -> bool:
        """Wait for something to happen; return False if the command ended before."""
        end = time.monotonic() + seconds
        while not happens():
            if not self.alive:
                return False
            assert time.monotonic() < end, f"not in {seconds} s: {self.log.read_text()}"
            time.sleep(0.001)
        return True

    def wait(self, seconds: float = 120) -> Ended:
        """Wait for its end; a command that does not come to it is killed, and fails the test."""
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
    """Make a workspace with its notes, embeddings and plan; keywords change its settings."""
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
    """Record an instrument's notes."""
    for pitch in pitches:
        frequency = detune * 440.0 * 2 ** ((pitch - 69) / 12)
        write_note(workspace.notes / f"{instrument}_{pitch}.wav", frequency)


def copied(workspace: Workspace, root: Path) -> Workspace:
    """Return a copy of a workspace that a test may do anything to."""
    shutil.copytree(workspace.root, root)
    return Workspace(root)


def done(ended: Ended) -> Ended:
    """Assert that a command ended well."""
    assert ended.code == 0, ended.said
    return ended


def temporaries(workspace: Workspace) -> list[str]:
    """Return everything in a workspace that is not under its final name."""
    return [str(path) for path in workspace.root.rglob("*") if ".part" in path.name]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made(workspace: Workspace) -> dict[str, dict[str, bytes]]:
    """Return what `generate` and `pads` have made, to the byte."""
    return {folder.name: contents(folder) for folder in (workspace.clips, workspace.pads)}


def drawn(workspace: Workspace) -> int:
    """Return how many samples of the first block under way are on disk."""
    for path in workspace.clips.glob("*.part.npy"):
        try:
            return int(np.load(path, mmap_mode="r").shape[1])
        except (OSError, ValueError):  # it has been completed in between
            return 0
    return 0


def refuses(ended: Ended, code: int, *words: str) -> None:
    """Assert that a command ended with one error line that holds each of `words`."""
    assert ended.code == code, ended.said
    assert len(ended.errors) == 1, ended.said
    for word in words:
        assert re.search(re.escape(word), ended.errors[0]), f"{word!r} not in {ended.errors[0]!r}"
