"""Run the image on this machine with `singularity`, as a user does."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.packs import ROOT


def image() -> Path | None:
    """Return $NSYNTH_TEST_IMAGE or the image of tests/cluster/image; None if it cannot run."""
    path = Path(os.environ.get("NSYNTH_TEST_IMAGE") or ROOT / ".cluster" / "nsynth.sif")
    return path if path.exists() and shutil.which("singularity") else None


def environment() -> dict[str, str]:
    """Return environment variables with which containers run on this machine.

    Root in a container may lack capabilities that Apptainer needs as root; in a user namespace it
    runs without them.
    """
    return {**os.environ, "APPTAINER_USERNS": "1"} if os.getuid() == 0 else dict(os.environ)


def singularity(
    *words: object, env: Mapping[str, str] | None = None, check: bool = True, **other
) -> subprocess.CompletedProcess[str]:
    """Run `singularity` with these arguments and return its result."""
    done = subprocess.run(
        ["singularity", *map(str, words)],
        env={**environment(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
        **other,
    )
    if check and done.returncode:
        raise AssertionError(f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done
