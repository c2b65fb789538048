"""Print the versions, Magenta's patches and the missing CUDA libraries as JSON.

Runs under Python 2.7, and under any other version to report that version. Imports no slow modules,
because it runs before every use of Magenta.
"""

import ctypes
import glob
import io
import json
import os
import re
import sys

# TensorFlow 1.15 silently computes on the CPU if one of these libraries is missing.
CUDA_LIBRARIES = [
    "libcuda.so.1",
    "libcudart.so.10.0",
    "libcublas.so.10.0",
    "libcufft.so.10.0",
    "libcurand.so.10.0",
    "libcusolver.so.10.0",
    "libcusparse.so.10.0",
    "libcudnn.so.7",
]
PATCHED = ["fastgen", "nsynth_generate", "nsynth_save_embeddings"]
PATCH = re.compile(r"nsynth-super patch (\d{4})")


def version(*names):
    """Return the version of the first installed distribution among `names`, or None."""
    for name in names:
        for folder in sys.path:
            for found in glob.glob(os.path.join(folder, name + "-*.dist-info")):
                return os.path.basename(found)[len(name) + 1 : -len(".dist-info")]
    return None


def patches(package):
    """Return the numbers of the patches applied to Magenta, as marked in its files."""
    found = set()
    for name in PATCHED:
        path = os.path.join(package, "models", "nsynth", "wavenet", name + ".py")
        with io.open(path, encoding="utf-8") as source:
            found.update(PATCH.findall(source.read()))
    return sorted(found)


def missing():
    """Return the CUDA libraries that cannot be loaded."""
    names = []
    for name in CUDA_LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            names.append(name)
    return names


def main():
    here = {"python": list(sys.version_info[:2]), "magenta": None}
    if here["python"] == [2, 7]:
        import imp

        try:
            here["patches"] = patches(imp.find_module("magenta")[1])
            here["magenta"] = version("magenta_gpu", "magenta")
            here["tensorflow"] = version("tensorflow_gpu", "tensorflow")
            here["missing"] = missing()
        except (ImportError, IOError):
            pass
    print(json.dumps(here))


if __name__ == "__main__":
    main()
