"""Whoever builds: what a user may do on this machine, and what a command needs in front of it.

An image's files belong to root and others, so a builder must be root, or seem to be: in a user
namespace. What Apptainer says when it may not make one is hard to act upon; this says it before.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nsynth_super.problems import Problem

IDS = 65_536  # users and groups of a Linux: an image's files may belong to any of them
IN_A_NAMESPACE = (
    "unshare",
    "-U",
    f"--map-users=0,0,{IDS}",
    f"--map-groups=0,0,{IDS}",
    "-m",
)
"""Root of a container or a micro-VM may lack a capability; in its own user namespace it has all."""

_PROGRAMS = {"unshare": "util-linux", "newuidmap": "uidmap", "newgidmap": "uidmap"}
_RANGES = ("etc/subuid", "etc/subgid")


@dataclass(frozen=True)
class Builder:
    """A user, on a machine.

    Attributes
    ----------
    uid : int
    name : str
        As /etc/subuid knows it.
    root : Path
        Where /etc and /proc are; elsewhere in tests.
    """

    uid: int
    name: str
    root: Path = Path("/")

    @classmethod
    def me(cls) -> Builder:
        """Return the user who runs this."""
        uid = os.geteuid()
        try:
            return cls(uid, pwd.getpwuid(uid).pw_name)
        except KeyError:
            return cls(uid, str(uid))

    @property
    def before(self) -> tuple[str, ...]:
        """What stands before a command that builds or tests, so that it has what it needs."""
        return IN_A_NAMESPACE if self.uid == 0 and not self._has_all_capabilities() else ()

    def problems(self, setuid: bool) -> list[Problem]:
        """Return what keeps this user from building.

        Parameters
        ----------
        setuid : bool
            Whether Apptainer was installed setuid.
        """
        if self.uid == 0:
            return self._of_a_lesser_root() if self.before else []
        return self._of_namespaces(setuid) + self._of_a_user()

    def problems_with_running(self, setuid: bool) -> list[Problem]:
        """Return what keeps this user from running a file of an image, as its test does."""
        device = self.root / "dev/fuse"
        if self.uid == 0 or setuid or os.access(device, os.R_OK | os.W_OK):
            return []
        what = f"{self.name} may not open it, and so cannot mount an image to test it"
        fix = "have an administrator run `chmod 666 /dev/fuse`, or build with --no-test"
        return [Problem("/dev/fuse", what, fix)]

    def _of_a_lesser_root(self) -> list[Problem]:
        found = self._of_programs(*_PROGRAMS) + [
            Problem(
                f"/{file}",
                f"gives {self.name} no range from 0 to {IDS - 1}, and this root lacks a capability "
                "that Apptainer asks for, so it must build in a user namespace",
                f"echo {self.name}:0:{IDS} >>/{file}",
            )
            for file in _RANGES
            if not any(first == 0 and count >= IDS for first, count in self._ranges(file))
        ]
        if not found:
            tried = subprocess.run(
                [*IN_A_NAMESPACE, "true"], capture_output=True, text=True, check=False
            )
            if tried.returncode:
                what = f"does not work here ({tried.stderr.strip()})"
                fix = "build on another machine, or as a root with all capabilities"
                found.append(Problem(f"`{' '.join(IN_A_NAMESPACE)}`", what, fix))
        return found

    def _of_a_user(self) -> list[Problem]:
        """Look for ranges of ids, which is best, or for fakeroot, which will do."""
        lacking = [file for file in _RANGES if not any(self._ranges(file))]
        if not lacking:
            return self._of_programs("newuidmap", "newgidmap")
        if shutil.which("fakeroot"):
            return []
        ids = "100000-165535"
        give = f"usermod --add-subuids {ids} --add-subgids {ids} {self.name}"
        return [
            Problem(
                " and ".join(f"/{file}" for file in lacking),
                f"gives {self.name} no range of ids to build with, and there is no fakeroot to do "
                "without",
                f"have an administrator run `{give}`, or install fakeroot",
            )
        ]

    def _of_namespaces(self, setuid: bool) -> list[Problem]:
        """Look at the three ways in which a kernel keeps users from making namespaces."""
        switches = [("user/max_user_namespaces", "0", "15000")]
        if not setuid:
            switches.append(("kernel/unprivileged_userns_clone", "0", "1"))
            if not (self.root / "etc/apparmor.d/apptainer").exists():  # its package's own leave
                switches.append(("kernel/apparmor_restrict_unprivileged_userns", "1", "0"))
        return [
            Problem(
                switch.replace("/", "."),
                f"is {closed}: the kernel lets no user make a user namespace",
                f"have an administrator run `sysctl -w {switch.replace('/', '.')}={opened}`, or "
                "install Apptainer from its own package (apptainer-suid needs no leave)",
            )
            for switch, closed, opened in switches
            if self._read(f"proc/sys/{switch}").strip() == closed
        ]

    def _of_programs(self, *names: str) -> list[Problem]:
        return [
            Problem(
                name, "is not on the PATH, and is needed here", f"apt install {_PROGRAMS[name]}"
            )
            for name in names
            if shutil.which(name) is None
        ]

    def _has_all_capabilities(self) -> bool:
        last = int(self._read("proc/sys/kernel/cap_last_cap") or 0)
        status = dict(
            line.split(":\t", 1) for line in self._read("proc/self/status").splitlines() if line
        )
        every = (1 << (last + 1)) - 1
        return int(status.get("CapPrm", "0"), 16) & every == every

    def _ranges(self, file: str) -> list[tuple[int, int]]:
        """Return (first id, how many) of each range that a file gives this user."""
        entries = [line.split(":") for line in self._read(file).split()]
        mine = (self.name, str(self.uid))
        return [(int(e[1]), int(e[2])) for e in entries if len(e) == 3 and e[0] in mine]

    def _read(self, file: str) -> str:
        try:
            return (self.root / file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
