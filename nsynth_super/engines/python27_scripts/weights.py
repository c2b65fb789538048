"""Read safetensors files under Python 2.7, which has no library for them."""

import json
import struct

import numpy as np


def read_safetensors(path):
    """Return the float32 arrays of a .safetensors file, by name."""
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length).decode("utf-8"))
        data = f.read()
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] != "F32":
            raise ValueError("%s is %s, expected F32" % (name, entry["dtype"]))
        start, end = entry["data_offsets"]
        arrays[name] = np.frombuffer(data[start:end], dtype="<f4").reshape(entry["shape"])
    return arrays
