"""Recognize, unpack and read checkpoints in TensorFlow's format.

TensorFlow reads the files in a separate process, because TensorFlow and Triton crash when loaded
into the same one. The process runs this Python, or Magenta's Python 2.7 if only that has
TensorFlow.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import explained
from nsynth_super.wavenet.dimensions import infer_dimensions

PYTHON27 = "NSYNTH_MAGENTA"
"""Environment variable: the Python 2.7 with Magenta, if no option names one."""

_READER = Path(__file__).parents[1] / "engines" / "python27_scripts" / "read_checkpoint.py"
_UNREADABLE = 3  # the reader's exit code for damaged files

INDEX, DATA = ".index", ".data-00000-of-00001"
"""Suffixes of the two files of a TensorFlow checkpoint; the path without them is its prefix."""

PUBLISHED_NAME = "model.ckpt-200000"
PUBLISHED_BYTES = {INDEX: 63_671, DATA: 986_763_532}
"""File sizes of the published checkpoint, as reported in 2024 (docs/format.md)."""


def file_of(prefix: Path, suffix: str) -> Path:
    """Return the file of a TensorFlow prefix with the suffix `INDEX` or `DATA`."""
    return prefix.with_name(prefix.name + suffix)


def is_published(found: Path) -> bool:
    """Return whether the files of a prefix or .tar have the sizes of the published checkpoint."""
    if found.suffix == ".tar":
        with tarfile.open(found) as tar:
            sizes = {member.size for member in tar if member.isfile()}
    else:
        files = (file_of(found, suffix) for suffix in PUBLISHED_BYTES)
        sizes = {file.stat().st_size for file in files if file.exists()}
    return set(PUBLISHED_BYTES.values()) <= sizes


@contextmanager
def unpacked(found: Path, scratch: Path) -> Iterator[Path]:
    """Yield the prefix of a .tar, unpacked below `scratch` within the context.

    A path that is a prefix already is yielded unchanged.

    Raises
    ------
    BadInput
        If the .tar is truncated, or does not contain exactly one checkpoint.
    """
    if found.suffix != ".tar":
        yield found
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".unpacking-") as folder:
        yield _unpack(found, Path(folder))


def _unpack(archive: Path, folder: Path) -> Path:
    """Extract the .index and .data files of a .tar; return their prefix."""
    prefixes = set()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                content = tar.extractfile(member)
                if content is None or not name.endswith((INDEX, DATA)):
                    continue
                with (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 22)
                prefixes.add(name.removesuffix(INDEX).removesuffix(DATA))
    except OSError as error:
        raise explained(error, folder) from error
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(
            Problem(str(archive), f"invalid .tar file ({error})", "download or copy it again")
        ) from None
    complete = [
        folder / prefix
        for prefix in sorted(prefixes)
        if all(file_of(folder / prefix, suffix).exists() for suffix in (INDEX, DATA))
    ]
    if len(complete) != 1:
        what = f"contains {len(complete)} checkpoints, expected one"
        raise BadInput(Problem(str(archive), what, "use Magenta's wavenet-ckpt.tar"))
    return complete[0]


def read(prefix: Path) -> dict[str, NDArray[Any]]:
    """Read the model's variables, without optimizer slots and moving averages.

    Uses the TensorFlow of this Python, or else that of $NSYNTH_MAGENTA.

    Raises
    ------
    BadInput
        If there is no TensorFlow, or it cannot read the files.
    """
    reader = [*_python_with_tensorflow(prefix), str(_READER), str(prefix)]
    try:
        shapes = json.loads(_output(reader))
        dimensions, _ = infer_dimensions({name: tuple(shape) for name, shape in shapes.items()})
        names = [name for name in dimensions.shapes() if name in shapes]
        arrays = io.BytesIO(_output([*reader, "-"], "\n".join(names)))
        return {name: np.load(arrays) for name in names}
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        problem = Problem(str(prefix), f"cannot be read ({reason})", "download or copy it again")
        if error.returncode != _UNREADABLE:
            reason = reason or f"exit code {error.returncode}"
            problem = Problem(reader[0], f"TensorFlow failed ({reason})", "reinstall TensorFlow")
        raise BadInput(problem) from None
    except OSError as error:
        raise BadInput(
            Problem(reader[0], f"cannot be run ({error.strerror})", "fix $NSYNTH_MAGENTA")
        ) from None


def _python_with_tensorflow(prefix: Path) -> list[str]:
    """Return the command of a Python with TensorFlow: this one, or Magenta's Python 2.7."""
    if importlib.util.find_spec("tensorflow") is not None:
        return [sys.executable, "-B"]
    if python := os.environ.get(PYTHON27):
        return [python, "-B", "-E", "-s"]
    raise BadInput(
        Problem(
            str(prefix),
            "is a TensorFlow checkpoint; converting it (once) needs TensorFlow",
            "pip install 'nsynth-super[tensorflow]'",
        )
    )


def _output(command: Sequence[str], stdin: str = "") -> bytes:
    return subprocess.run(command, input=stdin.encode(), capture_output=True, check=True).stdout
