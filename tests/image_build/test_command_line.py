"""build.py up to the point where it would build; Apptainer is a fake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from building import apptainer, definition
from building.builder import Builder
from building.image import Image
from nsynth_super import __version__

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "build-commands.txt"


def build(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Nobody answers there: no test asks a server of the world.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "build.py"), *map(str, words)],
        cwd=cwd,
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_commands_are_those_that_were_agreed_on(
    fake: Callable[..., Path], tmp_path: Path
) -> None:
    program = fake("apptainer")
    (tmp_path / "mine.tar").write_bytes(b"")
    plain = build("--dry-run", cwd=tmp_path)
    fake("nvidia-smi")
    options = ["--build-arg", "TORCH=2.8.0", "--build-arg", "PIP_ARGS=--index-url a,b"]
    options += ["--build-arg", "REVISION=mine", "--checkpoint", "mine.tar"]
    options += ["--bind", "/wheels:/mnt", "--bind", "/certificates"]
    every = build("--dry-run", "--output", "other.sif", *options, cwd=tmp_path)
    box = build("--dry-run", "--sandbox", "box/", "--no-test", cwd=tmp_path)
    printed = ""
    for title, done in (("defaults", plain), ("everything", every), ("sandbox", box)):
        assert done.returncode == 0, done.stderr
        printed += f"# {title}\n{done.stdout}"
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    for found, name in (
        (" ".join((*Builder.me().before, str(program))), "<apptainer>"),
        (str(tmp_path), "<here>"),
        (str(REPOSITORY), "<repository>"),
        (f"REVISION={revision or 'unknown'}", "REVISION=<revision>"),
        (f"VERSION={__version__}", "VERSION=<version>"),
    ):
        printed = printed.replace(found, name)
    assert printed == GOLDEN.read_text()
    assert not list(tmp_path.rglob("*.part"))


def test_singularity_is_told_that_an_ordinary_user_needs_fakeroot(tmp_path: Path) -> None:
    for family, uid, told in (("apptainer", 7, 0), ("singularity", 7, 1), ("singularity", 0, 0)):
        program = apptainer.Program("it", family)
        recipe = definition.Definition(tmp_path / "a.def")
        image = Image(recipe, {}, tmp_path / "a.sif", False, True, (), program, Builder(uid, "me"))
        assert image.build_command().count("--fakeroot") == told


def test_everything_that_is_wrong_is_said_at_once(
    fake: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "cut.tar").write_bytes(b"x" * 1000)
    words = ["--output", "out", "--checkpoint", "cut.tar", "--build-arg", "TROCH=2.8.0"]
    words += ["--build-arg", "BOOTSTRAP=localimage", "--build-arg", "BASE=/nowhere"]
    done = build(*words, cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    for begins in ("apptainer", "--build-arg TROCH", "/nowhere", f"{tmp_path}/out"):
        assert any(line.startswith(f"error: {begins}: ") for line in lines), begins
    assert any("is no whole .tar" in line for line in lines)
    assert all(" -> " in line for line in lines)

    fake("apptainer")
    done = build(*words, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "note: --build-arg TROCH" in done.stderr
    words[1] = "other.sif"
    done = build(*words, "--anyway", cwd=tmp_path)
    assert done.returncode == 1  # it went on, and the fake fails at everything
    assert "the build failed (exit 3)" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--build-arg", "TORCH"],
        ["--build-arg", "=2.8.0"],
        ["--output", "a.sif", "--sandbox", "b"],
        ["--checkpoint", "a.tar", "--build-arg", "CHECKPOINT=b.tar"],
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, words: list[str]) -> None:
    done = build(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Error: " in done.stderr
