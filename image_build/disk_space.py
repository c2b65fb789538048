"""Room on the disks: what a build of Singularity.def puts where, at its worst moment."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from building.apptainer import Program
from nsynth_super.problems import Problem
from nsynth_super.progress import amount

GB = 1_000_000_000  # bytes

CUDA_STAGE = 4 * GB  # TensorFlow 1.15's own base: Ubuntu 18.04, CUDA 10.0, cuDNN 7, TensorFlow
BUILD_STAGE = 11 * GB  # what the image gets, the checkpoint's .tar and what is converted from it
IMAGE = 9 * GB  # uncompressed: torch's CUDA 6 GB, CUDA 10.0's libraries 1.5 GB, TensorFlow 1 GB
SIF = 5 * GB  # the same, compressed
LAYERS = 2 * GB  # the base images as they are downloaded
# Apptainer 1.4.5 keeps every stage until the image is made, and makes its file system there too
# (measured: three times the image's size for two stages of which one is copied into the other).
TEMPORARY = CUDA_STAGE + BUILD_STAGE + IMAGE + SIF


@dataclass(frozen=True)
class Need:
    """Bytes in a folder, and what for."""

    folder: Path
    size: int
    what: str
    fix: str


def needs(program: Program, output: Path, sandbox: bool) -> list[Need]:
    """Return what a build of Singularity.def needs, and where."""
    temporary = program.variable("TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    cache = program.variable("CACHEDIR") or f"~/.{program.family}/cache"
    capital = program.family.upper()
    another = "name a folder on a larger disk with "
    return [
        Need(Path(temporary), TEMPORARY, "temporary files", f"{another}{capital}_TMPDIR"),
        Need(Path(cache).expanduser(), LAYERS, "base images", f"{another}{capital}_CACHEDIR"),
        Need(
            output.parent,
            IMAGE if sandbox else SIF,
            "the image",
            f"{another}{'--sandbox' if sandbox else '--output'}",
        ),
    ]


def problems(wanted: Iterable[Need]) -> list[Problem]:
    """Return what cannot be written to, and each disk that is too small.

    What shares a disk is added up.
    """
    found = []
    disks: dict[int, list[Need]] = defaultdict(list)
    for need in wanted:
        there = _nearest(need.folder)
        if os.access(there, os.W_OK | os.X_OK):
            disks[there.stat().st_dev].append(need)
        else:
            what = f"{need.what} would go there, and {there} cannot be written to"
            found.append(Problem(str(need.folder), what, need.fix))
    return found + [problem for sharing in disks.values() for problem in _of_a_disk(sharing)]


def _of_a_disk(sharing: list[Need]) -> list[Problem]:
    largest = max(sharing, key=lambda need: need.size)
    free = shutil.disk_usage(_nearest(largest.folder)).free
    if sum(need.size for need in sharing) <= free:
        return []
    parts = " and ".join(f"{amount(n.size)} for {n.what} in {n.folder}" for n in sharing)
    what = f"{amount(free)} are free, and a build may need {parts}"
    return [Problem(str(largest.folder), what, f"free some, or {largest.fix}")]


def _nearest(folder: Path) -> Path:
    """Return the folder, or the one above it that is there to make it in."""
    return next(there for there in (folder, *folder.absolute().parents) if there.is_dir())
