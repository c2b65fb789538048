"""Find, verify, convert and cache the model's weights.

Magenta published a TensorFlow checkpoint four times the model's size, because it includes
optimizer slots and moving averages. It is converted once to a cached safetensors file with the same
variable names.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as serialize

from nsynth_super import demo
from nsynth_super.base.errors import BadInput, Problem, refuse
from nsynth_super.base.files import write_bytes
from nsynth_super.wavenet import magenta_format
from nsynth_super.wavenet.dimensions import Dimensions, infer_dimensions
from nsynth_super.wavenet.magenta_format import DATA, INDEX, PUBLISHED_NAME, file_of

_GET_ONE = (
    "`nsynth-super checkpoint fetch` downloads Magenta's model; "
    "`--checkpoint demo` uses the small bundled one"
)

_SHOWN = 8  # problems of one checkpoint that are listed


@dataclass(frozen=True)
class Checkpoint:
    """A model's verified weights.

    Attributes
    ----------
    weights : mapping of str to ndarray of float32
        All variables, keyed by their names in Magenta's checkpoint.
    dimensions : Dimensions
        The model's sizes.
    source : str
        The file that the weights were read from.
    """

    weights: Mapping[str, NDArray[np.float32]]
    dimensions: Dimensions
    source: str

    @cached_property
    def sha256(self) -> str:
        """Digest of all names and values, independent of the file format."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.weights[name], dtype="<f4").data)
        return digest.hexdigest()


def cache_folder() -> Path:
    """Return the folder for downloads and conversions: $NSYNTH_CACHE or the user's cache."""
    return Path(os.environ.get("NSYNTH_CACHE") or user_cache_path("nsynth-super"))


def fetched_path() -> Path:
    """Return the path to which `checkpoint fetch` downloads Magenta's .tar."""
    return cache_folder() / "wavenet-ckpt.tar"


def default_path() -> Path | None:
    """Return the default checkpoint: $NSYNTH_CHECKPOINT, or else the downloaded one, if any."""
    if named := os.environ.get("NSYNTH_CHECKPOINT"):
        return Path(named)
    fetched = fetched_path()
    return fetched if fetched.exists() else None


def find(path: Path | None) -> Path:
    """Resolve a checkpoint argument to a .safetensors file, a .tar file or a TensorFlow prefix.

    Parameters
    ----------
    path : Path or None
        A .safetensors or .tar file, a TensorFlow prefix or one of its files, or a folder that
        contains exactly one checkpoint; `demo` for the bundled model; None for the default.

    Raises
    ------
    BadInput
        If there is no checkpoint, or a folder contains several.
    """
    path = path or default_path()
    if path is None:
        raise BadInput(Problem("checkpoint", "no checkpoint found", _GET_ONE))
    if path == Path("demo"):
        return demo.MODEL
    path = path.expanduser()
    if path.is_dir():
        return _find_in(path)
    prefix = Path(str(path).removesuffix(".index").removesuffix(DATA).removesuffix(".meta"))
    if file_of(prefix, INDEX).exists():
        if not file_of(prefix, DATA).exists():
            raise BadInput(
                Problem(f"{prefix}{DATA}", "missing next to its .index file", "copy both files")
            )
        return prefix
    if path.suffix in (".safetensors", ".tar") and path.is_file():
        return path
    what = "is not a checkpoint" if path.exists() else "does not exist"
    raise BadInput(Problem(str(path), what, _GET_ONE))


def _find_in(folder: Path) -> Path:
    patterns = ("*.index", "*.safetensors", "*.tar", f"*/{PUBLISHED_NAME}.index")
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise BadInput(
                Problem(str(folder), f"contains several checkpoints: {names}", "name one of them")
            )
        if found:
            return find(found[0])
    raise BadInput(Problem(str(folder), "contains no checkpoint", _GET_ONE))


def load(path: Path | None) -> Checkpoint:
    """Find a checkpoint, convert it if necessary, verify it and return it.

    Parameters
    ----------
    path : Path or None
        As `find` takes it.

    Raises
    ------
    BadInput
        If there is no readable checkpoint, or with every variable that is missing, has the wrong
        shape or dtype, or contains non-finite values.
    """
    found = find(path)
    if found.suffix == ".safetensors":
        return _read_safetensors(found)
    return _read_safetensors(converted(found), source=str(found))


def _read_safetensors(path: Path, source: str | None = None) -> Checkpoint:
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BadInput(
            Problem(str(path), f"invalid safetensors file ({error})", "copy or convert it again")
        ) from None
    return verified(weights, source or str(path))


def verified(weights: Mapping[str, NDArray[Any]], source: str) -> Checkpoint:
    """Return the weights as a checkpoint, without the variables that the model does not use.

    Raises
    ------
    BadInput
        With every name, shape, dtype and value that is wrong; a long list is abbreviated.
    """
    dimensions, problems = infer_dimensions({name: a.shape for name, a in weights.items()})
    kept = {name: weights[name] for name in dimensions.shapes() if name in weights}
    for name, array in kept.items():
        if array.dtype != np.float32:
            problems.append(
                Problem(name, f"has dtype {array.dtype}, expected float32", "convert it again")
            )
        elif not np.isfinite(array).all():
            problems.append(Problem(name, "contains NaN or infinity", "download or train it again"))
    if len(problems) > _SHOWN:
        more = f"{len(problems) - _SHOWN} more variables have problems"
        problems = [*problems[:_SHOWN], Problem(source, more, "is it NSynth's WaveNet?")]
    refuse(problems)
    return Checkpoint(kept, dimensions, source)


def save(weights: Mapping[str, NDArray[np.float32]], path: Path, source: str) -> None:
    """Write weights as safetensors, atomically."""
    write_bytes(path, serialize(dict(weights), {"format": "nsynth-super 1", "source": source}))


def converted(found: Path) -> Path:
    """Return the cached conversion of a TensorFlow prefix or .tar; convert it if necessary."""
    data = found if found.suffix == ".tar" else file_of(found, DATA)
    stat = data.stat()
    identity = f"{data.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    cached = cache_folder() / f"{found.name.removesuffix('.tar')}-{name}.safetensors"
    if not cached.exists():
        convert(found, cached)
    return cached


def convert(found: Path, destination: Path) -> Checkpoint:
    """Read a checkpoint of any format, verify it, and write it as safetensors."""
    if found.suffix == ".safetensors":
        checkpoint = _read_safetensors(found)
    else:
        checkpoint = verified(magenta_format.read(found), str(found))
    save(checkpoint.weights, destination, found.name)
    return checkpoint
