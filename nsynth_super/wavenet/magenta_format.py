"""Magenta's own checkpoint files: recognised, unpacked, read. Once; then they are safetensors.

Reading TensorFlow's format is TensorFlow's job. It has a process of its own, for it and Triton
crash in one: under this Python, or under Python 2.7, where that has it and this one has not.
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

from nsynth_super.files import explained
from nsynth_super.problems import BadInput, Problem
from nsynth_super.wavenet.dimensions import read_off

_NAMED = "NSYNTH_MAGENTA"
_READER = Path(__file__).parents[1] / "py27" / "read_checkpoint.py"
_UNREADABLE = 3  # its exit code if the files are to blame

INDEX, DATA = ".index", ".data-00000-of-00001"
"""Endings of the two files that a prefix stands for."""

PUBLISHED_NAME = "model.ckpt-200000"
PUBLISHED_BYTES = {INDEX: 63_671, DATA: 986_763_532}
"""File sizes of the published checkpoint, as reported in 2024 (docs/format.md)."""


def beside(prefix: Path, ending: str) -> Path:
    """Return one of the files that a prefix stands for."""
    return prefix.with_name(prefix.name + ending)


def is_published(found: Path) -> bool:
    """Tell whether the files of a prefix, or in a .tar, have the published checkpoint's sizes."""
    if found.suffix == ".tar":
        with tarfile.open(found) as tar:
            sizes = {member.size for member in tar if member.isfile()}
    else:
        files = (beside(found, ending) for ending in PUBLISHED_BYTES)
        sizes = {file.stat().st_size for file in files if file.exists()}
    return set(PUBLISHED_BYTES.values()) <= sizes


@contextmanager
def unpacked(found: Path, scratch: Path) -> Iterator[Path]:
    """Give the prefix in a .tar, unpacked under `scratch` for as long as the context lasts.

    A prefix is given as it is.

    Raises
    ------
    BadInput
        If the .tar is cut short, or holds no checkpoint, or several.
    """
    if found.suffix != ".tar":
        yield found
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".unpacking-") as folder:
        yield _unpack(found, Path(folder))


def _unpack(archive: Path, folder: Path) -> Path:
    """Copy the .index and the .data out of a .tar, and nothing else; return their prefix."""
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
            Problem(str(archive), f"is no whole .tar ({error})", "download or copy it again")
        ) from None
    whole = [p for p in sorted(prefixes) if all((folder / (p + e)).exists() for e in (INDEX, DATA))]
    if len(whole) != 1:
        raise BadInput(
            Problem(
                str(archive), f"holds {len(whole)} checkpoints, expected one", "is it Magenta's?"
            )
        )
    return folder / whole[0]


def read(prefix: Path) -> dict[str, NDArray[Any]]:
    """Read the model's variables; the optimizer's and the averages' slots are left behind.

    With the TensorFlow of this Python, or, where it has none, with that of $NSYNTH_MAGENTA.

    Raises
    ------
    BadInput
        If there is no TensorFlow, or it cannot read the files.
    """
    reader = [*_python_with_tensorflow(prefix), str(_READER), str(prefix)]
    try:
        shapes = json.loads(_answer(reader))
        dimensions, _ = read_off({name: tuple(shape) for name, shape in shapes.items()})
        names = [name for name in dimensions.shapes() if name in shapes]
        arrays = io.BytesIO(_answer([*reader, "-"], "\n".join(names)))
        return {name: np.load(arrays) for name in names}
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        problem = Problem(str(prefix), f"cannot be read ({said})", "download or copy it again")
        if error.returncode != _UNREADABLE:
            how = said or f"exit code {error.returncode}"
            problem = Problem(reader[0], f"TensorFlow fails here ({how})", "install it again")
        raise BadInput(problem) from None
    except OSError as error:
        raise BadInput(
            Problem(reader[0], f"cannot be run ({error.strerror})", "mend $NSYNTH_MAGENTA")
        ) from None


def _python_with_tensorflow(prefix: Path) -> list[str]:
    """Return how to begin a command line: this Python's, or that of Magenta's Python 2.7."""
    if importlib.util.find_spec("tensorflow") is not None:
        return [sys.executable, "-B"]
    if python := os.environ.get(_NAMED):
        return [python, "-B", "-E", "-s"]
    raise BadInput(
        Problem(
            str(prefix),
            "is TensorFlow's format, and TensorFlow is not installed (it is needed once)",
            "pip install 'nsynth-super[tensorflow]'",
        )
    )


def _answer(command: Sequence[str], asked: str = "") -> bytes:
    return subprocess.run(command, input=asked.encode(), capture_output=True, check=True).stdout
