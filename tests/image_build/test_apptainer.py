"""Which programs build.py accepts; each is a fake that prints its version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from image_build import apptainer


@pytest.mark.parametrize(
    ("name", "version", "refused"),
    [
        ("apptainer", "apptainer version 1.4.5", None),
        ("apptainer", "apptainer version 1.2.0-1.el9", None),
        ("apptainer", "apptainer version 2.0.1+14-gab12cd3", None),
        ("singularity", "apptainer version 1.4.5-1.el9", None),
        ("singularity", "singularity-ce version 4.1.1", None),
        ("singularity", "singularity-ce version 4.0.0-jammy", None),
        ("apptainer", "apptainer version 1.1.9", "without %arguments"),
        ("singularity", "singularity-ce version 3.11.5", "without %arguments"),
        ("singularity", "singularity version 3.8.7-1", "without %arguments"),
        ("singularity", "singularity version 2.6.1-dist", "without %arguments"),
        ("apptainer", "2.6.1-dist", "which is not a version"),
    ],
)
def test_a_program_too_old_for_the_definition_is_refused(
    fake: Callable[..., Path], name: str, version: str, refused: str | None
) -> None:
    path = fake(name, version)
    program, problems = apptainer.find()
    assert program.path == str(path)
    assert program.family == version.split()[0].split("-")[0] or refused
    assert [refused in problem.what for problem in problems] == ([True] if refused else [])


def test_a_missing_program_is_reported_with_how_to_install_it(fake: Callable[..., Path]) -> None:
    _, (problem,) = apptainer.find()
    assert "not on the PATH, and neither is singularity" in str(problem)


def test_apptainer_comes_before_singularity(
    fake: Callable[..., Path],
) -> None:
    fake("singularity", "singularity version 3.8.7")
    fake("apptainer", "apptainer version 1.4.5")
    program, problems = apptainer.find()
    assert (Path(program.path).name, problems) == ("apptainer", [])
