"""What build.py finds wrong before it builds, and the commands that it would run.

Here Apptainer is a fake where it says so: no machine has every version, and nobody waits for an
image. The real one is in test_build.py.
"""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from building import apptainer, definition, room, weights
from building.builder import IDS, Builder
from nsynth_super import __version__
from nsynth_super.problems import BadInput
from nsynth_super.wavenet.magenta_format import DATA, INDEX, PUBLISHED_BYTES, PUBLISHED_NAME

REPOSITORY = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "build-commands.txt"
FAKE = """\
#!/bin/sh
# A fake, for tests: says its version, and fails at everything else.
[ "$1" = --version ] && echo "{version}" && exit
echo "no room for another" >&2
exit 3
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that puts a fake program onto a PATH of few others."""
    fakes, others = tmp_path / "fakes", tmp_path / "others"
    fakes.mkdir()
    others.mkdir()
    for program in ("sh", "git", "true", "unshare", "newuidmap", "newgidmap"):
        if found := shutil.which(program):
            (others / program).symlink_to(found)
    monkeypatch.setenv("PATH", f"{fakes}:{others}")

    def make(name: str, version: str = "apptainer version 1.4.5") -> Path:
        (fakes / name).write_text(FAKE.format(version=version))  # no link is ever in here
        (fakes / name).chmod(0o755)
        return fakes / name

    return make


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


# --- the program ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version", "refused"),
    [
        ("apptainer", "apptainer version 1.4.5", None),
        ("apptainer", "apptainer version 1.2.0-1.el9", None),
        ("apptainer", "apptainer version 2.0.1+14-gab12cd3", None),
        ("singularity", "apptainer version 1.4.5-1.el9", None),
        ("singularity", "singularity-ce version 4.1.1", None),
        ("singularity", "singularity-ce version 4.0.0-jammy", None),
        ("apptainer", "apptainer version 1.1.9", "knows no %arguments"),
        ("singularity", "singularity-ce version 3.11.5", "knows no %arguments"),
        ("singularity", "singularity version 3.8.7-1", "knows no %arguments"),
        ("singularity", "singularity version 2.6.1-dist", "knows no %arguments"),
        ("apptainer", "2.6.1-dist", "names no version"),
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


def test_no_program_is_said_with_where_to_get_one(fake: Callable[..., Path]) -> None:
    _, (problem,) = apptainer.find()
    assert "neither it nor singularity is on the PATH" in str(problem)


def test_apptainer_is_asked_itself_though_singularity_is_another_program(
    fake: Callable[..., Path],
) -> None:
    fake("singularity", "singularity version 3.8.7")
    fake("apptainer", "apptainer version 1.4.5")
    program, problems = apptainer.find()
    assert (Path(program.path).name, problems) == ("apptainer", [])


# --- the commands --------------------------------------------------------------------------------


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
    from building.image import Image

    for family, uid, told in (("apptainer", 7, 0), ("singularity", 7, 1), ("singularity", 0, 0)):
        program = apptainer.Program("it", family)
        recipe = definition.Definition(tmp_path / "a.def")
        image = Image(recipe, {}, tmp_path / "a.sif", False, (), program, Builder(uid, "me"))
        assert image.build_command().count("--fakeroot") == told


# --- who builds ----------------------------------------------------------------------------------

ALL, LESS = "000001ffffffffff", "000001fffeffffff"


def machine(root: Path, capabilities: str = ALL, **files: str) -> Path:
    """Make what a machine says of itself in /etc and /proc; `__` in a name stands for `/`."""
    files = {
        "proc__self__status": f"Name:\tpython\nCapPrm:\t{capabilities}\n",
        "proc__sys__kernel__cap_last_cap": "40\n",
        **files,
    }
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


SUBIDS = {"etc__subuid": "you:1:2\nme:100000:65536\n", "etc__subgid": "me:100000:65536\n"}


@pytest.mark.parametrize(
    ("files", "setuid", "wrong"),
    [
        (SUBIDS, False, []),
        ({**SUBIDS, "etc__subgid": ""}, False, ["/etc/subgid: gives me no range"]),
        ({}, True, ["/etc/subuid and /etc/subgid: gives me no range"]),
        ({"etc__subuid": "7:1:65536", "etc__subgid": "7:1:65536"}, False, []),
        ({**SUBIDS, "proc__sys__user__max_user_namespaces": "0\n"}, True, ["user.max_user_name"]),
        (
            {**SUBIDS, "proc__sys__kernel__unprivileged_userns_clone": "0\n"},
            False,
            ["kernel.unprivileged_userns_clone: is 0"],
        ),
        ({**SUBIDS, "proc__sys__kernel__unprivileged_userns_clone": "0\n"}, True, []),
        (
            {"proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1\n"},
            False,
            ["kernel.apparmor_restrict", "/etc/subuid and /etc/subgid"],
        ),
        (
            {
                **SUBIDS,
                "proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1\n",
                "etc__apparmor.d__apptainer": "",
            },
            False,
            [],
        ),
    ],
)
def test_an_ordinary_user_is_told_what_an_administrator_must_allow(
    fake: Callable[..., Path], tmp_path: Path, files: dict[str, str], setuid: bool, wrong: list[str]
) -> None:
    fake("newuidmap")
    fake("newgidmap")
    me = Builder(7, "me", machine(tmp_path / "machine", **files))
    problems = me.problems(setuid)
    assert me.before == ()
    assert len(problems) == len(wrong)
    for problem, begins in zip(problems, wrong, strict=True):
        assert str(problem).startswith(begins)
        assert "have an administrator run" in problem.fix


def test_fakeroot_does_for_a_user_without_ranges(fake: Callable[..., Path], tmp_path: Path) -> None:
    fake("fakeroot")
    assert Builder(7, "me", machine(tmp_path / "machine")).problems(False) == []


def test_ranges_need_the_programs_that_hand_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    me = Builder(7, "me", machine(tmp_path / "machine", **SUBIDS))
    assert [p.where for p in me.problems(False)] == ["newuidmap", "newgidmap"]


def test_root_with_every_capability_needs_nothing(tmp_path: Path) -> None:
    root = Builder(0, "root", machine(tmp_path))
    assert (root.before, root.problems(False)) == ((), [])


def test_root_that_lacks_a_capability_builds_in_a_namespace(tmp_path: Path) -> None:
    root = Builder(0, "root", machine(tmp_path, LESS))
    assert root.before[0] == "unshare"
    assert [(p.where, p.fix) for p in root.problems(False) if p.where.startswith("/etc")] == [
        (f"/etc/{file}", f"echo root:0:{IDS} >>/etc/{file}") for file in ("subuid", "subgid")
    ]


def test_a_namespace_that_fails_when_tried_is_said_with_its_reason(
    fake: Callable[..., Path], tmp_path: Path
) -> None:
    fake("unshare")
    fake("newuidmap")
    fake("newgidmap")
    ranges = {"etc__subuid": f"root:0:{IDS}", "etc__subgid": f"root:0:{IDS}"}
    (problem,) = Builder(0, "root", machine(tmp_path / "m", LESS, **ranges)).problems(False)
    assert "does not work here (no room for another)" in problem.what


# --- room ----------------------------------------------------------------------------------------

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


# --- the checkpoint ------------------------------------------------------------------------------


def published_tar(path: Path) -> Path:
    """Make a .tar of the published checkpoint's sizes, all of it a hole in the file."""
    with path.open("wb") as file:
        for ending, size in PUBLISHED_BYTES.items():
            member = tarfile.TarInfo(f"wavenet-ckpt/{PUBLISHED_NAME}{ending}")
            member.size = size
            file.write(member.tobuf())
            file.seek(-(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, os.SEEK_CUR)
        file.truncate(file.tell() + 2 * tarfile.BLOCKSIZE)
    return path


def wrong_with(checkpoint: Path, **values: str) -> list[str]:
    given = {"CHECKPOINT": str(checkpoint), "CHECKPOINT_SHA256": "any", **values}
    return [f"{p.level}: {p}" for p in weights.problems(given, Path("/"))]


def test_a_whole_checkpoint_at_hand_is_fine_in_any_form(tmp_path: Path) -> None:
    tar = published_tar(tmp_path / "a.tar")
    save_file({"a": np.zeros(3)}, tmp_path / "b.safetensors")
    (tmp_path / "folder" / "deeper").mkdir(parents=True)
    for ending in (INDEX, DATA):
        (tmp_path / "folder" / "deeper" / f"model{ending}").write_bytes(b"")
    for whole in (tar, tmp_path / "b.safetensors", tmp_path / "folder"):
        assert wrong_with(whole) == []


def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    tar = published_tar(tmp_path / "a.tar")
    os.truncate(tar, tar.stat().st_size // 2)
    assert "is no whole .tar (unexpected end of data)" in wrong_with(tar)[0]
    tar.write_text("<html>404 in disguise</html>")
    assert "is no whole .tar" in wrong_with(tar)[0]
    save_file({"a": np.zeros(300)}, tmp_path / "b.safetensors")
    os.truncate(tmp_path / "b.safetensors", 1000)
    assert "is no whole .safetensors" in wrong_with(tmp_path / "b.safetensors")[0]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"model{INDEX}").write_bytes(b"")
    assert "is missing beside its .index" in wrong_with(tmp_path / "folder")[0]
    assert "name the folder" in wrong_with(tmp_path / "folder" / f"model{INDEX}")[0]


def test_a_checkpoint_that_nobody_could_mean_is_refused(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    tar.write_bytes(b"")
    assert "not 00ff" in wrong_with(tar, CHECKPOINT_SHA256="00ff")[0]
    (tmp_path / "b.tar").symlink_to(tar)
    assert "holds several checkpoints: a.tar, b.tar" in wrong_with(tmp_path)[0]
    (tmp_path / "with space").mkdir()
    assert "has a space" in wrong_with(tmp_path / "with space")[0]
    (tmp_path / "c.txt").write_text("")
    assert "is no checkpoint" in wrong_with(tmp_path / "c.txt")[0]


def test_another_checkpoint_than_the_published_is_worth_a_word(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "mine.tar", "w") as tar:
        tar.add(__file__)
    assert wrong_with(tmp_path / "mine.tar")[0].startswith("warning: ")


class _Answers(http.server.BaseHTTPRequestHandler):
    """A server that promises as many bytes as its address says, and sends none."""

    def do_GET(self) -> None:
        promised = self.path.strip("/")
        self.send_response(404 if promised == "missing" else 200)
        if promised.isdigit():
            self.send_header("Content-Length", promised)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("993899520", None),
        ("1256", "error: .*: has 1 kB, and the checkpoint is 986.8 MB or more"),
        ("missing", "error: .*404 Client Error"),
        ("chunked", "warning: .*does not say how much"),
    ],
)
def test_the_address_of_the_checkpoint_is_asked_before_the_build(
    server: str, tmp_path: Path, path: str, says: str | None
) -> None:
    (tmp_path / "README.md").write_text("put it here")
    found = wrong_with(tmp_path, CHECKPOINT_URL=f"{server}/{path}")
    assert len(found) == (says is not None)
    for line in found:
        assert re.match(str(says), line)


def test_a_server_that_is_not_there_is_said_with_the_other_ways(tmp_path: Path) -> None:
    (line,) = wrong_with(tmp_path, CHECKPOINT_URL="http://127.0.0.1:9/wavenet-ckpt.tar")
    assert "Connection refused" in line
    assert "put wavenet-ckpt.tar into checkpoint/, or name one with --checkpoint" in line


# --- the definition, and all of it ---------------------------------------------------------------


def test_our_definition_is_read_as_apptainer_reads_it() -> None:
    ours = definition.read(REPOSITORY / "Singularity.def")
    assert {"BASE", "TORCH", "CHECKPOINT", "CHECKPOINT_URL", "CUDA10"} <= set(ours.arguments)
    assert ours.arguments["BASE"] == "debian:12-slim"
    assert [header["stage"] for header in ours.headers] == ["cuda", "build", "image"]
    assert "{{CHECKPOINT}}" in ours.copied
    assert ours.problems({}) == []


def test_arguments_are_put_in_where_others_name_them(tmp_path: Path) -> None:
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


def test_a_definition_that_is_not_there_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        definition.read(tmp_path / "none.def")


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
