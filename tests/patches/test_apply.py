"""`patches/apply` applies all patches or none, once, without stale .pyc files; their format."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.patches.magentas import (
    APPLY,
    FILES,
    LACKING,
    ORACLE,
    PATCHED,
    PATCHES,
    PY27,
    apply,
    copy_magenta,
    empty_init,
)

GENERATE = "models/nsynth/wavenet/nsynth_generate.py"


def needs_python27(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs Magenta's Python 2.7, and skip it where there is none."""
    return pytest.mark.oracle(pytest.mark.skipif(not PY27.exists(), reason=LACKING)(test))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Magenta as in its wheel."""
    return copy_magenta(tmp_path / "site")


def contents(package: Path) -> dict[str, bytes]:
    """Return all files of the package and next to it."""
    site = package.parent
    files = (path for path in site.rglob("*") if path.is_file())
    return {str(path.relative_to(site)): path.read_bytes() for path in files}


def is_refused(done: subprocess.CompletedProcess[str], why: str) -> bool:
    """Return whether the script failed with one line that contains the reason."""
    (line,) = done.stderr.splitlines()
    return (
        done.returncode == 1
        and not done.stdout
        and line.startswith("patches/apply: ")
        and why in line
        and line.endswith("; nothing was changed")
    )


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@needs_python27
@pytest.mark.parametrize("init", ["published", "emptied"])
def test_a_second_run_changes_nothing(package: Path, init: str):
    if init == "emptied":
        empty_init(package)
    first = apply(package)
    assert (first.returncode, first.stdout) == (0, f"{package} is now patched\n")
    once = contents(package)
    assert any(name.endswith("nsynth_generate.pyc") for name in once)
    assert list(package.parent.iterdir()) == [package]
    second = apply(package)
    assert (second.returncode, second.stdout) == (0, f"{package} is already patched\n")
    assert contents(package) == once
    assert ((package / "__init__.py").read_bytes() == b"") == (init == "emptied")


@needs_python27
def test_another_version_is_rejected(package: Path):
    version = package / "version.py"
    version.write_text(version.read_text().replace("1.1.7", "1.1.8"))
    before = contents(package)
    assert is_refused(apply(package), f"{package} is not Magenta 1.1.7")
    assert contents(package) == before


@needs_python27
def test_a_modified_magenta_is_rejected_and_unchanged(package: Path):
    generate = package / GENERATE
    generate.write_text(generate.read_text().replace("sample_length=sample_length)", "125)"))
    before = contents(package)
    assert is_refused(apply(package), "0001-npy-encodings-as-long-as-they-are.patch does not fit")
    assert contents(package) == before


@needs_python27
def test_a_magenta_with_some_of_the_patches_is_rejected_and_unchanged(
    package: Path, tmp_path: Path
):
    patch = FILES[5]
    with patch.open() as text:
        subprocess.run(["patch", "-p1", "--silent"], stdin=text, cwd=package.parent, check=True)
    before = contents(package)
    assert is_refused(apply(package), f"{patch.name} does not fit")
    assert contents(package) == before


@needs_python27
def test_a_python_without_magenta_is_rejected(tmp_path: Path):
    missing = apply(tmp_path / "none", PY27.with_name("no-such-python"))
    assert is_refused(missing, "is not a Python 2.7")
    elsewhere = tmp_path / "elsewhere" / "magenta"
    bare = Path("/usr/bin/python2.7")
    if bare.exists():
        assert is_refused(apply(elsewhere, bare), "is not a Python 2.7 with Magenta")


@pytest.mark.skipif(not shutil.which("patch"), reason="the program 'patch' is not installed")
def test_a_python_3_is_rejected(tmp_path: Path):
    (tmp_path / "magenta").mkdir()
    (tmp_path / "magenta" / "__init__.py").touch()
    done = apply(tmp_path / "magenta", Path(sys.executable))
    assert is_refused(done, "is not a Python 2.7 with Magenta")


@needs_python27
def test_a_failed_rename_leaves_the_package_unchanged(package: Path, tmp_path: Path):
    before = contents(package)
    commands = tmp_path / "commands"
    commands.mkdir()
    executable(
        commands / "mv",
        '#!/bin/sh\ncase $1 in *.patching.*/magenta) exit 1;; esac\nexec /bin/mv "$@"\n',
    )
    done = apply(package, PATH=f"{commands}:/usr/bin:/bin")
    assert done.returncode == 1
    assert contents(package) == before


@needs_python27
@pytest.mark.parametrize("script", ["as it is", "without the deletion"])
def test_a_stale_compiled_file_of_the_same_second_is_not_used(
    package: Path, tmp_path: Path, script: str
):
    # Python 2 compares the source's time with the one in the .pyc, in seconds. This fake Python
    # gives the patched source the time that is in the .pyc of the unpatched one.
    source, second = package / GENERATE, 1_600_000_000
    subprocess.run([PY27, "-m", "py_compile", source], check=True)
    compiled = source.with_suffix(".pyc")
    data = compiled.read_bytes()
    compiled.write_bytes(data[:4] + struct.pack("<I", second) + data[8:])
    python = executable(
        tmp_path / "python",
        f'#!/bin/sh\n[ "$2" != compileall ] || touch -d @{second} {source}\nexec {PY27} "$@"\n',
    )
    if script == "as it is":
        done = apply(package, python)
    else:
        patches = tmp_path / "patches"
        patches.mkdir()
        for path in FILES:
            (patches / path.name).write_bytes(path.read_bytes())
        lines = APPLY.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("find ")]
        assert len(kept) == len(lines) - 1
        done = apply(package, python, executable(patches / "apply", "".join(kept)))
    assert done.returncode == 0, done.stderr
    assert "samples_per_save" in source.read_text()
    assert (b"samples_per_save" in compiled.read_bytes()) == (script == "as it is")


@needs_python27
def test_the_oracles_patched_magenta_has_these_patches(package: Path):
    assert apply(package).returncode == 0
    code = "import magenta; print(magenta.__path__[0])"
    ran = subprocess.run([PATCHED, "-c", code], capture_output=True, text=True, check=True)
    patched = Path(ran.stdout.strip())
    assert patched.is_relative_to(ORACLE / "patched")
    for source in package.rglob("*.py"):
        theirs = patched / source.relative_to(package)
        assert theirs.read_bytes() == source.read_bytes(), f"run tests/oracle/setup: {theirs}"
    ran = subprocess.run([PY27, "-c", code], capture_output=True, text=True, check=True)
    assert "samples_per_save" not in (Path(ran.stdout.strip()) / GENERATE).read_text()


@pytest.mark.parametrize("patch", FILES, ids=lambda patch: patch.name[:4])
def test_a_patch_has_a_description_quotes_little_and_marks_the_files_it_changes(patch: Path):
    head, *files = re.split(r"(?m)^(?=--- )", patch.read_text())
    assert 2 <= len(head.splitlines()) <= 12
    quoted = added = 0
    for file in files:
        lines = file.splitlines()[2:]
        ours = [line for line in lines if line.startswith("+")]
        quoted += sum(line[0] in " -" for line in lines)
        added += len(ours)
        # The licence requires a notice in each changed file.
        assert any(f"# nsynth-super patch {patch.name[:4]}:" in line for line in ours)
    assert quoted <= 6
    assert added <= 20


def test_the_readme_lists_each_patch():
    rows = re.findall(r"(?m)^\| \[(\S+)\]\((\S+)\)", (PATCHES / "README.md").read_text())
    assert rows == [(file.name.removesuffix(".patch")[:4], file.name) for file in FILES]
