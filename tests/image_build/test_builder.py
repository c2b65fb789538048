"""Who may build, on machines that are a folder of what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from building.builder import IDS, Builder

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


def test_a_user_who_cannot_mount_an_image_is_told_before_it_is_to_be_tested(tmp_path: Path) -> None:
    me = Builder(7, "me", machine(tmp_path, **SUBIDS))
    (problem,) = me.problems_with_running(setuid=False)
    assert problem.where == "/dev/fuse"
    assert me.problems_with_running(setuid=True) == []
    machine(tmp_path, dev__fuse="")
    assert me.problems_with_running(setuid=False) == []


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
