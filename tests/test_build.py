"""build.py with the real Apptainer, on images of a megabyte that build in a second."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from image_build.builder import Builder
from nsynth_super import __version__

pytestmark = pytest.mark.process

BUILD = Path(__file__).parents[1] / "build.py"

TINY = """\
Bootstrap: localimage
From: {{{{ BASE }}}}

%arguments
    BASE={base}
    REVISION=unknown
    VERSION=unknown

%labels
    org.opencontainers.image.title tiny
    org.opencontainers.image.version {{{{ VERSION }}}}
    org.opencontainers.image.revision {{{{ REVISION }}}}
    nsynth.checkpoint.sha256 none
    nsynth.torch none
    {last_label}

%files
    note.txt /note.txt

%post
    {post}

%test
    set -e
    {test}
    cat /note.txt
"""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base system of three local programs, to build images without a network."""
    if shutil.which("apptainer") is None:
        pytest.skip("needs Apptainer: tests/cluster/setup installs it on Debian 12")
    me = Builder.me()
    if wrong := me.problems(False) + me.problems_with_running(False):
        pytest.skip(f"needs a user who can build: {wrong[0]}")
    root = tmp_path_factory.mktemp("base")
    for program in ("sh", "cat", "sleep"):
        found = shutil.which(program)
        assert found
        needed = subprocess.run(["ldd", found], capture_output=True, text=True, check=True).stdout
        for file in re.findall(r"/\S+", needed):
            _copy(Path(file), root / file.lstrip("/"))
        _copy(Path(found), root / "bin" / program)
    for folder in ("mnt", "etc", "tmp"):
        (root / folder).mkdir()
    return root


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file.resolve(), to)


class Workbench:
    """A folder with a definition, in which build.py runs."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder, self._base = folder, base
        self.output = folder / "tiny.sif"
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.seconds = f"300.{os.getpid()}{time.monotonic_ns()}"  # unique to this test
        (folder / "note.txt").write_text("the image's test ran\n")
        self.define()

    def define(
        self, post: str = "true", test: str = "true", last_label: str = "nsynth.magenta none"
    ) -> None:
        text = TINY.format(base=self._base, post=post, test=test, last_label=last_label)
        (self.folder / "tiny.def").write_text(text)

    def start(self, *words: object, **env: str) -> subprocess.Popen[str]:
        where = [] if "--sandbox" in words else ["--output", str(self.output)]
        definition = ["--definition", str(self.folder / "tiny.def")]
        return subprocess.Popen(
            [sys.executable, str(BUILD), *definition, *where, *map(str, words)],
            cwd=self.folder.parent,
            env={**os.environ, "APPTAINER_TMPDIR": str(self.scratch), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self, *words: object, **env: str) -> tuple[int, str, str]:
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def sleeping(self) -> list[int]:
        """Return the process ids of slow builds."""
        found = psutil.process_iter(["cmdline"])
        return [p.pid for p in found if p.info["cmdline"] == ["sleep", self.seconds]]

    def leftovers(self) -> list[str]:
        """Return the temporary files of builds."""
        return [str(f) for f in (*self.folder.glob("*.part"), *self.scratch.iterdir())]


@pytest.fixture
def bench(tmp_path: Path, base: Path) -> Workbench:
    folder = tmp_path / "bench"
    folder.mkdir()
    return Workbench(folder, base)


@pytest.fixture
def slow(bench: Workbench) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return a function that starts a build of five minutes, and waits until it runs."""
    started = []

    def start() -> subprocess.Popen[str]:
        bench.define(post=f"sleep {bench.seconds}")
        process = bench.start()
        started.append(process)
        while not bench.sleeping():
            assert process.poll() is None
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate()


def test_an_image_is_built_tested_once_and_named(bench: Workbench) -> None:
    code, out, err = bench.build()
    assert code == 0, err
    assert err.count("the image's test ran") == 1
    assert f"sha256 {hashlib.sha256(bench.output.read_bytes()).hexdigest()}\n" in out
    assert f"org.opencontainers.image.version {__version__}\n" in out
    assert re.search(r"^Next: .*run \S+tiny\.sif new my-pack$", out, re.MULTILINE)
    assert bench.leftovers() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"post": "false"}, r"the build failed \(exit \d+\)"),
        ({"test": "false"}, r"the test failed \(exit 1\)"),
        ({"last_label": "nsynth.other none"}, "no label nsynth.magenta"),
        ({"last_label": "org.opencontainers.image.revision another"}, "revision another, not "),
    ],
    ids=["post", "test", "label", "revision"],
)
def test_a_failed_build_leaves_the_old_image_unchanged(
    bench: Workbench, broken: dict[str, str], says: str
) -> None:
    bench.output.write_bytes(b"the old image")
    bench.define(**broken)
    code, out, err = bench.build()
    assert (code, out) == (1, "")
    assert re.search(says, err.splitlines()[-1])
    assert bench.output.read_bytes() == b"the old image"
    assert bench.leftovers() == []


@pytest.mark.slow
def test_no_test_builds_an_image_whose_test_would_fail(bench: Workbench) -> None:
    bench.define(test="false")
    code, _, err = bench.build("--no-test")
    assert code == 0, err
    assert bench.output.exists()


@pytest.mark.slow
def test_a_sandbox_is_a_folder_and_never_replaces_one(bench: Workbench) -> None:
    sandbox = bench.folder / "box"
    code, out, err = bench.build("--sandbox", sandbox)
    assert code == 0, err
    assert err.count("the image's test ran") == 1
    assert (sandbox / "note.txt").exists()
    assert "a sandbox\n" in out
    (sandbox / "note.txt").write_text("changed")
    code, _, err = bench.build("--sandbox", sandbox)
    assert code == 2
    assert "already exists" in err
    assert (sandbox / "note.txt").read_text() == "changed"
    assert bench.leftovers() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)]
)
def test_a_stopped_build_leaves_nothing_behind_and_nothing_running(
    bench: Workbench, slow: Callable[[], subprocess.Popen[str]], wanted: int, code: int
) -> None:
    bench.output.write_bytes(b"the old image")
    process = slow()
    process.send_signal(wanted)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.splitlines()[-1].endswith("run it again")
    assert bench.sleeping() == []
    assert bench.leftovers() == []
    assert bench.output.read_bytes() == b"the old image"


@pytest.mark.slow
def test_a_second_build_of_the_same_image_is_refused(
    bench: Workbench, slow: Callable[[], subprocess.Popen[str]]
) -> None:
    slow()
    code, _, err = bench.build()
    assert code == 1
    assert "another build of it runs" in err
    assert bench.sleeping()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_of_a_killed_build_are_replaced(bench: Workbench, kind: str) -> None:
    left = bench.output.with_name("tiny.sif.part")
    if kind == "file":
        left.write_bytes(b"half an image")
    else:
        (left / "rootfs").mkdir(parents=True)
    code, _, err = bench.build()
    assert code == 0, err
    assert bench.leftovers() == []


@pytest.mark.slow
def test_output_that_is_not_utf8_does_not_stop_a_build(bench: Workbench) -> None:
    bench.define(post=r"printf 'caf\351\n'; echo and on")
    code, _, err = bench.build()
    assert code == 0, err
    assert "and on\n" in err


def test_commas_and_quotes_in_an_argument_are_kept(bench: Workbench) -> None:
    code, out, err = bench.build("--build-arg", 'REVISION=a,b "c"')
    assert code == 0, err
    assert 'org.opencontainers.image.revision a,b "c"\n' in out


def test_a_folder_is_bound_during_the_build(bench: Workbench) -> None:
    bench.define(post="cat /mnt/note.txt")
    code, _, err = bench.build("--no-test", "--bind", f"{bench.folder}:/mnt")
    assert code == 0, err
    assert "the image's test ran" in err


@pytest.mark.slow
def test_apptainer_works_without_the_name_singularity(bench: Workbench) -> None:
    tools = bench.folder / "tools"
    tools.mkdir()
    for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/bin"):
        for program in Path(folder).iterdir():
            if program.name != "singularity" and not (tools / program.name).is_symlink():
                (tools / program.name).symlink_to(program)
    code, _, err = bench.build(PATH=str(tools))
    assert code == 0, err
    assert bench.output.exists()
