"""Room on disks; how much is free is a fake."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from building import apptainer, room

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "refused"), [(29 + 2 + 5, False), (29 + 2 + 5 - 1, True)])
def test_folders_on_one_disk_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, refused: bool
) -> None:
    for name in ("APPTAINER_TMPDIR", "SINGULARITY_CACHEDIR"):  # Apptainer takes either name
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: Usage(0, 0, free * room.GB))
    program = apptainer.Program("apptainer")
    problems = room.problems(room.needs(program, tmp_path / "a.sif", sandbox=False))
    assert len(problems) == refused
    for problem in problems:
        assert problem.where == str(tmp_path / "APPTAINER_TMPDIR")
        assert problem.what == (
            f"35.0 GB are free, and a build may need 29.0 GB for temporary files in {tmp_path}/"
            f"APPTAINER_TMPDIR and 2.0 GB for base images in {tmp_path}/SINGULARITY_CACHEDIR and "
            f"5.0 GB for the image in {tmp_path}"
        )


def test_each_disk_that_is_too_small_is_named_with_the_way_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next((p for p in (Path("/dev/shm"), Path("/run")) if _another_disk(p, tmp_path)), None)
    if other is None:
        pytest.skip("needs a second file system to write to, such as /dev/shm")
    monkeypatch.setenv("APPTAINER_TMPDIR", str(other / "not-there-yet"))
    monkeypatch.setenv("APPTAINER_CACHEDIR", str(tmp_path))
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: Usage(0, 0, 3 * room.GB))
    needs = room.needs(apptainer.Program("apptainer"), tmp_path / "box", sandbox=True)
    first, second = room.problems(needs)
    assert (first.where, "APPTAINER_TMPDIR" in first.fix) == (str(other / "not-there-yet"), True)
    assert (second.where, "--sandbox" in second.fix) == (str(tmp_path), True)


def _another_disk(folder: Path, than: Path) -> bool:
    return os.access(folder, os.W_OK) and folder.stat().st_dev != than.stat().st_dev


def test_a_folder_that_cannot_be_written_to_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.os, "access", lambda *_: False)  # root may write anywhere
    need = room.Need(tmp_path / "a" / "b", 0, "the image", "name another")
    (problem,) = room.problems([need])
    assert problem.where == str(need.folder)
    assert problem.what == f"the image would go there, and {tmp_path} cannot be written to"
