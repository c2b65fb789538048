"""install: a pack onto the instrument's card: pads copied and read back, then its settings merged.

Wherever it ends, the device finds pads that are whole and of the geometry that its settings say, or
finds none and is silent: a short pad would end its program. So pads come first, each copied aside
and read back before it gets its name, then the manifest, and the settings last. Only where the
present settings have another geometry than the new pads do the settings come first: they name pads
that are not there yet, which is silence.

Packs lie side by side in one folder where their geometry agrees. What the device lists is one of
them; installing the other again switches, for its pads are there. Pads of other packs are not read
here: that is what `verify` is for.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from nsynth_super.card import CHUNK, digest
from nsynth_super.card.installation import Work
from nsynth_super.card.manifest import Manifest
from nsynth_super.files import (
    explained,
    only_one,
    replacing,
    sha256,
    sweep,
    sync,
    write_bytes,
    write_json,
)
from nsynth_super.problems import BadInput, Failed, NsynthSuperError, Problem
from nsynth_super.progress import Progress, Stop, following
from nsynth_super.workspace import Workspace


def run(workspace: Workspace, work: Work, quiet: bool = False) -> Path | None:
    """Do what was planned.

    Parameters
    ----------
    workspace : Workspace
    work : Work
    quiet : bool

    Returns
    -------
    Path or None
        Where the device's settings were kept before they changed; None if they did not.

    Raises
    ------
    BadInput
        If a pad of the workspace is not what its manifest says.
    Failed
        If the card cannot hold the pack, or reads back something else than was written.
    Stopped
        On request: pads that are whole on the card stay, and need not be copied again.
    """
    card, backup = work.card, None
    busy = f"{card.pads}: another `install` is at work there"
    with only_one(card.pads / ".install.lock", busy), Stop() as stop:
        sweep(card.pads)
        if work.removed:
            _prove(workspace, work, stop)
            _remove(work)
        if work.settings_first:
            backup = _settle(work)
        _copy_all(workspace, work, stop, quiet)
        if not _holds(card.manifest, work.listed):
            write_json(card.manifest, work.listed.as_dict(), indent=2)
            _give(card.manifest, card.pads.stat(), 0o644)
        if not work.settings_first:
            backup = _settle(work)
    return backup


def _prove(workspace: Workspace, work: Work, stop: Stop) -> None:
    """Read the workspace's pads before any of the card's make way for them."""
    for name in work.copied:
        stop.here(lambda: "nothing on the card is changed yet; run it again to go on")
        if sha256(workspace.pads / name) != work.pack.pads[name]:
            raise BadInput(_not_itself(workspace.pads / name))


def _not_itself(pad: Path) -> Problem:
    return Problem(
        str(pad),
        "is not what manifest.json beside it says",
        "remove it, run `nsynth-super pads`, then this again",
    )


def _remove(work: Work) -> None:
    """Take away pads; their manifest last: as long as one is there, it says what that is."""
    try:
        for name in work.removed:
            (work.card.pads / name).unlink(missing_ok=True)
        sync(work.card.pads)
        if work.cleared:
            work.card.manifest.unlink(missing_ok=True)
            sync(work.card.pads)
    except OSError as error:
        raise explained(error, work.card.pads) from error


def _copy_all(workspace: Workspace, work: Work, stop: Stop, quiet: bool) -> None:
    progress = Progress(
        "install", len(work.copied), "pads", workspace.status("install"), quiet=quiet
    )
    done = work.kept

    def each(size: int) -> None:
        # Written and read back: each byte of a pad is met twice.
        progress.advance(size / work.pack.geometry.bytes / 2)
        stop.here(
            lambda: f"{done} of {len(work.pack.pads)} pads are on the card; run it again to go on"
        )

    with following(progress):
        for name in work.copied:
            _copy(workspace.pads / name, work.card.pads / name, work.pack.pads[name], each)
            done += 1


def _copy(source: Path, path: Path, wanted: str, each: Callable[[int], None]) -> None:
    """Copy a pad aside, read it back, and give it its name if it is what it should be."""
    with replacing(path) as temporary:
        found = hashlib.sha256()
        with temporary.open("wb") as file:
            for chunk in _chunks(source):
                found.update(chunk)
                file.write(chunk)
                each(len(chunk))
        if found.hexdigest() != wanted:
            raise BadInput(_not_itself(source))
        sync(temporary)
        if digest(temporary, each) != wanted:
            raise Failed(
                f"{path}: reads back other than it was written -> the card or its reader fails; "
                "try another"
            )
        _give(temporary, path.parent.stat(), 0o644)


def _chunks(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise explained(error, source) from error


def _give(path: Path, like: os.stat_result, mode: int) -> None:
    """Let the device's own user have a file that root writes, where a card can say whose it is."""
    with suppress(OSError):
        os.chmod(path, mode)
        os.chown(path, like.st_uid, like.st_gid)


def _holds(path: Path, wanted: Manifest) -> bool:
    try:
        now = Manifest.read(path)
    except NsynthSuperError:
        return False
    return now is not None and now.as_dict() == wanted.as_dict()


def _settle(work: Work) -> Path | None:
    """Write the device's settings, if they change; return where the ones before are kept."""
    path, kept = work.card.settings, None
    if work.card.given == work.wanted:
        return None
    try:
        like = path.stat() if path.exists() else None
        if like:
            kept = _backup(path)
            write_bytes(kept, path.read_bytes())
            _give(kept, like, like.st_mode & 0o777)
        write_json(path, work.wanted, indent=2)
        _give(path, like or path.parent.stat(), like.st_mode & 0o777 if like else 0o644)
    except OSError as error:
        raise explained(error, path) from error
    return kept


def _backup(path: Path) -> Path:
    """Return a name beside `path` that no earlier backup has."""
    name = f"{path.name}.backup-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = [name, *(f"{name}-{number}" for number in range(2, 1000))]
    return next(there for there in map(path.with_name, names) if not there.exists())
