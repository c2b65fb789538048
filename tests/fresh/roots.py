"""Run the README's two commands in bare systems, once for each kind of user.

`tests/fresh/run` builds the base system and runs this module. Each root is a copy of that system
with a checkout of HEAD and this machine's pip configuration; `make demo` and `make test` run in it
under chroot, in their own mount and process namespaces, on the machine's network. Like a container,
a chroot cannot create user namespaces, so these runs do not cover them.
"""

from __future__ import annotations

import argparse
import configparser
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from image_build.builder import USER_NAMESPACE, Builder

REPOSITORY = Path(__file__).resolve().parents[2]
FRESH = REPOSITORY / ".fresh"
BASE = FRESH / "base"
PIP_CACHE = Path("/var/cache/pip")
COMMANDS = ("make demo", "make test")
LOG_TAIL = 60  # lines of a failed root's log to print
USER = 1000  # uid and gid of `musician`, the user that tests/fresh/run adds to the base system

# Docker's default capabilities of a container's root.
DOCKER_CAPABILITIES = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,"
    "sys_chroot,mknod,audit_write,setfcap"
)
CONTAINER = (
    "setpriv",
    "--bounding-set=-all,+" + DOCKER_CAPABILITIES.replace(",", ",+"),
    "--inh-caps=-all",
)
ORDINARY_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")


@dataclass(frozen=True)
class Root:
    """A system and a user that run the two commands.

    Attributes
    ----------
    name : str
    home : str
        The home folder; its owner runs the commands.
    folder : str
        The checkout's folder name in `home`.
    privileges : tuple of str
        The command that drops privileges; empty to keep all.
    umask : int
    cloned : bool
        Whether the checkout is a git clone; otherwise, an unpacked source archive.
    """

    name: str
    home: str = "/root"
    folder: str = "nsynth-super"
    privileges: tuple[str, ...] = ()
    umask: int = 0o022
    cloned: bool = True

    @property
    def path(self) -> Path:
        """The root folder on this machine."""
        return FRESH / self.name

    @property
    def checkout(self) -> Path:
        """The checkout on this machine."""
        return self.path / self.home.lstrip("/") / self.folder


ROOTS = {
    root.name: root
    for root in (
        Root("root"),
        Root("container", privileges=CONTAINER),
        Root("user", "/home/musician", privileges=ORDINARY_USER, umask=0o077),
        Root("archive", cloned=False),
        Root("umlaut", folder="Klänge für später"),
    )
}


def pip_configuration() -> dict[str, str]:
    """Return the options of this machine's pip, from its files and its environment."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    options = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        options[name.rpartition(".")[2]] = value.strip("'\"")
    return {**options, "cache-dir": str(PIP_CACHE)}


def local_paths(options: dict[str, str]) -> Iterator[Path]:
    """Yield the local files and folders that pip's options refer to.

    A local index links to files beside it, so its parent folder is yielded.
    """
    for word in " ".join(options.values()).split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists() and path != PIP_CACHE:
            yield path.parent if word.startswith("file://") else path


def install_pip_configuration(root: Path, options: dict[str, str]) -> list[Path]:
    """Copy this machine's pip configuration; return the folders to bind-mount."""
    config = configparser.ConfigParser(interpolation=None)
    config["global"] = options
    text = io.StringIO()
    config.write(text)
    (root / "etc/pip.conf").write_text(text.getvalue(), encoding="utf-8")
    folders = []
    for path in dict.fromkeys(local_paths(options)):
        inside = root / str(path).lstrip("/")
        if path.is_dir():
            inside.mkdir(parents=True, exist_ok=True)
            folders.append(path)
        else:
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, inside)
    return folders


def check_out(root: Root) -> None:
    """Check out HEAD in the root with its user's umask and ownership."""
    if root.cloned:
        clone = ["git", "clone", "--quiet", "--depth=1", f"file://{REPOSITORY}", str(root.checkout)]
        subprocess.run(clone, check=True, umask=root.umask)
    else:
        root.checkout.mkdir(parents=True)
        archive = subprocess.Popen(
            ["git", "archive", "HEAD"], cwd=REPOSITORY, stdout=subprocess.PIPE
        )
        subprocess.run(
            ["tar", "-x", "--no-same-owner"], cwd=root.checkout, stdin=archive.stdout, check=True
        )
        if archive.wait():
            raise SystemExit("git archive HEAD failed")
    if root.privileges == ORDINARY_USER:
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(root.checkout)], check=True)


def make(root: Root) -> list[Path]:
    """Rebuild the root folder; return the folders of this machine to bind-mount."""
    shutil.rmtree(root.path, ignore_errors=True)
    subprocess.run(["cp", "-a", str(BASE), str(root.path)], check=True)
    for file in ("resolv.conf", "hosts"):
        shutil.copyfile(Path("/etc", file), root.path / "etc" / file)
    (root.path / str(PIP_CACHE).lstrip("/")).mkdir(parents=True)
    check_out(root)
    return install_pip_configuration(root.path, pip_configuration())


def entering(root: Root, folders: list[Path]) -> list[str]:
    """Return the command that enters a root; append the command to run there."""
    mounts = [
        f"mount --rbind /dev {shlex.quote(str(root.path / 'dev'))}",
        f"mount --rbind /sys {shlex.quote(str(root.path / 'sys'))}",
        f"mount -t proc proc {shlex.quote(str(root.path / 'proc'))}",
        f"mount -t tmpfs none {shlex.quote(str(root.path / 'run'))}",
    ]
    bound = [(FRESH / "pip-cache", PIP_CACHE, "--bind")]
    bound += [(folder, folder, "--bind -o ro") for folder in folders]
    for source, inside, how in bound:
        target = root.path / str(inside).lstrip("/")
        mounts.append(f"mount {how} {shlex.quote(str(source))} {shlex.quote(str(target))}")
    environment = {
        "HOME": root.home,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTEST_ARGS": os.environ.get("PYTEST_ARGS", ""),  # to debug this script
    }
    inside = [
        *("chroot", str(root.path), *root.privileges, "env", "-i"),
        *(f"{name}={value}" for name, value in environment.items() if value),
        *("bash", "-c", f'umask {root.umask:03o}; cd "$HOME/$0" && exec "$@"', root.folder),
    ]
    # If this machine's root lacks capabilities, a user namespace provides them.
    limited = Builder.me().is_limited_root
    return [
        *(USER_NAMESPACE if limited and not root.privileges else ()),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("sh", "-c", f'{" && ".join(mounts)} && exec "$@"', "sh", *inside),
    ]


def run(root: Root) -> str:
    """Run the commands in a root; return a line with the results.

    Output goes to .fresh/NAME.log. The root is kept if a command fails.
    """
    folders = make(root)
    results = []
    with (FRESH / f"{root.name}.log").open("w", encoding="utf-8") as log:
        for command in COMMANDS:
            print(f"{root.name}: {command} (output: {log.name})", file=sys.stderr, flush=True)
            began = time.monotonic()
            code = subprocess.run(
                [*entering(root, folders), *command.split()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
            results.append((command, code, time.monotonic() - began))
    passed = not any(code for _, code, _ in results)
    if passed:
        shutil.rmtree(root.path)
    else:
        lines = Path(log.name).read_text(encoding="utf-8", errors="replace").splitlines()
        print(*lines[-LOG_TAIL:], sep="\n", file=sys.stderr)
    each = ", ".join(
        f"{command} {seconds:.0f} s" + (f" (exit {code})" if code else "")
        for command, code, seconds in results
    )
    return f"{root.name:<9} {'pass' if passed else 'FAIL'}  {each}"


def main() -> int:
    """Run the given roots, or all; return 1 if any command failed."""
    parser = argparse.ArgumentParser(prog="tests/fresh/run")
    parser.add_argument("names", nargs="*", metavar="NAME", help=" ".join(ROOTS))
    names = parser.parse_args().names or list(ROOTS)
    if unknown := [name for name in names if name not in ROOTS]:
        parser.error(f"unknown root {', '.join(unknown)} -> choose from {', '.join(ROOTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that subprocess.run kills the root
    cache = FRESH / "pip-cache"
    cache.mkdir(exist_ok=True)
    cache.chmod(0o1777)
    lines = [run(ROOTS[name]) for name in names]
    print(*lines, sep="\n")
    return int(any(" FAIL " in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
