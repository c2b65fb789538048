"""A PATH with fakes: no machine has every version of Apptainer, or a broken unshare."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

FAKE = """\
#!/bin/sh
# A fake, for tests: prints a version, and fails at everything else unless told otherwise.
[ "$1" = --version ] && echo "{version}" && exit
echo "a fake failure" >&2
exit {exit_code}
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that puts a fake program on a PATH with a few real ones."""
    fakes, others = tmp_path / "fakes", tmp_path / "others"
    fakes.mkdir()
    others.mkdir()
    for program in ("sh", "git", "true", "unshare", "newuidmap", "newgidmap"):
        if found := shutil.which(program):
            (others / program).symlink_to(found)
    monkeypatch.setenv("PATH", f"{fakes}:{others}")

    def make(name: str, version: str = "apptainer version 1.4.5", exit_code: int = 3) -> Path:
        (fakes / name).write_text(FAKE.format(version=version, exit_code=exit_code))
        (fakes / name).chmod(0o755)
        return fakes / name

    return make
