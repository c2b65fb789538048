"""Magenta's own checkpoint files: recognised, unpacked, read. Once; then they are safetensors.

Reading TensorFlow's format is TensorFlow's job: it is imported here and nowhere else, or asked for
it under Python 2.7, where that has it and this Python has not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsynth_super.files import explained
from nsynth_super.problems import BadInput, Problem
from nsynth_super.wavenet.dimensions import read_off

_READER = Path(__file__).parents[1] / "py27" / "read_checkpoint.py"

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
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError:
        return _read_with_magenta(prefix)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        return {name: reader.get_tensor(name) for name in _wanted(shapes)}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise _unreadable(prefix, str(error)) from None


def _wanted(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    dimensions, _ = read_off(shapes)
    return [name for name in dimensions.shapes() if name in shapes]


def _unreadable(prefix: Path, error: str) -> BadInput:
    first = (error.splitlines() or ["no reason given"])[0]
    return BadInput(Problem(str(prefix), f"cannot be read ({first})", "download or copy it again"))


def _read_with_magenta(prefix: Path) -> dict[str, NDArray[Any]]:
    """Read with the TensorFlow 1.15 of Magenta's Python 2.7, which the container image has."""
    python = os.environ.get("NSYNTH_MAGENTA")
    if not python:
        raise BadInput(
            Problem(
                str(prefix),
                "is TensorFlow's format, and TensorFlow is not installed (it is needed once)",
                "pip install 'nsynth-super[tensorflow]'",
            )
        )
    line = [python, "-B", "-E", "-s", str(_READER), str(prefix)]
    try:
        listed = subprocess.run(line, capture_output=True, text=True, check=True)
        shapes = {name: tuple(shape) for name, shape in json.loads(listed.stdout).items()}
        names = _wanted(shapes)
        with tempfile.TemporaryDirectory() as folder:
            arrays = Path(folder) / "arrays.npz"
            said = "\n".join(names)
            subprocess.run(
                [*line, str(arrays)], input=said, capture_output=True, text=True, check=True
            )
            with np.load(arrays) as read_back:
                return {name: read_back[str(number)] for number, name in enumerate(names)}
    except subprocess.CalledProcessError as error:
        raise _unreadable(prefix, error.stderr.strip().rpartition("\n")[2]) from None
    except OSError as error:
        raise BadInput(
            Problem(
                f"NSYNTH_MAGENTA={python}", f"cannot be run ({error.strerror})", "mend the path"
            )
        ) from None
