"""Recognize and read checkpoints in TensorFlow's format: two files, alone or in a .tar."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import explained
from nsynth_super.wavenet.dimensions import infer_dimensions
from nsynth_super.wavenet.tensor_bundle import DamagedError, Entry, Extent, read_index, read_tensor

INDEX, DATA = ".index", ".data-00000-of-00001"
"""Suffixes of the two files of a TensorFlow checkpoint; the path without them is its prefix."""

PUBLISHED_NAME = "model.ckpt-200000"
PUBLISHED_BYTES = {INDEX: 63_671, DATA: 986_763_532}
"""File sizes of the published checkpoint, as reported in 2024 (docs/format.md)."""

PUBLISHED_INDEX_SHA256 = "c5d9b6e427fba6d3e7472fcedf114e152db2a9b92eae98f21640d08fbec077fb"
"""SHA-256 of the published checkpoint's .index file, from a copy of 2018 (docs/format.md)."""

_AGAIN = "download or copy it again"
_SHOWN = 3  # damaged variables that a message names


def file_of(prefix: Path, suffix: str) -> Path:
    """Return the file of a TensorFlow prefix with the suffix `INDEX` or `DATA`."""
    return prefix.with_name(prefix.name + suffix)


def has_published_sizes(found: Path) -> bool:
    """Return whether the files of a prefix or .tar have the sizes of the published checkpoint."""
    if found.suffix == ".tar":
        with tarfile.open(found) as tar:
            sizes = {member.size for member in tar if member.isfile()}
    else:
        files = (file_of(found, suffix) for suffix in PUBLISHED_BYTES)
        sizes = {file.stat().st_size for file in files if file.exists()}
    return set(PUBLISHED_BYTES.values()) <= sizes


@dataclass(frozen=True)
class Verified:
    """A checkpoint whose variables all have the checksums of its index.

    Attributes
    ----------
    is_published : bool
        Whether the index is that of the published checkpoint. If so, all values are the published
        ones.
    variables : int
        Number of variables, including optimizer slots and moving averages.
    """

    is_published: bool
    variables: int


def verify(found: Path) -> Verified:
    """Verify the checksum of every variable, including those that the model does not use.

    Parameters
    ----------
    found : Path
        A TensorFlow prefix or a .tar.

    Raises
    ------
    BadInput
        As `read` does.
    """
    with _opened(found) as (index, entries, data):
        sha256 = hashlib.sha256(index.read(0, index.size)).hexdigest()
        variables = sum(1 for _ in _tensors(found, entries, data, entries))
    return Verified(sha256 == PUBLISHED_INDEX_SHA256, variables)


def read(found: Path) -> dict[str, NDArray[Any]]:
    """Read the model's variables, without optimizer slots and moving averages.

    The checksum of every variable is verified. A .tar is read in place.

    Parameters
    ----------
    found : Path
        A TensorFlow prefix or a .tar.

    Raises
    ------
    BadInput
        If the files are damaged, or a .tar does not contain exactly one checkpoint.
    """
    with _opened(found) as (_, entries, data):
        dimensions, _ = infer_dimensions({name: entry.shape for name, entry in entries.items()})
        names = [name for name in dimensions.shapes() if name in entries]
        return dict(_tensors(found, entries, data, names))


@contextmanager
def _opened(found: Path) -> Iterator[tuple[Extent, dict[str, Entry], Extent]]:
    """Yield the index, its entries and the data file; convert errors for the user."""
    try:
        index, data = _in_tar(found) if found.suffix == ".tar" else _of_prefix(found)
        yield index, read_index(index), data
    except DamagedError as error:
        raise BadInput(Problem(str(found), f"its .index file {error}", _AGAIN)) from None
    except OSError as error:
        raise explained(error, found) from error


def _tensors(
    found: Path, entries: Mapping[str, Entry], data: Extent, names: Iterable[str]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the named variables one by one; finally raise an error that lists the damaged ones."""
    damaged = {}
    with data.path.open("rb") as file:
        for name in names:
            try:
                yield name, read_tensor(data, file, entries[name])
            except DamagedError as error:
                damaged[name] = str(error)
    if damaged:
        shown = ", ".join([*damaged][:_SHOWN]) + ", …" * (len(damaged) > _SHOWN)
        what = f"{len(damaged)} damaged variables: {shown}: {next(iter(damaged.values()))}"
        raise BadInput(Problem(str(found), what, _AGAIN))


def _of_prefix(prefix: Path) -> tuple[Extent, Extent]:
    return Extent.of(file_of(prefix, INDEX)), Extent.of(file_of(prefix, DATA))


def _in_tar(archive: Path) -> tuple[Extent, Extent]:
    """Return where a .tar has the .index and the .data file of its checkpoint."""
    try:
        with tarfile.open(archive, "r:") as tar:
            members = {
                member.name: Extent(archive, member.offset_data, member.size)
                for member in tar
                if member.isreg()
            }
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(Problem(str(archive), f"invalid .tar file ({error})", _AGAIN)) from None
    prefixes = [
        name.removesuffix(INDEX)
        for name in members
        if name.endswith(INDEX) and name.removesuffix(INDEX) + DATA in members
    ]
    if len(prefixes) != 1:
        what = f"contains {len(prefixes)} checkpoints, expected one"
        raise BadInput(Problem(str(archive), what, "use Magenta's wavenet-ckpt.tar"))
    return members[prefixes[0] + INDEX], members[prefixes[0] + DATA]
