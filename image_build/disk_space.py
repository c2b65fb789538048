"""Disk space: the most that a build of Singularity.def uses in each folder."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from image_build.apptainer import Program
from nsynth_super.base.errors import Problem
from nsynth_super.base.text import amount

GB = 1_000_000_000  # bytes

CUDA_STAGE = 4 * GB  # TensorFlow 1.15's own base: Ubuntu 18.04, CUDA 10.0, cuDNN 7, TensorFlow
BUILD_STAGE = 11 * GB  # the image's content, the checkpoint's .tar and its conversions
IMAGE = 9 * GB  # uncompressed: torch's CUDA 6 GB, CUDA 10.0's libraries 1.5 GB, TensorFlow 1 GB
SIF = 5 * GB  # the same, compressed
LAYERS = 2 * GB  # the downloaded base images
# Apptainer 1.4.5 keeps every stage until the image is complete, and builds its file system beside
# them (measured: three times the image's size for two stages, one copied into the other).
TEMPORARY = CUDA_STAGE + BUILD_STAGE + IMAGE + SIF


@dataclass(frozen=True)
class Need:
    """A number of bytes in a folder, and their purpose."""

    folder: Path
    size: int
    purpose: str
    fix: str


def needs(program: Program, output: Path, sandbox: bool) -> list[Need]:
    """Return the space that a build of Singularity.def needs in each folder."""
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
    """Return the folders that are not writable, and the disks that are too small.

    Needs on the same disk are added up.
    """
    found = []
    disks: dict[int, list[Need]] = defaultdict(list)
    for need in wanted:
        there = _nearest(need.folder)
        if os.access(there, os.W_OK | os.X_OK):
            disks[there.stat().st_dev].append(need)
        else:
            what = f"{need.purpose} would be written there, and {there} is not writable"
            found.append(Problem(str(need.folder), what, need.fix))
    return found + [problem for sharing in disks.values() for problem in _of_a_disk(sharing)]


def _of_a_disk(sharing: list[Need]) -> list[Problem]:
    largest = max(sharing, key=lambda need: need.size)
    free = shutil.disk_usage(_nearest(largest.folder)).free
    if sum(need.size for need in sharing) <= free:
        return []
    parts = " and ".join(f"{amount(n.size)} for {n.purpose} in {n.folder}" for n in sharing)
    what = f"{amount(free)} free, and a build may need {parts}"
    return [Problem(str(largest.folder), what, f"free some, or {largest.fix}")]


def _nearest(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next(there for there in (folder, *folder.absolute().parents) if there.is_dir())
