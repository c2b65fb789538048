"""Write checkpoints in TensorFlow's format, right and wrong ones, for the tests of their reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nsynth_super.wavenet.magenta_format import DATA, INDEX, file_of
from nsynth_super.wavenet.tensor_bundle import masked_crc32c

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def fixed(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + value.to_bytes(4, "little")


def header(shards: int = 1, endianness: int = 0) -> bytes:
    return number(1, shards) + number(2, endianness) + message(3, number(1, 1))


def entry(array: np.ndarray, offset: int) -> bytes:
    shape = b"".join(message(2, number(1, size)) for size in array.shape)
    return (
        number(1, TYPES[array.dtype.name])
        + message(2, shape)
        + number(4, offset)
        + number(5, array.nbytes)
        + fixed(6, masked_crc32c(array.tobytes()))
    )


def block(values: Mapping[bytes, bytes], restart_every: int = 16) -> bytes:
    """Return a block of a table, whose keys are shortened by what they share with the last one."""
    out, restarts, last = bytearray(), [], b""
    for place, key in enumerate(sorted(values)):
        shared = 0
        if place % restart_every == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        value = values[key]
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        last = key
    for at in [*(restarts or [0]), len(restarts or [0])]:
        out += at.to_bytes(4, "little")
    return bytes(out)


def stored(content: bytes, compression: int = 0) -> bytes:
    kind = bytes([compression])
    return content + kind + masked_crc32c(content + kind).to_bytes(4, "little")


def table(values: Mapping[bytes, bytes], per_block: int = 50, compression: int = 0) -> bytes:
    """Return a table of several blocks, as TensorFlow's `.index` files are."""
    out, handles = bytearray(), {}
    keys = sorted(values)
    for first in range(0, len(keys), per_block):
        some = keys[first : first + per_block]
        content = block({key: values[key] for key in some})
        handles[some[-1]] = varint(len(out)) + varint(len(content))
        out += stored(content, compression)
    ends = bytearray()
    for content in (block({}), block(handles, 1)):
        ends += varint(len(out)) + varint(len(content))
        out += stored(content)
    return bytes(out + ends.ljust(40, b"\0") + MAGIC)


def save(weights: Mapping[str, np.ndarray], prefix: Path, slots: bool = True) -> Path:
    """Save weights as training does: with slots, averages and a step, twice the values of each."""
    arrays = dict(weights)
    if slots:
        for name, array in weights.items():
            for suffix in ("ExponentialMovingAverage", "Adam", "Adam_1"):
                arrays[f"{name}/{suffix}"] = 2 * array
        arrays["global_step"] = np.array(200_000)
    values, data = {b"": header()}, bytearray()
    for name in sorted(arrays):
        values[name.encode()] = entry(arrays[name], len(data))
        data += arrays[name].tobytes()
    prefix.parent.mkdir(parents=True, exist_ok=True)
    file_of(prefix, DATA).write_bytes(data)
    file_of(prefix, INDEX).write_bytes(table(values))
    return prefix
