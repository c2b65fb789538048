"""A full disk, a read-only folder: one line, nothing half-written, and later the same bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.workspace import Workspace
from tests.faults.packs import RUN, nearly
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
    """No file larger than a few kilobytes: a full disk for whoever may not mount one."""

    names = "the disk"

    def __init__(self, workspace: Workspace, root: Path) -> None:
        self.workspace, self.before = copied(workspace, root), ""

    def fill(self, leave: int) -> None:
        leave = max(leave, 2_000)  # what the command says must go somewhere
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
    """A disk in memory, in a mount namespace of its own."""

    names = "the disk is full"
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
    """Return a function that puts a pack on a disk that can be filled."""
    disks = []

    def put(workspace: Workspace) -> Any:
        try:
            disk = request.param(workspace, tmp_path / "disk")
        except OSError:  # who may mount nothing tests with the limit twice
            disk = _Limit(workspace, tmp_path / "limited")
        disks.append(disk)
        return disk

    yield put
    for disk in disks:
        disk.close()


@pytest.mark.parametrize("before", ["", OFTEN], ids=["at its end", "in its midst"])
def test_a_disk_that_fills_up_under_generate_costs_nothing_but_time(
    before: str,
    run: RUN,
    disk: Callable[..., Any],
    planned: Workspace,
    whole: Workspace,
) -> None:
    if not before:
        planned.clips.mkdir()
        nearly(planned, np.load(next(whole.clips.iterdir())))
    small = disk(planned)
    small.fill(leave=40_000)
    refuses(
        run("generate", small.workspace, before=small.before + before),
        *(1, small.names, "run the same command again"),
    )
    assert all(path.match("[!.]*.part.npy") for path in small.workspace.clips.iterdir())
    small.free()
    done(run("generate", small.workspace))
    assert contents(small.workspace.clips) == contents(whole.clips)
    assert temporaries(small.workspace) == []


def test_a_disk_that_fills_up_under_pads_costs_nothing_but_time(
    run: RUN, disk: Callable[..., Any], whole: Workspace
) -> None:
    expected = contents(whole.pads)
    shutil.rmtree(whole.pads)
    small = disk(whole)
    small.fill(leave=8_192)
    refuses(
        run("pads", small.workspace, before=small.before),
        *(1, small.names, "run the same command again"),
    )
    assert not small.workspace.manifest.exists()
    assert list(small.workspace.pads.glob("*.bin")) == []
    assert temporaries(small.workspace) == []
    small.free()
    done(run("pads", small.workspace))
    assert contents(small.workspace.pads) == expected


@pytest.mark.parametrize("stage", ["prepare", "generate", "pads"])
def test_a_disk_without_a_byte_left_is_named_in_one_line(
    stage: str, run: RUN, disk: Callable[..., Any], whole: Workspace, planned: Workspace
) -> None:
    if stage == "generate":
        planned.clips.mkdir()
        nearly(planned, np.load(next(whole.clips.iterdir())))
    small = disk(planned if stage == "generate" else whole)
    small.workspace.embedding("flute", 48).write_bytes(b"")
    if stage == "generate":
        done(run("prepare", small.workspace))
    small.workspace.manifest.unlink(missing_ok=True)
    small.fill(leave=0)
    refuses(run(stage, small.workspace, before=small.before), 1, small.names)
    assert [name for name in temporaries(small.workspace) if not name.endswith(".part.npy")] == []


@pytest.mark.parametrize("stage", ["prepare", "generate", "pads"])
def test_a_workspace_that_cannot_be_written_is_named_in_one_line(
    stage: str, run: RUN, whole: Workspace, planned: Workspace
) -> None:
    workspace = planned if stage == "generate" else whole
    shutil.rmtree(workspace.pads, ignore_errors=True)
    if stage == "prepare":
        workspace.embedding("flute", 48).unlink()
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


def test_a_block_that_may_not_be_read_is_not_taken_for_a_missing_one(
    run: RUN, whole: Workspace
) -> None:
    block = next(whole.clips.iterdir())
    block.chmod(0)
    for stage in ("generate", "pads"):
        refuses(run(stage, whole, before=AS_ANYONE), 1, block.name, "permission denied")
    assert [path.name for path in whole.clips.iterdir()] == [block.name]
