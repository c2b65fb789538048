"""Disk space; the free space is a fake."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path

import pytest

from image_build import apptainer, disk_space

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "refused"), [(29 + 2 + 5, False), (29 + 2 + 5 - 1, True)])
def test_needs_on_the_same_disk_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, refused: bool
) -> None:
    for name in ("APPTAINER_TMPDIR", "SINGULARITY_CACHEDIR"):  # Apptainer takes either name
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(
        disk_space.shutil, "disk_usage", lambda _: Usage(0, 0, free * disk_space.GB)
    )
    program = apptainer.Program("apptainer")
    problems = disk_space.problems(disk_space.needs(program, tmp_path / "a.sif", sandbox=False))
    assert len(problems) == refused
    for problem in problems:
        assert problem.where == str(tmp_path / "APPTAINER_TMPDIR")
        assert problem.what == (
            f"35.0 GB free, and a build may need 29.0 GB for temporary files in {tmp_path}/"
            f"APPTAINER_TMPDIR and 2.0 GB for base images in {tmp_path}/SINGULARITY_CACHEDIR and "
            f"5.0 GB for the image in {tmp_path}"
        )


def test_each_disk_that_is_too_small_is_named_with_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next((p for p in (Path("/dev/shm"), Path("/run")) if _another_disk(p, tmp_path)), None)
    if other is None:
        pytest.skip("needs a second file system to write to, such as /dev/shm")
    monkeypatch.setenv("APPTAINER_TMPDIR", str(other / "not-there-yet"))
    monkeypatch.setenv("APPTAINER_CACHEDIR", str(tmp_path))
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: Usage(0, 0, 3 * disk_space.GB))
    needs = disk_space.needs(apptainer.Program("apptainer"), tmp_path / "box", sandbox=True)
    first, second = disk_space.problems(needs)
    assert (first.where, "APPTAINER_TMPDIR" in first.fix) == (str(other / "not-there-yet"), True)
    assert (second.where, "--sandbox" in second.fix) == (str(tmp_path), True)


def _another_disk(folder: Path, than: Path) -> bool:
    return os.access(folder, os.W_OK) and folder.stat().st_dev != than.stat().st_dev


def test_a_folder_that_is_not_writable_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_space.os, "access", lambda *_: False)  # root may write anywhere
    need = disk_space.Need(tmp_path / "a" / "b", 0, "the image", "name another")
    (problem,) = disk_space.problems([need])
    assert problem.where == str(need.folder)
    assert problem.what == f"the image would be written there, and {tmp_path} is not writable"
