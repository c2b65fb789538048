"""Atomic writes: what reaches the disk, and in which order."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nsynth_super.base.files import replacing


def test_a_file_is_synced_then_renamed_then_its_folder_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "pad.bin"
    calls = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        what = "the folder" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} bytes"
        calls.append(f"sync {what}")
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    with replacing(path) as temporary:
        temporary.write_bytes(b"1234")
    assert calls == ["sync 4 bytes", "rename", "sync the folder"]
    assert [file.name for file in tmp_path.iterdir()] == ["pad.bin"]
    assert path.read_bytes() == b"1234"


def test_a_write_that_fails_keeps_the_old_file_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "pad.bin"
    path.write_bytes(b"old")

    def write_and_fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        write_and_fail(temporary)
    assert [file.name for file in tmp_path.iterdir()] == ["pad.bin"]
    assert path.read_bytes() == b"old"
