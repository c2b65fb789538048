"""Stages in the wrong order, concurrent runs, locks and very long names."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsynth_super.base import files
from nsynth_super.base.errors import Failed
from nsynth_super.base.workspace import Workspace
from tests.faults.packs import RUN, START
from tests.faults.processes import (
    OFTEN,
    Ended,
    contents,
    copied,
    done,
    made,
    prepared,
    refuses,
    saved_samples,
    temporaries,
)


def test_generate_without_a_plan_refers_to_prepare(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace]
) -> None:
    ended = command("generate", "-w", make_workspace().root)
    refuses(Ended(ended.returncode, ended.stderr), 2, "no plan yet", "run `nsynth-super prepare`")
    assert len(ended.stderr.splitlines()) == 1


def test_pads_without_a_plan_refers_to_prepare(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace]
) -> None:
    ended = command("pads", "-w", make_workspace().root)
    refuses(Ended(ended.returncode, ended.stderr), 2, "no plan yet", "run `nsynth-super prepare`")


def test_pads_without_clips_refers_to_generate(run: RUN, planned: Workspace) -> None:
    ended = run("pads", planned)
    refuses(ended, 2, "18 of 18 clips are missing", "run `nsynth-super generate` first")
    assert len(ended.said.splitlines()) == 1
    assert not planned.pads.exists()


@pytest.mark.slow
def test_a_second_generate_of_the_same_blocks_is_rejected_without_harm(
    start: START, run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    first = start("generate", planned, before=OFTEN)
    assert first.until(lambda: saved_samples(planned) > 300)
    for shard in ("0/1", "1/2"):  # both contain the only block
        ended = run("generate", planned, "--shard", shard)
        refuses(ended, 1, "another `generate` is running on shard 0/1")
        assert len(ended.said.splitlines()) == 1
    assert first.alive
    done(first.wait())
    assert contents(planned.clips) == contents(one_block[1].clips)
    assert "18 clips complete, 0 of them" in done(run("generate", planned)).said


@pytest.mark.slow
def test_two_shards_in_parallel_complete_the_pack(
    start: START, run: RUN, two_blocks: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    pack = copied(two_blocks[0], tmp_path / "pack")
    shards = [start("generate", pack, "--shard", f"{index}/2") for index in (0, 1)]
    for shard in shards:
        done(shard.wait())
    done(run("pads", pack))
    assert made(pack) == made(two_blocks[1])
    assert temporaries(pack) == []


def test_a_lock_is_released_when_its_holder_dies(tmp_path: Path) -> None:
    lock = tmp_path / "status" / "lock"
    held = files.only_one(lock, "busy")
    with held, pytest.raises(Failed, match="busy"), files.only_one(lock, "busy"):
        pass
    with files.only_one(lock, "busy"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_accepted(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulate a file system without locks, such as Lustre in many installations."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with files.only_one(tmp_path / "lock", "busy"):
        pass


@pytest.mark.slow
def test_the_longest_names_in_any_script_can_be_written(
    run: RUN, small_checkpoint: Path, tmp_path: Path
) -> None:
    names = [letter * 20 for letter in "笛鼓琴鐘"]
    pads = {corner: [name] for corner, name in zip(("NW", "NE", "SW", "SE"), names, strict=True)}
    pack = prepared(tmp_path / "pack", small_checkpoint, pads=pads, resolution=2, pitches=[60])
    done(run("generate", pack))
    done(run("pads", pack))
    pad = pack.pad("_".join(names))
    assert len(pad.name.encode()) > 245
    assert pad.stat().st_size == 4 * 300 * 2
    assert "wrote 4 clips" in done(run("export", pack, tmp_path / "wav")).said
    assert len(list((tmp_path / "wav").iterdir())) == 4
