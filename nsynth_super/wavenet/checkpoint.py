"""The model's weights: found, verified, and kept as safetensors.

Magenta published a TensorFlow checkpoint of four times the model's size (the optimizer's and the
averages' slots are in it). It is read once, by TensorFlow, and becomes one file of plain arrays
under the same names, in a cache. Everything after that needs only NumPy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from nsynth_super.files import replacing, sha256, write_json
from nsynth_super.problems import BadInput, Problem, refuse
from nsynth_super.wavenet.dimensions import Dimensions, read_off

PUBLISHED_NAME = "model.ckpt-200000"
PUBLISHED_URL = "http://download.magenta.tensorflow.org/models/nsynth/wavenet-ckpt.tar"
PUBLISHED_BYTES = {".index": 63_671, ".data-00000-of-00001": 986_763_532}
"""File sizes of the published checkpoint, as reported in 2024 (docs/format.md)."""

_DATA = ".data-00000-of-00001"
_GET_ONE = (
    "`nsynth-super checkpoint fetch` downloads Magenta's; "
    "`nsynth-super checkpoint random FILE` makes an untrained one to try things out"
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


def default_path() -> Path | None:
    """Return the checkpoint to use when none is named: $NSYNTH_CHECKPOINT, or the fetched one."""
    if named := os.environ.get("NSYNTH_CHECKPOINT"):
        return Path(named)
    fetched = cache_folder() / "wavenet-ckpt.tar"
    return fetched if fetched.exists() else None


def find(path: Path | None) -> Path:
    """Return the file that holds the weights: a .safetensors, a .tar or a TensorFlow prefix.

    Parameters
    ----------
    path : Path or None
        Any of those, one of a prefix's two files, or a folder that holds one of them; None for
        the default.

    Raises
    ------
    BadInput
        If nothing is there, or a folder holds several.
    """
    path = path or default_path()
    if path is None:
        raise BadInput(Problem("checkpoint", "there is none", _GET_ONE))
    path = path.expanduser()
    if path.is_dir():
        return _find_in(path)
    prefix = Path(str(path).removesuffix(".index").removesuffix(_DATA).removesuffix(".meta"))
    if prefix.with_name(prefix.name + ".index").exists():
        if not prefix.with_name(prefix.name + _DATA).exists():
            raise BadInput(
                Problem(f"{prefix}{_DATA}", "is missing beside its .index", "copy it there too")
            )
        return prefix
    if path.is_file():
        return path
    raise BadInput(Problem(str(path), "there is no checkpoint", _GET_ONE))


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
    with replacing(path) as temporary:
        save_file(dict(weights), temporary, {"format": "nsynth-super 1", "source": source})


def converted(found: Path) -> Path:
    """Return the safetensors made of a TensorFlow prefix or .tar; make it if it is not cached."""
    data = found if found.suffix == ".tar" else found.with_name(found.name + _DATA)
    stat = data.stat()
    identity = f"{data.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    cached = cache_folder() / f"{found.name.removesuffix('.tar')}-{name}.safetensors"
    if not cached.exists():
        convert(found, cached)
    return cached


def convert(found: Path, destination: Path) -> Checkpoint:
    """Read a TensorFlow prefix or .tar, verify it, and write it as safetensors."""
    with _unpacked(found) as prefix:
        checkpoint = verified(_read_tensorflow(prefix), str(found))
    save(checkpoint.weights, destination, found.name)
    return checkpoint


def is_published(prefix: Path) -> bool:
    """Tell whether both files of a TensorFlow prefix have the published checkpoint's sizes."""
    return all(
        (file := prefix.with_name(prefix.name + ending)).exists() and file.stat().st_size == size
        for ending, size in PUBLISHED_BYTES.items()
    )


@contextmanager
def _unpacked(found: Path) -> Iterator[Path]:
    if found.suffix != ".tar":
        yield found
        return
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".unpacking-") as folder:
        yield _unpack(found, Path(folder))


def _unpack(archive: Path, folder: Path) -> Path:
    """Copy the .index and the .data out of a .tar, and nothing else; return their prefix."""
    prefixes = set()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                content = tar.extractfile(member)
                if content is None or not name.endswith((".index", _DATA)):
                    continue
                with (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 22)
                prefixes.add(name.removesuffix(".index").removesuffix(_DATA))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BadInput(
            Problem(str(archive), f"is no whole .tar ({error})", "download or copy it again")
        ) from None
    whole = [
        p for p in sorted(prefixes) if all((folder / (p + e)).exists() for e in (".index", _DATA))
    ]
    if len(whole) != 1:
        raise BadInput(
            Problem(str(archive), f"holds {len(whole)} checkpoints, expected one", _GET_ONE)
        )
    return folder / whole[0]


def _read_tensorflow(prefix: Path) -> dict[str, NDArray[Any]]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
    except ImportError:
        raise BadInput(
            Problem(
                str(prefix),
                "is TensorFlow's format, and TensorFlow is not installed (it is needed once)",
                "pip install 'nsynth-super[tensorflow]'",
            )
        ) from None
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        dimensions, _ = read_off(shapes)
        return {name: reader.get_tensor(name) for name in dimensions.shapes() if name in shapes}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise BadInput(
            Problem(str(prefix), f"cannot be read ({first})", "download or copy it again")
        ) from None


def fetch(url: str, progress: Callable[[int, int], None]) -> Path:
    """Download Magenta's .tar into the cache, going on where an earlier attempt broke off.

    Parameters
    ----------
    url : str
        Of the .tar.
    progress : callable
        Called with (bytes so far, bytes in all; 0 if the server does not say).

    Returns
    -------
    Path
        The .tar. Beside it `wavenet-ckpt.json` records the url and the sha256 of what came.

    Raises
    ------
    BadInput
        If the server does not have it; the partial file stays, for the next attempt.
    """
    import requests

    destination = cache_folder() / "wavenet-ckpt.tar"
    partial = destination.with_name(destination.name + ".part")
    destination.parent.mkdir(parents=True, exist_ok=True)
    done = partial.stat().st_size if partial.exists() else 0
    try:
        headers = {"Range": f"bytes={done}-"} if done else {}
        with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                partial.unlink()
                return fetch(url, progress)
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                done = 0
            total = done + int(answer.headers.get("Content-Length", 0))
            with partial.open("ab" if done else "wb") as file:
                for chunk in answer.iter_content(1 << 20):
                    file.write(chunk)
                    done += len(chunk)
                    progress(done, total)
    except requests.RequestException as error:
        raise BadInput(
            Problem(
                url,
                f"the download broke off at {done:,} bytes ({type(error).__name__}: {error})",
                "run it again to go on, or give a mirror with --url, or copy the .tar by hand "
                "and name it with --checkpoint",
            )
        ) from None
    if total and done != total:
        raise BadInput(
            Problem(url, f"ended at {done:,} of {total:,} bytes", "run it again to go on")
        )
    write_json(
        destination.with_suffix(".json"), {"url": url, "bytes": done, "sha256": sha256(partial)}
    )
    os.replace(partial, destination)
    return destination
