"""build.py up to the start of a build; Apptainer is a fake."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from image_build import apptainer, definition
from image_build.builder import Builder
from image_build.image import Image
from nsynth_super import __version__

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden" / "build-commands.txt"


def build(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    # A closed port: tests use no server but their own.
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


def revision() -> str:
    """Return what git says of this checkout; `unknown` without git, or outside a clone."""
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def without_paths(commands: str, program: Path, here: Path) -> str:
    """Return commands with this machine's paths and versions replaced by names."""
    names = {
        str(program): "@apptainer@",
        str(here): "@here@",
        str(REPOSITORY): "@repository@",
        f"REVISION={revision()}": "REVISION=@revision@",
        f"VERSION={__version__}": "VERSION=@version@",
    }
    lines = []
    for line in commands.splitlines():
        words = shlex.split(line)  # a path with a space is quoted
        for value, name in names.items():
            words = [word.replace(value, name) for word in words]
        lines.append(re.sub(r"@(\w+)@", r"<\1>", shlex.join(words)) + "\n")
    prefix = "".join(f"{word} " for word in Builder.me().prefix)
    return "".join(lines).replace(f"{prefix}<apptainer>", "<apptainer>")


def test_the_commands_match_the_golden_file(fake: Callable[..., Path], tmp_path: Path) -> None:
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
        printed += f"# {title}\n{without_paths(done.stdout, program, tmp_path)}"
    assert printed == GOLDEN.read_text()
    assert not list(tmp_path.rglob("*.part"))


def test_singularity_gets_fakeroot_for_an_ordinary_user(tmp_path: Path) -> None:
    for family, uid, told in (("apptainer", 7, 0), ("singularity", 7, 1), ("singularity", 0, 0)):
        program = apptainer.Program("it", family)
        recipe = definition.Definition(tmp_path / "a.def")
        image = Image(recipe, {}, tmp_path / "a.sif", False, True, (), program, Builder(uid, "me"))
        assert image.build_command().count("--fakeroot") == told


def test_all_problems_are_reported_at_once(fake: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "cut.tar").write_bytes(b"x" * 1000)
    words = ["--output", "out", "--checkpoint", "cut.tar", "--build-arg", "TROCH=2.8.0"]
    words += ["--build-arg", "BOOTSTRAP=localimage", "--build-arg", "BASE=/nowhere"]
    done = build(*words, cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    for begins in ("apptainer", "--build-arg TROCH", "/nowhere", f"{tmp_path}/out"):
        assert any(line.startswith(f"error: {begins}: ") for line in lines), begins
    assert any("is truncated or damaged" in line for line in lines)
    assert all(" -> " in line for line in lines)

    fake("apptainer")
    done = build(*words, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "note: --build-arg TROCH" in done.stderr


@pytest.mark.parametrize("newuidmap", ["installed", "missing"])
def test_anyway_starts_the_build_despite_problems(
    fake: Callable[..., Path], tmp_path: Path, newuidmap: str
) -> None:
    if newuidmap == "missing":
        (tmp_path / "others" / "newuidmap").unlink(missing_ok=True)
    program = fake("apptainer")
    words = ["--output", "other.sif", "--checkpoint", "cut.tar"]
    done = build(*words, "--anyway", cwd=tmp_path)
    assert done.returncode == 1  # the build starts, and the fake fails
    assert done.stderr.splitlines()[-1] == (
        f"error: {tmp_path}/other.sif: the build failed (exit 3) -> see the output above"
    )
    assert f"{program} build " in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--build-arg", "TORCH"],
        ["--build-arg", "=2.8.0"],
        ["--output", "a.sif", "--sandbox", "b"],
        ["--checkpoint", "a.tar", "--build-arg", "CHECKPOINT=b.tar"],
    ],
)
def test_contradictory_options_are_refused(tmp_path: Path, words: list[str]) -> None:
    done = build(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Error: " in done.stderr
