"""Locates the pads and the settings on the synth's SD card.

A card is given as the mounted root of the synth's Linux system, or as its pads folder. Absolute
paths and links on the card are resolved within the card, never on this machine's disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.pack.manifest import NAME as MANIFEST
from nsynth_super.synth.settings import DATA_DIRECTORY, read_synth_settings

PROGRAM = "/home/pi/opt/of/apps/open-nsynth/open-nsynth/bin/data"
"""Folder on the card where the synth's program keeps its settings."""

SETTINGS = "settings.json"
LOCAL = "localSettings.json"
"""Replaces settings.json completely if it exists (ofApp.cpp)."""

CHUNK = 1 << 22  # bytes read or written at once
_MOST_LINKS = 40


@dataclass(frozen=True)
class Card:
    """The locations of pads and settings on a card.

    Attributes
    ----------
    root : Path or None
        Mount point of the card; None if only its pads folder is known.
    pads : Path
        Pads folder; it may not exist yet.
    data_directory : str or None
        The pads folder as the synth sees it; None if unknown.
    settings : Path
        Settings file that the synth reads; without one, the file in the pads folder.
    given : dict or None
        Content of that file; None if it does not exist.
    is_synth : bool
        Whether `settings` is the synth's own file and not just in the pads folder.
    """

    root: Path | None
    pads: Path
    data_directory: str | None
    settings: Path
    given: dict[str, Any] | None
    is_synth: bool

    @property
    def manifest(self) -> Path:
        """Path of the manifest, which lists the pads and their hashes."""
        return self.pads / MANIFEST

    @property
    def overridden(self) -> bool:
        """Whether the synth reads localSettings.json."""
        return self.settings.name == LOCAL

    @property
    def looks_here(self) -> bool:
        """Whether the synth's current settings point to this pads folder."""
        current = _directory(self.given)
        if current is None or self.data_directory is None:
            return self.given is not None and current == self.data_directory
        return PurePosixPath(current) == PurePosixPath(self.data_directory)

    @property
    def on_this_disk(self) -> bool:
        """Whether the pads folder looks like a mount point with nothing mounted."""
        return (
            self.root is None
            and self.pads.stat().st_dev == Path("/").stat().st_dev
            and not any(self.pads.iterdir())
        )

    def bins(self) -> dict[str, int]:
        """Return the size of every pad in the pads folder, by file name."""
        if not self.pads.is_dir():
            return {}
        return {
            path.name: path.stat().st_size
            for path in sorted(self.pads.glob("*.bin"))
            if not path.name.startswith(".")
        }


def find_card(target: Path, folder: str | None = None, synth_settings: Path | None = None) -> Card:
    """Locate the pads and settings of a card.

    Parameters
    ----------
    target : Path
        Mount point of the card, its pads folder, or any folder for pads.
    folder : str, optional
        Pads folder as the synth sees it, such as `/home/pi/pads-drums`; a name without `/` is a
        folder next to the current one.
    synth_settings : Path, optional
        The synth's settings.json, if it is not on the card.

    Raises
    ------
    BadInput
        If `target` is none of these.
    """
    if problem := _folder_problem(target):
        raise BadInput(problem)
    target = Path(os.path.abspath(target))  # do not resolve links: /proc/N/root would lead outside
    root = next((here for here in (target, *target.parents) if _has_program(here)), None)
    if root is None and (problem := _target_problem(target)):
        raise BadInput(problem)
    settings = synth_settings or _settings_of(root or target, root is not None)
    settings = settings.resolve() if settings.is_symlink() else settings
    given = read_synth_settings(settings) if synth_settings or settings.exists() else None
    current = _directory(given)
    if root is None:
        if "pads" in (given or {}) and not synth_settings:
            raise BadInput(_workspace_problem(target))
        if folder and not synth_settings:
            what = f"{target} is not a card's root, so the pads go there"
            raise BadInput(Problem("--folder", what, "give the pads folder as TARGET"))
        directory = _beside(folder, current) if folder else current
        return Card(None, target, directory, settings, given, synth_settings is not None)
    if target == root:
        wanted = _beside(folder, current) if folder else current or DATA_DIRECTORY
        if problem := _partition_problem(root, wanted, settings):
            raise BadInput(problem)
        return Card(root, inside(root, wanted), wanted, settings, given, True)
    if folder:
        raise BadInput(
            Problem("--folder", f"{target} is already a folder on the card", f"give {root} instead")
        )
    here = f"/{target.relative_to(root)}"
    if current and _same(inside(root, current), target):
        here = current  # keep the synth's spelling, which may contain a link
    elif any(target.iterdir()) and not any(target.glob("*.bin")):
        raise BadInput(
            Problem(str(target), "is a folder on the card, but not of pads", f"give {root}")
        )
    return Card(root, target, here, settings, given, True)


def inside(root: Path, path: str) -> Path:
    """Resolve an absolute path of the card to a path here, following links within the card."""
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
    """Return the sha256 of a file, bypassing the page cache where possible.

    The system is advised to drop the file from its page cache, so that it is read from the card.
    Where that is unsupported (macOS) or ignored (tmpfs, some network file systems), or where the
    card or its reader has a cache, an error of the card may go unnoticed. Reinserting the card
    before `verify` rules that out.

    Parameters
    ----------
    path : Path
    each : callable
        Called with the number of bytes of each chunk read.
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
    """Return why a folder, which may not exist yet, is not writable; None if it is."""
    here = next(path for path in (folder, *folder.parents) if path.exists())
    if not here.is_dir():
        return Problem(str(here), "is not a folder", "choose another")
    if os.statvfs(here).f_flag & os.ST_RDONLY:
        mount = next(path for path in (here, *here.parents) if os.path.ismount(path))
        return Problem(
            str(mount),
            "is mounted read-only",
            f"run `sudo mount -o remount,rw {mount}`, then this again",
        )
    if not os.access(here, os.W_OK | os.X_OK):
        return Problem(str(here), "is not writable", "run it with sudo, or check its owner")
    return None


def _has_program(root: Path) -> bool:
    return inside(root, PROGRAM).is_dir()


def _settings_of(root: Path, is_card: bool) -> Path:
    """Return the settings file that the synth reads, or the one in a pads folder."""
    if not is_card:
        return root / SETTINGS
    local = inside(root, f"{PROGRAM}/{LOCAL}")
    return local if local.exists() else inside(root, f"{PROGRAM}/{SETTINGS}")


def _directory(given: dict[str, Any] | None) -> str | None:
    """Return the pads folder given in the synth's settings; None if there is none."""
    directory = (given or {}).get("nsynth", {}).get("dataDirectory")
    return directory if isinstance(directory, str) and directory.startswith("/") else None


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _beside(folder: str, current: str | None) -> str:
    return str(PurePosixPath(current or DATA_DIRECTORY).parent / folder)


def _folder_problem(target: Path) -> Problem | None:
    try:
        if not target.exists():
            return Problem(str(target), "does not exist", "mount the card and give its mount point")
        if not target.is_dir():
            return Problem(
                str(target), "is not a folder", "give the card's mount point, not its device file"
            )
        next(target.iterdir(), None)
    except OSError as error:
        return Problem(
            str(target),
            f"cannot be read ({error.strerror})",
            "run it with sudo, or check its owner",
        )
    return None


def _target_problem(target: Path) -> Problem | None:
    """Return why a folder is not suitable for pads; None if it is."""

    def holds(*names: str) -> bool:
        return all((target / name).exists() for name in names)

    if holds("cmdline.txt", "config.txt"):
        return Problem(
            str(target),
            "is the card's boot partition",
            "give the other, larger partition, which contains home/pi",
        )
    if holds("etc", "usr"):
        return Problem(
            str(target),
            "is a Linux system without the synth's program",
            f"give the synth's card, which contains {PROGRAM}, or its pads folder",
        )
    if holds("audio_input") or holds("plan.json"):
        return _workspace_problem(target)
    if target.name == "pads_output" and target.parent.joinpath("plan.json").exists():
        return Problem(str(target), "is the workspace's pack itself", "give the card")
    return None


def _workspace_problem(target: Path) -> Problem:
    return Problem(str(target), "is a workspace", "give the card; the workspace goes after -w")


def _partition_problem(root: Path, directory: str, settings: Path) -> Problem | None:
    """Return a problem if the pads are on another partition that is not mounted here."""
    wanted = PurePosixPath(directory)
    for point in _mount_points(root):
        if point in (wanted, *wanted.parents) and not os.path.ismount(inside(root, str(point))):
            return Problem(
                str(settings),
                f"{directory} is on a separate partition, which is not mounted at {root}{point}",
                "mount it there, or give its folder with "
                f"--synth-settings {settings} --folder {directory}",
            )
    return None


def _mount_points(root: Path) -> Iterator[PurePosixPath]:
    with suppress(OSError, UnicodeDecodeError):
        for line in inside(root, "/etc/fstab").read_text(encoding="utf-8").splitlines():
            words = line.split("#")[0].split()
            if len(words) > 1 and words[1].startswith("/") and words[1] != "/":
                yield PurePosixPath(words[1])
