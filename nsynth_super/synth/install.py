"""Installs a pack on the synth's SD card: copies and verifies pads, then merges the settings.

An interrupted install leaves the synth with complete pads that match its settings, or with missing
pads, which are silent; a truncated pad would crash its program. Pads are therefore written first,
each to a temporary file that is read back and renamed, then the manifest, and the settings last. If
the current settings have another geometry than the new pads, the settings are written first: until
the pads follow, they refer to missing pads.

Packs of the same geometry can share a folder. The synth lists one of them; installing another one
again switches to it without copying. Pads of other packs are not read here but by `verify`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from nsynth_super.base.errors import BadInput, Failed, NsynthSuperError, Problem
from nsynth_super.base.files import (
    explained,
    only_one,
    replacing,
    sha256,
    sweep,
    sync,
    write_bytes,
    write_json,
)
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.manifest import Manifest
from nsynth_super.runtime.progress import Progress, following
from nsynth_super.runtime.signals import Stop
from nsynth_super.synth.card import CHUNK, digest
from nsynth_super.synth.install_plan import InstallPlan


def install_pack(workspace: Workspace, plan: InstallPlan, quiet: bool = False) -> Path | None:
    """Execute an installation plan.

    Parameters
    ----------
    workspace : Workspace
    plan : InstallPlan
    quiet : bool

    Returns
    -------
    Path or None
        Backup of the synth's previous settings; None if they did not change.

    Raises
    ------
    BadInput
        If a pad of the workspace does not match its manifest.
    Failed
        If writing to the card fails, or a pad reads back differently.
    Stopped
        On request. Complete pads stay on the card and are not copied again.
    """
    card, backup = plan.card, None
    busy = f"{card.pads}: another `install` is running there"
    with only_one(card.pads / ".install.lock", busy), Stop() as stop:
        sweep(card.pads)
        if plan.removed:
            _verify_sources(workspace, plan, stop)
            _remove(plan)
        if plan.settings_first:
            backup = _write_settings(plan)
        _copy_all(workspace, plan, stop, quiet)
        if not _matches(card.manifest, plan.listed):
            write_json(card.manifest, plan.listed.card_dict(), indent=2)
            _set_owner(card.manifest, card.pads.stat(), 0o644)
        if not plan.settings_first:
            backup = _write_settings(plan)
    return backup


def _verify_sources(workspace: Workspace, plan: InstallPlan, stop: Stop) -> None:
    """Verify the workspace's pads before removing any from the card."""
    for name in plan.copied:
        stop.here(lambda: "the card is unchanged; run it again to resume")
        if sha256(workspace.pads / name) != plan.pack.pads[name]:
            raise BadInput(_mismatch(workspace.pads / name))


def _mismatch(pad: Path) -> Problem:
    return Problem(
        str(pad),
        "does not match the manifest.json in its folder",
        "remove it, run `nsynth-super pads`, then install again",
    )


def _remove(plan: InstallPlan) -> None:
    """Remove pads, and the manifest last: it identifies the pads that are left."""
    try:
        for name in plan.removed:
            (plan.card.pads / name).unlink(missing_ok=True)
        sync(plan.card.pads)
        if plan.cleared:
            plan.card.manifest.unlink(missing_ok=True)
            sync(plan.card.pads)
    except OSError as error:
        raise explained(error, plan.card.pads) from error


def _copy_all(workspace: Workspace, plan: InstallPlan, stop: Stop, quiet: bool) -> None:
    progress = Progress(
        "install", len(plan.copied), "pads", workspace.status("install"), quiet=quiet
    )
    done = plan.kept

    def each(size: int) -> None:
        # Each byte is written and read back.
        progress.advance(size / plan.pack.geometry.bytes / 2)
        stop.here(
            lambda: f"{done} of {len(plan.pack.pads)} pads are on the card; run it again to resume"
        )

    with following(progress):
        for name in plan.copied:
            _copy(workspace.pads / name, plan.card.pads / name, plan.pack.pads[name], each)
            done += 1


def _copy(source: Path, path: Path, wanted: str, each: Callable[[int], None]) -> None:
    """Copy a pad to a temporary file, verify it and rename it to `path`."""
    with replacing(path) as temporary:
        found = hashlib.sha256()
        with temporary.open("wb") as file:
            for chunk in _chunks(source):
                found.update(chunk)
                file.write(chunk)
                each(len(chunk))
        if found.hexdigest() != wanted:
            raise BadInput(_mismatch(source))
        sync(temporary)
        if digest(temporary, each) != wanted:
            raise Failed(
                f"{path}: reads back differently than written -> the card or its reader is faulty; "
                "try another"
            )
        _set_owner(temporary, path.parent.stat(), 0o644)


def _chunks(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise explained(error, source) from error


def _set_owner(path: Path, like: os.stat_result, mode: int) -> None:
    """Set the mode and owner of a root-written file if the file system stores ownership."""
    with suppress(OSError):
        os.chmod(path, mode)
        os.chown(path, like.st_uid, like.st_gid)


def _matches(path: Path, wanted: Manifest) -> bool:
    try:
        now = Manifest.read(path)
    except NsynthSuperError:
        return False
    return now is not None and now.card_dict() == wanted.card_dict()


def _write_settings(plan: InstallPlan) -> Path | None:
    """Write the synth's settings if they change; return the backup of the previous ones."""
    path, backup = plan.card.settings, None
    if plan.card.given == plan.wanted:
        return None
    try:
        like = path.stat() if path.exists() else None
        if like:
            backup = _unused_backup_name(path)
            write_bytes(backup, path.read_bytes())
            _set_owner(backup, like, like.st_mode & 0o777)
        write_json(path, plan.wanted, indent=2)
        _set_owner(path, like or path.parent.stat(), like.st_mode & 0o777 if like else 0o644)
    except OSError as error:
        raise explained(error, path) from error
    return backup


def _unused_backup_name(path: Path) -> Path:
    """Return a backup name for `path` that does not exist yet."""
    name = f"{path.name}.backup-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = [name, *(f"{name}-{number}" for number in range(2, 1000))]
    return next(each for each in map(path.with_name, names) if not each.exists())
