"""The instrument's card: where its pads lie, and which settings its device reads.

A card is given as the mounted root of the device's Linux, or as the folder of its pads. Paths that
the card names are its own: they are followed within it, never onto this machine's disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nsynth_super.card.manifest import NAME as MANIFEST
from nsynth_super.device import DATA_DIRECTORY, read_device_settings
from nsynth_super.problems import BadInput, Problem

PROGRAM = "/home/pi/opt/of/apps/open-nsynth/open-nsynth/bin/data"
"""Where the device's program keeps its settings, on the card."""

SETTINGS = "settings.json"
LOCAL = "localSettings.json"
"""If it is there, the device reads it and nothing of settings.json (ofApp.cpp)."""

CHUNK = 1 << 22  # bytes, read or written at once
_MOST_LINKS = 40


@dataclass(frozen=True)
class Card:
    """Where things lie on a card.

    Attributes
    ----------
    root : Path or None
        Its mounted root; None if only its pads' folder is known.
    pads : Path
        The pads' folder; it need not exist yet.
    data_directory : str or None
        That folder as the device sees it; None if nothing says so.
    settings : Path
        The settings that the device reads; without a device's, those beside the pads.
    given : dict or None
        What they hold; None if there are none.
    is_device : bool
        Whether they are a device's own, not just beside the pads.
    """

    root: Path | None
    pads: Path
    data_directory: str | None
    settings: Path
    given: dict[str, Any] | None
    is_device: bool

    @property
    def manifest(self) -> Path:
        """What the pads on the card are, with their hashes."""
        return self.pads / MANIFEST

    @property
    def overridden(self) -> bool:
        """Whether the device reads localSettings.json."""
        return self.settings.name == LOCAL

    @property
    def looks_here(self) -> bool:
        """Whether the device, as it is set now, looks for its pads in this folder."""
        said = _directory(self.given)
        if said is None or self.data_directory is None:
            return self.given is not None and said == self.data_directory
        return PurePosixPath(said) == PurePosixPath(self.data_directory)

    @property
    def on_this_disk(self) -> bool:
        """Whether the folder looks like a mount point with nothing mounted."""
        return (
            self.root is None
            and self.pads.stat().st_dev == Path("/").stat().st_dev
            and not any(self.pads.iterdir())
        )

    def bins(self) -> dict[str, int]:
        """Return the sizes of all pads that lie in the folder, by file name."""
        if not self.pads.is_dir():
            return {}
        return {
            path.name: path.stat().st_size
            for path in sorted(self.pads.glob("*.bin"))
            if not path.name.startswith(".")
        }


def find(target: Path, folder: str | None = None, device_settings: Path | None = None) -> Card:
    """Find what is where on a card.

    Parameters
    ----------
    target : Path
        The card's mounted root, its pads' folder, or any folder to put pads in.
    folder : str, optional
        The pads' folder as the device sees it, such as `/home/pi/pads-drums`; a name alone lies
        beside the present folder.
    device_settings : Path, optional
        The settings that the device reads, where the card does not show them.

    Raises
    ------
    BadInput
        If `target` is no such folder.
    """
    if problem := _no_target(target):
        raise BadInput(problem)
    target = Path(os.path.abspath(target))  # not resolved: /proc/N/root is no place to leave
    root = next((here for here in (target, *target.parents) if _has_program(here)), None)
    if root is None and (problem := _no_card(target)):
        raise BadInput(problem)
    settings = device_settings or _settings_of(root or target, root is not None)
    settings = settings.resolve() if settings.is_symlink() else settings
    given = read_device_settings(settings) if device_settings or settings.exists() else None
    said = _directory(given)
    if root is None:
        if "pads" in (given or {}) and not device_settings:
            raise BadInput(_is_workspace(target))
        if folder and not device_settings:
            what = f"{target} is no card, so that is where the pads go"
            raise BadInput(Problem("--folder", what, "name the folder that you want as TARGET"))
        called = _called(folder, said) if folder else said
        return Card(None, target, called, settings, given, device_settings is not None)
    if target == root:
        wanted = _called(folder, said) if folder else said or DATA_DIRECTORY
        if problem := _elsewhere(root, wanted, settings):
            raise BadInput(problem)
        return Card(root, inside(root, wanted), wanted, settings, given, True)
    if folder:
        raise BadInput(
            Problem("--folder", f"{target} is a folder of the card already", f"name {root} instead")
        )
    here = f"/{target.relative_to(root)}"
    if said and _same(inside(root, said), target):
        here = said  # in the device's own words, which may use a link
    elif any(target.iterdir()) and not any(target.glob("*.bin")):
        raise BadInput(
            Problem(str(target), "is a folder of the card, and not of pads", f"name {root}")
        )
    return Card(root, target, here, settings, given, True)


def inside(root: Path, path: str) -> Path:
    """Return where an absolute path of the card lies here, its links followed within the card."""
    here, hops = root, 0
    parts = list(PurePosixPath(path).parts[1:])
    while parts:
        part = parts.pop(0)
        if part == "..":
            here = root if here == root else here.parent
        elif (step := here / part).is_symlink() and hops < _MOST_LINKS:
            hops += 1
            link = PurePosixPath(os.readlink(step))
            if link.is_absolute():
                here = root
            parts = [name for name in link.parts if name != "/"] + parts
        else:
            here = step
    return here


def digest(path: Path, each: Callable[[int], None] = lambda _: None) -> str:
    """Return a file's sha256 as the card holds it, as far as that can be told from here.

    The system is asked to forget what it remembers of the file, so that it is read from the card
    again. Where it cannot be asked (macOS), or does not obey (a disk in memory, some network
    disks), and in what the card and its reader remember themselves, an error of the card may not
    show. Taking the card out and in again before `verify` leaves no such doubt.

    Parameters
    ----------
    path : Path
    each : callable
        Is told how many bytes were just read.
    """
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        with suppress(OSError, AttributeError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := file.read(CHUNK):
            found.update(chunk)
            each(len(chunk))
    return found.hexdigest()


def unwritable(folder: Path) -> Problem | None:
    """Say why nothing can be written into a folder, which need not exist yet; None if it can."""
    here = next(path for path in (folder, *folder.parents) if path.exists())
    if not here.is_dir():
        return Problem(str(here), "is no folder", "name another")
    if os.statvfs(here).f_flag & os.ST_RDONLY:
        mount = next(path for path in (here, *here.parents) if os.path.ismount(path))
        return Problem(
            str(mount), "is mounted read-only", f"`sudo mount -o remount,rw {mount}`, and again"
        )
    if not os.access(here, os.W_OK | os.X_OK):
        return Problem(str(here), "may not be written by you", "run it with sudo, or see its owner")
    return None


def _has_program(root: Path) -> bool:
    return inside(root, PROGRAM).is_dir()


def _settings_of(root: Path, is_card: bool) -> Path:
    """Return the settings that the device reads, or those beside pads."""
    if not is_card:
        return root / SETTINGS
    local = inside(root, f"{PROGRAM}/{LOCAL}")
    return local if local.exists() else inside(root, f"{PROGRAM}/{SETTINGS}")


def _directory(given: dict[str, Any] | None) -> str | None:
    """Return the pads' folder as the device's settings say it; None if they do not."""
    said = (given or {}).get("nsynth", {}).get("dataDirectory")
    return said if isinstance(said, str) and said.startswith("/") else None


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _called(folder: str, present: str | None) -> str:
    return str(PurePosixPath(present or DATA_DIRECTORY).parent / folder)


def _no_target(target: Path) -> Problem | None:
    try:
        if not target.exists():
            return Problem(
                str(target), "there is no such folder", "mount the card, and name where it is"
            )
        if not target.is_dir():
            return Problem(
                str(target), "is no folder", "name where the card is mounted, not the device"
            )
        next(target.iterdir(), None)
    except OSError as error:
        return Problem(
            str(target), f"cannot be read ({error.strerror})", "run it with sudo, or see its owner"
        )
    return None


def _no_card(target: Path) -> Problem | None:
    """Say what a folder is instead, if it is something that nobody wants pads in."""

    def holds(*names: str) -> bool:
        return all((target / name).exists() for name in names)

    if holds("cmdline.txt", "config.txt"):
        return Problem(
            str(target),
            "is the card's boot partition",
            "name the other, larger one, which has home/pi",
        )
    if holds("etc", "usr"):
        return Problem(
            str(target),
            "is a Linux system without the instrument's program",
            f"name the instrument's card ({PROGRAM} is on it), or its pads' folder",
        )
    if holds("audio_input") or holds("plan.json"):
        return _is_workspace(target)
    if target.name == "pads_output" and target.parent.joinpath("plan.json").exists():
        return Problem(str(target), "is where the pack lies already", "name the card")
    return None


def _is_workspace(target: Path) -> Problem:
    return Problem(str(target), "is a workspace", "name the card; the workspace goes after -w")


def _elsewhere(root: Path, directory: str, settings: Path) -> Problem | None:
    """Notice pads that lie on another partition, which is not mounted here."""
    wanted = PurePosixPath(directory)
    for point in _mount_points(root):
        if point in (wanted, *wanted.parents) and not os.path.ismount(inside(root, str(point))):
            return Problem(
                str(settings),
                f"{directory} is on a partition of its own, which is not mounted at {root}{point}",
                "mount it there, or name its folder with "
                f"--device-settings {settings} --folder {directory}",
            )
    return None


def _mount_points(root: Path) -> Iterator[PurePosixPath]:
    with suppress(OSError, UnicodeDecodeError):
        for line in inside(root, "/etc/fstab").read_text(encoding="utf-8").splitlines():
            words = line.split("#")[0].split()
            if len(words) > 1 and words[1].startswith("/") and words[1] != "/":
                yield PurePosixPath(words[1])
