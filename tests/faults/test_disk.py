"""Full disks and denied access: a one-line error, no partial files, and a clean rerun."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.base.note_name import NoteName
from nsynth_super.base.workspace import Workspace
from tests.faults.packs import RUN, save_almost_all
from tests.faults.processes import (
    AS_ANYONE,
    OFTEN,
    contents,
    copied,
    done,
    refuses,
    temporaries,
)


class _Limit:
    """A limit on the size of files, which simulates a full disk without mounting one."""

    message = "the disk"

    def __init__(self, workspace: Workspace, root: Path) -> None:
        self.workspace, self.before = copied(workspace, root), ""

    def fill(self, leave: int) -> None:
        leave = max(leave, 2_000)  # the log of the command needs space
        self.before = (
            "import resource\n"
            "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({leave}, hard))\n"
        )

    def free(self) -> None:
        self.before = ""

    def close(self) -> None:
        pass


class _SmallDisk:
    """A small tmpfs in its own mount namespace."""

    message = "the disk is full"
    before = ""

    def __init__(self, workspace: Workspace, root: Path) -> None:
        root.mkdir(parents=True)
        mount = 'mount -t tmpfs -o size=3m none "$1" && echo mounted && read -r _'
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._holder.stdout.readline() != "mounted\n":
            self.close()
            raise OSError("a disk cannot be mounted")
        inside = Path(f"/proc/{self._holder.pid}/root{root}")
        self._ballast = inside / "ballast"
        self.workspace = copied(workspace, inside / "pack")

    def fill(self, leave: int) -> None:
        space = os.statvfs(self.workspace.root)
        self._ballast.write_bytes(bytes(space.f_bavail * space.f_bsize - leave))

    def free(self) -> None:
        self._ballast.unlink()

    def close(self) -> None:
        self._holder.communicate("")


@pytest.fixture(params=[_Limit, _SmallDisk], ids=["limit", "disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that copies a pack to a disk that can be filled."""
    disks = []

    def put(workspace: Workspace) -> Any:
        try:
            disk = request.param(workspace, tmp_path / "disk")
        except OSError:  # mounting is not allowed here: use the limit
            disk = _Limit(workspace, tmp_path / "limited")
        disks.append(disk)
        return disk

    yield put
    for disk in disks:
        disk.close()


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", OFTEN], ids=["at the end", "at every save"])
def test_generate_recovers_from_a_full_disk(
    before: str,
    run: RUN,
    disk: Callable[..., Any],
    planned: Workspace,
    finished: Workspace,
) -> None:
    if not before:
        planned.clips.mkdir()
        save_almost_all(planned, np.load(next(finished.clips.iterdir())))
    small = disk(planned)
    small.fill(leave=40_000)
    refuses(
        run("generate", small.workspace, before=small.before + before),
        *(1, small.message, "run the same command again"),
    )
    assert all(path.match("[!.]*.part.npy") for path in small.workspace.clips.iterdir())
    small.free()
    done(run("generate", small.workspace))
    assert contents(small.workspace.clips) == contents(finished.clips)
    assert temporaries(small.workspace) == []


@pytest.mark.slow
def test_pads_recovers_from_a_full_disk(
    run: RUN, disk: Callable[..., Any], finished: Workspace
) -> None:
    expected = contents(finished.pads)
    shutil.rmtree(finished.pads)
    small = disk(finished)
    small.fill(leave=8_192)
    refuses(
        run("pads", small.workspace, before=small.before),
        *(1, small.message, "run the same command again"),
    )
    assert not small.workspace.manifest.exists()
    assert list(small.workspace.pads.glob("*.bin")) == []
    assert temporaries(small.workspace) == []
    small.free()
    done(run("pads", small.workspace))
    assert contents(small.workspace.pads) == expected


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prepare", "generate", "pads"])
def test_a_completely_full_disk_is_reported_in_one_line(
    stage: str, run: RUN, disk: Callable[..., Any], finished: Workspace, planned: Workspace
) -> None:
    if stage == "generate":
        planned.clips.mkdir()
        save_almost_all(planned, np.load(next(finished.clips.iterdir())))
    small = disk(planned if stage == "generate" else finished)
    small.workspace.embedding(NoteName("flute", 48)).write_bytes(b"")
    if stage == "generate":
        done(run("prepare", small.workspace))
    small.workspace.manifest.unlink(missing_ok=True)
    small.fill(leave=0)
    refuses(run(stage, small.workspace, before=small.before), 1, small.message)
    assert [name for name in temporaries(small.workspace) if not name.endswith(".part.npy")] == []


@pytest.mark.parametrize("stage", ["prepare", "generate", "pads"])
def test_an_unwritable_workspace_is_reported_in_one_line(
    stage: str, run: RUN, finished: Workspace, planned: Workspace
) -> None:
    workspace = planned if stage == "generate" else finished
    shutil.rmtree(workspace.pads, ignore_errors=True)
    if stage == "prepare":
        workspace.embedding(NoteName("flute", 48)).unlink()
    before = sorted(workspace.root.rglob("*"))
    folders = [workspace.root, *(path for path in before if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        ended = run(stage, workspace, before=AS_ANYONE)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    refuses(ended, 1, str(workspace.root), "permission denied")
    assert sorted(workspace.root.rglob("*")) == before


def test_an_unreadable_block_does_not_count_as_missing(run: RUN, finished: Workspace) -> None:
    block = next(finished.clips.iterdir())
    block.chmod(0)
    for stage in ("generate", "pads"):
        refuses(run(stage, finished, before=AS_ANYONE), 1, block.name, "permission denied")
    assert [path.name for path in finished.clips.iterdir()] == [block.name]
