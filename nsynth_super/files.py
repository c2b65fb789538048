"""Files that are whole or not there: written aside, synced, renamed.

Knows nothing of the pipeline. What stands under its final name is complete, whatever happened.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from nsynth_super.problems import Failed

_EXPLAINED = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EROFS: ("the file system is read-only", "choose a folder that can be written"),
    errno.EACCES: ("permission denied", "choose a folder that you may write to"),
    errno.EPERM: ("permission denied", "choose a folder that you may write to"),
    errno.EFBIG: ("the file system does not hold files that large", "choose another one"),
}
_NO_LOCKS_HERE = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


def explained(error: OSError, path: Path) -> Failed:
    """Turn an operating system's error into one line: what, where, what to do."""
    what, fix = _EXPLAINED.get(
        error.errno or 0, (error.strerror or str(error), "see the folder and its permissions")
    )
    return Failed(f"{path}: {what} -> {fix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success sync it and rename it to `path`.

    Raises
    ------
    Failed
        If the file cannot be written. Then `path` is as it was, and nothing is left beside it.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent
        )
        os.fchmod(descriptor, 0o666 & ~_umask())
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some file systems cannot sync a folder; its names are then as safe as they make them.
        with suppress(OSError) if path.is_dir() else _nothing():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Write `content` as JSON to `path`, whole or not at all."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` as .npy to `path`, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def read_array(path: Path, dtype: str, dimensions: int) -> NDArray[Any] | None:
    """Map a .npy file; None if it is missing, cut short, or something else than expected."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != np.dtype(dtype)
        or array.ndim != dimensions
    ):
        return None
    return array


def sha256(path: Path) -> str:
    """Return a file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def only_one(path: Path, busy: str) -> Iterator[None]:
    """Hold an advisory lock; where a file system knows none, go on without.

    It keeps two runs from doing the same work twice. Nothing is believed because of it, and the
    system drops it when a process dies, however it dies.

    Raises
    ------
    Failed
        With the line `busy`, if another process holds it.
    """
    lock = FileLock(path, blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Failed(busy) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise explained(error, path) from error
    try:
        yield
    finally:
        lock.release()
