"""Who can build, on machines that are a folder with files of /etc and /proc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from image_build.builder import IDS, Builder

ALL, LESS = "000001ffffffffff", "000001fffeffffff"


def machine(root: Path, capabilities: str = ALL, **files: str) -> Path:
    """Write files of /etc and /proc; `__` in a name stands for `/`."""
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
        ({**SUBIDS, "etc__subgid": ""}, False, ["/etc/subgid: assigns me no range"]),
        ({}, True, ["/etc/subuid and /etc/subgid: assigns me no range"]),
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
def test_an_ordinary_user_is_told_what_an_administrator_must_change(
    fake: Callable[..., Path], tmp_path: Path, files: dict[str, str], setuid: bool, wrong: list[str]
) -> None:
    fake("newuidmap")
    fake("newgidmap")
    me = Builder(7, "me", machine(tmp_path / "machine", **files))
    problems = me.problems(setuid)
    assert me.prefix == ()
    assert len(problems) == len(wrong)
    for problem, begins in zip(problems, wrong, strict=True):
        assert str(problem).startswith(begins)
        assert "have an administrator run" in problem.fix


def test_a_user_who_cannot_mount_an_image_is_told_before_its_test(tmp_path: Path) -> None:
    me = Builder(7, "me", machine(tmp_path, **SUBIDS))
    (problem,) = me.problems_with_running(setuid=False)
    assert problem.where == "/dev/fuse"
    assert me.problems_with_running(setuid=True) == []
    machine(tmp_path, dev__fuse="")
    assert me.problems_with_running(setuid=False) == []


def test_fakeroot_replaces_ranges_of_ids(fake: Callable[..., Path], tmp_path: Path) -> None:
    fake("fakeroot")
    assert Builder(7, "me", machine(tmp_path / "machine")).problems(False) == []


def test_ranges_need_newuidmap_and_newgidmap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    me = Builder(7, "me", machine(tmp_path / "machine", **SUBIDS))
    assert [p.where for p in me.problems(False)] == ["newuidmap", "newgidmap"]


def test_root_with_all_capabilities_has_no_problems(tmp_path: Path) -> None:
    root = Builder(0, "root", machine(tmp_path))
    assert (root.prefix, root.problems(False)) == ((), [])


ROOT_RANGES = {"etc__subuid": f"root:0:{IDS}", "etc__subgid": f"root:0:{IDS}"}


def test_root_that_lacks_a_capability_builds_in_a_namespace(
    fake: Callable[..., Path], tmp_path: Path
) -> None:
    for program in ("unshare", "newuidmap", "newgidmap"):
        fake(program, exit_code=0)
    root = Builder(0, "root", machine(tmp_path / "machine", LESS, **ROOT_RANGES))
    assert root.problems(False) == []
    assert root.prefix[0] == "unshare"


def test_root_without_ranges_is_shown_how_to_add_them(tmp_path: Path) -> None:
    root = Builder(0, "root", machine(tmp_path, LESS))
    assert [(p.where, p.fix) for p in root.problems(False) if p.where.startswith("/etc")] == [
        (f"/etc/{file}", f"echo root:0:{IDS} >>/etc/{file}") for file in ("subuid", "subgid")
    ]


def test_without_newuidmap_a_command_runs_outside_a_namespace(
    fake: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "others" / "newuidmap").unlink(missing_ok=True)
    root = Builder(0, "root", machine(tmp_path / "machine", LESS, **ROOT_RANGES))
    assert "newuidmap" in [problem.where for problem in root.problems(False)]
    assert root.prefix == ()


def test_a_namespace_that_fails_is_reported_with_the_reason(
    fake: Callable[..., Path], tmp_path: Path
) -> None:
    for program in ("unshare", "newuidmap", "newgidmap"):
        fake(program)
    root = Builder(0, "root", machine(tmp_path / "machine", LESS, **ROOT_RANGES))
    (problem,) = root.problems(False)
    assert "fails on this machine (a fake failure)" in problem.what
    assert root.prefix == ()
