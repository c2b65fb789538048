"""Files that are whole or not there: written aside, synced, renamed.

Knows nothing of the pipeline. What stands under its final name is complete, whatever happened.
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

from nsynth_super.problems import Failed

_EXPLAINED = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EROFS: ("the file system is read-only", "choose a folder that can be written"),
    errno.EACCES: ("permission denied", "see who owns the file and its folder"),
    errno.EPERM: ("permission denied", "see who owns the file and its folder"),
    errno.EMFILE: ("too many files are open", "allow this shell more, as with `ulimit -n 1024`"),
    errno.EFBIG: (
        "the disk, or a limit of this shell (ulimit -f), takes no file that large",
        "raise the limit or choose another disk, and run the same command again",
    ),
}
_NO_LOCKS_HERE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)
_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_NAME_BYTES = 200  # of a file's own name in its temporary one; 255 is the most in all


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
    """Return a name in `path`'s folder that nobody uses: `.<name>.<8 hex digits>.part`."""
    name = os.fsencode(path.name)[:_NAME_BYTES].decode(errors="ignore")
    return path.with_name(f".{name}.{secrets.token_hex(4)}.part")


def sweep(folder: Path, name: str = "*") -> None:
    """Remove the temporary files of `name`, a glob, that killed runs left in `folder`."""
    for leftover in folder.glob(f".{name}.*.part"):
        with suppress(OSError):
            leftover.unlink()


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
    content = io.BytesIO()  # np.save into a file hides why a write failed
    np.save(content, array)
    write_bytes(path, content.getvalue())


def read_array(path: Path, dtype: str, dimensions: int) -> NDArray[Any] | None:
    """Map a .npy file; None if it is missing, cut short, or something else than expected.

    Raises
    ------
    Failed
        If it is there and cannot be read: what it holds may be days of work.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise explained(error, path) from error
    except Exception:  # a header's bytes are read by a parser, which fails in many ways
        return None
    return array if (array.dtype, array.ndim) == (np.dtype(dtype), dimensions) else None


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
