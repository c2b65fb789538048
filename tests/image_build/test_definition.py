"""Arguments and local files of a definition file."""

from __future__ import annotations

from pathlib import Path

import pytest

from image_build import definition
from nsynth_super.base.errors import BadInput

REPOSITORY = Path(__file__).parents[2]


def test_our_definition_is_parsed() -> None:
    ours = definition.read(REPOSITORY / "Singularity.def")
    assert {"BASE", "TORCH", "CHECKPOINT", "CHECKPOINT_URL", "CUDA10"} <= set(ours.arguments)
    assert ours.arguments["BASE"] == "debian:12-slim"
    assert [header["stage"] for header in ours.headers] == ["cuda", "build", "image"]
    assert "{{CHECKPOINT}}" in ours.copied
    assert ours.problems({}) == []


def test_arguments_are_substituted_in_other_arguments_and_paths(tmp_path: Path) -> None:
    (tmp_path / "a.def").write_text(
        "Bootstrap: {{ KIND }}\nFrom: {{ BASE }}\n"
        "%arguments\n  # a comment\n  KIND=docker\n  BASE={{ ROOT }}/base\n  ROOT=/nowhere\n"
        "%files\n  {{ ROOT }}/*.txt /there\n%files from before\n  /not/here\n"
    )
    recipe = definition.read(tmp_path / "a.def")
    assert [p.where for p in recipe.problems({})] == ["/nowhere/*.txt"]
    local = {"KIND": "localimage", "ROOT": str(tmp_path)}
    assert [p.where for p in recipe.problems(local)] == [
        f"{tmp_path}/base",
        f"{tmp_path}/*.txt",
    ]
    (tmp_path / "base").mkdir()
    (tmp_path / "b.txt").write_text("")
    assert recipe.problems(local) == []


def test_a_missing_definition_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        definition.read(tmp_path / "none.def")
