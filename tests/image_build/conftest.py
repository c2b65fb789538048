"""A PATH with fakes on it: no machine has every version of Apptainer, nor a broken unshare."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

FAKE = """\
#!/bin/sh
# A fake, for tests: says its version, and fails at everything else.
[ "$1" = --version ] && echo "{version}" && exit
echo "no room for another" >&2
exit 3
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that puts a fake program onto a PATH of few others."""
    fakes, others = tmp_path / "fakes", tmp_path / "others"
    fakes.mkdir()
    others.mkdir()
    for program in ("sh", "git", "true", "unshare", "newuidmap", "newgidmap"):
        if found := shutil.which(program):
            (others / program).symlink_to(found)
    monkeypatch.setenv("PATH", f"{fakes}:{others}")

    def make(name: str, version: str = "apptainer version 1.4.5") -> Path:
        (fakes / name).write_text(FAKE.format(version=version))  # no link is ever in here
        (fakes / name).chmod(0o755)
        return fakes / name

    return make
