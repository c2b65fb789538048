"""The user who builds: what this machine permits, and the prefix that a build command needs.

An image's files belong to root and other users, so a build needs root, or a user namespace in which
the user appears as root. Apptainer's errors about missing permissions are hard to act on; the
problems found here come before the build and say what to change.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nsynth_super.base.errors import Problem

IDS = 65_536  # user and group ids of a Linux system: an image's files may belong to any of them
USER_NAMESPACE = (
    "unshare",
    "-U",
    f"--map-users=0,0,{IDS}",
    f"--map-groups=0,0,{IDS}",
    "-m",
)
"""Give root all capabilities: in a container or a micro-VM it may lack some."""

_PACKAGES = {"unshare": "util-linux", "newuidmap": "uidmap", "newgidmap": "uidmap"}
_RANGES = ("etc/subuid", "etc/subgid")


@dataclass(frozen=True)
class Builder:
    """A user on a machine.

    Attributes
    ----------
    uid : int
    name : str
        As in /etc/subuid.
    root : Path
        The folder that holds /etc and /proc; tests name another than /.
    """

    uid: int
    name: str
    root: Path = Path("/")

    @classmethod
    def me(cls) -> Builder:
        """Return the user of this process."""
        uid = os.geteuid()
        try:
            return cls(uid, pwd.getpwuid(uid).pw_name)
        except KeyError:
            return cls(uid, str(uid))

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words to put before a command that builds or tests an image.

        Root without all capabilities gets a user namespace, if it can make one; otherwise the
        command runs as it is, for those who build in spite of the problems found.
        """
        return USER_NAMESPACE if self.is_limited_root and not self._namespace_problems else ()

    @cached_property
    def is_limited_root(self) -> bool:
        """Whether this is root without all of the kernel's capabilities."""
        return self.uid == 0 and not self._has_all_capabilities()

    def problems(self, setuid: bool) -> list[Problem]:
        """Return what prevents this user from building.

        Parameters
        ----------
        setuid : bool
            Whether Apptainer was installed setuid.
        """
        if self.uid == 0:
            return self._namespace_problems if self.is_limited_root else []
        return self._kernel_problems(setuid) + self._user_problems()

    def problems_with_running(self, setuid: bool) -> list[Problem]:
        """Return what prevents this user from running an image file, as its test does."""
        device = self.root / "dev/fuse"
        if self.uid == 0 or setuid or os.access(device, os.R_OK | os.W_OK):
            return []
        what = f"{self.name} cannot open it, so the image cannot be mounted for its test"
        fix = "have an administrator run `chmod 666 /dev/fuse`, or build with --no-test"
        return [Problem("/dev/fuse", what, fix)]

    @cached_property
    def _namespace_problems(self) -> list[Problem]:
        """What prevents root from making a user namespace with all ids."""
        found = self._missing_programs(*_PACKAGES) + [
            Problem(
                f"/{file}",
                f"assigns {self.name} no range from 0 to {IDS - 1}; root lacks capabilities that "
                "Apptainer needs here and must build in a user namespace",
                f"echo {self.name}:0:{IDS} >>/{file}",
            )
            for file in _RANGES
            if not any(first == 0 and count >= IDS for first, count in self._ranges(file))
        ]
        if not found:
            tried = subprocess.run(
                [*USER_NAMESPACE, "true"], capture_output=True, text=True, check=False
            )
            if tried.returncode:
                what = f"fails on this machine ({tried.stderr.strip()})"
                fix = "build on another machine, or as root with all capabilities"
                found.append(Problem(f"`{' '.join(USER_NAMESPACE)}`", what, fix))
        return found

    def _user_problems(self) -> list[Problem]:
        """Require ranges of ids, or fakeroot as a fallback."""
        lacking = [file for file in _RANGES if not any(self._ranges(file))]
        if not lacking:
            return self._missing_programs("newuidmap", "newgidmap")
        if shutil.which("fakeroot"):
            return []
        ids = "100000-165535"
        command = f"usermod --add-subuids {ids} --add-subgids {ids} {self.name}"
        return [
            Problem(
                " and ".join(f"/{file}" for file in lacking),
                f"assigns {self.name} no range of ids, and fakeroot is not installed either",
                f"have an administrator run `{command}`, or install fakeroot",
            )
        ]

    def _kernel_problems(self, setuid: bool) -> list[Problem]:
        """Check the three kernel settings that can disable unprivileged user namespaces."""
        switches = [("user/max_user_namespaces", "0", "15000")]
        if not setuid:
            switches.append(("kernel/unprivileged_userns_clone", "0", "1"))
            if not (self.root / "etc/apparmor.d/apptainer").exists():  # the package's own exception
                switches.append(("kernel/apparmor_restrict_unprivileged_userns", "1", "0"))
        return [
            Problem(
                switch.replace("/", "."),
                f"is {closed}: unprivileged user namespaces are disabled",
                f"have an administrator run `sysctl -w {switch.replace('/', '.')}={opened}`, or "
                "install Apptainer from its own package (apptainer-suid works without them)",
            )
            for switch, closed, opened in switches
            if self._read(f"proc/sys/{switch}").strip() == closed
        ]

    def _missing_programs(self, *names: str) -> list[Problem]:
        return [
            Problem(name, "is needed and not on the PATH", f"apt install {_PACKAGES[name]}")
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
        """Return (first id, count) of each range that a file assigns to this user."""
        entries = [line.split(":") for line in self._read(file).split()]
        mine = (self.name, str(self.uid))
        return [(int(e[1]), int(e[2])) for e in entries if len(e) == 3 and e[0] in mine]

    def _read(self, file: str) -> str:
        try:
            return (self.root / file).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
