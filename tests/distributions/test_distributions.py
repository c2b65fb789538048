"""The sdist and the wheel: built from the tracked files, compared with them, installed and run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "nsynth_super"
DOCUMENTS = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}
"""What the sdist holds beside the package."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The repository's files, without what an earlier build or run left there."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a clone, to know which files belong to the project")
    words = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def sdist(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built from a copy of the tracked files."""
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    return build("sdist", source, folder / "dist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the unpacked source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.unpack_archive(sdist, folder)
    return build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder / "dist")


def build(kind: str, source: Path, out: Path) -> Path:
    """Call pyproject.toml's build backend, with the setuptools that is installed."""
    out.mkdir()
    code = f"import sys; from setuptools import build_meta as b; b.build_{kind}(sys.argv[1])"
    words = [sys.executable, "-I", "-c", code, str(out)]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def test_the_sdist_holds_the_package_and_its_documents(sdist: Path, tracked: list[str]):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    generated = {name for name in names if name.startswith(f"{PACKAGE}.egg-info/")}
    package = {name for name in tracked if name.startswith(f"{PACKAGE}/")}
    assert names - generated == package | DOCUMENTS | {"PKG-INFO", "setup.cfg"}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path, tracked: list[str]):
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {name for name in tracked if name.startswith(f"{PACKAGE}/")}


def test_the_installed_wheel_makes_the_demo_away_from_the_checkout(wheel: Path, tmp_path: Path):
    environment = tmp_path / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python3*/site-packages")
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "shared.pth").write_text("\n".join(shared))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    variables = {**os.environ, "PYTHONPATH": "", "NSYNTH_CACHE": str(tmp_path / "cache")}

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            words, cwd=elsewhere, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run(python, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    out = run(environment / "bin" / "nsynth-super", "demo", "my demo")
    assert f"{environment}/bin/nsynth-super preview -w 'my demo'\n" in out
    made = elsewhere / "my demo"
    pad = made / "pads_output" / "clarinet_marimba_cello_electricpiano.bin"
    assert pad.stat().st_size == 2_400_000
    assert len(list((made / "wav").glob("*.wav"))) == 75
    assert "<canvas" in (made / "pad.html").read_text(encoding="utf-8")
    run(
        environment / "bin" / "nsynth-super",
        "check",
        "-w",
        "my demo",
        "--checkpoint",
        "demo",
        "--plots",
    )
    assert (made / "check.html").stat().st_size > 100_000
