"""The model's weights: found, verified, and kept as safetensors.

Magenta published a TensorFlow checkpoint of four times the model's size (the optimizer's and the
averages' slots are in it). It is read once, by TensorFlow, and becomes one file of plain arrays
under the same names, in a cache. Everything after that needs only NumPy.
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

from nsynth_super.files import write_bytes
from nsynth_super.problems import BadInput, Problem, refuse
from nsynth_super.wavenet import magenta_format
from nsynth_super.wavenet.dimensions import Dimensions, read_off
from nsynth_super.wavenet.magenta_format import DATA, INDEX, PUBLISHED_NAME, beside

DEMO = Path(__file__).parents[1] / "data" / "demo.safetensors"
"""The small trained model that comes with the package: `--checkpoint demo`."""

_GET_ONE = (
    "`nsynth-super checkpoint fetch` downloads Magenta's; "
    "`--checkpoint demo` is the small one in the box, to try things out"
)


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights.

    Attributes
    ----------
    weights : mapping of str to ndarray of float32
        All variables, by Magenta's names.
    dimensions : Dimensions
        The sizes they imply.
    source : str
        The file they were read from.
    """

    weights: Mapping[str, NDArray[np.float32]]
    dimensions: Dimensions
    source: str

    @cached_property
    def sha256(self) -> str:
        """Of every name and number, whatever file they came in."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.weights[name], dtype="<f4").data)
        return digest.hexdigest()


def cache_folder() -> Path:
    """Return where converted and downloaded checkpoints are kept: $NSYNTH_CACHE or the user's."""
    return Path(os.environ.get("NSYNTH_CACHE") or user_cache_path("nsynth-super"))


def fetched_path() -> Path:
    """Return where `checkpoint fetch` puts Magenta's .tar."""
    return cache_folder() / "wavenet-ckpt.tar"


def default_path() -> Path | None:
    """Return the checkpoint to use when none is named: $NSYNTH_CHECKPOINT, or the fetched one."""
    if named := os.environ.get("NSYNTH_CHECKPOINT"):
        return Path(named)
    fetched = fetched_path()
    return fetched if fetched.exists() else None


def find(path: Path | None) -> Path:
    """Return the file that holds the weights: a .safetensors, a .tar or a TensorFlow prefix.

    Parameters
    ----------
    path : Path or None
        Any of those, one of a prefix's two files, or a folder that holds one of them; `demo` for
        the one in the box; None for the default.

    Raises
    ------
    BadInput
        If nothing is there, or a folder holds several.
    """
    path = path or default_path()
    if path is None:
        raise BadInput(Problem("checkpoint", "there is none", _GET_ONE))
    if path == Path("demo"):
        return DEMO
    path = path.expanduser()
    if path.is_dir():
        return _find_in(path)
    prefix = Path(str(path).removesuffix(".index").removesuffix(DATA).removesuffix(".meta"))
    if beside(prefix, INDEX).exists():
        if not beside(prefix, DATA).exists():
            raise BadInput(
                Problem(f"{prefix}{DATA}", "is missing beside its .index", "copy it there too")
            )
        return prefix
    if path.suffix in (".safetensors", ".tar") and path.is_file():
        return path
    what = "is no checkpoint" if path.exists() else "there is no checkpoint"
    raise BadInput(Problem(str(path), what, _GET_ONE))


def _find_in(folder: Path) -> Path:
    patterns = ("*.index", "*.safetensors", "*.tar", f"*/{PUBLISHED_NAME}.index")
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise BadInput(Problem(str(folder), f"holds several checkpoints: {names}", "name one"))
        if found:
            return find(found[0])
    raise BadInput(Problem(str(folder), "holds no checkpoint", _GET_ONE))


def load(path: Path | None) -> Checkpoint:
    """Find a checkpoint, convert it if it is TensorFlow's, verify it, and return its weights.

    Raises
    ------
    BadInput
        With every variable that is missing, misshapen or not finite.
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
            Problem(str(path), f"is no whole safetensors file ({error})", "make or copy it again")
        ) from None
    return verified(weights, source or str(path))


def verified(weights: Mapping[str, NDArray[Any]], source: str) -> Checkpoint:
    """Check names, shapes, dtypes and values, and drop what the model does not use.

    Raises
    ------
    BadInput
        With every problem found.
    """
    dimensions, problems = read_off({name: array.shape for name, array in weights.items()})
    kept = {name: weights[name] for name in dimensions.shapes() if name in weights}
    for name, array in kept.items():
        if array.dtype != np.float32:
            problems.append(
                Problem(name, f"is {array.dtype}, expected float32", "convert it again")
            )
        elif not np.isfinite(array).all():
            problems.append(Problem(name, "holds numbers that are not finite", "get it again"))
    if len(problems) > 8:
        more = Problem(source, f"and {len(problems) - 8} more variables", "is it NSynth's WaveNet?")
        problems = [*problems[:8], more]
    refuse(problems)
    return Checkpoint(kept, dimensions, source)


def save(weights: Mapping[str, NDArray[np.float32]], path: Path, source: str) -> None:
    """Write weights as safetensors, whole or not at all."""
    write_bytes(path, serialize(dict(weights), {"format": "nsynth-super 1", "source": source}))


def converted(found: Path) -> Path:
    """Return the safetensors made of a TensorFlow prefix or .tar; make it if it is not cached."""
    data = found if found.suffix == ".tar" else beside(found, DATA)
    stat = data.stat()
    identity = f"{data.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    cached = cache_folder() / f"{found.name.removesuffix('.tar')}-{name}.safetensors"
    if not cached.exists():
        convert(found, cached)
    return cached


def convert(found: Path, destination: Path) -> Checkpoint:
    """Read a checkpoint of any kind, verify it, and write it as safetensors."""
    if found.suffix == ".safetensors":
        checkpoint = _read_safetensors(found)
    else:
        with magenta_format.unpacked(found, cache_folder()) as prefix:
            checkpoint = verified(magenta_format.read(prefix), str(found))
    save(checkpoint.weights, destination, found.name)
    return checkpoint
