"""Read TensorFlow's checkpoint format ("tensor bundle", V2), without TensorFlow.

A checkpoint is an index and a data file. The index is a table of LevelDB's format, whose values are
messages in protocol buffers' wire format: under the empty name a header, and under each variable's
name its type, shape, and the place, size and checksum of its values in the data file. The values
are little-endian and row by row. Both files may be members of a .tar, which is read in place.

Sources: TensorFlow 1.15, `core/protobuf/tensor_bundle.proto`, `core/framework/tensor_shape.proto`,
`core/util/tensor_bundle/tensor_bundle.cc`, `core/lib/io/format.cc`, `core/lib/io/block.cc`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

LARGEST_INDEX = 1 << 26
"""Bytes of an index that is read: the published one, of 1,495 variables, has 63,671."""

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes: two handles, padding, the magic number
_TRAILER = 5  # bytes after a block: its compression and its checksum
_MASK_ADDED = 0xA282EAD8
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}  # DataType in core/framework/types.proto


class DamagedError(ValueError):
    """A file is not what the format says; the message tells how."""


@dataclass(frozen=True)
class Extent:
    """A range of a file: all of it, or a member of a .tar.

    Attributes
    ----------
    path : Path
    offset, size : int
        In bytes.
    """

    path: Path
    offset: int
    size: int

    @staticmethod
    def of(path: Path) -> Extent:
        """Return the whole file."""
        return Extent(path, 0, path.stat().st_size)

    def read(self, offset: int, size: int) -> bytes:
        """Return a part of the range.

        Raises
        ------
        DamagedError
            If the part does not lie within the range, or the file is shorter than it was.
        """
        with self.path.open("rb") as file:
            return self.read_from(file, offset, size)

    def read_from(self, file: BufferedReader, offset: int, size: int) -> bytes:
        """Read a part as `read` does, from the open file."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise DamagedError(f"ends before byte {offset + size:,}")
        file.seek(self.offset + offset)
        content = file.read(size)
        if len(content) < size:
            raise DamagedError(f"ends before byte {offset + size:,}")
        return content


@dataclass(frozen=True)
class Entry:
    """What the index says of a variable.

    Attributes
    ----------
    dtype : str
        NumPy's name of the type; empty for a type that no model has.
    shape : tuple of int
    offset, size : int
        Range in the data file, in bytes.
    crc32c : int
        Masked checksum of the values.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    crc32c: int


def masked_crc32c(content: bytes) -> int:
    """Return the CRC32C as TensorFlow stores it: rotated by 15 bits, plus a constant."""
    crc = int(google_crc32c.value(content))
    return ((crc >> 15 | crc << 17) + _MASK_ADDED) & 0xFFFFFFFF


def read_index(index: Extent) -> dict[str, Entry]:
    """Return the entries of all variables, by name.

    Raises
    ------
    DamagedError
        If the file is not an index, is damaged, or belongs to a checkpoint of several data files.
    """
    if not _FOOTER <= index.size <= LARGEST_INDEX:
        raise DamagedError(f"has {index.size:,} bytes, which no index has")
    content = index.read(0, index.size)
    footer = content[-_FOOTER:]
    if int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise DamagedError("does not end like a TensorFlow index")
    _, _, at = _handle(footer, 0)  # of the filters, which are empty
    offset, size, _ = _handle(footer, at)
    entries = {}
    for _, handle in _block(content, offset, size):
        offset, size, _ = _handle(handle, 0)
        for name, message in _block(content, offset, size):
            if name:
                entries[name.decode(errors="replace")] = _entry(message)
            else:
                _check_header(message)
    return entries


def read_tensor(data: Extent, file: BufferedReader, entry: Entry) -> NDArray[Any]:
    """Return the values of a variable.

    Parameters
    ----------
    data : Extent
        The data file.
    file : BufferedReader
        Its file, open.
    entry : Entry

    Raises
    ------
    DamagedError
        If the values are missing, or have another size or checksum than the index says.
    """
    if not entry.dtype:
        raise DamagedError("has a type that is not supported")
    size = math.prod(entry.shape) * np.dtype(entry.dtype).itemsize
    if size != entry.size:
        raise DamagedError(f"has {entry.size:,} bytes, but its shape {size:,}")
    content = data.read_from(file, entry.offset, entry.size)
    if masked_crc32c(content) != entry.crc32c:
        raise DamagedError("values do not have the checksum of the index")
    return np.frombuffer(content, entry.dtype).reshape(entry.shape)


def _handle(content: bytes, at: int) -> tuple[int, int, int]:
    """Return a block's offset and size, and where the handle ends."""
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return offset, size, at


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block; a key omits what it shares with the one before it."""
    block = content[offset : offset + size]
    trailer = content[offset + size : offset + size + _TRAILER]
    if len(trailer) < _TRAILER or size < 4:
        raise DamagedError("has a block outside of the file")
    if masked_crc32c(block + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise DamagedError("has a block with a wrong checksum")
    if trailer[0] != 0:
        raise DamagedError("is compressed, which TensorFlow does not do")
    restarts = 4 * (1 + int.from_bytes(block[-4:], "little"))  # offsets for a binary search
    at, key = 0, b""
    while at < size - restarts:
        shared, at = _varint(block, at)
        more, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + more + length > size - restarts:
            raise DamagedError("has an entry outside of its block")
        key = key[:shared] + block[at : at + more]
        yield key, block[at + more : at + more + length]
        at += more + length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number of 7 bits per byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(content):
            break
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise DamagedError("has a number that does not end")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field of a message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(message, at)
        else:
            if kind == 2:
                size, at = _varint(message, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise DamagedError("has a field of an unknown kind")
            if at + size > len(message):
                raise DamagedError("has a field that does not end")
            value = message[at : at + size]
            at += size
            if kind != 2:
                value = int.from_bytes(value, "little")
        yield tag >> 3, value


def _check_header(message: bytes) -> None:
    fields = dict(_fields(message))
    if fields.get(1) != 1:
        raise DamagedError(f"belongs to {fields.get(1, 0)!r} data files, expected one")
    if fields.get(2, 0) != 0:
        raise DamagedError("is big-endian")


def _entry(message: bytes) -> Entry:
    dtype, shape = "", tuple[int, ...]()
    numbers = {4: 0, 5: 0, 6: 0}
    for field, value in _fields(message):
        if field == 1 and isinstance(value, int):
            dtype = _DTYPES.get(value, "")
        elif field == 2 and isinstance(value, bytes):
            shape = tuple(_dimensions(value))
        elif field in numbers and isinstance(value, int):
            numbers[field] = value
        elif field == 7:
            dtype = ""  # a slice of a partitioned variable
    return Entry(dtype, shape, numbers[4], numbers[5], numbers[6])


def _dimensions(message: bytes) -> Iterator[int]:
    for field, value in _fields(message):
        if field == 2 and isinstance(value, bytes):
            size = dict(_fields(value)).get(1, 0)
            if isinstance(size, int):
                yield size
