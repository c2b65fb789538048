"""Atomic file writes, .npy arrays, checksums and locks.

A file is written under a temporary name, synced and renamed, so a file under its final name is
always complete, even after a crash. Independent of the pipeline.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsynth_super.base.errors import Failed

_EXPLAINED = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EROFS: ("the file system is read-only", "choose a writable folder"),
    errno.EACCES: ("permission denied", "check the owner of the file and its folder"),
    errno.EPERM: ("permission denied", "check the owner of the file and its folder"),
    errno.EMFILE: ("too many open files", "raise this shell's limit, as with `ulimit -n 1024`"),
    errno.EFBIG: (
        "the file exceeds the size limit of the disk or of this shell (ulimit -f)",
        "raise the limit or choose another disk, and run the same command again",
    ),
}
_NO_LOCKS_HERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)
_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NAME_BYTES = 200  # kept of the final name in a temporary name, which may have 255 bytes


def explained(error: OSError, path: Path) -> Failed:
    """Convert an OSError to a `Failed` of one line: where, what, how to fix it."""
    what, fix = _EXPLAINED.get(
        error.errno or 0, (error.strerror or str(error), "check the folder and its permissions")
    )
    return Failed(f"{path}: {what} -> {fix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file next to `path`; on success sync it and rename it to `path`.

    Raises
    ------
    Failed
        If the file cannot be written. `path` is then unchanged, and the temporary file is removed.
    """
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise explained(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """Return an unused name in the folder of `path`: `.<name>.<8 hex digits>.part`."""
    name = os.fsencode(path.name)[:_NAME_BYTES].decode(errors="ignore")
    return path.with_name(f".{name}.{secrets.token_hex(4)}.part")


def sweep(folder: Path, name: str = "*") -> None:
    """Remove temporary files that killed runs left in `folder` for files that match glob `name`."""
    for leftover in folder.glob(f".{name}.*.part"):
        with suppress(OSError):
            leftover.unlink()


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some file systems cannot sync a folder.
        with suppress(OSError) if path.is_dir() else _nothing():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Write `content` to `path` as JSON, atomically."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` to `path` as .npy, atomically."""
    content = io.BytesIO()  # writing to a file, np.save hides why it failed
    np.save(content, array)
    write_bytes(path, content.getvalue())


def read_array(path: Path, dtype: str, dimensions: int) -> NDArray[Any] | None:
    """Memory-map a .npy file; return None if it is missing, truncated or not as expected.

    Raises
    ------
    Failed
        If the file exists but cannot be read. It must not count as missing: it may hold days of
        work.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise explained(error, path) from error
    except Exception:  # the header's parser raises errors of many kinds
        return None
    return array if (array.dtype, array.ndim) == (np.dtype(dtype), dimensions) else None


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def only_one(path: Path, busy: str) -> Iterator[None]:
    """Hold an advisory lock on `path`; proceed without one if the file system has no locks.

    The lock only prevents duplicate work: correctness never depends on it. The system releases it
    when the process ends, in whatever way.

    Raises
    ------
    Failed
        With the message `busy`, if another process holds the lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise explained(error, path) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                raise Failed(busy) from None
            if error.errno not in _NO_LOCKS_HERE:
                raise explained(error, path) from error
        yield
    finally:
        os.close(descriptor)
