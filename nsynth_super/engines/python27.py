"""Find, check and run a Python 2.7 with the patched Magenta, and explain its failures.

Independent of notes, clips and weights.
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

from nsynth_super.base import allocation
from nsynth_super.base.allocation import Gpu
from nsynth_super.base.errors import BadInput, Failed, Problem
from nsynth_super.base.text import say
from nsynth_super.runtime import subprocesses

PYTHON27 = "NSYNTH_MAGENTA"
"""Environment variable: the Python 2.7 with Magenta, if no option names one."""

SCRIPTS = Path(__file__).with_name("python27_scripts")
PATCHES = [f"{number:04d}" for number in range(1, 8)]
"""The required patches of patches/; each marks the files that it changes."""

TOO_NEW = (8, 0)
"""The first compute capability that CUDA 10.0 does not support (Ampere)."""

_TAIL = 200  # last lines of output to search for the error; TensorFlow's tracebacks are long
_SHOWN = 20  # last lines of output to print with -v
_GET_ONE = (
    f"set --magenta or ${PYTHON27}: the container image includes one, tests/oracle/setup "
    "installs one"
)
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Interrupt))(?:: (.*))?")
_MEMORY = re.compile(r"ResourceExhausted|MemoryError|bad_alloc")
_CHATTER = re.compile(r"(INFO|WARNING):|[IW]\d{4} |\s")


@dataclass(frozen=True)
class Python27:
    """A Python 2.7 with the patched Magenta, and the settings to run it with.

    Attributes
    ----------
    path : Path
        The interpreter.
    magenta, tensorflow : str
        Versions.
    gpu : Gpu or None
        The GPU to compute on, or None for the CPU.
    threads : int
        CPU threads.
    quiet, verbose : bool
        Print only errors; print the last lines of output after a failure.
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
        """Check the Python 2.7 at `path`, by default the one in $NSYNTH_MAGENTA.

        Raises
        ------
        BadInput
            If there is none, it lacks Magenta or its patches, or it does not support this
            machine's GPU.
        """
        gpus = [] if device == "cpu" else allocation.gpus()
        _require_supported(gpus)
        if path is None:
            if not os.environ.get(PYTHON27):
                raise BadInput(Problem("magenta", "no Python 2.7 with Magenta is set", _GET_ONE))
            path = Path(os.environ[PYTHON27])
        program = shutil.which(path.expanduser())
        if program is None:
            raise BadInput(Problem(str(path), "is not an executable program", _GET_ONE))
        probed = _probe(program)
        gpu = gpus[0] if gpus else None
        if gpu is not None and probed["missing"]:
            gpu = _fall_back_to_cpu(gpu, probed["missing"])
        return cls(
            Path(program).absolute(),  # not resolved, because a virtual environment's is a symlink
            probed["magenta"],
            probed["tensorflow"],
            gpu,
            threads or allocation.processors(),
            quiet,
            verbose,
        )

    def run(self, arguments: Sequence[object], folder: Path) -> Generator[str, None, None]:
        """Run Python in `folder`; yield its output line by line.

        Yields empty lines as a heartbeat while there is no output. Closing the generator ends the
        process.

        Parameters
        ----------
        arguments : sequence
            A script, or `-m` and a module, and their arguments.
        folder : Path
            Working directory.

        Raises
        ------
        Failed
            If the process fails or is killed; the message includes the error from its output.
        """
        # -E and -s: the user's environment variables and packages are meant for another Python.
        command = [self.path, "-B", "-E", "-s", "-u", *arguments]
        tail: deque[str] = deque(maxlen=_TAIL)
        lines = subprocesses.stream_lines(
            [str(argument) for argument in command], folder, self._environment()
        )
        with closing(lines):
            code = yield from _keep_tail(lines, tail)
        if code in (-signal.SIGTERM, -signal.SIGUSR1, -signal.SIGINT):
            # A scheduler signals all processes of a job. Give this one time to notice its own
            # signal, so that the caller stops instead of reporting a failure.
            time.sleep(subprocesses.HEARTBEAT)
            yield ""
        if code:
            raise self._failure(code, tail)

    def _environment(self) -> dict[str, str]:
        threads = str(self.threads)
        return {
            **os.environ,
            # TensorFlow warns about every operation without a GPU kernel: thousands of lines.
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
        error = error_line(tail)
        why = f": {error}" if error else ""
        how = f"failed with exit code {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        fix = "run it again" + ("" if self.verbose else ", with -v for details")
        if code == -signal.SIGKILL or _MEMORY.search(error):
            fix = "free or request more memory (of this machine or the GPU), and run it again"
        return Failed(f"Magenta {how}{why} -> {fix}")


def _keep_tail(lines: Generator[str, None, int], tail: deque[str]) -> Generator[str, None, int]:
    """Yield all lines, and keep the last ones that are not empty."""
    while True:
        try:
            line = next(lines)
        except StopIteration as end:
            return int(end.value)
        if line:
            tail.append(line)
        yield line


def error_line(lines: Sequence[str]) -> str:
    """Return the line that explains a failure: the message of a traceback, or the last line."""
    for number in reversed(range(len(lines))):
        if match := _ERROR.fullmatch(lines[number]):
            name, message = match[1], (match[2] or "").strip()
            if message.endswith("found.") and number + 1 < len(lines):  # "2 root error(s) found."
                message = lines[number + 1].strip()
            return f"{name}: {message}" if message else name
    return next((line for line in reversed(lines) if line and not _CHATTER.match(line)), "")


def _require_supported(gpus: Iterable[Gpu]) -> None:
    for gpu in gpus:
        if gpu.capability is not None and gpu.capability >= TOO_NEW:
            major, minor = gpu.capability
            raise BadInput(
                Problem(
                    f"GPU {gpu.name} ({gpu.model}, compute capability {major}.{minor})",
                    "is too new for Magenta's TensorFlow 1.15: CUDA 10.0 supports GPUs up to "
                    "Turing (7.5)",
                    "use `--engine torch`, or `--device cpu` (slow)",
                )
            )


def _probe(program: str) -> dict[str, Any]:
    """Return the versions, patches and missing libraries of a Python; reject an unsuitable one."""
    command = [program, "-B", "-E", "-s", str(SCRIPTS / "probe.py")]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        probed = json.loads(result.stdout)
        version = ".".join(map(str, probed["python"]))
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError):
        raise BadInput(Problem(program, "is not a working Python", _GET_ONE)) from None
    if version != "2.7":
        raise BadInput(Problem(program, f"is Python {version}, expected 2.7", _GET_ONE))
    if probed["magenta"] is None or probed["tensorflow"] is None:
        raise BadInput(Problem(program, "lacks Magenta or TensorFlow", _GET_ONE))
    if absent := [patch for patch in PATCHES if patch not in probed["patches"]]:
        raise BadInput(
            Problem(program, f"its Magenta lacks the patches {', '.join(absent)}", _GET_ONE)
        )
    return dict(probed)


def _fall_back_to_cpu(gpu: Gpu, missing: Sequence[str]) -> Gpu | None:
    """Return None for a GPU that may not exist; raise `BadInput` for one that does.

    A GPU named only in CUDA_VISIBLE_DEVICES may not exist. TensorFlow silently computes on the CPU
    if a library is missing.
    """
    if gpu.model:
        raise BadInput(
            Problem(
                f"GPU {gpu.name} ({gpu.model})",
                f"TensorFlow 1.15 cannot use it: {', '.join(missing)} cannot be loaded",
                "the container image includes CUDA 10.0 and cuDNN 7 (`--nv` adds the driver); "
                "or use `--device cpu` (slow)",
            )
        )
    say(f"magenta: CUDA is not available for GPU {gpu.name}; using the CPU")
    return None
