"""Stages in the wrong order, two at once, the longest names: said in a line, or no trouble."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsynth_super import files
from nsynth_super.problems import Failed
from nsynth_super.workspace import Workspace
from tests.faults.packs import RUN, START
from tests.faults.processes import (
    OFTEN,
    Ended,
    contents,
    copied,
    done,
    drawn,
    made,
    prepared,
    refuses,
    temporaries,
)


def test_generate_without_a_plan_says_that_prepare_comes_first(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace]
) -> None:
    ended = command("generate", "-w", make_workspace().root)
    refuses(Ended(ended.returncode, ended.stderr), 2, "no plan yet", "run `nsynth-super prepare`")
    assert len(ended.stderr.splitlines()) == 1


def test_pads_without_a_plan_says_that_prepare_comes_first(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace]
) -> None:
    ended = command("pads", "-w", make_workspace().root)
    refuses(Ended(ended.returncode, ended.stderr), 2, "no plan yet", "run `nsynth-super prepare`")


def test_pads_without_clips_says_that_generate_comes_first(run: RUN, planned: Workspace) -> None:
    ended = run("pads", planned)
    refuses(ended, 2, "18 of 18 clips are not made yet", "run `nsynth-super generate` first")
    assert len(ended.said.splitlines()) == 1
    assert not planned.pads.exists()


def test_a_second_generate_of_the_same_blocks_is_refused_and_harms_nothing(
    start: START, run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    first = start("generate", planned, before=OFTEN)
    assert first.until(lambda: drawn(planned) > 300)
    for shard in ("0/1", "1/2"):  # the only block there is
        ended = run("generate", planned, "--shard", shard)
        refuses(ended, 1, "another `generate` is at shard 0/1 there")
        assert len(ended.said.splitlines()) == 1
    assert first.alive
    done(first.wait())
    assert contents(planned.clips) == contents(one_block[1].clips)
    assert "18 clips are there, 0 of them" in done(run("generate", planned)).said


def test_two_shards_at_once_make_the_whole(
    start: START, run: RUN, two_blocks: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    pack = copied(two_blocks[0], tmp_path / "pack")
    shards = [start("generate", pack, "--shard", f"{index}/2") for index in (0, 1)]
    for shard in shards:
        done(shard.wait())
    done(run("pads", pack))
    assert made(pack) == made(two_blocks[1])
    assert temporaries(pack) == []


def test_a_lock_keeps_another_out_until_its_holder_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "status" / "lock"
    held = files.only_one(lock, "busy")
    with held, pytest.raises(Failed, match="busy"), files.only_one(lock, "busy"):
        pass
    with files.only_one(lock, "busy"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_a_file_system_knows_no_locks_the_work_goes_on(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake: file systems without locks, as Lustre is often mounted, cannot be had here."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with files.only_one(tmp_path / "lock", "busy"):
        pass


def test_the_longest_names_of_any_script_are_written(
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
    assert "4 clips written" in done(run("export", pack, tmp_path / "wav")).said
    assert len(list((tmp_path / "wav").iterdir())) == 4
