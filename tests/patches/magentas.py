"""Create copies of Magenta 1.1.7, patch them, and run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATCHES = ROOT / "patches"
APPLY = PATCHES / "apply"
FILES = sorted(PATCHES.glob("0*.patch"))
ORACLE = ROOT / ".oracle"
PY27 = ORACLE / "py27" / "bin" / "python"
PATCHED = ORACLE / "patched" / "bin" / "python"
LACKING = "no Python 2.7 with Magenta here: run tests/oracle/setup"


def copy_magenta(folder: Path) -> Path:
    """Copy the package into `folder` as in its wheel; return its path."""
    source = ORACLE / "py27" / "lib" / "python2.7" / "site-packages" / "magenta"
    package = folder / "magenta"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ORACLE / "magenta__init__.py", package / "__init__.py")
    return package


def empty_init(package: Path) -> None:
    """Empty magenta/__init__.py, whose imports fail where only NSynth's dependencies exist."""
    (package / "__init__.py").write_text("")


def apply_one(package: Path, patch: Path) -> None:
    """Apply a single patch."""
    subprocess.run(
        ["patch", "-p1", "--fuzz=0", "--silent", f"--input={patch}"],
        cwd=package.parent,
        check=True,
    )


def apply(package: Path, python: Path = PY27, script: Path = APPLY, **environment: str) -> Any:
    """Run `patches/apply` with a Python 2.7 that imports this package."""
    return subprocess.run(
        [script, python],
        env={**os.environ, "PYTHONPATH": str(package.parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


class Magenta:
    """A copy of Magenta, run by the oracle's Python 2.7.

    Parameters
    ----------
    package : Path
        Folder of the copy.
    """

    def __init__(self, package: Path) -> None:
        self.package = package

    def probe(self, command: str, *flags: object, gpus: str | None = None) -> dict[str, Any]:
        """Run a subcommand of `py27/probe.py`; return its result, with its `stderr`."""
        environment = {**os.environ, "PYTHONPATH": str(self.package.parent)}
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
        done = subprocess.run(
            [PY27, HERE / "py27" / "probe.py", command, *map(str, flags)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return {**json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr}
