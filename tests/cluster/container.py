"""The real image on this machine, run as a person would: `singularity …`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.packs import ROOT


def image() -> Path | None:
    """Return the image that tests/cluster/image made, or $NSYNTH_TEST_IMAGE; None without one."""
    path = Path(os.environ.get("NSYNTH_TEST_IMAGE") or ROOT / ".cluster" / "nsynth.sif")
    return path if path.exists() and shutil.which("singularity") else None


def environment() -> dict[str, str]:
    """Return the environment in which containers run here.

    Root of a small machine may lack a capability that it needs to run one as root; in a user
    namespace it runs as everybody else's does.
    """
    return {**os.environ, "APPTAINER_USERNS": "1"} if os.getuid() == 0 else dict(os.environ)


def singularity(
    *words: object, env: Mapping[str, str] | None = None, check: bool = True, **other
) -> subprocess.CompletedProcess[str]:
    """Run `singularity …` to its end."""
    done = subprocess.run(
        ["singularity", *map(str, words)],
        env={**environment(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        **other,
    )
    if check and done.returncode:
        raise AssertionError(f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done
