"""A Python 2.7 that has the patched Magenta: found, looked at, run, and what it says if it fails.

Knows nothing of notes, clips or weights.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsynth_super import child, machine
from nsynth_super.machine import Gpu
from nsynth_super.problems import BadInput, Failed, Problem
from nsynth_super.progress import say

NAMED = "NSYNTH_MAGENTA"
"""Names the Python 2.7 where no option does."""

SCRIPTS = Path(__file__).with_name("py27")
PATCHES = [f"{number:04d}" for number in range(1, 8)]
"""Those of patches/ that leave a mark in Magenta's files, and that the engine relies on."""

TOO_NEW = (8, 0)
"""The first compute capability that CUDA 10.0 cannot make code for: Ampere's."""

_TAIL = 200  # lines kept to say what went wrong; TensorFlow tells where each operation was made
_SHOWN = 20  # of them, with -v
_GET_ONE = (
    f"name it with --magenta or ${NAMED}: the container image has one, tests/oracle/setup makes one"
)
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Interrupt))(?:: (.*))?")
_MEMORY = re.compile(r"ResourceExhausted|MemoryError|bad_alloc")
_CHATTER = re.compile(r"(INFO|WARNING):|[IW]\d{4} |\s")


@dataclass(frozen=True)
class Python27:
    """A Python 2.7 that has the patched Magenta, and how it is to be run.

    Attributes
    ----------
    path : Path
        The program.
    magenta, tensorflow : str
        Their versions.
    gpu : Gpu or None
        What it computes on; None is the CPU.
    threads : int
        Of the CPU.
    quiet, verbose : bool
        Say nothing but what went wrong; show the last lines that a program said before it failed.
    """

    path: Path
    magenta: str
    tensorflow: str
    gpu: Gpu | None
    threads: int
    quiet: bool = False
    verbose: bool = False

    @classmethod
    def found(
        cls,
        path: Path | None,
        threads: int | None = None,
        device: str = "auto",
        quiet: bool = False,
        verbose: bool = False,
    ) -> Python27:
        """Look at the Python 2.7 at `path`, or at $NSYNTH_MAGENTA's.

        Raises
        ------
        BadInput
            If there is none, it has no Magenta or an unpatched one, or cannot drive the GPU that
            is here.
        """
        gpus = [] if device == "cpu" else machine.gpus()
        _refuse_new(gpus)
        if path is None:
            if not os.environ.get(NAMED):
                raise BadInput(Problem("magenta", "no Python 2.7 with Magenta is named", _GET_ONE))
            path = Path(os.environ[NAMED])
        program = shutil.which(path.expanduser())
        if program is None:
            raise BadInput(Problem(str(path), "there is no such program", _GET_ONE))
        here = _looked_at(program)
        gpu = gpus[0] if gpus else None
        if gpu is not None and here["missing"]:
            gpu = _without_cuda(gpu, here["missing"])
        return cls(
            Path(program).absolute(),  # not resolved: a virtual environment's is a link
            here["magenta"],
            here["tensorflow"],
            gpu,
            threads or machine.processors(),
            quiet,
            verbose,
        )

    def run(self, words: Sequence[object], folder: Path) -> Generator[str, None, None]:
        """Run it with `words` in `folder`; yield what it says, line by line.

        An empty line comes when it says nothing for a while. When the generator is closed, the
        program is ended.

        Parameters
        ----------
        words : sequence
            Of its command line: a script, or `-m` and a module, and their arguments.
        folder : Path
            Where it runs.

        Raises
        ------
        Failed
            If it fails, or is killed: with the line that says why.
        """
        # Variables and packages of the user's are for another Python.
        command = [self.path, "-B", "-E", "-s", "-u", *words]
        tail: deque[str] = deque(maxlen=_TAIL)
        lines = child.run([str(word) for word in command], folder, self._environment())
        with closing(lines):
            code = yield from _noting(lines, tail)
        if code in (-signal.SIGTERM, -signal.SIGUSR1, -signal.SIGINT):
            # A scheduler signals every process of a job: we may be asked to stop as well, and
            # whoever reads has a moment to hear of it.
            time.sleep(child.HEARTBEAT)
            yield ""
        if code:
            raise self._failure(code, tail)

    def _environment(self) -> dict[str, str]:
        threads = str(self.threads)
        return {
            **os.environ,
            # Warnings are a line for each operation that is not for the GPU: thousands.
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            **({"CUDA_VISIBLE_DEVICES": ""} if self.gpu is None else {}),
        }

    def _failure(self, code: int, tail: Sequence[str]) -> Failed:
        if self.verbose:
            for line in list(tail)[-_SHOWN:]:
                say(f"  | {line}")
        said = last_words(tail)
        why = f": {said}" if said else ""
        how = f"failed with exit code {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        fix = "run it again" + ("" if self.verbose else ", with -v to see more")
        if code == -signal.SIGKILL or _MEMORY.search(said):
            fix = "more memory is needed, of this machine's or the GPU's; then run it again"
        return Failed(f"Magenta {how}{why} -> {fix}")


def _noting(lines: Generator[str, None, int], tail: deque[str]) -> Generator[str, None, int]:
    """Pass lines on, and keep the last ones that say something."""
    while True:
        try:
            line = next(lines)
        except StopIteration as end:
            return int(end.value)
        if line:
            tail.append(line)
        yield line


def last_words(lines: Sequence[str]) -> str:
    """Return the line that says what went wrong: a traceback's message, or else the last one."""
    for number in reversed(range(len(lines))):
        if match := _ERROR.fullmatch(lines[number]):
            name, said = match[1], (match[2] or "").strip()
            if said.endswith("found.") and number + 1 < len(lines):  # "2 root error(s) found."
                said = lines[number + 1].strip()
            return f"{name}: {said}" if said else name
    return next((line for line in reversed(lines) if line and not _CHATTER.match(line)), "")


def _refuse_new(gpus: Iterable[Gpu]) -> None:
    for gpu in gpus:
        if gpu.capability is not None and gpu.capability >= TOO_NEW:
            major, minor = gpu.capability
            raise BadInput(
                Problem(
                    f"GPU {gpu.name} ({gpu.model}, compute capability {major}.{minor})",
                    "is newer than what Magenta's TensorFlow 1.15 can drive: its CUDA 10.0 knows "
                    "nothing newer than Turing (7.5)",
                    "`--engine torch` drives it; `--device cpu` leaves it unused, and is slow",
                )
            )


def _looked_at(program: str) -> dict[str, Any]:
    """Ask a Python what it is and has; refuse it unless it has all that is needed."""
    question = [program, "-B", "-E", "-s", str(SCRIPTS / "look.py")]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=60, check=True)
        here = json.loads(answer.stdout)
        version = ".".join(map(str, here["python"]))
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError):
        raise BadInput(Problem(program, "cannot be run as a Python", _GET_ONE)) from None
    if version != "2.7":
        raise BadInput(Problem(program, f"is Python {version}, expected 2.7", _GET_ONE))
    if here["magenta"] is None or here["tensorflow"] is None:
        raise BadInput(Problem(program, "has no Magenta, or no TensorFlow", _GET_ONE))
    if absent := [patch for patch in PATCHES if patch not in here["patches"]]:
        raise BadInput(
            Problem(program, f"has a Magenta without the patches {', '.join(absent)}", _GET_ONE)
        )
    return dict(here)


def _without_cuda(gpu: Gpu, missing: Sequence[str]) -> Gpu | None:
    """Refuse to leave a GPU that is there unused; one that is only named may be nothing but that.

    TensorFlow computes on the CPU if one library is missing, and does not stop for it.
    """
    if gpu.model:
        raise BadInput(
            Problem(
                f"GPU {gpu.name} ({gpu.model})",
                f"cannot be used by TensorFlow 1.15: {', '.join(missing)} cannot be loaded",
                "CUDA 10.0 and cuDNN 7 are in the container image (`--nv` adds the driver); "
                "`--device cpu` leaves it unused, and is slow",
            )
        )
    say(f"magenta: no CUDA here for GPU {gpu.name}: it computes on the CPU")
    return None
